//! Bounds, orders and late replies, on the virtual clock and so exact.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use seatrial_core::arrival::DemandLaw;
use seatrial_core::engine::{LoadPlan, LoadResult};
use seatrial_core::record::{Outcome, Phase};
use seatrial_core::transport::ReplyOrder;
use seatrial_core::transport::fake::{FakeModel, Fault, Stall};
use seatrial_core::units::Nanos;
use support::{MILLISECOND, SECOND, constant_ms, fake, open, outcomes, plan, run};

/// A server of this order that does nothing from 0.25 s to 0.75 s.
fn stalled(order: ReplyOrder) -> FakeModel {
    FakeModel {
        order,
        stalls: vec![Stall {
            at: Nanos::new(SECOND / 4),
            duration: Nanos::new(SECOND / 2),
        }],
        ..fake()
    }
}

#[test]
fn an_expired_request_keeps_its_place_only_where_replies_come_in_order() {
    let result_of = |order| {
        let result = run(&LoadPlan {
            arrival: open("fixed", 100.0),
            demand: constant_ms(1),
            request_timeout: Nanos::new(100 * MILLISECOND),
            ..plan(stalled(order))
        });
        let LoadResult {
            counters,
            late_reply_count,
            ..
        } = result;
        assert_eq!(counters.intended_count, 100);
        (counters, late_reply_count)
    };
    // In order: 0.25 s is on the only place until 0.45 s, when the connection is given up and made
    // anew for 0.36 s, and so on: 0.47 and 0.58 s. Those in between are too late for a place. The
    // reply to the last of the four comes late, after the stall.
    let (fifo, late_count) = result_of(ReplyOrder::Fifo);
    assert_eq!((fifo.timeout_count, fifo.unsent_count), (4, 37));
    assert_eq!((fifo.ok_count, late_count), (59, 1));
    // By id: 0.25 s gives its place up at 0.35 s to 0.26 s, which has 10 ms left, and so on: 0.25
    // to 0.65 s are all sent and too late, and so are four more behind what the server then has to do.
    let (by_id, late_count) = result_of(ReplyOrder::ById);
    assert_eq!((by_id.timeout_count, by_id.unsent_count), (45, 0));
    assert_eq!(by_id.ok_count, 55);
    assert_eq!(
        late_count, by_id.timeout_count,
        "each late reply is counted"
    );
}

#[test]
fn replies_by_id_may_overtake_each_other() {
    let result = run(&LoadPlan {
        arrival: open("poisson", 1_500.0),
        demand: DemandLaw::parse("exponential:1ms").unwrap(),
        depth: 64,
        ..plan(FakeModel {
            workers: 3,
            order: ReplyOrder::ById,
            ..fake()
        })
    });
    assert_eq!(result.counters.ok_count, result.counters.intended_count);
    let records = &result.records[0];
    assert!(!records.done_at_ns.values.is_sorted(), "some did overtake");
    for index in 0..records.len() {
        let service = records.done_at_ns.values[index] - records.sent_at_ns.values[index];
        assert!(
            service >= records.demand_ns[index],
            "its own reply, not another's"
        );
    }
}

#[test]
fn a_reply_to_an_id_that_was_never_sent_breaks_the_connection() {
    for order in [ReplyOrder::Fifo, ReplyOrder::ById] {
        let result = run(&LoadPlan {
            arrival: open("fixed", 100.0),
            demand: constant_ms(1),
            ..plan(FakeModel {
                order,
                faults: vec![(Nanos::new(SECOND / 2), Fault::WrongId)],
                ..fake()
            })
        });
        assert_eq!(result.counters.protocol_error_count, 1, "{order:?}");
        assert_eq!(result.failures.len(), 1);
        assert_eq!(&*result.failures[0].text, "a reply that answers no request");
    }
}

#[test]
fn an_announced_end_is_no_failure_of_the_connection() {
    let ends = |count: u64| (1..=count).map(|k| (Nanos::new(k * 2 * MILLISECOND), Fault::Announce));
    let result = run(&LoadPlan {
        arrival: open("fixed", 1_000.0),
        ..plan(FakeModel {
            service: constant_ms(0),
            faults: ends(400).collect(),
            ..fake()
        })
    });
    // 400 ends in a row are far more than the failures after which a connection is given up.
    assert_eq!(result.counters.ok_count, 1_000, "{:?}", result.counters);
    let busy = run(&LoadPlan {
        arrival: open("fixed", 1_000.0),
        demand: constant_ms(3),
        depth: 4,
        request_timeout: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        ..plan(FakeModel {
            faults: vec![(Nanos::new(SECOND / 2), Fault::Announce)],
            ..fake()
        })
    });
    assert_eq!(outcomes(&busy, Outcome::Reset), 4, "what was on it is lost");
    let told: Vec<_> = busy
        .failures
        .iter()
        .map(|row| (&*row.text, row.count))
        .collect();
    assert_eq!(told, [("closed by the peer, as it had announced", 4)]);
}

