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

use thiserror::Error;

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

/// Bytes of the length field, which the length does not count.
const LENGTH_FIELD_BYTES: usize = 4;

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
    /// For checksum: [`checksum`] of this reply's payload with `seed`, or the server's
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

/// XXH64 of the payload with this seed: the sum of the checksum operation.
///
/// Requests use seed 0, replies the seed in their header, so that damage to the
/// seed is seen as well. Of all damages one in 2^64 goes unseen; it does not
/// resist an adversary.
#[must_use]
pub fn checksum(payload: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh64::xxh64(payload, seed)
}

/// Appends `payload_bytes` of the payload that belongs to a seed: the outputs of
/// `SplitMix64`, little-endian, the last one cut.
pub fn append_payload(seed: u64, payload_bytes: usize, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + payload_bytes, 0);
    let mut counter = seed;
    let mut words = bytes[start..].chunks_exact_mut(8);
    for word in &mut words {
        counter = counter.wrapping_add(SPLIT_MIX_GAMMA);
        word.copy_from_slice(&mix(counter).to_le_bytes());
    }
    let rest = words.into_remainder();
    let last = mix(counter.wrapping_add(SPLIT_MIX_GAMMA)).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Where and how a payload first differs from the one that belongs to a seed.
#[must_use]
pub fn first_difference(seed: u64, payload: &[u8]) -> Option<Difference> {
    let mut expected = Vec::new();
    append_payload(seed, payload.len(), &mut expected);
    let pairs = payload.iter().zip(&expected);
    let offset = pairs.clone().position(|(found, right)| found != right)?;
    Some(Difference {
        offset,
        found: payload[offset],
        expected: expected[offset],
    })
}

/// The first byte of a payload that is not as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its place in the payload.
    pub offset: usize,
    /// The byte that came.
    pub found: u8,
    /// The byte that belongs there.
    pub expected: u8,
}

/// The seed of the `count`-th payload on a connection: new for each.
#[must_use]
pub const fn payload_seed(server_seed: u64, connection: u64, count: u64) -> u64 {
    let start = mix(server_seed.wrapping_add(mix(connection.wrapping_add(SPLIT_MIX_GAMMA))));
    mix(start.wrapping_add(count.wrapping_mul(SPLIT_MIX_GAMMA)))
}

/// The step of `SplitMix64`.
const SPLIT_MIX_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of `SplitMix64`; one to one.
const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
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

