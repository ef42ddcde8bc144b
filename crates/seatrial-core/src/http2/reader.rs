//! Bytes become frames, and frames become what they mean.
//!
//! A frame that came whole is looked at where it lies; only one that was cut by the
//! end of a read is copied. Header blocks that span several frames are put together.

use super::frames::{Flags, FrameHeader, HEADER_BYTES, Kind, code_at, content, word_at};
use super::{ErrorCode, FRAME_BYTES_MAX, HEADER_BLOCK_BYTES_MAX, Http2Error};

/// Most frames of one header block. A block of the allowed size fits five; each frame
/// may carry little, but not without end.
const CONTINUATIONS_MAX: usize = 64;

/// What a peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of a message.
    Data {
        /// Their stream.
        stream: u32,
        /// The bytes.
        data: &'a [u8],
        /// What they count in the windows, padding included.
        flow_bytes: usize,
        /// Whether the peer is done with the stream.
        is_end: bool,
    },
    /// A whole header block, still compressed. It has to be decoded even if nobody cares.
    Headers {
        /// Its stream.
        stream: u32,
        /// The block.
        block: &'a [u8],
        /// Whether the peer is done with the stream.
        is_end: bool,
    },
    /// The peer gave the stream up.
    Reset {
        /// Which one.
        stream: u32,
        /// Why.
        code: ErrorCode,
    },
    /// Settings, to be applied and acknowledged.
    Settings(&'a [u8]),
    /// The peer has applied our settings.
    SettingsAck,
    /// To be answered with the same bytes.
    Ping([u8; 8]),
    /// An answer to a ping.
    PingAck,
    /// The peer ends the connection.
    GoAway {
        /// The last stream that it works on.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
        /// Why, in its words.
        text: &'a [u8],
    },
    /// More room in a window.
    Window {
        /// The stream, 0 for the connection.
        stream: u32,
        /// How much more.
        increment: u32,
    },
    /// A frame without meaning for us.
    Nothing,
}

/// A frame that was found whole: its header, and where its payload lies.
#[derive(Clone, Copy)]
struct Found<'a> {
    header: FrameHeader,
    /// The payload, unless it lies in the reader.
    payload: Option<&'a [u8]>,
}

/// Reads what one peer sends.
#[derive(Debug, Default)]
pub struct Reader {
    /// The begin of a frame that is not whole; or, if `is_taken`, one that was given away.
    partial: Vec<u8>,
    is_taken: bool,
    /// The begin of a header block, and the frame that opened it.
    block: Vec<u8>,
    opened: Option<FrameHeader>,
    continuations: usize,
    /// Whether the first frame, which has to be settings, has come.
    has_settings: bool,
}

impl Reader {
    /// The next thing that the peer said, from the front of `bytes`; `None` when more have to
    /// come, which takes all bytes.
    ///
    /// # Errors
    /// The bytes break the protocol; the connection is of no further use.
    pub fn next<'s, 'b: 's>(
        &'s mut self,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Event<'s>>, Http2Error> {
        loop {
            let Some(found) = self.find(bytes)? else {
                return Ok(None);
            };
            let FrameHeader { kind, flags, .. } = found.header;
            let is_block = matches!(kind, Some(Kind::Headers | Kind::Continuation));
            let is_whole = kind == Some(Kind::Headers) && flags.has(Flags::END_HEADERS);
            if !is_block || is_whole {
                let payload = found
                    .payload
                    .unwrap_or_else(|| &self.partial[HEADER_BYTES..]);
                return event(&found.header, payload).map(Some);
            }
            if let Some(opened) = self.collect(&found)? {
                return Ok(Some(Event::Headers {
                    stream: opened.stream,
                    block: &self.block,
                    is_end: opened.flags.has(Flags::END_STREAM),
                }));
            }
        }
    }

