//! What the value of a key is, and whether what arrives is that.

use std::sync::LazyLock;

use super::{CONTENT_SEED, KeySpace, failed};
use crate::arrival::{Key, Source, Stream};
use crate::transport::{Reply, take_front};

/// Contents are windows into a block of this many pseudo-random bytes: a prime, so that no size of value fits it.
const BLOCK_BYTES: usize = 65_521;

/// Bytes in front of a content that differ for every key.
const MARK_BYTES: usize = 8;

/// A value as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct ValueCheck {
    key: u64,
    seen_bytes: u64,
    wrong_at: Option<u64>,
}

impl ValueCheck {
    pub(super) const fn new(key: u64) -> Self {
        Self {
            key,
            seen_bytes: 0,
            wrong_at: None,
        }
    }

    /// Compares the next bytes.
    pub fn take(&mut self, keys: &KeySpace, bytes: &[u8]) {
        let content = Content::of(self.key);
        let mut rest = bytes;
        while !rest.is_empty() && keys.is_verified && self.wrong_at.is_none() {
            let expected = content.part(usize::try_from(self.seen_bytes).unwrap_or(usize::MAX));
            let expected = expected.as_ref();
            let part = take_front(&mut rest, expected.len());
            if part != &expected[..part.len()] {
                let same = part
                    .iter()
                    .zip(expected)
                    .take_while(|(found, right)| found == right);
                self.wrong_at = Some(self.seen_bytes + same.count() as u64);
            }
            self.seen_bytes += part.len() as u64;
        }
        self.seen_bytes += rest.len() as u64;
    }

    /// What the whole value comes to.
    #[must_use]
    pub fn reply(&self, keys: &KeySpace) -> Reply {
        let expected = keys.value_bytes(self.key);
        let found = self.seen_bytes;
        if !keys.is_verified {
            return Reply::default();
        }
        if found != expected {
            let name = keys.name(self.key);
            return failed(&format!(
                "value of {found} bytes, expected {expected}, for key {name}"
            ));
        }
        match self.wrong_at {
            None => Reply::default(),
            Some(at) => failed(&format!(
                "value differs at byte {at} of {found}, for key {}",
                keys.name(self.key)
            )),
        }
    }
}

/// The endless content of a key: a mark of its own, then the block from a place of its own on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    mark: [u8; MARK_BYTES],
    place: usize,
}

pub(super) enum Part {
    Mark([u8; MARK_BYTES], usize),
    Block(&'static [u8]),
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mark(mark, from) => &mark[*from..],
            Self::Block(bytes) => bytes,
        }
    }
}

impl Content {
    pub(super) fn of(key: u64) -> Self {
        let mut item = Key::new(CONTENT_SEED, Stream::Content).item(key);
        let place = usize::try_from(item.below(BLOCK_BYTES as u64)).unwrap_or_default();
        Self {
            mark: item.next_bits().to_le_bytes(),
            place,
        }
    }

    /// What is at this offset, as far as it lies together; at least a byte.
    pub(super) fn part(self, offset: usize) -> Part {
        if offset < MARK_BYTES {
            return Part::Mark(self.mark, offset);
        }
        Part::Block(&BLOCK[(self.place + offset - MARK_BYTES) % BLOCK_BYTES..])
    }
}

/// The bytes that all contents are windows into.
static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut item = Key::new(CONTENT_SEED, Stream::Content).item(u64::MAX);
    let words = BLOCK_BYTES.div_ceil(MARK_BYTES);
    let mut bytes: Vec<u8> = (0..words)
        .flat_map(|_| item.next_bits().to_le_bytes())
        .collect();
    bytes.truncate(BLOCK_BYTES);
    bytes
});
