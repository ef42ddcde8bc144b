//! The engine against real sockets on loopback: what happens, never how fast.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use std::sync::Arc;

use seatrial_core::engine::plan::{Loop, ProtocolKind};
use seatrial_core::engine::{LoadPlan, LoadResult, run_load};
use seatrial_core::pacer::WaitMode;
use seatrial_core::record::{Outcome, RecordColumns};
use seatrial_core::stop::StopSignal;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use seatrial_core::wire::{Operation, Status};
use support::server::{Server, Stream, echo, read_request, reply_to, rpc};
use support::{MILLISECOND, SECOND, open, outcomes, run};

/// A closed loop of 200 rpc requests on one connection, with a time limit that is never reached.
fn plan(server: &Server) -> LoadPlan {
    LoadPlan {
        targets: vec![Target::parse(&server.target).unwrap()],
        targets_text: vec![server.target.clone()],
        measure: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        requests_max: 200,
        ..support::plan(support::fake())
    }
}

fn all_records(result: &LoadResult) -> impl Iterator<Item = (&RecordColumns, usize)> {
    result
        .records
        .iter()
        .flat_map(|records| (0..records.len()).map(move |index| (records, index)))
}

/// Every request was answered, and its instants are in order.
fn check_all_ok(result: &LoadResult, count: u64) {
    assert_eq!(result.counters.ok_count, count, "{:?}", result.counters);
    assert_eq!(result.counters.intended_count, count);
    let mut ids = Vec::new();
    for (records, index) in all_records(result) {
        let instants = [
            records.intended_at_ns[index],
            records.sent_at_ns.values[index],
            records.first_byte_at_ns.values[index],
            records.done_at_ns.values[index],
        ];
        assert!(instants.is_sorted(), "{instants:?}");
        ids.push(records.request_id[index]);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..count).collect::<Vec<_>>());
}

#[test]
fn closed_loop_over_tcp_and_unix_with_both_protocols() {
    let tcp: [Server; 2] = [Server::tcp(rpc), Server::tcp(echo)];
    let unix = [Server::unix("rpc", rpc), Server::unix("echo", echo)];
    for [rpc_server, echo_server] in [&tcp, &unix] {
        let checked = LoadPlan {
            operation: Operation::Checksum,
            payload_bytes: 1_000,
            ..plan(rpc_server)
        };
        check_all_ok(&run(&checked), 200);
        let echoed = LoadPlan {
            protocol: ProtocolKind::Echo,
            payload_bytes: 64,
            ..plan(echo_server)
        };
        check_all_ok(&run(&echoed), 200);
    }
}

#[test]
fn threads_connections_and_depth_multiply() {
    let server = Server::tcp(rpc);
    let plan = LoadPlan {
        threads: 3,
        connections: 7,
        depth: 4,
        ..plan(&server)
    };
    let result = run(&plan);
    check_all_ok(&result, 200);
    assert_eq!(result.records.len(), 3, "one block a thread");
    for (member, records) in result.records.iter().enumerate() {
        for index in 0..records.len() {
            assert_eq!(records.connection.values[index] as usize % 3, member);
            assert_eq!(
                usize::try_from(records.request_id[index] % 3).unwrap(),
                member
            );
        }
    }
    assert!(result.usage.user.get() + result.usage.system.get() > 0);
}

#[test]
fn open_loop_sends_the_schedule_whatever_the_thread_count() {
    let server = Server::tcp(rpc);
    let offsets = |threads, wait| {
        let plan = LoadPlan {
            arrival: open("poisson", 5_000.0),
            threads,
            connections: 4,
            wait,
            ..plan(&server)
        };
        let result = run(&plan);
        check_all_ok(&result, 200);
        let start = result.started_at.as_i64();
        let mut rows: Vec<_> = all_records(&result)
            .map(|(records, index)| {
                (
                    records.request_id[index],
                    records.intended_at_ns[index] - start,
                )
            })
            .collect();
        rows.sort_unstable();
        rows
    };
    let alone = offsets(1, WaitMode::Block);
    assert_eq!(alone, offsets(2, WaitMode::Hybrid));
    assert_eq!(alone, offsets(4, WaitMode::Block));
}

#[test]
fn a_frame_larger_than_the_buffers_is_written_in_parts() {
    let server = Server::tcp(rpc);
    let plan = LoadPlan {
        operation: Operation::Checksum,
        payload_bytes: 1 << 20,
        depth: 8,
        requests_max: 24,
        ..plan(&server)
    };
    check_all_ok(&run(&plan), 24);
}

/// Collects eight requests and answers all of them with one write.
fn answer_eight_at_once(stream: &mut dyn Stream, _number: usize) {
    loop {
        let mut replies = Vec::new();
        for _ in 0..8 {
            let Some(header) = read_request(stream) else {
                return;
            };
            replies.extend(reply_to(&header, Status::Ok));
        }
        stream.write_all(&replies).unwrap();
    }
}

#[test]
fn replies_in_one_read_are_records_of_their_own() {
    let server = Server::tcp(answer_eight_at_once);
    let result = run(&LoadPlan {
        depth: 8,
        ..plan(&server)
    });
    check_all_ok(&result, 200);
}

/// Answers byte by byte, so that every reply needs many reads.
fn drip(stream: &mut dyn Stream, _number: usize) {
    while let Some(header) = read_request(stream) {
        for byte in reply_to(&header, Status::Ok) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    }
}

#[test]
fn replies_in_many_reads_are_put_together() {
    let server = Server::tcp(drip);
    let result = run(&plan(&server));
    check_all_ok(&result, 200);
}

