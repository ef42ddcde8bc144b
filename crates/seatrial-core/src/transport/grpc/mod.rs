//! gRPC with unary calls, over HTTP/2, from the client's side.
//!
//! A request is one stream. Its HEADERS frame is rendered once, its message is a template of
//! which our own method replaces eight bytes, so that writing a request is two copies. Many
//! streams run on one connection at a time and may be answered in any order.
//!
//! A request that the peer does not admit, because it limits how many streams run at a time,
//! is held back in the connection's state and written as soon as a stream ends. The engine
//! has handed it over by then; the wait is in its service time, and it is counted
//! ([`Protocol::held_back_count`]).

mod head;
mod link;
mod options;
mod streams;

#[cfg(test)]
mod tests;

pub use link::GrpcState;
pub use options::GrpcOptions;

use head::RequestHead;
use link::Link;

use super::rpc::Rpc;
use super::target::{SocketTarget, Target};
use super::{DecodeError, Decoded, Protocol, Reply, ReplyOrder, Request, payload_pattern};
use crate::grpc::load::{ARGUMENT, LoadReply, LoadRequest, OVERHEAD_BYTES_MAX};
use crate::grpc::{PREFIX_BYTES, prefix};
use crate::http2::frames::append_window_update;
use crate::http2::{Http2Error, PREFACE, WINDOW_DEFAULT, WINDOW_MAX, settings};
use crate::units::Nanos;
use crate::wire::{self, Operation, PAYLOAD_BYTES_MAX};

/// Longest reply of a method that is not ours; it is counted and not kept.
const FOREIGN_BYTES_MAX: u32 = 1 << 30;

/// Longest reply of our own method, in a number that fits.
#[allow(clippy::cast_possible_truncation)] // 1 MiB and a little
const LOAD_BYTES_MAX: u32 = (PAYLOAD_BYTES_MAX + OVERHEAD_BYTES_MAX) as u32;

/// Begin of the message itself in the body of a request.
const MESSAGE_START: usize = PREFIX_BYTES;

/// What is called.
#[derive(Clone, Debug)]
enum Call {
    /// Our own method.
    Load(Rpc),
    /// Another one, of which only the bytes are known.
    Foreign {
        /// Whether the reply has to be the message of the request.
        expects_echo: bool,
    },
}

/// The gRPC protocol with one method and one message.
#[derive(Clone, Debug)]
pub struct Grpc {
    heads: Vec<RequestHead>,
    message: Message,
    depth: usize,
    held_back_count: u64,
}

/// What all requests carry, and what a reply has to be.
#[derive(Clone, Debug)]
struct Message {
    call: Call,
    /// Prefix and message.
    body: Vec<u8>,
}

impl Grpc {
    /// Calls to these targets with `operation` and `payload_bytes` of payload, at most 1 MiB, at
    /// most `depth` at a time on one connection.
    ///
    /// For another method than our own, the message is the one of the options, or as many
    /// bytes as `payload_bytes` says.
    #[must_use]
    pub fn new(
        options: &GrpcOptions,
        operation: Operation,
        (payload_bytes, depth): (usize, u32),
        targets: &[Target],
    ) -> Self {
        let heads = targets.iter().map(|target| {
            let scheme = match target {
                Target::Socket(SocketTarget::Tls(_)) => "https",
                _ => "http",
            };
            let authority = options.authority.clone();
            let authority = authority.unwrap_or_else(|| target.host());
            RequestHead::new(options, scheme, &authority)
        });
        Self {
            heads: heads.collect(),
            message: Message::new(options, operation, payload_bytes),
            depth: depth as usize,
            held_back_count: 0,
        }
    }
}

impl Message {
    fn new(options: &GrpcOptions, operation: Operation, payload_bytes: usize) -> Self {
        let mut message = Vec::new();
        let call = if options.is_load() {
            let rpc = Rpc::new(operation, payload_bytes, options.rpc);
            let request = LoadRequest {
                argument: 0,
                operation: operation as u8,
                payload: rpc.payload(),
                reply_bytes: rpc.reply_bytes(),
            };
            request.append(&mut message);
            Call::Load(rpc)
        } else {
            let own = || payload_pattern(payload_bytes.min(PAYLOAD_BYTES_MAX));
            message = options.message.clone().unwrap_or_else(own);
            Call::Foreign {
                expects_echo: options.expects_echo,
            }
        };
        let body = [&prefix(message.len()), message.as_slice()].concat();
        Self { call, body }
    }

    /// The body of this request.
    fn body_of(&mut self, request: &Request) -> &[u8] {
        if let Call::Load(rpc) = &self.call {
            let argument = rpc.argument(request).to_le_bytes();
            self.body[MESSAGE_START..][ARGUMENT].copy_from_slice(&argument);
        }
        &self.body
    }

