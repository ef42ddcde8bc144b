//! What one thread notes about its requests.

use crate::arrival::Share;
use crate::engine::counters::{Counters, PhaseCounters};
use crate::engine::failures::Failures;
use crate::engine::flights::{Flight, Sending};
use crate::engine::placement::Sightings;
use crate::engine::timeline::{OpenInterval, Timeline};
use crate::engine::watch::Slot;
use crate::histogram::Histogram;
use crate::record::{Outcome, Phase, RecordSample, RequestRecord};
use crate::sys::ThreadUsage;
use crate::transport::stamps::KernelStamps;
use crate::transport::{Traffic, TransportReport};
use crate::units::Nanos;

/// Answers that are noted before they go into histograms.
const ANSWERS_MAX: usize = 64;

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
    pub lags: Lags,
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
    /// Correct replies of the interval that is going on which are not in its histograms yet,
    /// and how many there were that differ in nothing.
    answers: Vec<(Answer, u64)>,
    traffic: Traffic,
}

impl Ledger {
    pub fn new(layout: LedgerLayout) -> Self {
        let timeline = Timeline::new(layout.measure_start, layout.interval);
        Self {
            records: RecordSample::new(layout.records_max, layout.share),
            response: Histogram::new(),
            service: Histogram::new(),
            lags: Lags::default(),
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
            answers: Vec::with_capacity(ANSWERS_MAX),
            traffic: Traffic::default(),
        }
    }

    /// When the interval ends that is going on.
    #[inline]
    pub fn interval_end(&self) -> Nanos {
        self.open.end
    }

    /// Ends the interval that is going on, and goes on with the one in which `now` is.
    pub fn close_interval(&mut self, now: Nanos, traffic: Traffic, slot: Option<&Slot>) {
        self.settle();
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

    /// Notes that so many requests were due.
    #[inline]
    pub fn note_due(&mut self, intended_at: Nanos, count: u32, slot: Option<&Slot>) {
        let count = u64::from(count);
        if intended_at >= self.open.start {
            self.open.cell.intended_count += count;
            return;
        }
        self.timeline.cell_at(intended_at).intended_count += count;
        if let Some(slot) = slot {
            slot.tell_due(intended_at, count);
        }
    }

    /// Notes so many requests that were put on a connection whose places became free at `slot_free_at`.
    #[inline]
    pub fn note_place(
        &mut self,
        phase: Phase,
        count: u32,
        (intended_at, slot_free_at): (Nanos, Nanos),
    ) {
        if slot_free_at <= intended_at {
            return;
        }
        let count = u64::from(count);
        self.queued_count += count;
        if phase == Phase::Measure {
            let wait = intended_at.until(slot_free_at);
            self.queue.record_many(wait, count);
        }
    }

    /// Notes that this many requests were sent.
    #[inline]
    pub fn note_sent(&mut self, count: u64) {
        self.open.cell.sent_count += count;
    }

    /// Counts so many requests that were answered correctly; their records are kept apart, if at all.
    ///
    /// What is the same of all replies of one read to requests of one send is noted once,
    /// with their number, and histograms are filled many answers at a time, because both
    /// cost much more than noting does.
    #[inline]
    pub fn count_ok(&mut self, answer: Answer, count: u32) {
        match self.answers.last_mut() {
            Some((last, before)) if *last == answer => *before += u64::from(count),
            _ => {
                if self.answers.len() == ANSWERS_MAX {
                    self.settle();
                }
                self.answers.push((answer, count.into()));
            }
        }
    }

    /// Fills the histograms of the interval that is going on with what was noted in it.
    fn settle(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        for (answer, count) in answers.drain(..) {
            self.settle_one(&answer, count);
        }
        self.answers = answers;
    }

    fn settle_one(&mut self, answer: &Answer, count: u64) {
        self.open.cell.ok_count += count;
        self.counters.count_ok(answer.phase, count);
        let response = answer.sending.intended_at.until(answer.done_at);
        if answer.phase != Phase::Measure {
            self.open.others.record_many(response, count);
            return;
        }
        self.open.measured.record_many(response, count);
        let service = answer.sending.sent_at.until(answer.done_at);
        self.service.record_many(service, count);
        self.lags.note(&answer.sending, count);
        if let Some(target) = self.target_of(Some(answer.connection)) {
            target.counters.count_ok(count);
            target.response.record_many(response, count);
        }
    }

    /// Counts correct replies that came in the measure phase, whenever their requests were due.
    #[inline]
    pub fn note_achieved(&mut self, connection: u32, done_at: Nanos, count: u32) {
        let count = u64::from(count);
        self.achieved_count += count;
        self.achieved_at = Some(done_at);
        if let Some(target) = self.target_of(Some(connection)) {
            target.achieved_count += count;
        }
    }

    /// Notes what the kernel knows about a correct reply.
    pub fn note_kernel(&mut self, phase: Phase, done_at: Nanos, kernel: &KernelStamps) {
        let (Some(wire), Some(received_at)) = (kernel.wire, kernel.received_at) else {
            return;
        };
        if phase == Phase::Measure {
            self.wire.record(wire);
            self.wake.record(received_at.until(done_at));
        }
    }

    /// Notes how late a request was sent that was not answered correctly.
    pub fn note_lag(&mut self, flight: &Flight) {
        if let (Phase::Measure, Some(sending)) = (flight.phase, flight.sending()) {
            self.lags.note(&sending, 1);
        }
    }

    /// Notes that a request goes on another connection; `before` is how it was on the one it leaves.
    pub fn note_resent(&mut self, before: &Flight) {
        self.resent_count += 1;
        if let (Phase::Measure, Some(sending)) = (before.phase, before.sending()) {
            self.lags.note_left(&sending);
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
        if let Some(target) = self.target_of(record.connection) {
            target.counters.count(record.outcome, is_sent);
        }
    }

    /// The target of this connection of the run, when targets are told apart.
    #[inline]
    fn target_of(&mut self, connection: Option<u32>) -> Option<&mut TargetLedger> {
        if self.targets.is_empty() {
            return None;
        }
        let number = connection? as usize % self.targets.len();
        Some(self.targets[number].get_or_insert_default())
    }
}

/// What is counted of every correct reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub sending: Sending,
    pub done_at: Nanos,
    pub phase: Phase,
    /// Its number in the whole run.
    pub connection: u32,
}

/// How late requests of the measure phase were sent: after they were due, and after they
/// could have been sent.
///
/// For a request that found a free place both are the same, and so it is recorded once. One that
/// was sent again counts as due until the last sending, and as held up by us until the first.
#[derive(Debug, Default)]
pub(super) struct Lags {
    prompt: Histogram,
    /// After they were due, of those that had to wait for a place or were sent again.
    queued: Histogram,
    /// After their place was free, of the same.
    placed: Histogram,
}

impl Lags {
    #[inline]
    fn note(&mut self, sending: &Sending, count: u64) {
        let lag = sending.intended_at.until(sending.sent_at);
        if sending.is_resent {
            self.queued.record_many(lag, count);
        } else if sending.slot_free_at <= sending.intended_at {
            self.prompt.record_many(lag, count);
        } else {
            self.queued.record_many(lag, count);
            let placed = sending.slot_free_at.until(sending.sent_at);
            self.placed.record_many(placed, count);
        }
    }

