//! How the offered rate changes over time.
//!
//! A pattern stretches and squeezes time: a law's sequence with mean gap 1 lives in *operational
//! time*, which counts the arrivals that are expected so far, and the pattern tells when that count is
//! reached. So every law works with every pattern, and fixed gaps stay exact.

use super::grammar::{Fields, name_and_rest};
use crate::error::CoreError;
use crate::units::{Nanos, RatePerSecond};

/// Steps of a pattern at most.
const STEPS_MAX: f64 = 10_000.0;

const NS_PER_S: f64 = 1e9;

/// All patterns, for who names none of them.
const KNOWN: &str = "fixed, step:from=,to=,by=,every=, ramp:from=,to=,over=, spike:at=,for=,factor= or square:low=,high=,period=";
const STEP: &str = "step:from=RATE,to=RATE,by=RATE,every=TIME, rates above 0 a second, at most 10000 steps; the last one is TO and stays";
const RAMP: &str = "ramp:from=RATE,to=RATE,over=TIME, rates from 0 a second, not both 0; afterwards it stays at TO";
const SPIKE: &str = "spike:at=TIME,for=TIME,factor=F, F times the rate, from 0 on, for that time";
const SQUARE: &str = "square:low=RATE,high=RATE,period=TIME, rates from 0 a second, LOW below HIGH; half a period of each, LOW first";

/// A stretch of time in which the rate is constant or changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    start_ns: f64,
    /// Arrivals expected before it.
    start_count: f64,
    /// Arrivals a second at its start.
    rate: f64,
    /// Change of the rate a nanosecond.
    slope: f64,
}

impl Segment {
    fn rate_at(&self, at_ns: f64) -> f64 {
        self.rate + self.slope * (at_ns - self.start_ns)
    }

    fn count_at(&self, at_ns: f64) -> f64 {
        let since = at_ns - self.start_ns;
        self.start_count + since * (self.rate + 0.5 * self.slope * since) / NS_PER_S
    }

    /// When this count is reached; infinite when it never is.
    fn instant_of(&self, count: f64) -> f64 {
        let missing = (count - self.start_count) * NS_PER_S;
        if self.slope == 0.0 && self.rate == 0.0 {
            return f64::INFINITY;
        }
        if missing <= 0.0 {
            return self.start_ns;
        }
        // The solution of the quadratic equation that does not cancel for small slopes.
        let root = libm::sqrt((self.rate * self.rate + 2.0 * self.slope * missing).max(0.0));
        self.start_ns + 2.0 * missing / (self.rate + root)
    }
}

/// The offered rate as a function of the time since the start of the load, warm-up included.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// After this time, with this many arrivals, it begins anew.
    round: Option<(f64, f64)>,
}

impl Pattern {
    /// The same rate always.
    #[must_use]
    pub fn constant(rate: RatePerSecond) -> Self {
        Self::of(&[(f64::INFINITY, rate.get(), rate.get())])
    }

    /// From stretches of time: length in ns, rate at the start and at the end.
    fn of(stretches: &[(f64, f64, f64)]) -> Self {
        let mut segments: Vec<Segment> = Vec::with_capacity(stretches.len());
        let (mut start_ns, mut start_count) = (0.0, 0.0);
        for (length_ns, from, to) in stretches {
            let slope = if (to - from).abs() > 0.0 {
                (to - from) / length_ns
            } else {
                0.0
            };
            segments.push(Segment {
                start_ns,
                start_count,
                rate: *from,
                slope,
            });
            start_ns += length_ns;
            start_count += length_ns * (0.5 * (from + to)) / NS_PER_S;
        }
        Self {
            segments,
            round: None,
        }
    }

    /// Reads a pattern; `fixed` and `spike` need a rate, the others bring their own.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for a text that is none, [`CoreError::InvalidPlan`] for a rate
    /// that is missing, out of its range or not wanted.
    pub fn parse(text: &str, rate_rps: Option<f64>) -> Result<Self, CoreError> {
        let (name, rest) = name_and_rest(text);
        let usage = match name {
            "step" => STEP,
            "ramp" => RAMP,
            "spike" => SPIKE,
            "square" => SQUARE,
            _ => KNOWN,
        };
        let mut fields = Fields::new("pattern", text, rest, usage)?;
        let fields = &mut fields;
        let pattern = match name {
            "fixed" if rest.is_empty() => return needed_rate(rate_rps).map(Self::constant),
            "spike" => Self::read_spike(fields, needed_rate(rate_rps)?)?,
            "step" => Self::read_step(fields)?,
            "ramp" => Self::read_ramp(fields)?,
            "square" => Self::read_square(fields)?,
            _ => return Err(fields.invalid()),
        };
        match rate_rps {
            Some(rate) if name != "spike" => Err(CoreError::InvalidPlan {
                field: "rate_rps",
                value: rate.to_string(),
                expected: "none, because this pattern has rates of its own",
            }),
            _ => Ok(pattern),
        }
    }

