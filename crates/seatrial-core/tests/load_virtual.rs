//! The engine against the fake server on the virtual clock: exact, whatever machine this is.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use seatrial_core::engine::plan::Loop;
use seatrial_core::engine::{LoadPlan, LoadResult};
use seatrial_core::record::{Outcome, RecordColumns};
use seatrial_core::transport::fake::{FakeModel, Fault, Stall};
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use support::{MILLISECOND, SECOND, fake, open, outcomes, plan, run};

fn response_ns(records: &RecordColumns, index: usize) -> i64 {
    records.done_at_ns.values[index] - records.intended_at_ns[index]
}

fn service_ns(records: &RecordColumns, index: usize) -> i64 {
    records.done_at_ns.values[index] - records.sent_at_ns.values[index]
}

/// Mean response time of a single queue at a load of 0.7, in nanoseconds.
fn mean_response_of_queue(demand: &str, seed: u64) -> f64 {
    let plan = LoadPlan {
        arrival: open("poisson", 700.0),
        demand: seatrial_core::arrival::DemandLaw::parse(demand).unwrap(),
        connections: 4_096,
        warm_up: Nanos::new(20 * SECOND),
        measure: Nanos::new(200 * SECOND),
        drain: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(600 * SECOND),
        records_max: 0,
        seed,
        ..plan(fake())
    };
    let result = run(&plan);
    assert_eq!(result.counters.ok_count, result.counters.intended_count);
    result.response.mean_ns().unwrap()
}

/// Theory is met within 5 % by the mean over eight seeds of 140,000 requests each.
fn check_queue(demand: &str, theory_ns: f64) {
    let seeds = 8;
    let total: f64 = (0..seeds)
        .map(|seed| mean_response_of_queue(demand, seed))
        .sum();
    let mean = total / f64::from(u32::try_from(seeds).unwrap());
    let error = (mean / theory_ns - 1.0).abs();
    assert!(
        error < 0.05,
        "{demand}: mean {mean} ns, theory {theory_ns} ns"
    );
}

#[test]
fn m_m_1_response_time_matches_theory() {
    // 1 / (mu - lambda) with mu = 1000/s and lambda = 700/s.
    check_queue("exponential:1ms", 1e9 / 300.0);
}

#[test]
fn m_d_1_response_time_matches_theory() {
    // Pollaczek-Khinchine without variance: S * (1 + rho / (2 * (1 - rho))).
    check_queue("constant:1ms", 1e6 * (1.0 + 0.7 / 0.6));
}

#[test]
fn a_stall_shows_in_one_service_time_but_in_every_response_time() {
    let mut model = fake();
    let stall = Stall {
        at: Nanos::new(SECOND),
        duration: Nanos::new(SECOND),
    };
    model.stalls.push(stall);
    let plan = LoadPlan {
        arrival: open("fixed", 100.0),
        demand: support::constant_ms(1),
        measure: Nanos::new(4 * SECOND),
        request_timeout: Nanos::new(10 * SECOND),
        ..plan(model)
    };
    let result = run(&plan);
    let records = &result.records[0];
    assert_eq!(records.len(), 400);
    let half = i64::try_from(SECOND / 2).unwrap();
    let long_services = (0..400).filter(|i| service_ns(records, *i) > half).count();
    assert_eq!(
        long_services, 1,
        "one connection: only one request is on it during the stall"
    );
    let (from, to) = (
        i64::try_from(SECOND).unwrap(),
        i64::try_from(2 * SECOND).unwrap(),
    );
    for index in 0..400 {
        let intended = records.intended_at_ns[index];
        let response = response_ns(records, index);
        if (from..to).contains(&intended) {
            assert!(response >= to - intended, "{intended}: {response}");
        }
    }
    let long_responses = (0..400).filter(|i| response_ns(records, *i) > half).count();
    assert!(long_responses >= 50, "{long_responses}");
    assert!(result.send_lag.max().unwrap() > Nanos::new(SECOND / 2));
    assert_eq!(
        result.pacing_lag.max(),
        Some(Nanos::ZERO),
        "the engine itself was never late"
    );
}

