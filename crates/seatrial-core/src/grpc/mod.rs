//! What gRPC adds to HTTP/2: messages with a length before them, and a status at the end.
//!
//! Client and server share this; it does no input or output. Our own service is in [`load`].

pub mod load;

use std::borrow::Cow;

/// The prefix of a message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;

/// What the type of a gRPC message begins with.
pub const CONTENT_TYPE: &str = "application/grpc";

/// How a call ended. The numbers are those of the gRPC specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// It was done.
    pub const OK: Self = Self(0);
    /// The request cannot be understood.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The request asks for more than the server gives.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The server does not do this.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// The request was damaged on its way.
    pub const DATA_LOSS: Self = Self(15);

    /// The name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        if (self.0 as usize) < NAMES.len() {
            NAMES[self.0 as usize]
        } else {
            "unknown status"
        }
    }
}

/// The prefix of an uncompressed message of this length.
#[must_use]
pub fn prefix(message_bytes: usize) -> [u8; PREFIX_BYTES] {
    let length = u32::try_from(message_bytes)
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    [0, length[0], length[1], length[2], length[3]]
}

/// Why the bytes of a stream are not one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// We announce no compression, so none may be used.
    #[error("a message with compression flag {0}, expected 0: none was offered")]
    Compressed(u8),
    /// It is longer than this side accepts.
    #[error("a message of {length} bytes, expected at most {length_max}")]
    TooLong {
        /// The announced length.
        length: u32,
        /// The longest that is accepted.
        length_max: u32,
    },
    /// A unary call has one message each way.
    #[error("bytes behind the message, expected one message")]
    Trailing,
}

/// Follows the one message of a stream through the pieces that it comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageReader {
    prefix: [u8; PREFIX_BYTES],
    prefix_count: u8,
    length: u32,
    received: u32,
}

impl MessageReader {
    /// Takes the bytes of a piece; the part of it that belongs to the message itself.
    ///
    /// # Errors
    /// They do not belong to one uncompressed message of at most `length_max` bytes.
    pub fn take<'a>(
        &mut self,
        mut piece: &'a [u8],
        length_max: u32,
    ) -> Result<&'a [u8], MessageError> {
        while usize::from(self.prefix_count) < PREFIX_BYTES {
            let Some((byte, rest)) = piece.split_first() else {
                return Ok(piece);
            };
            piece = rest;
            self.prefix[usize::from(self.prefix_count)] = *byte;
            self.prefix_count += 1;
            if usize::from(self.prefix_count) == PREFIX_BYTES {
                self.open(length_max)?;
            }
        }
        let received = u32::try_from(piece.len())
            .ok()
            .and_then(|bytes| self.received.checked_add(bytes));
        match received {
            Some(received) if received <= self.length => self.received = received,
            _ => return Err(MessageError::Trailing),
        }
        Ok(piece)
    }

    /// Whether the message is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.has_length() && self.received == self.length
    }

    /// Whether the whole prefix has come.
    #[must_use]
    pub fn has_length(&self) -> bool {
        usize::from(self.prefix_count) == PREFIX_BYTES
    }

    /// Bytes of the message itself that have come.
    #[must_use]
    pub const fn received_bytes(&self) -> usize {
        self.received as usize
    }

    /// Length of the message, as far as its prefix has told it.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length as usize
    }

    fn open(&mut self, length_max: u32) -> Result<(), MessageError> {
        let [flag, length @ ..] = self.prefix;
        if flag != 0 {
            return Err(MessageError::Compressed(flag));
        }
        self.length = u32::from_be_bytes(length);
        if self.length > length_max {
            let length = self.length;
            return Err(MessageError::TooLong { length, length_max });
        }
        Ok(())
    }
}

/// A status message as it travels: bytes beyond printable ASCII, and `%`, as `%XX`.
#[must_use]
pub fn percent_encode(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: &u8| (0x20..=0x7e).contains(byte) && *byte != b'%';
    if text.as_bytes().iter().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let encoded = text.bytes().map(|byte| {
        if is_plain(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    Cow::Owned(encoded.collect())
}

/// A status message as it was meant. What is not a valid `%XX` stays as it is.
#[must_use]
pub fn percent_decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let coded = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(coded.unwrap_or(*first));
        rest = if coded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn status_messages_survive_the_way(text: String) {
            prop_assert_eq!(percent_decode(percent_encode(&text).as_bytes()), text);
        }

        /// A message in any pieces is the same message.
        #[test]
        fn messages_come_in_any_pieces(
            message in prop::collection::vec(any::<u8>(), 0..100), piece in 1..20usize,
        ) {
            let bytes = [&prefix(message.len())[..], &message].concat();
            let (mut reader, mut read) = (MessageReader::default(), Vec::new());
            for part in bytes.chunks(piece) {
                prop_assert!(!reader.is_whole());
                read.extend_from_slice(reader.take(part, 100).unwrap());
            }
            prop_assert!(reader.is_whole());
            prop_assert_eq!(reader.received_bytes(), message.len());
            prop_assert_eq!(read, message);
            prop_assert_eq!(reader.take(b"x", 100), Err(MessageError::Trailing));
        }
    }

    #[test]
    fn broken_messages_are_refused() {
        let take = |bytes: &[u8]| MessageReader::default().take(bytes, 9).map(<[u8]>::len);
        assert_eq!(take(b"\x01\0\0\0\x01a"), Err(MessageError::Compressed(1)));
        let (length, length_max) = (10, 9);
        let too_long = MessageError::TooLong { length, length_max };
        assert_eq!(take(b"\0\0\0\0\x0a"), Err(too_long));
        assert_eq!(take(b"\0\0\0\0\x01ab"), Err(MessageError::Trailing));
        assert_eq!(take(b"\0\0\0\0\x02ab"), Ok(2));
    }

    #[test]
    fn messages_with_broken_escapes_stay_readable() {
        assert_eq!(percent_decode(b"a%20b%zz%4"), "a b%zz%4");
        assert_eq!(percent_decode(b"%e2%82%ac 100%"), "\u{20ac} 100%");
        assert_eq!(percent_encode("100%\n"), "100%25%0A");
    }

    #[test]
    fn statuses_have_names() {
        assert_eq!(Status(5).name(), "NOT_FOUND");
        assert_eq!(Status(17).name(), "unknown status");
    }
}
