//! What is accepted as a law works, what is not is told what would be.
#![allow(clippy::unwrap_used)] // tests fail by panic

use proptest::prelude::*;
use seatrial_core::arrival::{
    ArrivalProcess, DemandLaw, Key, Pattern, Popularity, SizeLaw, Stream,
};
use seatrial_core::units::Nanos;

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
