//! The rpc protocol of [`crate::wire`], from the client's side.

use super::{DecodeError, Decoded, Protocol, Reply, Request, payload_pattern, take_front};
use crate::units::Nanos;
use crate::wire::{self, HEADER_BYTES, Operation, RequestHeader, Status};

/// The rpc protocol with one operation and one size of payload.
#[derive(Clone, Debug)]
pub struct Rpc {
    operation: Operation,
    payload: Vec<u8>,
    payload_sum: u64,
}

impl Rpc {
    /// Requests of this operation with this many bytes of payload, at most
    /// [`wire::PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn new(operation: Operation, payload_bytes: usize) -> Self {
        let payload = payload_pattern(payload_bytes.min(wire::PAYLOAD_BYTES_MAX));
        let payload_sum = wire::checksum(&payload);
        Self {
            operation,
            payload,
            payload_sum,
        }
    }

    fn failure(&self, reply: &wire::Reply) -> Option<Box<str>> {
        if reply.status != Status::Ok {
            return Some(format!("the server answers {:?}", reply.status).into());
        }
        let is_wrong = self.operation == Operation::Checksum && reply.value != self.payload_sum;
        let (got, sent) = (reply.value, self.payload_sum);
        is_wrong.then(|| format!("checksum {got:#018x}, expected {sent:#018x}").into())
    }

    fn argument(&self, request: &Request) -> u64 {
        match self.operation {
            Operation::Empty => 0,
            Operation::Checksum => self.payload_sum,
            Operation::Spin | Operation::Sleep => request.demand.get(),
        }
    }
}

/// A reply that was not read whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartialReply {
    received_bytes: usize,
    header: [u8; HEADER_BYTES],
}

impl Protocol for Rpc {
    type State = PartialReply;

    fn open(&self, _connection: u32) -> PartialReply {
        PartialReply::default()
    }

    fn encode(&mut self, _partial: &mut PartialReply, request: &Request, bytes: &mut Vec<u8>) {
        let header = RequestHeader {
            operation: self.operation,
            request_id: request.request_id,
            argument: self.argument(request),
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
        let part = take_front(bytes, HEADER_BYTES - partial.received_bytes);
        let end = partial.received_bytes + part.len();
        partial.header[partial.received_bytes..end].copy_from_slice(part);
        partial.received_bytes = end;
        if end < HEADER_BYTES {
            return Ok(Decoded::More);
        }
        let done = std::mem::take(partial);
        let reply = wire::Reply::decode(&done.header)?;
        Ok(Decoded::Reply(Reply {
            request_id: Some(reply.request_id),
            failure: self.failure(&reply),
            service: Some(Nanos::new(reply.service_ns)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply_bytes(status: Status, request_id: u64, value: u64) -> Vec<u8> {
        wire::Reply {
            status,
            request_id,
            value,
            service_ns: 5,
        }
        .encode()
        .to_vec()
    }

    fn reply_of(decoded: Result<Decoded, DecodeError>) -> Reply {
        match decoded {
            Ok(Decoded::Reply(reply)) => reply,
            other => panic!("no reply but {other:?}"),
        }
    }

    #[test]
    fn two_replies_in_one_read_are_two_replies() {
        let mut rpc = Rpc::new(Operation::Empty, 0);
        let mut bytes = reply_bytes(Status::Ok, 1, 0);
        bytes.extend(reply_bytes(Status::TooLarge, 2, 0));
        let mut rest = bytes.as_slice();
        let mut partial = PartialReply::default();
        let mut next = || rpc.decode(&mut partial, &mut rest, &mut Vec::new());
        let (first, second) = (reply_of(next()), reply_of(next()));
        assert_eq!((first.request_id, first.is_ok()), (Some(1), true));
        assert_eq!((second.request_id, second.is_ok()), (Some(2), false));
        assert_eq!(first.service, Some(Nanos::new(5)));
        assert_eq!(next(), Ok(Decoded::More));
    }

    #[test]
    fn a_wrong_sum_is_not_ok() {
        let mut rpc = Rpc::new(Operation::Checksum, 100);
        let right = reply_bytes(Status::Ok, 1, rpc.payload_sum);
        let wrong = reply_bytes(Status::Ok, 1, 99);
        for (bytes, is_ok) in [(right, true), (wrong, false)] {
            let mut partial = PartialReply::default();
            let decoded = rpc.decode(&mut partial, &mut bytes.as_slice(), &mut Vec::new());
            assert_eq!(reply_of(decoded).is_ok(), is_ok);
        }
    }

    #[test]
    fn the_demand_travels_as_argument() {
        let request = Request {
            request_id: 3,
            demand: Nanos::new(777),
        };
        for (operation, argument) in [(Operation::Spin, 777), (Operation::Empty, 0)] {
            let mut bytes = Vec::new();
            let mut rpc = Rpc::new(operation, 10);
            rpc.encode(&mut PartialReply::default(), &request, &mut bytes);
            let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
            let header = RequestHeader::decode(&header).unwrap();
            assert_eq!((header.argument, header.payload_bytes), (argument, 10));
            assert_eq!(bytes.len(), header.frame_bytes());
        }
    }

    #[test]
    fn garbage_is_a_protocol_error() {
        let mut rpc = Rpc::new(Operation::Empty, 0);
        let mut bytes = [b'H'; 64].as_slice();
        let decoded = rpc.decode(&mut PartialReply::default(), &mut bytes, &mut Vec::new());
        assert!(matches!(decoded, Err(DecodeError::Wire(_))));
    }
}
