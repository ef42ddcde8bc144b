//! What the threads found out together.

use crate::engine::counters::Counters;
use crate::engine::failures::{Failure, Failures};
use crate::engine::ledger::MemberResult;
use crate::engine::placement::Sightings;
use crate::engine::plan::LoadPlan;
use crate::engine::timeline::{Interval, Timeline};
use crate::histogram::Histogram;
use crate::pacer::WaitMode;
use crate::record::RecordColumns;
use crate::sys::ThreadUsage;
use crate::transport::stamps::StampReport;
use crate::transport::{Traffic, TransportReport};
use crate::units::Nanos;

/// What a load found out. Histograms are of the measure phase, counters of all phases.
#[derive(Debug)]
pub struct LoadResult {
    /// One block of records a thread, by intended instant; all phases.
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
    /// From intended to the instant at which a place was free, of requests that found none.
    pub queue: Histogram,
    /// From the first step to the greeting's end, of all connections that were made.
    pub connect: Histogram,
    /// How the requests of all phases ended.
    pub counters: Counters,
    /// How the requests of the measure phase ended.
    pub measured: Counters,
    /// Why requests of all phases failed, the most frequent reason first.
    pub failures: Vec<Failure>,
    /// Requests of all phases that had to wait for a free place, and got one.
    pub queued_count: u64,
    /// Replies that came when their request had ended already.
    pub late_reply_count: u64,
    /// How often a request was sent again on another connection, because the peer of the first one
    /// had ended it and told that it did nothing about the request.
    pub resent_count: u64,
    /// Bytes moved from the first connection on, protocol chatter included.
    pub traffic: Traffic,
    /// What the transport noticed beyond the fate of each request.
    pub transport: TransportReport,
    /// From the kernel giving a request to the device until it got the reply, where both were stamped.
    pub wire: Histogram,
    /// From the kernel getting a reply until it was read, for the same requests.
    pub wake: Histogram,
    /// What became of the time stamps.
    pub stamps: StampReport,
    /// Correct replies that came in the measure phase, whenever their request was due.
    pub achieved_count: u64,
    /// Of how many requests of a thread one record was kept; `None` when none was asked for.
    pub records_stride: Option<u64>,
    /// What happened when, all phases.
    pub intervals: Vec<Interval>,
    /// How the requests of the measure phase fared with each of several targets, in the order of
    /// the plan; empty when there is only one.
    pub targets: Vec<TargetResult>,
    /// The common start of all threads.
    pub started_at: Nanos,
    /// Begin of the measure phase.
    pub measure_start: Nanos,
    /// End of the measure phase: as planned, or when the run stopped offering before.
    pub measure_end: Nanos,
    /// Until when `achieved_count` counts: the end of the measure phase; where the requests ran
    /// out before it, the last correct reply.
    pub counted_until: Nanos,
    /// When the last thread had its last reply, or gave up.
    pub ended_at: Nanos,
    /// CPU time and context switches of all threads of the engine.
    pub usage: ThreadUsage,
    /// How threads waited.
    pub wait: WaitMode,
    /// How long before an instant the hybrid wait began to spin: the longest of all threads.
    pub guard: Option<Nanos>,
    /// CPUs on which threads were seen.
    pub cpus_seen: Sightings,
    /// Whether it was told to stop.
    pub was_interrupted: bool,
    /// Whether it was told to finish before its time.
    pub was_finished_early: bool,
}

/// How the requests to one target fared in the measure phase.
///
/// A request that was never sent belongs to no target, because it had no connection.
#[derive(Clone, Debug)]
pub struct TargetResult {
    /// The target as it was written.
    pub target: String,
    /// How its requests ended.
    pub counters: Counters,
    /// Its correct replies that came in the measure phase, whenever their request was due.
    pub achieved_count: u64,
    /// From intended to done, of its correct replies.
    pub response: Histogram,
}

