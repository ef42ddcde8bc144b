//! The guest's end of the control channel.

use std::ffi::CStr;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio, read, write};
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, connect, send, socket};
use seatrial_core::control::{Decoder, Frame, GuestFrame, Hello, HostFrame, Ready};

use crate::error::GuestError;
use crate::server::Server;
use crate::{probe, sys};

/// Bytes read at a time. Small, because an idle guest's memory is itself measured.
const READ_BYTES: usize = 4096;

/// The stream to the host; any thread may send, one thread obeys.
#[derive(Debug)]
pub struct Channel {
    fd: BorrowedFd<'static>,
    writing: Mutex<()>,
    probing: AtomicBool,
}

impl Channel {
    /// The channel on a descriptor that was inherited.
    pub const fn inherit(fd: i32) -> Self {
        Self {
            fd: sys::inherited_fd(fd),
            writing: Mutex::new(()),
            probing: AtomicBool::new(false),
        }
    }

    /// The channel by a call on the socket at which the host listens.
    pub fn call(path: &CStr) -> Result<Self, Errno> {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self::inherit(socket.into_raw_fd()))
    }

    /// The channel by a TCP call on the host. How long nobody may answer is the kernel's to say
    /// (`tcp_syn_retries`, about two minutes); whoever started the guest kills it long before.
    pub fn call_tcp(address: SocketAddr) -> Result<Self, Errno> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let socket = socket(family, SocketType::STREAM, None)?;
        // Frames are small and each is waited for.
        set_tcp_nodelay(&socket, true)?;
        connect(&socket, &address)?;
        Ok(Self::inherit(socket.into_raw_fd()))
    }

    /// Whether an error only says that the host has closed its end, or is out of reach by now.
    pub const fn is_closed(errno: Errno) -> bool {
        matches!(
            errno,
            Errno::PIPE
                | Errno::CONNRESET
                | Errno::TIMEDOUT
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
        )
    }

    /// Says that the guest runs, in one piece with its token if it has one.
    pub fn hello(
        &self,
        first_instruction_mono_ns: u64,
        build: &str,
        token: &[u8],
    ) -> Result<(), Errno> {
        let hello = GuestFrame::Hello(Hello {
            first_instruction_mono_ns,
            hello_mono_ns: sys::monotonic_ns(),
            pid: std::process::id(),
            build: build.to_owned(),
        });
        let frame = hello.encode().map_err(|_| Errno::MSGSIZE)?;
        self.send_bytes(&[token, &frame].concat())
    }

    /// What can wait until `HELLO` is out: the channel is not for children and blocks.
    pub fn settle(&self) {
        // Both can only fail where the descriptor is not open, which HELLO has shown it is.
        let _ = fcntl_setfd(self.fd, FdFlags::CLOEXEC);
        let _ = ioctl_fionbio(self.fd, false);
    }

    /// Says that the role is set up.
    pub fn ready(&self, endpoints: Vec<String>) -> Result<(), Errno> {
        self.send(&GuestFrame::Ready(Ready {
            ready_mono_ns: sys::monotonic_ns(),
            endpoints,
        }))
    }

    /// Reports a failure.
    pub fn report(&self, error: &GuestError) -> Result<(), Errno> {
        self.send(&GuestFrame::Error(error.report()))
    }

    /// Sends the outcome of a probe.
    pub fn conclude(&self, outcome: Result<String, GuestError>) -> Result<(), Errno> {
        match outcome {
            Ok(text) => self.send(&GuestFrame::Result(text)),
            Err(error) => self.report(&error),
        }
    }

    /// Sends one whole frame; frames of several threads do not mix.
    fn send(&self, frame: &GuestFrame) -> Result<(), Errno> {
        let bytes = match frame.encode() {
            Ok(bytes) => bytes,
            // Only a RESULT or STATS can be too long; the host is told so instead.
            Err(error) => GuestFrame::Error(seatrial_core::control::ErrorReport {
                code: "too-large".to_owned(),
                message: error.to_string(),
            })
            .encode()
            .map_err(|_| Errno::MSGSIZE)?,
        };
        self.send_bytes(&bytes)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<(), Errno> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.send_some(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for(PollFlags::OUT),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match send(self.fd, bytes, SendFlags::NOSIGNAL) {
            Err(Errno::NOTSOCK) => write(self.fd, bytes), // a terminal or a virtio port
            sent => sent,
        }
    }

    /// For a descriptor whose other holder made it non-blocking again.
    fn wait_for(&self, what: PollFlags) {
        let _ = poll(&mut [PollFd::new(&self.fd, what)], None);
    }

    /// Does what the host asks until it says `STOP`, closes, or breaks the protocol.
    ///
    /// Gives the exit status. A channel that closes is the ordinary end.
    pub fn obey(self: &Arc<Self>, server: Option<&Server>) -> Result<i32, GuestError> {
        let mut decoder = Decoder::<HostFrame>::new();
        let mut chunk = [0; READ_BYTES];
        loop {
            let count = match read(self.fd, &mut chunk[..]) {
                Ok(0) => return Ok(0),
                Ok(count) => count,
                Err(errno) if Self::is_closed(errno) => return Ok(0),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.wait_for(PollFlags::IN);
                    continue;
                }
                Err(errno) => {
                    return Err(GuestError::System {
                        what: "read channel",
                        errno,
                    });
                }
            };
            decoder.push(&chunk[..count])?;
            while let Some(frame) = decoder.next_frame()? {
                let sent = match frame {
                    HostFrame::Stop => return Ok(0),
                    HostFrame::Ping(payload) => self.send(&GuestFrame::Pong(payload)),
                    HostFrame::Run(request) => self.start_probe(request),
                    HostFrame::Stats => match server {
                        Some(server) => self.send(&GuestFrame::Stats(server.stats())),
                        None => self.report(&GuestError::NoServer),
                    },
                };
                match sent {
                    Ok(()) => {}
                    Err(errno) if Self::is_closed(errno) => return Ok(0),
                    Err(errno) => {
                        return Err(GuestError::System {
                            what: "send",
                            errno,
                        });
                    }
                }
            }
        }
    }

    /// Runs a probe on its own thread, so that `STOP` and `PING` are heard meanwhile.
    fn start_probe(self: &Arc<Self>, request: String) -> Result<(), Errno> {
        if self.probing.swap(true, Ordering::AcqRel) {
            return self.report(&GuestError::Busy);
        }
        let channel = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || {
                let outcome = probe::run(&request);
                // Free before the answer is out: the host may send the next RUN at once.
                channel.probing.store(false, Ordering::Release);
                // A host that is gone is noticed by the thread that reads.
                let _ = channel.conclude(outcome);
            });
        match started {
            Ok(_) => Ok(()),
            Err(error) => {
                self.probing.store(false, Ordering::Release);
                let errno = error
                    .raw_os_error()
                    .map_or(Errno::AGAIN, Errno::from_raw_os_error);
                self.report(&GuestError::System {
                    what: "start the probe's thread",
                    errno,
                })
            }
        }
    }
}
