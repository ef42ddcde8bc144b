//! Each law has its mean, its variance and its distribution function, and says what it does not accept.
#![allow(clippy::unwrap_used)] // tests fail by panic

#[path = "support/sample.rs"]
mod sample;

use sample::{critical, distance, mean_and_variance};
use seatrial_core::arrival::{ArrivalProcess, Transformed};
use seatrial_core::units::Nanos;

/// Gaps in each sample.
const COUNT: usize = 100_000;

fn process(law: &str, rate_rps: f64) -> ArrivalProcess {
    ArrivalProcess::parse(law, "fixed", Some(rate_rps)).unwrap()
}

/// Gaps in mean gaps; 10 ms long, so that whole nanoseconds are no matter.
fn gaps(law: &str, seed: u64, count: usize) -> Vec<f64> {
    let instants: Vec<Nanos> = process(law, 100.0).sequence(seed).take(count + 1).collect();
    let pairs = instants.windows(2);
    pairs
        .map(|pair| pair[0].until(pair[1]).get() as f64 / 1e7)
        .collect()
}

fn probabilities(transformed: Transformed) -> Vec<f64> {
    match transformed {
        Transformed::Probabilities(values) => values,
        Transformed::Deviations(_) => panic!("not a law of fixed gaps"),
    }
}

/// (law, variance of a gap whose mean is 1, relative tolerance of the sample's variance).
///
/// Tolerances are some five standard errors; a law whose fourth moment is infinite has none (0).
const LAWS: [(&str, f64, f64); 18] = [
    ("poisson", 1.0, 0.05),
    ("uniform", 1.0 / 3.0, 0.02),
    ("uniform:low=0.5", 1.0 / 12.0, 0.02),
    ("lognormal:cv=0.5", 0.25, 0.08),
    ("lognormal:cv=2", 4.0, 0.4),
    ("gamma:cv=2", 4.0, 0.1),
    ("gamma:shape=5", 0.2, 0.05),
    ("weibull:shape=0.5", 5.0, 0.25),
    ("weibull:shape=2", 0.273_239_5, 0.04),
    ("pareto:shape=0.1", 1.25, 0.15),
    ("pareto:shape=0.6", 0.0, 0.0),
    ("pareto:shape=-0.5", 0.5, 0.03),
    ("pareto:shape=0.1,location=0.5", 0.25 * 1.25, 0.15),
    ("pareto:alpha=2.5", 0.0, 0.0),
    ("fb_ia", 1.0 / (1.0 - 2.0 * 0.154_971), 0.25),
    ("gev:shape=0,scale=0.2", 0.052_882_7, 0.06),
    ("gev:shape=-0.2,scale=0.2", 0.037_791_8, 0.04),
    ("gev:shape=0.1,scale=1", 0.0, 0.0),
];

#[test]
fn laws_have_their_mean_variance_and_distribution() {
    for (law, variance, tolerance) in LAWS {
        let gaps = gaps(law, 11, COUNT);
        let (mean, told) = mean_and_variance(&gaps);
        // Five standard errors of the sample at hand; infinite variance shows as a wide one.
        let error = 5.0 * (told / COUNT as f64).sqrt();
        assert!((mean - 1.0).abs() < error, "{law}: mean {mean}");
        let is_right = tolerance == 0.0 || (told / variance - 1.0).abs() < tolerance;
        assert!(is_right, "{law}: variance {told}, not {variance}");
        let process = process(law, 100.0);
        let offsets: Vec<Nanos> = process.sequence(11).take(COUNT + 1).collect();
        let distance = distance(&probabilities(process.transform(&offsets)), |value| value);
        assert!(distance < critical(COUNT), "{law}: distance {distance}");
    }
}

#[test]
fn a_distribution_function_integrates_to_its_mean() {
    let more = [
        "mmpp:factor=10,burst=5,calm=40",
        "gev:shape=0,scale=1.5",
        "gev:shape=-0.5,scale=1",
    ];
    // A tail as heavy as that of shape 0.6 is not within reach of a sum.
    let laws = LAWS
        .iter()
        .map(|row| row.0)
        .filter(|law| *law != "pareto:shape=0.6");
    for law in laws.chain(more) {
        let process = process(law, 1.0);
        // Midpoints that grow with x; the mean is the integral of the probability to be above x.
        let (mut sum, mut at) = (0.0, 0.0);
        while at < 1e5 {
            let step = 1e-4 + at * 1e-3;
            sum += step * (1.0 - process.gap_cdf(at + 0.5 * step));
            at += step;
        }
        assert!((sum - 1.0).abs() < 2e-3, "{law}: {sum}");
        assert!(
            process.gap_cdf(-1.0) <= 0.0 && process.gap_cdf(1e12) > 0.999_999,
            "{law}"
        );
    }
}

#[test]
fn two_values_come_with_their_shares() {
    let gaps = gaps("bimodal:ratio=10,share=0.1", 5, COUNT);
    let (mean, variance) = mean_and_variance(&gaps);
    assert!((mean - 1.0).abs() < 0.03 && (variance / 2.019_4 - 1.0).abs() < 0.05);
    let long = gaps.iter().filter(|gap| **gap > 2.0).count();
    assert!(long.abs_diff(10_000) < 480, "{long}");
    assert!(
        gaps.iter()
            .all(|gap| (gap - 1.0 / 1.9).abs() < 1e-6 || (gap - 10.0 / 1.9).abs() < 1e-6)
    );
}

