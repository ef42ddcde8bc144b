//! How requests reach a server and replies come back.
//!
//! The engine knows only [`Transport`]. [`socket`] implements it for stream
//! sockets of any address family and any [`Protocol`], [`datagram`] for UDP and those protocols
//! whose replies carry the request's id; [`fake`] implements it
//! for a modelled server on the virtual clock. A new protocol is one file that
//! implements [`Protocol`]; it does no input or output of its own.

pub mod datagram;
pub mod echo;
pub mod fake;
#[cfg(test)]
mod fuzz;
pub mod grpc;
pub mod http;
pub mod keys;
mod lines;
pub mod memcached;
pub mod options;
mod ready;
pub mod resp;
mod routes;
pub mod rpc;
pub mod runs;
pub mod socket;
pub mod stamps;
pub mod target;
pub mod template;
#[cfg(feature = "tls")]
pub mod tls;

use crate::error::CoreError;
use crate::transport::runs::{ReplyRun, RequestRun};
use crate::transport::stamps::{KernelStamps, StampReport};
use crate::units::Nanos;
use crate::wire::WireError;

/// A request as a transport sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Unique in the run.
    pub request_id: u64,
    /// The work it asks for.
    pub demand: Nanos,
}

/// A whole reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The request that it answers; `None` when the protocol does not tell.
    pub request_id: Option<u64>,
    /// Why the server did not do what was asked, in its words; `None` when it did.
    pub failure: Option<Box<str>>,
    /// The server's own time for the request, when the protocol tells.
    pub service: Option<Nanos>,
    /// What a reply that is no failure was, where some are to be told apart; they are counted.
    pub note: Option<&'static str>,
}

impl Reply {
    /// Whether the server did what was asked.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.failure.is_none()
    }
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// It could not be made; with the error number.
    Refused(i32),
    /// The peer or the kernel closed it.
    Reset,
    /// The peer sent bytes that the protocol does not allow; what was wrong.
    Protocol(Box<str>),
    /// We closed it: a request that had timed out got no reply for as long again.
    Silent,
    /// The peer had announced it; nobody is at fault, and it is made again at once.
    Announced,
    /// Likewise, and the peer has told that it did nothing about what is left on it.
    Spent,
}

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It can be used now.
    Connected {
        /// Which one.
        connection: usize,
    },
    /// A whole reply was read from it.
    Reply {
        /// Which one.
        connection: usize,
        /// The reply.
        reply: Reply,
        /// When its first byte was read.
        first_byte_at: Nanos,
        /// When its last byte was read.
        done_at: Nanos,
        /// What the kernel knows about it, if it was asked. Rare, and so not in the event itself,
        /// of which one is written and read for each reply.
        kernel: Option<Box<KernelStamps>>,
    },
    /// Whole replies were read from it at once that say nothing but which requests they answer.
    Replies {
        /// Which one.
        connection: usize,
        /// The replies.
        run: ReplyRun,
        /// When all of them were read, from their first byte to their last.
        done_at: Nanos,
    },
    /// The peer takes no further requests on it, but answers what it has; the end follows.
    Draining {
        /// Which one.
        connection: usize,
        /// Requests on it that the peer did nothing about, by their ids.
        unserved: Vec<u64>,
    },
    /// It is gone, with all that was on it; it can be connected again.
    Closed {
        /// Which one.
        connection: usize,
        /// Why.
        cause: CloseCause,
        /// When the first byte of an unfinished reply was read.
        first_byte_at: Option<Nanos>,
    },
}

/// Bytes that a transport has moved so far, protocol chatter included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Taken by the kernel.
    pub sent_bytes: u64,
    /// Read from the kernel.
    pub received_bytes: u64,
}

impl Traffic {
    /// Adds what was moved by another thread.
    pub const fn add(&mut self, other: &Self) {
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
    }
}

