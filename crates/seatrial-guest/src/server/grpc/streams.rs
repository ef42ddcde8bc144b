//! Requests that are not whole.

use std::collections::HashMap;

use seatrial_core::grpc::MessageReader;
use seatrial_core::http2::Http2Error;
use seatrial_core::http2::flow::SendWindow;

/// What an open stream takes beside its message, for the budget.
const STREAM_BYTES: usize = size_of::<Stream>();

/// One request.
#[derive(Debug)]
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// Whether it is for our own method.
    pub is_load: bool,
    /// What the peer takes of the reply.
    pub window: SendWindow,
    /// How far its message has come.
    pub reader: MessageReader,
    /// The pieces of it that came before the last one.
    pub message: Vec<u8>,
}

impl Stream {
    /// A request of which the headers have come.
    pub fn new(id: u32, is_load: bool, window: SendWindow) -> Self {
        Self {
            id,
            is_load,
            window,
            reader: MessageReader::default(),
            message: Vec::new(),
        }
    }
}

/// The open streams of one connection.
#[derive(Debug, Default)]
pub struct Streams {
    open: HashMap<u32, Stream>,
    /// The highest number that the peer has used.
    last: u32,
    message_bytes: usize,
}

impl Streams {
    /// The highest number that the peer has used.
    pub const fn last(&self) -> u32 {
        self.last
    }

    /// How many there are.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Bytes held for them.
    pub fn held_bytes(&self) -> usize {
        self.message_bytes + self.open.len() * STREAM_BYTES
    }

    /// The open stream with this number.
    pub fn get(&mut self, id: u32) -> Option<&mut Stream> {
        self.open.get_mut(&id)
    }

    /// Notes the number of a stream that the peer begins; `false` if it was used before.
    ///
    /// # Errors
    /// A client's streams have odd numbers.
    pub fn admit(&mut self, id: u32) -> Result<bool, Http2Error> {
        if id % 2 == 0 {
            let text = format!("HEADERS on stream {id}, expected an odd number");
            return Err(Http2Error::protocol(text));
        }
        let is_new = id > self.last;
        self.last = self.last.max(id);
        Ok(is_new)
    }

    /// Refuses frames on streams that were never begun.
    ///
    /// # Errors
    /// This one never was.
    pub fn check_opened(&self, id: u32) -> Result<(), Http2Error> {
        if id % 2 == 1 && id <= self.last {
            return Ok(());
        }
        let text = format!("a frame on stream {id}, which was never opened");
        Err(Http2Error::protocol(text))
    }

    /// Adds a request.
    pub fn open(&mut self, stream: Stream) {
        self.open.insert(stream.id, stream);
    }

    /// Adds a piece to the message of a stream.
    pub fn keep(&mut self, id: u32, piece: &[u8]) {
        if let Some(stream) = self.open.get_mut(&id) {
            self.message_bytes += piece.len();
            stream.message.extend_from_slice(piece);
        }
    }

    /// Takes a stream away.
    pub fn close(&mut self, id: u32) -> Option<Stream> {
        let stream = self.open.remove(&id)?;
        self.message_bytes -= stream.message.len();
        Some(stream)
    }

    /// The peer has changed the window of all of its streams.
    ///
    /// # Errors
    /// A window would exceed the largest.
    pub fn widen(&mut self, change: i64) -> Result<(), Http2Error> {
        if change == 0 {
            return Ok(());
        }
        self.open
            .values_mut()
            .try_for_each(|stream| stream.window.change(change))
    }
}
