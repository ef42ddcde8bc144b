//! One request on its way, or a run of them.

use crate::arrival::Scheduled;
use crate::record::Phase;
use crate::units::Nanos;

/// Most requests that are one flight.
pub(in crate::engine) const RUN_MAX: u32 = u8::MAX as u32;

/// A request on a connection, or several that are alike: put on it at once, due at the same instant,
/// and with ids that lie one step apart.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Flight {
    /// The first of them.
    pub scheduled: Scheduled,
    pub phase: Phase,
    /// How many there are; so narrow that a node fits into one line of a cache.
    pub(super) count: u8,
    /// The connection, among those of the thread.
    pub connection: u32,
    /// When its place on the connection became free.
    pub slot_free_at: Nanos,
    /// [`UNSENT`] until it is known.
    pub(super) sent_at: Nanos,
    /// Recorded as a time-out already; it only waits for its late reply.
    pub is_expired: bool,
    /// Was on another connection before, whose peer did nothing about it.
    pub is_resent: bool,
}

/// When a request was due, when it could be sent, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Sending {
    pub intended_at: Nanos,
    /// When its place on the connection became free.
    pub slot_free_at: Nanos,
    pub sent_at: Nanos,
    /// It was sent before, on another connection.
    pub is_resent: bool,
}

/// Stands for a request that was not handed over yet; no clock reaches it.
pub(super) const UNSENT: Nanos = Nanos::MAX;

impl Flight {
    /// A request that was just put on a connection.
    #[inline]
    pub const fn new(
        scheduled: Scheduled,
        phase: Phase,
        connection: u32,
        slot_free_at: Nanos,
    ) -> Self {
        Self {
            scheduled,
            phase,
            count: 1,
            connection,
            slot_free_at,
            sent_at: UNSENT,
            is_expired: false,
            is_resent: false,
        }
    }

    /// So many of them, at most [`RUN_MAX`].
    #[inline]
    pub fn times(self, count: u32) -> Self {
        let count = u8::try_from(count).unwrap_or(u8::MAX);
        Self { count, ..self }
    }

    /// How many requests it stands for.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.into()
    }

    /// The requests one by one; their ids lie `step` apart.
    pub fn each(self, step: u64) -> impl Iterator<Item = Self> {
        (0..u64::from(self.count)).map(move |index| {
            let mut one = self.times(1);
            one.scheduled.request_id += index * step;
            one
        })
    }

    /// The same request on another connection, where it was not handed over yet.
    pub const fn resent(self, connection: u32, slot_free_at: Nanos) -> Self {
        Self {
            connection,
            slot_free_at,
            sent_at: UNSENT,
            is_resent: true,
            ..self
        }
    }

    /// When it was due, could be sent, and was; `None` for one that was not handed over.
    #[inline]
    pub fn sending(&self) -> Option<Sending> {
        let sent_at = self.sent_at()?;
        Some(Sending {
            intended_at: self.scheduled.intended_at,
            slot_free_at: self.slot_free_at,
            sent_at,
            is_resent: self.is_resent,
        })
    }

    /// When it was handed over, if it was.
    #[inline]
    pub fn sent_at(&self) -> Option<Nanos> {
        (self.sent_at != UNSENT).then_some(self.sent_at)
    }
}
