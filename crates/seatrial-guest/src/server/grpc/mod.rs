//! gRPC over HTTP/2 without TLS, from the server's side.
//!
//! The method `seatrial.v1.Load/Call` does the operations of the rpc protocol; any other
//! gRPC method answers with the message that it got. A connection serves one request after
//! the other, in the order in which they became whole, so that the queue is the one that
//! formulas are about; their messages may come interleaved.
//!
//! What a peer can make a connection hold is bounded by the streams it may open
//! ([`STREAMS_MAX`]) and their messages ([`MESSAGE_BYTES_MAX`]), and counts for the budget
//! of the server.

mod load;
mod replies;
mod streams;

#[cfg(test)]
mod tests;

use seatrial_core::grpc::{CONTENT_TYPE, Status, load::METHOD};
use seatrial_core::http2::flow::ReceiveWindow;
use seatrial_core::http2::frames::{
    append_go_away, append_ping_ack, append_reset, append_settings_ack, append_window_update,
};
use seatrial_core::http2::hpack::KnownBlocks;
use seatrial_core::http2::{
    ErrorCode, Event, Http2Error, PREFACE, Reader, WINDOW_DEFAULT, WINDOW_MAX, settings,
};

use super::service::{Next, OUTPUT_BYTES_SOFT, Refusal, Service, Step, Tools};
use load::Load;
use replies::{Replies, Verdict};
use streams::{Stream, Streams};

/// Operations: those of the rpc protocol by their numbers, then the echo.
pub const OPERATIONS: &[&str] = &[
    "empty",
    "checksum",
    "spin",
    "sleep",
    "spin_wall",
    "touch",
    "echo",
];

/// The number under which echoes are counted.
const ECHO: usize = 6;

/// Streams that one connection may have open; the load engine's largest depth.
const STREAMS_MAX: u32 = 1024;

/// Longest message of a request, as gRPC servers have it by default.
const MESSAGE_BYTES_MAX: u32 = 4 << 20;

/// What the headers of a request say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RequestHead {
    is_post: bool,
    is_grpc: bool,
    is_load: bool,
}

impl RequestHead {
    fn note(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":method" => self.is_post = value == b"POST",
            b":path" => self.is_load = value == METHOD.as_bytes(),
            b"content-type" => self.is_grpc = value.starts_with(CONTENT_TYPE.as_bytes()),
            _ => {}
        }
    }
}

/// One connection's side of gRPC.
#[derive(Debug)]
pub struct Grpc {
    has_preface: bool,
    reader: Reader,
    link: Link,
}

/// The connection without the reader, whose events borrow it.
#[derive(Debug)]
struct Link {
    heads: KnownBlocks<RequestHead, 1>,
    streams: Streams,
    receive_window: ReceiveWindow,
    replies: Replies,
    load: Load,
    /// A whole request that takes time, so that what was answered before it goes out first.
    waiting: Option<u32>,
}

impl Grpc {
    /// A connection on which nothing was said yet.
    pub fn new(seed: u64, connection: u64) -> Self {
        Self {
            has_preface: false,
            reader: Reader::default(),
            link: Link {
                heads: KnownBlocks::default(),
                streams: Streams::default(),
                receive_window: ReceiveWindow::new(WINDOW_MAX),
                replies: Replies::default(),
                load: Load::new(seed, connection),
                waiting: None,
            },
        }
    }

    /// Takes the preface; whether it was whole.
    fn greet(&mut self, rest: &mut &[u8], output: &mut Vec<u8>) -> Result<bool, Http2Error> {
        let Some((preface, behind)) = rest.split_at_checked(PREFACE.len()) else {
            return if PREFACE.starts_with(rest) {
                Ok(false)
            } else {
                Err(Http2Error::protocol("no HTTP/2 preface"))
            };
        };
        if preface != PREFACE {
            return Err(Http2Error::protocol("no HTTP/2 preface"));
        }
        *rest = behind;
        self.has_preface = true;
        let own = [
            (settings::MAX_CONCURRENT_STREAMS, STREAMS_MAX),
            (settings::INITIAL_WINDOW_SIZE, WINDOW_MAX),
        ];
        settings::append(&own, output);
        append_window_update(0, WINDOW_MAX - WINDOW_DEFAULT, output);
        Ok(true)
    }

