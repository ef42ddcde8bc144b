//! A bounded, systematic sample of the requests of one thread.
//!
//! Of each `stride` requests of the thread in a row, in the order of the schedule, one is kept,
//! picked by a fixed stream of random bits. Always the first would be wrong: with eight
//! connections in turn and a stride of eight, all records would be of one connection. When there is
//! no room for the next one, the stride doubles, one of each two neighbours stays, and what no longer fits
//! is overwritten one by one as new records come, so that the send loop is never held up.

use super::{OptionalColumn, Outcome, Phase, RecordColumns, RequestRecord};
use crate::arrival::{Key, Share, Source, Stream};
use crate::units::Nanos;

/// A record without the flags that say what is known, so that it takes fewer cache lines.
#[derive(Clone, Copy, Debug)]
struct Row {
    intended_at: Nanos,
    sent_at: Nanos,
    first_byte_at: Nanos,
    done_at: Nanos,
    request_id: u64,
    demand: Nanos,
    server_service: Nanos,
    kernel_sent_at: Nanos,
    kernel_received_at: Nanos,
    connection: u32,
    outcome: Outcome,
    phase: Phase,
}

/// Stands for an unknown instant; no clock reaches it.
const UNKNOWN: Nanos = Nanos::MAX;

/// The random bits that pick; the same for every run, whatever its seed.
const BITS: Key = Key::new(0, Stream::Record);

/// Stands for an unknown connection; a plan allows far fewer.
const NOWHERE: u32 = u32::MAX;

/// The sample of one thread.
#[derive(Debug)]
pub struct RecordSample {
    rows: Vec<Row>,
    capacity: usize,
    share: Share,
    /// One of so many requests in a row is kept; a power of two.
    stride: u64,
    /// Rows before this one fit the stride.
    cursor: usize,
    picks: Picks,
}

impl RecordSample {
    /// Room for this many records of the requests of this share.
    ///
    /// Memory is reserved, but becomes real only as records come.
    #[must_use]
    pub fn new(capacity: usize, share: Share) -> Self {
        Self {
            rows: Vec::with_capacity(capacity),
            capacity,
            share,
            stride: 1,
            cursor: 0,
            picks: Picks::new(),
        }
    }

    /// How many requests of the thread stand behind one record; 1 as long as there is room for all.
    #[must_use]
    pub const fn stride(&self) -> u64 {
        self.stride
    }

    fn fits(&self, request_id: u64, stride: u64) -> bool {
        is_picked(self.share.position_of(request_id), stride)
    }

    /// Whether a record of this request belongs to the sample; asked for each request, so that
    /// most records need not be made.
    #[inline]
    pub fn wants(&mut self, request_id: u64) -> bool {
        let number = self.share.position_of(request_id);
        self.capacity > 0 && (self.stride == 1 || self.picks.has(number, self.stride))
    }

    /// Keeps a record if it belongs to the sample.
    pub fn push(&mut self, record: &RequestRecord) {
        if !self.wants(record.request_id) {
            return;
        }
        if self.rows.len() < self.capacity {
            self.rows.push(row_of(record));
            return;
        }
        self.replace(record);
    }

    /// Puts a record in the place of one that no longer fits.
    fn replace(&mut self, record: &RequestRecord) {
        loop {
            while let Some(row) = self.rows.get(self.cursor) {
                let request_id = row.request_id;
                if !self.fits(request_id, self.stride) {
                    self.rows[self.cursor] = row_of(record);
                    self.cursor += 1;
                    return;
                }
                self.cursor += 1;
            }
            self.stride *= 2;
            self.picks = Picks::new();
            self.cursor = 0;
            if !self.fits(record.request_id, self.stride) {
                return;
            }
        }
    }

    /// The records of one of each `stride` requests, in the order of their intended instants.
    ///
    /// `stride` is a multiple of the sample's own, so that threads can be brought to one.
    #[must_use]
    pub fn into_columns(mut self, stride: u64) -> RecordColumns {
        let (share, stride) = (self.share, stride.max(self.stride));
        let members = u64::from(share.members);
        self.rows
            .retain(|row| is_picked(row.request_id / members, stride));
        self.rows
            .sort_unstable_by_key(|row| (row.intended_at, row.request_id));
        columns_of(&self.rows)
    }
}

