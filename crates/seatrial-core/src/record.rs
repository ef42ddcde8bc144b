//! What is kept of a request: raw instants and an outcome.
//!
//! Durations are derived, never stored. During the load records go into a bounded
//! [`RecordSample`], which becomes columns when the load is over.

mod sample;

pub use sample::RecordSample;

use crate::transport::stamps::KernelStamps;
use crate::units::Nanos;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// A whole, correct reply.
    Ok = 0,
    /// Sent, but no whole reply by its deadline or by the end of the drain phase.
    Timeout = 1,
    /// Not sent: the target turned every connection away.
    Refused = 2,
    /// The connection was closed while the request was on it.
    Reset = 3,
    /// The bytes that came back were not a reply to it.
    ProtocolError = 4,
    /// A whole reply in which the server reports a failure.
    ApplicationError = 5,
    /// Never sent: no connection was free by its deadline or by the end of the drain phase.
    Unsent = 6,
}

/// The part of the trial in which a request was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Thrown away by the analysis.
    WarmUp = 0,
    /// What the estimates are made of.
    Measure = 1,
    /// Waiting for stragglers. The engine offers nothing in it, so no request of its own has it.
    Drain = 2,
    /// Offered so that the end of the measure phase is under load, too, and not counted.
    CoolDown = 3,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// When it should have been sent.
    pub intended_at: Nanos,
    /// When it was handed to the connection.
    pub sent_at: Option<Nanos>,
    /// When the first byte of its reply was read.
    pub first_byte_at: Option<Nanos>,
    /// When the whole reply was read.
    pub done_at: Option<Nanos>,
    /// How it ended.
    pub outcome: Outcome,
    /// The connection it was sent on.
    pub connection: Option<u32>,
    /// Unique in the run.
    pub request_id: u64,
    /// The work that it asked for.
    pub demand: Nanos,
    /// The server's own time for it, when the protocol tells.
    pub server_service: Option<Nanos>,
    /// What the kernel knows about it, if it was asked.
    pub kernel: KernelStamps,
    /// When it was due.
    pub phase: Phase,
}

/// A column whose values may be unknown: values, and one bit each that says whether it is known.
#[derive(Clone, Debug, Default)]
pub struct OptionalColumn<T> {
    /// The values; the default value where it is not known.
    pub values: Vec<T>,
    /// Bit `i mod 8` of byte `i / 8` is set when value `i` is known (the order that Arrow uses).
    pub known: Vec<u8>,
}

impl<T: Default> OptionalColumn<T> {
    fn of(values: impl ExactSizeIterator<Item = Option<T>>) -> Self {
        let mut column = Self {
            values: Vec::with_capacity(values.len()),
            known: Vec::with_capacity(values.len().div_ceil(8)),
        };
        for value in values {
            column.push(value);
        }
        column
    }

    fn push(&mut self, value: Option<T>) {
        let bit = self.values.len() % 8;
        if bit == 0 {
            self.known.push(0);
        }
        if let (Some(last), true) = (self.known.last_mut(), value.is_some()) {
            *last |= 1 << bit;
        }
        self.values.push(value.unwrap_or_default());
    }

    /// Whether value `index` is known; false beyond the end.
    #[must_use]
    pub fn is_known(&self, index: usize) -> bool {
        self.known
            .get(index / 8)
            .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }
}

/// The records of one thread, one vector a column; instants in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct RecordColumns {
    /// When each request should have been sent.
    pub intended_at_ns: Vec<i64>,
    /// When it was handed to its connection.
    pub sent_at_ns: OptionalColumn<i64>,
    /// When the first byte of the reply was read.
    pub first_byte_at_ns: OptionalColumn<i64>,
    /// When the whole reply was read.
    pub done_at_ns: OptionalColumn<i64>,
    /// [`Outcome`] as a number.
    pub outcome: Vec<u8>,
    /// The connection, from 0.
    pub connection: OptionalColumn<u32>,
    /// Unique in the run.
    pub request_id: Vec<u64>,
    /// The work asked for.
    pub demand_ns: Vec<i64>,
    /// The server's own time.
    pub server_service_ns: OptionalColumn<i64>,
    /// When the kernel gave the request to the device.
    pub kernel_sent_at_ns: OptionalColumn<i64>,
    /// When the kernel got the reply from the device.
    pub kernel_received_at_ns: OptionalColumn<i64>,
    /// [`Phase`] as a number.
    pub phase: Vec<u8>,
}

impl RecordColumns {
    /// Records that were kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.intended_at_ns.len()
    }

    /// Whether none was kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.intended_at_ns.is_empty()
    }
}
