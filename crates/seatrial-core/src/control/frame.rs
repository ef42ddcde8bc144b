//! The frames of both directions: their types, what each may carry, and how they become bytes.

use super::payload::{
    ErrorReport, HELLO_FIXED_BYTES, Hello, READY_FIXED_BYTES, Ready, json_bytes, json_of, text_of,
};
use super::{
    BUILD_BYTES_MAX, ControlError, HEAD_BYTES, LENGTH_FIELD_BYTES, PAYLOAD_BYTES_MAX,
    PING_BYTES_MAX, VERSION,
};

const TYPE_HELLO: u8 = 0x01;
const TYPE_READY: u8 = 0x02;
const TYPE_PONG: u8 = 0x03;
const TYPE_RESULT: u8 = 0x04;
pub(super) const TYPE_ERROR: u8 = 0x05;
const TYPE_STATS: u8 = 0x06;
const TYPE_PING: u8 = 0x11;
const TYPE_RUN: u8 = 0x12;
const TYPE_STOP: u8 = 0x13;
const TYPE_GIVE_STATS: u8 = 0x14;

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

    pub(super) const fn check(self, found_bytes: usize) -> Result<(), ControlError> {
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
            TYPE_HELLO => Hello::parse(payload).map(Self::Hello),
            TYPE_READY => Ready::parse(payload).map(Self::Ready),
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
            Self::Ready(ready) => encode_frame::<Self>(
                TYPE_READY,
                &[
                    &ready.ready_mono_ns.to_le_bytes(),
                    &ready.endpoints_bytes()?,
                ],
            ),
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
