//! Starts the built guest with its channel on descriptor 0 and talks to it.
#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![allow(dead_code)] // each test program uses its part of this

pub mod server;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use seatrial_core::control::{Decoder, ErrorReport, Frame, GuestFrame, Hello, HostFrame, Ready};

/// Longer than anything here takes on a busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub const GUEST: &str = env!("CARGO_BIN_EXE_seatrial-guest");

/// A running guest; killed when dropped.
pub struct Guest {
    child: Child,
    host: Option<UnixStream>,
    decoder: Decoder<GuestFrame>,
}

impl Guest {
    /// Starts a guest in a role; nothing is read yet.
    pub fn start(role: &[&str]) -> Self {
        let (host, inside) = UnixStream::pair().unwrap();
        host.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(GUEST)
            .args(["--channel-fd", "0"])
            .args(role)
            .stdin(Stdio::from(OwnedFd::from(inside)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            host: Some(host),
            decoder: Decoder::new(),
        }
    }

    /// Starts a guest and takes its `HELLO` and `READY`.
    pub fn start_ready(role: &[&str]) -> (Self, Ready) {
        let mut guest = Self::start(role);
        guest.hello();
        let Some(GuestFrame::Ready(ready)) = guest.next() else {
            panic!("no READY")
        };
        (guest, ready)
    }

    /// Takes the `HELLO`.
    pub fn hello(&mut self) -> Hello {
        match self.next() {
            Some(GuestFrame::Hello(hello)) => hello,
            other => panic!("expected HELLO, got {other:?}"),
        }
    }

    /// Takes an `ERROR`.
    pub fn error(&mut self) -> ErrorReport {
        match self.next() {
            Some(GuestFrame::Error(report)) => report,
            other => panic!("expected ERROR, got {other:?}"),
        }
    }

    /// The next frame, `None` at the end of the stream.
    pub fn next(&mut self) -> Option<GuestFrame> {
        let mut chunk = [0; 8192];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.host.as_mut().unwrap().read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&chunk[..count]).unwrap(),
                // It closed with bytes from us unread, which is its right.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("reading from the guest: {error}"),
            }
        }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &HostFrame) {
        self.send_raw(&frame.encode().unwrap()).unwrap();
    }

    /// Sends any bytes; the guest may be gone already.
    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.host.as_mut().unwrap().write_all(bytes)
    }

    /// Runs a probe and takes the answer.
    pub fn run(&mut self, request: &str) -> GuestFrame {
        self.send(&HostFrame::Run(request.to_owned()));
        self.next().unwrap()
    }

    /// Closes the channel.
    pub fn hang_up(&mut self) {
        self.host = None;
    }

    /// The guest's process id.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Waits for the guest to exit.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
