//! The header block of requests, rendered once, and what reply headers say.
//!
//! All requests to one target have the same headers. The first one on a connection has the
//! peer remember them, so that each further one is a few bytes of indices; a peer that
//! remembers nothing gets them as text each time.

use std::sync::Arc;

use super::options::GrpcOptions;
use crate::grpc::{CONTENT_TYPE, Status, percent_decode};
use crate::http2::Http2Error;
use crate::http2::frames::{Flags, Kind, append_header};
use crate::http2::hpack::{ENTRY_OVERHEAD_BYTES, KnownBlocks, TABLE_BYTES, encoder};

/// Longest status message that is kept.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Where the stream number lies in a frame header.
const STREAM_OFFSET: usize = 5;

/// Who sends, as servers log it.
const USER_AGENT: &str = concat!("seatrial/", env!("CARGO_PKG_VERSION"));

/// How the peer's table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// It has not seen our headers.
    Empty,
    /// It remembers them.
    Filled,
    /// It keeps less than they need; whether we still have to acknowledge that.
    Refused {
        /// The next header block says that our table is empty.
        is_told: bool,
    },
}

/// The HEADERS frames of requests to one target.
#[derive(Clone, Debug)]
pub struct RequestHead {
    remembered: Vec<u8>,
    indexed: Vec<u8>,
    literal: Vec<u8>,
    /// The literal one, behind the announcement of an empty table.
    forgetting: Vec<u8>,
    fits_table: bool,
}

impl RequestHead {
    /// Renders the headers of a method at this authority.
    pub fn new(options: &GrpcOptions, scheme: &str, authority: &str) -> Self {
        let fixed = [
            (":method", "POST"),
            (":scheme", scheme),
            (":path", &options.method),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", USER_AGENT),
        ];
        let metadata = options.metadata.iter();
        let metadata = metadata.map(|(name, value)| (name.as_str(), value.as_str()));
        let fields: Vec<(&[u8], &[u8])> = fixed
            .into_iter()
            .chain(metadata)
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let is_static =
            |field: &(&[u8], &[u8])| encoder::static_index_of(field.0, field.1).is_some();
        let own: Vec<_> = fields.iter().filter(|field| !is_static(field)).collect();
        let table_bytes: usize = own
            .iter()
            .map(|(name, value)| name.len() + value.len() + ENTRY_OVERHEAD_BYTES)
            .sum();
        let [mut remembered, mut indexed, mut literal] = [const { Vec::new() }; 3];
        let mut nth = 0;
        for (name, value) in &fields {
            encoder::append_field(name, value, &mut literal);
            if is_static(&(name, value)) {
                encoder::append_field(name, value, &mut remembered);
                encoder::append_field(name, value, &mut indexed);
            } else {
                encoder::append_remembered(name, value, &mut remembered);
                encoder::append_indexed(encoder::remembered_index(nth, own.len()), &mut indexed);
                nth += 1;
            }
        }
        let mut forgetting = Vec::new();
        encoder::append_table_size(0, &mut forgetting);
        forgetting.extend_from_slice(&literal);
        Self {
            remembered: frame(&remembered),
            indexed: frame(&indexed),
            literal: frame(&literal),
            forgetting: frame(&forgetting),
            fits_table: table_bytes <= TABLE_BYTES,
        }
    }

    /// The state of a peer of which nothing is known.
    pub const fn memory(&self) -> Memory {
        if self.fits_table {
            Memory::Empty
        } else {
            Memory::Refused { is_told: true }
        }
    }

    /// Appends the HEADERS frame of a stream, which the body follows.
    pub fn append(&self, memory: &mut Memory, stream: u32, out: &mut Vec<u8>) {
        let frame = match memory {
            Memory::Filled => &self.indexed,
            Memory::Empty => {
                *memory = Memory::Filled;
                &self.remembered
            }
            Memory::Refused { is_told: true } => &self.literal,
            Memory::Refused { is_told } => {
                *is_told = true;
                &self.forgetting
            }
        };
        let start = out.len() + STREAM_OFFSET;
        out.extend_from_slice(frame);
        out[start..start + 4].copy_from_slice(&stream.to_be_bytes());
    }
}

/// A whole HEADERS frame around a block. Method, authority and metadata are bounded
/// so that it always fits one frame.
fn frame(block: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    append_header(
        block.len(),
        Kind::Headers,
        Flags::END_HEADERS,
        0,
        &mut frame,
    );
    frame.extend_from_slice(block);
    frame
}

/// The peer's table holds this much now.
pub fn limit_memory(memory: &mut Memory, table_bytes: u32) {
    let is_small = (table_bytes as usize) < TABLE_BYTES;
    if is_small && !matches!(memory, Memory::Refused { .. }) {
        *memory = Memory::Refused { is_told: false };
    }
}