fn word_at(bytes: &[u8], offset: usize) -> u64 {
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
        (0..6u8).prop_map(|value| Operation::from_u8(value).unwrap())
    }

    fn any_status() -> impl Strategy<Value = Status> {
        (0..4u8).prop_map(|value| Status::from_u8(value).unwrap())
    }

    fn request(operation: Operation, payload_bytes: u32) -> RequestHeader {
        RequestHeader {
            operation,
            request_id: 7,
            argument: 0,
            reply_bytes: 0,
            payload_bytes,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn request_round_trip(
            operation in any_operation(),
            request_id: u64,
            argument: u64,
            reply_bytes: u32,
            payload_bytes in 0..=to_u32(PAYLOAD_BYTES_MAX),
        ) {
            let reply_bytes = if operation == Operation::Checksum { reply_bytes } else { 0 };
            let header = RequestHeader {
                operation, request_id, argument, reply_bytes, payload_bytes,
            };
            prop_assert_eq!(RequestHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn reply_round_trip(
            status in any_status(),
            words: [u64; 5],
            payload_bytes in 0..=to_u32(PAYLOAD_BYTES_MAX),
        ) {
            let [request_id, value, service_ns, queue_ns, seed] = words;
            let reply = Reply {
                status, request_id, value, service_ns, queue_ns, seed, payload_bytes,
            };
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }

        /// Whatever the bytes are, decoding gives a value that encodes back to
        /// the same bytes, or a typed error; it never panics.
        #[test]
        fn garbage_is_refused_or_canonical(
            bytes: [u8; HEADER_BYTES], reply_bytes: [u8; REPLY_HEADER_BYTES], plausible: bool,
        ) {
            let (mut bytes, mut reply_bytes) = (bytes, reply_bytes);
            if plausible {
                // Past the first checks, which a random header seldom passes.
                for head in [&mut bytes[..8], &mut reply_bytes[..8]] {
                    let kind = head[5] % 8;
                    head[2..].copy_from_slice(&[0, 0, VERSION, kind, 0, 0]);
                }
            }
            if let Ok(header) = RequestHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
            if let Ok(reply) = Reply::decode(&reply_bytes) {
                prop_assert_eq!(reply.encode(), reply_bytes);
            }
        }

        /// One damaged byte of a header that has no free field is seen.
        #[test]
        fn damaged_fixed_fields_are_seen(offset in 4..8usize, value: u8) {
            let mut bytes = request(Operation::Empty, 0).encode();
            prop_assume!(bytes[offset] != value && !(offset == 5 && value < 6));
            bytes[offset] = value;
            prop_assert!(RequestHeader::decode(&bytes).is_err());
        }

        /// A flipped bit changes the sum, and where it is can be told from the seed.
        #[test]
        fn a_flipped_bit_is_found(
            seed: u64, payload_bytes in 1..3000usize, place: prop::sample::Index, bit in 0..8u8,
        ) {
            let mut payload = Vec::new();
            append_payload(seed, payload_bytes, &mut payload);
            let sum = checksum(&payload, seed);
            prop_assert_eq!(first_difference(seed, &payload), None);
            let offset = place.index(payload_bytes);
            let expected = payload[offset];
            payload[offset] ^= 1 << bit;
            prop_assert_ne!(checksum(&payload, seed), sum);
            let found = payload[offset];
            let difference = Difference { offset, found, expected };
            prop_assert_eq!(first_difference(seed, &payload), Some(difference));
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let header = RequestHeader {
            operation: Operation::Checksum,
            request_id: 0x0102_0304_0506_0708,
            argument: 9,
            reply_bytes: 0x0a0b,
            payload_bytes: 4,
        };
        let bytes = header.encode();
        assert_eq!(bytes[0..8], [32, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16], 9);
        assert_eq!(bytes[24..32], [0x0b, 0x0a, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header.frame_bytes(), 36);
        let reply = Reply {
            value: 1,
            service_ns: 2,
            queue_ns: 3,
            seed: 4,
            payload_bytes: 5,
            ..Reply::plain(Status::TooLarge, 6)
        };
        let bytes = reply.encode();
        assert_eq!(bytes[0..8], [49, 0, 0, 0, 2, 3, 0, 0]);
        let words = [8, 16, 24, 32, 40].map(|offset| word_at(&bytes, offset));
        assert_eq!(words, [6, 1, 2, 3, 4]);
        assert_eq!(reply.frame_bytes(), 53);
    }

    #[test]
    fn lengths_out_of_bounds_are_typed() {
        let header = request(Operation::Empty, to_u32(PAYLOAD_BYTES_MAX) + 1);
        let error = RequestHeader::decode(&header.encode()).unwrap_err();
        assert!(matches!(error, WireError::TooLong { .. }));
        assert_eq!(error.status(), Status::TooLarge);
        let mut bytes = header.encode();
        bytes[0..4].copy_from_slice(&27u32.to_le_bytes());
        let error = RequestHeader::decode(&bytes).unwrap_err();
        let (length, length_min) = (27, 28);
        assert_eq!(error, WireError::TooShort { length, length_min });
        assert_eq!(request_id_of(&bytes), 7);
    }

    #[test]
    fn only_checksum_may_ask_for_a_payload() {
        let header = RequestHeader {
            reply_bytes: 1,
            ..request(Operation::Spin, 0)
        };
        let decoded = RequestHeader::decode(&header.encode());
        assert_eq!(decoded, Err(WireError::Reserved { found: 1 }));
    }

    #[test]
    fn sums_and_payloads_match_published_vectors() {
        assert_eq!(checksum(b"", 0), 0xef46_db37_51d8_e999);
        assert_eq!(checksum(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(checksum(b"abc", 0), 0x44bc_2cf5_ad77_0999);
        let mut payload = vec![9];
        append_payload(1_234_567, 20, &mut payload);
        let words = [1, 9].map(|offset| word_at(&payload, offset));
        assert_eq!(
            words,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
        assert_eq!(payload.len(), 21);
    }

    #[test]
    fn payload_seeds_do_not_repeat() {
        let mut seeds = (0..100)
            .flat_map(|connection| (0..100).map(move |count| payload_seed(1, connection, count)))
            .collect::<Vec<_>>();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 10_000);
    }
}