/// Closes each connection after ten requests, in the middle of the eleventh's reply.
fn close_after_ten(stream: &mut dyn Stream, _number: usize) {
    for _ in 0..10 {
        let Some(header) = read_request(stream) else {
            return;
        };
        stream.write_all(&reply_to(&header, Status::Ok)).unwrap();
    }
    if let Some(header) = read_request(stream) {
        stream
            .write_all(&reply_to(&header, Status::Ok)[..5])
            .unwrap();
    }
}

#[test]
fn a_closed_connection_is_made_again_and_its_request_is_reset() {
    let server = Server::tcp(close_after_ten);
    let result = run(&LoadPlan {
        requests_max: 110,
        ..plan(&server)
    });
    assert_eq!(result.counters.ok_count, 100);
    assert_eq!(outcomes(&result, Outcome::Reset), 10);
    for (records, index) in all_records(&result) {
        if records.outcome[index] == Outcome::Reset as u8 {
            assert!(
                records.first_byte_at_ns.is_known(index),
                "five bytes of it came"
            );
            assert!(!records.done_at_ns.is_known(index));
        }
    }
}

/// Answers the first connection's requests with garbage, all others well.
fn garbage_first(stream: &mut dyn Stream, number: usize) {
    if number > 0 {
        return rpc(stream, number);
    }
    if read_request(stream).is_some() {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    }
}

#[test]
fn garbage_is_a_protocol_error_of_one_request() {
    let server = Server::tcp(garbage_first);
    let result = run(&plan(&server));
    assert_eq!(result.counters.protocol_error_count, 1);
    assert_eq!(result.counters.ok_count, 199);
}

/// Reports every second request as failed.
fn fail_every_second(stream: &mut dyn Stream, _number: usize) {
    while let Some(header) = read_request(stream) {
        let status = if header.request_id % 2 == 0 {
            Status::Ok
        } else {
            Status::TooLarge
        };
        if stream.write_all(&reply_to(&header, status)).is_err() {
            return;
        }
    }
}

#[test]
fn a_failure_that_the_server_reports_is_an_application_error() {
    let server = Server::tcp(fail_every_second);
    let result = run(&plan(&server));
    assert_eq!(
        (result.counters.ok_count, result.counters.error_count()),
        (100, 100)
    );
}

/// Reads and never answers.
fn swallow(stream: &mut dyn Stream, _number: usize) {
    while read_request(stream).is_some() {}
}

#[test]
fn requests_without_a_reply_time_out() {
    let server = Server::tcp(swallow);
    let plan = LoadPlan {
        connections: 3,
        measure: Nanos::new(200 * MILLISECOND),
        request_timeout: Nanos::new(20 * MILLISECOND),
        drain: Nanos::new(SECOND),
        ..plan(&server)
    };
    let result = run(&plan);
    // Each connection is given up and made anew after twice the time-out: a few tries in 200 ms.
    let tries = result.counters.intended_count;
    assert!((6..=15).contains(&tries), "{tries}");
    assert_eq!(result.counters.timeout_count, tries);
    assert_eq!(result.measure_start.until(result.measure_end), plan.measure);
}

#[test]
fn a_target_that_turns_us_away_is_an_error_before_the_load() {
    let server = Server::tcp(rpc);
    let gone = plan(&server);
    drop(server);
    let stop = Arc::new(StopSignal::new().unwrap());
    for threads in [1, 2] {
        let plan = LoadPlan {
            connections: 2,
            threads,
            ..gone.clone()
        };
        let error = run_load(&plan, &stop).unwrap_err();
        assert_eq!(error.code(), "connect-failed");
        assert!(error.to_string().contains(&plan.targets_text[0]), "{error}");
    }
}

#[test]
fn a_stop_ends_the_load_and_keeps_what_was_measured() {
    let server = Server::tcp(rpc);
    for arrival in [Loop::Closed, open("fixed", 0.001)] {
        let plan = LoadPlan {
            arrival,
            requests_max: u64::MAX,
            records_max: 1_000,
            ..plan(&server)
        };
        let stop = Arc::new(StopSignal::new().unwrap());
        let raiser = Arc::clone(&stop);
        let result = std::thread::scope(|scope| {
            let load = scope.spawn(|| run_load(&plan, &stop));
            raiser.raise();
            load.join().unwrap().unwrap()
        });
        assert!(result.was_interrupted);
        assert!(result.measure_end < result.started_at.later_by(plan.measure));
    }
}

#[test]
fn plans_out_of_bounds_are_refused_before_anything_is_sent() {
    let good = support::plan(support::fake());
    let stop = Arc::new(StopSignal::new().unwrap());
    let bad = [
        LoadPlan {
            connections: 0,
            ..good.clone()
        },
        LoadPlan {
            connections: 10_001,
            ..good.clone()
        },
        LoadPlan {
            threads: 2,
            ..good.clone()
        },
        LoadPlan {
            depth: 0,
            ..good.clone()
        },
        LoadPlan {
            measure: Nanos::ZERO,
            ..good.clone()
        },
        LoadPlan {
            drain: Nanos::MAX,
            ..good.clone()
        },
        LoadPlan {
            request_timeout: Nanos::ZERO,
            ..good.clone()
        },
        LoadPlan {
            payload_bytes: (1 << 20) + 1,
            ..good.clone()
        },
        LoadPlan {
            requests_max: 0,
            ..good.clone()
        },
        LoadPlan {
            records_max: u64::MAX,
            ..good.clone()
        },
        LoadPlan {
            protocol: ProtocolKind::Echo,
            ..good.clone()
        },
        LoadPlan {
            operation: Operation::Sleep,
            ..good.clone()
        },
        LoadPlan {
            wait: WaitMode::Hybrid,
            ..good.clone()
        },
    ];
    for plan in bad {
        let error = run_load(&plan, &stop).unwrap_err();
        assert_eq!(error.code(), "invalid-plan", "{plan:?}");
    }
}
