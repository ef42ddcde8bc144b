//! What one connection remembers, and how it goes on with each thing that the server says.

use std::collections::VecDeque;

use super::Message;
use super::head::{Memory, ReplyHeads, RequestHead, limit_memory};
use super::streams::{Stream, Streams};
use crate::http2::flow::{ReceiveWindow, SendWindow};
use crate::http2::frames::{
    append_data, append_ping_ack, append_reset, append_settings_ack, append_window_update,
};
use crate::http2::settings::Settings;
use crate::http2::{ErrorCode, Event, Reader, WINDOW_DEFAULT, WINDOW_MAX};
use crate::transport::{DecodeError, Decoded, Reply, Request};
use crate::units::Nanos;

/// Longest explanation of a GOAWAY that is kept.
const TEXT_BYTES_MAX: usize = 200;

/// Pings and settings that are answered between two replies to calls. A server that sends more of
/// them is no server, and if it read nothing, our answers would pile up without end.
const ANSWERS_MAX: u32 = 100_000;

/// Everything that one connection remembers.
#[derive(Debug)]
pub struct GrpcState {
    pub(super) reader: Reader,
    pub(super) link: Link,
}

impl GrpcState {
    pub(super) fn new(link: Link) -> Self {
        Self {
            reader: Reader::default(),
            link,
        }
    }
}

/// The state without the reader, whose events borrow it.
#[derive(Debug)]
pub struct Link {
    /// Which target it goes to.
    target: usize,
    heads: ReplyHeads,
    memory: Memory,
    settings: Settings,
    is_ready: bool,
    pub(super) streams: Streams,
    /// Requests that no stream could be opened for.
    held_back: VecDeque<Request>,
    /// Streams whose request is not out, because a window was full.
    blocked: VecDeque<u32>,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    /// Pings and settings that were answered since the last reply to a call.
    answers_count: u32,
    /// The server takes no further streams.
    is_going_away: bool,
    /// Requests that it did nothing about, as it said when it announced its end.
    pub(super) unserved: Vec<u64>,
    /// When what is decoded now was read.
    pub(super) read_at: Nanos,
    /// When the first byte of the last reply was read.
    pub(super) reply_first_byte_at: Nanos,
}

fn broken(text: impl Into<Box<str>>) -> DecodeError {
    DecodeError::Broken(text.into())
}

impl Link {
    pub(super) fn new(target: usize, memory: Memory, depth: usize) -> Self {
        Self {
            target,
            heads: ReplyHeads::default(),
            memory,
            settings: Settings::default(),
            is_ready: false,
            streams: Streams::new(depth),
            held_back: VecDeque::new(),
            blocked: VecDeque::new(),
            send_window: SendWindow::new(WINDOW_DEFAULT),
            receive_window: ReceiveWindow::new(WINDOW_MAX),
            answers_count: 0,
            is_going_away: false,
            unserved: Vec::new(),
            read_at: Nanos::ZERO,
            reply_first_byte_at: Nanos::ZERO,
        }
    }

    /// Whether no request can follow and none is answered any more.
    pub(super) fn is_spent(&self) -> bool {
        let is_ending = self.is_going_away || self.streams.is_exhausted();
        is_ending && self.streams.open_count() == 0
    }

    /// Keeps a request until a stream ends.
    pub(super) fn hold_back(&mut self, request: &Request) {
        self.held_back.push_back(*request);
    }

    /// Writes a request, unless others were held back before it or the peer does not admit it.
    pub(super) fn start(
        &mut self,
        heads: &[RequestHead],
        message: &mut Message,
        request: &Request,
        out: &mut Vec<u8>,
    ) -> bool {
        self.held_back.is_empty() && self.open(heads, message, request, out)
    }

    fn open(
        &mut self,
        heads: &[RequestHead],
        message: &mut Message,
        request: &Request,
        out: &mut Vec<u8>,
    ) -> bool {
        let is_admitted =
            !self.is_going_away && self.streams.open_count() < self.settings.streams_max as usize;
        if !is_admitted {
            return false;
        }
        let window = SendWindow::new(self.settings.window_bytes);
        let Some(id) = self.streams.open(request, window) else {
            return false;
        };
        heads[self.target].append(&mut self.memory, id, out);
        if let Some(stream) = self.streams.get(id) {
            stream.unsent_bytes = message.body.len();
        }
        if !self.send_body(message, id, out) {
            self.blocked.push_back(id);
        }
        true
    }

