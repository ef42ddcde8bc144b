//! The control channel between a guest and its host: what crosses the stream
//! socket that every sandbox inherits.
//!
//! ```text
//! u32 length   bytes after this field, 2 ..= FRAME_BYTES_MAX, little-endian
//! u8  version  2
//! u8  type
//! ...          payload, by type
//! ```
//!
//! | type | direction | payload |
//! | --- | --- | --- |
//! | `HELLO` 0x01 | guest to host | first instruction u64, hello u64, pid u32, build text |
//! | `READY` 0x02 | guest to host | ready u64, then nothing or JSON `{"endpoints": [...]}` |
//! | `PONG` 0x03 | guest to host | the payload of the `PING` |
//! | `RESULT` 0x04 | guest to host | JSON text |
//! | `ERROR` 0x05 | guest to host | JSON `{"code", "message"}` |
//! | `STATS` 0x06 | guest to host | JSON text, see [`HostFrame::Stats`] |
//! | `PING` 0x11 | host to guest | at most [`PING_BYTES_MAX`] |
//! | `RUN` 0x12 | host to guest | JSON text |
//! | `STOP` 0x13 | host to guest | nothing |
//! | `STATS` 0x14 | host to guest | nothing |
//!
//! The functions here only convert bytes. They never panic, hold at most
//! [`BUFFER_BYTES_MAX`] and refuse a bad frame as soon as the byte that makes it
//! bad has come, so that garbage never leaves a reader waiting for more of it.

mod decoder;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use decoder::Decoder;

/// The version of this protocol; a peer with another one is refused.
pub const VERSION: u8 = 2;

/// The file descriptor that carries the channel into a sandbox unless told otherwise.
pub const CHANNEL_FD_DEFAULT: i32 = 3;

/// Largest value of the length field: version, type and payload.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Longest payload of any frame.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - HEAD_BYTES;

/// Longest payload of a `PING`.
pub const PING_BYTES_MAX: usize = 64 << 10;

/// Longest build text in a `HELLO`.
pub const BUILD_BYTES_MAX: usize = 64;

/// Most bytes a [`Decoder`] holds: one whole frame and what came behind it.
pub const BUFFER_BYTES_MAX: usize = 2 * (FRAME_BYTES_MAX + LENGTH_FIELD_BYTES);

/// The exit status of a guest that refused what its host sent.
pub const EXIT_PROTOCOL: i32 = 70;

/// Bytes of the length field, which the length does not count.
const LENGTH_FIELD_BYTES: usize = 4;

/// Version and type.
const HEAD_BYTES: usize = 2;

/// The fixed part of a `HELLO`.
const HELLO_FIXED_BYTES: usize = 20;

/// The fixed part of a `READY`.
const READY_FIXED_BYTES: usize = 8;

const TYPE_HELLO: u8 = 0x01;
const TYPE_READY: u8 = 0x02;
const TYPE_PONG: u8 = 0x03;
const TYPE_RESULT: u8 = 0x04;
const TYPE_ERROR: u8 = 0x05;
const TYPE_STATS: u8 = 0x06;
const TYPE_PING: u8 = 0x11;
const TYPE_RUN: u8 = 0x12;
const TYPE_STOP: u8 = 0x13;
const TYPE_GIVE_STATS: u8 = 0x14;

/// Why bytes are not a frame of the control channel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The length field is outside of what a frame may have.
    #[error("control frame length {length}, expected {HEAD_BYTES} to {FRAME_BYTES_MAX}")]
    Length {
        /// The length that was read, or that a frame to be sent would have.
        length: u64,
    },
    /// The version byte is not [`VERSION`].
    #[error("control protocol version {found}, expected {VERSION}")]
    Version {
        /// The version byte that was read.
        found: u8,
    },
    /// No frame of this direction has this type.
    #[error("unknown control frame type {found:#04x} from the {sender}")]
    Type {
        /// The type byte that was read.
        found: u8,
        /// Who sent it: `guest` or `host`.
        sender: &'static str,
    },
    /// The payload is shorter or longer than this type of frame allows.
    #[error("{frame} frame with {found_bytes} payload bytes, expected {min_bytes} to {max_bytes}")]
    PayloadLength {
        /// The name of the frame type.
        frame: &'static str,
        /// Payload length that was announced.
        found_bytes: usize,
        /// Shortest payload allowed.
        min_bytes: usize,
        /// Longest payload allowed.
        max_bytes: usize,
    },
    /// The payload has the right length but not the right content.
    #[error("{frame} frame with a payload that is not {expected}: {reason}")]
    Payload {
        /// The name of the frame type.
        frame: &'static str,
        /// What the payload should have been.
        expected: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// More bytes were pushed into a decoder than it may hold.
    #[error(
        "{found_bytes} unread bytes on the control channel, expected at most {BUFFER_BYTES_MAX}"
    )]
    Overflow {
        /// Bytes that the decoder would have had to hold.
        found_bytes: usize,
    },
    /// The stream ended inside a frame.
    #[error("control channel closed after {held_bytes} bytes of an unfinished frame")]
    Truncated {
        /// Bytes of the unfinished frame that had come.
        held_bytes: usize,
    },
}

