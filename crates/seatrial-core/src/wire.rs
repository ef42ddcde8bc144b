//! The `rpc` wire format: what the load engine sends and what the guest's
//! `serve --protocol rpc` answers.
//!
//! Both directions start with a header of fixed length, little-endian, so a peer
//! can always read a whole header before it decides anything:
//!
//! ```text
//! offset  request            reply
//!      0  u32 length         u32 length       (bytes after this field)
//!      4  u8  version        u8  version
//!      5  u8  operation      u8  status
//!      6  u16 flags = 0      u16 flags = 0
//!      8  u64 request_id     u64 request_id
//!     16  u64 argument       u64 value
//!     24  u32 reply_bytes    u64 service_ns
//!     28  u32 reserved = 0
//!     32  payload            u64 queue_ns
//!     40                     u64 seed
//!     48                     payload
//! ```
//!
//! Over UDP one datagram is one request or one reply, whole.
//!
//! Sums are XXH64 ([`checksum`]). The payload of a reply is the output of `SplitMix64`
//! for `seed` ([`append_payload`]), so whoever has the header can make it again.
//!
//! The functions here only convert bytes: they do no input or output and never
//! panic, whatever the bytes are.

mod header;
mod payload;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use header::{Reply, RequestHeader, check_version, request_id_of};
pub use payload::{Difference, append_payload, checksum, first_difference, payload_seed};

/// The version of this format; a peer with another one is refused.
pub const VERSION: u8 = 2;

/// Length of a request header.
pub const HEADER_BYTES: usize = 32;

/// Length of a reply header.
pub const REPLY_HEADER_BYTES: usize = 48;

/// Longest payload of a request, and of a reply.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Size of the payload that a client asks for in a checksum reply unless told otherwise.
pub const REPLY_BYTES_DEFAULT: u32 = 2048;

/// Longest payload of a reply that fits a UDP datagram over IPv4.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Longest whole request: header and payload.
pub const REQUEST_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// What a request asks the server to do before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Answer at once.
    Empty = 0,
    /// Compare [`checksum`] of the payload with `argument`, then answer with
    /// `reply_bytes` of fresh payload and its sum.
    Checksum = 1,
    /// Burn `argument` nanoseconds of the worker's CPU time, then answer.
    Spin = 2,
    /// Block the worker for `argument` nanoseconds, then answer.
    Sleep = 3,
    /// Keep the worker busy until `argument` nanoseconds have passed, then answer.
    SpinWall = 4,
    /// Write one byte to each page of `argument` bytes of the worker's memory, then answer.
    Touch = 5,
}

impl Operation {
    /// The operation with this number, if there is one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Empty),
            1 => Some(Self::Checksum),
            2 => Some(Self::Spin),
            3 => Some(Self::Sleep),
            4 => Some(Self::SpinWall),
            5 => Some(Self::Touch),
            _ => None,
        }
    }
}

/// How the server fared with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// The operation was done.
    Ok = 0,
    /// The header was not a valid request; the server closes after this reply.
    BadRequest = 1,
    /// The payload does not have the announced checksum.
    ChecksumMismatch = 2,
    /// A payload or the argument exceeds what the server accepts.
    TooLarge = 3,
}

impl Status {
    /// The status with this number, if there is one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ok),
            1 => Some(Self::BadRequest),
            2 => Some(Self::ChecksumMismatch),
            3 => Some(Self::TooLarge),
            _ => None,
        }
    }

    /// The status as a word, for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadRequest => "bad-request",
            Self::ChecksumMismatch => "checksum-mismatch",
            Self::TooLarge => "too-large",
        }
    }
}

/// Why bytes are not a frame of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The version byte is not [`VERSION`].
    #[error("wire version {found}, expected {VERSION}")]
    Version {
        /// The version byte that was read.
        found: u8,
    },
    /// The length field is shorter than a header.
    #[error("frame length {length}, expected at least {length_min}")]
    TooShort {
        /// The length field that was read.
        length: u32,
        /// The length of a header without payload.
        length_min: u32,
    },
    /// The length field is longer than the format allows.
    #[error("frame length {length}, expected at most {length_max}")]
    TooLong {
        /// The length field that was read.
        length: u32,
        /// The largest length allowed for this kind of frame.
        length_max: u32,
    },
    /// No operation has this number.
    #[error("unknown operation {found}, expected 0 to 5")]
    Operation {
        /// The operation byte that was read.
        found: u8,
    },
    /// No status has this number.
    #[error("unknown status {found}, expected 0 to 3")]
    Status {
        /// The status byte that was read.
        found: u8,
    },
    /// Flags are not used by this version and have to be zero.
    #[error("flags {found:#06x}, expected 0")]
    Flags {
        /// The flags that were read.
        found: u16,
    },
    /// The reserved field has to be zero.
    #[error("reserved field {found:#018x}, expected 0")]
    Reserved {
        /// The field that was read.
        found: u64,
    },
}

impl WireError {
    /// The status a server answers with before it closes the connection.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::TooLong { .. } => Status::TooLarge,
            _ => Status::BadRequest,
        }
    }
}
