//! Waits until an intended time, and measures how well it does.
//!
//! A blocking wait wakes some microseconds late, because the kernel has to
//! schedule the thread. The hybrid wait blocks until shortly before the instant and
//! spins for the rest: late by well under a microsecond, at the price of a core.

use std::num::NonZeroU64;

use crate::clock::Clock;
use crate::error::CoreError;
use crate::histogram::Histogram;
use crate::units::Nanos;

/// How long before the instant the hybrid wait starts to spin: longer than
/// nearly every wake-up from a blocking wait takes once the timer slack is gone.
const SPIN: Nanos = Nanos::new(60_000);

/// How a thread waits for the next intended instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// In the kernel only.
    Block,
    /// In the kernel until 60 µs before, then in a loop that looks for replies and at the clock.
    Hybrid,
}

impl WaitMode {
    /// Reads `block` or `hybrid`.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for any other name.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        match text {
            "block" => Ok(Self::Block),
            "hybrid" => Ok(Self::Hybrid),
            _ => Err(CoreError::InvalidValue {
                what: "wait mode",
                value: text.to_owned(),
                expected: "block or hybrid",
            }),
        }
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The instant came.
    ByTime,
    /// Something happened before it.
    ByEvent,
}

/// Waits for instants on behalf of one thread.
#[derive(Debug)]
pub struct Pacer {
    mode: WaitMode,
    lag: Histogram,
}

impl Pacer {
    /// A pacer that waits in this way.
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        Self {
            mode,
            lag: Histogram::new(),
        }
    }

    /// Tells the kernel not to batch the timers of the calling thread with others.
    ///
    /// The default slack of 50 µs would be added to every blocking wait.
    ///
    /// # Errors
    /// [`CoreError::System`] when the kernel refuses, which it does not on Linux.
    pub fn sharpen_thread_timers() -> Result<(), CoreError> {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))
            .map_err(CoreError::system("prctl(PR_SET_TIMERSLACK)"))
    }

    /// Waits until `instant` or an event, whichever is first.
    ///
    /// `poll` blocks until the instant that it is given, or returns at once when
    /// that has passed; it says what ended the wait.
    ///
    /// # Errors
    /// Whatever `poll` fails with.
    pub fn wait_until<C: Clock>(
        &self,
        clock: &C,
        instant: Nanos,
        mut poll: impl FnMut(Nanos) -> Result<Woken, CoreError>,
    ) -> Result<Woken, CoreError> {
        if self.mode == WaitMode::Block {
            return poll(instant);
        }
        let spin_from = instant.checked_sub(SPIN).unwrap_or(Nanos::ZERO);
        if clock.now() < spin_from {
            let woken = poll(spin_from)?;
            // Woken early without an event: a signal, or the order to stop. The caller looks.
            if woken == Woken::ByEvent || clock.now() < spin_from {
                return Ok(Woken::ByEvent);
            }
        }
        loop {
            let now = clock.now();
            if poll(now)? == Woken::ByEvent {
                return Ok(Woken::ByEvent);
            }
            if now >= instant {
                return Ok(Woken::ByTime);
            }
        }
    }

    /// Notes that what could have been sent at `possible_at` was sent at `sent_at`.
    pub fn note_sent(&mut self, possible_at: Nanos, sent_at: Nanos) {
        self.lag.record(possible_at.until(sent_at));
    }

    /// How late the thread was by its own fault.
    #[must_use]
    pub fn into_lag(self) -> Histogram {
        self.lag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;

    /// A poll that moves the clock like a kernel would, with an event at one instant.
    fn poll_with_event_at(
        clock: &VirtualClock,
        event_at: Nanos,
    ) -> impl FnMut(Nanos) -> Result<Woken, CoreError> {
        move |until| {
            // Each look costs a little time, or a spin would never end.
            clock.advance_to(clock.now().later_by(Nanos::new(100)));
            clock.advance_to(until.min(event_at));
            Ok(if clock.now() >= event_at {
                Woken::ByEvent
            } else {
                Woken::ByTime
            })
        }
    }

    #[test]
    fn hybrid_blocks_first_and_spins_to_the_instant() {
        let clock = VirtualClock::default();
        let pacer = Pacer::new(WaitMode::Hybrid);
        let instant = Nanos::new(1_000_000);
        let poll = poll_with_event_at(&clock, Nanos::MAX);
        assert_eq!(
            pacer.wait_until(&clock, instant, poll).unwrap(),
            Woken::ByTime
        );
        assert!(clock.now() >= instant && clock.now() < instant.later_by(Nanos::new(300)));
    }

    #[test]
    fn an_event_ends_the_wait_in_both_parts() {
        for event_at in [500_000, 990_000] {
            for mode in [WaitMode::Block, WaitMode::Hybrid] {
                let clock = VirtualClock::default();
                let poll = poll_with_event_at(&clock, Nanos::new(event_at));
                let woken = Pacer::new(mode).wait_until(&clock, Nanos::new(1_000_000), poll);
                assert_eq!(woken.unwrap(), Woken::ByEvent);
                assert!(clock.now() < Nanos::new(1_000_000));
            }
        }
    }

    #[test]
    fn lag_counts_from_the_instant_it_was_possible() {
        let mut pacer = Pacer::new(WaitMode::Block);
        pacer.note_sent(Nanos::new(100), Nanos::new(130));
        pacer.note_sent(Nanos::new(200), Nanos::new(190));
        let lag = pacer.into_lag();
        assert_eq!(
            (lag.min(), lag.max()),
            (Some(Nanos::ZERO), Some(Nanos::new(30)))
        );
    }

    #[test]
    fn wait_modes_have_names() {
        assert_eq!(WaitMode::parse("hybrid").unwrap(), WaitMode::Hybrid);
        assert_eq!(WaitMode::parse("spin").unwrap_err().code(), "invalid-value");
    }
}
