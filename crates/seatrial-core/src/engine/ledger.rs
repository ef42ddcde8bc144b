//! What one thread, and then the whole run, found out.

use crate::histogram::Histogram;
use crate::record::{Outcome, Phase, RecordColumns, RequestRecord};
use crate::sys::CpuTime;
use crate::units::Nanos;

/// Requests of all phases, by how they ended.
///
/// `intended_count` is the sum of all outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Due, warm-up included.
    pub intended_count: u64,
    /// Handed to a connection.
    pub sent_count: u64,
    /// Answered correctly.
    pub ok_count: u64,
    /// Sent, but not answered in time.
    pub timeout_count: u64,
    /// Refused, reset, or answered with a failure.
    pub error_count: u64,
    /// Answered with bytes that are no reply.
    pub protocol_error_count: u64,
    /// Never sent, because no connection was free in time.
    pub unsent_count: u64,
}

impl Counters {
    fn count(&mut self, record: &RequestRecord) {
        self.intended_count += 1;
        self.sent_count += u64::from(record.sent_at.is_some());
        let counter = match record.outcome {
            Outcome::Ok => &mut self.ok_count,
            Outcome::Timeout => &mut self.timeout_count,
            Outcome::Refused | Outcome::Reset | Outcome::ApplicationError => &mut self.error_count,
            Outcome::ProtocolError => &mut self.protocol_error_count,
            Outcome::Unsent => &mut self.unsent_count,
        };
        *counter += 1;
    }

    fn add(&mut self, other: &Self) {
        self.intended_count += other.intended_count;
        self.sent_count += other.sent_count;
        self.ok_count += other.ok_count;
        self.timeout_count += other.timeout_count;
        self.error_count += other.error_count;
        self.protocol_error_count += other.protocol_error_count;
        self.unsent_count += other.unsent_count;
    }
}

/// Records, histograms and counters of one thread.
#[derive(Debug)]
pub(super) struct Ledger {
    records: RecordColumns,
    response: Histogram,
    service: Histogram,
    send_lag: Histogram,
    counters: Counters,
}

impl Ledger {
    pub fn new(records_max: usize) -> Self {
        Self {
            records: RecordColumns::with_capacity(records_max),
            response: Histogram::new(),
            service: Histogram::new(),
            send_lag: Histogram::new(),
            counters: Counters::default(),
        }
    }

    /// Keeps a request that has ended.
    pub fn keep(&mut self, record: &RequestRecord) {
        self.records.push(record);
        self.counters.count(record);
        if record.phase != Phase::Measure {
            return;
        }
        if let Some(sent_at) = record.sent_at {
            self.send_lag.record(record.intended_at.until(sent_at));
        }
        if let (Outcome::Ok, Some(sent_at), Some(done_at)) =
            (record.outcome, record.sent_at, record.done_at)
        {
            self.response.record(record.intended_at.until(done_at));
            self.service.record(sent_at.until(done_at));
        }
    }
}

/// What one thread reports when it ends.
#[derive(Debug)]
pub(super) struct MemberResult {
    pub ledger: Ledger,
    pub pacing_lag: Histogram,
    pub cpu: CpuTime,
    pub started_at: Nanos,
    /// Until when requests were offered: the end of the measure phase, or earlier.
    pub offered_until: Nanos,
    pub ended_at: Nanos,
    pub was_interrupted: bool,
}

/// What a load found out. Histograms are of the measure phase, counters of all phases.
#[derive(Debug)]
pub struct LoadResult {
    /// One block of records a thread, in order of their ends; warm-up included.
    pub records: Vec<RecordColumns>,
    /// From intended to done, of correct replies.
    pub response: Histogram,
    /// From sent to done, of correct replies.
    pub service: Histogram,
    /// From intended to sent, of all that was sent: waiting for a free connection included.
    pub send_lag: Histogram,
    /// From the instant at which it was due *and* a connection was free to
    /// sent: the lateness that is the engine's own fault.
    pub pacing_lag: Histogram,
    /// How the requests ended.
    pub counters: Counters,
    /// Records that did not fit.
    pub records_dropped_count: u64,
    /// The common start of all threads.
    pub started_at: Nanos,
    /// Begin of the measure phase.
    pub measure_start: Nanos,
    /// End of the measure phase: as planned, or when the run stopped offering before.
    pub measure_end: Nanos,
    /// When the last thread had its last reply, or gave up.
    pub ended_at: Nanos,
    /// CPU time of all threads of the engine.
    pub generator_cpu: CpuTime,
    /// Whether it was told to stop.
    pub was_interrupted: bool,
}

impl LoadResult {
    /// Puts the results of the threads together; `None` when there are none.
    pub(super) fn merge(members: Vec<MemberResult>, warm_up: Nanos) -> Option<Self> {
        let started_at = members.first()?.started_at;
        let measure_start = started_at.later_by(warm_up);
        let mut total = Self {
            records: Vec::with_capacity(members.len()),
            response: Histogram::new(),
            service: Histogram::new(),
            send_lag: Histogram::new(),
            pacing_lag: Histogram::new(),
            counters: Counters::default(),
            records_dropped_count: 0,
            started_at,
            measure_start,
            measure_end: measure_start,
            ended_at: started_at,
            generator_cpu: CpuTime::default(),
            was_interrupted: false,
        };
        for member in members {
            total.add(member);
        }
        Some(total)
    }

    fn add(&mut self, member: MemberResult) {
        let ledger = member.ledger;
        self.response.merge(&ledger.response);
        self.service.merge(&ledger.service);
        self.send_lag.merge(&ledger.send_lag);
        self.pacing_lag.merge(&member.pacing_lag);
        self.counters.add(&ledger.counters);
        self.records_dropped_count += ledger.records.dropped_count();
        self.records.push(ledger.records);
        self.measure_end = self.measure_end.max(member.offered_until);
        self.ended_at = self.ended_at.max(member.ended_at);
        self.generator_cpu.user = self.generator_cpu.user.later_by(member.cpu.user);
        self.generator_cpu.system = self.generator_cpu.system.later_by(member.cpu.system);
        self.was_interrupted |= member.was_interrupted;
    }
}
