//! The Redis protocol from the client's side: reads and writes of many keys, or one command.

mod reader;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::reader::{Value, ValueReader};
use super::keys::{KeySpace, ValueCheck, failed};
use super::options::{OptionReader, Options};
use super::template::{Template, append_number};
use super::{DecodeError, Decoded, Protocol, Reply, Request};
use crate::error::CoreError;

/// Longest name of a key; Redis takes more, but nobody wants it.
const KEY_BYTES_MAX: u64 = 65_536;

/// Most words of a command.
const WORDS_MAX: usize = 1_024;

/// What a command fills in for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Key,
    Value,
    Id,
    Demand,
}

const MARKS: [(&str, Mark); 4] = [
    ("key", Mark::Key),
    ("value", Mark::Value),
    ("id", Mark::Id),
    ("demand_ns", Mark::Demand),
];

/// Settings of the Redis protocol.
#[derive(Clone, Debug)]
pub struct RespOptions {
    keys: KeySpace,
    /// Words of the command, instead of reads and writes.
    command: Option<Vec<Template<Mark>>>,
    /// What is said first on each connection, and the name under which its refusal is told.
    opening: Vec<(&'static str, Vec<u8>)>,
}

impl RespOptions {
    /// Reads the options; `seed` decides which key a request is for.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for other names and values that do not fit.
    pub fn read(options: &Options, seed: u64) -> Result<Self, CoreError> {
        let mut reader = OptionReader::new("resp", options);
        let keys = KeySpace::read(&mut reader, seed, KEY_BYTES_MAX)?;
        let expected =
            "words, with {key}, {value}, {id} and {demand_ns} where a request fills them in";
        let command = reader.parsed("command", None, expected, |text| {
            let words: Vec<_> = text
                .split_ascii_whitespace()
                .map(|word| Template::parse(word.as_bytes(), &MARKS))
                .collect();
            (1..=WORDS_MAX)
                .contains(&words.len())
                .then_some(Some(words))
        })?;
        let mut opening = Vec::new();
        if let Some(secret) = reader.text("auth") {
            // USER:PASSWORD since Redis 6, PASSWORD alone before.
            let words = match secret.split_once(':') {
                Some((user, password)) => vec![user.as_bytes(), password.as_bytes()],
                None => vec![secret.as_bytes()],
            };
            opening.push(("AUTH", array([&[&b"AUTH"[..]], &words[..]].concat())));
        }
        let database = reader.number("db", 0u32, (0, 65_535), "0 to 65535")?;
        if database > 0 {
            opening.push((
                "SELECT",
                array(vec![b"SELECT", database.to_string().as_bytes()]),
            ));
        }
        reader.finish()?;
        Ok(Self {
            keys,
            command,
            opening,
        })
    }

    /// Whether a request tells the server how much work it asks for.
    #[must_use]
    pub fn carries_demand(&self) -> bool {
        let words = self.command.iter().flatten();
        words
            .flat_map(Template::marks)
            .any(|mark| mark == Mark::Demand)
    }

