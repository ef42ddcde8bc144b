//! What a worker counts while it serves.
//!
//! Each worker has its own [`Stats`] and is the only thread that counts there,
//! with plain loads and stores of atomics: no lock, no locked instruction, and
//! a reader may look at any time. A reader that looks while requests are served
//! may see one that is counted here but not yet there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use seatrial_core::histogram::Histogram;
use seatrial_core::units::Nanos;

use super::service::Times;

/// Most operations that one protocol tells apart.
pub const OPERATIONS_MAX: usize = 16;

/// A count that one thread advances and others may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    pub fn add(&self, count: u64) {
        let value = self.0.load(Ordering::Relaxed);
        // Whoever sees this count sees what was counted before it.
        self.0.store(value.wrapping_add(count), Ordering::Release);
    }

    /// Counts so many less, which were counted before they happened.
    pub fn take_back(&self, count: u64) {
        self.add(count.wrapping_neg());
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections of which this worker has seen the end.
    pub closed: Counter,
    /// Requests that were read whole and understood.
    pub requests: Counter,
    /// Replies that were made, those that refuse a bad request included.
    pub replies: Counter,
    /// Bytes read from peers.
    pub received_bytes: Counter,
    /// Bytes that the kernel took for peers.
    pub sent_bytes: Counter,
    /// Requests that the protocol does not allow, or that did not come whole.
    pub bad_requests: Counter,
    /// Requests that the protocol allows, for something that this server does not have.
    pub unknown_requests: Counter,
    /// Datagrams that were lost on purpose, because the server was told to lose some.
    pub dropped: Counter,
    /// Served requests by operation.
    pub operations: [Counter; OPERATIONS_MAX],
    /// Time from a request having come to the begin of its service.
    pub queue: Durations,
    /// Time from that begin to the reply.
    pub service: Durations,
}

impl Stats {
    /// A request was served and its reply made.
    pub fn served(&self, operation: usize, times: Times) {
        self.requests.add(1);
        self.replies.add(1);
        if let Some(counter) = self.operations.get(operation) {
            counter.add(1);
        }
        self.queue.record(times.queue_ns);
        self.service.record(times.service_ns);
    }

    /// A request was not one; `replied` tells whether the peer hears that.
    pub fn bad_request(&self, replied: bool) {
        self.bad_requests.add(1);
        self.replies.add(u64::from(replied));
    }

    /// A request was one, but for something that is not there; the peer hears that.
    pub fn unknown_request(&self) {
        self.unknown_requests.add(1);
        self.replies.add(1);
    }
}

/// Bits of a value that its bucket keeps: buckets are at most 1/1024 wide.
const PRECISION_BITS: u32 = 11;

/// Values from here on count in the top bucket; the range is that of
/// [`seatrial_core::histogram::Histogram`], more than an hour.
const VALUE_BITS_MAX: u32 = 42;

/// Buckets that cover one doubling of the value; the unit in which memory is taken.
const OCTAVE: usize = 1 << (PRECISION_BITS - 1);

/// The first two octaves are exact, then there is one for each further bit.
const OCTAVES: usize = 2 + (VALUE_BITS_MAX - PRECISION_BITS) as usize;

/// Durations that one thread counts and others may read.
///
/// The buckets are those of [`seatrial_core::histogram::Histogram`] (three
/// significant digits), taken by octaves of 8 KiB when they are first needed.
#[derive(Debug)]
pub struct Durations {
    octaves: [OnceLock<Box<[Counter]>>; OCTAVES],
    sum_ns: Counter,
    min_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            octaves: [const { OnceLock::new() }; OCTAVES],
            sum_ns: Counter::default(),
            min_ns: AtomicU64::new(u64::MAX),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Durations {
    /// Counts one duration.
    pub fn record(&self, nanos: u64) {
        self.sum_ns.add(nanos);
        if nanos < self.min_ns.load(Ordering::Relaxed) {
            self.min_ns.store(nanos, Ordering::Relaxed);
        }
        if nanos > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.store(nanos, Ordering::Relaxed);
        }
        // Last, so that no reader finds a duration without its minimum and maximum.
        let bucket = bucket_of(nanos);
        let octave = self.octaves[bucket / OCTAVE]
            .get_or_init(|| (0..OCTAVE).map(|_| Counter::default()).collect());
        octave[bucket % OCTAVE].add(1);
    }
}