    /// Longest message of a reply.
    const fn reply_bytes_max(&self) -> u32 {
        match self.call {
            Call::Load(_) => LOAD_BYTES_MAX,
            Call::Foreign { .. } => FOREIGN_BYTES_MAX,
        }
    }

    /// Whether the reply has to be seen as a whole.
    const fn is_understood(&self) -> bool {
        matches!(self.call, Call::Load(_))
    }

    /// What is wrong with a piece of the reply that begins at this place, if anything is.
    fn judge_piece(&self, piece: &[u8], start: usize, length: usize) -> Option<Box<str>> {
        let expects_echo = matches!(self.call, Call::Foreign { expects_echo: true });
        let sent = &self.body[MESSAGE_START..];
        if !expects_echo {
            return None;
        }
        if length != sent.len() {
            let expected = sent.len();
            let told = format!("an echo of {length} bytes, expected the {expected} that were sent");
            return Some(told.into());
        }
        let expected = &sent[start..start + piece.len()];
        if piece == expected {
            return None;
        }
        let place = piece
            .iter()
            .zip(expected)
            .position(|(found, sent)| found != sent)?;
        let (found, sent) = (piece[place], expected[place]);
        let offset = start + place;
        Some(
            format!("the echo differs at byte {offset}: {found:#04x}, expected {sent:#04x}").into(),
        )
    }

    /// What a whole reply of our own method says.
    fn judge(&self, request_id: u64, message: &[u8]) -> Reply {
        let Call::Load(rpc) = &self.call else {
            return Reply::default();
        };
        let reply = match LoadReply::read(message) {
            Ok(reply) => reply,
            Err(error) => {
                let told =
                    format!("request {request_id}: the reply is no seatrial.v1.LoadReply: {error}");
                return Reply {
                    failure: Some(told.into()),
                    ..Reply::default()
                };
            }
        };
        let header = wire::Reply {
            value: reply.value,
            service_ns: reply.service_ns,
            queue_ns: reply.queue_ns,
            seed: reply.seed,
            payload_bytes: u32::try_from(reply.payload.len()).unwrap_or(u32::MAX),
            ..wire::Reply::plain(wire::Status::Ok, request_id)
        };
        rpc.reply(&header, reply.payload)
    }
}

impl From<Http2Error> for DecodeError {
    fn from(error: Http2Error) -> Self {
        Self::Broken(error.to_string().into())
    }
}

impl Protocol for Grpc {
    type State = GrpcState;

    fn order(&self) -> ReplyOrder {
        ReplyOrder::ById
    }

    fn open(&self, connection: u32) -> GrpcState {
        let target = connection as usize % self.heads.len().max(1);
        let memory = self.heads[target].memory();
        GrpcState::new(Link::new(target, memory, self.depth))
    }

    /// Says which side it is and how much it takes; requests wait for the server's settings.
    fn greet(&mut self, _state: &mut GrpcState, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        out.extend_from_slice(PREFACE);
        let own = [
            (settings::ENABLE_PUSH, 0),
            (settings::INITIAL_WINDOW_SIZE, WINDOW_MAX),
        ];
        settings::append(&own, out);
        append_window_update(0, WINDOW_MAX - WINDOW_DEFAULT, out);
        Ok(false)
    }

    fn encode(&mut self, state: &mut GrpcState, request: &Request, out: &mut Vec<u8>) {
        let link = &mut state.link;
        if !link.start(&self.heads, &mut self.message, request, out) {
            link.hold_back(request);
            self.held_back_count += 1;
        }
    }

    fn decode(
        &mut self,
        state: &mut GrpcState,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError> {
        let GrpcState { reader, link } = state;
        while let Some(event) = reader.next(bytes)? {
            let decoded = link.take(event, &mut self.message, out)?;
            link.go_on(&self.heads, &mut self.message, out);
            if let Some(decoded) = decoded {
                return Ok(decoded);
            }
        }
        Ok(Decoded::More)
    }

    fn abandon(&mut self, state: &mut GrpcState, request_id: u64, out: &mut Vec<u8>) {
        state.link.abandon(request_id, out);
        state.link.go_on(&self.heads, &mut self.message, out);
    }

    fn note_read(&mut self, state: &mut GrpcState, read_at: Nanos) {
        state.link.read_at = read_at;
    }

    fn first_byte_at(&self, state: &GrpcState) -> Option<Nanos> {
        Some(state.link.reply_first_byte_at)
    }

    fn is_spent(&self, state: &GrpcState) -> bool {
        state.link.is_spent()
    }

    fn take_unserved(&mut self, state: &mut GrpcState, unserved: &mut Vec<u64>) {
        unserved.append(&mut state.link.unserved);
    }

    fn held_back_count(&self) -> u64 {
        self.held_back_count
    }
}
