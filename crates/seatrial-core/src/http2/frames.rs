//! The frames themselves (RFC 9113, 4 and 6): headers, payloads, and how long each may be.

use super::{ErrorCode, Http2Error};

/// Length of a frame header.
pub const HEADER_BYTES: usize = 9;

/// Payload of the frames that carry one number.
const WORD_BYTES: usize = 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of a message.
    Data = 0x0,
    /// The begin of a header block.
    Headers = 0x1,
    /// A wish about order, without meaning today.
    Priority = 0x2,
    /// The end of a stream before its time.
    Reset = 0x3,
    /// Settings of a connection.
    Settings = 0x4,
    /// A stream that the server begins.
    PushPromise = 0x5,
    /// A question whether the peer is there.
    Ping = 0x6,
    /// The announced end of a connection.
    GoAway = 0x7,
    /// More room in a window.
    WindowUpdate = 0x8,
    /// More of a header block.
    Continuation = 0x9,
}

impl Kind {
    const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::Reset,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            _ => return None,
        })
    }
}

/// The flags of a frame; what they mean depends on its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The last frame of this side of the stream (DATA, HEADERS).
    pub const END_STREAM: Self = Self(0x1);
    /// The answer to a frame of the same kind (SETTINGS, PING).
    pub const ACK: Self = Self(0x1);
    /// The last frame of a header block (HEADERS, CONTINUATION).
    pub const END_HEADERS: Self = Self(0x4);
    /// Padding follows (DATA, HEADERS).
    pub const PADDED: Self = Self(0x8);
    /// A priority comes first (HEADERS).
    pub const PRIORITY: Self = Self(0x20);

    /// Both sets of flags.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether this flag is set.
    #[must_use]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload that follow.
    pub length: usize,
    /// What it is; `None` for a kind that is not known and has to be ignored.
    pub kind: Option<Kind>,
    /// Its flags.
    pub flags: Flags,
    /// The stream it belongs to, 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a header.
    #[must_use]
    pub const fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self {
            length: u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize,
            kind: Kind::from_u8(bytes[3]),
            flags: Flags(bytes[4]),
            stream: word(bytes[5], bytes[6], bytes[7], bytes[8]),
        }
    }

    /// Checks what the header alone tells: where the kind may occur, and how long it may be.
    ///
    /// # Errors
    /// A length or a stream that a frame of this kind cannot have.
    pub fn check(&self, length_max: usize) -> Result<(), Http2Error> {
        let length = self.length;
        let size_error = |text: String| Err(Http2Error::new(ErrorCode::FRAME_SIZE_ERROR, text));
        if length > length_max {
            return size_error(format!(
                "a frame of {length} bytes, expected at most {length_max}"
            ));
        }
        let Some(kind) = self.kind else {
            return Ok(());
        };
        let is_right_length = match kind {
            Kind::Data | Kind::Headers | Kind::PushPromise | Kind::Continuation => true,
            Kind::Priority => length == 5,
            Kind::Reset | Kind::WindowUpdate => length == WORD_BYTES,
            Kind::Settings if self.flags.has(Flags::ACK) => length == 0,
            Kind::Settings => length % 6 == 0,
            Kind::Ping => length == 8,
            Kind::GoAway => length >= 8,
        };
        if !is_right_length {
            return size_error(format!("a {kind:?} frame of {length} bytes"));
        }
        let is_right_place = match kind {
            Kind::Settings | Kind::Ping | Kind::GoAway => self.stream == 0,
            Kind::WindowUpdate => true,
            _ => self.stream != 0,
        };
        if !is_right_place {
            let text = format!("a {kind:?} frame on stream {}", self.stream);
            return Err(Http2Error::protocol(text));
        }
        Ok(())
    }
}

/// Four bytes without their highest bit, which is reserved.
const fn word(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a & 0x7f, b, c, d])
}

/// The number of 31 bits at the start of a payload, which [`FrameHeader::check`] has made long enough.
pub(super) const fn word_at(payload: &[u8], offset: usize) -> u32 {
    word(
        payload[offset],
        payload[offset + 1],
        payload[offset + 2],
        payload[offset + 3],
    )
}

