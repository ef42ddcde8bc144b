//! Demands, sizes and keys have the laws that they name.
#![allow(clippy::unwrap_used)] // tests fail by panic

#[path = "support/sample.rs"]
mod sample;

use sample::mean_and_variance;
use seatrial_core::arrival::{DemandLaw, Key, Popularity, SizeLaw, Stream};
use seatrial_core::units::Nanos;

#[test]
fn demands_are_read_with_their_unit() {
    let demand = DemandLaw::parse("exponential:2ms").unwrap();
    assert_eq!(demand, DemandLaw::Exponential(Nanos::new(2_000_000)));
    let bad = [
        "",
        "constant",
        "constant:",
        "normal:1ms",
        "none:1ms",
        "constant:1",
        "exponential:0ms",
        "uniform:low=2ms,high=1ms",
        "lognormal:cv=1",
        "gamma:mean=1ms",
        "pareto:mean=1ms,shape=1",
        "gev:location=0s,scale=1s,shape=0",
        "bimodal:low=1ms,high=2ms,share=1",
        "weibull:mean=1,shape=1",
    ];
    for text in bad {
        assert_eq!(
            DemandLaw::parse(text).unwrap_err().code(),
            "invalid-value",
            "{text}"
        );
    }
}

#[test]
fn demands_have_the_mean_that_they_name() {
    let rows = [
        ("exponential:1ms", 1e6),
        ("uniform:low=1ms,high=2ms", 1.5e6),
        ("lognormal:mean=1ms,cv=1", 1e6),
        ("gamma:mean=1ms,cv=0.5", 1e6),
        ("weibull:mean=1ms,shape=0.7", 1e6),
        ("pareto:mean=1ms,shape=0.2", 1e6),
        ("pareto:mean=1ms,alpha=3", 1e6),
        ("pareto:location=1ms,scale=1ms,shape=0.2", 2.25e6),
        ("gev:location=1ms,scale=100us,shape=0", 1_057_721.6),
        ("bimodal:low=100us,high=10ms,share=0.1", 1.09e6),
    ];
    let key = Key::new(4, Stream::Demand);
    for (text, right) in rows {
        let law = DemandLaw::parse(text).unwrap();
        let draws: Vec<f64> = (0..50_000)
            .map(|id| law.draw(&mut key.item(id)).get() as f64)
            .collect();
        let (mean, variance) = mean_and_variance(&draws);
        assert!(
            (mean - right).abs() < 5.0 * (variance / 50_000.0).sqrt(),
            "{text}: {mean}"
        );
    }
}

#[test]
fn sizes_stay_within_their_limit() {
    let key = Key::new(4, Stream::ValueSize);
    let mean_of = |text: &str, max| {
        let law = SizeLaw::parse(text, max).unwrap();
        let sizes: Vec<f64> = (0..50_000).map(|id| law.size_of(key, id) as f64).collect();
        assert!(sizes.iter().all(|size| *size <= max as f64), "{text}");
        assert_eq!(law.size_of(key, 7), law.size_of(key, 7));
        mean_and_variance(&sizes).0
    };
    assert!((mean_of("100", 1_000) - 100.0).abs() < 1e-9);
    assert!((mean_of("constant:1KiB", 1_024) - 1_024.0).abs() < 1e-9);
    assert!((mean_of("uniform:low=0,high=200", 1_000) - 100.0).abs() < 2.0);
    // Half of it is cut off: what is left is even below 100.
    assert!((mean_of("uniform:low=0,high=200", 100) - 50.0).abs() < 1.0);
    assert!((mean_of("fb_key", 250) - 36.3).abs() < 0.5);
    assert!((mean_of("fb_val", 1 << 30) / 344.1 - 1.0).abs() < 0.06);
    for (text, max) in [
        ("100", 99),
        ("exponential:100", 50),
        ("1ms", 10),
        ("fb_ia", 10),
        ("", 10),
    ] {
        let error = SizeLaw::parse(text, max).unwrap_err();
        assert_eq!(error.code(), "invalid-value", "{text}");
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

/// Requests for each key.
fn asked(text: &str, keys: u64, count: u64) -> Vec<f64> {
    let popularity = Popularity::parse(text, keys).unwrap();
    let key = Key::new(9, Stream::Key);
    let mut counts = vec![0.0; usize::try_from(keys).unwrap()];
    for request_id in 0..count {
        counts[usize::try_from(popularity.key_of(key, request_id)).unwrap()] += 1.0;
    }
    counts
}

#[test]
fn keys_are_asked_for_as_often_as_the_law_says() {
    assert_eq!(asked("round-robin", 4, 10), [3.0, 3.0, 2.0, 2.0]);
    for (text, skew) in [
        ("uniform", 0.0),
        ("zipf:skew=0.5", 0.5),
        ("zipf:skew=0.99", 0.99),
        ("zipf:skew=1", 1.0),
        ("zipf:skew=2.5", 2.5),
    ] {
        for keys in [1, 2, 100] {
            let counts = asked(text, keys, 200_000);
            let weight = |rank: usize| (rank as f64 + 1.0).powf(-skew);
            let total: f64 = (0..counts.len()).map(weight).sum();
            let mut distance = 0.0;
            for (rank, count) in counts.iter().enumerate() {
                let right = 200_000.0 * weight(rank) / total;
                distance += (count - right).powi(2) / right;
            }
            // Chi-square with keys - 1 degrees of freedom: five standard deviations.
            let freedom = keys as f64 - 1.0;
            assert!(
                distance <= freedom + 5.0 * (2.0 * freedom).sqrt(),
                "{text} {keys}: {distance}"
            );
        }
    }
}

#[test]
fn a_billion_keys_need_no_table() {
    let popularity = Popularity::parse("zipf:skew=0.99", 1_000_000_000).unwrap();
    let key = Key::new(9, Stream::Key);
    let draws: Vec<u64> = (0..100_000).map(|id| popularity.key_of(key, id)).collect();
    // Key 0 has 1 / sum of k^-0.99 = 1 / 23.6 of the requests; half of them go beyond the 26 thousandth key.
    let first = draws.iter().filter(|key| **key == 0).count();
    assert!(first.abs_diff(4_340) < 350, "{first}");
    assert!(draws.iter().any(|key| *key > 500_000_000));
    for bad in [
        "zipf",
        "zipf:skew=0",
        "zipf:skew=-1",
        "uniform:1",
        "hot",
        "",
    ] {
        assert_eq!(
            Popularity::parse(bad, 10).unwrap_err().code(),
            "invalid-value"
        );
    }
    assert_eq!(
        Popularity::parse("uniform", 0).unwrap_err().code(),
        "invalid-plan"
    );
}
