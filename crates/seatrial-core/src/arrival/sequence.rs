//! The global sequence of arrivals: one a seed, the same for every thread and agent.

use super::draws::{Draws, Stream};
use super::process::{Gaps, Timeline};
use crate::units::Nanos;

/// The global sequence of arrival instants, counted from the start of the load.
///
/// It ends where a trace ends, where a pattern's rate falls to 0 for ever, and after 292 years.
#[derive(Clone, Debug)]
pub struct ArrivalSequence {
    gaps: Gaps,
    timeline: Timeline,
    draws: Draws,
    index: u64,
    /// Time since the start: in ns at a constant rate, in mean gaps when a pattern stretches them.
    elapsed: f64,
    in_burst: bool,
    last: Nanos,
}

impl ArrivalSequence {
    pub(super) fn new(gaps: Gaps, timeline: Timeline, seed: u64) -> Self {
        let mut draws = Draws::new(seed, Stream::Arrival);
        let in_burst = match &gaps {
            Gaps::Mmpp(mmpp) => mmpp.begins_in_burst(&mut draws),
            _ => false,
        };
        Self {
            gaps,
            timeline,
            draws,
            index: 0,
            elapsed: 0.0,
            in_burst,
            last: Nanos::ZERO,
        }
    }

    /// Goes on with this index; only for laws that draw nothing.
    pub(super) fn skip_to(&mut self, index: u64) {
        self.index = index;
    }
}

impl Iterator for ArrivalSequence {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        let unit = match &self.timeline {
            Timeline::AsRecorded => None,
            Timeline::Constant { gap_ns } => Some(*gap_ns),
            Timeline::Changing(_) => Some(1.0),
        };
        let scale = unit.unwrap_or(1.0);
        // Sums stay in f64 and are rounded last, so that rounding never adds up:
        // below 2^53 ns (104 days) every whole nanosecond can be told apart.
        self.elapsed = match &self.gaps {
            Gaps::Regular => self.index as f64 * scale,
            Gaps::Renewal(shape) => self.elapsed + shape.draw(&mut self.draws) * scale,
            Gaps::Mmpp(mmpp) => {
                self.elapsed + mmpp.draw(&mut self.in_burst, &mut self.draws) * scale
            }
            Gaps::Trace(trace) => trace.instant(self.index, unit)?,
        };
        let at_ns = match &self.timeline {
            Timeline::Changing(pattern) => pattern.instant_of(self.elapsed),
            _ => self.elapsed,
        };
        self.index += 1;
        // The inverse of a pattern is rounded, and must not take an arrival before the last one.
        self.last = Nanos::from_f64(at_ns)?.max(self.last);
        Some(self.last)
    }
}
