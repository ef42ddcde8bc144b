//! The `rpc` wire format: what the load engine sends and what the guest's
//! `serve --protocol rpc` answers.
//!
//! Both directions start with a header of [`HEADER_BYTES`] little-endian bytes,
//! so a peer can always read a whole header before it decides anything:
//!
//! ```text
//! offset  request            reply
//!      0  u32 length         u32 length       (bytes after this field)
//!      4  u8  version        u8  version
//!      5  u8  operation      u8  status
//!      6  u16 flags = 0      u16 flags = 0
//!      8  u64 request_id     u64 request_id
//!     16  u64 argument       u64 value
//!     24  u64 reserved = 0   u64 service_ns
//!     32  payload            (replies carry no payload)
//! ```
//!
//! The functions here only convert bytes: they do no input or output, allocate
//! nothing and never panic, whatever the bytes are.

use thiserror::Error;

/// The version of this format; a peer with another one is refused.
pub const VERSION: u8 = 1;

/// Length of a request header and of a reply header.
pub const HEADER_BYTES: usize = 32;

/// Longest payload of a request.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Longest whole request: header and payload.
pub const REQUEST_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// Bytes of the length field, which the length does not count.
const LENGTH_FIELD_BYTES: usize = 4;

/// Smallest value of the length field: a header without payload.
const LENGTH_MIN: usize = HEADER_BYTES - LENGTH_FIELD_BYTES;

/// What a request asks the server to do before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Answer at once.
    Empty = 0,
    /// Compare [`checksum`] of the payload with `argument`; the reply carries the server's sum.
    Checksum = 1,
    /// Burn `argument` nanoseconds of the worker's CPU time, then answer.
    Spin = 2,
    /// Block the worker for `argument` nanoseconds, then answer.
    Sleep = 3,
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
    /// The payload or the argument exceeds what the server accepts.
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
    #[error("frame length {length}, expected at least {LENGTH_MIN}")]
    TooShort {
        /// The length field that was read.
        length: u32,
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
    #[error("unknown operation {found}, expected 0 to 3")]
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

/// The header of a request; the payload follows it on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// What to do.
    pub operation: Operation,
    /// Chosen by the client; the reply repeats it.
    pub request_id: u64,
    /// Nanoseconds for spin and sleep, the expected sum for checksum, else 0.
    pub argument: u64,
    /// Bytes of payload after the header, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u32,
}

impl RequestHeader {
    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let length = self.payload_bytes.saturating_add(to_u32(LENGTH_MIN));
        encode_header(
            length,
            self.operation as u8,
            [self.request_id, self.argument, 0],
        )
    }

    /// Reads a header.
    ///
    /// # Errors
    /// A field is outside of what this version allows. The request id can still
    /// be had with [`request_id_of`], to answer before closing.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let payload_bytes = check_length(bytes, PAYLOAD_BYTES_MAX)?;
        let operation =
            Operation::from_u8(bytes[5]).ok_or(WireError::Operation { found: bytes[5] })?;
        let reserved = u64_at(bytes, 24);
        if reserved != 0 {
            return Err(WireError::Reserved { found: reserved });
        }
        Ok(Self {
            operation,
            request_id: u64_at(bytes, 8),
            argument: u64_at(bytes, 16),
            payload_bytes,
        })
    }

    /// Length of the whole frame: header and payload.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes as usize
    }
}

/// A reply: a header without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How the server fared.
    pub status: Status,
    /// The id of the request that is answered.
    pub request_id: u64,
    /// The server's own checksum of the payload (checksum operation), else 0.
    pub value: u64,
    /// From the request having been read whole to the reply being ready, on the server's clock.
    pub service_ns: u64,
}

impl Reply {
    /// The reply as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let words = [self.request_id, self.value, self.service_ns];
        encode_header(to_u32(LENGTH_MIN), self.status as u8, words)
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// A field is outside of what this version allows.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let _ = check_length(bytes, 0)?;
        let status = Status::from_u8(bytes[5]).ok_or(WireError::Status { found: bytes[5] })?;
        Ok(Self {
            status,
            request_id: u64_at(bytes, 8),
            value: u64_at(bytes, 16),
            service_ns: u64_at(bytes, 24),
        })
    }
}

/// The request id of a header that did not decode.
#[must_use]
pub fn request_id_of(bytes: &[u8; HEADER_BYTES]) -> u64 {
    u64_at(bytes, 8)
}