/// What the guest says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// `CLOCK_MONOTONIC` of the guest at the first statement of its `main`.
    pub first_instruction_mono_ns: u64,
    /// `CLOCK_MONOTONIC` of the guest when this frame was made.
    pub hello_mono_ns: u64,
    /// The guest's own process id, as it sees it.
    pub pid: u32,
    /// Name and version of the guest, at most [`BUILD_BYTES_MAX`].
    pub build: String,
}

/// What the guest says when its role is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// `CLOCK_MONOTONIC` of the guest when it was ready.
    pub ready_mono_ns: u64,
    /// Where it listens, such as `tcp:0.0.0.0:7000`; empty for a role that does not.
    pub endpoints: Vec<String>,
}

/// A failure that the guest reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// A short stable word, such as `bad-request`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
}

/// A frame that a guest sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestFrame {
    /// The guest runs.
    Hello(Hello),
    /// The guest's role is set up.
    Ready(Ready),
    /// The payload of a `PING`, sent back.
    Pong(Vec<u8>),
    /// The outcome of a `RUN`, as JSON text.
    Result(String),
    /// Something failed.
    Error(ErrorReport),
    /// What a server has counted, as JSON text.
    Stats(String),
}

/// A frame that a host sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFrame {
    /// Asks for a `PONG` with the same payload.
    Ping(Vec<u8>),
    /// Asks for a probe to be run; JSON text.
    Run(String),
    /// Asks the guest to exit at once.
    Stop,
    /// Asks a guest that serves for what it has counted so far: requests, replies,
    /// bytes, connections, and histograms of service and queue times.
    Stats,
}

/// The endpoints as they stand in a `READY`.
#[derive(Serialize, Deserialize)]
struct Endpoints {
    endpoints: Vec<String>,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::GuestFrame {}
    impl Sealed for super::HostFrame {}
}

/// One direction of the channel: [`GuestFrame`] or [`HostFrame`].
pub trait Frame: sealed::Sealed + Sized {
    /// Who sends these frames, for messages.
    const SENDER: &'static str;

    /// Name, shortest and longest payload of a type; `None` for a type of no frame.
    fn limits(kind: u8) -> Option<Limits>;

    /// Makes a frame of a payload whose length is within the limits.
    ///
    /// # Errors
    /// The payload does not have the content that its type asks for.
    fn parse(kind: u8, payload: &[u8]) -> Result<Self, ControlError>;

    /// The whole frame as bytes.
    ///
    /// # Errors
    /// A text or payload is longer than a frame may carry.
    fn encode(&self) -> Result<Vec<u8>, ControlError>;
}

/// What a type of frame may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The name of the type.
    pub name: &'static str,
    /// Shortest payload.
    pub min_bytes: usize,
    /// Longest payload.
    pub max_bytes: usize,
}

impl Limits {
    const fn new(name: &'static str, min_bytes: usize, max_bytes: usize) -> Self {
        Self {
            name,
            min_bytes,
            max_bytes,
        }
    }

    const fn check(self, found_bytes: usize) -> Result<(), ControlError> {
        let Self {
            name: frame,
            min_bytes,
            max_bytes,
        } = self;
        if found_bytes < min_bytes || found_bytes > max_bytes {
            return Err(ControlError::PayloadLength {
                frame,
                found_bytes,
                min_bytes,
                max_bytes,
            });
        }
        Ok(())
    }
}

