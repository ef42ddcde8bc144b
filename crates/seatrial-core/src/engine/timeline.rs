//! What happened when: counters and response times by interval, bounded.
//!
//! Intervals are counted from the begin of the measure phase, forwards and backwards. When there
//! are too many, or their histograms take too much memory, pairs become one and every interval is
//! twice as long, so that the begin of the measure phase stays the begin of an interval.

use std::collections::VecDeque;

use crate::histogram::{Histogram, SparseHistogram};
use crate::units::Nanos;

/// Most intervals of a run.
pub const INTERVALS_MAX: i64 = 4_096;

/// Most bytes of the histograms of all intervals together: where response times scatter widely,
/// those of a long load would take tens of megabytes.
const PACKED_BYTES_MAX: usize = 4 << 20;

/// What happened in one interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub intended_count: u64,
    pub sent_count: u64,
    pub ok_count: u64,
    pub failed_count: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Response times of requests of the measure phase.
    pub measured: SparseHistogram,
    /// Those of the other phases.
    pub others: SparseHistogram,
}

impl Cell {
    fn packed_bytes(&self) -> usize {
        self.measured.packed_bytes() + self.others.packed_bytes()
    }

    fn add(&mut self, other: &Self) {
        self.intended_count += other.intended_count;
        self.sent_count += other.sent_count;
        self.ok_count += other.ok_count;
        self.failed_count += other.failed_count;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.measured.merge(&other.measured);
        self.others.merge(&other.others);
    }
}

/// One interval of a run, all threads together.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Its begin.
    pub start: Nanos,
    /// Its end.
    pub end: Nanos,
    /// Requests that were due in it.
    pub intended_count: u64,
    /// Requests that were sent in it.
    pub sent_count: u64,
    /// Correct replies that came in it.
    pub ok_count: u64,
    /// Requests that failed in it.
    pub failed_count: u64,
    /// Bytes that the kernel took in it.
    pub sent_bytes: u64,
    /// Bytes that were read in it.
    pub received_bytes: u64,
    /// Response times of the correct replies that came in it, whatever their phase.
    pub response: SparseHistogram,
}

/// The intervals of one thread, or of a run.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    anchor: Nanos,
    length: Nanos,
    /// Index of the first cell; the one that begins at the anchor has 0.
    first: i64,
    cells: VecDeque<Cell>,
    /// Of the histograms of all cells.
    packed_bytes: usize,
}

impl Timeline {
    /// No interval yet; `anchor` is the begin of one, and each has this length, which is above 0.
    pub fn new(anchor: Nanos, length: Nanos) -> Self {
        Self {
            anchor,
            length,
            first: 0,
            cells: VecDeque::new(),
            packed_bytes: 0,
        }
    }

    fn index_of(&self, at: Nanos) -> i64 {
        (at.as_i64() - self.anchor.as_i64()).div_euclid(self.length.as_i64())
    }

    fn start_of(&self, index: i64) -> Nanos {
        let offset = index.saturating_mul(self.length.as_i64());
        let start = self.anchor.as_i64().saturating_add(offset);
        Nanos::new(start.max(0).unsigned_abs())
    }

    /// Begin and end of the interval in which this instant is.
    pub fn bounds_of(&self, at: Nanos) -> (Nanos, Nanos) {
        let index = self.index_of(at);
        (self.start_of(index), self.start_of(index + 1))
    }

    /// The cell of the interval in which this instant is.
    pub fn cell_at(&mut self, at: Nanos) -> &mut Cell {
        let mut index = self.index_of(at);
        if self.cells.is_empty() {
            self.first = index;
        }
        while self.span_with(index) > INTERVALS_MAX {
            self.coarsen();
            index = self.index_of(at);
        }
        while index < self.first {
            self.cells.push_front(Cell::default());
            self.first -= 1;
        }
        let position = usize::try_from(index - self.first).unwrap_or_default();
        while self.cells.len() <= position {
            self.cells.push_back(Cell::default());
        }
        &mut self.cells[position]
    }

    /// Intervals from the first to the last, if there were one with this index.
    fn span_with(&self, index: i64) -> i64 {
        let end = self.first + i64::try_from(self.cells.len()).unwrap_or(i64::MAX);
        end.max(index + 1) - self.first.min(index)
    }