#[test]
fn bursts_have_the_law_of_the_gaps_and_the_dispersion_of_the_counts() {
    let law = "mmpp:factor=10,burst=10,calm=90";
    let all = gaps(law, 3, 1_000_000);
    let (mean, _) = mean_and_variance(&all);
    assert!((mean - 1.0).abs() < 0.05, "{mean}");
    // Neighbours depend on each other; far apart they hardly do.
    let apart: Vec<f64> = all.iter().copied().step_by(200).collect();
    let process = process(law, 100.0);
    assert!(distance(&apart, |gap| process.gap_cdf(gap)) < critical(apart.len()));
    // Index of dispersion of counts in long windows: 1 + 2 (difference of rates)^2 p (1 - p) / (sum of leaving rates).
    let mut counts = vec![0.0; 500];
    let mut at = 0.0;
    for gap in all {
        at += gap / 1_900.0;
        if at < 500.0 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 499
            let window = at as usize;
            counts[window] += 1.0;
        }
    }
    let (mean, variance) = mean_and_variance(&counts);
    let rates = (9.0 / 1.9f64).powi(2) * 0.09;
    let right = 1.0 + 2.0 * rates / (1.0 / 10.0 + 1.0 / 90.0);
    assert!(
        (variance / mean / right - 1.0).abs() < 0.3,
        "{} not {right}",
        variance / mean
    );
}

#[test]
fn lengths_of_bursts_are_times_or_numbers_of_gaps() {
    let told = process("mmpp:factor=10,burst=10ms,calm=90ms", 1_000.0);
    assert_eq!(told, process("mmpp:factor=10,burst=10,calm=90", 1_000.0));
    let error = ArrivalProcess::parse(
        "mmpp:factor=2,burst=1ms,calm=1ms",
        "ramp:from=1,to=9,over=1s",
        None,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("numbers of mean gaps")
    );
    let error = ArrivalProcess::parse("mmpp:factor=2,burst=1us,calm=1ms", "fixed", Some(10.0));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("0.1 to 1e9 mean gaps")
    );
}

#[test]
fn two_seeds_are_unrelated() {
    for (law, ..) in LAWS {
        let (one, other) = (gaps(law, 1, 20_000), gaps(law, 2, 20_000));
        // By ranks within the law, where one huge gap does not decide.
        let process = process(law, 100.0);
        let place = |gap: &f64| process.gap_cdf(*gap) - 0.5;
        let products = one
            .iter()
            .zip(&other)
            .map(|(one, other)| place(one) * place(other));
        let correlation = 12.0 * products.sum::<f64>() / 20_000.0;
        assert!(correlation.abs() < 0.05, "{law}: {correlation}");
    }
}

#[test]
fn arrivals_seen_through_their_own_process_are_even() {
    let laws = LAWS
        .iter()
        .map(|row| row.0)
        .chain(["bimodal:ratio=10,share=0.1"]);
    let patterns = [
        ("fixed", Some(1_000.0)),
        ("ramp:from=200,to=2000,over=20s", None),
    ];
    for law in laws {
        for (pattern, rate_rps) in patterns {
            let process = ArrivalProcess::parse(law, pattern, rate_rps).unwrap();
            let offsets: Vec<Nanos> = process.sequence(21).take(20_001).collect();
            let values = probabilities(process.transform(&offsets));
            assert_eq!(values.len(), 20_000);
            let distance = distance(&values, |value| value);
            assert!(distance < critical(20_000), "{law} {pattern}: {distance}");
        }
    }
}

#[test]
fn arrivals_of_another_process_are_not_even() {
    let told = process("poisson", 1_000.0);
    for law in [
        "gamma:cv=1.2",
        "uniform",
        "fixed",
        "mmpp:factor=3,burst=10,calm=10",
    ] {
        let offsets: Vec<Nanos> = process(law, 1_000.0).sequence(4).take(20_001).collect();
        let values = probabilities(told.transform(&offsets));
        assert!(distance(&values, |value| value) > critical(20_000), "{law}");
    }
}

#[test]
fn fixed_gaps_are_compared_with_the_schedule() {
    let process =
        ArrivalProcess::parse("fixed", "step:from=10,to=20,by=10,every=1s", None).unwrap();
    let mut offsets: Vec<Nanos> = process.sequence(0).take(30).collect();
    assert_eq!(
        process.transform(&offsets),
        Transformed::Deviations(vec![0.0; 29])
    );
    // One that is 10 ms late: a tenth of a gap of 100 ms, and two of 50 ms.
    for (index, right) in [(5, 0.1), (25, 0.2)] {
        offsets[index] = offsets[index].later_by(Nanos::new(10_000_000));
        let Transformed::Deviations(values) = process.transform(&offsets) else {
            panic!("fixed gaps have deviations");
        };
        assert!((values[index - 1] - right).abs() < 1e-9);
        assert!(values[index].abs() < 1e-9, "the next one is in time again");
    }
}
