//! A Markov-modulated Poisson process with two states: calm, and bursts in which arrivals come faster.

use super::draws::Source;
use super::grammar::{Fields, parse_number};
use crate::error::CoreError;
use crate::units::{Nanos, parse_duration};

/// What the parameters mean.
pub const USAGE: &str = "mmpp:factor=F,burst=B,calm=C, arrivals come F times as fast in a burst (1 < F <= 1e6); mean lengths of bursts and of the calm between them, as times (10ms) or as numbers of mean gaps, 0.1 to 1e9 of them";

/// A mean length of a state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// A time; it needs a rate to become a number of gaps.
    Time(Nanos),
    /// So many mean gaps.
    Gaps(f64),
}

impl Length {
    fn parse(text: &str) -> Option<Self> {
        parse_number(text)
            .map(Self::Gaps)
            .or_else(|| parse_duration(text).ok().map(Self::Time))
    }

    fn in_gaps(self, gap_ns: Option<f64>) -> Option<f64> {
        match self {
            Self::Gaps(gaps) => Some(gaps),
            Self::Time(time) => gap_ns.map(|gap_ns| time.get() as f64 / gap_ns),
        }
    }
}

/// The process as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MmppText {
    factor: f64,
    burst: Length,
    calm: Length,
}

impl MmppText {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        let factor = fields.needed("factor", |factor| factor > 1.0 && factor <= 1e6)?;
        let mut length = |name| fields.word(name).and_then(Length::parse);
        match (length("burst"), length("calm")) {
            (Some(burst), Some(calm)) => Ok(Self {
                factor,
                burst,
                calm,
            }),
            _ => Err(fields.invalid()),
        }
    }

    /// The process with mean gap 1; `gap_ns` is the mean gap at the rate that is offered.
    ///
    /// `Err` says what is wrong with the lengths.
    pub(super) fn resolve(&self, gap_ns: Option<f64>) -> Result<Mmpp, &'static str> {
        let lengths = [self.burst, self.calm].map(|length| length.in_gaps(gap_ns));
        let [Some(burst), Some(calm)] = lengths else {
            return Err("lengths as numbers of mean gaps, because the pattern has no single rate");
        };
        let is_right = |gaps: f64| (0.1..=1e9).contains(&gaps);
        if !is_right(burst) || !is_right(calm) {
            return Err("mean lengths of 0.1 to 1e9 mean gaps at the given rate");
        }
        Ok(Mmpp::new(self.factor, burst, calm))
    }
}

/// One of the two states.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    /// Arrivals a mean gap.
    rate: f64,
    /// Ends of the state a mean gap.
    leave: f64,
    /// Share of the arrivals that come in this state.
    arrivals_ratio: f64,
}

/// The process, scaled to a mean gap of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mmpp {
    calm: State,
    burst: State,
}

impl Mmpp {
    fn new(factor: f64, burst_gaps: f64, calm_gaps: f64) -> Self {
        let burst_ratio = burst_gaps / (burst_gaps + calm_gaps);
        let rate = 1.0 / (1.0 - burst_ratio + factor * burst_ratio);
        let state = |rate: f64, gaps: f64, time_ratio: f64| State {
            rate,
            leave: 1.0 / gaps,
            arrivals_ratio: rate * time_ratio,
        };
        Self {
            calm: state(rate, calm_gaps, 1.0 - burst_ratio),
            burst: state(factor * rate, burst_gaps, burst_ratio),
        }
    }

    /// Whether an arrival that is picked at random comes in a burst; the sequence begins as if at one.
    pub(super) fn begins_in_burst(&self, source: &mut impl Source) -> bool {
        source.unit() <= self.burst.arrivals_ratio
    }

    /// The gap to the next arrival; `in_burst` is the state, then and afterwards.
    pub(super) fn draw(&self, in_burst: &mut bool, source: &mut impl Source) -> f64 {
        let mut gap = 0.0;
        loop {
            let state = if *in_burst { self.burst } else { self.calm };
            let either = state.rate + state.leave;
            gap += source.exponential() / either;
            if source.unit() * either <= state.rate {
                return gap;
            }
            *in_burst = !*in_burst;
        }
    }

    /// The two exponential phases of the gaps' law: the weight of the first, and both rates.
    ///
    /// An arrival leaves the state as it is, so a gap begins in a state with the probability that
    /// an arrival comes in it, `phi`. With `D` = diagonal of the rates - generator of the states, the gap
    /// exceeds `x` with probability `phi exp(-D x) 1`: a mixture of exponentials whose rates are the
    /// eigenvalues of `D`, and whose weights follow from the density at 0, `phi rates 1`.
    fn phases(&self) -> (f64, f64, f64) {
        let (calm, burst) = (self.calm, self.burst);
        let trace = calm.rate + calm.leave + burst.rate + burst.leave;
        let determinant =
            calm.rate * burst.rate + calm.rate * burst.leave + burst.rate * calm.leave;
        let half = 0.5 * (calm.rate + calm.leave - burst.rate - burst.leave);
        let root = libm::sqrt(half * half + calm.leave * burst.leave);
        let fast = 0.5 * trace + root;
        let slow = determinant / fast;
        let at_zero = calm.rate * calm.arrivals_ratio + burst.rate * burst.arrivals_ratio;
        let weight = ((at_zero - slow) / (fast - slow)).clamp(0.0, 1.0);
        (weight, fast, slow)
    }

    /// The probability that the gap between two arrivals picked at random is at most `x` mean gaps.
    pub(super) fn cdf(&self, x: f64) -> f64 {
        if x <= 0.0 {
            return 0.0;
        }
        let (weight, fast, slow) = self.phases();
        -weight * libm::expm1(-fast * x) - (1.0 - weight) * libm::expm1(-slow * x)
    }
}
