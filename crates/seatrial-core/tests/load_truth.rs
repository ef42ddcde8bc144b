//! What a load must not hide: stalls, splits, merges. On the virtual clock and so exact, or against
//! real sockets where only counts matter.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use std::sync::Arc;

use seatrial_core::engine::{LoadPlan, LoadResult, Watch, run_watched_load};
use seatrial_core::histogram::Histogram;
use seatrial_core::stop::StopSignal;
use seatrial_core::transport::fake::Stall;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use support::server::{Server, echo, rpc};
use support::{MILLISECOND, SECOND, fake, open, plan, run};

/// 1000 requests a second for four seconds, with the server gone for 200 ms in the middle.
fn stalled(connections: u32) -> LoadResult {
    let mut model = fake();
    model.stalls.push(Stall {
        at: Nanos::new(2 * SECOND),
        duration: Nanos::new(200 * MILLISECOND),
    });
    run(&LoadPlan {
        arrival: open("poisson", 1_000.0),
        demand: seatrial_core::arrival::DemandLaw::Constant(Nanos::new(100_000)),
        connections,
        measure: Nanos::new(4 * SECOND),
        ..plan(model)
    })
}

#[test]
fn a_stall_changes_nothing_of_what_is_offered() {
    let calm = run(&LoadPlan {
        arrival: open("poisson", 1_000.0),
        measure: Nanos::new(4 * SECOND),
        ..plan(fake())
    });
    for connections in [1, 64] {
        let result = stalled(connections);
        assert_eq!(result.measured.intended_count, calm.measured.intended_count);
        assert_eq!(result.measured.ok_count, result.measured.intended_count);
        let offered = |result: &LoadResult| {
            let counts = result
                .intervals
                .iter()
                .map(|interval| interval.intended_count);
            counts.collect::<Vec<_>>()
        };
        let (told, expected) = (offered(&result), offered(&calm));
        assert_eq!(told[..40], expected[..40], "interval by interval");
    }
}

#[test]
fn a_stall_shows_in_response_times_even_where_service_times_hide_it() {
    // One request in 20 is due in the stall, so p99 lies a fifth of it behind its begin.
    let result = stalled(1);
    let quantile = |histogram: &Histogram| histogram.quantile(0.99).unwrap();
    assert!(quantile(&result.response) >= Nanos::new(150 * MILLISECOND));
    assert!(
        quantile(&result.service) < Nanos::new(MILLISECOND),
        "one place: only one was on it"
    );
    assert!(result.queued_count > 150, "{}", result.queued_count);
    assert!(quantile(&result.queue) >= Nanos::new(150 * MILLISECOND));
}

#[test]
fn connections_bounds_and_records_are_split_without_remainder_loss() {
    let server = Server::tcp(rpc);
    let result = run(&LoadPlan {
        targets: vec![Target::parse(&server.target).unwrap()],
        targets_text: vec![server.target.clone()],
        threads: 3,
        connections: 10,
        measure: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        requests_max: 1_000,
        ..plan(fake())
    });
    assert_eq!(result.counters.ok_count, 1_000);
    let connections_of = |number: usize| {
        let mut seen = result.records[number].connection.values.clone();
        seen.sort_unstable();
        seen.dedup();
        seen.len()
    };
    assert_eq!([0, 1, 2].map(connections_of), [4, 3, 3]);
    assert_eq!(result.connect.count(), 10);
}

/// A histogram of all kept records, made by itself.
fn histogram_of(result: &LoadResult) -> Histogram {
    let mut histogram = Histogram::new();
    for records in &result.records {
        for index in 0..records.len() {
            let response = records.done_at_ns.values[index] - records.intended_at_ns[index];
            histogram.record(Nanos::new(response.unsigned_abs()));
        }
    }
    histogram
}

#[test]
fn merged_histograms_of_threads_and_agents_are_bit_equal_to_one_of_all_samples() {
    let server = Server::tcp(echo);
    let (mut merged, mut recorded) = (Histogram::new(), Histogram::new());
    let mut ids = Vec::new();
    for agent in 0..2 {
        let result = run(&LoadPlan {
            targets: vec![Target::parse(&server.target).unwrap()],
            targets_text: vec![server.target.clone()],
            protocol: seatrial_core::engine::plan::ProtocolKind::Echo,
            payload_bytes: 64,
            arrival: open("poisson", 4_000.0),
            agent,
            agents: 2,
            threads: 2,
            connections: 5,
            measure: Nanos::new(60 * SECOND),
            request_timeout: Nanos::new(60 * SECOND),
            requests_max: 1_001,
            ..plan(fake())
        });
        let own = histogram_of(&result);
        assert_eq!(result.response.to_bytes(), own.to_bytes());
        merged.merge(&result.response);
        recorded.merge(&own);
        ids.extend(
            result
                .records
                .iter()
                .flat_map(|records| records.request_id.clone()),
        );
    }
    ids.sort_unstable();
    assert_eq!(
        ids,
        (0..1_001).collect::<Vec<_>>(),
        "each request by one of the agents"
    );
    assert_eq!(merged.to_bytes(), recorded.to_bytes());
    assert_eq!(merged.count(), 1_001);
}

