//! A child from its first call to its `execve`. Everything in `run_child` and below runs in
//! memory that is shared with the launcher: no allocation, no lock, no panic.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};

use super::home::Home;
use super::signal::reset_signals;
use super::step::Step;
use super::{Host, close_range, errno_text, last_errno};

/// The exit status of a child that could not `execve`, as a shell would say.
const EXIT_SPAWN_FAILED: c_int = 127;

/// Codes of the places where a child can fail outside of its [`Step`]s.
const AT_UNSHARE: u32 = u32::MAX;
const AT_SESSION: u32 = u32::MAX - 1;
const AT_DEATH_SIGNAL: u32 = u32::MAX - 2;
const AT_DESCRIPTORS: u32 = u32::MAX - 3;
const AT_CLOSE: u32 = u32::MAX - 4;
const AT_LIMIT: u32 = u32::MAX - 5;
const AT_SIGNALS: u32 = u32::MAX - 6;
const AT_EXECUTE: u32 = u32::MAX - 7;
pub(super) const AT_CLONE: u32 = u32::MAX - 8;

/// A null-terminated array of strings, as `execve` wants it.
struct StringArray {
    /// Points into `strings` and ends in a null pointer.
    pointers: Vec<*const c_char>,
    /// Keeps what is pointed to alive.
    strings: Vec<CString>,
}

impl StringArray {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|text| text.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self { pointers, strings }
    }
}

/// Everything that a child does, prepared to the last byte.
pub struct Program {
    pub(super) clone_flags: c_int,
    /// Where the thread that starts it has to be.
    pub home: Option<Arc<Home>>,
    /// The network name space to return to when the thread makes the child's ahead of the clone.
    pub(super) network_ahead: Option<Arc<OwnedFd>>,
    steps: Vec<Step>,
    /// How many of the steps come before the child has a descriptor table of its own.
    early_count: usize,
    /// Where each descriptor that the child is given comes from, and its number there.
    descriptors: Vec<(Arc<OwnedFd>, RawFd)>,
    /// The first number that is closed in the child.
    close_from: RawFd,
    pub(super) high_fd_base: RawFd,
    arguments: StringArray,
    environment: StringArray,
    reset_signals: Vec<c_int>,
    open_files: Rlimit,
    /// Zero, or where and why the child failed: code + 1 in the upper half, errno in the lower.
    pub(super) failure: AtomicU64,
}

// SAFETY: the raw pointers lead to heap memory that the same structure owns and never changes.
unsafe impl Send for Program {}

/// What a [`Program`] is made of.
#[derive(Debug)]
pub struct Ingredients {
    /// `CLONE_NEW*`.
    pub namespaces: c_int,
    /// Where the thread that starts it has to be; `None`: where the launcher is.
    pub home: Option<Arc<Home>>,
    /// Whether the thread makes the network name space before the child; then it is not among the
    /// flags. The descriptor is that of the launcher's own.
    pub network_ahead: Option<Arc<OwnedFd>>,
    /// In the order in which they are run, before the others, while the child still shares the
    /// launcher's descriptors: they may use any, and may open none.
    pub early_steps: Vec<Step>,
    /// In the order in which they are run.
    pub steps: Vec<Step>,
    /// Descriptors at or above [`SOURCE_FD_MIN`] and the numbers below it that they get.
    pub descriptors: Vec<(Arc<OwnedFd>, RawFd)>,
    /// The command; not empty.
    pub argv: Vec<CString>,
    /// The environment.
    pub env: Vec<CString>,
}

impl Program {
    /// Puts a program together; `host` is what the launcher noted about itself at its start.
    #[must_use]
    pub fn new(ingredients: Ingredients, host: &Host) -> Self {
        let Ingredients {
            namespaces,
            home,
            network_ahead,
            early_steps,
            steps,
            descriptors,
            argv,
            env,
        } = ingredients;
        let early_count = early_steps.len();
        let highest = descriptors
            .iter()
            .map(|(_, number)| *number)
            .max()
            .unwrap_or(2);
        Self {
            clone_flags: namespaces,
            home,
            network_ahead,
            steps: early_steps.into_iter().chain(steps).collect(),
            early_count,
            descriptors,
            close_from: highest + 1,
            high_fd_base: host.high_fd_base,
            arguments: StringArray::new(argv),
            environment: StringArray::new(env),
            reset_signals: host.reset_signals.clone(),
            open_files: host.open_files,
            failure: AtomicU64::new(0),
        }
    }

