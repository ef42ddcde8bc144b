//! Replies as frames, as far as the peer's windows take them.

use std::borrow::Cow;
use std::collections::VecDeque;

use seatrial_core::grpc::{CONTENT_TYPE, MessageError, Status, percent_encode, prefix};
use seatrial_core::http2::flow::SendWindow;
use seatrial_core::http2::frames::{Flags, HEADER_BYTES, Kind, append_data, append_header};
use seatrial_core::http2::hpack::encoder::{FieldMemory, append_field};
use seatrial_core::http2::settings::Settings;
use seatrial_core::http2::{Http2Error, WINDOW_DEFAULT};

/// Fields that the peer is to remember.
const TYPE: usize = 0;
const STATUS: usize = 1;

/// Why a request gets a status instead of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The status.
    pub status: Status,
    /// Why, for people.
    pub text: Cow<'static, str>,
}

impl Verdict {
    /// This status with this text.
    pub fn new(status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        Self { status, text }
    }

    /// What is told about bytes that are not one message.
    pub fn of(error: &MessageError) -> Self {
        let status = match error {
            MessageError::Compressed(_) => Status::UNIMPLEMENTED,
            MessageError::TooLong { .. } => Status::RESOURCE_EXHAUSTED,
            MessageError::Trailing => Status::INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}

/// A reply that the peer does not take at once.
#[derive(Debug)]
struct Blocked {
    id: u32,
    window: SendWindow,
    /// Prefix and message, of which the part from `start` is to be sent.
    body: Vec<u8>,
    start: usize,
}

/// The sending side of one connection.
#[derive(Debug)]
pub struct Replies {
    settings: Settings,
    /// What the peer takes on the whole connection.
    pub window: SendWindow,
    memory: FieldMemory<2>,
    /// In the order in which they became ready.
    blocked: VecDeque<Blocked>,
    blocked_bytes: usize,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            window: SendWindow::new(WINDOW_DEFAULT),
            memory: FieldMemory::default(),
            blocked: VecDeque::new(),
            blocked_bytes: 0,
        }
    }
}

impl Replies {
    /// The window of a stream that begins now.
    pub const fn stream_window(&self) -> SendWindow {
        SendWindow::new(self.settings.window_bytes)
    }

    /// Replies that wait for the peer.
    pub fn blocked_count(&self) -> usize {
        self.blocked.len()
    }

    /// Bytes held for them.
    pub const fn held_bytes(&self) -> usize {
        self.blocked_bytes
    }

    /// Takes over the peer's settings; by how much the window of each open stream changes.
    ///
    /// # Errors
    /// A value that cannot be.
    pub fn apply(&mut self, payload: &[u8]) -> Result<i64, Http2Error> {
        let before = i64::from(self.settings.window_bytes);
        self.settings.apply(payload)?;
        self.memory.limit(self.settings.header_table_bytes);
        let change = i64::from(self.settings.window_bytes) - before;
        for reply in &mut self.blocked {
            reply.window.change(change)?;
        }
        Ok(change)
    }

    /// The peer takes more of a reply that waits.
    ///
    /// # Errors
    /// The window would exceed the largest.
    pub fn widen(&mut self, id: u32, increment: u32) -> Result<(), Http2Error> {
        let reply = self.blocked.iter_mut().find(|reply| reply.id == id);
        reply.map_or(Ok(()), |reply| reply.window.change(increment.into()))
    }

    /// The peer does not want a reply any more.
    pub fn forget(&mut self, id: u32) {
        if let Some(place) = self.blocked.iter().position(|reply| reply.id == id) {
            if let Some(reply) = self.blocked.remove(place) {
                self.blocked_bytes -= reply.body.len();
            }
        }
    }

    /// Appends a reply with this message, or the part of it that the peer takes now.
    pub fn send(&mut self, id: u32, window: SendWindow, message: &[u8], output: &mut Vec<u8>) {
        self.head(id, output);
        let prefix = prefix(message.len());
        let body_bytes = prefix.len() + message.len();
        let frame_bytes_max = self.settings.frame_bytes_max as usize;
        let fits = body_bytes <= window.available()
            && body_bytes <= self.window.available()
            && body_bytes <= frame_bytes_max;
        if fits {
            append_header(body_bytes, Kind::Data, Flags(0), id, output);
            output.extend_from_slice(&prefix);
            output.extend_from_slice(message);
            self.window.take(body_bytes);
            self.status(id, output);
            return;
        }
        let body = [&prefix, message].concat();
        self.blocked_bytes += body.len();
        self.blocked.push_back(Blocked {
            id,
            window,
            body,
            start: 0,
        });
        self.go_on(output);
    }

    /// Appends what the peer takes now of the replies that wait.
    pub fn go_on(&mut self, output: &mut Vec<u8>) {
        for _ in 0..self.blocked.len() {
            if self.window.available() == 0 {
                return;
            }
            let Some(mut reply) = self.blocked.pop_front() else {
                return;
            };
            let rest = &reply.body[reply.start..];
            let allowed = self.window.available().min(reply.window.available());
            let count = rest.len().min(allowed);
            if count > 0 {
                let frame_bytes_max = self.settings.frame_bytes_max as usize;
                append_data(reply.id, &rest[..count], false, frame_bytes_max, output);
                self.window.take(count);
                reply.window.take(count);
                reply.start += count;
            }
            if reply.start == reply.body.len() {
                self.blocked_bytes -= reply.body.len();
                self.status(reply.id, output);
            } else {
                self.blocked.push_back(reply);
            }
        }
    }

    /// Appends a status without a reply.
    pub fn fail(&mut self, id: u32, verdict: &Verdict, output: &mut Vec<u8>) {
        let status = verdict.status.0.to_string();
        self.block(id, true, output, |memory, out| {
            append_field(b":status", b"200", out);
            memory.append(TYPE, b"content-type", CONTENT_TYPE.as_bytes(), out);
            append_field(b"grpc-status", status.as_bytes(), out);
            let message = percent_encode(&verdict.text);
            append_field(b"grpc-message", message.as_bytes(), out);
        });
    }

    /// Appends the answer to what is no gRPC request, which the specification has be HTTP's 415.
    pub fn refuse_media(&mut self, id: u32, output: &mut Vec<u8>) {
        self.block(id, true, output, |_, out| {
            append_field(b":status", b"415", out);
        });
    }

    fn head(&mut self, id: u32, output: &mut Vec<u8>) {
        self.block(id, false, output, |memory, out| {
            append_field(b":status", b"200", out);
            memory.append(TYPE, b"content-type", CONTENT_TYPE.as_bytes(), out);
        });
    }

    fn status(&mut self, id: u32, output: &mut Vec<u8>) {
        self.block(id, true, output, |memory, out| {
            memory.append(STATUS, b"grpc-status", b"0", out);
        });
    }

    /// Appends a HEADERS frame around the fields that `write` appends, which are few.
    fn block(
        &mut self,
        id: u32,
        is_end: bool,
        output: &mut Vec<u8>,
        write: impl FnOnce(&mut FieldMemory<2>, &mut Vec<u8>),
    ) {
        let start = output.len();
        let end = if is_end { Flags::END_STREAM } else { Flags(0) };
        append_header(0, Kind::Headers, Flags::END_HEADERS.and(end), id, output);
        self.memory.begin(output);
        write(&mut self.memory, output);
        let length = output.len() - start - HEADER_BYTES;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        output[start..start + 3].copy_from_slice(&length[1..]);
    }
}
