//! The rpc protocol of [`crate::wire`], from the client's side.

use super::options::{OptionReader, Options};
use super::{DecodeError, Decoded, Protocol, Reply, Request, payload_pattern, take_front};
use crate::error::CoreError;
use crate::units::Nanos;
use crate::wire::{
    self, Operation, PAYLOAD_BYTES_MAX, REPLY_BYTES_DEFAULT, REPLY_HEADER_BYTES, RequestHeader,
    Status,
};

/// Most memory that a request may have touched; the guest's bound.
const TOUCH_BYTES_MAX: u64 = 256 << 20;

/// Memory that a request has touched unless told otherwise.
const TOUCH_BYTES_DEFAULT: u64 = 1 << 20;

/// Settings of the rpc protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcOptions {
    /// Payload of a checksum reply.
    pub reply_bytes: u32,
    /// Memory that a touch request is about.
    pub touch_bytes: u64,
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            reply_bytes: REPLY_BYTES_DEFAULT,
            touch_bytes: TOUCH_BYTES_DEFAULT,
        }
    }
}

impl RpcOptions {
    /// Reads `reply_bytes` and `touch_bytes`.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for other names and for values out of bounds.
    pub fn read(options: &Options) -> Result<Self, CoreError> {
        let mut reader = OptionReader::new("rpc", options);
        let read = Self::take(&mut reader)?;
        reader.finish().map(|()| read)
    }

    /// Reads them among the options of another protocol that carries the same operations.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for values out of bounds.
    pub fn take(reader: &mut OptionReader<'_>) -> Result<Self, CoreError> {
        Ok(Self {
            reply_bytes: reader.number(
                "reply_bytes",
                REPLY_BYTES_DEFAULT,
                (0, u32::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u32::MAX)),
                "0 to 1048576 bytes (1 MiB)",
            )?,
            touch_bytes: reader.number(
                "touch_bytes",
                TOUCH_BYTES_DEFAULT,
                (1, TOUCH_BYTES_MAX),
                "1 to 268435456 bytes (256 MiB)",
            )?,
        })
    }
}

/// The rpc protocol with one operation and one size of payload.
#[derive(Clone, Debug)]
pub struct Rpc {
    operation: Operation,
    options: RpcOptions,
    payload: Vec<u8>,
    payload_sum: u64,
}

impl Rpc {
    /// Requests of this operation with this many bytes of payload, at most
    /// [`wire::PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn new(operation: Operation, payload_bytes: usize, options: RpcOptions) -> Self {
        let payload = payload_pattern(payload_bytes.min(PAYLOAD_BYTES_MAX));
        let payload_sum = wire::checksum(&payload, 0);
        Self {
            operation,
            options,
            payload,
            payload_sum,
        }
    }

    /// What the requests carry.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Nanoseconds, bytes or the payload's sum, as the operation has it.
    pub(super) fn argument(&self, request: &Request) -> u64 {
        match self.operation {
            Operation::Empty => 0,
            Operation::Checksum => self.payload_sum,
            Operation::Spin | Operation::SpinWall | Operation::Sleep => request.demand.get(),
            Operation::Touch => self.options.touch_bytes,
        }
    }

    /// Payload that each reply has to have.
    pub(super) const fn reply_bytes(&self) -> u32 {
        match self.operation {
            Operation::Checksum => self.options.reply_bytes,
            _ => 0,
        }
    }

    /// Judges a whole reply.
    pub(super) fn reply(&self, header: &wire::Reply, payload: &[u8]) -> Reply {
        Reply {
            request_id: Some(header.request_id),
            failure: self.failure(header, payload),
            service: Some(Nanos::new(header.service_ns)),
            ..Reply::default()
        }
    }

    fn failure(&self, header: &wire::Reply, payload: &[u8]) -> Option<Box<str>> {
        let id = header.request_id;
        if header.status == Status::ChecksumMismatch {
            let (found, sent) = (header.value, self.payload_sum);
            return Some(
                format!(
                    "request {id}: its payload did not arrive as sent: the server's sum is \
                     {found:#018x}, expected {sent:#018x}"
                )
                .into(),
            );
        }
        if header.status != Status::Ok {
            return Some(format!("the server answers {}", header.status.name()).into());
        }
        let (length, expected) = (header.payload_bytes, self.reply_bytes());
        if length != expected {
            let told =
                format!("request {id}: reply payload of {length} bytes, expected {expected}");
            return Some(told.into());
        }
        if self.operation != Operation::Checksum {
            return None;
        }
        let sum = wire::checksum(payload, header.seed);
        (sum != header.value).then(|| corruption(header, payload, sum).into())
    }
}

