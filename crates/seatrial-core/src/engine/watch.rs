//! Looking at a load while it runs, from another thread.
//!
//! Each thread of the engine hands over what happened when an interval ends: one short lock, ten
//! times a second. Whatever is computed from it is computed by the thread that looks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::counters::Counters;
use crate::engine::timeline::{Cell, Interval, Timeline};
use crate::histogram::Histogram;
use crate::units::Nanos;

/// What a thread has told and nobody has read yet.
#[derive(Debug, Default)]
struct News {
    timeline: Option<Timeline>,
    measured: Counters,
    started_at: Option<Nanos>,
    told_until: Nanos,
    has_ended: bool,
}

/// Where one thread tells what happened.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<News>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the thread began to offer load, in intervals like these.
    pub fn begin(&self, started_at: Nanos, timeline: Timeline) {
        let mut news = self.lock();
        news.started_at = Some(started_at);
        news.told_until = started_at;
        news.timeline = Some(timeline);
    }

    /// Tells what happened in the interval that began at `start` and ended at `end`.
    pub fn tell(&self, start: Nanos, end: Nanos, cell: &Cell, measured: &Counters) {
        let mut news = self.lock();
        news.measured = *measured;
        news.told_until = news.told_until.max(end);
        if let Some(timeline) = &mut news.timeline {
            timeline.add(start, cell);
        }
    }

    /// Tells that so many requests were due in an interval that was told already.
    pub fn tell_due(&self, intended_at: Nanos, count: u64) {
        if let Some(timeline) = &mut self.lock().timeline {
            timeline.cell_at(intended_at).intended_count += count;
        }
    }

    /// Tells that nothing more will come.
    pub fn end(&self) {
        self.lock().has_ended = true;
    }
}

/// What a load looks like while it runs.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// From the start to the instant up to which every thread has told.
    pub elapsed: Nanos,
    /// Requests of the measure phase that have ended so far.
    pub measured: Counters,
    /// Response times of the correct replies among them.
    pub response: Histogram,
    /// Intervals that have ended since the last look. A request that waits for a free place is
    /// among the intended ones only when its wait is over; the final result counts all.
    pub intervals: Vec<Interval>,
}

/// A load that can be looked at while it runs.
#[derive(Debug)]
pub struct Watch {
    slots: Vec<Slot>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    response: Histogram,
    timeline: Option<Timeline>,
    given_until: Nanos,
}

impl Watch {
    /// For a load with this many threads.
    #[must_use]
    pub fn new(threads: u32) -> Self {
        Self {
            slots: (0..threads).map(|_| Slot::default()).collect(),
            seen: Mutex::new(Seen {
                response: Histogram::new(),
                timeline: None,
                given_until: Nanos::ZERO,
            }),
        }
    }

    /// Where this thread tells; `None` for one that the watch was not made for.
    pub(super) fn slot(&self, thread: u32) -> Option<&Slot> {
        self.slots.get(thread as usize)
    }

    /// What has happened so far; `None` before the start.
    #[must_use]
    pub fn look(&self) -> Option<Snapshot> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut measured = Counters::default();
        let (mut going_until, mut ended_until) = (None, Nanos::ZERO);
        let mut started_at = None;
        for slot in &self.slots {
            let mut news = slot.lock();
            started_at = Some(news.started_at?);
            measured.add(&news.measured);
            if news.has_ended {
                ended_until = ended_until.max(news.told_until);
            } else {
                let until = going_until.unwrap_or(Nanos::MAX).min(news.told_until);
                going_until = Some(until);
            }
            let told = news.timeline.as_mut().map(Timeline::take);
            drop(news);
            if let Some(told) = told {
                told.add_measured_to(&mut seen.response);
                match &mut seen.timeline {
                    None => seen.timeline = Some(told),
                    Some(timeline) => timeline.merge(told),
                }
            }
        }
        let until = going_until.unwrap_or(ended_until);
        let given_until = seen.given_until;
        let timeline = seen.timeline.as_mut()?;
        let mut intervals = timeline.take_until(going_until.unwrap_or(Nanos::MAX));
        // What is told late about an interval that was given is left to the final result.
        intervals.retain(|interval| interval.start >= given_until);
        if let Some(last) = intervals.last() {
            seen.given_until = last.end;
        }
        Some(Snapshot {
            elapsed: started_at?.until(until),
            measured,
            response: seen.response.clone(),
            intervals,
        })
    }
}