/// Whether this is the number that is kept of the `stride` numbers in a row around it.
///
/// Of two neighbouring rows, each with one number that is kept, a random bit says whose number
/// stays when they become one row; so what is kept at a stride was kept at all shorter ones.
#[inline]
fn is_picked(number: u64, stride: u64) -> bool {
    let levels = stride.trailing_zeros();
    (0..levels).all(|level| {
        let row = number >> (level + 1);
        let half = BITS.item(row << 6 | u64::from(level)).next_bits() >> 63;
        (number >> level) & 1 == half
    })
}

/// The number that [`is_picked`] finds in the row of `stride` numbers around this one: every level
/// decides one bit of it, from the longest rows to the shortest.
fn pick_of(number: u64, stride: u64) -> u64 {
    let levels = stride.trailing_zeros();
    (0..levels).rev().fold(number >> levels, |row, level| {
        let half = BITS.item(row << 6 | u64::from(level)).next_bits() >> 63;
        row << 1 | half
    })
}

/// The picked numbers of the rows in which requests end at present, so that few are drawn again.
#[derive(Debug)]
struct Picks([u64; Self::ROWS]);

impl Picks {
    /// Rows that are remembered. Requests end nearly in the order of the schedule.
    const ROWS: usize = 64;

    /// None is known: no row has this pick, because request ids stay far below it.
    const fn new() -> Self {
        Self([u64::MAX; Self::ROWS])
    }

    /// The same as [`is_picked`].
    #[inline]
    fn has(&mut self, number: u64, stride: u64) -> bool {
        let levels = stride.trailing_zeros();
        let row = number >> levels;
        #[allow(clippy::cast_possible_truncation)] // only the lowest bits are used
        let pick = &mut self.0[row as usize % Self::ROWS];
        if *pick >> levels != row {
            *pick = pick_of(number, stride);
        }
        *pick == number
    }
}

fn row_of(record: &RequestRecord) -> Row {
    Row {
        intended_at: record.intended_at,
        sent_at: record.sent_at.unwrap_or(UNKNOWN),
        first_byte_at: record.first_byte_at.unwrap_or(UNKNOWN),
        done_at: record.done_at.unwrap_or(UNKNOWN),
        request_id: record.request_id,
        demand: record.demand,
        server_service: record.server_service.unwrap_or(UNKNOWN),
        kernel_sent_at: record.kernel.sent_at.unwrap_or(UNKNOWN),
        kernel_received_at: record.kernel.received_at.unwrap_or(UNKNOWN),
        connection: record.connection.unwrap_or(NOWHERE),
        outcome: record.outcome,
        phase: record.phase,
    }
}

