//! The engine against a real UDP server on loopback: what happens, never how fast.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use std::cell::RefCell;

use seatrial_core::engine::plan::ProtocolKind;
use seatrial_core::engine::{Counters, LoadPlan};
use seatrial_core::record::Outcome;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use seatrial_core::wire::Operation;
use support::datagrams::{DatagramServer, echo, rpc};
use support::{MILLISECOND, SECOND, open, run};

/// A closed loop of 200 echoes on one connection, with a time limit that is never reached.
fn plan(server: &DatagramServer) -> LoadPlan {
    LoadPlan {
        targets: vec![Target::parse(&server.target).unwrap()],
        targets_text: vec![server.target.clone()],
        protocol: ProtocolKind::Echo,
        payload_bytes: 64,
        measure: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        requests_max: 200,
        ..support::plan(support::fake())
    }
}

#[test]
fn every_datagram_is_answered_whatever_the_protocol_and_the_depth() {
    let echoes = DatagramServer::new(echo);
    let rpcs = DatagramServer::new(rpc);
    let in_parallel = |plan| LoadPlan {
        connections: 3,
        threads: 2,
        // As many as the server's socket surely has room for.
        depth: 8,
        ..plan
    };
    let as_rpc = LoadPlan {
        protocol: ProtocolKind::Rpc,
        payload_bytes: 1_000,
        ..plan(&rpcs)
    };
    let plans = [
        plan(&echoes),
        in_parallel(plan(&echoes)),
        as_rpc.clone(),
        in_parallel(as_rpc),
    ];
    for plan in plans {
        let result = run(&plan);
        assert_eq!(result.counters.ok_count, 200, "{:?}", result.counters);
        assert_eq!(result.counters.sent_count, 200);
    }
}

/// Loses every hundredth datagram.
fn lose_some(datagram: &[u8], number: u64) -> Vec<Vec<u8>> {
    if number % 100 == 99 {
        return Vec::new();
    }
    vec![datagram.to_vec()]
}

#[test]
fn what_is_lost_is_a_time_out_and_the_run_goes_on() {
    let server = DatagramServer::new(lose_some);
    let result = run(&LoadPlan {
        arrival: open("poisson", 4_000.0),
        connections: 2,
        depth: 64,
        request_timeout: Nanos::new(300 * MILLISECOND),
        requests_max: 6_000,
        ..plan(&server)
    });
    let Counters {
        sent_count,
        ok_count,
        timeout_count,
        ..
    } = result.counters;
    assert_eq!((sent_count, ok_count + timeout_count), (6_000, 6_000));
    let loss = timeout_count as f64 / sent_count as f64;
    assert!((0.007..=0.013).contains(&loss), "{loss} of {sent_count}");
    let told: Vec<_> = result.failures.iter().collect();
    assert!(
        told.iter()
            .all(|failure| failure.outcome == Outcome::Timeout),
        "{told:?}"
    );
}

/// Answers the first of two datagrams after the second, and every one twice.
fn swap_and_repeat(datagram: &[u8], number: u64) -> Vec<Vec<u8>> {
    thread_local! {
        static KEPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    if number % 2 == 0 {
        KEPT.set(datagram.to_vec());
        return Vec::new();
    }
    let (first, second) = (KEPT.take(), datagram.to_vec());
    vec![second.clone(), first.clone(), second, first]
}

#[test]
fn what_is_overtaken_or_comes_twice_is_counted() {
    let server = DatagramServer::new(swap_and_repeat);
    let result = run(&LoadPlan {
        depth: 2,
        ..plan(&server)
    });
    assert_eq!(result.counters.ok_count, 200, "{:?}", result.counters);
    // The ids of a pair are dealt in order, so one of the two is overtaken.
    assert_eq!(result.transport.reordered_count, 100);
    let copies = result.transport.duplicate_count + result.late_reply_count;
    assert!(
        (190..=200).contains(&copies),
        "the last pair's may come too late: {copies}"
    );
}

/// Answers nothing that fits: cut short, or with more than the reply, by turns.
fn wrong_length(datagram: &[u8], number: u64) -> Vec<Vec<u8>> {
    let longer = [datagram, b"more"].concat();
    match number {
        0 => vec![datagram[..60].to_vec()],
        1 => vec![longer],
        _ => vec![datagram.to_vec()],
    }
}

#[test]
fn a_datagram_that_is_no_reply_is_a_protocol_error() {
    let server = DatagramServer::new(wrong_length);
    let result = run(&plan(&server));
    assert_eq!(result.counters.protocol_error_count, 2);
    assert_eq!(result.counters.ok_count, 198);
}

#[test]
fn nobody_listening_fails_requests_and_not_the_run() {
    let server = DatagramServer::new(echo);
    let plan = LoadPlan {
        measure: Nanos::new(50 * MILLISECOND),
        ..plan(&server)
    };
    drop(server);
    let counters = run(&plan).counters;
    assert_eq!(counters.ok_count, 0);
    assert!(counters.error_count() > 0, "{counters:?}");
    assert_eq!(counters.timeout_count, 0, "the host said so: {counters:?}");
}

#[test]
fn what_does_not_fit_into_a_datagram_is_refused() {
    let server = DatagramServer::new(echo);
    for payload_bytes in [7, 65_508] {
        let plan = LoadPlan {
            payload_bytes,
            ..plan(&server)
        };
        let told = plan.validate().unwrap_err();
        assert_eq!(told.code(), "invalid-plan");
        assert!(told.to_string().contains("payload_bytes"), "{told}");
    }
    let large_reply = LoadPlan {
        protocol: ProtocolKind::Rpc,
        operation: Operation::Checksum,
        options: [("reply_bytes".to_owned(), "65476".to_owned())].into(),
        ..plan(&server)
    };
    let told = large_reply.validate().unwrap_err().to_string();
    assert!(told.contains("reply_bytes=65476"), "{told}");
}
