//! The launcher's control socket: requests in, replies out, neither ever blocking the loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::reactor::{Reactor, Source};

/// Largest frame: the plans of the largest batch, generously.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Bytes of a frame's length field.
const LENGTH_FIELD_BYTES: usize = 4;

/// Bytes taken by one read.
const READ_BYTES: usize = 64 << 10;

/// The control socket and what was read or has to be written.
#[derive(Debug)]
pub struct ControlSocket {
    fd: OwnedFd,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

impl ControlSocket {
    /// Takes a connected stream socket.
    #[must_use]
    pub const fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            received: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Takes in what has come; `false` when the peer has gone.
    ///
    /// # Errors
    /// The socket failed, or more was sent than a frame may have.
    pub fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match rustix::net::recv(&self.fd, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(false),
                Ok((length, _)) => self.received.extend_from_slice(&buffer[..length]),
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if self.received.len() > FRAME_BYTES_MAX + LENGTH_FIELD_BYTES {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
        }
    }

    /// The next whole request.
    ///
    /// # Errors
    /// Its length is out of bounds.
    pub fn next_request(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.received.split_first_chunk::<LENGTH_FIELD_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let request = rest[..length].to_vec();
        self.received.drain(..LENGTH_FIELD_BYTES + length);
        Ok(Some(request))
    }

    /// Sends a reply, now as far as it goes and the rest when the peer reads.
    ///
    /// # Errors
    /// The peer has gone, or the reply is longer than a frame may be.
    pub fn send(&mut self, reply: &[u8], reactor: &Reactor) -> io::Result<()> {
        let length =
            u32::try_from(reply.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.unsent.extend_from_slice(&length.to_le_bytes());
        self.unsent.extend_from_slice(reply);
        self.flush()?;
        if self.has_unsent() {
            reactor.watch_writing(&self.fd, Source::Control, true)?;
        }
        Ok(())
    }

    /// Goes on sending; the peer can take more.
    ///
    /// # Errors
    /// The peer has gone.
    pub fn resume(&mut self, reactor: &Reactor) -> io::Result<()> {
        if self.has_unsent() {
            self.flush()?;
            if !self.has_unsent() {
                reactor.watch_writing(&self.fd, Source::Control, false)?;
            }
        }
        Ok(())
    }

    /// Whether the peer has not taken everything.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.fd, &self.unsent, flags) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
