//! The schedule: it increases, hits its mean, and does not depend on the threads.
#![allow(clippy::unwrap_used)] // tests fail by panic

use proptest::prelude::*;
use seatrial_core::arrival::{
    Arrival, ArrivalLaw, ArrivalSequence, ClosedLoop, DemandLaw, Demands, OpenLoop, Scheduled,
    Share,
};
use seatrial_core::units::{Nanos, RatePerSecond};

fn sequence(law: ArrivalLaw, rate: f64, seed: u64) -> ArrivalSequence {
    ArrivalSequence::new(law, RatePerSecond::new(rate).unwrap(), seed)
}

fn demands(share: Share, seed: u64, requests_max: u64) -> Demands {
    let law = DemandLaw::Exponential(Nanos::new(1_000_000));
    Demands {
        share,
        law,
        seed,
        requests_max,
    }
}

/// What all threads together offer, put together by request id.
fn schedule(threads: u32, seed: u64, count: u64) -> Vec<Scheduled> {
    let mut all = Vec::new();
    for member in 0..threads {
        let share = Share {
            member,
            members: threads,
        };
        let arrivals = sequence(ArrivalLaw::Poisson, 1_000.0, seed);
        let mut open = OpenLoop::new(Nanos::new(77), arrivals, &demands(share, seed, count));
        while let Some(at) = open.due_at(None) {
            all.push(open.take(at));
        }
        assert!(open.is_exhausted());
    }
    all.sort_unstable_by_key(|scheduled| scheduled.request_id);
    all
}

#[test]
fn the_schedule_is_the_same_for_one_to_eight_threads() {
    let alone = schedule(1, 42, 1_001);
    assert_eq!(alone.len(), 1_001);
    for threads in 2..=8 {
        assert_eq!(schedule(threads, 42, 1_001), alone, "{threads} threads");
    }
    assert_ne!(schedule(1, 43, 1_001), alone);
}

#[test]
fn a_seed_gives_the_same_numbers_on_every_machine() {
    // Fixed here, so that a change of generator or formula cannot go unseen.
    let first: Vec<u64> = sequence(ArrivalLaw::Poisson, 1_000.0, 1)
        .take(4)
        .map(Nanos::get)
        .collect();
    assert_eq!(first, [160_272, 3_137_902, 3_719_950, 6_017_193]);
}

#[test]
fn fixed_gaps_do_not_drift() {
    // A third of a nanosecond is lost in no gap, however many there are.
    let far = sequence(ArrivalLaw::Fixed, 3.0, 0).nth(3_000_000).unwrap();
    assert_eq!(far, Nanos::new(1_000_000_000_000_000));
    assert_eq!(
        sequence(ArrivalLaw::Fixed, 3.0, 0).next(),
        Some(Nanos::ZERO)
    );
}

#[test]
fn poisson_gaps_have_the_mean_and_variance_of_the_law() {
    let count = 200_000;
    let instants: Vec<f64> = sequence(ArrivalLaw::Poisson, 10_000.0, 9)
        .take(count)
        .map(|instant| instant.get() as f64)
        .collect();
    let gaps: Vec<f64> = instants.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    // Standard error of the mean is 0.22 %; of the standard deviation 0.45 %.
    assert!((mean / 100_000.0 - 1.0).abs() < 0.01, "{mean}");
    assert!(
        (variance.sqrt() / 100_000.0 - 1.0).abs() < 0.02,
        "{variance}"
    );
}

#[test]
fn demands_do_not_depend_on_the_arrival_law() {
    let share = Share {
        member: 0,
        members: 1,
    };
    let mut closed = ClosedLoop::new(&demands(share, 5, 100));
    let open = schedule(1, 5, 100);
    for scheduled in open {
        let at = closed.due_at(Some(Nanos::new(1))).unwrap();
        let taken = closed.take(at);
        assert_eq!(
            (taken.request_id, taken.demand),
            (scheduled.request_id, scheduled.demand)
        );
    }
    assert_eq!(closed.due_at(Some(Nanos::new(1))), None);
}

#[test]
fn laws_are_read_by_name() {
    assert_eq!(ArrivalLaw::parse("poisson").unwrap(), ArrivalLaw::Poisson);
    assert!(ArrivalLaw::parse("Poisson").is_err());
    let demand = DemandLaw::parse("exponential:2ms").unwrap();
    assert_eq!(demand, DemandLaw::Exponential(Nanos::new(2_000_000)));
    for bad in [
        "",
        "constant",
        "constant:",
        "normal:1ms",
        "none:1ms",
        "constant:1",
    ] {
        assert_eq!(
            DemandLaw::parse(bad).unwrap_err().code(),
            "invalid-value",
            "{bad}"
        );
    }
}

proptest! {
    #[test]
    fn arrivals_never_decrease(seed: u64, rate in 0.001..1e9f64) {
        for law in [ArrivalLaw::Fixed, ArrivalLaw::Poisson] {
            let instants: Vec<Nanos> = sequence(law, rate, seed).take(200).collect();
            prop_assert!(instants.is_sorted());
        }
    }

    #[test]
    fn shares_are_disjoint_and_complete(members in 1..9u32, total in 0..200u64) {
        let shares = (0..members).map(|member| Share { member, members });
        prop_assert_eq!(shares.clone().map(|share| share.portion_of(total)).sum::<u64>(), total);
        for index in 0..total {
            prop_assert_eq!(shares.clone().filter(|share| share.owns(index)).count(), 1);
        }
    }
}
