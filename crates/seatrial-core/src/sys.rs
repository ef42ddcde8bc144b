//! The system calls that `rustix` does not offer in the form needed here.
//!
//! Together with [`message`] this is all of the load engine's unsafe code: each function wraps
//! one call whose pointers come from Rust references that outlive it.
#![allow(unsafe_code)] // raw system calls; see the reason above

mod control;
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

/// CPU time of a thread so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user code.
    pub user: Nanos,
    /// In the kernel.
    pub system: Nanos,
}

/// CPU time of the calling thread (`getrusage(RUSAGE_THREAD)`).
///
/// # Errors
/// What the kernel said; it does not fail on Linux 2.6.26 and later.
pub fn thread_cpu_time() -> std::io::Result<CpuTime> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for writes of one `rusage` during the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if result != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: all bytes were zeroed, which is a valid `rusage`, and the kernel filled it.
    let usage = unsafe { usage.assume_init() };
    Ok(CpuTime {
        user: nanos_of(usage.ru_utime),
        system: nanos_of(usage.ru_stime),
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
        let before = thread_cpu_time().unwrap();
        let total = |time: CpuTime| time.user.get() + time.system.get();
        while total(thread_cpu_time().unwrap()) <= total(before) {
            std::hint::spin_loop();
        }
    }
}