    /// Bytes held for what is not whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial.capacity() + self.block.capacity()
    }

    /// Takes a whole frame, or all bytes.
    fn find<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, Http2Error> {
        if self.is_taken {
            self.partial.clear();
            self.is_taken = false;
        }
        if self.partial.is_empty() {
            if let Some(head) = bytes.first_chunk() {
                let header = self.admit(head)?;
                if let Some(payload) = bytes.get(HEADER_BYTES..HEADER_BYTES + header.length) {
                    *bytes = &bytes[HEADER_BYTES + header.length..];
                    let payload = Some(payload);
                    return Ok(Some(Found { header, payload }));
                }
            }
        }
        self.find_in_parts(bytes)
    }

    fn find_in_parts<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, Http2Error> {
        self.fill_to(HEADER_BYTES, bytes);
        let Some(head) = self.partial.first_chunk().copied() else {
            return Ok(None);
        };
        // Checked again for each part, which is cheap, and before anything is kept of it.
        let header = self.admit(&head)?;
        self.fill_to(HEADER_BYTES + header.length, bytes);
        if self.partial.len() < HEADER_BYTES + header.length {
            return Ok(None);
        }
        self.is_taken = true;
        let payload = None;
        Ok(Some(Found { header, payload }))
    }

    fn fill_to(&mut self, length: usize, bytes: &mut &[u8]) {
        let missing = length.saturating_sub(self.partial.len());
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.partial.extend_from_slice(part);
        *bytes = rest;
    }

    /// Checks the header of the frame that comes now.
    fn admit(&mut self, head: &[u8; HEADER_BYTES]) -> Result<FrameHeader, Http2Error> {
        let header = FrameHeader::decode(head);
        if !self.has_settings {
            let is_settings = header.kind == Some(Kind::Settings) && !header.flags.has(Flags::ACK);
            if !is_settings {
                let text = format!(
                    "the peer does not speak HTTP/2: it begins with \"{}\"",
                    head.escape_ascii()
                );
                return Err(Http2Error::protocol(text));
            }
        }
        header.check(FRAME_BYTES_MAX)?;
        self.has_settings = true;
        if let Some(opened) = self.opened {
            let is_next = header.kind == Some(Kind::Continuation) && header.stream == opened.stream;
            if !is_next {
                let text = "a header block was interrupted by another frame";
                return Err(Http2Error::protocol(text));
            }
        } else if header.kind == Some(Kind::Continuation) {
            return Err(Http2Error::protocol("a CONTINUATION without a begin"));
        }
        Ok(header)
    }

    /// Adds a part of a header block; the frame that opened it, when it is whole.
    fn collect(&mut self, found: &Found<'_>) -> Result<Option<FrameHeader>, Http2Error> {
        let payload = found
            .payload
            .unwrap_or_else(|| &self.partial[HEADER_BYTES..]);
        let opened = if let Some(opened) = self.opened {
            self.continuations += 1;
            self.block.extend_from_slice(payload);
            opened
        } else {
            self.continuations = 0;
            self.block.clear();
            self.block
                .extend_from_slice(content(&found.header, payload)?);
            found.header
        };
        let is_bounded =
            self.block.len() <= HEADER_BLOCK_BYTES_MAX && self.continuations <= CONTINUATIONS_MAX;
        if !is_bounded {
            let text = format!(
                "a header block of more than {HEADER_BLOCK_BYTES_MAX} bytes or \
                 {CONTINUATIONS_MAX} continuations"
            );
            return Err(Http2Error::new(ErrorCode::ENHANCE_YOUR_CALM, text));
        }
        let is_end = found.header.flags.has(Flags::END_HEADERS);
        self.opened = (!is_end).then_some(opened);
        Ok(is_end.then_some(opened))
    }
}

