//! The launcher's raw system calls: the one module of `launch` with `unsafe` code.
//!
//! A child is made with `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_FILES)`. It shares
//! the launcher's memory and runs on a stack of its own while the thread that made it waits, so
//! it may read what was prepared and may not allocate, lock or panic. Until its `execve` it only
//! makes system calls on strings that exist already; a failed one is noted in the shared memory.
//!
//! The child also shares the descriptor table until its first call, which gives it a copy of the
//! part below [`high_fd_base`] only. What the launcher keeps for long lives above, so a start
//! does not get dearer with the number of sandboxes that are held.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::time::{ClockId, clock_gettime};

use super::plan::Usage;

/// Numbers below this are left for what a child is given; sources of a `dup2` are above, so that
/// no assignment can overwrite the source of a later one.
pub const SOURCE_FD_MIN: RawFd = 16;

/// Enough for the deepest path of the child below: it calls nothing that needs more than a page.
const CHILD_STACK_BYTES: usize = 64 << 10;

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
const AT_CLONE: u32 = u32::MAX - 8;

/// Now on `CLOCK_MONOTONIC`, in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The monotonic clock starts at boot, so neither part is negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// One thing that a child does to itself before `execve`.
#[derive(Debug)]
pub enum Step {
    /// Opens a file, writes to it and closes it.
    Write {
        /// For error texts: what the writing is for.
        what: &'static str,
        /// The file.
        path: CString,
        /// What is written, in one call.
        bytes: Vec<u8>,
    },
    /// Joins the network name space behind a descriptor.
    EnterNetwork(OwnedFd),
    /// Makes the current control groups the roots of what is seen of them.
    UnshareCgroup,
    /// Sets the host name.
    HostName(Vec<u8>),
    /// Keeps mounts from travelling to the name space of the launcher and back.
    PrivateMounts,
    /// Shows a file or a directory, with all that is mounted below it, at another place.
    Bind {
        /// What is shown.
        source: CString,
        /// Where.
        target: CString,
    },
    /// Makes a mount read-only.
    ReadOnly {
        /// The mount point.
        target: CString,
        /// Whether the mounts below it are made read-only as well.
        is_recursive: bool,
    },
    /// Mounts a new file system.
    Mount {
        /// Its type, which also serves as its source.
        kind: &'static CStr,
        /// Where.
        target: CString,
        /// Its flags.
        flags: MountFlags,
        /// Its options.
        data: &'static CStr,
    },
    /// Makes a mount point the root and drops the old one.
    PivotRoot(CString),
    /// Changes the working directory.
    ChangeDirectory(CString),
}

impl Step {
    /// The step as it stands in an error text.
    fn describe(&self) -> String {
        let text = |path: &CStr| path.to_string_lossy().into_owned();
        match self {
            Self::Write { what, path, .. } => format!("{what} {}", text(path)),
            Self::EnterNetwork(_) => "setns to the network name space".to_owned(),
            Self::UnshareCgroup => "unshare of the cgroup name space".to_owned(),
            Self::HostName(_) => "sethostname".to_owned(),
            Self::PrivateMounts => "making mounts private".to_owned(),
            Self::Bind { source, target } => {
                format!("bind of {} on {}", text(source), text(target))
            }
            Self::ReadOnly { target, .. } => format!("making {} read-only", text(target)),
            Self::Mount { kind, target, .. } => {
                format!("mount of {} on {}", text(kind), text(target))
            }
            Self::PivotRoot(_) => "pivot_root".to_owned(),
            Self::ChangeDirectory(path) => format!("chdir to {}", text(path)),
        }
    }

    /// Runs in the child.
    fn run(&self) -> Result<(), Errno> {
        match self {
            Self::Write { path, bytes, .. } => write_file(path, bytes),
            Self::EnterNetwork(fd) => rustix::thread::move_into_link_name_space(
                fd.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            ),
            Self::UnshareCgroup => unshare_in_child(libc::CLONE_NEWCGROUP),
            Self::HostName(name) => rustix::system::sethostname(name),
            Self::PrivateMounts => rustix::mount::mount_change(
                c"/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            ),
            Self::Bind { source, target } => {
                rustix::mount::mount_bind_recursive(source.as_c_str(), target.as_c_str())
            }
            Self::ReadOnly { target, is_recursive } => make_read_only(target, *is_recursive),
            Self::Mount { kind, target, flags, data } => {
                rustix::mount::mount(*kind, target.as_c_str(), *kind, *flags, *data)
            }
            Self::PivotRoot(root) => {
                rustix::process::chdir(root.as_c_str())?;
                rustix::process::pivot_root(c".", c".")?;
                // Both roots are now stacked on the same point, the old one on top.
                rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
                rustix::process::chdir(c"/")
            }
            Self::ChangeDirectory(path) => rustix::process::chdir(path.as_c_str()),
        }
    }
}

/// A null-terminated array of strings, as `execve` wants it.
struct StringArray {
    /// Points into `strings` and ends in a null pointer.
    pointers: Vec<*const c_char>,
    /// Keeps what is pointed to alive.
    strings: Vec<CString>,
}

impl StringArray {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, strings }
    }
}

