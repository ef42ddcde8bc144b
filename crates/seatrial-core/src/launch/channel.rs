//! The host's end of a sandbox's control channel.
//!
//! It never reads past the end of a frame, so that the channel can be handed over to somebody
//! else between any two frames without a byte being lost.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with};
use thiserror::Error;

use crate::control::{ControlError, Decoder, FRAME_BYTES_MAX, Frame, GuestFrame, HostFrame};

/// Bytes of a frame's length field.
const LENGTH_FIELD_BYTES: usize = 4;

/// Most bytes taken by one read.
const READ_BYTES_MAX: usize = 4 << 10;

/// What a read of the channel brought.
#[derive(Debug)]
pub enum Received {
    /// A whole frame.
    Frame(GuestFrame),
    /// Nothing more for now.
    Nothing,
    /// The guest has closed its end, perhaps within a frame ([`Channel::held_bytes`]).
    Closed,
}

/// Why the channel is of no more use.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// What came is not our protocol.
    #[error(transparent)]
    Protocol(#[from] ControlError),
    /// The system refused to read or write.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The channel of one sandbox.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    /// Whether nobody has called yet: `fd` then is the socket that awaits the guest.
    is_listening: bool,
    /// Whether the other end is in another machine, or another network stack, and may die without
    /// a word.
    is_remote: bool,
    decoder: Decoder<GuestFrame>,
    /// The length field of the frame that is being read.
    length: [u8; LENGTH_FIELD_BYTES],
    /// Bytes of that frame that have come, with its length field.
    held_bytes: usize,
    /// Whether anything at all has come.
    pub has_spoken: bool,
}