/// What a whole frame means.
fn event<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<Event<'a>, Http2Error> {
    let FrameHeader { flags, stream, .. } = *header;
    let is_end = flags.has(Flags::END_STREAM);
    let is_ack = flags.has(Flags::ACK);
    Ok(match header.kind {
        Some(Kind::Data) => Event::Data {
            stream,
            data: content(header, payload)?,
            flow_bytes: header.length,
            is_end,
        },
        Some(Kind::Headers) => Event::Headers {
            stream,
            block: content(header, payload)?,
            is_end,
        },
        Some(Kind::Reset) => Event::Reset {
            stream,
            code: code_at(payload, 0),
        },
        Some(Kind::Settings) if is_ack => Event::SettingsAck,
        Some(Kind::Settings) => Event::Settings(payload),
        Some(Kind::Ping) if is_ack => Event::PingAck,
        Some(Kind::Ping) => Event::Ping(payload.try_into().unwrap_or_default()),
        Some(Kind::GoAway) => Event::GoAway {
            last_stream: word_at(payload, 0),
            code: code_at(payload, 4),
            text: &payload[8..],
        },
        Some(Kind::WindowUpdate) => match word_at(payload, 0) {
            0 => return Err(Http2Error::protocol("a WINDOW_UPDATE of 0 bytes")),
            increment => Event::Window { stream, increment },
        },
        // We never allow a server to push, and a client cannot.
        Some(Kind::PushPromise) => return Err(Http2Error::protocol("a PUSH_PROMISE")),
        Some(Kind::Priority | Kind::Continuation) | None => Event::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::frames::{append_data, append_header, append_ping_ack};
    use crate::http2::settings;
    use proptest::prelude::*;

    /// All events as texts, when the bytes come in pieces of this length.
    fn events(bytes: &[u8], piece: usize) -> Result<Vec<String>, Http2Error> {
        let mut reader = Reader::default();
        let mut told = Vec::new();
        for mut part in bytes.chunks(piece.max(1)) {
            while let Some(event) = reader.next(&mut part)? {
                told.push(format!("{event:?}"));
            }
            assert!(part.is_empty());
            assert!(reader.held_bytes() <= 4 * (FRAME_BYTES_MAX + HEADER_BLOCK_BYTES_MAX));
        }
        Ok(told)
    }

    fn start() -> Vec<u8> {
        let mut bytes = Vec::new();
        settings::append(&[(settings::INITIAL_WINDOW_SIZE, 5)], &mut bytes);
        bytes
    }

    fn frame(kind: Kind, flags: Flags, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
        append_header(payload.len(), kind, flags, stream, out);
        out.extend_from_slice(payload);
    }

    #[test]
    fn pieces_do_not_matter() {
        let mut bytes = start();
        frame(Kind::Headers, Flags(0), 1, b"abc", &mut bytes);
        frame(Kind::Continuation, Flags(0), 1, b"def", &mut bytes);
        frame(Kind::Continuation, Flags::END_HEADERS, 1, b"g", &mut bytes);
        append_data(1, b"hello", true, 3, &mut bytes);
        append_ping_ack(*b"12345678", &mut bytes);
        frame(
            Kind::GoAway,
            Flags(0),
            0,
            b"\0\0\0\x05\0\0\0\x0bwhy",
            &mut bytes,
        );
        let whole = events(&bytes, usize::MAX).unwrap();
        assert_eq!(whole.len(), 6);
        assert!(
            whole[1].contains("block: [97, 98, 99, 100, 101, 102, 103]"),
            "{whole:?}"
        );
        assert!(
            whole[5].contains("last_stream: 5, code: ErrorCode(11)"),
            "{whole:?}"
        );
        for piece in 1..bytes.len() {
            assert_eq!(events(&bytes, piece).unwrap(), whole, "{piece}");
        }
    }

    #[test]
    fn who_does_not_begin_with_settings_speaks_something_else() {
        let error = events(b"HTTP/1.1 400 Bad Request\r\n", usize::MAX).unwrap_err();
        assert!(error.text.contains("\"HTTP/1.1 \""), "{error}");
        let mut ack = Vec::new();
        crate::http2::frames::append_settings_ack(&mut ack);
        assert!(events(&ack, 1).is_err());
    }

    #[test]
    fn header_blocks_are_bounded_and_uninterrupted() {
        let mut open = start();
        frame(Kind::Headers, Flags(0), 1, b"a", &mut open);
        let code = |bytes: &[u8]| events(bytes, usize::MAX).unwrap_err().code;
        let mut interrupted = open.clone();
        append_data(1, b"x", true, 9, &mut interrupted);
        assert_eq!(code(&interrupted), ErrorCode::PROTOCOL_ERROR);
        let mut other = open.clone();
        frame(Kind::Continuation, Flags::END_HEADERS, 3, b"a", &mut other);
        assert_eq!(code(&other), ErrorCode::PROTOCOL_ERROR);
        let mut large = open.clone();
        for _ in 0..5 {
            frame(Kind::Continuation, Flags(0), 1, &[0; 16_384], &mut large);
        }
        assert_eq!(code(&large), ErrorCode::ENHANCE_YOUR_CALM);
        let mut many = open;
        for _ in 0..=CONTINUATIONS_MAX {
            frame(Kind::Continuation, Flags(0), 1, b"", &mut many);
        }
        assert_eq!(code(&many), ErrorCode::ENHANCE_YOUR_CALM);
        let mut alone = start();
        frame(Kind::Continuation, Flags(0), 1, b"", &mut alone);
        assert_eq!(code(&alone), ErrorCode::PROTOCOL_ERROR);
    }

    #[test]
    fn pushes_and_empty_window_updates_are_refused_and_unknown_frames_ignored() {
        let mut push = start();
        frame(Kind::PushPromise, Flags(0), 1, b"\0\0\0\x02", &mut push);
        assert!(events(&push, usize::MAX).is_err());
        let mut nothing = start();
        frame(Kind::WindowUpdate, Flags(0), 1, &[0; 4], &mut nothing);
        assert!(events(&nothing, usize::MAX).is_err());
        let mut unknown = start();
        unknown.extend_from_slice(&[0, 0, 2, 0xee, 0xff, 0, 0, 0, 9, 1, 2]);
        assert_eq!(events(&unknown, usize::MAX).unwrap()[1], "Nothing");
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop::collection::vec(any::<u8>(), 0..64);
        (0u8..12, any::<u8>(), 0u32..6, payload).prop_map(|(kind, flags, stream, payload)| {
            let mut bytes = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags];
            bytes.extend_from_slice(&stream.to_be_bytes());
            bytes.extend_from_slice(&payload);
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Any frames, cut anywhere, give the same events or the same error; never a panic.
        #[test]
        fn any_frames_are_read_or_refused(
            frames in prop::collection::vec(any_frame(), 0..8), piece in 1..80usize,
        ) {
            let bytes = [start(), frames.concat()].concat();
            prop_assert_eq!(events(&bytes, piece), events(&bytes, usize::MAX));
        }

        /// Any bytes at all end in events or an error.
        #[test]
        fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = events(&[start(), tail.clone()].concat(), 7);
            let _ = events(&tail, usize::MAX);
        }
    }
}