impl Frame for GuestFrame {
    const SENDER: &'static str = "guest";

    fn limits(kind: u8) -> Option<Limits> {
        let hello_bytes_max = HELLO_FIXED_BYTES + BUILD_BYTES_MAX;
        Some(match kind {
            TYPE_HELLO => Limits::new("HELLO", HELLO_FIXED_BYTES, hello_bytes_max),
            TYPE_READY => Limits::new("READY", READY_FIXED_BYTES, PAYLOAD_BYTES_MAX),
            TYPE_PONG => Limits::new("PONG", 0, PING_BYTES_MAX),
            TYPE_RESULT => Limits::new("RESULT", 0, PAYLOAD_BYTES_MAX),
            TYPE_ERROR => Limits::new("ERROR", 0, PAYLOAD_BYTES_MAX),
            TYPE_STATS => Limits::new("STATS", 0, PAYLOAD_BYTES_MAX),
            _ => return None,
        })
    }

    fn parse(kind: u8, payload: &[u8]) -> Result<Self, ControlError> {
        match kind {
            TYPE_HELLO => parse_hello(payload).map(Self::Hello),
            TYPE_READY => parse_ready(payload).map(Self::Ready),
            TYPE_PONG => Ok(Self::Pong(payload.to_vec())),
            TYPE_RESULT => text_of("RESULT", payload).map(Self::Result),
            TYPE_ERROR => json_of("ERROR", payload).map(Self::Error),
            TYPE_STATS => text_of("STATS", payload).map(Self::Stats),
            found => Err(ControlError::Type {
                found,
                sender: Self::SENDER,
            }),
        }
    }

    fn encode(&self) -> Result<Vec<u8>, ControlError> {
        match self {
            Self::Hello(hello) => encode_frame::<Self>(
                TYPE_HELLO,
                &[
                    &hello.first_instruction_mono_ns.to_le_bytes(),
                    &hello.hello_mono_ns.to_le_bytes(),
                    &hello.pid.to_le_bytes(),
                    hello.build.as_bytes(),
                ],
            ),
            Self::Ready(ready) => {
                let endpoints = if ready.endpoints.is_empty() {
                    Vec::new()
                } else {
                    json_bytes(
                        "READY",
                        &Endpoints {
                            endpoints: ready.endpoints.clone(),
                        },
                    )?
                };
                encode_frame::<Self>(
                    TYPE_READY,
                    &[&ready.ready_mono_ns.to_le_bytes(), &endpoints],
                )
            }
            Self::Pong(payload) => encode_frame::<Self>(TYPE_PONG, &[payload]),
            Self::Result(text) => encode_frame::<Self>(TYPE_RESULT, &[text.as_bytes()]),
            Self::Stats(text) => encode_frame::<Self>(TYPE_STATS, &[text.as_bytes()]),
            Self::Error(report) => {
                encode_frame::<Self>(TYPE_ERROR, &[&json_bytes("ERROR", report)?])
            }
        }
    }
}

impl Frame for HostFrame {
    const SENDER: &'static str = "host";

    fn limits(kind: u8) -> Option<Limits> {
        Some(match kind {
            TYPE_PING => Limits::new("PING", 0, PING_BYTES_MAX),
            TYPE_RUN => Limits::new("RUN", 0, PAYLOAD_BYTES_MAX),
            TYPE_STOP => Limits::new("STOP", 0, 0),
            TYPE_GIVE_STATS => Limits::new("STATS", 0, 0),
            _ => return None,
        })
    }

    fn parse(kind: u8, payload: &[u8]) -> Result<Self, ControlError> {
        match kind {
            TYPE_PING => Ok(Self::Ping(payload.to_vec())),
            TYPE_RUN => text_of("RUN", payload).map(Self::Run),
            TYPE_STOP => Ok(Self::Stop),
            TYPE_GIVE_STATS => Ok(Self::Stats),
            found => Err(ControlError::Type {
                found,
                sender: Self::SENDER,
            }),
        }
    }