#[test]
fn a_bound_on_outstanding_requests_queues_and_hides_no_delay() {
    let result = run(&LoadPlan {
        arrival: open("fixed", 100.0),
        demand: constant_ms(15),
        connections: 8,
        outstanding_max: Some(2),
        request_timeout: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        ..plan(FakeModel {
            workers: 8,
            ..fake()
        })
    });
    // Two at once of 15 ms each are 133/s: the third waits 5 ms, and so on in a pattern of two.
    assert_eq!(result.counters.ok_count, 100);
    assert_eq!(result.queued_count, 0, "133/s can be served");
    let tight = run(&LoadPlan {
        outstanding_max: Some(1),
        arrival: open("fixed", 100.0),
        demand: constant_ms(15),
        connections: 8,
        request_timeout: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        ..plan(FakeModel {
            workers: 8,
            ..fake()
        })
    });
    // One at once: request k is sent at 15 k ms instead of 10 k ms.
    assert_eq!(tight.queued_count, 99);
    assert_eq!(tight.queue.count(), 99);
    assert_eq!(tight.queue.max(), Some(Nanos::new(99 * 5 * MILLISECOND)));
    let longest = Nanos::new(99 * 5 * MILLISECOND + 15 * MILLISECOND);
    assert_eq!(
        tight.response.max(),
        Some(longest),
        "the wait is in the response time"
    );
    assert_eq!(tight.service.max(), Some(Nanos::new(15 * MILLISECOND)));
    assert_eq!(
        tight.pacing_lag.max(),
        Some(Nanos::ZERO),
        "the engine was never late"
    );
}

#[test]
fn cool_down_is_offered_and_not_counted() {
    let result = run(&LoadPlan {
        arrival: open("fixed", 100.0),
        warm_up: Nanos::new(SECOND / 2),
        cool_down: Nanos::new(SECOND / 4),
        ..plan(fake())
    });
    let of_phase = |phase: Phase| {
        let phases = result.records[0].phase.iter();
        phases
            .map(|code| u32::from(*code == phase as u8))
            .sum::<u32>()
    };
    assert_eq!(of_phase(Phase::WarmUp), 50);
    assert_eq!(of_phase(Phase::Measure), 100);
    assert_eq!(of_phase(Phase::CoolDown), 25);
    assert_eq!(result.counters.intended_count, 175);
    assert_eq!(result.measured.intended_count, 100);
    assert_eq!(result.response.count(), 100);
    let measured = result.measure_start.until(result.measure_end);
    assert_eq!(measured, Nanos::new(SECOND));
}

#[test]
fn every_failure_has_its_reason_and_the_counts_agree() {
    let mut model = stalled(ReplyOrder::Fifo);
    model
        .faults
        .push((Nanos::new(SECOND * 8 / 10), Fault::Failure));
    model.faults.push((Nanos::new(SECOND * 9 / 10), Fault::Die));
    let result = run(&LoadPlan {
        arrival: open("fixed", 1_000.0),
        request_timeout: Nanos::new(50 * MILLISECOND),
        ..plan(model)
    });
    let of = |outcome| {
        let rows = result.failures.iter().filter(|row| row.outcome == outcome);
        rows.map(|row| row.count).sum::<u64>()
    };
    let counters = result.counters;
    assert_eq!(of(Outcome::Timeout), counters.timeout_count);
    assert_eq!(of(Outcome::Unsent), counters.unsent_count);
    assert_eq!(of(Outcome::Refused), counters.refused_count);
    assert_eq!(of(Outcome::ApplicationError), 1);
    assert!(counters.refused_count > 0 && counters.unsent_count > 0);
    let has = |text: &str| result.failures.iter().any(|row| row.text.contains(text));
    assert!(
        has("Connection refused") && has("scripted failure"),
        "{:?}",
        result.failures
    );
}

#[test]
fn a_closed_loop_thinks_between_a_reply_and_the_next_request() {
    let result = run(&LoadPlan {
        demand: constant_ms(1),
        think: constant_ms(9),
        connections: 2,
        ..plan(FakeModel {
            workers: 2,
            ..fake()
        })
    });
    // Each place: 9 ms of thought, 1 ms of service, a hundred times in the second.
    assert_eq!(result.counters.ok_count, 2 * 100);
    assert_eq!(result.response.max(), Some(Nanos::new(MILLISECOND)));
    assert_eq!(
        (result.queued_count, result.send_lag.max()),
        (0, Some(Nanos::ZERO))
    );
    assert_eq!(
        result.records[0].intended_at_ns[..2],
        [9_000_000, 9_000_000]
    );
}

#[test]
fn users_that_think_have_the_throughput_of_the_machine_repair_model() {
    let length = 400;
    let result = run(&LoadPlan {
        demand: DemandLaw::parse("exponential:5ms").unwrap(),
        think: DemandLaw::parse("exponential:10ms").unwrap(),
        connections: 3,
        measure: Nanos::new(length * SECOND),
        ..plan(fake())
    });
    // M/M/1//N: the server is idle with probability 1 / sum of N! / (N - n)! (5 / 10)^n.
    let idle = 1.0 / (1.0 + 3.0 * 0.5 + 6.0 * 0.25 + 6.0 * 0.125);
    let right = (1.0 - idle) / 0.005 * length as f64;
    let told = result.counters.ok_count as f64;
    assert!((told / right - 1.0).abs() < 0.02, "{told}, not {right}");
    // By Little's law a user is away for N / throughput, less the time to think.
    let response = 3.0 / ((1.0 - idle) / 0.005) - 0.010;
    let mean = result.response.mean_ns().unwrap() / 1e9;
    assert!(
        (mean / response - 1.0).abs() < 0.03,
        "{mean}, not {response}"
    );
}