#[test]
fn closed_loop_sends_as_soon_as_the_reply_is_there() {
    let plan = LoadPlan {
        demand: support::constant_ms(1),
        connections: 2,
        depth: 2,
        ..plan(fake())
    };
    let result = run(&plan);
    // One server with 1 ms of work for each request, always busy.
    assert!(
        (1_000..=1_004).contains(&result.counters.ok_count),
        "{:?}",
        result.counters
    );
    assert_eq!(result.service.quantile(0.5), result.response.quantile(0.5));
    let records = &result.records[0];
    // Four places: each request waits for the three before it.
    assert!(response_ns(records, 500) == i64::try_from(4 * MILLISECOND).unwrap());
    assert_eq!(result.send_lag.max(), Some(Nanos::ZERO));
}

#[test]
fn phases_are_by_intended_time_and_warm_up_is_in_no_histogram() {
    let plan = LoadPlan {
        arrival: open("fixed", 1_000.0),
        warm_up: Nanos::new(SECOND / 2),
        ..plan(fake())
    };
    let result = run(&plan);
    let records = &result.records[0];
    assert_eq!(records.len(), 1_500);
    assert_eq!(
        records
            .phase
            .iter()
            .map(|phase| usize::from(*phase == 0))
            .sum::<usize>(),
        500
    );
    assert_eq!(result.counters.intended_count, 1_500);
    for histogram in [
        &result.response,
        &result.service,
        &result.send_lag,
        &result.pacing_lag,
    ] {
        assert_eq!(histogram.count(), 1_000);
    }
    let measured = result.measure_start.until(result.measure_end);
    assert_eq!(measured, Nanos::new(SECOND));
}

#[test]
fn stragglers_time_out_and_the_queue_behind_them_is_unsent() {
    let mut model = fake();
    model.stalls.push(Stall {
        at: Nanos::new(SECOND / 2),
        duration: Nanos::new(60 * SECOND),
    });
    let plan = LoadPlan {
        arrival: open("fixed", 10.0),
        demand: support::constant_ms(1),
        drain: Nanos::new(SECOND),
        request_timeout: Nanos::new(30 * SECOND),
        ..plan(model)
    };
    let result = run(&plan);
    let counters = result.counters;
    assert_eq!(counters.intended_count, 10);
    // 0.0 to 0.4 s are answered, 0.5 s is on the only connection, the rest waits behind it.
    assert_eq!(
        (
            counters.ok_count,
            counters.timeout_count,
            counters.unsent_count
        ),
        (5, 1, 4)
    );
    assert_eq!(counters.sent_count, 6);
    let records = &result.records[0];
    let last = records.len() - 1;
    assert_eq!(records.outcome[last], Outcome::Unsent as u8);
    assert!(!records.sent_at_ns.is_known(last) && !records.connection.is_known(last));
    assert_eq!(
        result.ended_at,
        Nanos::new(2 * SECOND),
        "drain ends one second after the measure phase"
    );
}

#[test]
fn a_deadline_counts_from_the_intended_instant_and_frees_no_place() {
    let mut model = fake();
    model.stalls.push(Stall {
        at: Nanos::new(SECOND / 4),
        duration: Nanos::new(150 * MILLISECOND),
    });
    let plan = LoadPlan {
        arrival: open("fixed", 100.0),
        demand: support::constant_ms(1),
        request_timeout: Nanos::new(100 * MILLISECOND),
        ..plan(model)
    };
    let result = run(&plan);
    let counters = result.counters;
    assert_eq!(counters.intended_count, 100);
    // 0.25 s was sent into the stall; 0.26 to 0.30 s were due while it waited and are too late at
    // 0.401 s, when its late reply frees the place.
    assert_eq!((counters.timeout_count, counters.unsent_count), (1, 5));
    assert_eq!((counters.ok_count, result.late_reply_count), (94, 1));
    assert!(result.response.max().unwrap() < Nanos::new(100 * MILLISECOND));
}

