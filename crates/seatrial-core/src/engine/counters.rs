//! How many requests ended how.

use crate::record::{Outcome, Phase};

/// Requests by how they ended; `intended_count` is the sum of all outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Due.
    pub intended_count: u64,
    /// Handed to a connection.
    pub sent_count: u64,
    /// Answered correctly.
    pub ok_count: u64,
    /// Sent, but not answered in time.
    pub timeout_count: u64,
    /// Not sent: the target turned every connection away.
    pub refused_count: u64,
    /// The connection was closed while they were on it.
    pub reset_count: u64,
    /// Answered with bytes that are no reply.
    pub protocol_error_count: u64,
    /// Answered with a failure.
    pub application_error_count: u64,
    /// Never sent, because no connection was free in time.
    pub unsent_count: u64,
}

impl Counters {
    /// Refused, reset, or answered with a failure.
    #[must_use]
    pub const fn error_count(&self) -> u64 {
        self.refused_count + self.reset_count + self.application_error_count
    }

    /// All that got no correct reply.
    #[must_use]
    pub const fn failed_count(&self) -> u64 {
        self.intended_count - self.ok_count
    }

    /// Counts one request.
    pub(super) fn count(&mut self, outcome: Outcome, is_sent: bool) {
        self.intended_count += 1;
        self.sent_count += u64::from(is_sent);
        *self.of(outcome) += 1;
    }

    /// Counts requests with correct replies.
    pub(super) const fn count_ok(&mut self, count: u64) {
        self.intended_count += count;
        self.sent_count += count;
        self.ok_count += count;
    }

    fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Ok => &mut self.ok_count,
            Outcome::Timeout => &mut self.timeout_count,
            Outcome::Refused => &mut self.refused_count,
            Outcome::Reset => &mut self.reset_count,
            Outcome::ProtocolError => &mut self.protocol_error_count,
            Outcome::ApplicationError => &mut self.application_error_count,
            Outcome::Unsent => &mut self.unsent_count,
        }
    }

    /// Adds what was counted elsewhere.
    pub(super) fn add(&mut self, other: &Self) {
        self.intended_count += other.intended_count;
        self.sent_count += other.sent_count;
        self.ok_count += other.ok_count;
        self.timeout_count += other.timeout_count;
        self.refused_count += other.refused_count;
        self.reset_count += other.reset_count;
        self.protocol_error_count += other.protocol_error_count;
        self.application_error_count += other.application_error_count;
        self.unsent_count += other.unsent_count;
    }
}

/// Counters apart for the measure phase and for all others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PhaseCounters {
    pub measured: Counters,
    pub others: Counters,
}

impl PhaseCounters {
    pub fn count(&mut self, phase: Phase, outcome: Outcome, is_sent: bool) {
        self.of(phase).count(outcome, is_sent);
    }

    /// Counts correct replies.
    pub fn count_ok(&mut self, phase: Phase, count: u64) {
        self.of(phase).count_ok(count);
    }

    fn of(&mut self, phase: Phase) -> &mut Counters {
        if phase == Phase::Measure {
            &mut self.measured
        } else {
            &mut self.others
        }
    }

    /// Of all phases.
    pub fn all(&self) -> Counters {
        let mut all = self.measured;
        all.add(&self.others);
        all
    }
}
