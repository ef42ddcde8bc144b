//! Replies of the Redis protocol: where they end and what they are.
//!
//! Version 2 of the protocol, and the types of version 3 that a server may send unasked.
//! Nothing is kept but the first error: texts and arrays may be as long as they like.

use crate::transport::keys::readable;
use crate::transport::lines::LineReader;
use crate::transport::{DecodeError, take_front};

/// Longest line: of a simple text, an error or a length.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Longest text that a server may announce; the limit of Redis itself.
const BULK_BYTES_MAX: i64 = 512 << 20;

/// Most elements that an array may announce.
const ELEMENTS_MAX: i64 = 1 << 24;

/// Arrays in arrays.
const DEPTH_MAX: usize = 32;

/// What a whole reply was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// `+OK` and nothing else.
    Ok,
    /// Another simple text, a boolean or a floating point number.
    Simple,
    Integer,
    Nil,
    /// A text, which was told while it came.
    Bulk,
    Array,
    /// An error, or an array with one in it.
    Error(String),
}

impl Value {
    /// Its name, for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Simple => "a simple text",
            Self::Integer => "an integer",
            Self::Nil => "nil",
            Self::Bulk => "a text",
            Self::Array => "an array",
            Self::Error(_) => "an error",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// The line that begins a value.
    #[default]
    Line,
    /// A text of which so much is missing; whether it is an error.
    Bulk { missing: usize, is_error: bool },
    /// The line end after a text.
    BulkEnd,
}

/// Finds replies in a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueReader {
    lines: LineReader,
    part: Part,
    /// Elements that are missing, of each array that is open.
    open: Vec<u64>,
    /// What the outermost value is.
    outer: Option<Value>,
    /// Whether it is a message that answers nothing.
    is_push: bool,
    error: Option<Vec<u8>>,
}

impl ValueReader {
    /// Takes a reply from the front; `None` when it is not whole, and then all bytes are taken.
    /// `tell` gets the bytes of a text that is the whole reply.
    #[inline]
    pub fn take(
        &mut self,
        bytes: &mut &[u8],
        tell: impl FnMut(&[u8]),
    ) -> Result<Option<Value>, DecodeError> {
        // Apart, so that a line can be looked at while the rest changes.
        let mut lines = std::mem::take(&mut self.lines);
        let taken = self.take_with(&mut lines, bytes, tell);
        self.lines = lines;
        taken
    }

    fn take_with(
        &mut self,
        lines: &mut LineReader,
        bytes: &mut &[u8],
        mut tell: impl FnMut(&[u8]),
    ) -> Result<Option<Value>, DecodeError> {
        while !bytes.is_empty() {
            let is_whole = match self.part {
                Part::Line => self.take_line(lines, bytes)?,
                Part::Bulk { missing, is_error } => {
                    let part = take_front(bytes, missing);
                    self.note(part, is_error);
                    if self.open.is_empty() && !is_error {
                        tell(part);
                    }
                    self.part = match missing - part.len() {
                        0 => Part::BulkEnd,
                        missing => Part::Bulk { missing, is_error },
                    };
                    false
                }
                Part::BulkEnd => match lines.take(bytes, 0)? {
                    Some([]) => {
                        self.part = Part::Line;
                        self.close()
                    }
                    Some(_) => return Err(broken("a text that is longer than it says")),
                    None => false,
                },
            };
            if is_whole {
                let is_push = std::mem::take(&mut self.is_push);
                let outer = self.outer.take();
                let error = self.error.take();
                if !is_push {
                    let error = error.map(|text| Value::Error(told(&text)));
                    return Ok(error.or(outer));
                }
            }
        }
        Ok(None)
    }

