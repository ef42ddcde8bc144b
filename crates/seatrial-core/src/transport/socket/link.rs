//! One connection: its descriptor, how far it has come, and what waits to be written.

use std::os::fd::OwnedFd;

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
    /// Bytes that the kernel has not taken yet, from `outgoing_start` on.
    pub outgoing: Vec<u8>,
    pub outgoing_start: usize,
    /// What the protocol remembers; there as long as the descriptor is.
    pub state: Option<S>,
    pub first_byte_at: Option<Nanos>,
}

impl<S> Default for Link<S> {
    fn default() -> Self {
        Self {
            fd: None,
            stage: Stage::Up,
            generation: 0,
            wants_write: false,
            outgoing: Vec::new(),
            outgoing_start: 0,
            state: None,
            first_byte_at: None,
        }
    }
}

impl<S> Link<S> {
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