    fn advance(
        &mut self,
        rest: &mut &[u8],
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) -> Result<Next, Http2Error> {
        if !self.has_preface && !self.greet(rest, output)? {
            return Ok(Next::READ);
        }
        loop {
            if let Some(id) = self.link.waiting {
                if !output.is_empty() {
                    return Ok(Next::Flush);
                }
                self.link.waiting = None;
                self.link.answer(id, output, tools);
                return Ok(Next::Flush);
            }
            if output.len() > OUTPUT_BYTES_SOFT {
                return Ok(Next::Flush);
            }
            match self.reader.next(rest)? {
                Some(event) => self.link.take(event, output, tools)?,
                None => return Ok(Next::READ),
            }
        }
    }
}

impl Link {
    /// Takes what the peer said, and answers requests that are whole and quick.
    fn take(
        &mut self,
        event: Event<'_>,
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) -> Result<(), Http2Error> {
        match event {
            Event::Data {
                stream,
                data,
                flow_bytes,
                is_end,
            } => {
                if let Some(increment) = self.receive_window.receive(flow_bytes)? {
                    append_window_update(0, increment, output);
                }
                self.take_data(stream, data, is_end, output, tools)
            }
            Event::Headers {
                stream,
                block,
                is_end,
            } => self.take_headers(stream, block, is_end, output, tools),
            Event::Reset { stream, .. } => {
                self.streams.check_opened(stream)?;
                self.streams.close(stream);
                self.replies.forget(stream);
                Ok(())
            }
            Event::Settings(payload) => {
                let change = self.replies.apply(payload)?;
                self.streams.widen(change)?;
                append_settings_ack(output);
                self.replies.go_on(output);
                Ok(())
            }
            Event::Window { stream, increment } => {
                if stream == 0 {
                    self.replies.window.change(increment.into())?;
                } else if let Some(open) = self.streams.get(stream) {
                    open.window.change(increment.into())?;
                } else {
                    self.streams.check_opened(stream)?;
                    self.replies.widen(stream, increment)?;
                }
                self.replies.go_on(output);
                Ok(())
            }
            Event::Ping(opaque) => {
                append_ping_ack(opaque, output);
                Ok(())
            }
            // A client that goes away still gets the answers to what it has asked.
            Event::GoAway { .. } | Event::SettingsAck | Event::PingAck | Event::Nothing => Ok(()),
        }
    }

    fn take_headers(
        &mut self,
        id: u32,
        block: &[u8],
        is_end: bool,
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) -> Result<(), Http2Error> {
        let head = self.heads.read(0, block, RequestHead::note)?;
        if self.streams.get(id).is_some() {
            // Trailers, which have to be the end.
            return if is_end {
                self.finish_request(id, &[], output, tools);
                Ok(())
            } else {
                Err(Http2Error::protocol(
                    "a second header block within a request",
                ))
            };
        }
        if !self.streams.admit(id)? {
            return Ok(()); // late headers of a stream that is over
        }
        if self.streams.open_count() + self.replies.blocked_count() >= STREAMS_MAX as usize {
            append_reset(id, ErrorCode::REFUSED_STREAM, output);
            tools.stats.bad_request(true);
            return Ok(());
        }
        if !head.is_post || !head.is_grpc {
            self.replies.refuse_media(id, output);
            leave(id, is_end, output, tools);
            return Ok(());
        }
        self.streams
            .open(Stream::new(id, head.is_load, self.replies.stream_window()));
        if is_end {
            self.finish_request(id, &[], output, tools);
        }
        Ok(())
    }

