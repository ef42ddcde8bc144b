//! memcached from the client's side: reads and writes of many keys, in the classic text dialect or with
//! meta commands, whose replies carry the number of the request.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::keys::{Access, KeySpace, ValueCheck, failed, readable};
use super::lines::LineReader;
use super::options::{OptionReader, Options};
use super::template::{append_number, read_number};
use super::{DecodeError, Decoded, Protocol, Reply, Request, take_front};
use crate::error::CoreError;

/// Longest name of a key that memcached takes.
const KEY_BYTES_MAX: u64 = 250;

/// Longest line of a reply: the name of a key and some numbers, or an error.
const LINE_BYTES_MAX: usize = 2_048;

/// Largest value that a server may announce: the most that memcached can be told to hold.
const VALUE_BYTES_MAX: u64 = 1 << 30;

/// The two ways of saying the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// `get` and `set`.
    Text,
    /// `mg` and `ms`, with the number of the request in each reply.
    Meta,
}

/// Settings of the memcached protocol.
#[derive(Clone, Debug)]
pub struct MemcachedOptions {
    keys: KeySpace,
    dialect: Dialect,
}

impl MemcachedOptions {
    /// Reads the options; `seed` decides which key a request is for.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for other names and values that do not fit.
    pub fn read(options: &Options, seed: u64) -> Result<Self, CoreError> {
        let mut reader = OptionReader::new("memcached", options);
        let keys = KeySpace::read(&mut reader, seed, KEY_BYTES_MAX)?;
        let dialect = reader.parsed(
            "dialect",
            Dialect::Text,
            "text or meta",
            |text| match text {
                "text" => Some(Dialect::Text),
                "meta" => Some(Dialect::Meta),
                _ => None,
            },
        )?;
        reader.finish()?;
        Ok(Self { keys, dialect })
    }

    /// The options under which request `i` writes key `i`, and how many keys there are, when they
    /// are to be written before the load begins.
    #[must_use]
    pub fn for_preload(&self) -> Option<(Self, u64)> {
        self.keys.is_preloaded.then(|| {
            let options = Self {
                keys: self.keys.for_preload(),
                dialect: self.dialect,
            };
            (options, self.keys.count())
        })
    }
}

/// The memcached protocol.
#[derive(Clone, Debug)]
pub struct Memcached {
    options: MemcachedOptions,
}

/// A request that was sent and not answered yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    request_id: u64,
    access: Access,
}

/// What is read next.
#[derive(Clone, Copy, Debug, Default)]
enum Part {
    /// The line that begins a reply.
    #[default]
    Line,
    /// A value of which so much is missing.
    Value(u64, ValueCheck),
    /// The line end after a value.
    ValueEnd(ValueCheck),
    /// The line `END` after the value.
    End(ValueCheck),
}

/// What one connection remembers.
#[derive(Debug, Default)]
pub struct MemcachedState {
    asked: VecDeque<Asked>,
    lines: LineReader,
    part: Part,
}

impl Memcached {
    /// The protocol with these options.
    #[must_use]
    pub const fn new(options: MemcachedOptions) -> Self {
        Self { options }
    }

