//! Patterns and traces put each arrival where the rate and the recording say, to the nanosecond.
#![allow(clippy::unwrap_used)] // tests fail by panic

#[path = "support/sample.rs"]
mod sample;

use std::path::PathBuf;

use proptest::prelude::*;
use sample::{critical, distance};
use seatrial_core::arrival::{ArrivalProcess, Transformed};
use seatrial_core::units::Nanos;

const SECOND: u64 = 1_000_000_000;

fn first(law: &str, pattern: &str, rate_rps: Option<f64>, count: usize) -> Vec<u64> {
    let process = ArrivalProcess::parse(law, pattern, rate_rps).unwrap();
    process.sequence(1).take(count).map(Nanos::get).collect()
}

/// Instants in milliseconds, as nanoseconds.
fn millis(instants: &[u64]) -> Vec<u64> {
    instants.iter().map(|at| at * 1_000_000).collect()
}

#[test]
fn steps_hold_each_rate_for_its_time_and_end_with_the_last() {
    let up = first("fixed", "step:from=1,to=3,by=1,every=2s", None, 10);
    let right = [0, 1_000, 2_000, 2_500, 3_000, 3_500, 4_000];
    assert_eq!(up[..7], millis(&right));
    assert_eq!(up[7..], [4_333_333_333, 4_666_666_667, 5_000_000_000]);
    let down = first("fixed", "step:from=4,to=1,by=2,every=1s", None, 9);
    assert_eq!(
        down,
        millis(&[0, 250, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000])
    );
    // The last step is what was asked for, even if it is smaller than the others.
    let process = ArrivalProcess::parse("fixed", "step:from=1,to=4,by=2,every=1s", None).unwrap();
    let rates = [0, 1, 2, 100].map(|s| process.rate_at(Nanos::new(s * SECOND)).unwrap());
    assert!(
        rates
            .iter()
            .zip([1.0, 3.0, 4.0, 4.0])
            .all(|(told, right)| (told - right).abs() < 1e-9)
    );
}

#[test]
fn a_ramp_is_a_parabola_of_counts() {
    let told = first("fixed", "ramp:from=0,to=10,over=10s", None, 52);
    assert_eq!(told[..4], [0, 1_414_213_562, 2_000_000_000, 2_449_489_743]);
    assert_eq!(told[49..], [9_899_494_937, 10_000_000_000, 10_100_000_000]);
    // A rate that falls to nothing ends the schedule.
    let told = first("fixed", "ramp:from=10,to=0,over=1s", None, 52);
    assert_eq!(
        told,
        [0, 105_572_809, 225_403_331, 367_544_468, 552_786_405]
    );
}

#[test]
fn a_spike_multiplies_the_rate_for_its_time() {
    let told = first("fixed", "spike:at=1s,for=500ms,factor=4", Some(10.0), 32);
    assert_eq!(told[9..13], millis(&[900, 1_000, 1_025, 1_050]));
    assert_eq!(told[29..], millis(&[1_475, 1_500, 1_600]));
    let told = first("fixed", "spike:at=1s,for=1s,factor=0", Some(2.0), 4);
    assert_eq!(told, millis(&[0, 500, 2_000, 2_500]));
}

#[test]
fn a_square_wave_is_exact_after_hours() {
    let pattern = "square:low=0,high=10,period=1s";
    let told = first("fixed", pattern, None, 7);
    assert_eq!(told, millis(&[500, 600, 700, 800, 900, 1_500, 1_600]));
    let process = ArrivalProcess::parse("fixed", pattern, None).unwrap();
    let late = process.sequence(0).nth(5 * 36_000 + 3).unwrap();
    assert_eq!(late, Nanos::new(36_000 * SECOND + 800_000_000));
    let count = process.expected_count(Nanos::new(36_000 * SECOND + 700_000_000));
    assert!((count - 180_002.0).abs() < 1e-6, "{count}");
}