fn columns_of(rows: &[Row]) -> RecordColumns {
    let known = |value: fn(&Row) -> Nanos| rows.iter().map(|row| value(row).as_i64()).collect();
    let optional = |value: fn(&Row) -> Nanos| {
        let values = rows.iter().map(value);
        OptionalColumn::of(values.map(|at| (at != UNKNOWN).then(|| at.as_i64())))
    };
    let connections = rows.iter().map(|row| row.connection);
    RecordColumns {
        intended_at_ns: known(|row| row.intended_at),
        sent_at_ns: optional(|row| row.sent_at),
        first_byte_at_ns: optional(|row| row.first_byte_at),
        done_at_ns: optional(|row| row.done_at),
        outcome: rows.iter().map(|row| row.outcome as u8).collect(),
        connection: OptionalColumn::of(
            connections.map(|connection| (connection != NOWHERE).then_some(connection)),
        ),
        request_id: rows.iter().map(|row| row.request_id).collect(),
        demand_ns: known(|row| row.demand),
        server_service_ns: optional(|row| row.server_service),
        kernel_sent_at_ns: optional(|row| row.kernel_sent_at),
        kernel_received_at_ns: optional(|row| row.kernel_received_at),
        phase: rows.iter().map(|row| row.phase as u8).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::stamps::KernelStamps;
    use proptest::prelude::*;

    const SHARE: Share = Share {
        member: 1,
        members: 3,
    };

    fn record(number: u64) -> RequestRecord {
        RequestRecord {
            intended_at: Nanos::new(1_000 + number),
            sent_at: (number % 3 == 0).then_some(Nanos::new(number)),
            first_byte_at: None,
            done_at: None,
            outcome: Outcome::Timeout,
            connection: Some(3),
            request_id: 1 + 3 * number,
            demand: Nanos::ZERO,
            server_service: None,
            kernel: KernelStamps::default(),
            phase: Phase::Measure,
        }
    }

    fn numbers(columns: &RecordColumns) -> Vec<u64> {
        columns.request_id.iter().map(|id| (id - 1) / 3).collect()
    }

    proptest! {
        #[test]
        fn one_of_each_stride_requests_is_kept_whatever_the_order(
            count in 0..600u64,
            capacity in 1..40usize,
            swaps in prop::collection::vec((0..600usize, 0..8usize), 0..100),
        ) {
            // Requests end nearly in the order of the schedule.
            let mut order: Vec<u64> = (0..count).collect();
            for (at, by) in swaps {
                if at + by < order.len() {
                    order.swap(at, at + by);
                }
            }
            let mut sample = RecordSample::new(capacity, SHARE);
            for number in order {
                sample.push(&record(number));
                prop_assert!(sample.rows.len() <= capacity);
            }
            let stride = sample.stride();
            prop_assert!(count <= capacity as u64 || stride > 1);
            // Never sparser than needed: half the stride would not have had room.
            let picked = |stride| (0..count).filter(move |number| is_picked(*number, stride));
            prop_assert!(stride == 1 || picked(stride / 2).count() > capacity);
            let kept = numbers(&sample.into_columns(stride));
            prop_assert_eq!(&kept, &picked(stride).collect::<Vec<_>>());
            // One of each whole row, and at most one of the last.
            let rows: Vec<u64> = kept.iter().map(|number| number / stride).collect();
            let whole = count / stride;
            prop_assert!(rows.iter().copied().eq(0..whole) || rows.iter().copied().eq(0..=whole));
        }
    }

    proptest! {
        /// What is remembered of rows never changes the answer, in whatever order they are asked.
        #[test]
        fn remembered_picks_are_the_picks(
            levels in 1..20u32, numbers in prop::collection::vec(0..1_000_000u64, 1..300),
        ) {
            let (mut picks, stride) = (Picks::new(), 1 << levels);
            for number in numbers {
                let pick = pick_of(number, stride);
                prop_assert!(is_picked(pick, stride) && pick / stride == number / stride);
                prop_assert_eq!(picks.has(number, stride), is_picked(number, stride));
                prop_assert!(picks.has(pick, stride));
            }
        }
    }

    #[test]
    fn no_connection_that_comes_in_turn_is_preferred() {
        for stride in [2u64, 8, 64] {
            let mut counts = [0u64; 8];
            for number in (0..80_000 * stride / 8).filter(|number| is_picked(*number, stride)) {
                counts[usize::try_from(number % 8).unwrap()] += 1;
            }
            assert_eq!(counts.iter().sum::<u64>(), 10_000);
            // 1250 each, give or take five standard deviations.
            assert!(
                counts.iter().all(|count| (1_080..1_420).contains(count)),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn unknown_instants_are_not_zero_but_unknown() {
        let mut sample = RecordSample::new(20, SHARE);
        for number in (0..20).rev() {
            sample.push(&record(number));
        }
        let columns = sample.into_columns(1);
        assert!(columns.intended_at_ns.is_sorted());
        for index in 0..20 {
            assert_eq!(columns.sent_at_ns.is_known(index), index % 3 == 0);
        }
        assert_eq!(columns.sent_at_ns.values[9], 9);
        assert!(!columns.sent_at_ns.is_known(21));
        assert_eq!(columns.connection.values[7], 3);
    }

    #[test]
    fn threads_are_brought_to_one_stride_and_none_keeps_none() {
        let mut sample = RecordSample::new(100, SHARE);
        let mut none = RecordSample::new(0, SHARE);
        for number in 0..50 {
            sample.push(&record(number));
            none.push(&record(number));
        }
        let picked: Vec<u64> = (0..50).filter(|number| is_picked(*number, 8)).collect();
        assert!((6..=7).contains(&picked.len()));
        assert_eq!(numbers(&sample.into_columns(8)), picked);
        assert!(none.into_columns(1).is_empty());
    }
}
