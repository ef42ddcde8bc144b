//! A gRPC client over one Unix socket, without threads: calls one after the other, beside which
//! streams that the server feeds may be open.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::grpc::{CONTENT_TYPE, PREFIX_BYTES, Status, percent_decode, prefix};
use crate::http2::frames::{
    Flags, Kind, append_data, append_header, append_ping_ack, append_settings_ack,
    append_window_update,
};
use crate::http2::hpack::{Decoder, encoder};
use crate::http2::{Event, FRAME_BYTES_MAX, Http2Error, PREFACE, Reader, WINDOW_DEFAULT, settings};

/// Longest reply: a list of thousands of pods.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// Most bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// Who calls, as servers log it.
const USER_AGENT: &str = concat!("seatrial/", env!("CARGO_PKG_VERSION"));

/// Why a call gave no reply.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody listens there.
    #[error("cannot connect to {path}: {error}")]
    Connect {
        /// The socket.
        path: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The connection failed.
    #[error("the connection failed: {0}")]
    System(#[from] io::Error),
    /// The server has closed the connection.
    #[error("the server closed the connection{0}")]
    Closed(String),
    /// No reply came in time.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// It does not speak HTTP/2 or gRPC.
    #[error("{0}")]
    Protocol(#[from] Http2Error),
    /// What came is not a gRPC reply, or a request is too long.
    #[error("{0}")]
    Message(String),
    /// The server refused or failed.
    #[error("{} ({code}): {message}", Status(*.code).name())]
    Refused {
        /// The status of gRPC.
        code: u32,
        /// Why, in the server's words.
        message: String,
    },
}

/// One call or stream.
#[derive(Debug, Default)]
struct Stream {
    id: u32,
    received: Vec<u8>,
    status: Option<u32>,
    message: String,
    http_status: Option<u16>,
    is_over: bool,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    reader: Reader,
    decoder: Decoder,
    streams: Vec<Stream>,
    next_id: u32,
    sent_bytes: usize,
    farewell: String,
    is_closed: bool,
}

impl Client {
    /// Connects to the socket at a path.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        let socket = UnixStream::connect(path).map_err(|error| CallError::Connect {
            path: path.display().to_string(),
            error,
        })?;
        let mut hello = PREFACE.to_vec();
        settings::append(&[(settings::ENABLE_PUSH, 0)], &mut hello);
        (&socket).write_all(&hello)?;
        Ok(Self {
            socket,
            reader: Reader::default(),
            decoder: Decoder::default(),
            streams: Vec::new(),
            next_id: 1,
            sent_bytes: 0,
            farewell: String::new(),
            is_closed: false,
        })
    }

    /// Calls a method and waits for its reply.
    ///
    /// # Errors
    /// There was none, or the server refused.
    pub fn call(
        &mut self,
        method: &str,
        message: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let id = self.open(method, message, Some(timeout))?;
        let begun = Instant::now();
        loop {
            if self.stream(id).is_over {
                break;
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(CallError::TimedOut(timeout));
            }
            self.pump(Some(left))?;
        }
        let mut stream = self.take(id);
        let message = take_message(&mut stream.received)?;
        fail_unless_ok(&stream)?;
        message.ok_or_else(|| CallError::Message("a reply without a message".to_owned()))
    }

    /// Opens a stream that the server will feed; gives its number.
    ///
    /// # Errors
    /// The request could not be sent.
    pub fn subscribe(&mut self, method: &str, message: &[u8]) -> Result<u32, CallError> {
        self.open(method, message, None)
    }

    /// Waits for the next message of a stream, for as long as it takes.
    ///
    /// # Errors
    /// The stream or the connection has ended.
    pub fn next_message(&mut self, id: u32) -> Result<Vec<u8>, CallError> {
        loop {
            let stream = self.stream(id);
            if let Some(message) = take_message(&mut stream.received)? {
                return Ok(message);
            }
            if stream.is_over {
                fail_unless_ok(stream)?;
                return Err(CallError::Closed(" of a stream".to_owned()));
            }
            self.pump(None)?;
        }
    }

    fn open(
        &mut self,
        method: &str,
        message: &[u8],
        timeout: Option<Duration>,
    ) -> Result<u32, CallError> {
        let id = self.next_id;
        self.next_id += 2;
        // A server opens its windows again sooner or later; we do not wait for that.
        self.sent_bytes += PREFIX_BYTES + message.len();
        if self.sent_bytes > WINDOW_DEFAULT as usize {
            let text = format!("requests of over {WINDOW_DEFAULT} bytes on one connection");
            return Err(CallError::Message(text));
        }
        let mut block = Vec::new();
        let mut field = |name: &str, value: &str| {
            encoder::append_field(name.as_bytes(), value.as_bytes(), &mut block);
        };
        field(":method", "POST");
        field(":scheme", "http");
        field(":path", method);
        field(":authority", "localhost");
        field("te", "trailers");
        field("content-type", CONTENT_TYPE);
        field("user-agent", USER_AGENT);
        if let Some(timeout) = timeout {
            // At most eight digits (the specification of gRPC over HTTP/2).
            let value = timeout.as_millis().min(99_999_999);
            field("grpc-timeout", &format!("{value}m"));
        }
        let mut out = Vec::new();
        append_header(block.len(), Kind::Headers, Flags::END_HEADERS, id, &mut out);
        out.extend_from_slice(&block);
        let mut body = prefix(message.len()).to_vec();
        body.extend_from_slice(message);
        append_data(id, &body, true, FRAME_BYTES_MAX, &mut out);
        self.streams.push(Stream {
            id,
            ..Stream::default()
        });
        self.write(&out)?;
        Ok(id)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        match self.socket.write_all(bytes) {
            // What the server said before it went is worth more than that it went.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.drain(),
            written => Ok(written?),
        }
    }

    fn drain(&mut self) -> Result<(), CallError> {
        while !self.is_closed {
            self.pump(None)?;
        }
        Err(CallError::Closed(self.farewell.clone()))
    }

    fn stream(&mut self, id: u32) -> &mut Stream {
        let index = self.streams.iter().position(|stream| stream.id == id);
        let index = index.unwrap_or_else(|| {
            self.streams.push(Stream {
                id,
                is_over: true,
                ..Stream::default()
            });
            self.streams.len() - 1
        });
        &mut self.streams[index]
    }

    fn take(&mut self, id: u32) -> Stream {
        let taken = std::mem::take(self.stream(id));
        self.streams.retain(|stream| stream.id != 0);
        taken
    }

    /// Reads what has come, or waits for it, and answers what is to be answered.
    fn pump(&mut self, timeout: Option<Duration>) -> Result<(), CallError> {
        self.socket.set_read_timeout(timeout)?;
        let mut buffer = [0; READ_BYTES];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) => {
                self.is_closed = true;
                return Err(CallError::Closed(self.farewell.clone()));
            }
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(()); // the caller looks at its clock
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.is_closed = true;
                return Err(CallError::Closed(self.farewell.clone()));
            }
            Err(error) => return Err(error.into()),
        };
        let mut answers = Vec::new();
        let mut bytes = &buffer[..count];
        while let Some(event) = self.reader.next(&mut bytes)? {
            let mut context = Context {
                streams: &mut self.streams,
                decoder: &mut self.decoder,
                farewell: &mut self.farewell,
                answers: &mut answers,
            };
            context.handle(&event)?;
        }
        if answers.is_empty() {
            Ok(())
        } else {
            self.write(&answers)
        }
    }
}

