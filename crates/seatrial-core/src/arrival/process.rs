//! A law, a rate and a pattern together: the arrival process that a load offers.

use std::sync::Arc;

use super::draws::{Key, Source, Stream};
use super::law::ArrivalLaw;
use super::mmpp::Mmpp;
use super::pattern::Pattern;
use super::sequence::ArrivalSequence;
use super::shape::Shape;
use super::trace::Trace;
use crate::error::CoreError;
use crate::units::{Nanos, RatePerSecond};

/// A law with mean gap 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Gaps {
    /// All the same.
    Regular,
    /// Independent of each other.
    Renewal(Shape),
    /// Switching between two rates.
    Mmpp(Mmpp),
    /// Recorded.
    Trace(Trace),
}

/// How counts of arrivals become times.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Timeline {
    /// As the trace has them.
    AsRecorded,
    /// A mean gap is always this many nanoseconds.
    Constant {
        /// Not rounded.
        gap_ns: f64,
    },
    /// By a pattern.
    Changing(Arc<Pattern>),
}

/// What is offered in an open loop: an endless supply of sequences, one a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrivalProcess {
    gaps: Gaps,
    timeline: Timeline,
}

/// What observed arrivals look like, seen through the process that they should come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Transformed {
    /// Each gap's place in its law, from 0 to 1: even if the law is right.
    Probabilities(Vec<f64>),
    /// For fixed gaps: how far each arrival is from its place in the schedule that the first one
    /// begins, in mean gaps; 0 if the law is right.
    Deviations(Vec<f64>),
}

impl ArrivalProcess {
    /// Puts a law, a pattern and a rate together, given as texts.
    ///
    /// A rate is needed unless the pattern brings its own; a trace can do without.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] or [`CoreError::InvalidPlan`] that says which part is wrong.
    pub fn parse(law: &str, pattern: &str, rate_rps: Option<f64>) -> Result<Self, CoreError> {
        let parsed = ArrivalLaw::parse(law)?;
        let invalid = |expected| CoreError::InvalidValue {
            what: "arrival law",
            value: law.to_owned(),
            expected,
        };
        let is_as_recorded = pattern == "fixed" && rate_rps.is_none();
        if let (ArrivalLaw::Trace(trace), true) = (&parsed, is_as_recorded) {
            return Ok(Self {
                gaps: Gaps::Trace(trace.clone()),
                timeline: Timeline::AsRecorded,
            });
        }
        let pattern = Pattern::parse(pattern, rate_rps)?;
        let gaps = match parsed {
            ArrivalLaw::Fixed => Gaps::Regular,
            ArrivalLaw::Renewal(shape) => Gaps::Renewal(shape),
            ArrivalLaw::Mmpp(text) => {
                let gap_ns = rate_rps.map(|rate_rps| 1e9 / rate_rps);
                Gaps::Mmpp(text.resolve(gap_ns).map_err(invalid)?)
            }
            ArrivalLaw::Trace(trace) if trace.is_scaled() => {
                return Err(invalid("either a time scale or a rate, not both"));
            }
            ArrivalLaw::Trace(trace) if trace.gap_ns().is_none() => {
                return Err(invalid(
                    "a trace of two instants or more, to be brought to a rate",
                ));
            }
            ArrivalLaw::Trace(trace) => Gaps::Trace(trace),
        };
        let timeline = match pattern.constant_rate() {
            Some(rate_rps) => Timeline::Constant {
                gap_ns: 1e9 / rate_rps,
            },
            None => Timeline::Changing(Arc::new(pattern)),
        };
        Ok(Self { gaps, timeline })
    }

    /// Independent gaps of this shape at a constant rate.
    #[must_use]
    pub fn renewal(shape: Shape, rate: RatePerSecond) -> Self {
        let gap_ns = rate.mean_gap_ns();
        Self {
            gaps: Gaps::Renewal(shape),
            timeline: Timeline::Constant { gap_ns },
        }
    }

    /// The arrivals of one seed.
    #[must_use]
    pub fn sequence(&self, seed: u64) -> ArrivalSequence {
        ArrivalSequence::new(self.gaps.clone(), self.timeline.clone(), seed)
    }

    /// Arrivals a second that are offered at this offset from the start of the load.
    ///
    /// For a trace that is replayed as recorded it is the mean rate of the recording, and `None` when all
    /// of it is at one instant.
    #[must_use]
    pub fn rate_at(&self, offset: Nanos) -> Option<f64> {
        match &self.timeline {
            Timeline::Constant { gap_ns } => Some(1e9 / gap_ns),
            Timeline::Changing(pattern) => Some(pattern.rate_at(offset)),
            Timeline::AsRecorded => self.recorded_gap_ns().map(|gap_ns| 1e9 / gap_ns),
        }
    }

