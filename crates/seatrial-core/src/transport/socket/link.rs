//! One connection: its descriptor, how far it has come, and what waits to be written.

use std::os::fd::{AsFd, OwnedFd};

use crate::transport::stamps::LinkStamps;
use crate::units::Nanos;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// The kernel is still at it.
    Connecting,
    /// The protocol still has to say that requests may follow.
    Greeting,
    /// Requests and replies.
    #[default]
    Up,
    /// The peer has announced that it will close.
    Closing,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub fd: Option<OwnedFd>,
    pub stage: Stage,
    /// How often it was made before.
    pub generation: u32,
    pub wants_write: bool,
    /// Writing has failed.
    pub is_cut: bool,
    /// Bytes that the kernel has not taken yet, from `outgoing_start` on.
    pub outgoing: Vec<u8>,
    pub outgoing_start: usize,
    /// What the protocol remembers; there as long as the descriptor is.
    pub state: Option<S>,
    pub first_byte_at: Option<Nanos>,
    /// The kernel's stamps, if they were asked for and there are any.
    pub stamps: Option<Box<LinkStamps>>,
}

impl<S> Default for Link<S> {
    fn default() -> Self {
        Self {
            fd: None,
            stage: Stage::Up,
            generation: 0,
            wants_write: false,
            is_cut: false,
            outgoing: Vec::new(),
            outgoing_start: 0,
            state: None,
            first_byte_at: None,
            stamps: None,
        }
    }
}

impl<S> Link<S> {
    /// Bytes that wait to be written.
    pub fn pending(&self) -> usize {
        self.outgoing.len() - self.outgoing_start
    }

    /// Takes what the kernel has in the error queue.
    pub fn collect_stamps(&mut self) {
        if let (Some(fd), Some(stamps)) = (&self.fd, &mut self.stamps) {
            stamps.collect(fd.as_fd());
        }
    }

    /// Forgets everything but the buffer and how often the connection was made; closing the
    /// descriptor takes it out of the epoll set.
    pub fn reset(&mut self) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        outgoing.clear();
        *self = Self {
            generation: self.generation.wrapping_add(1),
            outgoing,
            ..Self::default()
        };
    }
}
