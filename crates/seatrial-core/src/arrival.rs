//! When requests are due, and how much work each one asks for.
//!
//! The *schedule is replicated*: every thread draws the same global sequence
//! from the seed and takes the arrivals with `index mod threads == own number`.
//! So bursts survive the split, and a seed gives the same schedule, to the
//! nanosecond, for any number of threads. Random numbers come from `ChaCha` with
//! one stream per purpose, and logarithms from a portable implementation, so
//! that another machine draws the same.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::CoreError;
use crate::units::{Nanos, RatePerSecond, parse_duration};

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

    /// Uniform in (0, 1], with 53 bits.
    fn unit(&mut self) -> f64 {
        const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
        ((self.0.next_u64() >> 11) + 1) as f64 * SCALE
    }

    /// Exponential with this mean, by inverse transform.
    fn exponential(&mut self, mean: f64) -> f64 {
        -libm::log(self.unit()) * mean
    }
}

/// The law of the times between arrivals of an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivalLaw {
    /// The same gap always; the first arrival is at the very start.
    Fixed,
    /// Exponential gaps: a Poisson process.
    Poisson,
}

impl ArrivalLaw {
    /// Reads `fixed` or `poisson`.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for any other name.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        match text {
            "fixed" => Ok(Self::Fixed),
            "poisson" => Ok(Self::Poisson),
            _ => Err(CoreError::InvalidValue {
                what: "arrival law",
                value: text.to_owned(),
                expected: "fixed or poisson",
            }),
        }
    }
}

/// The global sequence of arrival instants, counted from the start of the load. It never ends.
#[derive(Clone, Debug)]
pub struct ArrivalSequence {
    law: ArrivalLaw,
    gap_ns: f64,
    draws: Draws,
    index: u64,
    elapsed_ns: f64,
}

impl ArrivalSequence {
    /// The sequence of this law, rate and seed.
    #[must_use]
    pub fn new(law: ArrivalLaw, rate: RatePerSecond, seed: u64) -> Self {
        let draws = Draws::new(seed, Stream::Arrival);
        Self {
            law,
            gap_ns: rate.mean_gap_ns(),
            draws,
            index: 0,
            elapsed_ns: 0.0,
        }
    }
}

impl Iterator for ArrivalSequence {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        // Sums stay in f64 and are rounded last, so that rounding never adds up:
        // below 2^53 ns (104 days) every whole nanosecond can be told apart.
        self.elapsed_ns = match self.law {
            ArrivalLaw::Fixed => self.index as f64 * self.gap_ns,
            ArrivalLaw::Poisson => self.elapsed_ns + self.draws.exponential(self.gap_ns),
        };
        self.index += 1;
        Some(Nanos::from_f64(self.elapsed_ns).unwrap_or(Nanos::MAX))
    }
}

/// The law of the work that a request asks the server for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DemandLaw {
    /// Nothing is asked for.
    #[default]
    None,
    /// The same always.
    Constant(Nanos),
    /// Exponential with this mean.
    Exponential(Nanos),
}

impl DemandLaw {
    /// Reads `none`, `constant:100us` or `exponential:1ms`.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for an unknown law or a bad duration.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("constant", value)) => Ok(Self::Constant(parse_duration(value)?)),
            Some(("exponential", mean)) => Ok(Self::Exponential(parse_duration(mean)?)),
            _ => Err(CoreError::InvalidValue {
                what: "demand law",
                value: text.to_owned(),
                expected: "none, constant:TIME or exponential:TIME",
            }),
        }
    }

    /// Draws one value.
    pub fn draw(self, draws: &mut Draws) -> Nanos {
        match self {
            Self::None => Nanos::ZERO,
            Self::Constant(value) => value,
            Self::Exponential(mean) => {
                Nanos::from_f64(draws.exponential(mean.get() as f64)).unwrap_or(Nanos::MAX)
            }
        }
    }
}

/// Which requests of the global sequence belong to one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Number of this thread, from 0.
    pub member: u32,
    /// Number of threads, at least 1.
    pub members: u32,
}

impl Share {
    /// Whether the request with this global index is ours.
    #[must_use]
    pub const fn owns(self, index: u64) -> bool {
        index % self.members as u64 == self.member as u64
    }

    /// The number in the whole run of our thing number `own`, when things are dealt in turn.
    #[must_use]
    pub fn number_of(self, own: usize) -> u32 {
        self.member + self.members * u32::try_from(own).unwrap_or(u32::MAX)
    }

    /// How many of the first `total` items are ours.
    #[must_use]
    pub const fn portion_of(self, total: u64) -> u64 {
        let members = self.members as u64;
        total / members + (total % members > self.member as u64) as u64
    }
}

