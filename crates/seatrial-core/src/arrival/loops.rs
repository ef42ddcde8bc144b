//! What a thread offers next: by the schedule in an open loop, by free places in a closed one.

use std::collections::VecDeque;

use super::draws::{Key, Stream};
use super::process::ArrivalProcess;
use super::sequence::ArrivalSequence;
use super::size::DemandLaw;
use crate::error::CoreError;
use crate::units::Nanos;

/// Whether requests wait for replies.
#[derive(Clone, Debug, PartialEq)]
pub enum Loop {
    /// Each place on a connection sends again once its reply is there and its user has thought.
    Closed,
    /// Requests are due by this process, whatever the replies do.
    Open(ArrivalProcess),
}

impl Loop {
    /// Reads `closed`, or a law of arrivals with its pattern and rate.
    ///
    /// # Errors
    /// An unknown name, a rate or a pattern for a closed loop, or no rate for an open one.
    pub fn parse(text: &str, pattern: &str, rate_rps: Option<f64>) -> Result<Self, CoreError> {
        if text != "closed" {
            return ArrivalProcess::parse(text, pattern, rate_rps).map(Self::Open);
        }
        let unwanted = |field, value: String| CoreError::InvalidPlan {
            field,
            value,
            expected: "none, because a closed loop sends as fast as replies come",
        };
        match rate_rps {
            Some(rate) => Err(unwanted("rate_rps", rate.to_string())),
            None if pattern != "fixed" => Err(unwanted("pattern", pattern.to_owned())),
            None => Ok(Self::Closed),
        }
    }
}

/// Which requests of the global sequence belong to one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Number of this thread, from 0.
    pub member: u32,
    /// Number of threads, at least 1.
    pub members: u32,
}

impl Share {
    /// The part of one thread of one agent, when each agent splits its part over its own threads.
    ///
    /// Agent `a` of `A` has the requests with `index mod A == a`, whatever its number of threads.
    #[must_use]
    pub const fn within(self, agent: Self) -> Self {
        Self {
            member: agent.member + agent.members * self.member,
            members: agent.members * self.members,
        }
    }

    /// Whether the request with this global index is ours.
    #[must_use]
    pub const fn owns(self, index: u64) -> bool {
        index % self.members as u64 == self.member as u64
    }

    /// Which one of ours the request with this global index is, from 0.
    #[must_use]
    #[inline]
    pub const fn position_of(self, index: u64) -> u64 {
        // A division takes longer than all else that is done to find out whether a record is kept.
        if self.members == 1 {
            index
        } else {
            index / self.members as u64
        }
    }

    /// The number in the whole run of our thing number `own`, when things are dealt in turn.
    #[must_use]
    pub fn number_of(self, own: usize) -> u32 {
        self.member + self.members * u32::try_from(own).unwrap_or(u32::MAX)
    }

    /// How many of the first `total` items are ours.
    #[must_use]
    pub const fn portion_of(self, total: u64) -> u64 {
        let members = self.members as u64;
        total / members + (total % members > self.member as u64) as u64
    }
}

/// A request that is due, before it has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Index in the global sequence; no two requests of a run share one.
    pub request_id: u64,
    /// The instant at which it should have been sent.
    pub intended_at: Nanos,
    /// The work it asks for.
    pub demand: Nanos,
}

/// What decides when the next request of a thread is due.
pub trait Arrival {
    /// When the next request is due; `None` as long as that is not known.
    ///
    /// `slot_free_at` is the instant at which the place that waits longest
    /// became free, or `None` when all are taken.
    fn due_at(&self, slot_free_at: Option<Nanos>) -> Option<Nanos>;

    /// Takes the request that [`Arrival::due_at`] just announced for `intended_at`.
    fn take(&mut self, intended_at: Nanos) -> Scheduled;

    /// Takes up to `most` requests that are due at this instant and ask for the same: the first of
    /// them, and how many, at least 1. The ids of the others follow in steps of the number of threads.
    #[inline]
    fn take_run(&mut self, intended_at: Nanos, most: u32) -> (Scheduled, u32) {
        let _ = most;
        (self.take(intended_at), 1)
    }

    /// Whether requests are due as soon as replies come, so that the instant at which one was read is
    /// all that has to be known of the time.
    #[inline]
    fn follows_replies(&self) -> bool {
        false
    }

    /// Whether the bound on requests is reached, or the schedule at its end.
    fn is_exhausted(&self) -> bool;

    /// Draws what comes next, if that was not done yet: called when there is time before the next
    /// instant, so that a request which is due need not wait for it.
    fn prepare(&mut self) {}

    /// How long a place that became free stays idle before it is due; drawn anew at each call.
    fn think(&mut self) -> Nanos {
        Nanos::ZERO
    }
}

/// What a thread needs to know to draw its demands and ids.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// Which requests are its own.
    pub share: Share,
    /// The law of the demands.
    pub law: DemandLaw,
    /// The seed of the run.
    pub seed: u64,
    /// Requests of all threads together.
    pub requests_max: u64,
}

/// One thread's part of the demands and ids of the global sequence.
#[derive(Clone, Debug)]
struct Sequence {
    share: Share,
    law: DemandLaw,
    key: Key,
    /// Index of the next request of ours.
    index: u64,
    index_end: u64,
}

impl Sequence {
    fn new(demands: &Demands) -> Self {
        Self {
            share: demands.share,
            law: demands.law,
            key: Key::new(demands.seed, Stream::Demand),
            index: demands.share.member.into(),
            index_end: demands.requests_max,
        }
    }

