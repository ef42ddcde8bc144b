//! What happened belongs to the interval and to the phase in which it happened, also when
//! nobody looks at the load while it runs.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use std::time::Duration;

use seatrial_core::engine::plan::ProtocolKind;
use seatrial_core::engine::{Interval, LoadPlan};
use seatrial_core::record::Outcome;
use seatrial_core::transport::fake::Stall;
use seatrial_core::transport::options::Options;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use support::server::{Server, Stream};
use support::{MILLISECOND, SECOND, fake, open, outcomes, run};

/// Longer than three intervals.
const LATE: Duration = Duration::from_millis(350);

#[test]
fn what_waits_for_a_place_fails_in_the_interval_of_its_deadline() {
    let mut model = fake();
    model.stalls.push(Stall {
        at: Nanos::new(1),
        duration: Nanos::new(60 * SECOND),
    });
    let plan = LoadPlan {
        arrival: open("fixed", 10.0),
        measure: Nanos::new(2 * SECOND),
        request_timeout: Nanos::new(250 * MILLISECOND),
        ..support::plan(model)
    };
    let result = run(&plan);
    assert!(result.counters.unsent_count > 10, "{:?}", result.counters);
    let failed: Vec<_> = result
        .intervals
        .iter()
        .map(|one| one.failed_count)
        .collect();
    // Each is due at the begin of an interval and fails in the second one after it.
    assert_eq!(failed[3..21], [1; 18], "{failed:?}");
}

/// Reads a request and answers late.
fn answer_late(stream: &mut dyn Stream, _number: usize) {
    let mut request = [0; 64];
    if stream.read_exact(&mut request).is_ok() {
        std::thread::sleep(LATE);
        let _ = stream.write_all(&request);
        let _ = stream.read(&mut request);
    }
}

/// Reads a request and hangs up late.
fn hang_up_late(stream: &mut dyn Stream, _number: usize) {
    let _ = stream.read_exact(&mut [0; 64]);
    std::thread::sleep(LATE);
}

/// The intervals of a load of one request, with a second connection that stays idle.
fn intervals_of_one(server: &Server) -> Vec<Interval> {
    let plan = LoadPlan {
        targets: vec![Target::parse(&server.target).unwrap()],
        targets_text: vec![server.target.clone()],
        protocol: ProtocolKind::Echo,
        payload_bytes: 64,
        connections: 2,
        measure: Nanos::new(20 * SECOND),
        request_timeout: Nanos::new(20 * SECOND),
        requests_max: 1,
        ..support::plan(fake())
    };
    run(&plan).intervals
}

#[test]
fn bytes_are_counted_in_the_interval_in_which_they_were_read() {
    let intervals = intervals_of_one(&Server::tcp(answer_late));
    let last = intervals.last().unwrap();
    assert!(intervals.len() >= 4);
    assert_eq!((last.ok_count, last.received_bytes), (1, 64));
    assert_eq!((intervals[0].sent_count, intervals[0].sent_bytes), (1, 64));
}

#[test]
fn a_lost_connection_fails_its_request_in_the_interval_of_the_loss() {
    let intervals = intervals_of_one(&Server::tcp(hang_up_late));
    assert!(intervals.len() >= 4);
    assert_eq!(intervals.last().unwrap().failed_count, 1);
}

/// Echoes at once.
fn answer_at_once(stream: &mut dyn Stream, _number: usize) {
    let mut request = [0; 64];
    while stream.read_exact(&mut request).is_ok() && stream.write_all(&request).is_ok() {}
}

#[test]
fn the_rate_of_a_target_is_of_the_replies_that_came_in_the_phase() {
    let (quick, late) = (Server::tcp(answer_at_once), Server::tcp(answer_late));
    let texts = [quick.target.clone(), late.target.clone()];
    let plan = LoadPlan {
        targets: texts
            .iter()
            .map(|text| Target::parse(text).unwrap())
            .collect(),
        targets_text: texts.to_vec(),
        protocol: ProtocolKind::Echo,
        payload_bytes: 64,
        connections: 2,
        measure: Nanos::new(SECOND / 10),
        request_timeout: Nanos::new(20 * SECOND),
        drain: Nanos::new(20 * SECOND),
        ..support::plan(fake())
    };
    let result = run(&plan);
    let [quick, late] = result.targets.as_slice() else {
        panic!("{:?}", result.targets);
    };
    assert_eq!((late.counters.ok_count, late.achieved_count), (1, 0));
    assert!(quick.achieved_count >= quick.counters.ok_count - 1 && quick.achieved_count > 0);
    assert_eq!(result.achieved_count, quick.achieved_count);
    assert_eq!(result.counted_until, result.measure_end);
}

/// Reads sixteen requests, which were put on the connection as one, and answers all of them late.
fn answer_all_late(stream: &mut dyn Stream, _number: usize) {
    let mut requests = [0; 16 * 64];
    if stream.read_exact(&mut requests).is_ok() {
        std::thread::sleep(Duration::from_millis(600));
        if stream.write_all(&requests).is_ok() {
            answer_at_once(stream, 0);
        }
    }
}

#[test]
fn requests_that_were_sent_as_one_expire_and_are_answered_late_one_by_one() {
    for is_verified in ["true", "false"] {
        let server = Server::tcp(answer_all_late);
        let mut options = Options::new();
        options.insert("verify".to_owned(), is_verified.to_owned());
        let result = run(&LoadPlan {
            targets: vec![Target::parse(&server.target).unwrap()],
            targets_text: vec![server.target.clone()],
            options,
            protocol: ProtocolKind::Echo,
            payload_bytes: 64,
            depth: 16,
            // One more keeps the load going until the late replies are there.
            requests_max: 17,
            measure: Nanos::new(20 * SECOND),
            request_timeout: Nanos::new(400 * MILLISECOND),
            ..support::plan(fake())
        });
        let counters = result.counters;
        assert_eq!((counters.intended_count, counters.ok_count), (17, 1));
        assert_eq!(counters.timeout_count, 16);
        assert_eq!(result.late_reply_count, 16, "verified: {is_verified}");
        assert_eq!(outcomes(&result, Outcome::Timeout), 16);
        assert_eq!(
            result
                .intervals
                .iter()
                .map(|one| one.failed_count)
                .sum::<u64>(),
            16
        );
    }
}