/// A request that is due, before it has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Index in the global sequence; no two requests of a run share one.
    pub request_id: u64,
    /// The instant at which it should have been sent.
    pub intended_at: Nanos,
    /// The work it asks for.
    pub demand: Nanos,
}

/// What decides when the next request of a thread is due.
pub trait Arrival {
    /// When the next request is due; `None` as long as that is not known.
    ///
    /// `slot_free_at` is the instant at which the place that waits longest
    /// became free, or `None` when all are taken.
    fn due_at(&self, slot_free_at: Option<Nanos>) -> Option<Nanos>;

    /// Takes the request that [`Arrival::due_at`] just announced for `intended_at`.
    fn take(&mut self, intended_at: Nanos) -> Scheduled;

    /// Whether the bound on requests is reached.
    fn is_exhausted(&self) -> bool;
}

/// One thread's part of the demands and ids of the global sequence.
#[derive(Clone, Debug)]
struct Sequence {
    share: Share,
    law: DemandLaw,
    draws: Draws,
    index: u64,
    index_end: u64,
}

impl Sequence {
    fn new(share: Share, law: DemandLaw, seed: u64, requests_max: u64) -> Self {
        let draws = Draws::new(seed, Stream::Demand);
        Self {
            share,
            law,
            draws,
            index: 0,
            index_end: requests_max,
        }
    }

    /// The next id of ours with its demand; the demands of others are drawn and skipped.
    fn next(&mut self) -> (u64, Nanos) {
        loop {
            let index = self.index;
            let demand = self.law.draw(&mut self.draws);
            self.index += 1;
            if self.share.owns(index) {
                return (index, demand);
            }
        }
    }

    /// Index of the next request of ours.
    const fn next_index(&self) -> u64 {
        let members = self.share.members as u64;
        let offset = self.index % members;
        let wait = (self.share.member as u64 + members - offset) % members;
        self.index + wait
    }

    const fn is_exhausted(&self) -> bool {
        self.next_index() >= self.index_end
    }
}

/// Open loop: requests are due by the schedule, whatever the replies do.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    start: Nanos,
    arrivals: ArrivalSequence,
    sequence: Sequence,
    head: Nanos,
}

impl OpenLoop {
    /// One thread's share of the schedule that starts at `start`.
    #[must_use]
    pub fn new(start: Nanos, arrivals: ArrivalSequence, demand: &Demands) -> Self {
        let sequence = demand.sequence();
        let mut open = Self {
            start,
            arrivals,
            sequence,
            head: Nanos::ZERO,
        };
        let skipped = u64::from(open.sequence.share.member);
        open.move_head(skipped);
        open
    }

    fn move_head(&mut self, skipped: u64) {
        for _ in 0..skipped {
            let _ = self.arrivals.next();
        }
        let offset = self.arrivals.next().unwrap_or(Nanos::MAX);
        self.head = self.start.later_by(offset);
    }
}

impl Arrival for OpenLoop {
    fn due_at(&self, _slot_free_at: Option<Nanos>) -> Option<Nanos> {
        (!self.is_exhausted()).then_some(self.head)
    }

    fn take(&mut self, intended_at: Nanos) -> Scheduled {
        let (request_id, demand) = self.sequence.next();
        self.move_head(u64::from(self.sequence.share.members) - 1);
        Scheduled {
            request_id,
            intended_at,
            demand,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.sequence.is_exhausted()
    }
}

/// Closed loop: a request is due as soon as a place is free.
#[derive(Clone, Debug)]
pub struct ClosedLoop {
    sequence: Sequence,
}

impl ClosedLoop {
    /// One thread's share of a closed loop.
    #[must_use]
    pub fn new(demand: &Demands) -> Self {
        Self {
            sequence: demand.sequence(),
        }
    }
}

impl Arrival for ClosedLoop {
    fn due_at(&self, slot_free_at: Option<Nanos>) -> Option<Nanos> {
        if self.is_exhausted() {
            None
        } else {
            slot_free_at
        }
    }

    fn take(&mut self, intended_at: Nanos) -> Scheduled {
        let (request_id, demand) = self.sequence.next();
        Scheduled {
            request_id,
            intended_at,
            demand,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.sequence.is_exhausted()
    }
}

/// What a thread needs to know to draw its demands and ids.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// Which requests are its own.
    pub share: Share,
    /// The law of the demands.
    pub law: DemandLaw,
    /// The seed of the run.
    pub seed: u64,
    /// Requests of all threads together.
    pub requests_max: u64,
}

impl Demands {
    fn sequence(&self) -> Sequence {
        Sequence::new(self.share, self.law, self.seed, self.requests_max)
    }
}
