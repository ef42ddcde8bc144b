//! A histogram that is no longer recorded to, in as few bytes as it needs.
//!
//! Only buckets that are not empty are kept: the distance to the one before and the count, each
//! in as many bytes of seven bits as it takes. A tenth of a second of load is some hundred
//! buckets and hardly more than two bytes for each.

use super::{Histogram, highest_of, quantile_of};
use crate::units::Nanos;

/// Counts of buckets, packed; the precision is that of [`Histogram`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseHistogram {
    packed: Box<[u8]>,
    count: u64,
    pub(super) sum: u128,
    pub(super) min: Nanos,
    pub(super) max: Nanos,
}

impl Default for SparseHistogram {
    fn default() -> Self {
        Self {
            packed: Box::default(),
            count: 0,
            sum: 0,
            min: Nanos::MAX,
            max: Nanos::ZERO,
        }
    }
}

impl SparseHistogram {
    pub(super) fn new(
        buckets: impl Iterator<Item = (usize, u64)>,
        sum: u128,
        min: Nanos,
        max: Nanos,
    ) -> Self {
        let mut packed = Vec::new();
        let (mut count, mut last) = (0, 0);
        for (bucket, in_bucket) in buckets {
            pack(&mut packed, (bucket - last) as u64);
            pack(&mut packed, in_bucket);
            last = bucket;
            count += in_bucket;
        }
        Self {
            packed: packed.into_boxed_slice(),
            count,
            sum,
            min,
            max,
        }
    }

    /// How many durations are in it.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The bytes that it takes beside its own size.
    #[must_use]
    pub const fn packed_bytes(&self) -> usize {
        self.packed.len()
    }

    /// The smallest duration, exact; `None` when there is none.
    #[must_use]
    pub fn min(&self) -> Option<Nanos> {
        (self.count > 0).then_some(self.min)
    }

    /// The largest duration, exact; `None` when there is none.
    #[must_use]
    pub fn max(&self) -> Option<Nanos> {
        (self.count > 0).then_some(self.max)
    }

    /// The arithmetic mean in nanoseconds, exact; `None` when there is none.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The same as [`Histogram::quantile`].
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Nanos> {
        quantile_of(self.buckets(), self.count, quantile, (self.min, self.max))
    }

    /// The largest value of each bucket that is not empty, in order, and how many are in it.
    pub fn pairs(&self) -> impl Iterator<Item = (Nanos, u64)> + '_ {
        let named = |(bucket, count)| (Nanos::new(highest_of(bucket)), count);
        self.buckets().map(named)
    }

    /// Adds everything that is in `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        let sum = self.sum + other.sum;
        let (min, max) = (self.min.min(other.min), self.max.max(other.max));
        *self = Self::new(merged(self.buckets(), other.buckets()), sum, min, max);
    }

    /// The same counts, to be read and merged like any others.
    #[must_use]
    pub fn to_histogram(&self) -> Histogram {
        let mut histogram = Histogram::new();
        histogram.merge_sparse(self);
        histogram
    }

    /// The buckets, in order, with their counts.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let mut rest = &*self.packed;
        let mut bucket = 0;
        std::iter::from_fn(move || {
            let distance = unpack(&mut rest)?;
            bucket += usize::try_from(distance).ok()?;
            Some((bucket, unpack(&mut rest)?))
        })
    }
}

/// Buckets of both in order; counts of the same bucket are added.
fn merged(
    ours: impl Iterator<Item = (usize, u64)>,
    theirs: impl Iterator<Item = (usize, u64)>,
) -> impl Iterator<Item = (usize, u64)> {
    let (mut ours, mut theirs) = (ours.peekable(), theirs.peekable());
    std::iter::from_fn(move || match (ours.peek(), theirs.peek()) {
        (Some(one), Some(two)) if one.0 == two.0 => {
            let both = (one.0, one.1 + two.1);
            let _ = (ours.next(), theirs.next());
            Some(both)
        }
        (Some(one), Some(two)) if one.0 < two.0 => ours.next(),
        (Some(_), None) => ours.next(),
        _ => theirs.next(),
    })
}

/// Appends a number, seven bits a byte, the low ones first; the top bit says that more follow.
fn pack(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | low_bits(number));
        number >>= 7;
    }
    bytes.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

/// Takes a number from the front; `None` at the end.
fn unpack(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_are_packed() {
        let numbers = [0, 1, 127, 128, 300, 1 << 35, u64::MAX];
        let mut bytes = Vec::new();
        for number in numbers {
            pack(&mut bytes, number);
        }
        let mut rest = bytes.as_slice();
        for number in numbers {
            assert_eq!(unpack(&mut rest), Some(number));
        }
        assert_eq!(unpack(&mut rest), None);
    }
}
