//! A mergeable histogram of durations.
//!
//! Range: 0 ns to 1 hour ([`Histogram::VALUE_MAX`]). Precision: three significant digits, so a
//! quantile is at most 0.1 % above the value that was recorded. Count, sum,
//! smallest and largest value are exact. A duration beyond the range counts in
//! the top bucket; its value still shows in the exact maximum.
//!
//! The buckets are those of `HdrHistogram` with three digits: exact up to 2047 ns, then 1024 of equal
//! width for each power of two. Which of them were used is noted in groups, so that reading
//! or emptying a histogram costs as much as was recorded in it, not as much as it could hold.

mod sparse;

pub use sparse::SparseHistogram;

use crate::error::CoreError;
use crate::units::Nanos;

/// First bytes of a stored histogram: the name of the format and its version.
const MAGIC: [u8; 8] = *b"seahist1";

/// Magic, count, sum (two words), minimum, maximum, number of buckets.
const STORED_HEADER_BYTES: usize = 8 * 7;

/// One stored bucket: value and count.
const STORED_BUCKET_BYTES: usize = 16;

/// Buckets for each power of two: half of the 2048 that three digits need.
const HALF_BITS: u32 = 10;

/// Powers of two that have buckets; 2^42 ns is the first above an hour.
const VALUE_BITS: u32 = 42;

/// All buckets.
const BUCKETS: usize = ((VALUE_BITS - HALF_BITS + 1) as usize) << HALF_BITS;

/// Buckets that share one mark.
const GROUP_BITS: u32 = 6;

/// Words of marks.
const MARK_WORDS: usize = (BUCKETS >> GROUP_BITS).div_ceil(64);

/// Durations, kept as counts of buckets.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64]>,
    /// One bit for each group of buckets in which something was recorded.
    marks: [u64; MARK_WORDS],
    count: u64,
    sum: u128,
    min: Nanos,
    max: Nanos,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Histogram {
    /// Whether both were made from the same values, as far as the buckets can tell.
    fn eq(&self, other: &Self) -> bool {
        (self.count, self.sum, self.min, self.max) == (other.count, other.sum, other.min, other.max)
            && self.buckets().eq(other.buckets())
    }
}

/// The bucket of a value.
#[inline]
fn bucket_of(value: u64) -> usize {
    let value = value.min(Histogram::VALUE_MAX.get());
    // The power of two above the exact range; the `or` makes small values fall into it.
    let power = u64::BITS - HALF_BITS - 1 - (value | ((1 << (HALF_BITS + 1)) - 1)).leading_zeros();
    let position = (u64::from(power) << HALF_BITS) + (value >> power);
    // Below the number of buckets, because the value is below 2^42.
    usize::try_from(position).unwrap_or(BUCKETS - 1)
}

/// The largest value of a bucket.
fn highest_of(bucket: usize) -> u64 {
    let power = (bucket >> HALF_BITS).saturating_sub(1);
    let position = (bucket - (power << HALF_BITS)) as u64;
    ((position + 1) << power) - 1
}

impl Histogram {
    /// Durations above this one count in its bucket, which is the top one.
    pub const VALUE_MAX: Nanos = Nanos::new(3_600_000_000_000);