    fn note(&mut self, part: &[u8], is_error: bool) {
        const ERROR_BYTES_MAX: usize = 512;
        if let (true, Some(error)) = (is_error, &mut self.error) {
            let room = ERROR_BYTES_MAX.saturating_sub(error.len());
            error.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    /// Takes the line that begins a value; whether the reply is whole with it.
    fn take_line(
        &mut self,
        lines: &mut LineReader,
        bytes: &mut &[u8],
    ) -> Result<bool, DecodeError> {
        let Some(line) = lines.take(bytes, LINE_BYTES_MAX)? else {
            return Ok(false);
        };
        let Some((kind, text)) = line.split_first() else {
            return Err(broken("an empty line where a reply begins"));
        };
        let is_outer = self.open.is_empty();
        let length = |max| length(text, max);
        let (value, begun) = match kind {
            b'+' => (
                if text == b"OK" {
                    Value::Ok
                } else {
                    Value::Simple
                },
                Begun::Whole,
            ),
            b'-' => {
                if self.error.is_none() {
                    self.error = Some(text.to_vec());
                }
                (Value::Simple, Begun::Whole)
            }
            b':' | b'(' => (integer(text)?, Begun::Whole),
            b'_' => (Value::Nil, Begun::Whole),
            b'#' | b',' => (Value::Simple, Begun::Whole),
            b'$' | b'=' | b'!' => match length(BULK_BYTES_MAX)? {
                None => (Value::Nil, Begun::Whole),
                Some(missing) => (Value::Bulk, Begun::Bulk(missing, *kind == b'!')),
            },
            b'*' | b'~' | b'>' => match length(ELEMENTS_MAX)? {
                None => (Value::Nil, Begun::Whole),
                Some(count) => (Value::Array, Begun::Array(count)),
            },
            b'%' => match length(ELEMENTS_MAX)? {
                None => (Value::Nil, Begun::Whole),
                Some(count) => (Value::Array, Begun::Array(2 * count)),
            },
            _ => {
                return Err(broken(&format!(
                    "a reply that begins with byte {kind:#04x}"
                )));
            }
        };
        if is_outer {
            self.is_push = *kind == b'>';
            self.outer = Some(value);
        }
        self.begin(begun)
    }

    fn begin(&mut self, begun: Begun) -> Result<bool, DecodeError> {
        match begun {
            Begun::Whole | Begun::Array(0) => Ok(self.close()),
            Begun::Bulk(missing, is_error) => {
                if is_error && self.error.is_none() {
                    self.error = Some(Vec::new());
                }
                self.part = match missing {
                    0 => Part::BulkEnd,
                    missing => Part::Bulk { missing, is_error },
                };
                Ok(false)
            }
            Begun::Array(count) => {
                if self.open.len() == DEPTH_MAX {
                    return Err(broken(&format!(
                        "more than {DEPTH_MAX} arrays in each other"
                    )));
                }
                self.open.push(count as u64);
                Ok(false)
            }
        }
    }

    /// A value is whole, and with it all arrays that it ends; whether the reply is.
    fn close(&mut self) -> bool {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// What the line of a value leads to.
#[derive(Clone, Copy)]
enum Begun {
    Whole,
    Bulk(usize, bool),
    Array(usize),
}

/// The number of bytes or elements that is announced; `None` for the nil of version 2.
fn length(text: &[u8], max: i64) -> Result<Option<usize>, DecodeError> {
    if text == b"-1" {
        return Ok(None);
    }
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    match number {
        Some(number) if (0..=max).contains(&number) => Ok(usize::try_from(number).ok()),
        _ => Err(broken(&format!(
            "length {:?}, expected -1 to {max}",
            readable(text)
        ))),
    }
}

fn integer(text: &[u8]) -> Result<Value, DecodeError> {
    let digits = text
        .strip_prefix(b"-")
        .or_else(|| text.strip_prefix(b"+"))
        .unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(broken(&format!("integer {:?}", readable(text))));
    }
    Ok(Value::Integer)
}

/// The text of an error, for people.
fn told(text: &[u8]) -> String {
    if text.is_empty() {
        "an error without a text".to_owned()
    } else {
        readable(text)
    }
}

pub(super) fn broken(text: &str) -> DecodeError {
    DecodeError::Broken(format!("not a Redis reply: {text}").into())
}
