//! The launcher's side of a start: `clone`, and what became of it.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::program::{AT_CLONE, Program, child_main, encode_failure};
use super::signal::block_all_signals;
use super::wait::wait4;
use super::{check, errno_text, now_ns, unshare};

/// Enough for the deepest path of the child below: it calls nothing that needs more than a page.
const CHILD_STACK_BYTES: usize = 64 << 10;

/// Why a child did not come to run its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnFailure {
    /// The failed step and the system's reason: `pivot_root: Invalid argument (22)`.
    pub text: String,
    /// The child's number, if it came to life.
    pub pid: Option<i32>,
}

/// Where the kernel puts the descriptor of a child that is being started.
///
/// Another thread can kill the child through it, also while it hangs before `execve`.
#[derive(Debug)]
pub struct PidfdSlot {
    /// The descriptor; negative while there is none, or none any more.
    number: AtomicI32,
    /// Held while the descriptor is used or given up.
    guard: Mutex<()>,
}

impl PidfdSlot {
    /// A slot for one start.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            number: AtomicI32::new(-1),
            guard: Mutex::new(()),
        }
    }

    /// Kills the child if it exists and its start is not concluded.
    pub fn kill(&self) {
        let _guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.number.load(Ordering::SeqCst);
        if number >= 0 {
            // SAFETY: the spawner closes the descriptor only after it has, under the same guard,
            // taken it out of the slot.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            // It may have ended by itself.
            let _ = rustix::process::pidfd_send_signal(fd, Signal::KILL);
        }
    }

    fn take(&self) -> RawFd {
        let _guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        self.number.swap(-1, Ordering::SeqCst)
    }
}

impl Default for PidfdSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`Spawner::spawn`] saw.
#[derive(Debug)]
pub struct Spawned {
    /// Immediately before `clone`.
    pub invoked_at_ns: u64,
    /// Immediately after it returned.
    pub accepted_at_ns: u64,
    /// The child and a descriptor for it, or why there is none.
    pub child: Result<(i32, OwnedFd), SpawnFailure>,
}

impl Spawned {
    /// A start that did not come as far as `clone`.
    #[must_use]
    pub fn failed(text: &str) -> Self {
        let now_ns = now_ns();
        let failure = SpawnFailure {
            text: text.to_owned(),
            pid: None,
        };
        Self {
            invoked_at_ns: now_ns,
            accepted_at_ns: now_ns,
            child: Err(failure),
        }
    }
}

/// Makes children from the thread that created it.
///
/// The thread must live as long as its children: they are killed when it ends, which is what
/// makes them die with the launcher.
#[derive(Debug)]
pub struct Spawner {
    stack: *mut c_void,
    /// Why this thread is where no child may begin.
    lost: Option<String>,
}

