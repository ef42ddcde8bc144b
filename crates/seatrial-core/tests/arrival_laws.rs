//! Each law has its mean, its variance and its distribution function, and says what it does not accept.
#![allow(clippy::unwrap_used)] // tests fail by panic

use proptest::prelude::*;
use seatrial_core::arrival::{
    ArrivalProcess, DemandLaw, Key, Pattern, Popularity, SizeLaw, Stream, Transformed,
};
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

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / count;
    (mean, variance)
}

/// The largest distance between the empirical distribution function and the law's.
fn distance(values: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let both = sorted.iter().zip(0u32..).map(|(value, below)| {
        let right = cdf(*value);
        let below = f64::from(below);
        (right - below / count).max((below + 1.0) / count - right)
    });
    both.fold(0.0, f64::max)
}

/// The distance that one sample in a thousand exceeds (Kolmogorov's asymptotic law).
fn critical(count: usize) -> f64 {
    1.949_475 / (count as f64).sqrt()
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

/// (text, what the message names)
const BAD: [(&str, &str); 22] = [
    ("", "fixed, poisson"),
    ("Poisson", "fixed, poisson"),
    ("constant", "mmpp:factor="),
    ("poisson:1", "expected poisson"),
    ("fixed:mean=2", "expected fixed"),
    ("uniform:low=1", "0 <= L < 1"),
    ("uniform:low=0.5,high=2", "H = 2 - L"),
    ("lognormal", "cv=CV"),
    ("lognormal:cv=0", "above 0"),
    ("lognormal:cv=1,cv=1", "cv=CV"),
    ("gamma:cv=1,shape=1", "gamma:cv=CV (0.01 to 30) or"),
    ("gamma:shape=1e9", "0.001 to 10000"),
    ("weibull:shape=0", "0.1 to 100"),
    ("pareto:shape=1", "infinite from 1 on"),
    ("pareto:alpha=1", "1 < A"),
    ("pareto:shape=0.5,location=1", "0 <= L < 1"),
    ("gev:shape=1,scale=1", "infinite from 1 on"),
    ("gev:shape=0,scale=1,location=0", "M above 0"),
    ("bimodal:ratio=1,share=0.5", "1 < R"),
    ("bimodal:ratio=2,share=nan", "0 < P < 1"),
    ("mmpp:factor=2,burst=10", "mean lengths of bursts"),
    ("trace:", "trace:PATH"),
];

#[test]
fn what_is_no_law_is_told_what_would_be() {
    for (text, named) in BAD {
        let error = ArrivalProcess::parse(text, "fixed", Some(1.0)).unwrap_err();
        assert_eq!(error.code(), "invalid-value", "{text}");
        assert!(error.to_string().contains(named), "{text}: {error}");
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

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

/// A text that is nearly one of the grammar, or not at all.
fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "fixed",
        "poisson",
        "uniform",
        "lognormal",
        "gamma",
        "weibull",
        "pareto",
        "gev",
        "bimodal",
        "mmpp",
        "step",
        "ramp",
        "spike",
        "square",
        "zipf",
        "constant",
        "exponential",
        ":",
        "=",
        ",",
        "shape",
        "cv",
        "scale",
        "location",
        "alpha",
        "low",
        "high",
        "mean",
        "share",
        "ratio",
        "factor",
        "burst",
        "calm",
        "from",
        "to",
        "by",
        "every",
        "over",
        "at",
        "for",
        "period",
        "skew",
        "0",
        "1",
        "0.5",
        "-1",
        "1e308",
        "1e-308",
        "10ms",
        "1s",
        "9999999min",
        "inf",
        "nan",
        "µs",
        " ",
        "KiB",
    ]);
    prop_oneof![
        prop::collection::vec(word, 0..12).prop_map(|words| words.concat()),
        "\\PC{0,24}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_breaks_a_parser_and_what_is_accepted_works(law in text(), pattern in text(), rate in prop::option::of(1e-9..1e9f64)) {
        for pattern in [pattern.as_str(), "fixed"] {
            if let Ok(process) = ArrivalProcess::parse(&law, pattern, rate) {
                let instants: Vec<Nanos> = process.sequence(1).take(50).collect();
                prop_assert!(instants.is_sorted());
                let _ = process.transform(&instants);
                for gaps in [0.0, 0.3, 1.0, 7.0, 1e9] {
                    prop_assert!((0.0..=1.0).contains(&process.gap_cdf(gaps)), "{} at {}", law, gaps);
                }
            }
        }
        if let Ok(demand) = DemandLaw::parse(&law) {
            let _ = demand.draw(&mut Key::new(1, Stream::Demand).item(1));
        }
        if let Ok(size) = SizeLaw::parse(&law, 1_000) {
            prop_assert!(size.size_of(Key::new(1, Stream::ValueSize), 1) <= 1_000);
        }
        let _ = Pattern::parse(&pattern, rate);
        let _ = Popularity::parse(&law, 1_000);
    }
}
