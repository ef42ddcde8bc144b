//! Keys and values for stores: which key a request is for, how it is named, and what its value is.
//!
//! A key is a number. Its name is that number in decimal digits, padded with zeros to the size that
//! was drawn for it; its value has a size and a content of its own. Both depend on the key alone, so any
//! run can check what another one wrote. Which key a request is for depends on seed and request id alone.

mod value;

use super::Reply;
use super::options::OptionReader;
use super::template::append_number;
use crate::arrival::{Key, Popularity, SizeLaw, Source, Stream};
use crate::error::CoreError;
use value::Content;

pub use value::ValueCheck;

/// Largest value: what both stores take unless they are told otherwise, with room for their own headers.
const VALUE_BYTES_MAX: u64 = 1_000_000;

/// Most keys of a load that are written before it begins.
const PRELOAD_KEYS_MAX: u64 = 10_000_000;

/// Names and values are the same in all runs, so these draws have one seed for ever.
const CONTENT_SEED: u64 = 0x5ea7_71a1;

/// What to think of a key that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// As good as a value; it is counted as `miss`.
    Ok,
    /// A failure.
    Error,
}

/// The text under which misses are counted.
pub const MISS: &str = "miss";

/// Settings that all stores have.
#[derive(Clone, Debug)]
pub struct KeySpace {
    keys: u64,
    digits: usize,
    key_bytes: Sizes,
    value_bytes: Sizes,
    popularity: Popularity,
    read_ratio: f64,
    /// Whether request `i` writes key `i`, whatever the laws say.
    is_in_turn: bool,
    /// What was drawn for each request.
    which: Key,
    operation: Key,
    pub(super) miss: Miss,
    pub(super) is_verified: bool,
    pub(super) is_preloaded: bool,
}

/// A law of sizes, and the size where there is but one: most loads have such, and it need not be drawn.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    law: SizeLaw,
    constant: Option<u64>,
    stream: Stream,
}

impl Sizes {
    fn new(law: SizeLaw, stream: Stream) -> Self {
        Self {
            constant: law.constant(),
            law,
            stream,
        }
    }

    #[inline]
    fn of(&self, key: u64) -> u64 {
        let draw = || self.law.size_of(Key::new(CONTENT_SEED, self.stream), key);
        self.constant.unwrap_or_else(draw)
    }
}

/// What a request does with which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The number of the key.
    pub key: u64,
    /// Whether it is read, and not written.
    pub is_read: bool,
}

impl Access {
    /// What it is, in a word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        if self.is_read { "read" } else { "write" }
    }
}

impl KeySpace {
    /// Reads `keys`, `key_bytes`, `value_bytes`, `popularity`, `read_ratio`, `miss`, `verify` and `preload`.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for values that do not fit.
    pub fn read(
        reader: &mut OptionReader<'_>,
        seed: u64,
        key_bytes_max: u64,
    ) -> Result<Self, CoreError> {
        let keys = reader.number("keys", 10_000u64, (1, 1 << 48), "1 to 2^48")?;
        let digits = (keys - 1).max(1).ilog10() as usize + 1;
        let mut law = |name, default: &str, max| {
            let text = reader.text(name).unwrap_or(default);
            SizeLaw::parse(text, max).map_err(|error| reader.invalid_text(name, error.expected()))
        };
        let key_bytes = law("key_bytes", "16", key_bytes_max)?;
        let value_bytes = law("value_bytes", "100", VALUE_BYTES_MAX)?;
        let text = reader.text("popularity").unwrap_or("uniform");
        let popularity = Popularity::parse(text, keys)
            .map_err(|error| reader.invalid_text("popularity", error.expected()))?;
        let read_ratio = reader.number(
            "read_ratio",
            0.9,
            (0.0, 1.0),
            "0 to 1, the share of requests that read",
        )?;
        let miss = reader.parsed("miss", Miss::Ok, "ok or error", |text| match text {
            "ok" => Some(Miss::Ok),
            "error" => Some(Miss::Error),
            _ => None,
        })?;
        let is_verified = reader.flag("verify", true)?;
        let is_preloaded = reader.flag("preload", false)?;
        if is_preloaded && keys > PRELOAD_KEYS_MAX {
            let expected = format!("false for more than {PRELOAD_KEYS_MAX} keys");
            return Err(reader.invalid_text("preload", expected));
        }
        Ok(Self {
            keys,
            digits,
            key_bytes: Sizes::new(key_bytes, Stream::KeySize),
            value_bytes: Sizes::new(value_bytes, Stream::ValueSize),
            popularity,
            read_ratio,
            is_in_turn: false,
            which: Key::new(seed, Stream::Key),
            operation: Key::new(seed, Stream::Operation),
            miss,
            is_verified,
            is_preloaded,
        })
    }