    /// The options under which request `i` writes key `i`, and how many keys there are, when they
    /// are to be written before the load begins.
    #[must_use]
    pub fn for_preload(&self) -> Option<(Self, u64)> {
        self.keys.is_preloaded.then(|| {
            let options = Self {
                keys: self.keys.for_preload(),
                command: None,
                opening: self.opening.clone(),
            };
            (options, self.keys.count())
        })
    }
}

/// A command as the protocol writes it.
fn array(words: Vec<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    append_count(b'*', words.len(), &mut out);
    for word in words {
        append_count(b'$', word.len(), &mut out);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn append_count(kind: u8, count: usize, out: &mut Vec<u8>) {
    out.push(kind);
    append_number(count as u64, out);
    out.extend_from_slice(b"\r\n");
}

/// The Redis protocol.
#[derive(Clone, Debug)]
pub struct Resp {
    options: RespOptions,
    /// A word of a command before its length is known.
    word: Vec<u8>,
}

/// A command that was sent and not answered yet.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Number of what was said first.
    Opening(usize),
    Get(ValueCheck),
    Set,
    Command,
}

/// What one connection remembers.
#[derive(Debug, Default)]
pub struct RespState {
    asked: VecDeque<Asked>,
    reader: ValueReader,
}

impl Resp {
    /// The protocol with these options.
    #[must_use]
    pub const fn new(options: RespOptions) -> Self {
        Self {
            options,
            word: Vec::new(),
        }
    }

    fn encode_access(&self, request_id: u64, out: &mut Vec<u8>) -> Asked {
        let keys = &self.options.keys;
        let access = keys.access(request_id);
        let begin: &[u8] = if access.is_read {
            b"*2\r\n$3\r\nGET\r\n"
        } else {
            b"*3\r\n$3\r\nSET\r\n"
        };
        out.extend_from_slice(begin);
        append_count(b'$', keys.name_bytes(access.key), out);
        keys.append_name(access.key, out);
        out.extend_from_slice(b"\r\n");
        if access.is_read {
            return Asked::Get(keys.check(access.key));
        }
        append_count(
            b'$',
            usize::try_from(keys.value_bytes(access.key)).unwrap_or(usize::MAX),
            out,
        );
        keys.append_value(access.key, out);
        out.extend_from_slice(b"\r\n");
        Asked::Set
    }

    fn encode_command(&mut self, request: &Request, out: &mut Vec<u8>) {
        let words = self.options.command.as_deref().unwrap_or_default();
        let keys = &self.options.keys;
        let key = keys.access(request.request_id).key;
        append_count(b'*', words.len(), out);
        for word in words {
            self.word.clear();
            word.append(&mut self.word, |mark, out| match mark {
                Mark::Key => keys.append_name(key, out),
                Mark::Value => keys.append_value(key, out),
                Mark::Id => append_number(request.request_id, out),
                Mark::Demand => append_number(request.demand.get(), out),
            });
            append_count(b'$', self.word.len(), out);
            out.extend_from_slice(&self.word);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// What the answer to a request comes to.
    fn reply(&self, asked: Asked, value: &Value) -> Reply {
        let keys = &self.options.keys;
        match (asked, value) {
            (_, Value::Error(text)) => failed(text),
            (Asked::Get(check), Value::Bulk) => check.reply(keys),
            (Asked::Get(_), Value::Nil) => keys.missed(),
            (Asked::Set, Value::Ok) | (Asked::Command | Asked::Opening(_), _) => Reply::default(),
            (Asked::Get(_), _) => failed(&format!("GET is answered with {}", value.name())),
            (Asked::Set, _) => failed(&format!("SET is answered with {}", value.name())),
        }
    }
}

impl Protocol for Resp {
    type State = RespState;

    fn open(&self, _connection: u32) -> RespState {
        RespState::default()
    }

    fn greet(&mut self, state: &mut RespState, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        for (number, (_, bytes)) in self.options.opening.iter().enumerate() {
            out.extend_from_slice(bytes);
            state.asked.push_back(Asked::Opening(number));
        }
        Ok(state.asked.is_empty())
    }

    fn encode(&mut self, state: &mut RespState, request: &Request, out: &mut Vec<u8>) {
        let asked = if self.options.command.is_some() {
            self.encode_command(request, out);
            Asked::Command
        } else {
            self.encode_access(request.request_id, out)
        };
        state.asked.push_back(asked);
    }

    fn decode(
        &mut self,
        state: &mut RespState,
        bytes: &mut &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError> {
        loop {
            let RespState { asked, reader } = state;
            let keys = &self.options.keys;
            let value = reader.take(bytes, |part| {
                if let Some(Asked::Get(check)) = asked.front_mut() {
                    check.take(keys, part);
                }
            })?;
            let Some(value) = value else {
                return Ok(Decoded::More);
            };
            let Some(asked) = asked.pop_front() else {
                return Err(match value {
                    Value::Error(text) => DecodeError::Broken(text.into()),
                    _ => reader::broken("one that nobody asked for"),
                });
            };
            let Asked::Opening(number) = asked else {
                return Ok(Decoded::Reply(self.reply(asked, &value)));
            };
            let (name, _) = self.options.opening[number];
            if let Value::Error(text) = value {
                return Err(DecodeError::Broken(format!("{name}: {text}").into()));
            }
            if number + 1 == self.options.opening.len() {
                return Ok(Decoded::Ready);
            }
        }
    }
}
