//! Waits until an intended time.
//!
//! A blocking wait wakes some microseconds late, because the kernel has to
//! schedule the thread. The hybrid wait blocks until shortly before the instant and
//! spins for the rest: late by well under a microsecond, at the price of a part of a core. The
//! spinning wait never blocks: it also sees replies sooner, at the price of a whole core.

use std::num::NonZeroU64;

use crate::clock::Clock;
use crate::error::CoreError;
use crate::units::Nanos;

/// Shortest guard of the hybrid wait: what a wake-up takes on an idle machine.
pub const GUARD_MIN: Nanos = Nanos::new(40_000);

/// Longest guard: beyond it the machine is so busy that spinning would only make it busier.
pub const GUARD_MAX: Nanos = Nanos::new(300_000);

/// In this last stretch before an instant that matters only the clock is read: a look at the
/// connections takes about half as long, and would make the request late by what is left of it.
/// A reply that comes in this stretch is read after the request was sent.
pub const LAST_STRETCH: Nanos = Nanos::new(1_000);

/// Blocking waits that the guard is calibrated by, and how long each should take.
const PROBES: usize = 40;
const PROBE: Nanos = Nanos::new(200_000);

/// How a thread waits for the next intended instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// In the kernel only.
    Block,
    /// In the kernel until a guard before, then in a loop that looks for replies and at the clock.
    Hybrid,
    /// Always in that loop.
    Spin,
}

impl WaitMode {
    /// Reads `block`, `hybrid` or `spin`.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for any other name.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        match text {
            "block" => Ok(Self::Block),
            "hybrid" => Ok(Self::Hybrid),
            "spin" => Ok(Self::Spin),
            _ => Err(CoreError::InvalidValue {
                what: "wait mode",
                value: text.to_owned(),
                expected: "block, hybrid or spin",
            }),
        }
    }

    /// The name that [`WaitMode::parse`] reads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Hybrid => "hybrid",
            Self::Spin => "spin",
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
    guard: Nanos,
}

impl Pacer {
    /// A pacer that waits in this way, with the shortest guard.
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        Self {
            mode,
            guard: GUARD_MIN,
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

    /// Sets the guard of the hybrid wait to the lateness that 95 % of 40 blocking waits do not
    /// exceed, within [`GUARD_MIN`] and [`GUARD_MAX`]. Other waits need no guard.
    ///
    /// # Errors
    /// Whatever `block` fails with, which waits until the instant that it is given.
    pub fn calibrate<C: Clock>(
        &mut self,
        clock: &C,
        mut block: impl FnMut(Nanos) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        if self.mode != WaitMode::Hybrid {
            return Ok(());
        }
        let mut late = [Nanos::ZERO; PROBES];
        for late in &mut late {
            let instant = clock.now().later_by(PROBE);
            block(instant)?;
            *late = instant.until(clock.now());
        }
        late.sort_unstable();
        self.guard = late[PROBES * 95 / 100 - 1].clamp(GUARD_MIN, GUARD_MAX);
        Ok(())
    }

    /// How long before an instant the hybrid wait begins to spin; `None` for the other modes.
    #[must_use]
    pub fn guard(&self) -> Option<Nanos> {
        (self.mode == WaitMode::Hybrid).then_some(self.guard)
    }

    /// Waits until `instant` or an event, whichever is first, for an instant that matters.
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
        match self.mode {
            WaitMode::Block => poll(instant),
            WaitMode::Spin => spin_until(clock, instant, LAST_STRETCH, poll),
            WaitMode::Hybrid => {
                let spin_from = instant.checked_sub(self.guard).unwrap_or(Nanos::ZERO);
                if clock.now() < spin_from {
                    let woken = poll(spin_from)?;
                    // Woken early without an event: a signal, or an order. The caller looks.
                    if woken == Woken::ByEvent || clock.now() < spin_from {
                        return Ok(Woken::ByEvent);
                    }
                }
                spin_until(clock, instant, LAST_STRETCH, poll)
            }
        }
    }

    /// Waits until `instant` or an event, where it does not matter to be a little late.
    ///
    /// # Errors
    /// Whatever `poll` fails with.
    pub fn idle_until<C: Clock>(
        &self,
        clock: &C,
        instant: Nanos,
        mut poll: impl FnMut(Nanos) -> Result<Woken, CoreError>,
    ) -> Result<Woken, CoreError> {
        match self.mode {
            WaitMode::Block | WaitMode::Hybrid => poll(instant),
            WaitMode::Spin => spin_until(clock, instant, Nanos::ZERO, poll),
        }
    }
}