impl Durations {
    /// What was counted so far, as a histogram that can be merged and stored.
    pub fn histogram(&self) -> Histogram {
        let octaves = self.octaves.iter().enumerate();
        let counted = octaves.filter_map(|(number, octave)| Some((number, octave.get()?)));
        let buckets = counted.flat_map(|(number, octave)| {
            let first = number * OCTAVE;
            let counts = octave.iter().map(Counter::get).enumerate();
            counts.map(move |(index, count)| (Nanos::new(value_of(first + index)), count))
        });
        let counts = buckets.filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        Histogram::from_counts(
            counts,
            self.sum_ns.get().into(),
            (
                Nanos::new(self.min_ns.load(Ordering::Relaxed)),
                Nanos::new(self.max_ns.load(Ordering::Relaxed)),
            ),
        )
    }
}

/// The bucket that a value counts in.
fn bucket_of(nanos: u64) -> usize {
    let bits = (u64::BITS - nanos.leading_zeros()).min(VALUE_BITS_MAX);
    let shift = bits.saturating_sub(PRECISION_BITS);
    let kept = (nanos >> shift).min((1 << PRECISION_BITS) - 1);
    // The kept bits fit 11, so the cast loses nothing.
    #[allow(clippy::cast_possible_truncation)]
    let kept = kept as usize;
    shift as usize * OCTAVE + kept
}

/// The largest value that counts in a bucket.
fn value_of(bucket: usize) -> u64 {
    let shift = (bucket / OCTAVE).saturating_sub(1);
    let kept = bucket - shift * OCTAVE;
    ((kept as u64 + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A value lies in its bucket, and a bucket is at most a thousandth of its values wide.
        #[test]
        fn buckets_are_as_narrow_as_promised(bits in 0..VALUE_BITS_MAX, noise: u64) {
            let nanos = (1 << bits) | (noise & ((1 << bits) - 1));
            let bucket = bucket_of(nanos);
            prop_assert!(bucket < OCTAVES * OCTAVE);
            prop_assert!(nanos <= value_of(bucket));
            prop_assert!(bucket == 0 || nanos > value_of(bucket - 1));
            prop_assert!(value_of(bucket) - nanos <= nanos / 1000);
        }
    }

    proptest! {
        /// The same values, counted here and in the histogram itself, give the same histogram.
        #[test]
        fn what_was_counted_is_a_histogram(
            values in prop::collection::vec((0..42u32, any::<u64>()), 0..200),
        ) {
            let durations = Durations::default();
            let mut expected = Histogram::new();
            for (bits, noise) in values {
                let nanos = noise % (1 << bits);
                durations.record(nanos);
                expected.record(Nanos::new(nanos));
            }
            let counted = durations.histogram();
            prop_assert_eq!(counted.to_bytes(), expected.to_bytes());
            prop_assert_eq!(Histogram::from_bytes(&counted.to_bytes()).unwrap(), counted);
        }
    }

    #[test]
    fn a_reader_finds_whole_histograms_while_durations_are_counted() {
        for _ in 0..200 {
            let durations = Durations::default();
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| (0..50).for_each(|nanos| durations.record(nanos)));
                while !writer.is_finished() {
                    let bytes = durations.histogram().to_bytes();
                    assert!(Histogram::from_bytes(&bytes).is_ok());
                }
            });
        }
    }

    #[test]
    fn the_longest_duration_has_a_bucket() {
        assert_eq!(bucket_of(u64::MAX), OCTAVES * OCTAVE - 1);
        assert_eq!(bucket_of(0), 0);
        assert_eq!(value_of(0), 0);
        assert_eq!(bucket_of((1 << VALUE_BITS_MAX) - 1), OCTAVES * OCTAVE - 1);
    }
}