    fn encode(&self) -> Result<Vec<u8>, ControlError> {
        match self {
            Self::Ping(payload) => encode_frame::<Self>(TYPE_PING, &[payload]),
            Self::Run(text) => encode_frame::<Self>(TYPE_RUN, &[text.as_bytes()]),
            Self::Stop => encode_frame::<Self>(TYPE_STOP, &[]),
            Self::Stats => encode_frame::<Self>(TYPE_GIVE_STATS, &[]),
        }
    }
}

fn encode_frame<F: Frame>(kind: u8, parts: &[&[u8]]) -> Result<Vec<u8>, ControlError> {
    let payload_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
    F::limits(kind)
        .ok_or(ControlError::Type {
            found: kind,
            sender: F::SENDER,
        })?
        .check(payload_bytes)?;
    let length_bytes = HEAD_BYTES + payload_bytes;
    let length = u32::try_from(length_bytes).map_err(|_| ControlError::Length {
        length: length_bytes as u64,
    })?;
    let mut frame = Vec::with_capacity(LENGTH_FIELD_BYTES + length_bytes);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&[VERSION, kind]);
    for part in parts {
        frame.extend_from_slice(part);
    }
    Ok(frame)
}

fn parse_hello(payload: &[u8]) -> Result<Hello, ControlError> {
    let Some((fixed, build)) = payload.split_first_chunk::<HELLO_FIXED_BYTES>() else {
        return Err(short("HELLO", payload.len(), HELLO_FIXED_BYTES));
    };
    let mut pid = [0; 4];
    pid.copy_from_slice(&fixed[16..20]);
    Ok(Hello {
        first_instruction_mono_ns: u64_at(fixed, 0),
        hello_mono_ns: u64_at(fixed, 8),
        pid: u32::from_le_bytes(pid),
        build: text_of("HELLO", build)?,
    })
}

fn parse_ready(payload: &[u8]) -> Result<Ready, ControlError> {
    let Some((fixed, rest)) = payload.split_first_chunk::<READY_FIXED_BYTES>() else {
        return Err(short("READY", payload.len(), READY_FIXED_BYTES));
    };
    let endpoints = if rest.is_empty() {
        Vec::new()
    } else {
        json_of::<Endpoints>("READY", rest)?.endpoints
    };
    Ok(Ready {
        ready_mono_ns: u64::from_le_bytes(*fixed),
        endpoints,
    })
}

const fn short(frame: &'static str, found_bytes: usize, min_bytes: usize) -> ControlError {
    ControlError::PayloadLength {
        frame,
        found_bytes,
        min_bytes,
        max_bytes: PAYLOAD_BYTES_MAX,
    }
}