    /// How many keys there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.keys
    }

    /// The same, but request `i` writes key `i`.
    #[must_use]
    pub fn for_preload(&self) -> Self {
        Self {
            is_in_turn: true,
            ..self.clone()
        }
    }

    /// What this request does.
    #[must_use]
    pub fn access(&self, request_id: u64) -> Access {
        if self.is_in_turn {
            return Access {
                key: request_id % self.keys,
                is_read: false,
            };
        }
        Access {
            key: self.popularity.key_of(self.which, request_id),
            is_read: self.operation.item(request_id).unit() <= self.read_ratio,
        }
    }

    /// Length of the name of a key.
    #[must_use]
    pub fn name_bytes(&self, key: u64) -> usize {
        let drawn = self.key_bytes.of(key);
        usize::try_from(drawn)
            .unwrap_or(usize::MAX)
            .max(self.digits)
    }

    /// Appends the name of a key.
    pub fn append_name(&self, key: u64, out: &mut Vec<u8>) {
        let end = out.len() + self.name_bytes(key);
        let digits = key.max(1).ilog10() as usize + 1;
        out.resize(end - digits, b'0');
        append_number(key, out);
    }

    /// The name of a key, for messages.
    #[must_use]
    pub fn name(&self, key: u64) -> String {
        let mut out = Vec::new();
        self.append_name(key, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Length of the value of a key.
    #[must_use]
    pub fn value_bytes(&self, key: u64) -> u64 {
        self.value_bytes.of(key)
    }

    /// Appends the value of a key.
    pub fn append_value(&self, key: u64, out: &mut Vec<u8>) {
        let length = usize::try_from(self.value_bytes(key)).unwrap_or(usize::MAX);
        let content = Content::of(key);
        let mut offset = 0;
        while offset < length {
            let part = content.part(offset);
            let part = &part.as_ref()[..part.as_ref().len().min(length - offset)];
            out.extend_from_slice(part);
            offset += part.len();
        }
    }

    /// Begins to look at a value that arrives.
    #[must_use]
    pub fn check(&self, key: u64) -> ValueCheck {
        ValueCheck::new(key)
    }

    /// What a key that is not there comes to.
    pub(super) fn missed(&self) -> Reply {
        match self.miss {
            Miss::Ok => Reply {
                note: Some(MISS),
                ..Reply::default()
            },
            Miss::Error => failed(MISS),
        }
    }
}

/// A reply in which the server did not do what was asked.
pub(super) fn failed(text: &str) -> Reply {
    Reply {
        failure: Some(text.into()),
        ..Reply::default()
    }
}

/// Text of a server, for people: what is not readable is replaced.
pub(super) fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::options::Options;
    use std::collections::HashSet;

    fn keys(pairs: &[(&str, &str)]) -> KeySpace {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options: Options = pairs.iter().map(own).collect();
        KeySpace::read(&mut OptionReader::new("test", &options), 1, 250).unwrap()
    }

    #[test]
    fn names_are_padded_numbers_of_varying_length_and_never_alike() {
        let keys = keys(&[("keys", "2000"), ("key_bytes", "fb_key")]);
        let names: Vec<_> = (0..2000).map(|key| keys.name(key)).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 2000);
        for (key, name) in names.iter().enumerate() {
            assert_eq!(name.parse::<usize>().unwrap(), key);
            assert_eq!(name.len(), keys.name_bytes(key as u64));
            assert!((4..=250).contains(&name.len()));
        }
        let lengths: HashSet<_> = names.iter().map(String::len).collect();
        assert!(
            lengths.len() > 20,
            "sizes vary from key to key: {lengths:?}"
        );
        let mean = names.iter().map(String::len).sum::<usize>() as f64 / 2000.0;
        assert!((30.0..45.0).contains(&mean), "{mean}");
    }

    #[test]
    fn values_vary_with_the_key_and_with_nothing_else() {
        let laws = [
            ("value_bytes", "lognormal:mean=1KiB,cv=1"),
            ("keys", "1000"),
        ];
        let (one, two) = (
            keys(&laws),
            keys(&[laws[0], laws[1], ("read_ratio", "0.5")]),
        );
        let mut lengths = HashSet::new();
        let mut total = 0;
        for key in 0..1000 {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            one.append_value(key, &mut first);
            two.append_value(key, &mut second);
            assert_eq!(first, second);
            assert_eq!(first.len() as u64, one.value_bytes(key));
            total += first.len();
            lengths.insert(first.len());
        }
        assert!(lengths.len() > 500, "{}", lengths.len());
        assert!((700_000..1_400_000).contains(&total), "{total}");
    }

    #[test]
    fn a_check_finds_any_changed_byte_in_any_cut() {
        let keys = keys(&[("value_bytes", "200000")]);
        let mut value = Vec::new();
        keys.append_value(7, &mut value);
        for wrong_at in [None, Some(0), Some(8), Some(65_530), Some(199_999)] {
            let mut sent = value.clone();
            if let Some(at) = wrong_at {
                sent[at] ^= 0x80;
            }
            for cut in [13, 4096, 300_000] {
                let mut check = keys.check(7);
                sent.chunks(cut).for_each(|part| check.take(&keys, part));
                let told = check.reply(&keys).failure;
                let expected = wrong_at.map(|at| {
                    format!("value differs at byte {at} of 200000, for key 0000000000000007")
                });
                assert_eq!(told.as_deref(), expected.as_deref());
            }
        }
    }

    #[test]
    fn requests_follow_ratio_and_popularity() {
        let keys = keys(&[
            ("read_ratio", "0.75"),
            ("popularity", "zipf:skew=1"),
            ("keys", "1000"),
        ]);
        let drawn: Vec<_> = (0..100_000).map(|id| keys.access(id)).collect();
        let reads = drawn.iter().filter(|access| access.is_read).count();
        assert!((74_000..76_000).contains(&reads), "{reads}");
        // The most popular of 1000 keys has the share 1 / H(1000) = 0.1336.
        let first = drawn.iter().filter(|access| access.key == 0).count();
        assert!((12_800..13_900).contains(&first), "{first}");
        assert!(drawn.iter().all(|access| access.key < 1000));
        assert_eq!(keys.access(5), keys.access(5));
        let in_turn = keys.for_preload();
        assert_eq!(
            in_turn.access(999),
            Access {
                key: 999,
                is_read: false
            }
        );
    }

    #[test]
    fn options_out_of_bounds_are_refused() {
        let rows = [
            ("keys", "0"),
            ("key_bytes", "251"),
            ("value_bytes", "2MiB"),
            ("read_ratio", "-1"),
            ("popularity", "zipf"),
            ("miss", "maybe"),
            ("verify", "1"),
        ];
        for (name, value) in rows {
            let options = Options::from([(name.to_owned(), value.to_owned())]);
            let error =
                KeySpace::read(&mut OptionReader::new("test", &options), 1, 250).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("test option {name}")),
                "{error}"
            );
            assert_eq!(error.to_string().matches("expected").count(), 1, "{error}");
        }
        let many = Options::from([
            ("keys".to_owned(), "10000001".to_owned()),
            ("preload".to_owned(), "true".to_owned()),
        ]);
        assert!(KeySpace::read(&mut OptionReader::new("test", &many), 1, 250).is_err());
    }
}