impl Channel {
    /// Takes our end of a new socket pair.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        let decoder = Decoder::new();
        Self {
            fd,
            is_listening: false,
            is_remote: false,
            decoder,
            length: [0; LENGTH_FIELD_BYTES],
            held_bytes: 0,
            has_spoken: false,
        }
    }

    /// Takes a listening socket on which the guest will call.
    #[must_use]
    pub fn listening(fd: OwnedFd) -> Self {
        Self {
            is_listening: true,
            ..Self::new(fd)
        }
    }

    /// Takes the connection of a guest that has called by TCP.
    #[must_use]
    pub fn remote(fd: OwnedFd) -> Self {
        Self {
            is_remote: true,
            ..Self::new(fd)
        }
    }

    /// Closes it, for whoever it was lent to as well if nobody else would tell that the other end
    /// has gone. What came before can still be read.
    pub fn hang_up(self) {
        if self.is_remote {
            // It may have been closed from the other side.
            let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
        }
    }

    /// Whether the guest has not called yet.
    #[must_use]
    pub const fn is_listening(&self) -> bool {
        self.is_listening
    }

    /// Takes the guest's call if there is one: the connection replaces the listening socket, whose
    /// closing ends its being watched, and has to be watched itself.
    ///
    /// # Errors
    /// The system refused to give the connection.
    pub fn answer(&mut self) -> io::Result<bool> {
        let caller = match accept_with(&self.fd, SocketFlags::CLOEXEC) {
            Ok(caller) => caller,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        // Where the listening socket was is out of the way of children.
        self.fd = fcntl_dupfd_cloexec(&caller, self.fd.as_raw_fd())?;
        self.is_listening = false;
        Ok(true)
    }

    /// The next frame, without waiting for it.
    ///
    /// # Errors
    /// What came is not a frame of a guest.
    pub fn receive(&mut self) -> Result<Received, ChannelError> {
        let mut buffer = [0; READ_BYTES_MAX];
        loop {
            let wanted = self.missing_bytes().min(READ_BYTES_MAX);
            let part = match rustix::net::recv(&self.fd, &mut buffer[..wanted], RecvFlags::DONTWAIT)
            {
                // The last three: the network to a guest that called by TCP has gone before it.
                Ok((0, _))
                | Err(
                    Errno::CONNRESET | Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH,
                ) => {
                    return Ok(Received::Closed);
                }
                Ok((length, _)) => &buffer[..length],
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(io::Error::from(errno).into()),
            };
            self.has_spoken = true;
            self.note(part);
            self.decoder.push(part)?;
            if let Some(frame) = self.decoder.next_frame()? {
                self.held_bytes = 0;
                return Ok(Received::Frame(frame));
            }
        }
    }

    /// Sends a frame in one piece, without waiting.
    ///
    /// # Errors
    /// The guest has gone, or has let so much pile up that the frame does not fit.
    pub fn send(&self, frame: &HostFrame) -> Result<(), ChannelError> {
        let bytes = frame.encode()?;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = rustix::net::send(&self.fd, &bytes, flags).map_err(io::Error::from)?;
        if sent < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        Ok(())
    }

    /// Bytes of an unfinished frame that have come.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes until the end of the length field or of the frame; at least one.
    fn missing_bytes(&self) -> usize {
        if self.held_bytes < LENGTH_FIELD_BYTES {
            return LENGTH_FIELD_BYTES - self.held_bytes;
        }
        // A length out of bounds was refused by the decoder as soon as it was complete.
        let length = usize::try_from(u32::from_le_bytes(self.length)).unwrap_or(FRAME_BYTES_MAX);
        (LENGTH_FIELD_BYTES + length)
            .saturating_sub(self.held_bytes)
            .max(1)
    }

    fn note(&mut self, part: &[u8]) {
        for (place, byte) in self.length.iter_mut().skip(self.held_bytes).zip(part) {
            *place = *byte;
        }
        self.held_bytes += part.len();
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::control::{Hello, PING_BYTES_MAX};

    fn pair() -> (Channel, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Channel::new(ours), theirs)
    }

    #[test]
    fn the_first_caller_takes_the_place_of_the_listening_socket() {
        let directory = std::env::temp_dir().join(format!("st-channel-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("c");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut channel = Channel::listening(listener.into());
        assert!(!channel.answer().unwrap() && channel.is_listening());
        let guest = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(channel.answer().unwrap() && !channel.is_listening());
        assert!(matches!(channel.receive(), Ok(Received::Nothing)));
        rustix::io::write(&guest, &hello().encode().unwrap()).unwrap();
        assert!(matches!(channel.receive(), Ok(Received::Frame(frame)) if frame == hello()));
        assert!(std::os::unix::net::UnixStream::connect(&path).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    fn hello() -> GuestFrame {
        GuestFrame::Hello(Hello {
            first_instruction_mono_ns: 1,
            hello_mono_ns: 2,
            pid: 3,
            build: "guest".to_owned(),
        })
    }

    #[test]
    fn a_frame_may_come_in_pieces_and_is_never_read_past() {
        let (mut channel, guest) = pair();
        let frames = [hello(), GuestFrame::Pong(vec![7; 9000])];
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|frame| frame.encode().unwrap())
            .collect();
        for (index, byte) in bytes[..frames[0].encode().unwrap().len()]
            .iter()
            .enumerate()
        {
            assert!(
                matches!(channel.receive(), Ok(Received::Nothing)),
                "at byte {index}"
            );
            rustix::io::write(&guest, &[*byte]).unwrap();
        }
        let rest = &bytes[frames[0].encode().unwrap().len()..];
        assert_eq!(rustix::io::write(&guest, rest).unwrap(), rest.len());
        assert!(matches!(
            channel.receive(),
            Ok(Received::Frame(GuestFrame::Hello(_)))
        ));
        // The second frame is untouched in the socket, for whoever takes the channel over.
        let mut taken = vec![0; rest.len() + 1];
        let (length, _) = rustix::net::recv(&channel, &mut taken[..], RecvFlags::DONTWAIT).unwrap();
        assert_eq!(&taken[..length], rest);
    }

    #[test]
    fn the_end_of_the_stream_says_where_it_came() {
        let (mut channel, guest) = pair();
        rustix::io::write(&guest, &hello().encode().unwrap()[..7]).unwrap();
        drop(guest);
        assert!(matches!(channel.receive(), Ok(Received::Closed)));
        assert_eq!(channel.held_bytes(), 7);
        assert!(channel.has_spoken);
    }

    #[test]
    fn sending_to_nobody_or_to_a_full_peer_does_not_block() {
        let (channel, guest) = pair();
        let ping = HostFrame::Ping(vec![0; PING_BYTES_MAX]);
        // Bounded by what a socket buffer can hold.
        assert!((0..1000).any(|_| channel.send(&ping).is_err()));
        drop(guest);
        assert!(channel.send(&HostFrame::Stop).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut channel, guest) = pair();
            rustix::io::write(&guest, &bytes).unwrap();
            drop(guest);
            // Ends after as many frames as can be in there.
            for _ in 0..=bytes.len() {
                match channel.receive() {
                    Ok(Received::Frame(_)) => {}
                    Ok(Received::Nothing) => prop_assert!(false, "the peer has closed"),
                    Ok(Received::Closed) | Err(_) => return Ok(()),
                }
            }
            prop_assert!(false, "more frames than bytes");
        }
    }
}