    /// Arrivals that are expected until this offset: the integral of the rate; for a trace their exact number.
    ///
    /// Fixed gaps have one more than that, rounded down, since their first arrival is at the
    /// start. Laws that begin with a gap have `(cv^2 - 1) / 2` more in the long run, where `cv` is
    /// the gaps' coefficient of variation.
    #[must_use]
    pub fn expected_count(&self, offset: Nanos) -> f64 {
        match &self.gaps {
            Gaps::Trace(_) => self.count_of_trace(offset) as f64,
            _ => self.operational(offset),
        }
    }

    fn recorded_gap_ns(&self) -> Option<f64> {
        match &self.gaps {
            Gaps::Trace(trace) => trace.gap_ns(),
            _ => None,
        }
    }

    /// Mean gaps since the start; with a changing rate these are shorter or longer.
    fn operational(&self, offset: Nanos) -> f64 {
        match &self.timeline {
            Timeline::Constant { gap_ns } => offset.get() as f64 / gap_ns,
            Timeline::Changing(pattern) => pattern.count_at(offset),
            Timeline::AsRecorded => offset.get() as f64 / self.recorded_gap_ns().unwrap_or(1.0),
        }
    }

    /// How many arrivals of a trace are not after `offset`, by bisection.
    fn count_of_trace(&self, offset: Nanos) -> u64 {
        let is_over = |index: u64| {
            let mut sequence = self.sequence(0);
            sequence.skip_to(index);
            sequence.next().is_none_or(|at| at > offset)
        };
        let (mut low, mut high) = (0, 1);
        while high < u64::MAX && !is_over(high - 1) {
            low = high;
            high = high.saturating_mul(2);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if is_over(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The probability that a gap is at most `gaps` mean gaps, for a gap between two arrivals.
    #[must_use]
    pub fn gap_cdf(&self, gaps: f64) -> f64 {
        match &self.gaps {
            Gaps::Regular => Shape::Constant.cdf(gaps),
            Gaps::Renewal(shape) => shape.cdf(gaps),
            Gaps::Mmpp(mmpp) => mmpp.cdf(gaps),
            Gaps::Trace(trace) => {
                let (below, at) = trace.below_and_at(gaps);
                below + at
            }
        }
    }

    /// Sees observed arrivals through this process: the gaps in operational time through their law.
    ///
    /// `offsets` count from the start of the load and are in order; the result has one value less.
    /// A gap that has a probability of its own (bimodal, trace, and all that rounds to the same
    /// nanosecond) gets a place inside of that probability, drawn from a fixed stream. Gaps of `mmpp` have the right law each, but depend on
    /// each other, so the p-value of a test for independent values is only approximate.
    #[must_use]
    pub fn transform(&self, offsets: &[Nanos]) -> Transformed {
        let Some((first, rest)) = offsets.split_first() else {
            return Transformed::Probabilities(Vec::new());
        };
        if self.gaps == Gaps::Regular {
            let base = self.operational(*first);
            let places = rest.iter().zip(1u64..);
            let deviations = places.map(|(at, place)| self.operational(*at) - base - place as f64);
            return Transformed::Deviations(deviations.collect());
        }
        let key = Key::new(0, Stream::Atom);
        let pairs = offsets.windows(2).zip(0..);
        let values = pairs.map(|(pair, index)| {
            let (below, at) = self.below_and_at(pair[0], pair[1]);
            below + at * key.item(index).unit()
        });
        Transformed::Probabilities(values.collect())
    }

    fn gap_between(&self, before: Nanos, after: Nanos) -> f64 {
        match &self.timeline {
            // Subtracted as whole numbers, so that nothing is lost late in a long load.
            Timeline::Constant { gap_ns } => before.until(after).get() as f64 / gap_ns,
            _ => self.operational(after) - self.operational(before),
        }
    }

    /// The probability of a shorter gap than this one, and of one that shows as the same number of ns.
    fn below_and_at(&self, before: Nanos, after: Nanos) -> (f64, f64) {
        let gap = self.gap_between(before, after);
        let half_ns = 0.5e-9 * self.rate_at(after).unwrap_or(0.0);
        let atoms = match &self.gaps {
            Gaps::Renewal(shape) => shape.nearest_atom(gap),
            Gaps::Trace(trace) => Some(trace.below_and_at(gap)),
            _ => None,
        };
        atoms.unwrap_or_else(|| {
            let below = self.gap_cdf(gap - half_ns);
            (below, self.gap_cdf(gap + half_ns) - below)
        })
    }
}
