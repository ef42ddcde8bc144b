//! What one thread notes about its requests.

use crate::arrival::Share;
use crate::engine::counters::{Counters, PhaseCounters};
use crate::engine::failures::Failures;
use crate::engine::placement::Sightings;
use crate::engine::timeline::{OpenInterval, Timeline};
use crate::engine::watch::Slot;
use crate::histogram::Histogram;
use crate::record::{Outcome, Phase, RecordSample, RequestRecord};
use crate::sys::ThreadUsage;
use crate::transport::stamps::KernelStamps;
use crate::transport::{Traffic, TransportReport};
use crate::units::Nanos;

/// How the requests to one of several targets fared in the measure phase.
#[derive(Clone, Debug, Default)]
pub(super) struct TargetLedger {
    pub counters: Counters,
    pub response: Histogram,
    pub achieved_count: u64,
}

/// How a ledger is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct LedgerLayout {
    pub records_max: usize,
    /// Which requests of the run are the thread's.
    pub share: Share,
    /// Targets that are told apart; 0 when there is only one.
    pub targets: usize,
    pub interval: Nanos,
    pub start: Nanos,
    pub measure_start: Nanos,
}

/// Records, histograms and counters of one thread.
#[derive(Debug)]
pub(super) struct Ledger {
    pub records: RecordSample,
    /// Response times of the intervals that have ended.
    pub response: Histogram,
    pub service: Histogram,
    pub send_lag: Histogram,
    pub queue: Histogram,
    pub wire: Histogram,
    pub wake: Histogram,
    pub counters: PhaseCounters,
    pub failures: Failures,
    pub queued_count: u64,
    pub late_reply_count: u64,
    /// Sendings on another connection of requests that a peer had left alone.
    pub resent_count: u64,
    /// Correct replies that came in the measure phase, whenever their request was due.
    pub achieved_count: u64,
    /// When the last one of them came.
    pub achieved_at: Option<Nanos>,
    /// Connection `i` of the run belongs to target `i mod n`; empty when there is only one.
    pub targets: Vec<Option<Box<TargetLedger>>>,
    pub timeline: Timeline,
    open: OpenInterval,
    traffic: Traffic,
}

impl Ledger {
    pub fn new(layout: LedgerLayout) -> Self {
        let timeline = Timeline::new(layout.measure_start, layout.interval);
        Self {
            records: RecordSample::new(layout.records_max, layout.share),
            response: Histogram::new(),
            service: Histogram::new(),
            send_lag: Histogram::new(),
            queue: Histogram::new(),
            wire: Histogram::new(),
            wake: Histogram::new(),
            counters: PhaseCounters::default(),
            failures: Failures::default(),
            queued_count: 0,
            late_reply_count: 0,
            resent_count: 0,
            achieved_count: 0,
            achieved_at: None,
            targets: std::iter::repeat_with(|| None)
                .take(layout.targets)
                .collect(),
            open: OpenInterval::new(&timeline, layout.start),
            timeline,
            traffic: Traffic::default(),
        }
    }

    /// When the interval ends that is going on.
    pub fn interval_end(&self) -> Nanos {
        self.open.end
    }

    /// Ends the interval that is going on, and goes on with the one in which `now` is.
    pub fn close_interval(&mut self, now: Nanos, traffic: Traffic, slot: Option<&Slot>) {
        let end = self.open.end;
        let (start, mut cell) = self.open.close();
        cell.sent_bytes = traffic.sent_bytes - self.traffic.sent_bytes;
        cell.received_bytes = traffic.received_bytes - self.traffic.received_bytes;
        self.traffic = traffic;
        self.response.merge_sparse(&cell.measured);
        if let Some(slot) = slot {
            slot.tell(start, end, &cell, &self.counters.measured);
        }
        self.timeline.add(start, &cell);
        self.open.reopen(&self.timeline, now);
    }

    /// What was moved before the start belongs to no interval.
    pub fn note_traffic_before(&mut self, traffic: Traffic) {
        self.traffic = traffic;
    }

    /// Notes that a request was due.
    pub fn note_due(&mut self, intended_at: Nanos, slot: Option<&Slot>) {
        if intended_at >= self.open.start {
            self.open.cell.intended_count += 1;
            return;
        }
        self.timeline.cell_at(intended_at).intended_count += 1;
        if let Some(slot) = slot {
            slot.tell_due(intended_at);
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

    /// Notes that a request was sent.
    pub fn note_sent(&mut self) {
        self.open.cell.sent_count += 1;
    }

    /// Counts a correct reply that came in the measure phase, whenever its request was due.
    pub fn note_achieved(&mut self, record: &RequestRecord, done_at: Nanos) {
        self.achieved_count += 1;
        self.achieved_at = Some(done_at);
        if let Some(target) = self.target_of(record) {
            target.achieved_count += 1;
        }
    }

    /// Keeps a request that was answered correctly.
    pub fn keep_ok(&mut self, record: &RequestRecord) {
        self.keep(record);
        self.open.cell.ok_count += 1;
        let (Some(sent_at), Some(done_at)) = (record.sent_at, record.done_at) else {
            return;
        };
        let response = record.intended_at.until(done_at);
        if record.phase == Phase::Measure {
            self.open.measured.record(response);
            self.service.record(sent_at.until(done_at));
            if let (Some(wire), Some(received_at)) = (record.kernel.wire, record.kernel.received_at)
            {
                self.wire.record(wire);
                self.wake.record(received_at.until(done_at));
            }
            if let Some(target) = self.target_of(record) {
                target.response.record(response);
            }
        } else {
            self.open.others.record(response);
        }
    }

    /// Keeps a request that failed, and why.
    pub fn keep_failed(&mut self, record: &RequestRecord, text: &str) {
        self.failures.count(record.outcome, text, 1);
        self.open.cell.failed_count += 1;
        self.keep(record);
    }

    fn keep(&mut self, record: &RequestRecord) {
        self.records.push(record);
        let is_sent = record.sent_at.is_some();
        self.counters.count(record.phase, record.outcome, is_sent);
        if record.phase != Phase::Measure {
            return;
        }
        if let Some(sent_at) = record.sent_at {
            self.send_lag.record(record.intended_at.until(sent_at));
        }
        if let Some(target) = self.target_of(record) {
            target.counters.count(record.outcome, is_sent);
        }
    }

    /// The target that the request went to, when targets are told apart.
    fn target_of(&mut self, record: &RequestRecord) -> Option<&mut TargetLedger> {
        if self.targets.is_empty() {
            return None;
        }
        let number = record.connection? as usize % self.targets.len();
        Some(self.targets[number].get_or_insert_default())
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
    pub connect: Histogram,
    pub usage: ThreadUsage,
    pub guard: Option<Nanos>,
    pub sightings: Sightings,
    pub traffic: Traffic,
    pub transport: TransportReport,
    pub started_at: Nanos,
    pub measure_start: Nanos,
    /// End of the measure phase: as planned, or when the offer ended before.
    pub measure_end: Nanos,
    /// Until when replies count as achieved.
    pub counted_until: Nanos,
    pub ended_at: Nanos,
    pub was_interrupted: bool,
    pub was_finished_early: bool,
}