/// What a transport noticed beyond the fate of each request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportReport {
    /// Replies in datagrams that came after the reply to a later request of their connection.
    pub reordered_count: u64,
    /// Replies in datagrams that had come before.
    pub duplicate_count: u64,
    /// Requests that the peer did not admit at once; see [`Protocol::held_back_count`].
    pub held_back_count: u64,
    /// The congestion control of the connections; `None` where there is none.
    pub congestion_control: Option<String>,
    /// What became of the time stamps; `None` when none were asked for.
    pub stamps: Option<StampReport>,
}

impl TransportReport {
    /// Adds what another thread noticed.
    pub fn add(&mut self, other: Self) {
        self.reordered_count += other.reordered_count;
        self.duplicate_count += other.duplicate_count;
        self.held_back_count += other.held_back_count;
        self.congestion_control = self.congestion_control.take().or(other.congestion_control);
        match (&mut self.stamps, other.stamps) {
            (Some(own), Some(others)) => own.add(&others),
            (own, others) => *own = own.take().or(others),
        }
    }
}

/// The connections of one engine thread, numbered from 0.
///
/// Whatever goes wrong on a connection becomes an [`Event::Closed`], appended to
/// the vector that the caller passes; an `Err` means that the transport as a
/// whole cannot go on.
pub trait Transport {
    /// Which request a reply answers.
    fn order(&self) -> ReplyOrder;

    /// Bytes moved so far, on all connections together.
    fn traffic(&self) -> Traffic;

    /// Begins to make a connection; its fate comes as an event, now or later.
    fn connect(&mut self, connection: usize, events: &mut Vec<Event>);

    /// Drops a connection without an event.
    fn disconnect(&mut self, connection: usize);

    /// Puts a request on a connection; it leaves with the next [`Transport::flush`].
    fn send(&mut self, connection: usize, request: &Request);

    /// Puts several requests on a connection; the same as [`Transport::send`] for each of them.
    #[inline]
    fn send_run(&mut self, connection: usize, run: &RequestRun) {
        for request in run.each() {
            self.send(connection, &request);
        }
    }

    /// Hands what was put on the connection to the kernel. What the kernel does
    /// not take now follows by itself, as soon as it does.
    fn flush(&mut self, connection: usize, events: &mut Vec<Event>);

    /// Nobody waits for the reply to this request any more; a protocol that can tell the peer does.
    fn abandon(&mut self, connection: usize, request_id: u64, events: &mut Vec<Event>) {
        let _ = (connection, request_id, events);
    }

    /// Waits until something happens or `until` comes, and appends what happened.
    ///
    /// It may return after the first connection that gave something, so that its replies are
    /// handled before others are read; the rest is given by the next calls, without waiting.
    ///
    /// # Errors
    /// The transport as a whole cannot wait any more.
    fn wait(&mut self, until: Nanos, events: &mut Vec<Event>) -> Result<(), CoreError>;

    /// What was noticed so far.
    fn report(&self) -> TransportReport {
        TransportReport::default()
    }
}

/// Which request a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyOrder {
    /// The oldest one on its connection.
    Fifo,
    /// The one whose id it carries; replies may overtake each other.
    ById,
}

/// What the next bytes of a connection were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// All bytes were taken, and nothing is whole yet.
    More,
    /// The peer is ready for requests; comes once, and only when [`Protocol::greet`] said so.
    Ready,
    /// A whole reply.
    Reply(Reply),
    /// The peer takes no further requests and will close the connection after those that it has;
    /// which ones it does not have is told by [`Protocol::take_unserved`].
    Closing,
}

/// Turns requests into bytes and bytes into replies, and does nothing else.
pub trait Protocol {
    /// What one connection remembers between calls.
    type State;

    /// Whether every request and every reply fits into a datagram of its own.
    const FITS_DATAGRAMS: bool = false;

    /// Which request a reply answers.
    fn order(&self) -> ReplyOrder {
        ReplyOrder::Fifo
    }

    /// The state of a connection that was just made; `connection` is its number in the whole run.
    fn open(&self, connection: u32) -> Self::State;