    /// An empty histogram; it reserves about 260 KiB of address space, of which only
    /// what is recorded to becomes memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            marks: [0; MARK_WORDS],
            count: 0,
            sum: 0,
            min: Nanos::MAX,
            max: Nanos::ZERO,
        }
    }

    /// Adds one duration.
    #[inline]
    pub fn record(&mut self, value: Nanos) {
        self.record_many(value, 1);
    }

    /// Adds the same duration this many times, at least once.
    #[inline]
    pub fn record_many(&mut self, value: Nanos, count: u64) {
        self.add_to_bucket(bucket_of(value.get()), count);
        self.sum += u128::from(value.get()) * u128::from(count);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    #[inline]
    fn add_to_bucket(&mut self, bucket: usize, count: u64) {
        self.counts[bucket] += count;
        self.marks[bucket >> (GROUP_BITS + 6)] |= 1 << ((bucket >> GROUP_BITS) & 63);
        self.count += count;
    }

    /// Buckets that are not empty, in order, with their counts.
    fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        groups_of(&self.marks).flat_map(|group| {
            let start = group << GROUP_BITS;
            let counts = self.counts[start..start + (1 << GROUP_BITS)].iter();
            let numbered = counts
                .enumerate()
                .map(move |(at, count)| (start + at, *count));
            numbered.filter(|(_, count)| *count > 0)
        })
    }

    /// Adds everything that `other` recorded; the same as having recorded it here.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.buckets() {
            self.add_to_bucket(bucket, count);
        }
        self.note_values(other.sum, other.min, other.max);
    }

    /// Adds everything that was in `other` when it was drained.
    pub fn merge_sparse(&mut self, other: &SparseHistogram) {
        for (bucket, count) in other.buckets() {
            self.add_to_bucket(bucket, count);
        }
        self.note_values(other.sum, other.min, other.max);
    }

    fn note_values(&mut self, sum: u128, min: Nanos, max: Nanos) {
        self.sum += sum;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
    }

    /// Empties the histogram; what was in it, in a form that takes little memory.
    pub fn drain(&mut self) -> SparseHistogram {
        let sparse = self.to_sparse();
        for group in groups_of(&self.marks) {
            let start = group << GROUP_BITS;
            self.counts[start..start + (1 << GROUP_BITS)].fill(0);
        }
        self.marks = [0; MARK_WORDS];
        self.count = 0;
        self.sum = 0;
        self.min = Nanos::MAX;
        self.max = Nanos::ZERO;
        sparse
    }

    /// How many durations were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The smallest duration, exact; `None` when nothing was recorded.
    #[must_use]
    pub fn min(&self) -> Option<Nanos> {
        (self.count() > 0).then_some(self.min)
    }

    /// The largest duration, exact; `None` when nothing was recorded.
    #[must_use]
    pub fn max(&self) -> Option<Nanos> {
        (self.count() > 0).then_some(self.max)
    }

    /// The arithmetic mean in nanoseconds, exact; `None` when nothing was recorded.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum as f64 / self.count() as f64)
    }

    /// The smallest duration such that at least the share `quantile` of all is not above it.
    ///
    /// `None` when nothing was recorded or `quantile` is outside of 0 to 1. At
    /// most 0.1 % above the recorded value; 0 gives the exact minimum, 1 the exact maximum.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Nanos> {
        quantile_of(self.buckets(), self.count, quantile, (self.min, self.max))
    }

    /// The same counts, in a form that takes little memory.
    #[must_use]
    pub fn to_sparse(&self) -> SparseHistogram {
        SparseHistogram::new(self.buckets(), self.sum, self.min, self.max)
    }

    /// A histogram of durations that were counted elsewhere: how many there were at
    /// which value, and their exact sum, minimum and maximum.
    #[must_use]
    pub fn from_counts(
        counts: impl IntoIterator<Item = (Nanos, u64)>,
        sum: u128,
        (min, max): (Nanos, Nanos),
    ) -> Self {
        let mut histogram = Self::new();
        for (value, count) in counts {
            histogram.add_to_bucket(bucket_of(value.get()), count);
        }
        histogram.note_values(sum, min, max);
        histogram
    }

    /// The histogram as bytes: little endian, only the buckets that are not empty.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let bucket_count = self.buckets().count();
        let mut bytes =
            Vec::with_capacity(STORED_HEADER_BYTES + bucket_count * STORED_BUCKET_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        bytes.extend_from_slice(&self.min.get().to_le_bytes());
        bytes.extend_from_slice(&self.max.get().to_le_bytes());
        bytes.extend_from_slice(&(bucket_count as u64).to_le_bytes());
        for (bucket, count) in self.buckets() {
            bytes.extend_from_slice(&highest_of(bucket).to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Histogram::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`CoreError::BadHistogram`] when the bytes are cut, damaged or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CoreError> {
        let bad = |reason| Err(CoreError::BadHistogram { reason });
        let Some((header, stored)) = bytes.split_at_checked(STORED_HEADER_BYTES) else {
            return bad("shorter than its header");
        };
        if header[..8] != MAGIC {
            return bad("unknown format or version");
        }
        let mut words = header[8..].chunks_exact(8).map(word);
        let mut next_word = || words.next().unwrap_or_default();
        let (count, sum_low, sum_high) = (next_word(), next_word(), next_word());
        let (min, max, bucket_count) = (next_word(), next_word(), next_word());
        let expected_bytes = bucket_count.checked_mul(STORED_BUCKET_BYTES as u64);
        if expected_bytes != Some(stored.len() as u64) {
            return bad("length does not match the number of buckets");
        }
        let mut histogram = Self::new();
        let mut added: u64 = 0;
        for bucket in stored.chunks_exact(STORED_BUCKET_BYTES) {
            let Some(sum) = added.checked_add(word(&bucket[8..])) else {
                return bad("counts do not add up");
            };
            added = sum;
            histogram.add_to_bucket(bucket_of(word(&bucket[..8])), word(&bucket[8..]));
        }
        if added != count || (count > 0 && min > max) {
            return bad("counts do not add up");
        }
        histogram.sum = (u128::from(sum_high) << 64) | u128::from(sum_low);
        histogram.min = Nanos::new(min);
        histogram.max = Nanos::new(max);
        Ok(histogram)
    }
}

/// See [`Histogram::quantile`].
fn quantile_of(
    mut buckets: impl Iterator<Item = (usize, u64)>,
    count: u64,
    quantile: f64,
    (min, max): (Nanos, Nanos),
) -> Option<Nanos> {
    if !(0.0..=1.0).contains(&quantile) || count == 0 {
        return None;
    }
    if quantile <= 0.0 {
        return Some(min);
    }
    // At least one, so that the rank names a value; more than all only by rounding.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and count
    let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count);
    let mut below = 0;
    let bucket = buckets.find(|(_, in_bucket)| {
        below += in_bucket;
        below >= rank
    });
    bucket.map(|(bucket, _)| Nanos::new(highest_of(bucket)).clamp(min, max))
}