/// Everything that a child does, prepared to the last byte.
pub struct Program {
    clone_flags: c_int,
    steps: Vec<Step>,
    /// Where each descriptor that the child is given comes from, and its number there.
    descriptors: Vec<(Arc<OwnedFd>, RawFd)>,
    /// The first number that is closed in the child.
    close_from: RawFd,
    high_fd_base: RawFd,
    arguments: StringArray,
    environment: StringArray,
    reset_signals: Vec<c_int>,
    open_files: Rlimit,
    /// Zero, or where and why the child failed: code + 1 in the upper half, errno in the lower.
    failure: AtomicU64,
}

// SAFETY: the raw pointers lead to heap memory that the same structure owns and never changes.
unsafe impl Send for Program {}

/// What a [`Program`] is made of.
#[derive(Debug)]
pub struct Ingredients {
    /// `CLONE_NEW*`.
    pub namespaces: c_int,
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
        let Ingredients { namespaces, steps, descriptors, argv, env } = ingredients;
        let highest = descriptors.iter().map(|(_, number)| *number).max().unwrap_or(2);
        Self {
            clone_flags: namespaces,
            steps,
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

    fn describe_failure(&self, failure: u64) -> String {
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
                format!("execve {}", program.map(|t| t.to_string_lossy()).unwrap_or_default())
            }
            step => self
                .steps
                .get(usize::try_from(step).unwrap_or(usize::MAX))
                .map_or_else(|| format!("step {step}"), Step::describe),
        };
        format!("{place}: {}", errno_text(errno))
    }
}

/// An error number as a person reads it: `Invalid argument (22)`.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let plain = text.strip_suffix(&format!(" (os error {errno})")).unwrap_or(&text);
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
}

impl Host {
    /// Raises the limit of open files as far as allowed and marks every descriptor close-on-exec.
    ///
    /// # Errors
    /// A system call failed.
    pub fn prepare() -> io::Result<Self> {
        close_range(3, libc::CLOSE_RANGE_CLOEXEC)?;
        let open_files = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit { current: open_files.maximum, maximum: open_files.maximum };
        rustix::process::setrlimit(Resource::Nofile, raised)?;
        // Children get three numbers each at most, and so does what the launcher keeps of them.
        let limit = open_files.maximum.unwrap_or(1 << 16).min(1 << 16);
        let high_fd_base = RawFd::try_from(limit / 2).unwrap_or(512);
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let null = Arc::new(rustix::io::fcntl_dupfd_cloexec(&null, SOURCE_FD_MIN)?);
        Ok(Self { open_files, high_fd_base, reset_signals: changed_signals(), null })
    }
}

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
        Self { number: AtomicI32::new(-1), guard: Mutex::new(()) }
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
        let failure = SpawnFailure { text: text.to_owned(), pid: None };
        Self { invoked_at_ns: now_ns, accepted_at_ns: now_ns, child: Err(failure) }
    }
}

/// Makes children from the thread that created it.
///
/// The thread must live as long as its children: they are killed when it ends, which is what
/// makes them die with the launcher.
#[derive(Debug)]
pub struct Spawner {
    stack: *mut c_void,
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
        Ok(Self { stack })
    }

    /// Starts a program.
    #[must_use]
    pub fn spawn(&mut self, program: Program, slot: &PidfdSlot) -> Spawned {
        let flags = libc::CLONE_VM
            | libc::CLONE_VFORK
            | libc::CLONE_PIDFD
            | libc::CLONE_FILES
            | libc::SIGCHLD
            | program.clone_flags;
        let argument = ptr::from_ref(&program).cast_mut().cast::<c_void>();
        // SAFETY: the result is one past the mapping, page-aligned.
        let stack_top = unsafe { self.stack.byte_add(CHILD_STACK_BYTES) };
        let invoked_at_ns = now_ns();
        // SAFETY: CLONE_VFORK keeps this thread, and with it `program`, the stack and the slot,
        // in place until the child has left this memory by `execve` or `_exit`; all signals are
        // blocked, so no handler runs on the child's stack.
        let pid = unsafe {
            libc::clone(child_main, stack_top, flags, argument, slot.number.as_ptr())
        };
        let accepted_at_ns = now_ns();
        let child = conclude(&program, pid, slot);
        Spawned { invoked_at_ns, accepted_at_ns, child }
    }
}