    fn read_step(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        let is_rate = |rate: f64| rate > 0.0 && rate <= RatePerSecond::MAX;
        let (from, to) = (
            fields.needed("from", is_rate)?,
            fields.needed("to", is_rate)?,
        );
        let by = fields.needed("by", is_rate)?;
        let every_ns = positive(fields, "every")?;
        fields.finish()?;
        // A hair less, so that a quotient rounded upwards makes no step of nothing.
        let steps = libm::ceil((to - from).abs() / by - 1e-9).max(0.0);
        if steps > STEPS_MAX {
            return Err(fields.invalid());
        }
        let mut stretches = Vec::new();
        let mut step = 0.0;
        while step < steps {
            let rate = from + (to - from).signum() * by * step;
            stretches.push((every_ns, rate, rate));
            step += 1.0;
        }
        stretches.push((f64::INFINITY, to, to));
        Ok(Self::of(&stretches))
    }

    fn read_ramp(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        let (from, to) = (
            fields.needed("from", is_share)?,
            fields.needed("to", is_share)?,
        );
        let over_ns = positive(fields, "over")?;
        fields.finish()?;
        if from + to <= 0.0 {
            return Err(fields.invalid());
        }
        Ok(Self::of(&[(over_ns, from, to), (f64::INFINITY, to, to)]))
    }

    fn read_spike(fields: &mut Fields<'_>, rate: RatePerSecond) -> Result<Self, CoreError> {
        let at_ns = fields.time("at")?.get() as f64;
        let for_ns = positive(fields, "for")?;
        let factor = fields.needed("factor", |factor| is_share(factor * rate.get()))?;
        fields.finish()?;
        let (rate, spike) = (rate.get(), rate.get() * factor);
        Ok(Self::of(&[
            (at_ns, rate, rate),
            (for_ns, spike, spike),
            (f64::INFINITY, rate, rate),
        ]))
    }

    fn read_square(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        let (low, high) = (
            fields.needed("low", is_share)?,
            fields.needed("high", is_share)?,
        );
        let period_ns = positive(fields, "period")?;
        fields.finish()?;
        if low >= high {
            return Err(fields.invalid());
        }
        let half_ns = 0.5 * period_ns;
        let count = half_ns * (low + high) / NS_PER_S;
        let pattern = Self::of(&[(half_ns, low, low), (half_ns, high, high)]);
        Ok(Self {
            round: Some((period_ns, count)),
            ..pattern
        })
    }

    /// The rate, when it never changes.
    pub(super) fn constant_rate(&self) -> Option<f64> {
        match self.segments[..] {
            [only] => Some(only.rate),
            _ => None,
        }
    }

    /// Arrivals a second that are offered at this offset.
    #[must_use]
    pub fn rate_at(&self, offset: Nanos) -> f64 {
        let mut at_ns = offset.get() as f64;
        if let Some((round_ns, _)) = self.round {
            at_ns -= round_ns * libm::floor(at_ns / round_ns);
        }
        self.segment_at(at_ns).rate_at(at_ns)
    }

    /// Arrivals that are expected from the start to this offset; the operational time.
    #[must_use]
    pub fn count_at(&self, offset: Nanos) -> f64 {
        let at_ns = offset.get() as f64;
        let Some((round_ns, round_count)) = self.round else {
            return self.segment_at(at_ns).count_at(at_ns);
        };
        let rounds = libm::floor(at_ns / round_ns);
        let rest_ns = at_ns - round_ns * rounds;
        rounds * round_count + self.segment_at(rest_ns).count_at(rest_ns)
    }

    /// When this many arrivals are expected, in ns; infinite when never.
    pub(super) fn instant_of(&self, count: f64) -> f64 {
        let Some((round_ns, round_count)) = self.round else {
            return self.segment_of(count).instant_of(count);
        };
        let rounds = libm::floor(count / round_count);
        let rest = count - rounds * round_count;
        rounds * round_ns + self.segment_of(rest).instant_of(rest)
    }

    fn segment_at(&self, at_ns: f64) -> &Segment {
        let after = self
            .segments
            .partition_point(|segment| segment.start_ns <= at_ns);
        &self.segments[after.max(1) - 1]
    }

    /// The last stretch that begins with this count or less: one without arrivals has none.
    fn segment_of(&self, count: f64) -> &Segment {
        let after = self
            .segments
            .partition_point(|segment| segment.start_count <= count);
        &self.segments[after.max(1) - 1]
    }
}

fn is_share(rate: f64) -> bool {
    (0.0..=RatePerSecond::MAX).contains(&rate)
}

fn positive(fields: &mut Fields<'_>, name: &str) -> Result<f64, CoreError> {
    let time = fields.time(name)?;
    if time == Nanos::ZERO {
        return Err(fields.invalid());
    }
    Ok(time.get() as f64)
}

fn needed_rate(rate_rps: Option<f64>) -> Result<RatePerSecond, CoreError> {
    rate_rps
        .and_then(RatePerSecond::new)
        .ok_or_else(|| CoreError::InvalidPlan {
            field: "rate_rps",
            value: rate_rps.map_or_else(|| "none".to_owned(), |rate| rate.to_string()),
            expected: "above 0 and at most 1e9 for an open loop",
        })
}