    /// Notes a sending that is not the last one of its request.
    fn note_left(&mut self, sending: &Sending) {
        if !sending.is_resent {
            let possible_at = sending.intended_at.max(sending.slot_free_at);
            self.placed.record(possible_at.until(sending.sent_at));
        }
    }

    /// Adds how long after they were due requests were sent.
    pub fn add_send_to(&self, total: &mut Histogram) {
        total.merge(&self.prompt);
        total.merge(&self.queued);
    }

    /// Adds how long after they could have been sent they were, by the engine's own fault.
    pub fn add_pacing_to(&self, total: &mut Histogram) {
        total.merge(&self.prompt);
        total.merge(&self.placed);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sending(due: u64, free: u64, sent: u64, is_resent: bool) -> Sending {
        Sending {
            intended_at: Nanos::new(due),
            slot_free_at: Nanos::new(free),
            sent_at: Nanos::new(sent),
            is_resent,
        }
    }

    #[test]
    fn lags_count_from_when_it_was_due_and_from_when_it_was_possible() {
        let mut lags = Lags::default();
        // (due, place free, sent): found a place, waited for one, stamped before it was due.
        for (due, free, sent) in [(100, 40, 130), (100, 160, 170), (200, 200, 190)] {
            lags.note(&sending(due, free, sent, false), 1);
        }
        // Sent, and twice again: how late it was at first is our fault, the rest is not.
        lags.note_left(&sending(100, 40, 105, false));
        lags.note_left(&sending(100, 300, 400, true));
        lags.note(&sending(100, 600, 700, true), 1);
        let (mut send, mut pacing) = (Histogram::new(), Histogram::new());
        lags.add_send_to(&mut send);
        lags.add_pacing_to(&mut pacing);
        let made_of = |values: [u64; 4]| {
            let mut histogram = Histogram::new();
            for value in values {
                histogram.record(Nanos::new(value));
            }
            histogram
        };
        assert_eq!(send, made_of([30, 70, 0, 600]));
        assert_eq!(pacing, made_of([30, 10, 0, 5]));
    }
}