/// Finds out what became of a `clone`.
fn conclude(program: &Program, pid: c_int, slot: &PidfdSlot) -> Result<(i32, OwnedFd), SpawnFailure> {
    if pid < 0 {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let text = program.describe_failure(encode_failure(AT_CLONE, errno));
        return Err(SpawnFailure { text, pid: None });
    }
    // SAFETY: the kernel made this descriptor for us in the `clone` that succeeded, and nobody
    // uses it any more now that it is out of the slot.
    let pidfd = unsafe { OwnedFd::from_raw_fd(slot.take()) };
    let failure = program.failure.load(Ordering::SeqCst);
    if failure != 0 {
        // It has left with EXIT_SPAWN_FAILED or is about to: reap it, nobody else will.
        let _ = wait4(pid, 0);
        return Err(SpawnFailure { text: program.describe_failure(failure), pid: Some(pid) });
    }
    // A number in the upper range is not copied into later children; the lower one is as good
    // when there is no room.
    Ok((pid, rustix::io::fcntl_dupfd_cloexec(&pidfd, program.high_fd_base).unwrap_or(pidfd)))
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no child runs on it: `spawn` has returned.
        unsafe { libc::munmap(self.stack, CHILD_STACK_BYTES) };
    }
}

const fn encode_failure(code: u32, errno: i32) -> u64 {
    ((code as u64 + 1) << 32) | errno.unsigned_abs() as u64
}

/// The first function of a child. It shares our memory: see the module's text.
extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a program that it keeps alive until we have left its memory.
    let program = unsafe { &*argument.cast::<Program>() };
    let (code, errno) = run_child(program);
    program.failure.store(encode_failure(code, errno.raw_os_error()), Ordering::SeqCst);
    // SAFETY: ends this process alone and runs none of the parent's exit handlers.
    unsafe { libc::_exit(EXIT_SPAWN_FAILED) }
}

/// Does everything up to `execve`; returns only when something failed.
fn run_child(program: &Program) -> (u32, Errno) {
    match prepare_child(program) {
        Err(failure) => failure,
        Ok(()) => {
            // SAFETY: the first argument exists (see `Ingredients`), all pointers lead to
            // null-terminated strings and arrays that the program owns.
            unsafe {
                libc::execve(
                    program.arguments.pointers[0],
                    program.arguments.pointers.as_ptr(),
                    program.environment.pointers.as_ptr(),
                );
            }
            (AT_EXECUTE, last_errno())
        }
    }
}

fn prepare_child(program: &Program) -> Result<(), (u32, Errno)> {
    let from = program.high_fd_base.unsigned_abs();
    close_range(from, libc::CLOSE_RANGE_UNSHARE).map_err(|errno| (AT_UNSHARE, errno))?;
    rustix::process::setsid().map_err(|errno| (AT_SESSION, errno))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| (AT_DEATH_SIGNAL, errno))?;
    for (index, step) in (0_u32..).zip(&program.steps) {
        step.run().map_err(|errno| (index, errno))?;
    }
    for (source, number) in &program.descriptors {
        // SAFETY: acts on this child's own table, which is a copy since the first call.
        if unsafe { libc::dup2(source.as_raw_fd(), *number) } < 0 {
            return Err((AT_DESCRIPTORS, last_errno()));
        }
    }
    close_range(program.close_from.unsigned_abs(), 0).map_err(|errno| (AT_CLOSE, errno))?;
    rustix::process::setrlimit(Resource::Nofile, program.open_files)
        .map_err(|errno| (AT_LIMIT, errno))?;
    reset_signals(&program.reset_signals).map_err(|errno| (AT_SIGNALS, errno))
}

fn last_errno() -> Errno {
    // SAFETY: the address is valid for as long as this thread lives.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// `close_range(from, everything, flags)`.
fn close_range(from: u32, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed; without it only children call this, on
    // a table of their own.
    check(unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, flags) })?;
    Ok(())
}

fn write_file(path: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}

fn unshare_in_child(flags: c_int) -> Result<(), Errno> {
    // SAFETY: changes name spaces of the caller, a single-threaded child.
    check(c_long::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Only adds the flag, so that flags that a user name space has locked stay as they are.
fn make_read_only(target: &CStr, is_recursive: bool) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: both pointers lead to live, correctly sized memory that the call only reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Runs in the child: default actions for the listed signals, and none blocked.
fn reset_signals(signals: &[c_int]) -> Result<(), Errno> {
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
        check(c_long::from(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())))?;
    }
    Ok(())
}

/// The signals whose action is not the default one.
fn changed_signals() -> Vec<c_int> {
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
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
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
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
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
    pub const UNKNOWN: Self = Self { exit_code: None, signal: None, usage: None };
}

/// Reaps a child if it has ended; `Ok(None)` while it lives.
///
/// # Errors
/// It is not, or no longer, our child.
pub fn reap(pid: i32) -> io::Result<Option<Ended>> {
    wait4(pid, libc::WNOHANG)
}

fn wait4(pid: i32, options: c_int) -> io::Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a value of its type; the call writes to both.
    let (found, usage) = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        (libc::wait4(pid, &raw mut status, options, &raw mut usage), usage)
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

/// Moves the calling thread into a private mount name space; threads made later are in it too.
///
/// # Errors
/// The system refused, for want of rights as a rule.
pub fn unshare_mounts() -> io::Result<()> {
    unshare_in_child(libc::CLONE_NEWNS)?;
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// Ignores a signal in the whole process.
pub fn ignore_signal(signal: c_int) {
    // SAFETY: replaces the action by one that runs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
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
