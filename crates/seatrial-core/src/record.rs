//! What is kept of each request: raw instants and an outcome.
//!
//! Durations are derived, never stored. The columns are allocated before the
//! load starts and never grow; what does not fit is counted.

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
    fn with_capacity(capacity: usize) -> Self {
        Self {
            values: Vec::with_capacity(capacity),
            known: Vec::with_capacity(capacity.div_ceil(8)),
        }
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
    capacity: usize,
    dropped_count: u64,
}

impl RecordColumns {
    /// Room for this many records, and never more.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            intended_at_ns: Vec::with_capacity(capacity),
            sent_at_ns: OptionalColumn::with_capacity(capacity),
            first_byte_at_ns: OptionalColumn::with_capacity(capacity),
            done_at_ns: OptionalColumn::with_capacity(capacity),
            outcome: Vec::with_capacity(capacity),
            connection: OptionalColumn::with_capacity(capacity),
            request_id: Vec::with_capacity(capacity),
            demand_ns: Vec::with_capacity(capacity),
            server_service_ns: OptionalColumn::with_capacity(capacity),
            kernel_sent_at_ns: OptionalColumn::with_capacity(capacity),
            kernel_received_at_ns: OptionalColumn::with_capacity(capacity),
            phase: Vec::with_capacity(capacity),
            capacity,
            dropped_count: 0,
        }
    }

    /// Keeps a record, or counts it when there is no room left.
    pub fn push(&mut self, record: &RequestRecord) {
        if self.len() >= self.capacity {
            self.dropped_count += 1;
            return;
        }
        self.intended_at_ns.push(record.intended_at.as_i64());
        self.sent_at_ns.push(record.sent_at.map(Nanos::as_i64));
        self.first_byte_at_ns
            .push(record.first_byte_at.map(Nanos::as_i64));
        self.done_at_ns.push(record.done_at.map(Nanos::as_i64));
        self.outcome.push(record.outcome as u8);
        self.connection.push(record.connection);
        self.request_id.push(record.request_id);
        self.demand_ns.push(record.demand.as_i64());
        self.server_service_ns
            .push(record.server_service.map(Nanos::as_i64));
        self.kernel_sent_at_ns
            .push(record.kernel.sent_at.map(Nanos::as_i64));
        self.kernel_received_at_ns
            .push(record.kernel.received_at.map(Nanos::as_i64));
        self.phase.push(record.phase as u8);
    }

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

    /// Records that did not fit.
    #[must_use]
    pub const fn dropped_count(&self) -> u64 {
        self.dropped_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(request_id: u64, sent_at: Option<Nanos>) -> RequestRecord {
        RequestRecord {
            intended_at: Nanos::new(10),
            sent_at,
            first_byte_at: None,
            done_at: None,
            outcome: Outcome::Timeout,
            connection: Some(3),
            request_id,
            demand: Nanos::ZERO,
            server_service: None,
            kernel: KernelStamps::default(),
            phase: Phase::Measure,
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut columns = RecordColumns::with_capacity(2);
        for request_id in 0..5 {
            columns.push(&record(request_id, None));
        }
        assert_eq!((columns.len(), columns.dropped_count()), (2, 3));
        assert_eq!(columns.request_id, [0, 1]);
    }

    #[test]
    fn unknown_instants_are_not_zero_but_unknown() {
        let mut columns = RecordColumns::with_capacity(20);
        for request_id in 0..20 {
            let sent_at = (request_id % 3 == 0).then_some(Nanos::new(request_id));
            columns.push(&record(request_id, sent_at));
        }
        for index in 0..20 {
            assert_eq!(
                columns.sent_at_ns.is_known(index),
                index % 3 == 0,
                "{index}"
            );
        }
        assert_eq!(columns.sent_at_ns.values[9], 9);
        assert!(!columns.sent_at_ns.is_known(21));
    }
}