    /// Makes every interval twice as long.
    fn coarsen(&mut self) {
        let first = self.first.div_euclid(2);
        let mut cells: VecDeque<Cell> = VecDeque::with_capacity(self.cells.len() / 2 + 1);
        for (cell, index) in self.cells.drain(..).zip(self.first..) {
            match cells.back_mut() {
                Some(last) if index.rem_euclid(2) == 1 => last.add(&cell),
                _ => cells.push_back(cell),
            }
        }
        self.packed_bytes = cells.iter().map(Cell::packed_bytes).sum();
        self.cells = cells;
        self.first = first;
        self.length = Nanos::new(self.length.get().saturating_mul(2));
    }

    /// Adds what happened in the interval in which `at` is.
    pub fn add(&mut self, at: Nanos, cell: &Cell) {
        let place = self.cell_at(at);
        let before = place.packed_bytes();
        place.add(cell);
        let after = place.packed_bytes();
        self.packed_bytes = self.packed_bytes + after - before;
        while self.packed_bytes > PACKED_BYTES_MAX && self.cells.len() > 1 {
            self.coarsen();
        }
    }

    /// Adds the intervals of another timeline with the same anchor.
    pub fn merge(&mut self, mut other: Self) {
        while other.length < self.length {
            other.coarsen();
        }
        while self.length < other.length {
            self.coarsen();
        }
        for (cell, index) in other.cells.iter().zip(other.first..) {
            self.add(other.start_of(index).max(Nanos::ZERO), cell);
        }
    }

    /// Takes all intervals out; an empty timeline with the same lengths stays.
    pub fn take(&mut self) -> Self {
        let empty = Self {
            cells: VecDeque::new(),
            packed_bytes: 0,
            ..*self
        };
        std::mem::replace(self, empty)
    }

    /// All response times of the measure phase.
    pub fn add_measured_to(&self, histogram: &mut Histogram) {
        for cell in &self.cells {
            histogram.merge_sparse(&cell.measured);
        }
    }

    /// Takes the intervals that end at `until` or before, the first one first.
    pub fn take_until(&mut self, until: Nanos) -> Vec<Interval> {
        let mut taken = Vec::new();
        while !self.cells.is_empty() && self.start_of(self.first + 1) <= until {
            let (start, end) = (self.start_of(self.first), self.start_of(self.first + 1));
            if let Some(cell) = self.cells.pop_front() {
                self.packed_bytes -= cell.packed_bytes();
                taken.push(told(cell, start, end));
            }
            self.first += 1;
        }
        taken
    }

    /// All intervals; what is outside of the run is cut off from the first and the last.
    pub fn into_intervals(mut self, started_at: Nanos, ended_at: Nanos) -> Vec<Interval> {
        let mut intervals = self.take_until(Nanos::MAX);
        for interval in &mut intervals {
            interval.start = interval.start.max(started_at);
            interval.end = interval.end.min(ended_at).max(interval.start);
        }
        intervals
    }
}

fn told(cell: Cell, start: Nanos, end: Nanos) -> Interval {
    let mut response = cell.measured;
    response.merge(&cell.others);
    Interval {
        start,
        end,
        intended_count: cell.intended_count,
        sent_count: cell.sent_count,
        ok_count: cell.ok_count,
        failed_count: cell.failed_count,
        sent_bytes: cell.sent_bytes,
        received_bytes: cell.received_bytes,
        response,
    }
}

/// The interval that is going on, in a form that is quick to count in.
#[derive(Debug)]
pub(super) struct OpenInterval {
    pub start: Nanos,
    pub end: Nanos,
    pub cell: Cell,
    pub measured: Histogram,
    pub others: Histogram,
}

impl OpenInterval {
    /// The interval of this timeline in which `at` is.
    pub fn new(timeline: &Timeline, at: Nanos) -> Self {
        let (start, end) = timeline.bounds_of(at);
        Self {
            start,
            end,
            cell: Cell::default(),
            measured: Histogram::new(),
            others: Histogram::new(),
        }
    }

    /// Ends it: gives what happened in it, and its begin.
    pub fn close(&mut self) -> (Nanos, Cell) {
        let cell = Cell {
            measured: self.measured.drain(),
            others: self.others.drain(),
            ..std::mem::take(&mut self.cell)
        };
        (self.start, cell)
    }

