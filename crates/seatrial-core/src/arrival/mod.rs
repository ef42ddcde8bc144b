//! When requests are due, how much work each one asks for, and for which key.
//!
//! The *schedule is replicated*: every thread draws the same global sequence
//! from the seed and takes the arrivals with `index mod threads == own number`.
//! So bursts survive the split, and a seed gives the same schedule, to the
//! nanosecond, for any number of threads and agents. Random numbers come from
//! `ChaCha` and `SplitMix64`, and functions of them from a portable library, so that another
//! machine draws the same.
//!
//! A `law` gives gaps with mean 1, a `pattern` turns them into times, a `process` is both together.
//! METHODOLOGY 5.1 has the formulas.

mod draws;
mod grammar;
mod law;
mod loops;
mod math;
mod mmpp;
mod pattern;
mod popularity;
mod process;
mod sequence;
mod shape;
mod size;
mod trace;

pub use draws::{Draws, Item, Key, Source, Stream};
pub use law::ArrivalLaw;
pub use loops::{Arrival, ClosedLoop, Demands, Loop, OpenLoop, Scheduled, Share};
pub use pattern::Pattern;
pub use popularity::Popularity;
pub use process::{ArrivalProcess, Transformed};
pub use sequence::ArrivalSequence;
pub use shape::Shape;
pub use size::{DemandLaw, OtherDemand, SizeLaw};