/// Says what is wrong with the payload of a reply whose sum does not match.
fn corruption(header: &wire::Reply, payload: &[u8], sum: u64) -> String {
    let wire::Reply {
        request_id,
        seed,
        value,
        ..
    } = *header;
    let place = match wire::first_difference(seed, payload) {
        Some(wire::Difference {
            offset,
            found,
            expected,
        }) => {
            let length = payload.len();
            format!(
                "byte {offset} of its {length} payload bytes is {found:#04x}, expected {expected:#04x}"
            )
        }
        None => "its payload is as made from the seed, so its sum is damaged".to_owned(),
    };
    format!(
        "request {request_id}: the reply is corrupt: {place} (seed {seed:#018x}, sum of the \
         payload {sum:#018x}, sum in the reply {value:#018x})"
    )
}

/// A reply that was not read whole.
#[derive(Clone, Debug)]
pub struct PartialReply {
    received_bytes: usize,
    header: [u8; REPLY_HEADER_BYTES],
    /// The payload of a reply of which only a part came with its header.
    payload: Vec<u8>,
}

impl Default for PartialReply {
    fn default() -> Self {
        Self {
            received_bytes: 0,
            header: [0; REPLY_HEADER_BYTES],
            payload: Vec::new(),
        }
    }
}

impl Protocol for Rpc {
    type State = PartialReply;
    const FITS_DATAGRAMS: bool = true;

    fn open(&self, _connection: u32) -> PartialReply {
        PartialReply::default()
    }

