//! What a protocol is to the server: bytes in, bytes out, no sockets.
//!
//! A [`Service`] is what one connection remembers. The connection reads, sends,
//! waits and bounds; the service only looks at the bytes that have come and
//! appends the bytes that answer them. A new protocol is one implementation and
//! one line in [`super::Protocol`].

use super::stats::Stats;
use super::work::Memory;
use crate::spin::Spinner;
use crate::sys;

/// A service asks for a flush when its output has become longer than this, so
/// that what one peer makes the server hold is bounded by this and one reply.
pub const OUTPUT_BYTES_SOFT: usize = 64 << 10;

/// What the server does next, as far as one connection is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Everything whole was served; more bytes have to come.
    Read {
        /// Bytes that the unfinished request has in all, 0 where it does not tell yet.
        whole_bytes: usize,
        /// By when ([`Tools::read_ns`] and later) its rest has to have come; `None` for
        /// whenever the peer likes.
        until_ns: Option<u64>,
    },
    /// The output goes out before the rest of the input is served: a request that
    /// takes time comes next or was just served, or the output is long. The next
    /// call finds an empty output; when it comes depends on the peer reading.
    Flush,
    /// The input goes back as it is (and the output is empty): an echo without a copy.
    Mirror,
    /// The output goes out, then the connection ends; nothing more is served.
    Close,
}

impl Next {
    /// More bytes have to come, and nothing is known about them.
    pub const READ: Self = Self::Read {
        whole_bytes: 0,
        until_ns: None,
    };
}

/// What a service did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that it is done with; the others come again, with more behind them.
    pub used_bytes: usize,
    /// How to go on.
    pub next: Next,
}

/// Why a request that has begun will not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All connections together hold too much for it.
    Memory,
    /// Its rest did not come by the instant that the service named.
    Late,
}

/// One connection's side of a protocol.
///
/// Nothing here may block except the work that a request asks for ([`Tools::perform`]).
pub trait Service: std::fmt::Debug + Send {
    /// Serves whole requests from the front of `input` and appends their replies.
    ///
    /// `input` begins with what the last call did not use. A call that gives
    /// [`Next::Flush`] has used bytes or appended output, so that every loop ends.
    fn serve(&mut self, input: &[u8], output: &mut Vec<u8>, tools: &mut Tools) -> Step;

    /// Appends the reply that tells the peer why its unfinished request is not
    /// served, if the protocol has one; the connection ends after it.
    fn refuse(&mut self, input: &[u8], why: Refusal, output: &mut Vec<u8>);

    /// Whether a datagram is exactly one request. Protocols that need a connection say no.
    fn is_one_request(&self, _datagram: &[u8]) -> bool {
        false
    }

    /// Bytes that this service itself holds, for the common budget.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Whether requests are timed; without it, no clock is read for a connection.
    fn is_timed(&self) -> bool {
        true
    }
}

/// How long a request took, on the server's clock (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From the read that brought the last byte of the request to the begin of its service.
    pub queue_ns: u64,
    /// From that begin to the reply being ready.
    pub service_ns: u64,
}

/// What a worker lends to the services of its connections.
#[derive(Debug)]
pub struct Tools<'a> {
    /// How CPU time is burnt.
    pub spinner: Spinner,
    /// What the touch operation writes to.
    pub memory: &'a mut Memory,
    /// The worker's counters.
    pub stats: &'a Stats,
    /// Longest reply that fits, header included: bounded for datagrams.
    pub reply_bytes_max: usize,
    /// When the last bytes were read.
    read_ns: u64,
    /// When the worker began with the request that is served now.
    begin_ns: u64,
}

impl<'a> Tools<'a> {
    /// What a worker has to lend.
    pub const fn new(spinner: Spinner, memory: &'a mut Memory, stats: &'a Stats) -> Self {
        Self {
            spinner,
            memory,
            stats,
            reply_bytes_max: usize::MAX,
            read_ns: 0,
            begin_ns: 0,
        }
    }

    /// When the bytes that are served now were read.
    pub const fn read_ns(&self) -> u64 {
        self.read_ns
    }

    /// Bytes were just read.
    pub fn read_now(&mut self) {
        self.read_ns = sys::monotonic_ns();
        self.begin_ns = self.read_ns;
    }

    /// The worker did something else than serving since the last request, such as sending.
    pub fn resume_now(&mut self) {
        self.begin_ns = sys::monotonic_ns();
    }

    /// The request is served: counts it under the number of its operation, and
    /// begins with the one behind it. One reading of the clock ends the one and begins the other.
    pub fn finish(&mut self, operation: usize) -> Times {
        let now_ns = sys::monotonic_ns();
        let times = Times {
            queue_ns: self.begin_ns.saturating_sub(self.read_ns()),
            service_ns: now_ns.saturating_sub(self.begin_ns),
        };
        self.begin_ns = now_ns;
        self.stats.served(operation, times);
        times
    }
}