#[test]
fn counts_follow_the_integral_of_the_rate() {
    let patterns = [
        ("fixed", Some(3_000.0)),
        ("step:from=1000,to=5000,by=1000,every=3s", None),
        ("ramp:from=100,to=6000,over=12s", None),
        ("ramp:from=6000,to=0,over=15s", None),
        ("spike:at=5s,for=700ms,factor=8", Some(1_000.0)),
        ("square:low=500,high=4000,period=3s", None),
    ];
    for (pattern, rate_rps) in patterns {
        for (law, variance) in [("fixed", 0.0), ("poisson", 1.0), ("gamma:cv=2", 4.0)] {
            let process = ArrivalProcess::parse(law, pattern, rate_rps).unwrap();
            let mut counts = [0.0f64; 15];
            let within = process
                .sequence(3)
                .map(|at| at.get() / SECOND)
                .take_while(|s| *s < 15);
            for second in within {
                counts[usize::try_from(second).unwrap()] += 1.0;
            }
            for (second, count) in (0..).zip(counts) {
                let ends =
                    [second, second + 1].map(|s| process.expected_count(Nanos::new(s * SECOND)));
                let right = ends[1] - ends[0];
                // One for the rounding of fixed gaps, five standard deviations for the others.
                let tolerance = 1.0 + 5.0 * (right * variance).sqrt();
                assert!(
                    (count - right).abs() <= tolerance,
                    "{law} {pattern}, second {second}: {count}, not {right}"
                );
                // The integral itself, against a sum over its rate.
                let steps = (0..1_000).map(|ms| {
                    process
                        .rate_at(Nanos::new(second * SECOND + ms * 1_000_000 + 500_000))
                        .unwrap()
                        / 1e3
                });
                assert!(
                    (steps.sum::<f64>() - right).abs() < 1e-3 * right.max(1.0),
                    "{pattern}"
                );
            }
        }
    }
}

#[test]
fn every_law_is_the_same_at_a_constant_rate_however_it_is_written() {
    for law in ["poisson", "lognormal:cv=1", "mmpp:factor=4,burst=3,calm=9"] {
        let plain = first(law, "fixed", Some(500.0), 1_000);
        let spiked = first(law, "spike:at=1s,for=1s,factor=1", Some(500.0), 1_000);
        let step = first(law, "step:from=500,to=500,by=1,every=1s", None, 1_000);
        assert_eq!(plain, step, "{law}");
        // Summed as counts and not as times: the last bit may differ.
        assert!(
            plain
                .iter()
                .zip(&spiked)
                .all(|(one, other)| one.abs_diff(*other) <= 1),
            "{law}"
        );
    }
}

#[test]
fn patterns_say_what_they_want() {
    let rows = [
        ("", Some(1.0), "fixed, step:"),
        ("wave", Some(1.0), "square:low="),
        ("fixed:1", Some(1.0), "fixed, step:"),
        ("fixed", None, "rate_rps is none"),
        ("fixed", Some(0.0), "rate_rps is 0"),
        ("spike:at=1s,for=1s,factor=2", None, "rate_rps is none"),
        ("spike:at=1s,for=0s,factor=2", Some(1.0), "F times the rate"),
        (
            "spike:at=1s,for=1s,factor=-2",
            Some(1.0),
            "F times the rate",
        ),
        (
            "spike:at=1,for=1s,factor=2",
            Some(1.0),
            "duration with its unit",
        ),
        (
            "step:from=1,to=2,by=1,every=1s",
            Some(5.0),
            "rates of its own",
        ),
        (
            "step:from=1,to=2,by=0,every=1s",
            None,
            "at most 10000 steps",
        ),
        (
            "step:from=1,to=1e6,by=1,every=1s",
            None,
            "at most 10000 steps",
        ),
        ("step:from=1,to=2,every=1s", None, "the last one is TO"),
        (
            "step:from=1,to=2,by=1,every=1s,then=3",
            None,
            "the last one is TO",
        ),
        ("ramp:from=0,to=0,over=1s", None, "not both 0"),
        ("ramp:from=0,to=1e10,over=1s", None, "not both 0"),
        ("square:low=5,high=5,period=1s", None, "LOW below HIGH"),
    ];
    for (pattern, rate_rps, named) in rows {
        let error = ArrivalProcess::parse("poisson", pattern, rate_rps).unwrap_err();
        assert!(error.to_string().contains(named), "{pattern}: {error}");
    }
}