/// Empty results of the targets that are told apart.
fn targets_of(plan: &LoadPlan) -> Vec<TargetResult> {
    let blank = |target: &String| TargetResult {
        target: target.clone(),
        counters: Counters::default(),
        achieved_count: 0,
        response: Histogram::new(),
    };
    let texts = plan.targets_text.iter().map(blank);
    texts.take(plan.told_targets()).collect()
}

impl LoadResult {
    /// Puts the results of the threads together; `None` when there are none.
    pub(super) fn merge(members: Vec<MemberResult>, plan: &LoadPlan) -> Option<Self> {
        let first = members.first()?;
        let mut failures = Failures::default();
        let mut total = Self {
            records: Vec::with_capacity(members.len()),
            response: Histogram::new(),
            service: Histogram::new(),
            send_lag: Histogram::new(),
            pacing_lag: Histogram::new(),
            queue: Histogram::new(),
            connect: Histogram::new(),
            counters: Counters::default(),
            measured: Counters::default(),
            failures: Vec::new(),
            queued_count: 0,
            late_reply_count: 0,
            resent_count: 0,
            traffic: Traffic::default(),
            transport: TransportReport::default(),
            wire: Histogram::new(),
            wake: Histogram::new(),
            stamps: StampReport::without(plan.stamping.source),
            achieved_count: 0,
            records_stride: None,
            intervals: Vec::new(),
            targets: targets_of(plan),
            started_at: first.started_at,
            measure_start: first.measure_start,
            measure_end: first.measure_start,
            counted_until: first.measure_start,
            ended_at: first.started_at,
            usage: ThreadUsage::default(),
            wait: plan.wait,
            guard: None,
            cpus_seen: Sightings::default(),
            was_interrupted: false,
            was_finished_early: false,
        };
        let strides = members.iter().map(|member| member.ledger.records.stride());
        let stride = strides.max().unwrap_or(1);
        total.records_stride = (plan.records_max > 0).then_some(stride);
        let mut timeline = Timeline::new(total.measure_start, plan.interval);
        for mut member in members {
            failures.add(&member.ledger.failures);
            timeline.merge(member.ledger.timeline.take());
            total.add(member, stride);
        }
        total.failures = failures.into_sorted();
        if let Some(stamps) = &total.transport.stamps {
            total.stamps = stamps.clone();
        }
        total.intervals = timeline.into_intervals(total.started_at, total.ended_at);
        Some(total)
    }

    fn add(&mut self, member: MemberResult, stride: u64) {
        let ledger = member.ledger;
        self.response.merge(&ledger.response);
        self.service.merge(&ledger.service);
        ledger.lags.add_send_to(&mut self.send_lag);
        ledger.lags.add_pacing_to(&mut self.pacing_lag);
        self.queue.merge(&ledger.queue);
        self.connect.merge(&member.connect);
        self.wire.merge(&ledger.wire);
        self.wake.merge(&ledger.wake);
        self.counters.add(&ledger.counters.all());
        self.measured.add(&ledger.counters.measured);
        self.queued_count += ledger.queued_count;
        self.late_reply_count += ledger.late_reply_count;
        self.resent_count += ledger.resent_count;
        self.traffic.add(&member.traffic);
        self.transport.add(member.transport);
        self.achieved_count += ledger.achieved_count;
        self.records.push(ledger.records.into_columns(stride));
        for (target, found) in self.targets.iter_mut().zip(ledger.targets) {
            if let Some(found) = found {
                target.counters.add(&found.counters);
                target.achieved_count += found.achieved_count;
                target.response.merge(&found.response);
            }
        }
        self.measure_end = self.measure_end.max(member.measure_end);
        self.counted_until = self.counted_until.max(member.counted_until);
        self.ended_at = self.ended_at.max(member.ended_at);
        self.usage.add(&member.usage);
        self.guard = self.guard.max(member.guard);
        self.cpus_seen.add(&member.sightings);
        self.was_interrupted |= member.was_interrupted;
        self.was_finished_early |= member.was_finished_early;
    }
}
