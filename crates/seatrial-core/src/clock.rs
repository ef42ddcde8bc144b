//! The clocks that the engine can run on. Nothing else in the core reads time.

use std::cell::Cell;
use std::rc::Rc;

use crate::units::Nanos;

/// A clock that never goes backwards.
pub trait Clock {
    /// The present instant.
    fn now(&self) -> Nanos;
}

/// The kernel's `CLOCK_MONOTONIC`: the same timeline as Python's `time.monotonic_ns`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Nanos {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = time.tv_sec.unsigned_abs();
        let nanos = time.tv_nsec.unsigned_abs();
        Nanos::new(seconds * 1_000_000_000 + nanos)
    }
}

/// A clock that stands still until somebody moves it; copies share one time.
///
/// The fake transport moves it to the instant of the next event, so hours of
/// load take milliseconds and every run gives the same instants.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    now: Rc<Cell<Nanos>>,
}

impl VirtualClock {
    /// Moves on to `instant`; an instant in the past changes nothing.
    pub fn advance_to(&self, instant: Nanos) {
        self.now.set(self.now.get().max(instant));
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Nanos {
        self.now.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_clock_does_not_go_backwards() {
        let first = MonotonicClock.now();
        let second = MonotonicClock.now();
        assert!(second >= first);
        assert!(first > Nanos::ZERO);
    }

    #[test]
    fn virtual_clock_is_shared_and_only_moves_on() {
        let clock = VirtualClock::default();
        let copy = clock.clone();
        clock.advance_to(Nanos::new(7));
        clock.advance_to(Nanos::new(3));
        assert_eq!(copy.now(), Nanos::new(7));
    }
}