    /// Goes on with the interval of this timeline in which `at` is.
    pub fn reopen(&mut self, timeline: &Timeline, at: Nanos) {
        (self.start, self.end) = timeline.bounds_of(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(count: u64) -> Cell {
        Cell {
            ok_count: count,
            ..Cell::default()
        }
    }

    fn rows(timeline: Timeline) -> Vec<(u64, u64, u64)> {
        let intervals = timeline.into_intervals(Nanos::ZERO, Nanos::MAX);
        let row = |one: &Interval| (one.start.get(), one.end.get(), one.ok_count);
        intervals.iter().map(row).collect()
    }

    #[test]
    fn intervals_are_counted_from_the_anchor_both_ways() {
        let mut timeline = Timeline::new(Nanos::new(1_050), Nanos::new(100));
        for at in [1_049, 1_050, 1_149, 1_350] {
            timeline.add(Nanos::new(at), &counted(1));
        }
        let told = [(950, 1_050, 1), (1_050, 1_150, 2), (1_150, 1_250, 0)];
        let more = [(1_250, 1_350, 0), (1_350, 1_450, 1)];
        assert_eq!(rows(timeline.clone()), [&told[..], &more[..]].concat());
        let cut = timeline.into_intervals(Nanos::new(1_000), Nanos::new(1_400));
        assert_eq!(cut[0].start, Nanos::new(1_000));
        assert_eq!(cut[4].end, Nanos::new(1_400));
    }

    #[test]
    fn too_many_intervals_become_half_as_many_and_nothing_is_lost() {
        let mut timeline = Timeline::new(Nanos::new(1_000), Nanos::new(10));
        let most = usize::try_from(INTERVALS_MAX).unwrap();
        let last = 10 * (most as u64 + 500);
        for at in (0..last).step_by(10) {
            timeline.add(Nanos::new(at), &counted(1));
        }
        let told = rows(timeline);
        assert!(told.len() <= most && told.len() >= most / 2);
        assert_eq!(told.iter().map(|row| row.2).sum::<u64>(), last / 10);
        assert!(
            told.iter().any(|row| row.0 == 1_000),
            "the anchor begins one"
        );
        assert!(told.iter().all(|row| row.1 - row.0 == 20));
    }

    #[test]
    fn wide_histograms_make_intervals_longer_and_nothing_is_lost() {
        let mut histogram = Histogram::new();
        let mut timeline = Timeline::new(Nanos::ZERO, Nanos::new(10));
        let mut added = 0;
        for at in (0..12_000).step_by(10) {
            // A value in each of very many buckets.
            let mut value = 100;
            for _ in 0..2_000 {
                histogram.record(Nanos::new(value));
                value += 1 + value / 125;
            }
            let measured = histogram.drain();
            added += measured.count();
            let cell = Cell {
                measured,
                ..Cell::default()
            };
            timeline.add(Nanos::new(at), &cell);
            let bytes: usize = timeline.cells.iter().map(Cell::packed_bytes).sum();
            assert_eq!(bytes, timeline.packed_bytes);
            assert!(bytes <= PACKED_BYTES_MAX);
        }
        assert!(timeline.length > Nanos::new(10));
        let mut whole = Histogram::new();
        timeline.add_measured_to(&mut whole);
        assert_eq!(whole.count(), added);
        let half = timeline.cells.len() / 2;
        let until = timeline.start_of(timeline.first + i64::try_from(half).unwrap());
        assert_eq!(timeline.take_until(until).len(), half);
        let rest: usize = timeline.cells.iter().map(Cell::packed_bytes).sum();
        assert_eq!(rest, timeline.packed_bytes);
    }

    #[test]
    fn timelines_of_different_lengths_are_merged_by_time() {
        let mut fine = Timeline::new(Nanos::new(1_000), Nanos::new(10));
        let mut coarse = Timeline::new(Nanos::new(1_000), Nanos::new(10));
        for at in [970, 990, 1_000, 1_010] {
            fine.add(Nanos::new(at), &counted(1));
            coarse.add(Nanos::new(at), &counted(10));
        }
        coarse.coarsen();
        let mut other = coarse.clone();
        other.merge(fine.clone());
        fine.merge(coarse);
        let expected = [(960, 980, 11), (980, 1_000, 11), (1_000, 1_020, 22)];
        assert_eq!(rows(fine), expected);
        assert_eq!(rows(other), expected);
    }
}