/// FNV-1a with 64 bits over the payload: the sum that the checksum operation compares.
///
/// It detects damage, it does not resist an adversary; an empty payload gives the offset basis.
#[must_use]
pub fn checksum(payload: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    payload.iter().fold(OFFSET_BASIS, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

/// Checks length, version and flags; gives the payload length.
fn check_length(bytes: &[u8; HEADER_BYTES], payload_bytes_max: usize) -> Result<u32, WireError> {
    if bytes[4] != VERSION {
        return Err(WireError::Version { found: bytes[4] });
    }
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let Some(payload_bytes) = length.checked_sub(to_u32(LENGTH_MIN)) else {
        return Err(WireError::TooShort { length });
    };
    if payload_bytes > to_u32(payload_bytes_max) {
        let length_max = to_u32(LENGTH_MIN + payload_bytes_max);
        return Err(WireError::TooLong { length, length_max });
    }
    let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
    if flags != 0 {
        return Err(WireError::Flags { found: flags });
    }
    Ok(payload_bytes)
}

fn encode_header(length: u32, kind: u8, words: [u64; 3]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    bytes[4] = VERSION;
    bytes[5] = kind;
    for (index, word) in words.into_iter().enumerate() {
        let start = 8 + 8 * index;
        bytes[start..start + 8].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn u64_at(bytes: &[u8; HEADER_BYTES], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

/// For the constants of this module, all of which fit.
#[allow(clippy::cast_possible_truncation)] // the largest argument is 28 + 1 MiB
const fn to_u32(value: usize) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_operation() -> impl Strategy<Value = Operation> {
        (0..4u8).prop_map(|value| Operation::from_u8(value).unwrap())
    }

    fn any_status() -> impl Strategy<Value = Status> {
        (0..4u8).prop_map(|value| Status::from_u8(value).unwrap())
    }

    proptest! {
        #[test]
        fn request_round_trip(
            operation in any_operation(),
            request_id: u64,
            argument: u64,
            payload_bytes in 0..=to_u32(PAYLOAD_BYTES_MAX),
        ) {
            let header = RequestHeader { operation, request_id, argument, payload_bytes };
            prop_assert_eq!(RequestHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn reply_round_trip(
            status in any_status(), request_id: u64, value: u64, service_ns: u64,
        ) {
            let reply = Reply { status, request_id, value, service_ns };
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }

        /// Whatever the bytes are, decoding gives a value that encodes back to
        /// the same bytes, or a typed error; it never panics.
        #[test]
        fn garbage_is_refused_or_canonical(bytes: [u8; HEADER_BYTES]) {
            if let Ok(header) = RequestHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
            if let Ok(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(reply.encode(), bytes);
            }
        }

        /// One damaged byte of a header that has no free field is seen.
        #[test]
        fn damaged_fixed_fields_are_seen(offset in 4..8usize, value: u8) {
            let header = RequestHeader {
                operation: Operation::Empty, request_id: 7, argument: 0, payload_bytes: 0,
            };
            let mut bytes = header.encode();
            prop_assume!(bytes[offset] != value && !(offset == 5 && value < 4));
            bytes[offset] = value;
            prop_assert!(RequestHeader::decode(&bytes).is_err());
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let header = RequestHeader {
            operation: Operation::Spin,
            request_id: 0x0102_0304_0506_0708,
            argument: 9,
            payload_bytes: 4,
        };
        let bytes = header.encode();
        assert_eq!(bytes[0..8], [32, 0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16], 9);
        assert_eq!(bytes[24..32], [0; 8]);
        assert_eq!(header.frame_bytes(), 36);
    }

    #[test]
    fn lengths_out_of_bounds_are_typed() {
        let header = RequestHeader {
            operation: Operation::Empty,
            request_id: 1,
            argument: 0,
            payload_bytes: to_u32(PAYLOAD_BYTES_MAX) + 1,
        };
        let error = RequestHeader::decode(&header.encode()).unwrap_err();
        assert!(matches!(error, WireError::TooLong { .. }));
        assert_eq!(error.status(), Status::TooLarge);
        let mut bytes = header.encode();
        bytes[0..4].copy_from_slice(&27u32.to_le_bytes());
        let error = RequestHeader::decode(&bytes).unwrap_err();
        assert_eq!(error, WireError::TooShort { length: 27 });
        assert_eq!(request_id_of(&bytes), 1);
    }

    #[test]
    fn checksum_matches_published_vectors() {
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
