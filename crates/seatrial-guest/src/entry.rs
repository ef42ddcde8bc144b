//! The entry point: clock, `HELLO`, and only then everything else.
#![allow(unsafe_code)] // `main` takes C's arguments and must keep its name

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use rustix::io::Errno;
use seatrial_core::control::{CHANNEL_FD_DEFAULT, TOKEN_VARIABLE, is_token};

use crate::arguments::{self, Role};
use crate::channel::Channel;
use crate::error::{EXIT_SYSTEM, EXIT_USAGE, GuestError};
use crate::{busy, machine, probe, server, sys};

/// What the guest says about itself in `HELLO` and `version`.
pub const BUILD: &str = concat!("seatrial-guest ", env!("CARGO_PKG_VERSION"));

/// Most arguments that are read; more are an error of usage.
const ARGUMENTS_MAX: usize = 4096;

/// The program; `std`'s start-up is not used, see the crate's text.
#[allow(clippy::similar_names)] // the names that C gives them
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let first_instruction_ns = sys::monotonic_ns();
    // SAFETY: the C start-up passes `argc` pointers to strings that live as long as the program.
    let argument = |index: usize| unsafe { argument_at(argc, argv, index) };
    if argument(1).is_some_and(|option| option.to_bytes() == machine::OPTION) {
        let bytes = |index| argument(index).map_or(&b""[..], CStr::to_bytes);
        sys::become_machine();
        sys::exit_now(run_machine(bytes(2), bytes(3), first_instruction_ns))
    }
    let (way, role_index) = match channel_option(argument(1), argument(2)) {
        Ok(option) => option,
        Err(expected) => {
            complain(expected);
            return EXIT_USAGE;
        }
    };
    let is_question = matches!(
        argument(role_index).map(CStr::to_bytes),
        Some(b"version" | b"--help" | b"help")
    );
    let channel = match if is_question {
        Ok(None)
    } else {
        connected(&way)
    } {
        Ok(channel) => channel.map(Arc::new),
        Err((to, errno)) => {
            complain(&format!("cannot call the host on {to}: {errno}"));
            return EXIT_SYSTEM;
        }
    };
    if let Some(channel) = &channel
        && let Err(code) = greet(channel, first_instruction_ns, way.token())
    {
        return code;
    }
    if argument(role_index).is_some_and(|role| role.to_bytes() == b"null") {
        sys::exit_now(0);
    }
    sys::exit_now(perform(channel.as_ref(), &words_from(role_index, argument)))
}

/// Plays the role in a virtual machine of its own; gives the exit status.
fn run_machine(order: &[u8], role: &[u8], first_instruction_ns: u64) -> i32 {
    let machine = match machine::prepare(order, role, first_instruction_ns) {
        Ok(machine) => machine,
        Err(error) => {
            complain(&error.to_string());
            return error.exit_code();
        }
    };
    let channel = Arc::new(Channel::inherit(machine.channel_fd));
    match greet(&channel, machine.first_instruction_ns, b"") {
        Ok(()) => perform(Some(&channel), &machine.words),
        Err(code) => code,
    }
}

/// The channel by the way to it; an error has the address that could not be called.
fn connected(way: &Way<'_>) -> Result<Option<Channel>, (String, Errno)> {
    match way {
        Way::None => Ok(None),
        Way::Inherited(fd) => Ok(Some(Channel::inherit(*fd))),
        Way::Call(path) => match Channel::call(path) {
            Ok(channel) => Ok(Some(channel)),
            Err(errno) => Err((path.to_string_lossy().into_owned(), errno)),
        },
        Way::CallTcp { address, .. } => match Channel::call_tcp(*address) {
            Ok(channel) => Ok(Some(channel)),
            Err(errno) => Err((address.to_string(), errno)),
        },
    }
}

/// Says HELLO, behind the token if there is one; an error is the status to exit with.
fn greet(channel: &Channel, first_instruction_ns: u64, token: &[u8]) -> Result<(), i32> {
    match channel.hello(first_instruction_ns, BUILD, token) {
        Ok(()) => Ok(()),
        Err(errno) if Channel::is_closed(errno) => Err(0), // nobody waits for this guest
        Err(errno) => {
            complain(&format!("cannot say HELLO on the control channel: {errno}"));
            Err(EXIT_SYSTEM)
        }
    }
}

/// The arguments from an index on.
fn words_from(first: usize, argument: impl Fn(usize) -> Option<&'static CStr>) -> Vec<OsString> {
    (first..ARGUMENTS_MAX)
        .map_while(|index| {
            argument(index).map(|word| OsStr::from_bytes(word.to_bytes()).to_owned())
        })
        .collect()
}

/// The argument with this index, if there are as many.
///
/// # Safety
/// `strings` must point to `count` pointers to C strings that are never freed.
unsafe fn argument_at(
    count: c_int,
    strings: *const *const c_char,
    index: usize,
) -> Option<&'static CStr> {
    if index >= usize::try_from(count).ok()? {
        return None;
    }
    // SAFETY: the index is below `count`, and the strings live, as the caller promises.
    unsafe { Some(CStr::from_ptr(*strings.add(index))) }
}

