//! Bodies of replies: where they end, and what was in them. They are not kept.

use super::head::{Framing, HEAD_BYTES_MAX, broken};
use crate::transport::{DecodeError, take_front};

/// Longest line that gives the length of a chunk, with its extensions.
const CHUNK_LINE_BYTES_MAX: usize = 4096;

/// What a body was, as far as anybody asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub length: u64,
    /// Sum over the bytes; only when it is to be checked.
    pub hasher: Option<crc32fast::Hasher>,
}

impl Seen {
    fn add(&mut self, part: &[u8]) {
        self.length += part.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(part);
        }
    }
}

/// Where in a body we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes are missing.
    Length(u64),
    /// All that comes belongs to it.
    UntilClose,
    /// In the line that gives the length of a chunk; what of it has come.
    ChunkLine(Vec<u8>),
    /// In a chunk of which this many bytes are missing.
    Chunk(u64),
    /// In the line end after a chunk.
    ChunkEnd,
    /// In the fields after the last chunk; how much came of all and of the present line.
    Trailers { all_bytes: usize, line_bytes: usize },
}

impl Body {
    pub const fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::UntilClose => Self::UntilClose,
            Framing::Chunked => Self::ChunkLine(Vec::new()),
        }
    }

    /// Takes what belongs to it; whether it is whole. If not, all bytes are taken.
    #[inline]
    pub fn take(&mut self, bytes: &mut &[u8], seen: &mut Seen) -> Result<bool, DecodeError> {
        match self {
            Self::Length(missing) => {
                take_missing(missing, bytes, seen);
                Ok(*missing == 0)
            }
            Self::UntilClose => {
                seen.add(std::mem::take(bytes));
                Ok(false)
            }
            _ => self.take_chunked(bytes, seen),
        }
    }

    fn take_chunked(&mut self, bytes: &mut &[u8], seen: &mut Seen) -> Result<bool, DecodeError> {
        while !bytes.is_empty() {
            match self {
                Self::ChunkLine(line) => {
                    if !take_line(line, bytes)? {
                        return Ok(false);
                    }
                    *self = match chunk_length(line)? {
                        0 => Self::Trailers {
                            all_bytes: 0,
                            line_bytes: 0,
                        },
                        length => Self::Chunk(length),
                    };
                }
                Self::Chunk(missing) => {
                    take_missing(missing, bytes, seen);
                    if *missing == 0 {
                        *self = Self::ChunkEnd;
                    }
                }
                Self::ChunkEnd => match take_front(bytes, 1) {
                    b"\n" => *self = Self::ChunkLine(Vec::new()),
                    b"\r" => {}
                    _ => return Err(broken("a chunk that is longer than it says")),
                },
                Self::Trailers {
                    all_bytes,
                    line_bytes,
                } => {
                    let byte = take_front(bytes, 1);
                    *all_bytes += 1;
                    match byte {
                        b"\n" if *line_bytes == 0 => return Ok(true),
                        b"\n" => *line_bytes = 0,
                        b"\r" => {}
                        _ => *line_bytes += 1,
                    }
                    if *all_bytes > HEAD_BYTES_MAX {
                        return Err(broken(&format!(
                            "more than {HEAD_BYTES_MAX} bytes of fields after the last chunk"
                        )));
                    }
                }
                Self::Length(_) | Self::UntilClose => return self.take(bytes, seen),
            }
        }
        Ok(false)
    }
}

fn take_missing(missing: &mut u64, bytes: &mut &[u8], seen: &mut Seen) {
    let part = take_front(bytes, usize::try_from(*missing).unwrap_or(usize::MAX));
    *missing -= part.len() as u64;
    seen.add(part);
}

/// Adds to the line what comes up to its end; whether the end has come.
fn take_line(line: &mut Vec<u8>, bytes: &mut &[u8]) -> Result<bool, DecodeError> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let part = take_front(bytes, end.map_or(bytes.len(), |end| end + 1));
    if line.len() + part.len() > CHUNK_LINE_BYTES_MAX {
        return Err(broken(&format!(
            "the line of a chunk is longer than {CHUNK_LINE_BYTES_MAX} bytes"
        )));
    }
    line.extend_from_slice(part);
    Ok(end.is_some())
}

/// The length in hexadecimal digits; what follows a semicolon is an extension that nobody knows.
fn chunk_length(line: &[u8]) -> Result<u64, DecodeError> {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    let is_hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_hex);
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| broken("the length of a chunk is no hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the body and what follows it.
    fn chunked(text: &str) -> Result<(u64, &str), DecodeError> {
        let (mut body, mut seen) = (Body::new(Framing::Chunked), Seen::default());
        let mut bytes = text.as_bytes();
        assert!(body.take(&mut bytes, &mut seen)?, "not whole");
        Ok((seen.length, &text[text.len() - bytes.len()..]))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_taken() {
        let rows = [
            ("0\r\n\r\nnext", 0, "next"),
            ("5\r\nhello\r\n0\r\n\r\n", 5, ""),
            (
                "5;name=\"v\"\r\nhello\r\nA \r\n0123456789\r\n00\r\n\r\nHTTP",
                15,
                "HTTP",
            ),
            ("1\nx\n0\nSum: 7\nMore: 8\n\nrest", 1, "rest"),
        ];
        for (text, length, rest) in rows {
            assert_eq!(chunked(text), Ok((length, rest)), "{text:?}");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        let long_line = format!("5;{}", "x".repeat(CHUNK_LINE_BYTES_MAX));
        let long_trailer = format!("0\r\n{}", "x".repeat(HEAD_BYTES_MAX + 1));
        let rows = [
            ("x\r\n", "hexadecimal"),
            ("\r\n", "hexadecimal"),
            ("-1\r\n", "hexadecimal"),
            ("11111111111111111\r\n", "hexadecimal"),
            ("1\r\nxy\r\n", "longer than it says"),
            (&long_line, "line of a chunk"),
            (&long_trailer, "after the last chunk"),
        ];
        for (text, told) in rows {
            let error = chunked(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