impl Spawner {
    /// Blocks all signals in this thread and maps a stack for its children.
    ///
    /// # Errors
    /// There is no memory for the stack.
    pub fn new() -> io::Result<Self> {
        block_all_signals()?;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let stack = unsafe {
            libc::mmap(
                ptr::null_mut(),
                CHILD_STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if stack == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { stack, lost: None })
    }

    /// Does what of a program is done before its release. [`Spawner::spawn`] must follow.
    ///
    /// # Errors
    /// What the system refused, and why.
    pub fn get_ready(&mut self, program: &Program) -> Result<(), String> {
        if let Some(why) = &self.lost {
            return Err(why.clone());
        }
        if program.network_ahead.is_some() {
            unshare(libc::CLONE_NEWNET).map_err(|errno| {
                let why = errno_text(errno.raw_os_error());
                format!("unshare of the network name space: {why}")
            })?;
        }
        Ok(())
    }

    /// Leaves the network name space that was made for a child, which would live on with us.
    fn return_from(&mut self, program: &Program) {
        let Some(network) = &program.network_ahead else {
            return;
        };
        let kind = Some(LinkNameSpaceType::Network);
        if let Err(errno) = move_into_link_name_space(network.as_fd(), kind) {
            let why = errno_text(errno.raw_os_error());
            self.lost = Some(format!("return to the launcher's network: {why}"));
        }
    }

    /// Starts a program.
    #[must_use]
    pub fn spawn(&mut self, program: &Program, slot: &PidfdSlot) -> Spawned {
        let flags = libc::CLONE_VM
            | libc::CLONE_VFORK
            | libc::CLONE_PIDFD
            | libc::CLONE_FILES
            | libc::SIGCHLD
            | program.clone_flags;
        let argument = ptr::from_ref(program).cast_mut().cast::<c_void>();
        // SAFETY: the result is one past the mapping, page-aligned.
        let stack_top = unsafe { self.stack.byte_add(CHILD_STACK_BYTES) };
        let invoked_at_ns = now_ns();
        // SAFETY: CLONE_VFORK keeps this thread, and with it the borrows of `program` and the slot,
        // in place until the child has left this memory by `execve` or `_exit`; all signals are
        // blocked, so no handler runs on the child's stack.
        let pid =
            unsafe { libc::clone(child_main, stack_top, flags, argument, slot.number.as_ptr()) };
        let accepted_at_ns = now_ns();
        // Before any further call of the system leaves a reason of its own.
        let cloned = check(pid.into()).map(|_| pid);
        self.return_from(program);
        let child = conclude(program, cloned, slot);
        Spawned {
            invoked_at_ns,
            accepted_at_ns,
            child,
        }
    }
}

/// Finds out what became of a `clone`.
fn conclude(
    program: &Program,
    cloned: Result<c_int, Errno>,
    slot: &PidfdSlot,
) -> Result<(i32, OwnedFd), SpawnFailure> {
    let pid = cloned.map_err(|errno| {
        // The kernel writes the number before its last checks (pids.max) and takes only the
        // descriptor back: the number would become that of whatever is opened next.
        slot.take();
        let failure = encode_failure(AT_CLONE, errno.raw_os_error());
        let text = program.describe_failure(failure);
        SpawnFailure { text, pid: None }
    })?;
    // SAFETY: the kernel made this descriptor for us in the `clone` that succeeded, and nobody
    // uses it any more now that it is out of the slot.
    let pidfd = unsafe { OwnedFd::from_raw_fd(slot.take()) };
    let failure = program.failure.load(Ordering::SeqCst);
    if failure != 0 {
        // It has left with EXIT_SPAWN_FAILED or is about to: reap it, nobody else will.
        let _ = wait4(pid, 0);
        return Err(SpawnFailure {
            text: program.describe_failure(failure),
            pid: Some(pid),
        });
    }
    // A number in the upper range is not copied into later children; the lower one is as good
    // when there is no room.
    Ok((
        pid,
        rustix::io::fcntl_dupfd_cloexec(&pidfd, program.high_fd_base).unwrap_or(pidfd),
    ))
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no child runs on it: `spawn` has returned.
        unsafe { libc::munmap(self.stack, CHILD_STACK_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use rustix::process::{Resource, getrlimit};

    use super::super::Host;
    use super::super::program::Ingredients;
    use super::*;

    #[test]
    fn a_failed_clone_leaves_no_descriptor_to_kill_through() {
        let ingredients = Ingredients {
            namespaces: 0,
            home: None,
            network_ahead: None,
            early_steps: Vec::new(),
            steps: Vec::new(),
            descriptors: Vec::new(),
            argv: vec![c"/bin/true".to_owned()],
            env: Vec::new(),
        };
        let host = Host {
            open_files: getrlimit(Resource::Nofile),
            high_fd_base: 512,
            reset_signals: Vec::new(),
            null: Arc::new(File::open("/dev/null").unwrap().into()),
            network: Arc::new(File::open("/proc/self/ns/net").unwrap().into()),
        };
        let program = Program::new(ingredients, &host);
        let slot = PidfdSlot::new();
        // What the kernel wrote before it found that there may be no further process.
        slot.number.store(1_000_000, Ordering::SeqCst);
        let failure = conclude(&program, Err(Errno::AGAIN), &slot).unwrap_err();
        assert_eq!(failure.text, "clone: Resource temporarily unavailable (11)");
        assert_eq!(failure.pid, None);
        assert_eq!(slot.take(), -1);
    }
}