    /// Writes what the windows allow of a request's body; whether nothing is left of it.
    fn send_body(&mut self, message: &mut Message, id: u32, out: &mut Vec<u8>) -> bool {
        let Some(stream) = self.streams.get(id) else {
            return true; // it ended meanwhile
        };
        let allowed = self.send_window.available().min(stream.window.available());
        let count = stream.unsent_bytes.min(allowed);
        if count == 0 {
            return stream.unsent_bytes == 0;
        }
        let body = message.body_of(&stream.request);
        let start = body.len() - stream.unsent_bytes;
        let is_end = count == stream.unsent_bytes;
        let frame_bytes_max = self.settings.frame_bytes_max as usize;
        append_data(
            id,
            &body[start..start + count],
            is_end,
            frame_bytes_max,
            out,
        );
        stream.unsent_bytes -= count;
        stream.window.take(count);
        self.send_window.take(count);
        is_end
    }

    /// Cancels a call whose deadline has passed. Otherwise one that is never answered would take a
    /// stream for ever, and requests behind it would never be written.
    pub(super) fn abandon(&mut self, request_id: u64, out: &mut Vec<u8>) {
        let is_meant = |request: &Request| request.request_id == request_id;
        let open = self
            .streams
            .iter_mut()
            .find(|stream| is_meant(&stream.request));
        let Some(id) = open.map(|stream| stream.id) else {
            self.held_back.retain(|request| !is_meant(request));
            return;
        };
        append_reset(id, ErrorCode::CANCEL, out);
        self.streams.close(id);
    }

    /// Writes what had to wait: rests of requests first, then whole ones.
    pub(super) fn go_on(
        &mut self,
        heads: &[RequestHead],
        message: &mut Message,
        out: &mut Vec<u8>,
    ) {
        for _ in 0..self.blocked.len() {
            if self.send_window.available() == 0 {
                break;
            }
            if let Some(id) = self.blocked.pop_front() {
                if !self.send_body(message, id, out) {
                    self.blocked.push_back(id);
                }
            }
        }
        while let Some(request) = self.held_back.front().copied() {
            if !self.open(heads, message, &request, out) {
                return;
            }
            self.held_back.pop_front();
        }
    }

    /// Takes what the server said; what the engine has to know of it.
    pub(super) fn take(
        &mut self,
        event: Event<'_>,
        message: &mut Message,
        out: &mut Vec<u8>,
    ) -> Result<Option<Decoded>, DecodeError> {
        match event {
            Event::Data {
                stream,
                data,
                flow_bytes,
                is_end,
            } => {
                if let Some(increment) = self.receive_window.receive(flow_bytes)? {
                    append_window_update(0, increment, out);
                }
                self.take_data(stream, data, is_end, message, out)
            }
            Event::Headers {
                stream,
                block,
                is_end,
            } => self.take_headers(stream, block, is_end, out),
            Event::Reset { stream, code } => Ok(self.take_reset(stream, code)),
            Event::Settings(payload) => {
                self.note_answer()?;
                self.take_settings(payload, out)?;
                let is_first = !std::mem::replace(&mut self.is_ready, true);
                Ok(is_first.then_some(Decoded::Ready))
            }
            Event::Ping(opaque) => {
                self.note_answer()?;
                append_ping_ack(opaque, out);
                Ok(None)
            }
            Event::GoAway {
                last_stream,
                code,
                text,
            } => self.take_go_away(last_stream, code, text),
            Event::Window { stream, increment } => {
                let window = match stream {
                    0 => Some(&mut self.send_window),
                    id => self.streams.get(id).map(|stream| &mut stream.window),
                };
                if let Some(window) = window {
                    window.change(increment.into())?;
                }
                Ok(None)
            }
            Event::SettingsAck | Event::PingAck | Event::Nothing => Ok(None),
        }
    }

    fn note_answer(&mut self) -> Result<(), DecodeError> {
        self.answers_count += 1;
        if self.answers_count > ANSWERS_MAX {
            let told = format!("more than {ANSWERS_MAX} pings and settings without a reply");
            return Err(broken(told));
        }
        Ok(())
    }

    fn take_settings(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let before = i64::from(self.settings.window_bytes);
        self.settings.apply(payload)?;
        let change = i64::from(self.settings.window_bytes) - before;
        if change != 0 {
            for stream in self.streams.iter_mut() {
                stream.window.change(change)?;
            }
        }
        limit_memory(&mut self.memory, self.settings.header_table_bytes);
        append_settings_ack(out);
        Ok(())
    }

    fn take_go_away(
        &mut self,
        last_stream: u32,
        code: ErrorCode,
        text: &[u8],
    ) -> Result<Option<Decoded>, DecodeError> {
        if code != ErrorCode::NO_ERROR {
            let text = text[..text.len().min(TEXT_BYTES_MAX)].escape_ascii();
            let told = format!("the server ends the connection: {} {text}", code.name());
            return Err(broken(told.trim_end()));
        }
        self.is_going_away = true;
        // The server has not looked at those behind (RFC 9113, 6.8), nor at what was never written.
        self.streams.close_behind(last_stream, &mut self.unserved);
        let held_back = self.held_back.drain(..).map(|request| request.request_id);
        self.unserved.extend(held_back);
        Ok(Some(Decoded::Closing))
    }