    fn take_data(
        &mut self,
        id: u32,
        data: &[u8],
        is_end: bool,
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) -> Result<(), Http2Error> {
        let Some(stream) = self.streams.get(id) else {
            return self.streams.check_opened(id);
        };
        let piece = match stream.reader.take(data, MESSAGE_BYTES_MAX) {
            Ok(piece) => piece,
            Err(error) => {
                let verdict = Verdict::of(&error);
                self.refuse(id, &verdict, is_end, output, tools);
                return Ok(());
            }
        };
        if is_end {
            self.finish_request(id, piece, output, tools);
        } else {
            self.streams.keep(id, piece);
        }
        Ok(())
    }

    /// A request is over: answers it, or lets it wait for what was answered before to go out.
    fn finish_request(
        &mut self,
        id: u32,
        last_piece: &[u8],
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        if !stream.reader.is_whole() {
            let verdict = Verdict::new(
                Status::INVALID_ARGUMENT,
                "the request ends within its message",
            );
            self.refuse(id, &verdict, true, output, tools);
            return;
        }
        let is_in_parts = !stream.message.is_empty();
        let takes_time = stream.is_load && !is_in_parts && load::takes_time(last_piece);
        if is_in_parts || takes_time {
            // Long messages of our own method are rare and may wait as well.
            let is_load = stream.is_load;
            self.streams.keep(id, last_piece);
            if is_load {
                self.waiting = Some(id);
            } else {
                self.answer(id, output, tools);
            }
            return;
        }
        if let Some(stream) = self.streams.close(id) {
            self.answer_message(&stream, last_piece, output, tools);
        }
    }

    /// Answers a request whose message was kept.
    fn answer(&mut self, id: u32, output: &mut Vec<u8>, tools: &mut Tools) {
        if let Some(stream) = self.streams.close(id) {
            self.answer_message(&stream, &stream.message, output, tools);
        }
    }

    fn answer_message(
        &mut self,
        stream: &Stream,
        message: &[u8],
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) {
        let (id, window) = (stream.id, stream.window);
        if !stream.is_load {
            tools.finish(ECHO);
            self.replies.send(id, window, message, output);
            return;
        }
        match self.load.answer(message, tools) {
            Ok(reply) => self.replies.send(id, window, reply, output),
            Err(verdict) => self.replies.fail(id, &verdict, output),
        }
        self.load.trim();
    }

    /// Ends a stream with a status instead of a reply.
    fn refuse(
        &mut self,
        id: u32,
        verdict: &Verdict,
        is_end: bool,
        output: &mut Vec<u8>,
        tools: &Tools,
    ) {
        self.replies.fail(id, verdict, output);
        self.streams.close(id);
        leave(id, is_end, output, tools);
    }
}

/// A bad request was answered; its rest is not wanted.
fn leave(id: u32, is_end: bool, output: &mut Vec<u8>, tools: &Tools) {
    tools.stats.bad_request(true);
    if !is_end {
        append_reset(id, ErrorCode::NO_ERROR, output);
    }
}

impl Service for Grpc {
    fn serve(&mut self, input: &[u8], output: &mut Vec<u8>, tools: &mut Tools) -> Step {
        let mut rest = input;
        let next = match self.advance(&mut rest, output, tools) {
            Ok(next) => next,
            Err(error) => {
                tools.stats.bad_request(true);
                append_go_away(self.link.streams.last(), error.code, &error.text, output);
                Next::Close
            }
        };
        Step {
            used_bytes: input.len() - rest.len(),
            next,
        }
    }

    fn refuse(&mut self, _input: &[u8], why: Refusal, output: &mut Vec<u8>) {
        let text = match why {
            Refusal::Memory => "the server holds too much",
            Refusal::Late => "the rest of the request did not come in time",
        };
        let last = self.link.streams.last();
        append_go_away(last, ErrorCode::ENHANCE_YOUR_CALM, text, output);
    }

    fn held_bytes(&self) -> usize {
        let link = &self.link;
        self.reader.held_bytes() + link.streams.held_bytes() + link.replies.held_bytes()
    }
}
