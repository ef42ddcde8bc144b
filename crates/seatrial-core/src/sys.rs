//! The system calls that `rustix` does not offer in the form needed here.
//!
//! Together with [`message`] this is all of the load engine's unsafe code: each function wraps
//! one call whose pointers come from Rust references that outlive it.
#![allow(unsafe_code)] // raw system calls; see the reason above

mod control;
pub mod device;
pub mod message;

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::units::Nanos;

/// One event of an epoll set, in the kernel's layout.
pub use libc::epoll_event as EpollEvent;

/// Waits for events with a time-out in nanoseconds (`epoll_pwait2`, Linux 5.11).
///
/// `rustix` has it too, but only behind a feature that would also change what
/// the guest calls, and sandboxes of old kernels lack it.
///
/// # Errors
/// What the kernel said; an interrupted wait is no events.
pub fn epoll_wait_ns(
    epoll: BorrowedFd<'_>,
    events: &mut [EpollEvent],
    timeout: Nanos,
) -> std::io::Result<usize> {
    let nanos = timeout.as_i64();
    let timeout = libc::timespec {
        tv_sec: nanos / 1_000_000_000,
        tv_nsec: nanos % 1_000_000_000,
    };
    let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `events` is valid for writes of `room` elements and `timeout` for
    // reads, both during the call; a null signal mask is allowed and leaves the mask alone.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            room,
            std::ptr::from_ref(&timeout),
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    usize::try_from(count).or_else(|_| {
        let error = std::io::Error::last_os_error();
        if error.kind() == std::io::ErrorKind::Interrupted {
            Ok(0)
        } else {
            Err(error)
        }
    })
}

/// What a thread has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// CPU time in user code.
    pub user: Nanos,
    /// CPU time in the kernel.
    pub system: Nanos,
    /// Times it gave up its CPU to wait for something.
    pub voluntary_switch_count: u64,
    /// Times its CPU was taken away from it.
    pub involuntary_switch_count: u64,
}

impl ThreadUsage {
    /// What was used since `before`.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            user: before.user.until(self.user),
            system: before.system.until(self.system),
            voluntary_switch_count: self.voluntary_switch_count - before.voluntary_switch_count,
            involuntary_switch_count: self.involuntary_switch_count
                - before.involuntary_switch_count,
        }
    }

    /// Adds what another thread used.
    pub const fn add(&mut self, other: &Self) {
        self.user = self.user.later_by(other.user);
        self.system = self.system.later_by(other.system);
        self.voluntary_switch_count += other.voluntary_switch_count;
        self.involuntary_switch_count += other.involuntary_switch_count;
    }
}

/// What the calling thread has used (`getrusage(RUSAGE_THREAD)`).
///
/// # Errors
/// What the kernel said; it does not fail on Linux 2.6.26 and later.
pub fn thread_usage() -> std::io::Result<ThreadUsage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for writes of one `rusage` during the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if result != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: all bytes were zeroed, which is a valid `rusage`, and the kernel filled it.
    let usage = unsafe { usage.assume_init() };
    Ok(ThreadUsage {
        user: nanos_of(usage.ru_utime),
        system: nanos_of(usage.ru_stime),
        voluntary_switch_count: usage.ru_nvcsw.unsigned_abs(),
        involuntary_switch_count: usage.ru_nivcsw.unsigned_abs(),
    })
}

fn nanos_of(time: libc::timeval) -> Nanos {
    Nanos::new(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::epoll;
    use std::os::fd::AsFd;

    #[test]
    fn an_empty_set_times_out() {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut events = [EpollEvent { events: 0, u64: 0 }; 4];
        assert_eq!(
            epoll_wait_ns(set.as_fd(), &mut events, Nanos::new(1_000)).unwrap(),
            0
        );
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = thread_usage().unwrap();
        let total = |usage: ThreadUsage| usage.user.get() + usage.system.get();
        while total(thread_usage().unwrap()) <= total(before) {
            std::hint::spin_loop();
        }
        let mut twice = thread_usage().unwrap().since(&before);
        let once = twice;
        twice.add(&once);
        assert_eq!(total(twice), 2 * total(once));
    }
}
