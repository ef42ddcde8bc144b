//! The body of a request: of a stated length, or in chunks.

/// Longest body, and longest line or trailer around chunks.
pub const BODY_BYTES_MAX: u64 = 1 << 20;

/// Longest line with a chunk's size, and longest trailer.
const LINE_BYTES_MAX: usize = 1024;

/// A body of which a part may have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many more bytes.
    Sized {
        /// Bytes still to come.
        left_bytes: u64,
    },
    /// Chunks.
    Chunked {
        /// What comes next.
        part: Part,
        /// Bytes of all chunks so far.
        total_bytes: u64,
    },
}

/// A part of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The line with a chunk's size.
    Size {
        size_bytes: u64,
        digits: u8,
        line_bytes: usize,
        is_extension: bool,
    },
    /// So many more bytes of a chunk.
    Data { left_bytes: u64 },
    /// The end of line behind a chunk, of which so many bytes have come.
    End { seen_bytes: u8 },
    /// The lines behind the last chunk.
    Trailer { line_bytes: usize, all_bytes: usize },
    /// Nothing.
    Done,
}

const SIZE: Part = Part::Size {
    size_bytes: 0,
    digits: 0,
    line_bytes: 0,
    is_extension: false,
};

/// Why bytes are no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than [`BODY_BYTES_MAX`].
    TooLarge,
    /// The chunks are not chunks.
    Malformed,
}

impl Body {
    /// No body.
    pub const NONE: Self = Self::Sized { left_bytes: 0 };

    /// A chunked body of which nothing has come.
    pub const CHUNKED: Self = Self::Chunked {
        part: SIZE,
        total_bytes: 0,
    };

    /// Whether it has come whole.
    pub const fn is_whole(&self) -> bool {
        matches!(
            self,
            Self::Sized { left_bytes: 0 }
                | Self::Chunked {
                    part: Part::Done,
                    ..
                }
        )
    }

    /// Takes bytes from the front of `input` until it is whole; gives how many.
    /// The content goes to `sink`, where there is one.
    pub fn take(
        &mut self,
        input: &[u8],
        mut sink: Option<&mut Vec<u8>>,
    ) -> Result<usize, BodyError> {
        let mut used = 0;
        while used < input.len() && !self.is_whole() {
            match self {
                Self::Sized { left_bytes } => {
                    let count = content(&input[used..], *left_bytes, sink.as_deref_mut());
                    *left_bytes -= count as u64;
                    used += count;
                }
                Self::Chunked {
                    part: Part::Data { left_bytes },
                    ..
                } if *left_bytes > 0 => {
                    let count = content(&input[used..], *left_bytes, sink.as_deref_mut());
                    *left_bytes -= count as u64;
                    used += count;
                }
                Self::Chunked { part, total_bytes } => {
                    *part = part.after(input[used], total_bytes)?;
                    used += 1;
                }
            }
        }
        Ok(used)
    }
}

fn content(input: &[u8], left_bytes: u64, sink: Option<&mut Vec<u8>>) -> usize {
    let count = usize::try_from(left_bytes).map_or(input.len(), |left| left.min(input.len()));
    if let Some(sink) = sink {
        sink.extend_from_slice(&input[..count]);
    }
    count
}

