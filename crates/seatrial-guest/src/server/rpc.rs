//! The rpc protocol of [`seatrial_core::wire`], from the server's side.

use seatrial_core::wire::{
    HEADER_BYTES, Operation, Reply, RequestHeader, Status, checksum, request_id_of,
};

use super::service::{Next, OUTPUT_BYTES_SOFT, Refusal, Service, Step, Times, Tools};
use super::work::Work;

/// Payloads up to this size are answered so fast that replies before them may wait.
const QUICK_PAYLOAD_BYTES: usize = 4096;

/// Operations by their number on the wire.
pub const OPERATIONS: &[&str] = &["empty", "checksum", "spin", "sleep"];

/// One connection's side of the rpc protocol.
#[derive(Debug)]
pub struct Rpc;

impl Service for Rpc {
    fn serve(&mut self, input: &[u8], output: &mut Vec<u8>, tools: &mut Tools) -> Step {
        let mut used_bytes = 0;
        let mut whole_bytes = 0;
        while let Some(head) = input[used_bytes..].first_chunk::<HEADER_BYTES>() {
            let header = match RequestHeader::decode(head) {
                Ok(header) => header,
                Err(error) => {
                    tools.stats.bad_request(true);
                    refuse(request_id_of(head), error.status(), output);
                    return Step {
                        used_bytes,
                        next: Next::Close,
                    };
                }
            };
            let Some(frame) = input[used_bytes..].get(..header.frame_bytes()) else {
                whole_bytes = header.frame_bytes();
                break;
            };
            let takes_time = takes_time(&header);
            if output.len() > OUTPUT_BYTES_SOFT || (takes_time && !output.is_empty()) {
                return Step {
                    used_bytes,
                    next: Next::Flush, // replies before this one do not wait for it
                };
            }
            let (status, value) = execute(&header, &frame[HEADER_BYTES..], tools);
            let Times { service_ns, .. } = tools.finish(header.operation as usize);
            let reply = Reply {
                status,
                request_id: header.request_id,
                value,
                service_ns,
            };
            output.extend_from_slice(&reply.encode());
            used_bytes += frame.len();
            if takes_time {
                return Step {
                    used_bytes,
                    next: Next::Flush,
                };
            }
        }
        Step {
            used_bytes,
            next: Next::Read {
                whole_bytes,
                until_ns: None,
            },
        }
    }

    fn refuse(&mut self, input: &[u8], why: Refusal, output: &mut Vec<u8>) {
        let status = match why {
            Refusal::Memory => Status::TooLarge,
            Refusal::Late => Status::BadRequest,
        };
        if let Some(head) = input.first_chunk::<HEADER_BYTES>() {
            refuse(request_id_of(head), status, output);
        }
    }
}

fn refuse(request_id: u64, status: Status, output: &mut Vec<u8>) {
    let reply = Reply {
        status,
        request_id,
        value: 0,
        service_ns: 0,
    };
    output.extend_from_slice(&reply.encode());
}

const fn takes_time(header: &RequestHeader) -> bool {
    match header.operation {
        Operation::Spin | Operation::Sleep => true,
        Operation::Checksum => header.payload_bytes as usize > QUICK_PAYLOAD_BYTES,
        Operation::Empty => false,
    }
}

/// Does what a request asks; gives the status and the value of the reply.
fn execute(header: &RequestHeader, payload: &[u8], tools: &mut Tools) -> (Status, u64) {
    let work = match header.operation {
        Operation::Empty => return (Status::Ok, 0),
        Operation::Checksum => {
            let value = checksum(payload);
            let is_right = value == header.argument;
            let status = if is_right {
                Status::Ok
            } else {
                Status::ChecksumMismatch
            };
            return (status, value);
        }
        Operation::Spin => Work::Spin(header.argument),
        Operation::Sleep => Work::Sleep(header.argument),
    };
    if !work.is_allowed() {
        return (Status::TooLarge, 0);
    }
    tools.perform(work);
    (Status::Ok, 0)
}