#[test]
fn a_reset_is_recorded_and_the_connection_made_again() {
    let mut model = fake();
    model.faults.push((Nanos::new(SECOND / 2), Fault::ResetAll));
    let plan = LoadPlan {
        arrival: open("fixed", 1_000.0),
        demand: support::constant_ms(2),
        connections: 8,
        measure: Nanos::new(SECOND),
        request_timeout: Nanos::new(10 * SECOND),
        drain: Nanos::new(10 * SECOND),
        ..plan(model)
    };
    let result = run(&plan);
    assert_eq!(result.counters.error_count(), 8, "one on each connection");
    assert_eq!(result.counters.ok_count, 992);
    assert_eq!(outcomes(&result, Outcome::Reset), 8);
}

#[test]
fn a_dead_server_turns_the_rest_into_refusals() {
    let mut model = fake();
    model.faults.push((Nanos::new(SECOND), Fault::Die));
    let plan = LoadPlan {
        arrival: open("fixed", 10.0),
        demand: support::constant_ms(10),
        measure: Nanos::new(20 * SECOND),
        request_timeout: Nanos::new(500 * MILLISECOND),
        ..plan(model)
    };
    let result = run(&plan);
    let counters = result.counters;
    assert_eq!(counters.intended_count, 200);
    assert_eq!(counters.ok_count, 10);
    assert_eq!(outcomes(&result, Outcome::Refused), 190);
    assert_eq!(counters.error_count(), 190);
    assert_eq!(counters.sent_count, 10);
}

#[test]
fn a_dead_server_ends_a_closed_loop() {
    let mut model = fake();
    model.faults.push((Nanos::new(SECOND / 2), Fault::Die));
    let plan = LoadPlan {
        demand: support::constant_ms(10),
        measure: Nanos::new(1_000 * SECOND),
        ..plan(model)
    };
    let result = run(&plan);
    assert_eq!(
        result.counters.ok_count, 49,
        "the fault comes just before the 50th reply"
    );
    assert!(
        result.ended_at < Nanos::new(20 * SECOND),
        "given up after bounded attempts"
    );
    assert_eq!(result.measure_end, result.ended_at);
}

#[test]
fn a_reply_for_nobody_is_a_protocol_error() {
    let mut model = fake();
    model.faults.push((Nanos::new(SECOND / 2), Fault::WrongId));
    let plan = LoadPlan {
        arrival: open("fixed", 100.0),
        demand: support::constant_ms(1),
        depth: 4,
        request_timeout: Nanos::new(SECOND),
        ..plan(model)
    };
    let result = run(&plan);
    assert_eq!(result.counters.protocol_error_count, 1);
    assert_eq!(result.counters.ok_count, 99);
}

#[test]
fn a_reported_failure_is_an_application_error() {
    let mut model = fake();
    model.faults.push((Nanos::new(SECOND / 2), Fault::Failure));
    let result = run(&LoadPlan {
        arrival: open("fixed", 100.0),
        ..plan(model)
    });
    assert_eq!(outcomes(&result, Outcome::ApplicationError), 1);
    assert_eq!(result.counters.ok_count, 99);
}

#[test]
fn records_are_a_bounded_systematic_sample() {
    let plan = LoadPlan {
        arrival: open("fixed", 1_000.0),
        records_max: 100,
        ..plan(fake())
    };
    let result = run(&plan);
    assert_eq!(
        result.records_stride,
        Some(16),
        "the first power of two for which 100 suffice"
    );
    let rows = result.records[0].request_id.iter().map(|id| id / 16);
    let rows: Vec<u64> = rows.collect();
    let whole: Vec<u64> = (0..1_000 / 16).collect();
    assert_eq!(rows[..whole.len()], whole, "one of each 16 in a row");
    assert!(result.records[0].intended_at_ns.is_sorted());
    assert_eq!(
        result.response.count(),
        1_000,
        "histograms see all requests"
    );
}