/// The groups that are marked, in order.
fn groups_of(marks: &[u64; MARK_WORDS]) -> impl Iterator<Item = usize> + use<> {
    let marks = *marks;
    marks.into_iter().enumerate().flat_map(|(word, bits)| {
        let mut left = bits;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(word * 64 + bit)
        })
    })
}

/// Eight bytes as a number; the callers cut them to that length.
fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        for value in values {
            histogram.record(Nanos::new(*value));
        }
        histogram
    }

    proptest! {
        #[test]
        fn merging_is_recording_all(
            first in prop::collection::vec(0..7_200_000_000_000u64, 0..200),
            second in prop::collection::vec(0..7_200_000_000_000u64, 0..200),
        ) {
            let mut merged = of(&first);
            merged.merge(&of(&second));
            let all: Vec<u64> = first.into_iter().chain(second).collect();
            prop_assert_eq!(merged, of(&all));
        }

        #[test]
        fn bytes_round_trip(values in prop::collection::vec(any::<u64>(), 0..200)) {
            let histogram = of(&values);
            prop_assert_eq!(Histogram::from_bytes(&histogram.to_bytes()).unwrap(), histogram);
        }

        #[test]
        fn quantiles_are_within_the_stated_precision(
            mut values in prop::collection::vec(1..3_600_000_000_000u64, 1..300),
            quantile in 0.001..=1.0f64,
        ) {
            let histogram = of(&values);
            values.sort_unstable();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small and positive
            let rank = ((quantile * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1] as f64;
            let told = histogram.quantile(quantile).unwrap().get() as f64;
            prop_assert!(told >= exact && told <= exact * 1.001 + 1.0, "{told} for {exact}");
        }

        #[test]
        fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Histogram::from_bytes(&bytes).is_err());
        }

        #[test]
        fn cut_bytes_are_refused(cut in 1..60usize) {
            let bytes = of(&[1, 2, 3_000]).to_bytes();
            prop_assert!(Histogram::from_bytes(&bytes[..bytes.len() - cut]).is_err());
        }
    }

    #[test]
    fn an_empty_histogram_has_no_values() {
        let empty = Histogram::new();
        assert_eq!((empty.count(), empty.min(), empty.max()), (0, None, None));
        assert_eq!((empty.quantile(0.5), empty.mean_ns()), (None, None));
    }

    #[test]
    fn extremes_are_exact_and_quantiles_bounded() {
        let histogram = of(&[1_234_567, 7, 99_999_999_999_999]);
        assert_eq!(histogram.min(), Some(Nanos::new(7)));
        assert_eq!(histogram.max(), Some(Nanos::new(99_999_999_999_999)));
        assert_eq!(histogram.quantile(0.0), Some(Nanos::new(7)));
        assert_eq!(histogram.quantile(1.5), None);
        assert_eq!(histogram.quantile(f64::NAN), None);
    }

    /// The library whose buckets these are, as `count` and value of each.
    fn of_library(values: &[u64]) -> hdrhistogram::Histogram<u64> {
        let most = Histogram::VALUE_MAX.get();
        let mut library = hdrhistogram::Histogram::new_with_bounds(1, most, 3).unwrap();
        for value in values {
            library.saturating_record(*value);
        }
        library
    }

    proptest! {
        #[test]
        fn buckets_and_quantiles_are_those_of_hdr_histogram(
            values in prop::collection::vec(
                // Between an hour and 2^42 ns the library counts where it counts nothing longer.
                prop_oneof![0..5_000u64, 0..3_600_000_000_000u64, 1 << 42..u64::MAX], 1..200),
            quantile in 0.001..=1.0f64,
        ) {
            let (ours, library) = (of(&values), of_library(&values));
            let told: Vec<_> = ours.buckets().map(|(at, count)| (highest_of(at), count)).collect();
            let expected: Vec<_> = library
                .iter_recorded()
                .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
                .collect();
            prop_assert_eq!(told, expected);
            let expected = Nanos::new(library.value_at_quantile(quantile));
            let clamped = expected.clamp(ours.min().unwrap(), ours.max().unwrap());
            prop_assert_eq!(ours.quantile(quantile), Some(clamped));
        }

        #[test]
        fn draining_moves_everything(
            first in prop::collection::vec(any::<u64>(), 0..200),
            second in prop::collection::vec(0..3_000_000u64, 0..200),
        ) {
            let mut window = of(&first);
            let mut sum = Histogram::new();
            sum.merge_sparse(&window.drain());
            prop_assert_eq!(&window, &Histogram::new());
            for value in &second {
                window.record(Nanos::new(*value));
            }
            sum.merge_sparse(&window.drain());
            let all: Vec<u64> = first.into_iter().chain(second).collect();
            prop_assert_eq!(sum, of(&all));
        }

        #[test]
        fn sparse_halves_make_a_whole(
            first in prop::collection::vec(any::<u64>(), 0..100),
            second in prop::collection::vec(0..3_000_000u64, 0..100),
        ) {
            let mut merged = of(&first).drain();
            merged.merge(&of(&second).drain());
            let all: Vec<u64> = first.into_iter().chain(second).collect();
            prop_assert_eq!(merged.count(), all.len() as u64);
            prop_assert_eq!(merged.to_histogram(), of(&all));
        }
    }

    #[test]
    fn merged_quantiles_are_of_all_values_and_no_average() {
        // R14: the pooled p99 of exp(100) and exp(1000) solves exp(-x/100) + exp(-x/1000) = 0.02,
        // which is x = 3912; the mean of the two p99 would be 2533.
        let exponential = |mean: f64| {
            let mut histogram = Histogram::new();
            for step in 0..100_000u32 {
                let share = (f64::from(step) + 0.5) / 100_000.0;
                histogram.record(Nanos::from_f64(-(1.0 - share).ln() * mean).unwrap());
            }
            histogram
        };
        let mut pooled = exponential(100.0);
        pooled.merge(&exponential(1_000.0));
        let told = pooled.quantile(0.99).unwrap().get() as f64;
        assert!((told / 3_912.0 - 1.0).abs() < 0.01, "{told}");
    }

    #[test]
    fn stored_counts_that_overflow_are_refused() {
        let mut bytes = of(&[1, 5_000]).to_bytes();
        let last = bytes.len() - 8;
        bytes[last..].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Histogram::from_bytes(&bytes).is_err());
    }
}
