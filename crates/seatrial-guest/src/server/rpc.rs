//! The rpc protocol of [`seatrial_core::wire`], from the server's side.

use seatrial_core::wire::{
    HEADER_BYTES, Operation, PAYLOAD_BYTES_MAX, REPLY_HEADER_BYTES, Reply, RequestHeader, Status,
    append_payload, check_version, checksum, payload_seed, request_id_of,
};

use super::service::{Next, OUTPUT_BYTES_SOFT, Refusal, Service, Step, Tools};
use super::work::Work;

/// Payloads up to this size, of request and reply together, are summed so fast
/// that replies before them may wait.
const QUICK_PAYLOAD_BYTES: u64 = 16 << 10;

/// Operations by their number on the wire.
pub const OPERATIONS: &[&str] = &["empty", "checksum", "spin", "sleep", "spin_wall", "touch"];

/// One connection's side of the rpc protocol.
#[derive(Debug)]
pub struct Rpc {
    /// What payloads of this server are made from.
    seed: u64,
    /// The connection's number.
    connection: u64,
    /// Payloads made so far.
    made_count: u64,
}

impl Rpc {
    /// A connection on which nothing was said yet.
    pub const fn new(seed: u64, connection: u64) -> Self {
        Self {
            seed,
            connection,
            made_count: 0,
        }
    }

    /// Does what a request asks and appends the reply.
    fn answer(
        &mut self,
        header: &RequestHeader,
        payload: &[u8],
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) {
        let start = output.len();
        // Room for the header, which is known last.
        output.extend_from_slice(&[0; REPLY_HEADER_BYTES]);
        let mut reply = Reply::plain(Status::Ok, header.request_id);
        match work_of(header.operation, header.argument) {
            Some(work) if work.is_allowed() => tools.perform(work),
            Some(_) => reply.status = Status::TooLarge,
            None if header.operation == Operation::Checksum => {
                self.check(header, payload, &mut reply, output, tools);
            }
            None => {}
        }
        let times = tools.finish(header.operation as usize);
        reply.service_ns = times.service_ns;
        reply.queue_ns = times.queue_ns;
        output[start..start + REPLY_HEADER_BYTES].copy_from_slice(&reply.encode());
    }

    /// Verifies the request's payload and appends a fresh one.
    fn check(
        &mut self,
        header: &RequestHeader,
        payload: &[u8],
        reply: &mut Reply,
        output: &mut Vec<u8>,
        tools: &Tools,
    ) {
        let sum = checksum(payload, 0);
        if sum != header.argument {
            reply.status = Status::ChecksumMismatch;
            reply.value = sum;
            return;
        }
        let reply_bytes = header.reply_bytes as usize;
        let fits = reply_bytes <= PAYLOAD_BYTES_MAX
            && reply_bytes + REPLY_HEADER_BYTES <= tools.reply_bytes_max;
        if !fits {
            reply.status = Status::TooLarge;
            return;
        }
        reply.payload_bytes = header.reply_bytes;
        reply.seed = payload_seed(self.seed, self.connection, self.made_count);
        self.made_count = self.made_count.wrapping_add(1);
        let start = output.len();
        append_payload(reply.seed, reply_bytes, output);
        reply.value = checksum(&output[start..], reply.seed);
    }
}

impl Service for Rpc {
    fn serve(&mut self, input: &[u8], output: &mut Vec<u8>, tools: &mut Tools) -> Step {
        let mut used_bytes = 0;
        let mut whole_bytes = 0;
        while let Some(head) = input[used_bytes..].first_chunk::<HEADER_BYTES>() {
            let header = match RequestHeader::decode(head) {
                Ok(header) => header,
                Err(error) => {
                    tools.stats.bad_request(true);
                    let reply = Reply::plain(error.status(), request_id_of(head));
                    output.extend_from_slice(&reply.encode());
                    let next = Next::Close;
                    return Step { used_bytes, next };
                }
            };
            let Some(frame) = input[used_bytes..].get(..header.frame_bytes()) else {
                whole_bytes = header.frame_bytes();
                break;
            };
            let payload_bytes = u64::from(header.payload_bytes) + u64::from(header.reply_bytes);
            let takes_time = takes_time(header.operation, payload_bytes);
            if output.len() > OUTPUT_BYTES_SOFT || (takes_time && !output.is_empty()) {
                let next = Next::Flush; // replies before this one do not wait for it
                return Step { used_bytes, next };
            }
            self.answer(&header, &frame[HEADER_BYTES..], output, tools);
            used_bytes += frame.len();
            if takes_time {
                let next = Next::Flush;
                return Step { used_bytes, next };
            }
        }
        if check_version(&input[used_bytes..]).is_err() {
            // Of another protocol, and perhaps too short to ever become a header.
            tools.stats.bad_request(true);
            output.extend_from_slice(&Reply::plain(Status::BadRequest, 0).encode());
            let next = Next::Close;
            return Step { used_bytes, next };
        }
        let next = Next::Read {
            whole_bytes,
            until_ns: None,
        };
        Step { used_bytes, next }
    }

    fn refuse(&mut self, input: &[u8], why: Refusal, output: &mut Vec<u8>) {
        let status = match why {
            Refusal::Memory => Status::TooLarge,
            Refusal::Late => Status::BadRequest,
        };
        if let Some(head) = input.first_chunk::<HEADER_BYTES>() {
            output.extend_from_slice(&Reply::plain(status, request_id_of(head)).encode());
        }
    }

    fn is_one_request(&self, datagram: &[u8]) -> bool {
        datagram
            .first_chunk::<HEADER_BYTES>()
            .and_then(|head| RequestHeader::decode(head).ok())
            .is_some_and(|header| header.frame_bytes() == datagram.len())
    }
}

/// Whether replies before this request must not wait for it; the size is that of its payload and its reply's.
pub const fn takes_time(operation: Operation, payload_bytes: u64) -> bool {
    match operation {
        Operation::Empty => false,
        Operation::Checksum => payload_bytes > QUICK_PAYLOAD_BYTES,
        _ => true,
    }
}

/// The work that an operation is, unless it is about payloads.
pub const fn work_of(operation: Operation, argument: u64) -> Option<Work> {
    match operation {
        Operation::Empty | Operation::Checksum => None,
        Operation::Spin => Some(Work::Spin(argument)),
        Operation::SpinWall => Some(Work::SpinWall(argument)),
        Operation::Sleep => Some(Work::Sleep(argument)),
        Operation::Touch => Some(Work::Touch(argument)),
    }
}