/// What an event can change.
struct Context<'a> {
    streams: &'a mut Vec<Stream>,
    decoder: &'a mut Decoder,
    farewell: &'a mut String,
    answers: &'a mut Vec<u8>,
}

impl Context<'_> {
    fn handle(&mut self, event: &Event<'_>) -> Result<(), CallError> {
        match *event {
            Event::Settings(_) => append_settings_ack(self.answers),
            Event::Ping(opaque) => append_ping_ack(opaque, self.answers),
            Event::Data {
                stream,
                data,
                flow_bytes,
                is_end,
            } => {
                if let Ok(increment @ 1..) = u32::try_from(flow_bytes) {
                    append_window_update(0, increment, self.answers);
                    if !is_end {
                        append_window_update(stream, increment, self.answers);
                    }
                }
                if let Some(found) = find(self.streams, stream) {
                    if found.received.len() + data.len() > REPLY_BYTES_MAX {
                        let text = format!("a reply of over {REPLY_BYTES_MAX} bytes");
                        return Err(CallError::Message(text));
                    }
                    found.received.extend_from_slice(data);
                    found.is_over |= is_end;
                }
            }
            Event::Headers {
                stream,
                block,
                is_end,
            } => {
                let mut stranger = Stream::default();
                let found = find(self.streams, stream).unwrap_or(&mut stranger);
                self.decoder
                    .decode(block, |name, value| note(found, name, value))?;
                found.is_over |= is_end;
            }
            Event::Reset { stream, code } => {
                if let Some(found) = find(self.streams, stream) {
                    found.is_over = true;
                    found.message = format!("the server reset the stream: {}", code.name());
                }
            }
            Event::GoAway { text, code, .. } => {
                let text = String::from_utf8_lossy(text);
                *self.farewell = format!(" ({} {text})", code.name());
            }
            Event::SettingsAck | Event::PingAck | Event::Window { .. } | Event::Nothing => {}
        }
        Ok(())
    }
}

fn find(streams: &mut [Stream], id: u32) -> Option<&mut Stream> {
    streams.iter_mut().find(|stream| stream.id == id)
}

fn note(stream: &mut Stream, name: &[u8], value: &[u8]) {
    let text = || std::str::from_utf8(value).unwrap_or_default();
    match name {
        b":status" => stream.http_status = text().parse().ok(),
        // The specification has an unreadable status be UNKNOWN.
        b"grpc-status" => stream.status = Some(text().parse().unwrap_or(2)),
        b"grpc-message" => stream.message = percent_decode(value),
        _ => {}
    }
}

/// Takes the first whole message from the front of what has come.
fn take_message(received: &mut Vec<u8>) -> Result<Option<Vec<u8>>, CallError> {
    let Some((head, rest)) = received.split_at_checked(PREFIX_BYTES) else {
        return Ok(None);
    };
    if head[0] != 0 {
        let text = "a compressed message, which was not offered".to_owned();
        return Err(CallError::Message(text));
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if rest.len() < length {
        return Ok(None);
    }
    let message = rest[..length].to_vec();
    received.drain(..PREFIX_BYTES + length);
    Ok(Some(message))
}

fn fail_unless_ok(stream: &Stream) -> Result<(), CallError> {
    match (stream.http_status, stream.status) {
        (_, Some(0)) => Ok(()),
        (_, Some(code)) => Err(CallError::Refused {
            code,
            message: stream.message.clone(),
        }),
        (Some(200), None) if !stream.message.is_empty() => {
            Err(CallError::Message(stream.message.clone()))
        }
        (status, None) => Err(CallError::Message(format!(
            "no gRPC status, HTTP status {}",
            status.map_or_else(|| "missing".to_owned(), |number| number.to_string())
        ))),
    }
}
