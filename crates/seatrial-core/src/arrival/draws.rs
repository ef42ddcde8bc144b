//! Seeded sources of random numbers, the same on every machine.
//!
//! Two kinds: a *stream* (`ChaCha8`) is drawn in order, as gaps are; a *key*
//! gives each request its own numbers as a pure function of seed, purpose and
//! request id, so that they do not depend on which thread asks, or when.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Streams of the seed, one for each thing that is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Times between arrivals.
    Arrival = 1,
    /// Service demands, chosen by the client.
    Demand = 2,
    /// Service times of the fake server.
    FakeService = 3,
    /// Think times of a closed loop.
    Think = 4,
    /// Which key a request is for.
    Key = 5,
    /// Size of the key with a given number.
    KeySize = 6,
    /// Size of the value of a request.
    ValueSize = 7,
    /// Which operation a request asks for, where there is a mix.
    Operation = 8,
    /// Where a value lies inside of an atom, when gaps are tested against a law that has some.
    Atom = 9,
    /// What the values of keys are made of.
    Content = 10,
    /// Which requests are kept as records, where not all are.
    Record = 11,
}

/// Something that gives 64 independent, even bits at a time.
pub trait Source {
    /// The next 64 bits.
    fn next_bits(&mut self) -> u64;

    /// Uniform in (0, 1], with 53 bits.
    fn unit(&mut self) -> f64 {
        const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
        ((self.next_bits() >> 11) + 1) as f64 * SCALE
    }

    /// Exponential with mean 1, by inverse transform.
    fn exponential(&mut self) -> f64 {
        -libm::log(self.unit())
    }

    /// Standard normal, by the method of Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(2.0 * self.exponential());
        radius * libm::cos(2.0 * std::f64::consts::PI * self.unit())
    }

    /// A whole number below `limit`, which is at least 1; its bias is below `limit / 2^64`.
    fn below(&mut self, limit: u64) -> u64 {
        #[allow(clippy::cast_possible_truncation)] // the high half of a product of 64 by 64 bits
        let high = ((u128::from(self.next_bits()) * u128::from(limit)) >> 64) as u64;
        high
    }
}

/// A seeded source of random numbers; the streams of one seed are independent.
#[derive(Clone, Debug)]
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// The named stream of this seed.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream as u64);
        Self(generator)
    }
}

impl Source for Draws {
    fn next_bits(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Step of the Weyl sequence of `SplitMix64`: 2^64 over the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64` (Steele, Lea and Flood 2014, with Stafford's constants).
const fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Gives each item (a request, a key) its own source of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The key of this seed for one purpose.
    #[must_use]
    pub const fn new(seed: u64, stream: Stream) -> Self {
        Self(mixed(
            mixed(seed.wrapping_add(STEP)) ^ (stream as u64).wrapping_mul(STEP),
        ))
    }

    /// The source of one item: always the same numbers for the same item.
    #[must_use]
    pub const fn item(self, id: u64) -> Item {
        // Mixed twice: sources that began at neighbouring states would share their numbers.
        Item(mixed(mixed(self.0.wrapping_add(id.wrapping_mul(STEP)))))
    }
}

/// The random numbers of one item, a `SplitMix64` sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item(u64);

impl Source for Item {
    fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_an_item_depend_on_seed_stream_and_id_only() {
        let key = Key::new(1, Stream::Key);
        // Fixed here, so that a change of the formula cannot go unseen.
        let told: Vec<u64> = (0..3).map(|id| key.item(id).next_bits()).collect();
        let right = [
            12_061_104_485_225_267_390,
            14_784_953_395_252_870_759,
            17_542_868_654_948_824_475,
        ];
        assert_eq!(told, right);
        assert_ne!(key, Key::new(2, Stream::Key));
        assert_ne!(key, Key::new(1, Stream::Demand));
    }

    #[test]
    fn neighbouring_items_share_no_number() {
        let key = Key::new(7, Stream::ValueSize);
        let mut seen = std::collections::HashSet::new();
        for id in 0..10_000 {
            let mut item = key.item(id);
            for _ in 0..4 {
                assert!(seen.insert(item.next_bits()), "item {id} repeats a number");
            }
        }
    }

    #[test]
    fn items_are_even_and_unrelated() {
        let count = 100_000;
        let rows = [
            (Key::new(0, Stream::Key), Key::new(1, Stream::Key)),
            (Key::new(5, Stream::Key), Key::new(5, Stream::ValueSize)),
        ];
        for (one, other) in rows {
            let draw = |key: Key, id| key.item(id).unit() - 0.5;
            let same = |shift: u64| {
                let products = (0..count).map(|id| draw(one, id) * draw(other, id + shift));
                12.0 * products.sum::<f64>() / count as f64
            };
            // Standard error of a correlation is 1/sqrt(n) = 0.0032.
            assert!(same(0).abs() < 0.016 && same(1).abs() < 0.016);
            let mean = (0..count).map(|id| draw(one, id)).sum::<f64>() / count as f64;
            assert!(mean.abs() < 0.005, "{mean}");
        }
    }

    #[test]
    fn whole_numbers_stay_below_their_limit() {
        let mut draws = Draws::new(3, Stream::Arrival);
        let mut counts = [0u32; 3];
        for _ in 0..30_000 {
            counts[usize::try_from(draws.below(3)).unwrap()] += 1;
        }
        // Standard deviation of each count is 82.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 400));
        assert_eq!(draws.below(1), 0);
    }
}