    pub(super) fn describe_failure(&self, failure: u64) -> String {
        let code = u32::try_from((failure >> 32) - 1).unwrap_or(AT_EXECUTE);
        let errno = i32::try_from(failure & 0xffff_ffff).unwrap_or(0);
        let place = match code {
            AT_UNSHARE => "copying the descriptor table".to_owned(),
            AT_SESSION => "setsid".to_owned(),
            AT_DEATH_SIGNAL => "prctl PR_SET_PDEATHSIG".to_owned(),
            AT_DESCRIPTORS => "dup2".to_owned(),
            AT_CLOSE => "close_range".to_owned(),
            AT_LIMIT => "setrlimit of open files".to_owned(),
            AT_SIGNALS => "resetting signals".to_owned(),
            AT_CLONE => "clone".to_owned(),
            AT_EXECUTE => {
                let program = self.arguments.strings.first();
                format!(
                    "execve {}",
                    program.map(|t| t.to_string_lossy()).unwrap_or_default()
                )
            }
            step => self
                .steps
                .get(usize::try_from(step).unwrap_or(usize::MAX))
                .map_or_else(|| format!("step {step}"), Step::describe),
        };
        format!("{place}: {}", errno_text(errno))
    }
}

pub(super) const fn encode_failure(code: u32, errno: i32) -> u64 {
    ((code as u64 + 1) << 32) | errno.unsigned_abs() as u64
}

/// The first function of a child. It shares our memory: see the module's text.
pub(super) extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a program that it keeps alive until we have left its memory.
    let program = unsafe { &*argument.cast::<Program>() };
    let (code, errno) = run_child(program);
    program
        .failure
        .store(encode_failure(code, errno.raw_os_error()), Ordering::SeqCst);
    // SAFETY: ends this process alone and runs none of the parent's exit handlers.
    unsafe { libc::_exit(EXIT_SPAWN_FAILED) }
}

/// Does everything up to `execve`; returns only when something failed.
fn run_child(program: &Program) -> (u32, Errno) {
    if let Err(failure) = prepare_child(program) {
        return failure;
    }
    // SAFETY: the first argument exists (see `Ingredients`), all pointers lead to null-terminated
    // strings and arrays that the program owns.
    unsafe {
        libc::execve(
            program.arguments.pointers[0],
            program.arguments.pointers.as_ptr(),
            program.environment.pointers.as_ptr(),
        );
    }
    (AT_EXECUTE, last_errno())
}

fn prepare_child(program: &Program) -> Result<(), (u32, Errno)> {
    let (early, late) = program.steps.split_at(program.early_count);
    let mut codes = 0_u32..;
    let mut run = |step: &Step| {
        let code = codes.next().unwrap_or(AT_EXECUTE);
        step.run().map_err(|errno| (code, errno))
    };
    early.iter().try_for_each(&mut run)?;
    let from = program.high_fd_base.unsigned_abs();
    close_range(from, libc::CLOSE_RANGE_UNSHARE).map_err(|errno| (AT_UNSHARE, errno))?;
    rustix::process::setsid().map_err(|errno| (AT_SESSION, errno))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| (AT_DEATH_SIGNAL, errno))?;
    late.iter().try_for_each(run)?;
    for (source, number) in &program.descriptors {
        // SAFETY: acts on this child's own table, which is a copy since the early steps.
        if unsafe { libc::dup2(source.as_raw_fd(), *number) } < 0 {
            return Err((AT_DESCRIPTORS, last_errno()));
        }
    }
    close_range(program.close_from.unsigned_abs(), 0).map_err(|errno| (AT_CLOSE, errno))?;
    rustix::process::setrlimit(Resource::Nofile, program.open_files)
        .map_err(|errno| (AT_LIMIT, errno))?;
    reset_signals(&program.reset_signals).map_err(|errno| (AT_SIGNALS, errno))
}
