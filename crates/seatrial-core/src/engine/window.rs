//! The phases of a run.

use crate::engine::plan::LoadPlan;
use crate::record::Phase;
use crate::units::Nanos;

/// The phases of a run as instants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub start: Nanos,
    pub measure_start: Nanos,
    pub measure_end: Nanos,
    /// Replies that come from here on are not counted as achieved: the end of the measure phase, even where
    /// that ends before because there are no more requests to offer.
    pub count_end: Nanos,
    /// Requests due from here on are not offered.
    pub offer_end: Nanos,
    pub drain_end: Nanos,
}

impl Window {
    /// The phases that the plan asks for, from this start on.
    pub fn new(plan: &LoadPlan, start: Nanos) -> Self {
        let measure_start = start.later_by(plan.warm_up);
        let measure_end = measure_start.later_by(plan.measure);
        let offer_end = measure_end.later_by(plan.cool_down);
        Self {
            start,
            measure_start,
            measure_end,
            count_end: measure_end,
            offer_end,
            drain_end: offer_end.later_by(plan.drain),
        }
    }

    pub fn phase_of(&self, intended_at: Nanos) -> Phase {
        if intended_at < self.measure_start {
            Phase::WarmUp
        } else if intended_at < self.measure_end {
            Phase::Measure
        } else {
            Phase::CoolDown
        }
    }

    /// Whether a reply that comes now counts as achieved.
    pub fn is_counted(&self, now: Nanos) -> bool {
        now >= self.measure_start && now < self.count_end
    }

    /// Offers nothing that is due from `now` on, and drains for this long.
    pub fn cut(&mut self, now: Nanos, drain: Nanos) {
        self.measure_end = self.measure_end.min(now);
        self.count_end = self.count_end.min(now);
        self.offer_end = self.offer_end.min(now);
        self.drain_end = self.drain_end.min(now.later_by(drain));
    }
}
