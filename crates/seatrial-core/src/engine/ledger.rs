//! What one thread notes about its requests.

use crate::engine::counters::PhaseCounters;
use crate::engine::failures::Failures;
use crate::engine::placement::Sightings;
use crate::histogram::Histogram;
use crate::record::{Outcome, Phase, RecordColumns, RequestRecord};
use crate::sys::ThreadUsage;
use crate::transport::stamps::KernelStamps;
use crate::transport::{Traffic, TransportReport};
use crate::units::Nanos;

/// Records, histograms and counters of one thread.
#[derive(Debug)]
pub(super) struct Ledger {
    pub records: RecordColumns,
    pub response: Histogram,
    pub service: Histogram,
    pub send_lag: Histogram,
    pub queue: Histogram,
    pub connect: Histogram,
    pub wire: Histogram,
    pub wake: Histogram,
    pub counters: PhaseCounters,
    pub failures: Failures,
    pub queued_count: u64,
    pub late_reply_count: u64,
}

impl Ledger {
    pub fn new(records_max: usize) -> Self {
        Self {
            records: RecordColumns::with_capacity(records_max),
            response: Histogram::new(),
            service: Histogram::new(),
            send_lag: Histogram::new(),
            queue: Histogram::new(),
            connect: Histogram::new(),
            wire: Histogram::new(),
            wake: Histogram::new(),
            counters: PhaseCounters::default(),
            failures: Failures::default(),
            queued_count: 0,
            late_reply_count: 0,
        }
    }

    /// Notes a request that was put on a connection whose place became free at `slot_free_at`.
    pub fn note_place(&mut self, phase: Phase, intended_at: Nanos, slot_free_at: Nanos) {
        if slot_free_at <= intended_at {
            return;
        }
        self.queued_count += 1;
        if phase == Phase::Measure {
            self.queue.record(intended_at.until(slot_free_at));
        }
    }

    /// Keeps a request that was answered correctly.
    pub fn keep_ok(&mut self, record: &RequestRecord) {
        self.keep(record);
        if let (Phase::Measure, Some(sent_at), Some(done_at)) =
            (record.phase, record.sent_at, record.done_at)
        {
            self.response.record(record.intended_at.until(done_at));
            self.service.record(sent_at.until(done_at));
            if let (Some(wire), Some(received_at)) = (record.kernel.wire, record.kernel.received_at)
            {
                self.wire.record(wire);
                self.wake.record(received_at.until(done_at));
            }
        }
    }

    /// Keeps a request that failed, and why.
    pub fn keep_failed(&mut self, record: &RequestRecord, text: &str) {
        self.failures.count(record.outcome, text, 1);
        self.keep(record);
    }

    fn keep(&mut self, record: &RequestRecord) {
        self.records.push(record);
        let is_sent = record.sent_at.is_some();
        self.counters.count(record.phase, record.outcome, is_sent);
        if let (Phase::Measure, Some(sent_at)) = (record.phase, record.sent_at) {
            self.send_lag.record(record.intended_at.until(sent_at));
        }
    }
}

/// The record of a request of which nothing is known but its schedule.
pub(super) const fn blank(outcome: Outcome, phase: Phase) -> RequestRecord {
    RequestRecord {
        intended_at: Nanos::ZERO,
        sent_at: None,
        first_byte_at: None,
        done_at: None,
        outcome,
        connection: None,
        request_id: 0,
        demand: Nanos::ZERO,
        server_service: None,
        kernel: KernelStamps::NONE,
        phase,
    }
}

/// What one thread reports when it ends.
#[derive(Debug)]
pub(super) struct MemberResult {
    pub ledger: Ledger,
    pub pacing_lag: Histogram,
    pub usage: ThreadUsage,
    pub guard: Option<Nanos>,
    pub sightings: Sightings,
    pub traffic: Traffic,
    pub transport: TransportReport,
    pub started_at: Nanos,
    pub measure_start: Nanos,
    /// End of the measure phase: as planned, or when the offer ended before.
    pub measure_end: Nanos,
    pub ended_at: Nanos,
    pub was_interrupted: bool,
    pub was_finished_early: bool,
}
