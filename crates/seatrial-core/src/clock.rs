//! The clocks that the engine can run on. Nothing else in the core reads time.

use std::cell::Cell;
use std::rc::Rc;

use crate::units::Nanos;

/// A clock that never goes backwards.
pub trait Clock {
    /// The present instant.
    fn now(&self) -> Nanos;

    /// Lets a little time pass without giving the processor away.
    fn spin(&self) {
        std::hint::spin_loop();
    }
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

    fn spin(&self) {
        self.advance_to(self.now().later_by(Nanos::new(1)));
    }
}

/// How to turn instants of `CLOCK_REALTIME`, on which the kernel stamps packets, into those of
/// `CLOCK_MONOTONIC`.
///
/// Both clocks run at the same rate, since time synchronisation steers both; only a step of
/// the first one changes the difference. So a sample a second is enough, and what was
/// stamped around a step shows as an impossible instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealTimeOffset {
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, in nanoseconds.
    offset_ns: i128,
    /// The difference is known to this much, up or down.
    uncertainty: Nanos,
    sampled_at: Nanos,
}

impl RealTimeOffset {
    /// Pairs of readings that one sample is made of; the closest is kept.
    const TRIES: usize = 8;

    /// How long a sample is good for.
    const PERIOD: Nanos = Nanos::new(1_000_000_000);

    /// Reads both clocks.
    #[must_use]
    pub fn sample() -> Self {
        let mut best = Self::read_once();
        for _ in 1..Self::TRIES {
            let other = Self::read_once();
            if other.uncertainty < best.uncertainty {
                best = other;
            }
        }
        best
    }

    fn read_once() -> Self {
        let before = MonotonicClock.now();
        let real = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let after = MonotonicClock.now();
        let gap = before.until(after).get();
        let middle = i128::from(before.get() + gap / 2);
        let real_ns = i128::from(real.tv_sec) * 1_000_000_000 + i128::from(real.tv_nsec);
        Self {
            offset_ns: real_ns - middle,
            uncertainty: Nanos::new(gap.div_ceil(2)),
            sampled_at: after,
        }
    }

    /// Reads both clocks again when the sample is too old.
    pub fn refresh(&mut self, now: Nanos) {
        if self.sampled_at.until(now) >= Self::PERIOD {
            *self = Self::sample();
        }
    }

    /// The difference is known to this much, up or down.
    #[must_use]
    pub const fn uncertainty(&self) -> Nanos {
        self.uncertainty
    }

    /// The instant of `CLOCK_MONOTONIC`; `None` for one before that clock began.
    #[must_use]
    pub fn to_monotonic(&self, real: Nanos) -> Option<Nanos> {
        let nanos = i128::from(real.get()) - self.offset_ns;
        u64::try_from(nanos).ok().map(Nanos::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_is_converted_within_the_uncertainty() {
        let offset = RealTimeOffset::sample();
        let before = MonotonicClock.now();
        let real = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let after = MonotonicClock.now();
        let real = real.tv_sec.unsigned_abs() * 1_000_000_000 + real.tv_nsec.unsigned_abs();
        let told = offset.to_monotonic(Nanos::new(real)).unwrap();
        let slack = offset.uncertainty();
        assert!(
            told.later_by(slack) >= before,
            "{told:?} {before:?} {slack:?}"
        );
        assert!(
            told <= after.later_by(slack),
            "{told:?} {after:?} {slack:?}"
        );
        assert_eq!(
            offset.to_monotonic(Nanos::ZERO),
            None,
            "1970 is before the start"
        );
    }

    #[test]
    fn a_sample_is_renewed_when_it_is_old() {
        let first = RealTimeOffset::sample();
        let mut offset = first;
        offset.refresh(first.sampled_at);
        assert_eq!(offset, first);
        offset.refresh(first.sampled_at.later_by(RealTimeOffset::PERIOD));
        assert!(offset.sampled_at > first.sampled_at);
    }

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
