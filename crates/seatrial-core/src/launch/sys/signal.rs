//! Signals: blocked in the launcher, read from a descriptor, reset in children.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

use super::{check, last_errno};

/// Runs in the child: default actions for the listed signals, and none blocked.
pub(super) fn reset_signals(signals: &[c_int]) -> Result<(), Errno> {
    for &signal in signals {
        // SAFETY: the child has its own table of actions (no CLONE_SIGHAND).
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(last_errno());
        }
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        check(c_long::from(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut(),
        )))?;
    }
    Ok(())
}

/// The signals whose action is not the default one.
pub(super) fn changed_signals() -> Vec<c_int> {
    (1..=libc::SIGRTMAX())
        .filter(|&signal| {
            // SAFETY: asks for the action and changes nothing.
            unsafe {
                let mut action = std::mem::zeroed::<libc::sigaction>();
                libc::sigaction(signal, ptr::null(), &raw mut action) == 0
                    && action.sa_sigaction != libc::SIG_DFL
            }
        })
        .collect()
}

/// Blocks every signal in the calling thread and the threads that it will make.
///
/// # Errors
/// The system refused.
pub fn block_all_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigfillset before it is read.
    let error = unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut())
    };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// A descriptor that reads the given signals, which must be blocked.
///
/// # Errors
/// The system refused.
pub fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset; a new descriptor belongs to nobody yet.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

/// The next pending signal of a [`signal_descriptor`].
#[must_use]
pub fn read_signal(descriptor: &OwnedFd) -> Option<c_int> {
    let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(descriptor, &mut record) {
        // The number is the structure's first field.
        Ok(length) if length == record.len() => record
            .first_chunk::<4>()
            .and_then(|bytes| c_int::try_from(u32::from_ne_bytes(*bytes)).ok()),
        _ => None,
    }
}

/// Ignores a signal in the whole process.
pub fn ignore_signal(signal: c_int) {
    // SAFETY: replaces the action by one that runs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}