    /// Appends what has to be said first. Whether requests may follow at once; if
    /// not, [`Decoded::Ready`] comes later.
    ///
    /// # Errors
    /// The connection cannot be used, for instance because a name is not valid.
    fn greet(&mut self, state: &mut Self::State, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let _ = (state, out);
        Ok(true)
    }

    /// Appends the bytes of a request.
    fn encode(&mut self, state: &mut Self::State, request: &Request, out: &mut Vec<u8>);

    /// Appends the bytes of several requests; the same as [`Protocol::encode`] for each of them.
    #[inline]
    fn encode_run(&mut self, state: &mut Self::State, run: &RequestRun, out: &mut Vec<u8>) {
        for request in run.each() {
            self.encode(state, &request, out);
        }
    }

    /// Takes bytes from the front until something is whole or none are left. What the
    /// protocol itself has to answer is appended to `out`.
    ///
    /// # Errors
    /// The bytes are not a reply; the connection is of no further use.
    fn decode(
        &mut self,
        state: &mut Self::State,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError>;

    /// Takes whole replies from the front, as many as there are that say nothing but which requests
    /// they answer. None is right at any time: what is left here is given to [`Protocol::decode`].
    #[inline]
    fn decode_run(&mut self, state: &mut Self::State, bytes: &mut &[u8]) -> ReplyRun {
        let _ = (state, bytes);
        ReplyRun::NONE
    }

    /// Nobody waits for the reply to this request any more. Called only where replies carry
    /// ids; what the peer is told about it is appended.
    fn abandon(&mut self, state: &mut Self::State, request_id: u64, out: &mut Vec<u8>) {
        let _ = (state, request_id, out);
    }

    /// Tells when the bytes of the next [`Protocol::decode`] calls were read.
    fn note_read(&mut self, state: &mut Self::State, read_at: Nanos) {
        let _ = (state, read_at);
    }

    /// When the first byte of the reply that [`Protocol::decode`] just gave was read, where
    /// replies interleave; `None` when it is the first byte that came after the reply before.
    fn first_byte_at(&self, state: &Self::State) -> Option<Nanos> {
        let _ = state;
        None
    }

    /// Whether the connection can carry no further request and owes no reply; asked after
    /// each read. It is then closed and made anew, as one whose end was announced.
    fn is_spent(&self, state: &Self::State) -> bool {
        let _ = state;
        false
    }

    /// Whether what is left on a spent connection was certainly not worked on by the peer, so
    /// that it may be sent again.
    fn has_served_all(&self, state: &Self::State) -> bool {
        self.is_spent(state)
    }

    /// Appends the ids of requests that the peer has not worked on and never will, each once;
    /// asked after [`Decoded::Closing`], and only where replies carry ids.
    fn take_unserved(&mut self, state: &mut Self::State, unserved: &mut Vec<u64>) {
        let _ = (state, unserved);
    }

    /// Whether [`Protocol::decode`] may have more to tell without more bytes, because what it
    /// took held several things at once; it is then called again, with no bytes if need be.
    fn holds_back(&self, state: &Self::State) -> bool {
        let _ = state;
        false
    }

    /// Requests of all connections that the peer did not admit at once, because it limits how
    /// many run at the same time; they were written later.
    fn held_back_count(&self) -> u64 {
        0
    }

    /// The reply that ends with the connection, asked when the peer has closed it.
    fn end(&mut self, state: &mut Self::State) -> Option<Reply> {
        let _ = state;
        None
    }
}

/// Bytes that are not a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They break the protocol; in what way.
    #[error("{0}")]
    Broken(Box<str>),
    /// They break the rpc format.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An echo that differs from what was sent.
    #[error("echo differs from the request at byte {offset}")]
    Echo {
        /// First byte that differs.
        offset: usize,
    },
}

/// Takes up to `count` bytes from the front.
#[inline]
fn take_front<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    front
}

/// The payload that requests carry: fixed, not all zero, so that a shifted echo differs.
fn payload_pattern(payload_bytes: usize) -> Vec<u8> {
    // 251 is prime, so the pattern does not repeat with the size of a page or buffer.
    (0u8..251).cycle().take(payload_bytes).collect()
}
