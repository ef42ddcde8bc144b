//! The launcher's raw system calls: the one module of `launch` with `unsafe` code.
//!
//! A child is made with `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_FILES)`. It shares
//! the launcher's memory and runs on a stack of its own while the thread that made it waits, so
//! it may read what was prepared and may not allocate, lock or panic. Until its `execve` it only
//! makes system calls on strings that exist already; a failed one is noted in the shared memory.
//!
//! The child also shares the descriptor table until it has joined its groups; then it gets a copy of
//! the part below [`high_fd_base`] only. What the launcher keeps for long lives above, so a start
//! does not get dearer with the number of sandboxes that are held.

mod home;
mod program;
mod signal;
mod spawn;
mod step;
mod wait;

use std::ffi::{c_int, c_long};
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Resource, Rlimit};
use rustix::time::{ClockId, clock_gettime};

pub use home::Home;
pub use program::{Ingredients, Program};
pub use signal::{block_all_signals, ignore_signal, read_signal, signal_descriptor};
pub use spawn::{PidfdSlot, Spawned, Spawner};
pub use step::{Step, detached_bind};
pub use wait::{Ended, own_usage, peek_ended_child, reap};

/// Numbers below this are left for what a child is given; sources of a `dup2` are above, so that
/// no assignment can overwrite the source of a later one.
pub const SOURCE_FD_MIN: RawFd = 16;

/// Now on `CLOCK_MONOTONIC`, in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The monotonic clock starts at boot, so neither part is negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// An error number as a person reads it: `Invalid argument (22)`.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let plain = text
        .strip_suffix(&format!(" (os error {errno})"))
        .unwrap_or(&text);
    format!("{plain} ({errno})")
}

/// What the launcher notes about its own process once, before it changes anything.
#[derive(Clone, Debug)]
pub struct Host {
    /// The limit that children get back.
    pub open_files: Rlimit,
    /// Numbers from here on are the launcher's own; children never see them.
    pub high_fd_base: RawFd,
    /// Signals that the launcher ignores or handles, which children must not inherit as ignored.
    pub reset_signals: Vec<c_int>,
    /// `/dev/null`, for reading and writing.
    pub null: Arc<OwnedFd>,
    /// The network name space in which the launcher's threads are.
    pub network: Arc<OwnedFd>,
}

impl Host {
    /// Raises the limit of open files as far as allowed and marks every descriptor close-on-exec.
    ///
    /// # Errors
    /// A system call failed.
    pub fn prepare() -> io::Result<Self> {
        close_range(3, libc::CLOSE_RANGE_CLOEXEC)?;
        let open_files = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: open_files.maximum,
            maximum: open_files.maximum,
        };
        rustix::process::setrlimit(Resource::Nofile, raised)?;
        // Children get three numbers each at most, and so does what the launcher keeps of them.
        let limit = open_files.maximum.unwrap_or(1 << 16).min(1 << 16);
        let high_fd_base = RawFd::try_from(limit / 2).unwrap_or(512);
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let null = Arc::new(rustix::io::fcntl_dupfd_cloexec(&null, SOURCE_FD_MIN)?);
        let network = home::own_name_space(c"/proc/self/ns/net")?;
        let network = Arc::new(rustix::io::fcntl_dupfd_cloexec(&network, high_fd_base)?);
        Ok(Self {
            open_files,
            high_fd_base,
            reset_signals: signal::changed_signals(),
            null,
            network,
        })
    }
}

fn last_errno() -> Errno {
    // SAFETY: the address is valid for as long as this thread lives.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

/// `close_range(from, everything, flags)`.
fn close_range(from: u32, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed; without it only children call this, on
    // a table of their own.
    check(unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, flags) })?;
    Ok(())
}

fn unshare(flags: c_int) -> Result<(), Errno> {
    // SAFETY: changes name spaces of the calling thread only: a child, a thread that says where it
    // is, or the launcher before it has threads.
    check(c_long::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Moves the calling thread into a private mount name space; threads made later are in it too.
///
/// # Errors
/// The system refused, for want of rights as a rule.
pub fn unshare_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)?;
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    Ok(())
}

/// Takes over a descriptor that this process was started with.
///
/// # Errors
/// There is no such descriptor.
pub fn adopt_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl looks at the number only; nothing else in this process knows it.
    unsafe {
        if libc::fcntl(number, libc::F_GETFD) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}