/// What the headers or trailers of a reply say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyHead {
    /// The HTTP status; 0 in trailers.
    pub http_status: u16,
    /// Whether the body is gRPC.
    pub is_grpc: bool,
    /// How the call ended, once that is known.
    pub status: Option<Status>,
    /// Why, in the server's words.
    pub message: Option<Box<str>>,
}

impl ReplyHead {
    fn note(&mut self, name: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok();
        match name {
            b":status" => {
                self.http_status = number().and_then(|text| text.parse().ok()).unwrap_or(0);
            }
            b"content-type" => self.is_grpc = value.starts_with(CONTENT_TYPE.as_bytes()),
            b"grpc-status" => {
                // The specification has an unreadable status be UNKNOWN.
                let status = number().and_then(|text| text.parse().ok());
                self.status = Some(Status(status.unwrap_or(2)));
            }
            b"grpc-message" => {
                let text = percent_decode(&value[..value.len().min(MESSAGE_BYTES_MAX)]);
                self.message = Some(text.into());
            }
            _ => {}
        }
    }

    /// What went wrong according to this, if anything did.
    pub fn failure(&self) -> Option<Box<str>> {
        let status = self.status.filter(|status| *status != Status::OK)?;
        let message = self.message.as_deref().unwrap_or("without a message");
        Some(format!("grpc-status {} ({}): {message}", status.0, status.name()).into())
    }
}

/// Reads reply headers, of which each kind repeats most of the time.
#[derive(Debug, Default)]
pub struct ReplyHeads(KnownBlocks<ReplyHead, 2>);

impl ReplyHeads {
    /// What a block at the beginning or at the end of a reply says.
    pub fn read(&mut self, block: &[u8], is_end: bool) -> Result<Arc<ReplyHead>, Http2Error> {
        self.0.read(usize::from(is_end), block, ReplyHead::note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::frames::HEADER_BYTES;
    use crate::http2::hpack::Decoder;
    use crate::transport::options::Options;

    fn fields_of(decoder: &mut Decoder, frame: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder
            .decode(&frame[HEADER_BYTES..], |name, value| {
                fields.push((text(name), text(value)));
            })
            .unwrap();
        fields
    }

    fn request_head(metadata: &str) -> RequestHead {
        let pair = ("header".to_owned(), metadata.to_owned());
        let options = GrpcOptions::read(&Options::from([pair])).unwrap();
        RequestHead::new(&options, "http", "host:1")
    }

    #[test]
    fn every_form_of_the_block_says_the_same() {
        let head = request_head("b: 2\na: 1");
        let (mut decoder, mut memory) = (Decoder::default(), head.memory());
        let mut told = Vec::new();
        for stream in [1u32, 3, 5, 7, 9] {
            let mut out = Vec::new();
            if stream == 7 {
                limit_memory(&mut memory, 100);
            }
            head.append(&mut memory, stream, &mut out);
            assert_eq!(out[STREAM_OFFSET..HEADER_BYTES], stream.to_be_bytes());
            told.push((fields_of(&mut decoder, &out), out.len()));
        }
        let expected = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/seatrial.v1.Load/Call"),
            (":authority", "host:1"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", USER_AGENT),
            ("b", "2"),
            ("a", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        for (fields, _) in &told {
            assert_eq!(fields, &expected);
        }
        let sizes: Vec<_> = told.iter().map(|(_, bytes)| *bytes).collect();
        assert_eq!(sizes[1], HEADER_BYTES + expected.len());
        assert_eq!(sizes[2], sizes[1]);
        assert_eq!(sizes[3], sizes[4] + 1);
        assert_eq!(memory, Memory::Refused { is_told: true });
    }

    #[test]
    fn headers_too_large_for_the_table_stay_text() {
        let head = request_head(&format!("a: {}", "x".repeat(4000)));
        let mut memory = head.memory();
        let mut decoder = Decoder::default();
        for _ in 0..2 {
            let mut out = Vec::new();
            head.append(&mut memory, 1, &mut out);
            assert_eq!(fields_of(&mut decoder, &out)[7].1.len(), 4000);
        }
    }

    #[test]
    fn statuses_are_told_in_words() {
        let mut block = Vec::new();
        encoder::append_literal(b"grpc-status", b"5", &mut block);
        encoder::append_literal(b"grpc-message", b"no%20such%20thing", &mut block);
        let head = ReplyHeads::default().read(&block, true).unwrap();
        let told = head.failure().unwrap();
        assert_eq!(&*told, "grpc-status 5 (NOT_FOUND): no such thing");
        let mut block = Vec::new();
        encoder::append_literal(b"grpc-status", b"x", &mut block);
        let head = ReplyHeads::default().read(&block, true).unwrap();
        assert!(head.failure().unwrap().contains("UNKNOWN"));
    }
}
