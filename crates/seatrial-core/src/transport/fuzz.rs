//! Damaged streams for the tests of parsers: what is done to a stream, and how it is cut into reads.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::{DecodeError, Decoded, Protocol, Reply};

/// Damaged inputs of each parser.
const CASES: u32 = 12_000;

/// As many inputs as every parser has to stand.
pub fn config() -> Config {
    Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    }
}

/// Something that goes wrong with a stream; places are shares of its length.
#[derive(Clone, Debug)]
enum Change {
    Flip { at: f64, bits: u8 },
    Set { at: f64, byte: u8 },
    Cut { at: f64, length: usize },
    Duplicate { at: f64, length: usize },
    Splice { from: f64, length: usize, to: f64 },
    Insert { at: f64, bytes: Vec<u8> },
}

/// Some changes, one after another.
#[derive(Clone, Debug)]
pub struct Damage(Vec<Change>);

/// Up to six changes of any kind.
pub fn damage() -> impl Strategy<Value = Damage> {
    let at = || 0.0..1.0f64;
    let length = || 1..64usize;
    let change = prop_oneof![
        (at(), 1..=255u8).prop_map(|(at, bits)| Change::Flip { at, bits }),
        (
            at(),
            prop::sample::select(&b"\r\n :;,$*+-_%0129aAfF\0\xff"[..])
        )
            .prop_map(|(at, byte)| Change::Set { at, byte }),
        (at(), length()).prop_map(|(at, length)| Change::Cut { at, length }),
        (at(), length()).prop_map(|(at, length)| Change::Duplicate { at, length }),
        (at(), length(), at()).prop_map(|(from, length, to)| Change::Splice { from, length, to }),
        (at(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Change::Insert { at, bytes }),
    ];
    prop::collection::vec(change, 0..6).prop_map(Damage)
}

impl Damage {
    /// The stream after all changes.
    pub fn applied_to(&self, stream: &[u8]) -> Vec<u8> {
        let mut bytes = stream.to_vec();
        for change in &self.0 {
            if bytes.is_empty() {
                break;
            }
            apply(change, &mut bytes);
        }
        bytes
    }
}

fn apply(change: &Change, bytes: &mut Vec<u8>) {
    let total = bytes.len();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // shares are within 0 and 1
    let place = |share: f64| ((share * total as f64) as usize).min(total - 1);
    let range = |share, length: usize| place(share)..(place(share) + length).min(total);
    match change {
        Change::Flip { at, bits } => bytes[place(*at)] ^= bits,
        Change::Set { at, byte } => bytes[place(*at)] = *byte,
        Change::Cut { at, length } => drop(bytes.drain(range(*at, *length))),
        Change::Duplicate { at, length } => {
            let copy = bytes[range(*at, *length)].to_vec();
            bytes.splice(place(*at)..place(*at), copy);
        }
        Change::Splice { from, length, to } => {
            let copy = bytes[range(*from, *length)].to_vec();
            bytes.splice(place(*to)..place(*to), copy);
        }
        Change::Insert { at, bytes: new } => {
            drop(bytes.splice(place(*at)..place(*at), new.clone()));
        }
    }
}

/// Lengths of reads, used in turn.
#[derive(Clone, Debug)]
pub struct Cuts(Vec<usize>);

/// Reads of 1 to 200 bytes.
pub fn cuts() -> impl Strategy<Value = Cuts> {
    prop::collection::vec(1..200usize, 1..8).prop_map(Cuts)
}

impl Cuts {
    /// The stream as it is read.
    pub fn pieces<'a>(&'a self, stream: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = stream;
        let mut lengths = self.0.iter().cycle();
        std::iter::from_fn(move || {
            let length = (*lengths.next()?).min(rest.len());
            let (piece, after) = rest.split_at(length);
            rest = after;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// All replies of a stream, read as a transport does it. Panics when a call neither takes a byte nor tells
/// anything, because a transport would then never come back.
pub fn replies_of<'a, P: Protocol>(
    protocol: &mut P,
    state: &mut P::State,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Reply>, DecodeError> {
    let mut replies = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() || protocol.holds_back(state) {
            let before = piece.len();
            match protocol.decode(state, &mut piece, &mut Vec::new())? {
                Decoded::Reply(reply) => replies.push(reply),
                Decoded::More => {
                    assert!(piece.is_empty(), "bytes were left although more is needed");
                }
                Decoded::Ready | Decoded::Closing => assert!(piece.len() < before, "no progress"),
            }
        }
    }
    Ok(replies)
}