#[test]
fn every_pipelined_echo_is_a_sample() {
    let server = Server::tcp(echo);
    let result = run(&LoadPlan {
        targets: vec![Target::parse(&server.target).unwrap()],
        targets_text: vec![server.target.clone()],
        protocol: seatrial_core::engine::plan::ProtocolKind::Echo,
        payload_bytes: 64,
        depth: 8,
        measure: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        requests_max: 2_000,
        ..plan(fake())
    });
    assert_eq!(result.traffic.received_bytes, 2_000 * 64);
    assert_eq!(
        (result.response.count(), result.counters.ok_count),
        (2_000, 2_000)
    );
}

#[test]
fn an_order_to_finish_ends_the_offer_and_not_the_waiting() {
    let server = Server::tcp(echo);
    let plan = LoadPlan {
        targets: vec![Target::parse(&server.target).unwrap()],
        targets_text: vec![server.target.clone()],
        protocol: seatrial_core::engine::plan::ProtocolKind::Echo,
        payload_bytes: 64,
        arrival: open("fixed", 2_000.0),
        threads: 2,
        connections: 4,
        interval: Nanos::new(5 * MILLISECOND),
        measure: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        ..plan(fake())
    };
    let stop = Arc::new(StopSignal::new().unwrap());
    let watch = Watch::new(2);
    let (result, seen_count) = std::thread::scope(|scope| {
        let load = scope.spawn(|| run_watched_load(&plan, &stop, Some(&watch)));
        let mut seen_count = 0;
        while seen_count < 50 {
            let intervals = watch.look().map(|seen| seen.intervals).unwrap_or_default();
            seen_count += intervals
                .iter()
                .map(|interval| interval.ok_count)
                .sum::<u64>();
            std::thread::yield_now();
        }
        stop.finish();
        (load.join().unwrap().unwrap(), seen_count)
    });
    assert!(result.was_finished_early && !result.was_interrupted);
    assert!(result.counters.ok_count >= seen_count);
    assert_eq!(
        result.counters.ok_count, result.counters.intended_count,
        "all were waited for"
    );
    assert!(result.measure_end < result.measure_start.later_by(plan.measure));
    let told = watch.look().unwrap();
    assert_eq!(told.measured, result.measured, "the last look sees all");
    assert_eq!(told.response, result.response);
}

/// A server that takes requests and never answers must not hold the places for ever.
#[test]
fn a_silent_connection_is_made_anew_after_twice_the_time_out() {
    let mut model = fake();
    model.stalls.push(Stall {
        at: Nanos::ZERO,
        duration: Nanos::new(60 * SECOND),
    });
    let silent = LoadPlan {
        arrival: open("fixed", 100.0),
        connections: 1,
        measure: Nanos::new(2 * SECOND),
        drain: Nanos::ZERO,
        request_timeout: Nanos::new(100 * MILLISECOND),
        ..plan(model)
    };
    let counts = run(&silent).counters;
    // The first is answered before the stall. A try then takes two time-outs from when it was due,
    // of which it may have waited for nearly one, and a pause that grows with the failures.
    assert!((9..=18).contains(&counts.sent_count), "{counts:?}");
    assert_eq!(counts.timeout_count, counts.sent_count - 1);
    assert_eq!(counts.intended_count, 200);
    assert_eq!(counts.unsent_count, 200 - counts.sent_count);
}

/// A reply that comes after its deadline, but not that late, keeps its connection.
#[test]
fn a_late_reply_keeps_its_connection() {
    let late = LoadPlan {
        arrival: open("fixed", 2.0),
        demand: seatrial_core::arrival::DemandLaw::Constant(Nanos::new(150 * MILLISECOND)),
        connections: 1,
        measure: Nanos::new(4 * SECOND),
        request_timeout: Nanos::new(100 * MILLISECOND),
        ..plan(fake())
    };
    let result = run(&late);
    assert_eq!(result.counters.timeout_count, 8);
    assert_eq!(result.late_reply_count, 7, "nobody waits for the last one");
    assert_eq!(
        result.connect.count(),
        1,
        "the connection was never made again"
    );
}