/// The error code at this place of such a payload.
pub(super) const fn code_at(payload: &[u8], offset: usize) -> ErrorCode {
    ErrorCode(u32::from_be_bytes([
        payload[offset],
        payload[offset + 1],
        payload[offset + 2],
        payload[offset + 3],
    ]))
}

/// The payload without padding and priority.
///
/// # Errors
/// There is more padding than payload.
pub(super) fn content<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<&'a [u8], Http2Error> {
    let mut content = payload;
    let mut padding_bytes = 0;
    let too_short = || Http2Error::protocol("more padding than the frame is long");
    if header.flags.has(Flags::PADDED) {
        let (first, rest) = content.split_first().ok_or_else(too_short)?;
        (padding_bytes, content) = (usize::from(*first), rest);
    }
    if header.kind == Some(Kind::Headers) && header.flags.has(Flags::PRIORITY) {
        content = content.get(5..).ok_or_else(too_short)?;
    }
    let end = content.len().checked_sub(padding_bytes);
    end.and_then(|end| content.get(..end)).ok_or_else(too_short)
}

/// Appends a frame header; the payload, at most 2^24 - 1 bytes, follows.
pub fn append_header(length: usize, kind: Kind, flags: Flags, stream: u32, out: &mut Vec<u8>) {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let stream = stream.to_be_bytes();
    out.extend_from_slice(&[
        length[1], length[2], length[3], kind as u8, flags.0, stream[0], stream[1], stream[2],
        stream[3],
    ]);
}

