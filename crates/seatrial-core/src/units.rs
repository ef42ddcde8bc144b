//! Quantities with their unit in the type, and the text forms a user writes.
//!
//! Time is whole nanoseconds everywhere. Arithmetic on [`Nanos`] is checked:
//! an overflow or a negative difference is `None`, never a wrapped number.

use crate::error::CoreError;

/// A duration or an instant of a monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(u64);

impl Nanos {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// The latest instant that can be told; used as *never*.
    pub const MAX: Self = Self(u64::MAX);

    /// This many nanoseconds.
    #[must_use]
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// This many milliseconds; `None` when they do not fit.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Option<Self> {
        match millis.checked_mul(1_000_000) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The number of nanoseconds.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, unless it does not fit.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The difference, unless `other` is larger.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The instant `delay` later, or [`Nanos::MAX`] (never) when it does not fit.
    #[must_use]
    pub const fn later_by(self, delay: Self) -> Self {
        Self(self.0.saturating_add(delay.0))
    }

    /// The time from now until `deadline`: nothing when it has passed.
    #[must_use]
    pub const fn until(self, deadline: Self) -> Self {
        Self(deadline.0.saturating_sub(self.0))
    }

    /// The signed form that columns hold; instants of a real clock always fit.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The nearest whole number of nanoseconds; `None` for what is negative, not finite or too large.
    #[must_use]
    pub fn from_f64(nanos: f64) -> Option<Self> {
        // 2^63: larger times are no times, and the cast below would clip them.
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        if !(0.0..LIMIT).contains(&nanos) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // range checked above
        Some(Self(nanos.round() as u64))
    }
}

/// How many whole time units a text like `250ms` names, as nanoseconds.
const DURATION_UNITS: [(&str, f64); 6] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("min", 60e9),
];

/// Reads a duration such as `250ms`, `1.5s` or `100us`.
///
/// # Errors
/// [`CoreError::InvalidValue`] when the number or the unit is missing or unknown.
pub fn parse_duration(text: &str) -> Result<Nanos, CoreError> {
    let invalid = || CoreError::InvalidValue {
        what: "duration",
        value: text.to_owned(),
        expected: "a number and one of ns, us, ms, s, min, such as 250ms",
    };
    let digits_end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .ok_or_else(invalid)?;
    let (number, unit) = text.split_at(digits_end);
    let scale = DURATION_UNITS
        .iter()
        .find_map(|(name, scale)| (*name == unit).then_some(*scale))
        .ok_or_else(invalid)?;
    let number: f64 = number.parse().map_err(|_| invalid())?;
    Nanos::from_f64(number * scale).ok_or_else(invalid)
}

/// A rate of events; always finite and above zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct RatePerSecond(f64);

impl RatePerSecond {
    /// Highest rate that makes sense with whole nanoseconds.
    pub const MAX: f64 = 1e9;

    /// The rate, if it is finite, above zero and at most [`RatePerSecond::MAX`].
    #[must_use]
    pub fn new(per_second: f64) -> Option<Self> {
        (per_second > 0.0 && per_second <= Self::MAX).then_some(Self(per_second))
    }

    /// Events per second.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Mean time between two events, in nanoseconds; not rounded.
    #[must_use]
    pub fn mean_gap_ns(self) -> f64 {
        1e9 / self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        let rows = [
            ("0ns", 0),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("2min", 120_000_000_000),
        ];
        for (text, nanos) in rows {
            assert_eq!(parse_duration(text).unwrap(), Nanos::new(nanos), "{text}");
        }
    }

    #[test]
    fn durations_without_a_unit_are_refused() {
        for text in [
            "",
            "5",
            "ms",
            "5 ms",
            "-5ms",
            "1..2s",
            "5sec",
            "1e400s",
            "99999999999min",
        ] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error.code(), "invalid-value", "{text}");
        }
    }

    #[test]
    fn arithmetic_is_checked() {
        assert_eq!(Nanos::MAX.checked_add(Nanos::new(1)), None);
        assert_eq!(Nanos::ZERO.checked_sub(Nanos::new(1)), None);
        assert_eq!(Nanos::new(5).until(Nanos::new(3)), Nanos::ZERO);
        assert_eq!(Nanos::from_f64(f64::NAN), None);
        assert_eq!(Nanos::from_f64(1e19), None);
        assert_eq!(Nanos::from_millis(u64::MAX), None);
    }

    #[test]
    fn rates_are_positive_and_finite() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 2e9] {
            assert_eq!(RatePerSecond::new(bad), None);
        }
        let rate = RatePerSecond::new(200.0).unwrap();
        assert!((rate.mean_gap_ns() - 5e6).abs() < 1e-9);
    }
}