/// A file that is removed with its value.
struct Recording(PathBuf);

impl Recording {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let file = format!("seatrial-trace-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn law(&self, options: &str) -> String {
        format!("trace:{}{options}", self.0.display())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn traces_are_replayed_to_the_nanosecond() {
    let file = Recording::new(
        "replay,1=2.csv",
        "# recorded\nt_ns,size\n\n7,1\n1007,2\r\n1007,3\n 3007 ,4\n",
    );
    assert_eq!(
        first(&file.law(""), "fixed", None, 9),
        [7, 1_007, 1_007, 3_007]
    );
    assert_eq!(
        first(&file.law(",scale=2.5"), "fixed", None, 9),
        [18, 2_518, 2_518, 7_518]
    );
    // Mean gap 1000: the next round begins 1000 after the last arrival, with the first one's offset.
    let looped = first(&file.law(",loop=yes"), "fixed", None, 9);
    assert_eq!(looped[..6], [7, 1_007, 1_007, 3_007, 4_007, 5_007]);
    assert_eq!(looped[8], 8_007);
    // At a million a second the mean gap is 1000 already; at half of it everything takes twice as long.
    assert_eq!(
        first(&file.law(""), "fixed", Some(1e6), 4),
        [7, 1_007, 1_007, 3_007]
    );
    assert_eq!(
        first(&file.law(""), "fixed", Some(5e5), 4),
        [14, 2_014, 2_014, 6_014]
    );
    let stepped = first(
        &file.law(""),
        "step:from=1000000,to=500000,by=500000,every=2us",
        None,
        4,
    );
    assert_eq!(stepped, [7, 1_007, 1_007, 4_014]);
    let process = ArrivalProcess::parse(&file.law(",loop=yes"), "fixed", None).unwrap();
    let counts = [0, 7, 1_007, 3_007, 4_006, 4_007, 1_000_000_007]
        .map(|at| process.expected_count(Nanos::new(at)));
    let right = [0.0, 1.0, 3.0, 4.0, 4.0, 5.0, 1_000_001.0];
    assert!(
        counts
            .iter()
            .zip(right)
            .all(|(told, right)| (told - right).abs() < 0.5),
        "{counts:?}"
    );
    assert!((process.rate_at(Nanos::ZERO).unwrap() - 1e6).abs() < 1e-6);
}

#[test]
fn a_replayed_trace_is_seen_as_its_own() {
    let recorded = first("lognormal:cv=1.5", "fixed", Some(1_000.0), 5_001);
    let lines: Vec<String> = recorded.iter().map(u64::to_string).collect();
    let file = Recording::new("own", lines.join("\n"));
    for (pattern, rate_rps) in [
        ("fixed", None),
        ("fixed", Some(300.0)),
        ("ramp:from=100,to=900,over=5s", None),
    ] {
        let process = ArrivalProcess::parse(&file.law(",loop=yes"), pattern, rate_rps).unwrap();
        let offsets: Vec<Nanos> = process.sequence(0).take(10_001).collect();
        let Transformed::Probabilities(values) = process.transform(&offsets) else {
            panic!("a trace has a law of gaps");
        };
        let distance = distance(&values, |value| value);
        assert!(distance < critical(10_000), "{pattern}: {distance}");
    }
    let other = ArrivalProcess::parse("poisson", "fixed", Some(1_000.0)).unwrap();
    let offsets: Vec<Nanos> = other.sequence(0).take(5_001).collect();
    let process = ArrivalProcess::parse(&file.law(""), "fixed", None).unwrap();
    let Transformed::Probabilities(values) = process.transform(&offsets) else {
        panic!("a trace has a law of gaps");
    };
    assert!(distance(&values, |value| value) > critical(5_000));
}

#[test]
fn bad_traces_are_told_with_their_line() {
    let rows: [(&str, &[u8], &str, &str); 10] = [
        (
            "order",
            b"5\n4\n",
            "",
            ":2: 4\", expected an instant no earlier",
        ),
        (
            "word",
            b"5\nsix\n",
            "",
            ":2: six\", expected a whole number",
        ),
        ("sign", b"-5\n", "", "expected a whole number"),
        ("huge", b"99999999999999999999\n", "", "below 2^53"),
        ("bytes", b"\xff\xfe\x00", "", "expected a whole number"),
        ("empty", b"# nothing\n", "", "at least one arrival"),
        (
            "once",
            b"5\n",
            ",loop=yes",
            "two arrivals at different instants",
        ),
        (
            "dense",
            b"0\n0\n0\n1\n",
            "",
            "at most 1e9 arrivals a second",
        ),
        ("option", b"0\n9\n", ",scale=0", "trace:PATH"),
        ("twice", b"0\n9\n", ",loop=no,loop=no", "trace:PATH"),
    ];
    for (name, content, options, named) in rows {
        let file = Recording::new(name, content);
        let error = ArrivalProcess::parse(&file.law(options), "fixed", None).unwrap_err();
        assert_eq!(error.code(), "invalid-value");
        assert!(error.to_string().contains(named), "{name}: {error}");
    }
    let file = Recording::new("both", "0\n9\n");
    let error = ArrivalProcess::parse(&file.law(",scale=2"), "fixed", Some(1.0)).unwrap_err();
    assert!(error.to_string().contains("not both"), "{error}");
    let file = Recording::new("still", "5\n5\n");
    let error = ArrivalProcess::parse(&file.law(""), "fixed", Some(1.0)).unwrap_err();
    assert!(error.to_string().contains("two instants"), "{error}");
    assert_eq!(first(&file.law(""), "fixed", None, 9), [5, 5]);
    for path in ["/nowhere/at/all", "/tmp", "/dev/zero"] {
        let error = ArrivalProcess::parse(&format!("trace:{path}"), "fixed", None).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}

/// Any pattern, with numbers of any size.
fn any_pattern() -> impl Strategy<Value = (String, Option<f64>)> {
    let rate = 0.0..50_000.0f64;
    let time = 1_000u64..100_000_000_000;
    let step =
        (rate.clone(), rate.clone(), rate.clone(), time.clone()).prop_map(|(a, b, by, t)| {
            (
                format!(
                    "step:from={},to={},by={},every={t}ns",
                    a + 0.1,
                    b + 0.1,
                    by + 10.0
                ),
                None,
            )
        });
    let ramp = (rate.clone(), rate.clone(), time.clone())
        .prop_map(|(a, b, t)| (format!("ramp:from={a},to={},over={t}ns", b + 0.1), None));
    let spike = (rate.clone(), time.clone(), time.clone(), 0.0..20.0f64).prop_map(
        |(rate, at, length, factor)| {
            (
                format!("spike:at={at}ns,for={length}ns,factor={factor}"),
                Some(rate + 0.1),
            )
        },
    );
    let square = (rate.clone(), rate, time).prop_map(|(a, b, t)| {
        (
            format!("square:low={a},high={},period={t}ns", a + b + 0.1),
            None,
        )
    });
    prop_oneof![step, ramp, spike, square]
}

proptest! {
    #[test]
    fn each_arrival_is_where_its_number_is_expected((pattern, rate_rps) in any_pattern(), skipped in 0..20_000usize) {
        let process = ArrivalProcess::parse("fixed", &pattern, rate_rps).unwrap();
        let found = process.sequence(0).zip(0u32..).skip(skipped).take(50);
        for (at, index) in found.take_while(|(at, _)| at.get() < 1 << 50) {
            let count = process.expected_count(at);
            let rate_rps = process.rate_at(at).unwrap();
            // Half a nanosecond of rounding, and the last bits of counts and times.
            let tolerance = (0.5 + at.get() as f64 * 1e-15) * 1e-9 * rate_rps.max(1.0) + f64::from(index) * 1e-12 + 1e-9;
            let is_right = (count - f64::from(index)).abs() <= tolerance;
            prop_assert!(is_right, "arrival {} at {:?} has count {}", index, at, count);
        }
    }
}
