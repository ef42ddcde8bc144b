//! The ends of children, and what they and we have used.

use std::ffi::c_int;
use std::io;

use crate::launch::plan::Usage;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// What it used, with the descendants it waited for; `None` when nobody knows.
    pub usage: Option<Usage>,
}

impl Ended {
    /// The end of a child that somebody else has reaped.
    pub const UNKNOWN: Self = Self {
        exit_code: None,
        signal: None,
        usage: None,
    };
}

/// Reaps a child if it has ended; `Ok(None)` while it lives.
///
/// # Errors
/// It is not, or no longer, our child.
pub fn reap(pid: i32) -> io::Result<Option<Ended>> {
    wait4(pid, libc::WNOHANG)
}

pub(super) fn wait4(pid: i32, options: c_int) -> io::Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a value of its type; the call writes to both.
    let (found, usage) = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        (
            libc::wait4(pid, &raw mut status, options, &raw mut usage),
            usage,
        )
    };
    match found {
        0 => Ok(None),
        found if found < 0 => Err(io::Error::last_os_error()),
        _ => Ok(Some(Ended {
            exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
            usage: Some(usage_of(&usage)),
        })),
    }
}

/// The number of some child that has ended and was not reaped.
///
/// # Errors
/// There is no child at all (`ECHILD`).
pub fn peek_ended_child() -> io::Result<Option<i32>> {
    // SAFETY: an all-zero siginfo is a value of its type; the call writes to it.
    unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, options) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Some(info.si_pid()).filter(|pid| *pid != 0))
    }
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let ns = |time: libc::timeval| {
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1_000
    };
    Usage {
        user_ns: ns(usage.ru_utime),
        system_ns: ns(usage.ru_stime),
        max_rss_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
    }
}

/// What this process itself has used so far.
#[must_use]
pub fn own_usage() -> Usage {
    // SAFETY: an all-zero rusage is a value of its type; the call writes to it and cannot fail
    // for RUSAGE_SELF.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage_of(&usage)
    }
}