    fn take_reset(&mut self, id: u32, code: ErrorCode) -> Option<Decoded> {
        let stream = self.streams.get(id)?;
        let told = format!("the server reset the stream: {}", code.name());
        stream.failure = Some(told.into());
        self.finish(id)
    }

    fn take_headers(
        &mut self,
        id: u32,
        block: &[u8],
        is_end: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Decoded>, DecodeError> {
        let head = self.heads.read(block, is_end)?;
        let read_at = self.read_at;
        let Some(stream) = self.open_stream(id)? else {
            return Ok(None);
        };
        stream.first_byte_at.get_or_insert(read_at);
        if !stream.has_headers {
            if (100..200).contains(&head.http_status) && !is_end {
                return Ok(None); // only in between
            }
            stream.has_headers = true;
            if head.http_status != 200 {
                stream.failure = Some(format!("HTTP status {}", head.http_status).into());
            } else if !head.is_grpc && head.status.is_none() {
                stream.failure = Some("HTTP status 200, but no gRPC: another content-type".into());
            }
        }
        if !is_end {
            return Ok(None);
        }
        if let Some(failure) = head.failure() {
            // The status says more than what was noticed before, such as a cut message.
            stream.failure = Some(failure);
        } else if stream.failure.is_none() && head.status.is_none() {
            return Err(broken(format!(
                "the reply on stream {id} ends without grpc-status"
            )));
        } else if stream.failure.is_none() && !stream.reader.is_whole() {
            return Err(broken(format!(
                "the reply on stream {id} ends with grpc-status 0 and without a whole message"
            )));
        }
        self.reset_unsent(id, out);
        Ok(self.finish(id))
    }

    fn take_data(
        &mut self,
        id: u32,
        data: &[u8],
        is_end: bool,
        message: &Message,
        out: &mut Vec<u8>,
    ) -> Result<Option<Decoded>, DecodeError> {
        let Some(stream) = self.open_stream(id)? else {
            return Ok(None);
        };
        if !stream.has_headers {
            return Err(broken(format!("DATA before HEADERS on stream {id}")));
        }
        if stream.failure.is_none() {
            take_message(stream, data, message)
                .map_err(|error| broken(format!("the reply on stream {id}: {error}")))?;
        }
        if !is_end {
            return Ok(None);
        }
        if stream.failure.is_none() {
            let told = format!("the reply on stream {id} ends without grpc-status");
            return Err(broken(told));
        }
        self.reset_unsent(id, out);
        Ok(self.finish(id))
    }

    /// The stream with this number; `None` if it was closed, an error if it never was opened.
    fn open_stream(&mut self, id: u32) -> Result<Option<&mut Stream>, DecodeError> {
        if !self.streams.is_past(id) {
            return Err(broken(format!(
                "a frame on stream {id}, which was never opened"
            )));
        }
        Ok(self.streams.get(id))
    }

    /// The server has answered without reading the whole request; it may forget the rest.
    fn reset_unsent(&mut self, id: u32, out: &mut Vec<u8>) {
        if self
            .streams
            .get(id)
            .is_some_and(|stream| stream.unsent_bytes > 0)
        {
            append_reset(id, ErrorCode::CANCEL, out);
        }
    }

    /// The reply of a stream, which ends with it.
    fn finish(&mut self, id: u32) -> Option<Decoded> {
        let read_at = self.read_at;
        let stream = self.streams.get(id)?;
        let reply = Reply {
            request_id: Some(stream.request.request_id),
            failure: stream.failure.take(),
            service: stream.service,
            ..Reply::default()
        };
        self.reply_first_byte_at = stream.first_byte_at.unwrap_or(read_at);
        self.streams.close(id);
        self.answers_count = 0;
        Some(Decoded::Reply(reply))
    }
}

/// Adds a piece of a reply's message, and judges it as far as it has come.
fn take_message(
    stream: &mut Stream,
    data: &[u8],
    message: &Message,
) -> Result<(), crate::grpc::MessageError> {
    let was_whole = stream.reader.is_whole();
    let start = stream.reader.received_bytes();
    let piece = stream.reader.take(data, message.reply_bytes_max())?;
    if !message.is_understood() {
        if stream.reader.has_length() && !was_whole {
            stream.failure = message.judge_piece(piece, start, stream.reader.length());
        }
        return Ok(());
    }
    if !stream.reader.is_whole() {
        stream.message.extend_from_slice(piece);
        return Ok(());
    }
    if was_whole {
        return Ok(()); // an empty frame behind the message
    }
    let whole = if stream.message.is_empty() {
        piece
    } else {
        stream.message.extend_from_slice(piece);
        &stream.message
    };
    let judged = message.judge(stream.request.request_id, whole);
    (stream.failure, stream.service) = (judged.failure, judged.service);
    Ok(())
}