fn u64_at(bytes: &[u8; HELLO_FIXED_BYTES], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

fn text_of(frame: &'static str, payload: &[u8]) -> Result<String, ControlError> {
    std::str::from_utf8(payload)
        .map(str::to_owned)
        .map_err(|error| ControlError::Payload {
            frame,
            expected: "UTF-8 text",
            reason: error.to_string(),
        })
}

fn json_of<T: serde::de::DeserializeOwned>(
    frame: &'static str,
    payload: &[u8],
) -> Result<T, ControlError> {
    serde_json::from_slice(payload).map_err(|error| not_json(frame, &error))
}

fn json_bytes<T: Serialize>(frame: &'static str, value: &T) -> Result<Vec<u8>, ControlError> {
    serde_json::to_vec(value).map_err(|error| not_json(frame, &error))
}

fn not_json(frame: &'static str, error: &serde_json::Error) -> ControlError {
    ControlError::Payload {
        frame,
        expected: "the JSON of its type",
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_guest_frame() -> impl Strategy<Value = GuestFrame> {
        prop_oneof![
            (any::<u64>(), any::<u64>(), any::<u32>(), "[ -~]{0,64}").prop_map(
                |(first_instruction_mono_ns, hello_mono_ns, pid, build)| GuestFrame::Hello(Hello {
                    first_instruction_mono_ns,
                    hello_mono_ns,
                    pid,
                    build,
                })
            ),
            (any::<u64>(), prop::collection::vec("\\PC{0,20}", 0..4)).prop_map(
                |(ready_mono_ns, endpoints)| GuestFrame::Ready(Ready {
                    ready_mono_ns,
                    endpoints
                })
            ),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(GuestFrame::Pong),
            "\\PC{0,80}".prop_map(GuestFrame::Result),
            "\\PC{0,80}".prop_map(GuestFrame::Stats),
            ("[a-z-]{0,20}", "\\PC{0,40}")
                .prop_map(|(code, message)| GuestFrame::Error(ErrorReport { code, message })),
        ]
    }

    fn any_host_frame() -> impl Strategy<Value = HostFrame> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300).prop_map(HostFrame::Ping),
            "\\PC{0,80}".prop_map(HostFrame::Run),
            Just(HostFrame::Stop),
            Just(HostFrame::Stats),
        ]
    }

    /// Feeds `bytes` in pieces of the given sizes (repeated) and gives all frames.
    fn decode_in_pieces<F: Frame>(bytes: &[u8], sizes: &[usize]) -> Result<Vec<F>, ControlError> {
        let mut decoder = Decoder::<F>::new();
        let mut frames = Vec::new();
        let mut rest = bytes;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at((*size).min(rest.len()));
            rest = later;
            decoder.push(piece)?;
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        decoder.finish()?;
        Ok(frames)
    }

    fn stream_of<F: Frame>(frames: &[F]) -> Vec<u8> {
        frames
            .iter()
            .flat_map(|frame| frame.encode().unwrap())
            .collect()
    }

    proptest! {
        #[test]
        fn guest_frames_survive_any_cut(
            frames in prop::collection::vec(any_guest_frame(), 0..6),
            sizes in prop::collection::vec(1..40usize, 1..6),
        ) {
            let bytes = stream_of(&frames);
            prop_assert_eq!(decode_in_pieces::<GuestFrame>(&bytes, &sizes), Ok(frames));
        }

        #[test]
        fn host_frames_survive_any_cut(
            frames in prop::collection::vec(any_host_frame(), 0..6),
            sizes in prop::collection::vec(1..40usize, 1..6),
        ) {
            let bytes = stream_of(&frames);
            prop_assert_eq!(decode_in_pieces::<HostFrame>(&bytes, &sizes), Ok(frames));
        }

        /// Whatever comes, the decoder gives frames or a typed error; the cut does not matter.
        #[test]
        fn garbage_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            sizes in prop::collection::vec(1..40usize, 1..6),
        ) {
            let whole = decode_in_pieces::<GuestFrame>(&bytes, &[usize::MAX]);
            prop_assert_eq!(decode_in_pieces::<GuestFrame>(&bytes, &sizes), whole);
            let whole = decode_in_pieces::<HostFrame>(&bytes, &[usize::MAX]);
            prop_assert_eq!(decode_in_pieces::<HostFrame>(&bytes, &sizes), whole);
        }

        /// The same with a plausible start, which gets past the first checks.
        #[test]
        fn damaged_frames_never_panic(
            frame in any_guest_frame(), offset: prop::sample::Index, value: u8,
        ) {
            let mut bytes = frame.encode().unwrap();
            let position = offset.index(bytes.len());
            bytes[position] = value;
            let _ = decode_in_pieces::<GuestFrame>(&bytes, &[7]);
            let _ = decode_in_pieces::<HostFrame>(&bytes, &[7]);
        }

        /// A stream that ends early is never taken for a whole one.
        #[test]
        fn truncation_is_seen(frame in any_guest_frame(), at: prop::sample::Index) {
            let bytes = frame.encode().unwrap();
            let held_bytes = at.index(bytes.len());
            prop_assume!(held_bytes > 0);
            prop_assert_eq!(
                decode_in_pieces::<GuestFrame>(&bytes[..held_bytes], &[3]),
                Err(ControlError::Truncated { held_bytes })
            );
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let hello = GuestFrame::Hello(Hello {
            first_instruction_mono_ns: 1,
            hello_mono_ns: 2,
            pid: 3,
            build: "g".to_owned(),
        });
        let mut expected = vec![23, 0, 0, 0, 2, 0x01];
        expected.extend([
            1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'g',
        ]);
        assert_eq!(hello.encode().unwrap(), expected);
        assert_eq!(HostFrame::Stop.encode().unwrap(), [2, 0, 0, 0, 2, 0x13]);
        let ready = GuestFrame::Ready(Ready {
            ready_mono_ns: 0,
            endpoints: Vec::new(),
        });
        assert_eq!(ready.encode().unwrap().len(), 14);
    }

    #[test]
    fn bad_fields_are_refused_at_the_first_byte_that_shows_them() {
        let cases: [(&[u8], ControlError); 6] = [
            (&[1, 0, 0, 0], ControlError::Length { length: 1 }),
            (
                &[1, 0, 16, 0],
                ControlError::Length {
                    length: (1 << 20) + 1,
                },
            ),
            (&[2, 0, 0, 0, 9], ControlError::Version { found: 9 }),
            (
                &[2, 0, 0, 0, 2, 0x01],
                ControlError::Type {
                    found: 0x01,
                    sender: "host",
                },
            ),
            (
                &[3, 0, 0, 0, 2, 0x13],
                ControlError::PayloadLength {
                    frame: "STOP",
                    found_bytes: 1,
                    min_bytes: 0,
                    max_bytes: 0,
                },
            ),
            (
                &[3, 0, 1, 0, 2, 0x11],
                ControlError::PayloadLength {
                    frame: "PING",
                    found_bytes: PING_BYTES_MAX + 1,
                    min_bytes: 0,
                    max_bytes: PING_BYTES_MAX,
                },
            ),
        ];
        for (bytes, expected) in cases {
            let mut decoder = Decoder::<HostFrame>::new();
            decoder.push(&bytes[..bytes.len() - 1]).unwrap();
            assert_eq!(decoder.next_frame(), Ok(None), "{bytes:?}");
            decoder.push(&bytes[bytes.len() - 1..]).unwrap();
            assert_eq!(decoder.next_frame(), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn the_first_error_is_final() {
        let mut decoder = Decoder::<HostFrame>::new();
        decoder.push(&[0, 0, 0, 0]).unwrap();
        let error = ControlError::Length { length: 0 };
        assert_eq!(decoder.next_frame(), Err(error.clone()));
        assert_eq!(
            decoder.push(&HostFrame::Stop.encode().unwrap()),
            Err(error.clone())
        );
        assert_eq!(decoder.next_frame(), Err(error.clone()));
        assert_eq!(decoder.finish(), Err(error));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut decoder = Decoder::<HostFrame>::new();
        let chunk = vec![0; 64 << 10];
        let error = loop {
            if let Err(error) = decoder.push(&chunk) {
                break error;
            }
            assert!(decoder.held_bytes() <= BUFFER_BYTES_MAX);
        };
        assert!(matches!(error, ControlError::Overflow { .. }), "{error}");
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn oversized_frames_are_not_encoded() {
        let long = "x".repeat(PAYLOAD_BYTES_MAX);
        assert!(GuestFrame::Result(long.clone()).encode().is_ok());
        assert!(GuestFrame::Result(long + "x").encode().is_err());
        assert!(
            HostFrame::Ping(vec![0; PING_BYTES_MAX + 1])
                .encode()
                .is_err()
        );
        let hello = Hello {
            first_instruction_mono_ns: 0,
            hello_mono_ns: 0,
            pid: 0,
            build: "b".repeat(BUILD_BYTES_MAX + 1),
        };
        assert!(GuestFrame::Hello(hello).encode().is_err());
    }

    #[test]
    fn the_largest_frame_passes() {
        let frame = HostFrame::Run("r".repeat(PAYLOAD_BYTES_MAX));
        let bytes = frame.encode().unwrap();
        assert_eq!(
            decode_in_pieces::<HostFrame>(&bytes, &[65_536]),
            Ok(vec![frame])
        );
    }

    #[test]
    fn errors_carry_code_and_message() {
        let frame = GuestFrame::Error(ErrorReport {
            code: "bad-request".to_owned(),
            message: "no probe".to_owned(),
        });
        let bytes = frame.encode().unwrap();
        assert_eq!(
            decode_in_pieces::<GuestFrame>(&bytes, &[1]),
            Ok(vec![frame])
        );
        let mut bad = vec![4, 0, 0, 0, VERSION, TYPE_ERROR];
        bad.extend(b"{}");
        let error = decode_in_pieces::<GuestFrame>(&bad, &[64]).unwrap_err();
        assert!(
            matches!(error, ControlError::Payload { frame: "ERROR", .. }),
            "{error}"
        );
    }
}