    /// The next id of ours with its demand, which depends on seed and id only.
    #[inline]
    fn next(&mut self) -> (u64, Nanos) {
        let index = self.index;
        self.index = index.saturating_add(self.share.members.into());
        // Where nothing is drawn, not even the numbers for it are made: this is done a million times a second.
        let demand = match self.law {
            DemandLaw::None => Nanos::ZERO,
            law => law.draw(&mut self.key.item(index)),
        };
        (index, demand)
    }

    /// The next ids of ours, at most so many: the first with its demand, and how many have the same one.
    #[inline]
    fn next_run(&mut self, most: u32) -> (u64, Nanos, u32) {
        let first = self.index;
        let (id, demand) = self.next();
        if most <= 1 || self.law != DemandLaw::None {
            return (id, demand, 1);
        }
        let members = u64::from(self.share.members);
        let left = self.index_end.saturating_sub(first).div_ceil(members);
        // At least the one that was taken, and at most `most`.
        let count = left.clamp(1, most.into());
        self.index = first.saturating_add(count.saturating_mul(members));
        (id, demand, u32::try_from(count).unwrap_or(most))
    }

    const fn is_exhausted(&self) -> bool {
        self.index >= self.index_end
    }
}

/// Requests that an open loop keeps ready: as many as are sent in a row.
const READY_MAX: usize = 64;

/// Open loop: requests are due by the schedule, whatever the replies do.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    start: Nanos,
    arrivals: ArrivalSequence,
    sequence: Sequence,
    /// Arrivals of others before the next one of ours.
    skipped: usize,
    /// The next ones of ours; empty only at the end of the schedule.
    ready: VecDeque<Scheduled>,
    is_ended: bool,
}

impl OpenLoop {
    /// One thread's share of the schedule that starts at `start`.
    #[must_use]
    pub fn new(start: Nanos, arrivals: ArrivalSequence, demands: &Demands) -> Self {
        let mut open = Self {
            start,
            arrivals,
            sequence: Sequence::new(demands),
            skipped: usize::try_from(demands.share.member).unwrap_or(usize::MAX),
            ready: VecDeque::with_capacity(READY_MAX),
            is_ended: false,
        };
        open.prepare();
        open
    }

    /// Draws the next request, unless there is none.
    fn draw(&mut self) {
        if self.is_ended || self.sequence.is_exhausted() {
            return;
        }
        let Some(offset) = self.arrivals.nth(self.skipped) else {
            self.is_ended = true;
            return;
        };
        let others = self.sequence.share.members - 1;
        self.skipped = usize::try_from(others).unwrap_or(usize::MAX);
        let (request_id, demand) = self.sequence.next();
        self.ready.push_back(Scheduled {
            request_id,
            intended_at: self.start.later_by(offset),
            demand,
        });
    }
}

impl Arrival for OpenLoop {
    fn due_at(&self, _slot_free_at: Option<Nanos>) -> Option<Nanos> {
        self.ready.front().map(|scheduled| scheduled.intended_at)
    }

    fn take(&mut self, intended_at: Nanos) -> Scheduled {
        let taken = self.ready.pop_front();
        if self.ready.is_empty() {
            self.draw();
        }
        // Nothing was announced, so there is nothing to take: an id beyond all others shows the caller's fault.
        taken.unwrap_or(Scheduled {
            request_id: u64::MAX,
            intended_at,
            demand: Nanos::ZERO,
        })
    }

    fn is_exhausted(&self) -> bool {
        self.ready.is_empty()
    }

    fn prepare(&mut self) {
        for _ in self.ready.len()..READY_MAX {
            self.draw();
        }
    }
}

/// Closed loop: a request is due as soon as a place is free and its user has thought.
#[derive(Clone, Debug)]
pub struct ClosedLoop {
    sequence: Sequence,
    think: DemandLaw,
    think_key: Key,
    /// Number of the next think time; like request ids, no two threads share one.
    think_id: u64,
}

impl ClosedLoop {
    /// One thread's share of a closed loop whose places think for this long.
    #[must_use]
    pub fn new(demands: &Demands, think: DemandLaw) -> Self {
        Self {
            sequence: Sequence::new(demands),
            think,
            think_key: Key::new(demands.seed, Stream::Think),
            think_id: demands.share.member.into(),
        }
    }
}

impl Arrival for ClosedLoop {
    #[inline]
    fn due_at(&self, slot_free_at: Option<Nanos>) -> Option<Nanos> {
        slot_free_at.filter(|_| !self.is_exhausted())
    }

    #[inline]
    fn take(&mut self, intended_at: Nanos) -> Scheduled {
        let (request_id, demand) = self.sequence.next();
        Scheduled {
            request_id,
            intended_at,
            demand,
        }
    }

    #[inline]
    fn take_run(&mut self, intended_at: Nanos, most: u32) -> (Scheduled, u32) {
        let (request_id, demand, count) = self.sequence.next_run(most);
        let first = Scheduled {
            request_id,
            intended_at,
            demand,
        };
        (first, count)
    }

    #[inline]
    fn follows_replies(&self) -> bool {
        true
    }

    #[inline]
    fn is_exhausted(&self) -> bool {
        self.sequence.is_exhausted()
    }

    #[inline]
    fn think(&mut self) -> Nanos {
        if self.think == DemandLaw::None {
            return Nanos::ZERO;
        }
        let id = self.think_id;
        self.think_id = id.wrapping_add(self.sequence.share.members.into());
        self.think.draw(&mut self.think_key.item(id))
    }
}