#[test]
fn requests_are_bounded_in_both_loops() {
    for arrival in [open("poisson", 1_000.0), Loop::Closed] {
        let plan = LoadPlan {
            arrival,
            demand: support::constant_ms(1),
            requests_max: 77,
            ..plan(fake())
        };
        let result = run(&plan);
        assert_eq!(result.counters.intended_count, 77);
        assert!(
            result.measure_end < Nanos::new(SECOND),
            "the window ends with the load"
        );
    }
}

#[test]
fn outcomes_add_up_to_what_was_intended() {
    let mut model = fake();
    model.stalls.push(Stall {
        at: Nanos::new(SECOND / 5),
        duration: Nanos::new(SECOND / 5),
    });
    model.faults.push((Nanos::new(SECOND / 2), Fault::ResetAll));
    model.faults.push((Nanos::new(SECOND * 7 / 10), Fault::Die));
    let plan = LoadPlan {
        arrival: open("poisson", 2_000.0),
        demand: support::constant_ms(1),
        connections: 3,
        depth: 2,
        request_timeout: Nanos::new(50 * MILLISECOND),
        ..plan(model)
    };
    let LoadResult {
        counters, records, ..
    } = run(&plan);
    let sum = counters.ok_count
        + counters.timeout_count
        + counters.error_count()
        + counters.protocol_error_count
        + counters.unsent_count;
    assert_eq!(sum, counters.intended_count);
    assert_eq!(records[0].len() as u64, counters.intended_count);
    assert!(counters.timeout_count > 0 && counters.unsent_count > 0 && counters.error_count() > 0);
}

#[test]
fn the_same_seed_gives_the_same_records() {
    let make = |seed| {
        let plan = LoadPlan {
            arrival: open("poisson", 1_000.0),
            demand: seatrial_core::arrival::DemandLaw::parse("exponential:500us").unwrap(),
            connections: 4,
            seed,
            ..plan(fake())
        };
        let result = run(&plan);
        (
            result.records[0].intended_at_ns.clone(),
            result.records[0].done_at_ns.values.clone(),
        )
    };
    assert_eq!(make(5), make(5));
    assert_ne!(make(5), make(6));
}

#[test]
fn a_load_that_runs_out_of_requests_is_counted_until_its_last_reply() {
    let closed = LoadPlan {
        requests_max: 50,
        connections: 50,
        demand: support::constant_ms(20),
        measure: Nanos::new(2 * SECOND),
        ..plan(fake())
    };
    let slow = FakeModel {
        workers: 50,
        ..fake()
    };
    let open = LoadPlan {
        arrival: open("fixed", 1_000.0),
        targets: vec![Target::Fake(slow)],
        ..closed.clone()
    };
    // One server has 50 requests at once; 50 servers have one each millisecond.
    for (plan, length) in [(closed, 50 * 20), (open, 49 + 20)] {
        let result = run(&plan);
        assert_eq!((result.achieved_count, result.counters.ok_count), (50, 50));
        let counted = result.measure_start.until(result.counted_until);
        assert_eq!(counted, Nanos::new(length * MILLISECOND));
    }
}

#[test]
fn replies_after_the_measure_phase_are_no_part_of_the_rate() {
    let plan = LoadPlan {
        connections: 50,
        demand: support::constant_ms(20),
        requests_max: 60,
        drain: Nanos::new(9 * SECOND),
        request_timeout: Nanos::new(9 * SECOND),
        ..plan(fake())
    };
    let result = run(&plan);
    assert_eq!((result.achieved_count, result.counters.ok_count), (49, 60));
    assert!(result.counted_until <= result.measure_start.later_by(plan.measure));
}