impl Part {
    /// What comes after one more byte that is not content.
    fn after(self, byte: u8, total_bytes: &mut u64) -> Result<Self, BodyError> {
        match self {
            Self::Size {
                size_bytes,
                digits,
                line_bytes,
                is_extension,
            } => {
                if line_bytes >= LINE_BYTES_MAX {
                    return Err(BodyError::Malformed);
                }
                let line_bytes = line_bytes + 1;
                let mut next = (size_bytes, digits, is_extension);
                match (byte, char::from(byte).to_digit(16)) {
                    (b'\n', _) if digits > 0 => return after_size(size_bytes, total_bytes),
                    (b'\r', _) if digits > 0 => {}
                    (b';' | b' ' | b'\t', _) if digits > 0 => next.2 = true,
                    (b' '.., _) if is_extension => {}
                    (_, Some(digit)) if digits < 8 => {
                        next = (size_bytes * 16 + u64::from(digit), digits + 1, false);
                    }
                    _ => return Err(BodyError::Malformed),
                }
                let (size_bytes, digits, is_extension) = next;
                Ok(Self::Size {
                    size_bytes,
                    digits,
                    line_bytes,
                    is_extension,
                })
            }
            // Only when nothing of the chunk is left.
            Self::Data { .. } => Self::End { seen_bytes: 0 }.after(byte, total_bytes),
            Self::End { seen_bytes } => match (byte, seen_bytes) {
                (b'\r', 0) => Ok(Self::End { seen_bytes: 1 }),
                (b'\n', _) => Ok(SIZE),
                _ => Err(BodyError::Malformed),
            },
            Self::Trailer {
                line_bytes,
                all_bytes,
            } => match byte {
                b'\n' if line_bytes == 0 => Ok(Self::Done),
                _ if all_bytes >= LINE_BYTES_MAX => Err(BodyError::Malformed),
                _ => Ok(Self::Trailer {
                    line_bytes: match byte {
                        b'\n' => 0,
                        b'\r' => line_bytes,
                        _ => line_bytes + 1,
                    },
                    all_bytes: all_bytes + 1,
                }),
            },
            Self::Done => Ok(Self::Done),
        }
    }
}

fn after_size(size_bytes: u64, total_bytes: &mut u64) -> Result<Part, BodyError> {
    *total_bytes += size_bytes; // both are far below 2^63
    if *total_bytes > BODY_BYTES_MAX {
        return Err(BodyError::TooLarge);
    }
    Ok(if size_bytes == 0 {
        Part::Trailer {
            line_bytes: 0,
            all_bytes: 0,
        }
    } else {
        Part::Data {
            left_bytes: size_bytes,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds a body in pieces; its content, and how many bytes it took.
    fn taken(mut body: Body, bytes: &[u8], cut: usize) -> Result<(Vec<u8>, usize), BodyError> {
        let mut content = Vec::new();
        let mut used = 0;
        for piece in bytes.chunks(cut) {
            let count = body.take(piece, Some(&mut content))?;
            used += count;
            if count < piece.len() {
                break;
            }
        }
        assert!(body.is_whole() || used == bytes.len());
        Ok((content, used))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn chunks_survive_any_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cut in 1..30usize,
        ) {
            let mut bytes = Vec::new();
            for (index, chunk) in chunks.iter().enumerate() {
                let extension = if index % 2 == 0 { "" } else { " ;a=b" };
                bytes.extend(format!("{:X}{extension}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\nTrailer: x\r\n\r\n");
            let whole = bytes.len();
            bytes.extend(b"NEXT");
            prop_assert_eq!(taken(Body::CHUNKED, &bytes, cut), Ok((chunks.concat(), whole)));
        }

        /// Any bytes are a body, a part of one, or an error; the cut does not matter.
        #[test]
        fn garbage_never_panics(
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(&b"0123fF\r\n; "[..])], 1..200,
            ),
            cut in 1..30usize,
        ) {
            prop_assert_eq!(taken(Body::CHUNKED, &bytes, cut), taken(Body::CHUNKED, &bytes, 1000));
        }
    }

    #[test]
    fn sized_bodies_end_where_they_say() {
        let body = Body::Sized { left_bytes: 3 };
        assert_eq!(taken(body, b"abcdef", 2), Ok((b"abc".to_vec(), 3)));
        assert!(Body::NONE.is_whole());
    }

    #[test]
    fn what_is_no_chunk_is_told() {
        for (bytes, error) in [
            (&b"x\r\n"[..], BodyError::Malformed),
            (b"\r\n", BodyError::Malformed),
            (b"-1\r\n", BodyError::Malformed),
            (b"123456789\r\n", BodyError::Malformed),
            (b"2\r\nabX", BodyError::Malformed),
            (b"100001\r\n", BodyError::TooLarge),
            (b"ffffffff\r\n", BodyError::TooLarge),
        ] {
            assert_eq!(taken(Body::CHUNKED, bytes, 1000), Err(error), "{bytes:?}");
        }
        let long = [b"1;".to_vec(), vec![b'x'; LINE_BYTES_MAX]].concat();
        assert_eq!(taken(Body::CHUNKED, &long, 7), Err(BodyError::Malformed));
    }
}
