//! A mergeable histogram of durations.
//!
//! Range: 0 ns to 1 hour ([`Histogram::VALUE_MAX`]). Precision: three significant digits, so a
//! quantile is at most 0.1 % above the value that was recorded. Count, sum,
//! smallest and largest value are exact. A duration beyond the range counts in
//! the top bucket; its value still shows in the exact maximum.

use hdrhistogram::Histogram as HdrHistogram;

use crate::error::CoreError;
use crate::units::Nanos;

/// Significant decimal digits of a quantile.
const SIGNIFICANT_DIGITS: u8 = 3;

/// First bytes of a stored histogram: the name of the format and its version.
const MAGIC: [u8; 8] = *b"seahist1";

/// Magic, count, sum (two words), minimum, maximum, number of buckets.
const STORED_HEADER_BYTES: usize = 8 * 7;

/// One stored bucket: value and count.
const STORED_BUCKET_BYTES: usize = 16;

/// Durations, kept as counts of buckets.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: HdrHistogram<u64>,
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
        self.buckets == other.buckets
            && (self.sum, self.min, self.max) == (other.sum, other.min, other.max)
    }
}

impl Histogram {
    /// Durations above this one count in the top bucket.
    pub const VALUE_MAX: Nanos = Nanos::new(3_600_000_000_000);

    /// An empty histogram; it takes about 260 KiB, whatever is recorded.
    ///
    /// # Panics
    /// Never: the bounds are constants that the underlying histogram accepts, which a test checks.
    #[must_use]
    pub fn new() -> Self {
        let buckets = HdrHistogram::new_with_bounds(1, Self::VALUE_MAX.get(), SIGNIFICANT_DIGITS)
            .expect("constant bounds are valid: 2 * 1 <= VALUE_MAX and digits <= 5");
        Self {
            buckets,
            sum: 0,
            min: Nanos::MAX,
            max: Nanos::ZERO,
        }
    }

    /// Adds one duration.
    pub fn record(&mut self, value: Nanos) {
        self.buckets.saturating_record(value.get());
        self.sum += u128::from(value.get());
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Adds everything that `other` recorded; the same as having recorded it here.
    pub fn merge(&mut self, other: &Self) {
        for bucket in other.buckets.iter_recorded() {
            self.buckets
                .saturating_record_n(bucket.value_iterated_to(), bucket.count_at_value());
        }
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many durations were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.len()
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
        if !(0.0..=1.0).contains(&quantile) || self.count() == 0 {
            return None;
        }
        if quantile <= 0.0 {
            return Some(self.min);
        }
        let value = Nanos::new(self.buckets.value_at_quantile(quantile));
        Some(value.clamp(self.min, self.max))
    }

    /// A histogram of durations that were counted elsewhere: how many there were at
    /// which value, and their exact sum, minimum and maximum.
    #[must_use]
    pub fn from_counts(
        counts: impl IntoIterator<Item = (Nanos, u64)>,
        sum: u128,
        (min, max): (Nanos, Nanos),
    ) -> Self {
        let mut histogram = Self {
            sum,
            min,
            max,
            ..Self::new()
        };
        for (value, count) in counts {
            histogram.buckets.saturating_record_n(value.get(), count);
        }
        histogram
    }

    /// The histogram as bytes: little endian, only the buckets that are not empty.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let buckets: Vec<_> = self.buckets.iter_recorded().collect();
        let mut bytes =
            Vec::with_capacity(STORED_HEADER_BYTES + buckets.len() * STORED_BUCKET_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.count().to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        bytes.extend_from_slice(&self.min.get().to_le_bytes());
        bytes.extend_from_slice(&self.max.get().to_le_bytes());
        bytes.extend_from_slice(&(buckets.len() as u64).to_le_bytes());
        for bucket in buckets {
            bytes.extend_from_slice(&bucket.value_iterated_to().to_le_bytes());
            bytes.extend_from_slice(&bucket.count_at_value().to_le_bytes());
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
        for bucket in stored.chunks_exact(STORED_BUCKET_BYTES) {
            histogram
                .buckets
                .saturating_record_n(word(&bucket[..8]), word(&bucket[8..]));
        }
        if histogram.count() != count || (count > 0 && min > max) {
            return bad("counts do not add up");
        }
        histogram.sum = (u128::from(sum_high) << 64) | u128::from(sum_low);
        histogram.min = Nanos::new(min);
        histogram.max = Nanos::new(max);
        Ok(histogram)
    }
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
}
