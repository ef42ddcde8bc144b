//! The system calls that `rustix` does not offer, or not in the form needed
//! here; the only module with `unsafe` besides the entry point.
#![allow(unsafe_code)] // raw system calls: clocks, fork, wait4, mmap, signal handlers, _exit

use std::ffi::{CString, c_char, c_int};
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use rustix::io::Errno;

/// Paths that are removed when the guest exits by its own will; set slots only.
static PATHS_TO_REMOVE: [AtomicPtr<c_char>; 8] = [const { AtomicPtr::new(null_mut()) }; 8];

/// Whether this process is the init of a virtual machine.
static IS_MACHINE: AtomicBool = AtomicBool::new(false);

/// Where a machine's exit status goes: QEMU's `isa-debug-exit`.
const EXIT_PORT: u16 = 0xf4;

/// Where its last words go: QEMU's `isa-debugcon`.
const SAY_PORT: u16 = 0xe9;

/// Where a copy of a template says so: another one.
const PROOF_PORT: u16 = 0xea;

/// The process group of the command that a probe runs, 0 for none.
static CHILD_GROUP: AtomicI32 = AtomicI32::new(0);

/// Stands for a group whose number is not known yet: the command is being started.
const GROUP_COMING: i32 = -1;

/// How often, and for how long each time, the end of the guest waits for that number: 0.2 s in all.
/// Bounded, because a signal may have stopped the very thread that would tell it.
const GROUP_LOOKS: u32 = 2_000;
const GROUP_PAUSE_NS: libc::c_long = 100_000;

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // libc's call and not rustix's: this is the first statement of the program,
    // and libc has found the vDSO already while rustix would search for it now.
    // SAFETY: `time` is a valid timespec that outlives the call.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return 0; // cannot happen: both clocks used exist on every Linux
    }
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// One `getpid` that really enters the kernel.
#[inline]
pub fn getpid_raw() -> i64 {
    // SAFETY: getpid takes no arguments and touches no memory.
    unsafe { libc::syscall(libc::SYS_getpid) }
}