/// Appends a frame that ends a stream.
pub fn append_reset(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    append_header(WORD_BYTES, Kind::Reset, Flags(0), stream, out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends a frame that allows the peer to send more.
pub fn append_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    append_header(WORD_BYTES, Kind::WindowUpdate, Flags(0), stream, out);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Appends the acknowledgement of settings.
pub fn append_settings_ack(out: &mut Vec<u8>) {
    append_header(0, Kind::Settings, Flags::ACK, 0, out);
}

/// Appends the answer to a ping.
pub fn append_ping_ack(opaque: [u8; 8], out: &mut Vec<u8>) {
    append_header(8, Kind::Ping, Flags::ACK, 0, out);
    out.extend_from_slice(&opaque);
}

/// Appends the announcement that the connection ends after this stream.
pub fn append_go_away(last_stream: u32, code: ErrorCode, text: &str, out: &mut Vec<u8>) {
    append_header(8 + text.len(), Kind::GoAway, Flags(0), 0, out);
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a message as DATA frames no longer than `frame_bytes_max`.
pub fn append_data(
    stream: u32,
    mut data: &[u8],
    is_end: bool,
    frame_bytes_max: usize,
    out: &mut Vec<u8>,
) {
    loop {
        let (part, rest) = data.split_at(data.len().min(frame_bytes_max));
        let is_last = rest.is_empty();
        let flags = if is_end && is_last {
            Flags::END_STREAM
        } else {
            Flags(0)
        };
        append_header(part.len(), Kind::Data, flags, stream, out);
        out.extend_from_slice(part);
        if is_last {
            return;
        }
        data = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: [u8; 9]) -> FrameHeader {
        FrameHeader::decode(&bytes)
    }

    #[test]
    fn frames_are_the_bytes_of_the_specification() {
        let mut out = Vec::new();
        append_settings_ack(&mut out);
        assert_eq!(out, [0, 0, 0, 4, 1, 0, 0, 0, 0]);
        out.clear();
        append_reset(3, ErrorCode::CANCEL, &mut out);
        assert_eq!(out, [0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 0, 8]);
        out.clear();
        append_window_update(0, 0x7fff_0000, &mut out);
        assert_eq!(out, [0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0]);
        out.clear();
        append_ping_ack(*b"12345678", &mut out);
        assert_eq!(out[..9], [0, 0, 8, 6, 1, 0, 0, 0, 0]);
        assert_eq!(&out[9..], b"12345678");
        out.clear();
        append_go_away(7, ErrorCode::PROTOCOL_ERROR, "no", &mut out);
        assert_eq!(
            out,
            [
                0, 0, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, b'n', b'o'
            ]
        );
    }

    #[test]
    fn data_is_cut_to_the_size_of_frames() {
        let mut out = Vec::new();
        append_data(5, b"abcde", true, 2, &mut out);
        let expected = [
            &[0, 0, 2, 0, 0, 0, 0, 0, 5][..],
            b"ab",
            &[0, 0, 2, 0, 0, 0, 0, 0, 5],
            b"cd",
            &[0, 0, 1, 0, 1, 0, 0, 0, 5],
            b"e",
        ];
        assert_eq!(out, expected.concat());
        out.clear();
        append_data(5, b"", true, 2, &mut out);
        assert_eq!(out, [0, 0, 0, 0, 1, 0, 0, 0, 5]);
    }

    #[test]
    fn headers_are_read_without_the_reserved_bit() {
        let read = header([0, 1, 2, 1, 0x25, 0xff, 0, 0, 9]);
        assert_eq!(read.length, 258);
        assert_eq!(read.kind, Some(Kind::Headers));
        assert_eq!(read.stream, 0x7f00_0009);
        assert!(read.flags.has(Flags::END_STREAM) && read.flags.has(Flags::PRIORITY));
        assert!(!read.flags.has(Flags::PADDED));
        assert_eq!(header([0, 0, 0, 0x77, 0, 0, 0, 0, 0]).kind, None);
    }

    #[test]
    fn lengths_and_places_are_checked() {
        let rows = [
            (
                [0, 0x40, 1, 0, 0, 0, 0, 0, 1],
                Err(ErrorCode::FRAME_SIZE_ERROR),
            ),
            ([0, 0x40, 0, 0, 0, 0, 0, 0, 1], Ok(())),
            ([0, 0, 1, 0, 0, 0, 0, 0, 0], Err(ErrorCode::PROTOCOL_ERROR)),
            (
                [0, 0, 4, 2, 0, 0, 0, 0, 1],
                Err(ErrorCode::FRAME_SIZE_ERROR),
            ),
            (
                [0, 0, 5, 3, 0, 0, 0, 0, 1],
                Err(ErrorCode::FRAME_SIZE_ERROR),
            ),
            (
                [0, 0, 7, 4, 0, 0, 0, 0, 0],
                Err(ErrorCode::FRAME_SIZE_ERROR),
            ),
            (
                [0, 0, 6, 4, 1, 0, 0, 0, 0],
                Err(ErrorCode::FRAME_SIZE_ERROR),
            ),
            ([0, 0, 6, 4, 0, 0, 0, 0, 1], Err(ErrorCode::PROTOCOL_ERROR)),
            (
                [0, 0, 7, 6, 0, 0, 0, 0, 0],
                Err(ErrorCode::FRAME_SIZE_ERROR),
            ),
            (
                [0, 0, 7, 7, 0, 0, 0, 0, 0],
                Err(ErrorCode::FRAME_SIZE_ERROR),
            ),
            ([0, 0, 4, 8, 0, 0, 0, 0, 0], Ok(())),
            ([0, 0, 9, 0x77, 0, 0, 0, 0, 0], Ok(())),
        ];
        for (bytes, expected) in rows {
            let checked = header(bytes).check(16_384).map_err(|error| error.code);
            assert_eq!(checked, expected, "{bytes:?}");
        }
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let padded = header([0, 0, 6, 0, 8, 0, 0, 0, 1]);
        assert_eq!(content(&padded, b"\x02abc\0\0"), Ok(&b"abc"[..]));
        assert_eq!(content(&padded, b"\x00").unwrap(), b"");
        for broken in [&b""[..], b"\x01", b"\x05abc"] {
            let error = content(&padded, broken).unwrap_err();
            assert_eq!(error.code, ErrorCode::PROTOCOL_ERROR);
        }
        let both = header([0, 0, 9, 1, 0x2c, 0, 0, 0, 1]);
        assert_eq!(content(&both, b"\x01PPPPPab\0"), Ok(&b"ab"[..]));
        assert!(content(&both, b"\x00PPPP").is_err());
    }
}