/// Looks for events, at least once, until the instant comes; not in the `last` stretch before it.
fn spin_until<C: Clock>(
    clock: &C,
    instant: Nanos,
    last: Nanos,
    mut poll: impl FnMut(Nanos) -> Result<Woken, CoreError>,
) -> Result<Woken, CoreError> {
    let look_until = instant.checked_sub(last).unwrap_or(Nanos::ZERO);
    let mut now = clock.now();
    loop {
        if poll(now)? == Woken::ByEvent {
            return Ok(Woken::ByEvent);
        }
        if now >= instant {
            return Ok(Woken::ByTime);
        }
        now = clock.now();
        if now >= look_until {
            break;
        }
    }
    while clock.now() < instant {
        clock.spin();
    }
    Ok(Woken::ByTime)
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
            for mode in [WaitMode::Block, WaitMode::Hybrid, WaitMode::Spin] {
                let clock = VirtualClock::default();
                let poll = poll_with_event_at(&clock, Nanos::new(event_at));
                let woken = Pacer::new(mode).wait_until(&clock, Nanos::new(1_000_000), poll);
                assert_eq!(woken.unwrap(), Woken::ByEvent);
                assert!(clock.now() < Nanos::new(1_000_000));
            }
        }
    }

    #[test]
    fn nothing_is_looked_at_just_before_an_instant_that_matters() {
        let clock = VirtualClock::default();
        let instant = Nanos::new(50_000);
        let looks = std::cell::RefCell::new(Vec::new());
        let poll = |until: Nanos| {
            looks.borrow_mut().push(until);
            clock.advance_to(clock.now().later_by(Nanos::new(400)));
            Ok(Woken::ByTime)
        };
        let pacer = Pacer::new(WaitMode::Spin);
        pacer.wait_until(&clock, instant, poll).unwrap();
        assert_eq!(clock.now(), instant);
        let last = *looks.borrow().last().unwrap();
        assert!(last >= instant.checked_sub(Nanos::new(1_500)).unwrap());
        assert!(last < instant.checked_sub(LAST_STRETCH).unwrap());
    }

    #[test]
    fn connections_are_looked_at_however_near_the_next_instant_is() {
        for ahead in [0, 1, 500] {
            let clock = VirtualClock::default();
            let poll = |_| Ok(Woken::ByEvent);
            let woken = Pacer::new(WaitMode::Spin).wait_until(&clock, Nanos::new(ahead), poll);
            assert_eq!(woken.unwrap(), Woken::ByEvent);
        }
    }

    #[test]
    fn wait_modes_have_names() {
        for mode in [WaitMode::Block, WaitMode::Hybrid, WaitMode::Spin] {
            assert_eq!(WaitMode::parse(mode.name()).unwrap(), mode);
        }
        assert_eq!(WaitMode::parse("doze").unwrap_err().code(), "invalid-value");
    }

    #[test]
    fn the_guard_is_what_nearly_every_wake_up_takes() {
        // (lateness of all but two waits, lateness of those, guard that comes out)
        let rows = [
            (1_000, 9_000_000, GUARD_MIN.get()),
            (70_000, 9_000_000, 70_000),
            (9_000_000, 9_000_000, GUARD_MAX.get()),
        ];
        for (usual, rare, guard) in rows {
            let clock = VirtualClock::default();
            let mut pacer = Pacer::new(WaitMode::Hybrid);
            let mut calls = 0;
            let block = |until: Nanos| {
                calls += 1;
                let late = if calls > PROBES - 2 { rare } else { usual };
                clock.advance_to(until.later_by(Nanos::new(late)));
                Ok(())
            };
            pacer.calibrate(&clock, block).unwrap();
            assert_eq!(pacer.guard(), Some(Nanos::new(guard)));
        }
        let mut blocking = Pacer::new(WaitMode::Block);
        let never = |_| panic!("a blocking wait has no guard");
        blocking.calibrate(&VirtualClock::default(), never).unwrap();
        assert_eq!(blocking.guard(), None);
    }

    #[test]
    fn a_spinning_wait_never_blocks() {
        let clock = VirtualClock::default();
        let instant = Nanos::new(50_000);
        let poll = |until: Nanos| {
            assert!(until <= clock.now(), "the poll would block");
            clock.advance_to(clock.now().later_by(Nanos::new(100)));
            Ok(Woken::ByTime)
        };
        let pacer = Pacer::new(WaitMode::Spin);
        assert_eq!(
            pacer.idle_until(&clock, instant, poll).unwrap(),
            Woken::ByTime
        );
        assert!(clock.now() >= instant);
    }
}