/// A descriptor that was inherited and is never closed by this program.
pub const fn inherited_fd(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the number is not -1 (checked when it is parsed) and nothing here
    // closes it. If it is not open at all, each use fails with EBADF.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Maps anonymous memory, writes one byte to each page and unmaps it.
pub fn touch_pages(pages: NonZeroUsize, page_bytes: NonZeroUsize) -> Result<(), Errno> {
    let length = pages
        .get()
        .checked_mul(page_bytes.get())
        .ok_or(Errno::NOMEM)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let memory = unsafe { libc::mmap(null_mut(), length, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(last_errno());
    }
    for page in 0..pages.get() {
        // SAFETY: the offset is below `length`, so the byte is inside the mapping
        // made above; volatile, so that the write is not optimised away.
        unsafe {
            memory
                .cast::<u8>()
                .add(page * page_bytes.get())
                .write_volatile(1);
        };
    }
    // SAFETY: exactly the mapping made above, of which no reference exists.
    if unsafe { libc::munmap(memory, length) } != 0 {
        return Err(last_errno());
    }
    Ok(())
}

/// Bytes of a memory page.
pub fn page_bytes() -> NonZeroUsize {
    // SAFETY: sysconf takes a constant and touches no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes)
        .ok()
        .and_then(NonZeroUsize::new)
        .unwrap_or(NonZeroUsize::MIN)
}

/// How a child ended and what it used.
#[derive(Clone, Copy, Debug)]
pub struct ChildEnd {
    /// Its exit status, unless a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// User CPU time.
    pub user_ns: u64,
    /// System CPU time.
    pub system_ns: u64,
    /// Largest resident set.
    pub max_rss_bytes: u64,
}

/// Waits for one child by its id and reaps it.
pub fn reap(pid: i32) -> Result<ChildEnd, Errno> {
    let mut status: c_int = 0;
    // SAFETY: rusage is plain data for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the right type.
        if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } == pid {
            break;
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
    Ok(ChildEnd {
        exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        user_ns: timeval_ns(usage.ru_utime),
        system_ns: timeval_ns(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

/// Makes a child that ends at once, or becomes another program if there are words for one.
///
/// The words stand ready before the fork: between fork and exec a child of a
/// program with threads may only make async-signal-safe calls.
pub fn fork_child(words: &[CString]) -> Result<i32, Errno> {
    let mut pointers: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: the child below makes async-signal-safe calls only.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        if !words.is_empty() {
            // SAFETY: the words are C strings, and the list ends with a null pointer.
            unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
        }
        // SAFETY: _exit takes an integer and does not return.
        unsafe { libc::_exit(if words.is_empty() { 0 } else { 127 }) }
    }
    if pid < 0 {
        return Err(last_errno());
    }
    Ok(pid)
}

fn timeval_ns(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_usec).unwrap_or(0) * 1_000
}

/// Says that a command is being started, whose group must die with the guest, too.
pub fn expect_child_group() {
    CHILD_GROUP.store(GROUP_COMING, Ordering::SeqCst);
}

/// Says which process group dies with the guest; 0 for none.
pub fn set_child_group(group: i32) {
    CHILD_GROUP.store(group, Ordering::SeqCst);
}

/// A path that is removed when the guest exits, until this value is dropped,
/// which removes it as well.
pub struct RemovedOnExit {
    slot: Option<&'static AtomicPtr<c_char>>,
    path: CString,
}

/// Has a path removed at the latest when the guest exits.
///
/// With all slots taken (which the bounds elsewhere prevent) it is removed on drop only.
pub fn remove_on_exit(path: CString) -> RemovedOnExit {
    let copy = path.clone().into_raw();
    let slot = PATHS_TO_REMOVE.iter().find(|slot| {
        slot.compare_exchange(null_mut(), copy, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    });
    if slot.is_none() {
        // SAFETY: `copy` came from `into_raw` above and was stored nowhere.
        drop(unsafe { CString::from_raw(copy) });
    }
    RemovedOnExit { slot, path }
}

impl Drop for RemovedOnExit {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // The string is leaked on purpose: a signal handler may be reading it.
            slot.store(null_mut(), Ordering::SeqCst);
        }
        let _ = rustix::fs::unlink(self.path.as_c_str());
    }
}

/// The group of the running command, once its number is known.
fn known_group(group: &AtomicI32) -> i32 {
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: GROUP_PAUSE_NS,
    };
    for _ in 0..GROUP_LOOKS {
        let number = group.load(Ordering::SeqCst);
        if number != GROUP_COMING {
            return number;
        }
        // SAFETY: nanosleep reads the pause, and may be called by a signal handler.
        unsafe { libc::nanosleep(&raw const pause, null_mut()) };
    }
    0
}

/// Ends the process at once, after removing what it must not leave behind.
///
/// Only async-signal-safe calls: this also runs in the handler of `SIGTERM`.
pub fn exit_now(code: i32) -> ! {
    let group = known_group(&CHILD_GROUP);
    if group > 0 {
        // SAFETY: kill takes two integers.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    for slot in &PATHS_TO_REMOVE {
        let path = slot.load(Ordering::SeqCst);
        if !path.is_null() {
            // SAFETY: a stored pointer is to a C string that is never freed.
            unsafe { libc::unlink(path) };
        }
    }
    if IS_MACHINE.load(Ordering::SeqCst) {
        machine_off(code);
    }
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// From now on the end of this process is the end of the machine.
pub fn become_machine() {
    IS_MACHINE.store(true, Ordering::SeqCst);
}

/// Switches the machine off; a status other than 0 goes to the device that hands it to the host.
///
/// Only async-signal-safe calls. It returns where the kernel refuses, which ends init and with it
/// the machine.
fn machine_off(code: i32) {
    // SAFETY: sync takes nothing and cannot fail.
    unsafe { libc::sync() };
    if let Ok(code @ 1..) = u8::try_from(code) {
        port_write(EXIT_PORT, &[code]);
    }
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}

/// Gives the host a text through the port of a debug console, where this is a machine with one.
pub fn machine_say(text: &[u8]) {
    if IS_MACHINE.load(Ordering::SeqCst) {
        port_write(SAY_PORT, text);
    }
}

/// Gives the host the proof of where a machine comes from, through a second such port.
pub fn machine_prove(text: &[u8]) {
    port_write(PROOF_PORT, text);
}

/// Writes bytes to an I/O port of the machine, of which process 1 is the only user.
#[cfg(target_arch = "x86_64")]
fn port_write(port: u16, bytes: &[u8]) {
    // SAFETY: iopl takes an integer; it only allows what follows.
    if unsafe { libc::iopl(3) } != 0 {
        return;
    }
    for byte in bytes {
        // SAFETY: the instruction touches no memory, and a port without a device ignores it.
        unsafe {
            std::arch::asm!("out dx, al", in("dx") port, in("al") *byte,
                options(nomem, nostack, preserves_flags));
        };
    }
}

/// Other machines have no such ports.
#[cfg(not(target_arch = "x86_64"))]
const fn port_write(_port: u16, _bytes: &[u8]) {}

/// Gives an interface its address, if it is to have one, and sets it up.
pub fn raise_interface(name: &str, address: Option<(Ipv4Addr, u8)>) -> Result<(), Errno> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    if let Some((address, bits)) = address {
        let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0));
        for (request, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
            let mut message = interface_request(name);
            message.ifr_ifru.ifru_addr = internet_address(value);
            ioctl_interface(&socket, request, &mut message)?;
        }
    }
    let mut message = interface_request(name);
    ioctl_interface(&socket, libc::SIOCGIFFLAGS, &mut message)?;
    // SAFETY: the kernel has just written this member.
    let flags = unsafe { message.ifr_ifru.ifru_flags };
    let up = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    message.ifr_ifru.ifru_flags = flags | up;
    ioctl_interface(&socket, libc::SIOCSIFFLAGS, &mut message)
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut message: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = libc::IFNAMSIZ - 1;
    for (to, from) in message.ifr_name.iter_mut().zip(name.bytes().take(room)) {
        *to = c_char::from_ne_bytes([from]);
    }
    message
}

