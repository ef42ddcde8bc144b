//! Our own method: the operations of the rpc protocol, asked for by a message.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

use seatrial_core::grpc::Status;
use seatrial_core::grpc::load::{LoadReply, LoadRequest};
use seatrial_core::wire::{Operation, PAYLOAD_BYTES_MAX, append_payload, checksum, payload_seed};

use super::replies::Verdict;
use crate::server::rpc;
use crate::server::service::Tools;

/// A buffer that grew beyond this is given back after the reply.
const BUFFER_BYTES_KEPT: usize = 4 << 10;

/// What one connection remembers of its requests.
#[derive(Debug)]
pub struct Load {
    /// What payloads of this server are made from.
    seed: u64,
    /// The connection's number.
    connection: u64,
    /// Payloads made so far.
    made_count: u64,
    payload: Vec<u8>,
    reply: Vec<u8>,
}

impl Load {
    /// Nothing was asked yet.
    pub const fn new(seed: u64, connection: u64) -> Self {
        Self {
            seed,
            connection,
            made_count: 0,
            payload: Vec::new(),
            reply: Vec::new(),
        }
    }

    /// Does what a request asks, and counts it; the message of the reply.
    pub fn answer(&mut self, message: &[u8], tools: &mut Tools) -> Result<&[u8], Verdict> {
        let (request, operation) = read(message).inspect_err(|_| tools.stats.bad_request(true))?;
        self.payload.clear();
        let done = self.perform(&request, operation, tools);
        let times = tools.finish(operation as usize);
        let (seed, value) = done?;
        let reply = LoadReply {
            service_ns: times.service_ns,
            queue_ns: times.queue_ns,
            payload: &self.payload,
            instance: instance(),
            value,
            seed,
        };
        self.reply.clear();
        reply.append(&mut self.reply);
        Ok(&self.reply)
    }

    /// Gives back what a large reply has taken.
    pub fn trim(&mut self) {
        for buffer in [&mut self.payload, &mut self.reply] {
            if buffer.capacity() > BUFFER_BYTES_KEPT {
                *buffer = Vec::new();
            }
        }
    }

    /// Does the work; what the fresh payload was made from and its sum, zero without one.
    fn perform(
        &mut self,
        request: &LoadRequest<'_>,
        operation: Operation,
        tools: &mut Tools,
    ) -> Result<(u64, u64), Verdict> {
        match rpc::work_of(operation, request.argument) {
            Some(work) if work.is_allowed() => tools.perform(work),
            Some(work) => return Err(too_large(&format!("{work:?}"))),
            None if operation == Operation::Checksum => return self.check(request),
            None => {}
        }
        Ok((0, 0))
    }

    /// Verifies the request's payload and makes a fresh one; what it was made from, and its sum.
    fn check(&mut self, request: &LoadRequest<'_>) -> Result<(u64, u64), Verdict> {
        let sum = checksum(request.payload, 0);
        if sum != request.argument {
            let text = format!(
                "the payload did not arrive as sent: its sum is {sum:#018x}, expected {:#018x}",
                request.argument
            );
            return Err(Verdict::new(Status::DATA_LOSS, text));
        }
        let reply_bytes = request.reply_bytes as usize;
        if reply_bytes.max(request.payload.len()) > PAYLOAD_BYTES_MAX {
            let text = format!("a payload of {reply_bytes} bytes");
            return Err(too_large(&text));
        }
        let seed = payload_seed(self.seed, self.connection, self.made_count);
        self.made_count = self.made_count.wrapping_add(1);
        append_payload(seed, reply_bytes, &mut self.payload);
        Ok((seed, checksum(&self.payload, seed)))
    }
}

/// The request, and the operation that it asks for.
fn read(message: &[u8]) -> Result<(LoadRequest<'_>, Operation), Verdict> {
    let invalid = |text: String| Verdict::new(Status::INVALID_ARGUMENT, text);
    let request = LoadRequest::read(message).map_err(|error| invalid(error.to_string()))?;
    let found = request.operation;
    let operation = request.known_operation();
    operation
        .map(|operation| (request, operation))
        .ok_or_else(|| invalid(format!("unknown operation {found}, expected 0 to 5")))
}

/// Whether replies before this request must not wait for it.
pub fn takes_time(message: &[u8]) -> bool {
    let Ok(request) = LoadRequest::read(message) else {
        return false;
    };
    let payload_bytes = request.payload.len() as u64 + u64::from(request.reply_bytes);
    let operation = request.known_operation();
    operation.is_some_and(|operation| rpc::takes_time(operation, payload_bytes))
}

fn too_large(what: &str) -> Verdict {
    Verdict::new(
        Status::RESOURCE_EXHAUSTED,
        format!("more than the server does: {what}"),
    )
}

/// A number of this process, so that a client can tell how many answer it.
fn instance() -> u64 {
    static INSTANCE: OnceLock<u64> = OnceLock::new();
    // The standard library draws the keys of its hashers from the kernel, once a process.
    *INSTANCE.get_or_init(|| RandomState::new().build_hasher().finish())
}