    fn encode(&mut self, _partial: &mut PartialReply, request: &Request, bytes: &mut Vec<u8>) {
        let header = RequestHeader {
            operation: self.operation,
            request_id: request.request_id,
            argument: self.argument(request),
            reply_bytes: self.reply_bytes(),
            payload_bytes: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
        };
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&self.payload);
    }

    fn decode(
        &mut self,
        partial: &mut PartialReply,
        bytes: &mut &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError> {
        let part = take_front(bytes, REPLY_HEADER_BYTES - partial.received_bytes);
        let end = partial.received_bytes + part.len();
        partial.header[partial.received_bytes..end].copy_from_slice(part);
        partial.received_bytes = end;
        if end < REPLY_HEADER_BYTES {
            wire::check_version(&partial.header[..end])?;
            return Ok(Decoded::More);
        }
        let header = wire::Reply::decode(&partial.header)?;
        let missing_bytes = header.payload_bytes as usize - partial.payload.len();
        let part = take_front(bytes, missing_bytes);
        if part.len() < missing_bytes {
            partial.payload.reserve_exact(missing_bytes);
            partial.payload.extend_from_slice(part);
            return Ok(Decoded::More);
        }
        partial.received_bytes = 0;
        let reply = if partial.payload.is_empty() {
            self.reply(&header, part)
        } else {
            partial.payload.extend_from_slice(part);
            let reply = self.reply(&header, &partial.payload);
            partial.payload.clear();
            reply
        };
        Ok(Decoded::Reply(reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HEADER_BYTES;
    use proptest::prelude::*;

    fn rpc(operation: Operation, payload_bytes: usize) -> Rpc {
        Rpc::new(operation, payload_bytes, RpcOptions::default())
    }

    fn reply_bytes(status: Status, request_id: u64) -> Vec<u8> {
        let reply = wire::Reply {
            service_ns: 5,
            ..wire::Reply::plain(status, request_id)
        };
        reply.encode().to_vec()
    }

    /// A checksum reply as a server makes it.
    fn checked_bytes(request_id: u64, seed: u64, payload_bytes: u32) -> Vec<u8> {
        let mut payload = Vec::new();
        wire::append_payload(seed, payload_bytes as usize, &mut payload);
        let reply = wire::Reply {
            value: wire::checksum(&payload, seed),
            seed,
            payload_bytes,
            ..wire::Reply::plain(Status::Ok, request_id)
        };
        [&reply.encode()[..], &payload].concat()
    }

    fn reply_of(decoded: Result<Decoded, DecodeError>) -> Reply {
        match decoded {
            Ok(Decoded::Reply(reply)) => reply,
            other => panic!("no reply but {other:?}"),
        }
    }

    fn failure_of(rpc: &mut Rpc, bytes: &[u8]) -> Option<Box<str>> {
        let mut rest = bytes;
        let reply = reply_of(rpc.decode(&mut PartialReply::default(), &mut rest, &mut Vec::new()));
        assert!(rest.is_empty());
        reply.failure
    }

    #[test]
    fn two_replies_in_one_read_are_two_replies() {
        let mut rpc = rpc(Operation::Empty, 0);
        let mut bytes = reply_bytes(Status::Ok, 1);
        bytes.extend(reply_bytes(Status::TooLarge, 2));
        let mut rest = bytes.as_slice();
        let mut partial = PartialReply::default();
        let mut next = || rpc.decode(&mut partial, &mut rest, &mut Vec::new());
        let (first, second) = (reply_of(next()), reply_of(next()));
        assert_eq!((first.request_id, first.is_ok()), (Some(1), true));
        assert_eq!((second.request_id, second.is_ok()), (Some(2), false));
        assert_eq!(first.service, Some(Nanos::new(5)));
        assert_eq!(next(), Ok(Decoded::More));
    }

    proptest! {
        /// However the stream is cut into reads, every reply is found once, in order, and right.
        #[test]
        fn replies_survive_any_cut(reply_bytes in 0..200u32, cut in 1..97usize, count in 1..9u64) {
            let options = RpcOptions { reply_bytes, ..RpcOptions::default() };
            let mut rpc = Rpc::new(Operation::Checksum, 0, options);
            let stream = (0..count)
                .flat_map(|id| checked_bytes(id, id.wrapping_mul(99), reply_bytes))
                .collect::<Vec<_>>();
            let mut partial = PartialReply::default();
            let mut ids = Vec::new();
            for mut piece in stream.chunks(cut) {
                while let Decoded::Reply(reply) =
                    rpc.decode(&mut partial, &mut piece, &mut Vec::new()).unwrap()
                {
                    prop_assert_eq!(&reply.failure, &None);
                    ids.push(reply.request_id.unwrap());
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(ids, (0..count).collect::<Vec<_>>());
        }

        /// Whatever comes, decoding gives replies or an error and never more than it was given.
        #[test]
        fn damaged_replies_never_panic(
            damages in prop::collection::vec((0..100usize, any::<u8>()), 1..6), cut in 1..97usize,
        ) {
            let mut stream = checked_bytes(1, 2, 40);
            stream.extend(checked_bytes(2, 3, 40));
            for (offset, value) in damages {
                stream[offset] = value;
            }
            let options = RpcOptions { reply_bytes: 40, ..RpcOptions::default() };
            let mut rpc = Rpc::new(Operation::Checksum, 0, options);
            let mut partial = PartialReply::default();
            let mut replies = 0;
            'stream: for mut piece in stream.chunks(cut) {
                loop {
                    match rpc.decode(&mut partial, &mut piece, &mut Vec::new()) {
                        Ok(Decoded::Reply(_)) => replies += 1,
                        Ok(_) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
            prop_assert!(replies <= stream.len() / REPLY_HEADER_BYTES);
        }
    }

    #[test]
    fn a_flipped_bit_is_told_with_all_that_reproduces_it() {
        let seed = 0x1234;
        let mut rpc = rpc(Operation::Checksum, 100);
        let mut bytes = checked_bytes(77, seed, 2048);
        assert_eq!(failure_of(&mut rpc, &bytes), None);
        let right = bytes[REPLY_HEADER_BYTES + 1234];
        bytes[REPLY_HEADER_BYTES + 1234] ^= 0x10;
        let told = failure_of(&mut rpc, &bytes).unwrap();
        let payload = &bytes[REPLY_HEADER_BYTES..];
        let (flipped, sum) = (right ^ 0x10, wire::checksum(payload, seed));
        for part in [
            "request 77".to_owned(),
            format!("byte 1234 of its 2048 payload bytes is {flipped:#04x}, expected {right:#04x}"),
            format!("seed {seed:#018x}"),
            format!("sum of the payload {sum:#018x}"),
        ] {
            assert!(told.contains(&part), "{told}");
        }
    }

    #[test]
    fn damage_of_sum_and_seed_is_seen_too() {
        let mut rpc = rpc(Operation::Checksum, 0);
        let mut bytes = checked_bytes(1, 2, 2048);
        bytes[16] ^= 1;
        let told = failure_of(&mut rpc, &bytes).unwrap();
        assert!(told.contains("its sum is damaged"), "{told}");
        let mut bytes = checked_bytes(1, 2, 2048);
        bytes[40] ^= 1;
        let told = failure_of(&mut rpc, &bytes).unwrap();
        assert!(told.contains("byte 0 of its 2048"), "{told}");
    }

    #[test]
    fn a_reply_of_another_size_or_status_is_a_failure() {
        let mut checked = rpc(Operation::Checksum, 5);
        for (bytes, expected) in [
            (checked_bytes(1, 2, 2047), "2047 bytes, expected 2048"),
            (
                reply_bytes(Status::ChecksumMismatch, 1),
                "did not arrive as sent",
            ),
            (
                reply_bytes(Status::TooLarge, 1),
                "the server answers too-large",
            ),
        ] {
            let told = failure_of(&mut checked, &bytes).unwrap();
            assert!(told.contains(expected), "{told}");
        }
        let told = failure_of(&mut rpc(Operation::Empty, 0), &checked_bytes(1, 2, 8)).unwrap();
        assert!(told.contains("8 bytes, expected 0"), "{told}");
    }

    #[test]
    fn the_amount_travels_as_argument() {
        let request = Request {
            request_id: 3,
            demand: Nanos::new(777),
        };
        for (operation, argument, reply_bytes) in [
            (Operation::Spin, 777, 0),
            (Operation::SpinWall, 777, 0),
            (Operation::Sleep, 777, 0),
            (Operation::Empty, 0, 0),
            (Operation::Touch, TOUCH_BYTES_DEFAULT, 0),
            (
                Operation::Checksum,
                wire::checksum(&payload_pattern(10), 0),
                REPLY_BYTES_DEFAULT,
            ),
        ] {
            let mut bytes = Vec::new();
            let mut rpc = rpc(operation, 10);
            rpc.encode(&mut PartialReply::default(), &request, &mut bytes);
            let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
            let header = RequestHeader::decode(&header).unwrap();
            assert_eq!((header.argument, header.payload_bytes), (argument, 10));
            assert_eq!(header.reply_bytes, reply_bytes);
            assert_eq!(bytes.len(), header.frame_bytes());
        }
    }

    #[test]
    fn options_are_read_within_bounds() {
        let options = |name: &str, value: &str| {
            RpcOptions::read(&Options::from([(name.to_owned(), value.to_owned())]))
        };
        assert_eq!(options("reply_bytes", "0").unwrap().reply_bytes, 0);
        assert_eq!(options("touch_bytes", "4096").unwrap().touch_bytes, 4096);
        for (name, value) in [
            ("reply_bytes", "1048577"),
            ("touch_bytes", "0"),
            ("reply", "1"),
        ] {
            assert_eq!(options(name, value).unwrap_err().code(), "invalid-option");
        }
    }

    #[test]
    fn garbage_is_a_protocol_error() {
        let mut rpc = rpc(Operation::Empty, 0);
        let mut bytes = [b'H'; 5].as_slice(); // told before a whole header has come
        let decoded = rpc.decode(&mut PartialReply::default(), &mut bytes, &mut Vec::new());
        assert!(matches!(decoded, Err(DecodeError::Wire(_))));
    }
}