fn internet_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = c_char::from_ne_bytes([from]);
    }
    libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(2),
        sa_data: data,
    }
}

fn ioctl_interface(
    socket: &OwnedFd,
    request: libc::c_ulong,
    message: &mut libc::ifreq,
) -> Result<(), Errno> {
    // SAFETY: the requests used read and write one ifreq, which `message` is.
    if unsafe { libc::ioctl(socket.as_raw_fd(), request, std::ptr::from_mut(message)) } != 0 {
        return Err(last_errno());
    }
    Ok(())
}

/// Takes the first connection to a port of this machine's vsock.
pub fn accept_vsock(port: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: sockaddr_vm is plain data for which all zeroes is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or(40);
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or(16);
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes three integers.
    let listener = owned(unsafe { libc::socket(libc::AF_VSOCK, kind, 0) })?;
    // SAFETY: the address lives through the call and has the length given.
    let bound = unsafe {
        libc::bind(
            listener.as_raw_fd(),
            (&raw const address).cast::<libc::sockaddr>(),
            length,
        )
    };
    if bound != 0 {
        return Err(last_errno());
    }
    rustix::net::listen(&listener, 1)?;
    loop {
        // SAFETY: null pointers say that the peer's address is not wanted.
        match owned(unsafe { libc::accept(listener.as_raw_fd(), null_mut(), null_mut()) }) {
            Err(Errno::INTR) => {}
            accepted => return accepted,
        }
    }
}

fn owned(fd: c_int) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

extern "C" fn on_termination(_signal: c_int) {
    exit_now(0);
}

/// Makes `SIGTERM` and `SIGINT` end the guest, as process 1 too, and ignores `SIGPIPE`.
pub fn handle_signals() {
    set_handler(
        libc::SIGTERM,
        on_termination as *const () as libc::sighandler_t,
    );
    set_handler(
        libc::SIGINT,
        on_termination as *const () as libc::sighandler_t,
    );
    set_handler(libc::SIGPIPE, libc::SIG_IGN);
}

fn set_handler(signal: c_int, handler: libc::sighandler_t) {
    // SAFETY: sigaction is plain data for which all zeroes is valid (no flags, empty mask).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: `action` outlives the call; the handler is async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_coming_is_waited_for() {
        let group = AtomicI32::new(GROUP_COMING);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| known_group(&group));
            std::thread::sleep(std::time::Duration::from_millis(20));
            group.store(7, Ordering::SeqCst);
            assert_eq!(waiting.join().unwrap(), 7);
        });
    }

    #[test]
    fn a_group_that_never_comes_does_not_keep_the_guest() {
        assert_eq!(known_group(&AtomicI32::new(GROUP_COMING)), 0);
        assert_eq!(known_group(&AtomicI32::new(0)), 0);
    }
}