    fn encode_get(&self, asked: Asked, out: &mut Vec<u8>) {
        let name: &[u8] = match self.options.dialect {
            Dialect::Text => b"get ",
            Dialect::Meta => b"mg ",
        };
        out.extend_from_slice(name);
        self.options.keys.append_name(asked.access.key, out);
        if self.options.dialect == Dialect::Meta {
            out.extend_from_slice(b" v O");
            append_number(asked.request_id, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn encode_set(&self, asked: Asked, out: &mut Vec<u8>) {
        let keys = &self.options.keys;
        let key = asked.access.key;
        let (name, between): (&[u8], &[u8]) = match self.options.dialect {
            Dialect::Text => (b"set ", b" 0 0 "),
            Dialect::Meta => (b"ms ", b" "),
        };
        out.extend_from_slice(name);
        keys.append_name(key, out);
        out.extend_from_slice(between);
        append_number(keys.value_bytes(key), out);
        if self.options.dialect == Dialect::Meta {
            out.extend_from_slice(b" O");
            append_number(asked.request_id, out);
        }
        out.extend_from_slice(b"\r\n");
        keys.append_value(key, out);
        out.extend_from_slice(b"\r\n");
    }

    /// What the first line of a reply leads to.
    fn first_line(&self, line: &[u8], asked: Asked) -> Result<Line, DecodeError> {
        let mut words = line
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        let name = words.next().unwrap_or_default();
        if is_lost(name, asked.access) {
            // Later replies would count for the requests behind their own.
            return Err(broken(&format!(
                "{:?} to a {}; the server may have read a part of a request as another one",
                readable(line),
                asked.access.kind()
            )));
        }
        if is_error(name) {
            return Ok(Line::Done(failed(&readable(line))));
        }
        let done = |reply| Ok(Line::Done(reply));
        match (self.options.dialect, asked.access.is_read, name) {
            (Dialect::Text, true, b"END") => done(self.options.keys.missed()),
            (Dialect::Text, true, b"VALUE") => {
                self.check_name(words.next(), asked.access.key)?;
                let (_flags, length) = (words.next(), words.next());
                self.value(length, asked)
            }
            (Dialect::Text, false, b"STORED") => done(Reply::default()),
            (Dialect::Meta, true, b"EN") => {
                check_opaque(words, asked, false)?;
                done(self.options.keys.missed())
            }
            (Dialect::Meta, true, b"VA") => {
                let length = words.next();
                check_opaque(words, asked, true)?;
                self.value(length, asked)
            }
            (Dialect::Meta, false, b"HD") => {
                check_opaque(words, asked, true)?;
                done(Reply::default())
            }
            (_, false, b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND" | b"NS" | b"EX" | b"NF") => {
                done(failed(&readable(name)))
            }
            _ => Err(broken(&format!(
                "{:?} to a {}",
                readable(line),
                asked.access.kind()
            ))),
        }
    }

    /// In the classic dialect the name of the key is all that ties a value to its request.
    fn check_name(&self, found: Option<&[u8]>, key: u64) -> Result<(), DecodeError> {
        let expected = self.options.keys.name(key);
        match found {
            Some(found) if found == expected.as_bytes() => Ok(()),
            _ => Err(broken(&format!(
                "a value of key {:?}, expected {expected:?}",
                readable(found.unwrap_or_default())
            ))),
        }
    }

    fn value(&self, length: Option<&[u8]>, asked: Asked) -> Result<Line, DecodeError> {
        let length = length
            .and_then(read_number)
            .filter(|length| *length <= VALUE_BYTES_MAX);
        let length =
            length.ok_or_else(|| broken("a value without a length, or longer than 1 GiB"))?;
        Ok(Line::Value(
            length,
            self.options.keys.check(asked.access.key),
        ))
    }

    /// Takes the next part of a reply; the reply, if it is whole with it.
    fn advance(
        &self,
        state: &mut MemcachedState,
        bytes: &mut &[u8],
    ) -> Result<Option<Reply>, DecodeError> {
        let keys = &self.options.keys;
        let MemcachedState { asked, lines, part } = state;
        if let Part::Value(missing, check) = part {
            let bytes_of_it = take_front(bytes, usize::try_from(*missing).unwrap_or(usize::MAX));
            check.take(keys, bytes_of_it);
            *missing -= bytes_of_it.len() as u64;
            if *missing == 0 {
                *part = Part::ValueEnd(*check);
            }
            return Ok(None);
        }
        let Some(line) = lines.take(bytes, LINE_BYTES_MAX)? else {
            return Ok(None);
        };
        match *part {
            Part::ValueEnd(check) if line.is_empty() => {
                let is_whole = self.options.dialect == Dialect::Meta;
                *part = if is_whole {
                    Part::Line
                } else {
                    Part::End(check)
                };
                Ok(is_whole.then(|| check.reply(keys)))
            }
            Part::End(check) if line == b"END" => {
                *part = Part::Line;
                Ok(Some(check.reply(keys)))
            }
            Part::ValueEnd(_) | Part::End(_) => Err(broken("a value that is longer than it says")),
            Part::Line | Part::Value(..) => {
                let Some(asked) = asked.front() else {
                    return Err(broken(&format!(
                        "{:?}, which nobody asked for",
                        readable(line)
                    )));
                };
                match self.first_line(line, *asked)? {
                    Line::Done(reply) => Ok(Some(reply)),
                    Line::Value(0, check) => {
                        *part = Part::ValueEnd(check);
                        Ok(None)
                    }
                    Line::Value(length, check) => {
                        *part = Part::Value(length, check);
                        Ok(None)
                    }
                }
            }
        }
    }
}

/// What a line leads to.
enum Line {
    Done(Reply),
    Value(u64, ValueCheck),
}

fn is_error(name: &[u8]) -> bool {
    matches!(name, b"CLIENT_ERROR" | b"SERVER_ERROR")
}

/// Whether it is not certain any more which request the next line answers.
///
/// `ERROR` is what a server says to something that is no command, and all of ours are commands. After a
/// refusal of the line of a write, some servers take the value for commands and answer it, too.
fn is_lost(name: &[u8], access: Access) -> bool {
    name == b"ERROR" || (name == b"CLIENT_ERROR" && !access.is_read)
}

/// Compares the number in the reply with that of the request; a miss may come without one.
fn check_opaque<'a>(
    mut words: impl Iterator<Item = &'a [u8]>,
    asked: Asked,
    is_needed: bool,
) -> Result<(), DecodeError> {
    let found = words.find_map(|word| word.strip_prefix(b"O"));
    let number = found.and_then(read_number);
    if number == Some(asked.request_id) || (found.is_none() && !is_needed) {
        return Ok(());
    }
    let found = readable(found.unwrap_or_default());
    Err(broken(&format!(
        "to request {found:?}, expected {}",
        asked.request_id
    )))
}

fn broken(text: &str) -> DecodeError {
    DecodeError::Broken(format!("not a memcached reply: {text}").into())
}

impl Protocol for Memcached {
    type State = MemcachedState;

    fn open(&self, _connection: u32) -> MemcachedState {
        MemcachedState::default()
    }

    fn encode(&mut self, state: &mut MemcachedState, request: &Request, out: &mut Vec<u8>) {
        let request_id = request.request_id;
        let asked = Asked {
            request_id,
            access: self.options.keys.access(request_id),
        };
        if asked.access.is_read {
            self.encode_get(asked, out);
        } else {
            self.encode_set(asked, out);
        }
        state.asked.push_back(asked);
    }

    fn decode(
        &mut self,
        state: &mut MemcachedState,
        bytes: &mut &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError> {
        while !bytes.is_empty() {
            if let Some(reply) = self.advance(state, bytes)? {
                let asked = state.asked.pop_front();
                return Ok(Decoded::Reply(Reply {
                    request_id: asked.map(|asked| asked.request_id),
                    ..reply
                }));
            }
        }
        Ok(Decoded::More)
    }
}
