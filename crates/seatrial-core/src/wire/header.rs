//! The headers of requests and replies: fixed lengths, checked field by field.

use super::{
    HEADER_BYTES, Operation, PAYLOAD_BYTES_MAX, REPLY_HEADER_BYTES, Status, VERSION, WireError,
};

/// Bytes of the length field, which the length does not count.
const LENGTH_FIELD_BYTES: usize = 4;

/// The header of a request; the payload follows it on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// What to do.
    pub operation: Operation,
    /// Chosen by the client; the reply repeats it.
    pub request_id: u64,
    /// Nanoseconds for spin and sleep, bytes for touch, the payload's sum for checksum, else 0.
    pub argument: u64,
    /// Payload that a checksum reply shall have; 0 for all other operations.
    pub reply_bytes: u32,
    /// Bytes of payload after the header, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u32,
}

impl RequestHeader {
    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put_start(&mut bytes, self.payload_bytes, self.operation as u8);
        put_word(&mut bytes, 8, self.request_id);
        put_word(&mut bytes, 16, self.argument);
        put_word(&mut bytes, 24, u64::from(self.reply_bytes));
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// A field is outside of what this version allows. The request id can still
    /// be had with [`request_id_of`], to answer before closing.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let payload_bytes = check_start(bytes)?;
        let operation =
            Operation::from_u8(bytes[5]).ok_or(WireError::Operation { found: bytes[5] })?;
        let last = word_at(bytes, 24);
        let reply_bytes = match u32::try_from(last) {
            Ok(reply_bytes) if reply_bytes == 0 || operation == Operation::Checksum => reply_bytes,
            _ => return Err(WireError::Reserved { found: last }),
        };
        Ok(Self {
            operation,
            request_id: word_at(bytes, 8),
            argument: word_at(bytes, 16),
            reply_bytes,
            payload_bytes,
        })
    }

    /// Length of the whole frame: header and payload.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes as usize
    }
}

/// The header of a reply; the payload follows it on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How the server fared.
    pub status: Status,
    /// The id of the request that is answered.
    pub request_id: u64,
    /// For checksum: [`checksum`](super::checksum) of this reply's payload with `seed`, or the server's
    /// sum of the request's payload where that was not the announced one; else 0.
    pub value: u64,
    /// From the begin of the service to the reply being ready, on the server's clock.
    pub service_ns: u64,
    /// From the read of the request's last byte to the begin of its service.
    pub queue_ns: u64,
    /// What the payload was made from; 0 without one.
    pub seed: u64,
    /// Bytes of payload after the header, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u32,
}

impl Reply {
    /// A reply without payload, value and times.
    #[must_use]
    pub const fn plain(status: Status, request_id: u64) -> Self {
        Self {
            status,
            request_id,
            value: 0,
            service_ns: 0,
            queue_ns: 0,
            seed: 0,
            payload_bytes: 0,
        }
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; REPLY_HEADER_BYTES] {
        let mut bytes = [0; REPLY_HEADER_BYTES];
        put_start(&mut bytes, self.payload_bytes, self.status as u8);
        put_word(&mut bytes, 8, self.request_id);
        put_word(&mut bytes, 16, self.value);
        put_word(&mut bytes, 24, self.service_ns);
        put_word(&mut bytes, 32, self.queue_ns);
        put_word(&mut bytes, 40, self.seed);
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// A field is outside of what this version allows.
    pub fn decode(bytes: &[u8; REPLY_HEADER_BYTES]) -> Result<Self, WireError> {
        let payload_bytes = check_start(bytes)?;
        let status = Status::from_u8(bytes[5]).ok_or(WireError::Status { found: bytes[5] })?;
        Ok(Self {
            status,
            request_id: word_at(bytes, 8),
            value: word_at(bytes, 16),
            service_ns: word_at(bytes, 24),
            queue_ns: word_at(bytes, 32),
            seed: word_at(bytes, 40),
            payload_bytes,
        })
    }

    /// Length of the whole frame: header and payload.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        REPLY_HEADER_BYTES + self.payload_bytes as usize
    }
}

/// The request id of a header that did not decode.
#[must_use]
pub fn request_id_of(bytes: &[u8; HEADER_BYTES]) -> u64 {
    word_at(bytes, 8)
}

/// Refuses the start of a header as soon as it cannot be one of this version.
///
/// # Errors
/// [`WireError::Version`] for another version; a start too short to tell passes.
pub const fn check_version(start: &[u8]) -> Result<(), WireError> {
    match start {
        [_, _, _, _, found, ..] if *found != VERSION => Err(WireError::Version { found: *found }),
        _ => Ok(()),
    }
}

/// Checks length, version and flags; gives the payload length.
fn check_start<const N: usize>(bytes: &[u8; N]) -> Result<u32, WireError> {
    check_version(bytes)?;
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let length_min = to_u32(N - LENGTH_FIELD_BYTES);
    let Some(payload_bytes) = length.checked_sub(length_min) else {
        return Err(WireError::TooShort { length, length_min });
    };
    if payload_bytes > to_u32(PAYLOAD_BYTES_MAX) {
        let length_max = length_min + to_u32(PAYLOAD_BYTES_MAX);
        return Err(WireError::TooLong { length, length_max });
    }
    let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
    if flags != 0 {
        return Err(WireError::Flags { found: flags });
    }
    Ok(payload_bytes)
}

fn put_start<const N: usize>(bytes: &mut [u8; N], payload_bytes: u32, kind: u8) {
    let length = payload_bytes.saturating_add(to_u32(N - LENGTH_FIELD_BYTES));
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    bytes[4] = VERSION;
    bytes[5] = kind;
}

fn put_word(bytes: &mut [u8], offset: usize, word: u64) {
    bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
}

pub(super) fn word_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

/// For the constants of this module, all of which fit.
#[allow(clippy::cast_possible_truncation)] // the largest argument is 28 + 1 MiB
pub(super) const fn to_u32(value: usize) -> u32 {
    value as u32
}