/// How the guest comes by its control channel.
enum Way<'a> {
    /// It has none.
    None,
    /// On a descriptor.
    Inherited(i32),
    /// By connecting to a Unix socket.
    Call(&'a CStr),
    /// By connecting to an address of the host, where anybody may, hence with a token.
    CallTcp { address: SocketAddr, token: Vec<u8> },
}

impl Way<'_> {
    /// What is to be said ahead of HELLO.
    fn token(&self) -> &[u8] {
        match self {
            Self::CallTcp { token, .. } => token,
            _ => b"",
        }
    }
}

/// The way to the channel and the index of the role in the arguments; an error is what was
/// expected.
fn channel_option<'a>(
    first: Option<&CStr>,
    second: Option<&'a CStr>,
) -> Result<(Way<'a>, usize), &'static str> {
    let text = second.and_then(|value| value.to_str().ok());
    let way = match first.map(CStr::to_bytes) {
        Some(b"--channel-path") => second
            .map(Way::Call)
            .ok_or("--channel-path: expected a path"),
        Some(b"--channel-tcp") => call_by_tcp(text),
        Some(b"--channel-fd") => match text {
            Some("none") => Some(Way::None),
            Some(number) => {
                let number = number.parse().ok().filter(|fd| (0..1 << 20).contains(fd));
                number.map(Way::Inherited)
            }
            None => None,
        }
        .ok_or("--channel-fd: expected a file descriptor number or none"),
        _ => return Ok((Way::Inherited(CHANNEL_FD_DEFAULT), 1)),
    };
    way.map(|way| (way, 3))
}

fn call_by_tcp(address: Option<&str>) -> Result<Way<'static>, &'static str> {
    let address = address
        .and_then(|text| text.parse().ok())
        .ok_or("--channel-tcp: expected IP:PORT")?;
    let token = std::env::var_os(TOKEN_VARIABLE)
        .map(OsString::into_vec)
        .filter(|token| is_token(token))
        .ok_or(
            "--channel-tcp: expected a token of 64 digits 0-9 and a-f in SEATRIAL_CHANNEL_TOKEN",
        )?;
    Ok(Way::CallTcp { address, token })
}

/// Plays the role that the words name; gives the exit status.
fn perform(channel: Option<&Arc<Channel>>, words: &[OsString]) -> i32 {
    if let Some(channel) = channel {
        channel.settle();
    }
    occupy_standard_streams();
    sys::handle_signals();
    let outcome = arguments::parse(words).and_then(|role| play(channel, role));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            if let Some(channel) = channel {
                let _ = channel.report(&error);
            }
            complain(&error.to_string());
            error.exit_code()
        }
    }
}

fn play(channel: Option<&Arc<Channel>>, role: Role) -> Result<i32, GuestError> {
    let server = match role {
        Role::Null => return Ok(0),
        Role::Help => {
            say(arguments::USAGE);
            return Ok(0);
        }
        Role::Version => {
            say(&format!("{BUILD}\n"));
            return Ok(0);
        }
        Role::Exec(request) => return probe::exec_role(channel, request),
        Role::Idle { load_ratio } => {
            busy::start(load_ratio)?;
            None
        }
        Role::Serve(options) => Some(server::start(&options)?),
    };
    let endpoints = server
        .as_ref()
        .map_or_else(Vec::new, |server| server.endpoints.clone());
    let Some(channel) = channel else {
        for endpoint in &endpoints {
            say(&format!("{endpoint}\n"));
        }
        loop {
            std::thread::park(); // until SIGTERM or SIGINT
        }
    };
    match channel.ready(endpoints) {
        Ok(()) => channel.obey(server.as_ref()),
        Err(errno) if Channel::is_closed(errno) => Ok(0),
        Err(errno) => Err(GuestError::System {
            what: "send READY",
            errno,
        }),
    }
}

/// Keeps the numbers 0 to 2 from being given to sockets where they are closed,
/// so that a message for `stderr` cannot end up in a connection.
fn occupy_standard_streams() {
    use rustix::fs::{Mode, OFlags, open};
    use std::os::fd::{AsRawFd, IntoRawFd};
    for number in 0..3 {
        if rustix::io::fcntl_getfd(sys::inherited_fd(number)) != Err(Errno::BADF) {
            continue;
        }
        // A bare path descriptor cannot be read or written, and needs no /dev.
        match open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(placeholder) if placeholder.as_raw_fd() <= 2 => {
                let _ = placeholder.into_raw_fd();
            }
            _ => return,
        }
    }
}

/// Writes to standard output; a closed stream is nobody's business.
pub fn say(text: &str) {
    write_all(1, text);
}

/// Writes one line to standard error.
pub fn complain(text: &str) {
    let line = format!("seatrial-guest: {text}\n");
    sys::machine_say(line.as_bytes());
    write_all(2, &line);
}

fn write_all(number: i32, text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(sys::inherited_fd(number), rest) {
            Ok(0) | Err(_) => return,
            Ok(written) => rest = &rest[written..],
        }
    }
}
