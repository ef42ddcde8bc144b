//! The streams of one connection: which request each carries, found by its number at once.

use crate::grpc::MessageReader;
use crate::http2::STREAM_MAX;
use crate::http2::flow::SendWindow;
use crate::transport::Request;
use crate::units::Nanos;

/// A buffer that grew beyond this for a large reply is given back after it.
const BUFFER_BYTES_KEPT: usize = 16 << 10;

/// One call.
#[derive(Debug)]
pub struct Stream {
    /// Its number; 0 if the place is free.
    pub id: u32,
    /// What it carries.
    pub request: Request,
    /// Bytes of the request that have not been sent, because a window was full.
    pub unsent_bytes: usize,
    /// Bytes that the peer allows on it.
    pub window: SendWindow,
    /// When the first byte of the reply was read.
    pub first_byte_at: Option<Nanos>,
    /// Whether the headers of the reply have come.
    pub has_headers: bool,
    /// How far the message of the reply has come.
    pub reader: MessageReader,
    /// The message, if it comes in pieces and has to be understood.
    pub message: Vec<u8>,
    /// What is wrong with the reply, as far as it has come.
    pub failure: Option<Box<str>>,
    /// The server's time for the request.
    pub service: Option<Nanos>,
}

impl Stream {
    fn free() -> Self {
        Self {
            id: 0,
            request: Request {
                request_id: 0,
                demand: Nanos::ZERO,
            },
            unsent_bytes: 0,
            window: SendWindow::new(0),
            first_byte_at: None,
            has_headers: false,
            reader: MessageReader::default(),
            message: Vec::new(),
            failure: None,
            service: None,
        }
    }
}

/// The open streams; as many as there are requests on the connection, at most.
///
/// A stream's place follows from its number alone. Numbers need not be consecutive (RFC
/// 9113, 5.1.1): one whose place is still taken, by a call that takes long, is left out.
#[derive(Debug)]
pub struct Streams {
    places: Box<[Stream]>,
    open_count: usize,
    /// The lowest number that was not used or left out.
    next: u32,
}

impl Streams {
    /// Places for this many open streams, and at least as many more, so that few numbers are left out.
    pub fn new(depth: usize) -> Self {
        let count = (2 * depth).next_power_of_two();
        Self {
            places: std::iter::repeat_with(Stream::free).take(count).collect(),
            open_count: 0,
            next: 1,
        }
    }

    /// Open streams.
    pub const fn open_count(&self) -> usize {
        self.open_count
    }

    /// Whether a further stream has a place and a number.
    pub fn has_room(&self) -> bool {
        2 * self.open_count <= self.places.len() && !self.is_exhausted()
    }

    /// Whether all numbers were used.
    pub const fn is_exhausted(&self) -> bool {
        self.next > STREAM_MAX
    }

    /// Whether a number was used before, or left out.
    pub const fn is_past(&self, id: u32) -> bool {
        id % 2 == 1 && id < self.next
    }

    /// Opens a stream, if there is room; its number.
    pub fn open(&mut self, request: &Request, window: SendWindow) -> Option<u32> {
        while self.has_room() {
            let id = self.next;
            self.next += 2;
            let place = self.place_of(id);
            let stream = &mut self.places[place];
            if stream.id == 0 {
                stream.id = id;
                stream.request = *request;
                stream.window = window;
                self.open_count += 1;
                return Some(id);
            }
        }
        None
    }

    /// The open stream with this number.
    pub fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place_of(id);
        let stream = &mut self.places[place];
        (stream.id == id && id != 0).then_some(stream)
    }

    /// All open streams.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().filter(|stream| stream.id != 0)
    }

    /// Frees the place of a stream.
    pub fn close(&mut self, id: u32) {
        if let Some(stream) = self.get(id) {
            stream.id = 0;
            stream.unsent_bytes = 0;
            stream.first_byte_at = None;
            stream.has_headers = false;
            stream.reader = MessageReader::default();
            stream.message.clear();
            stream.message.shrink_to(BUFFER_BYTES_KEPT);
            stream.failure = None;
            stream.service = None;
            self.open_count -= 1;
        }
    }

    /// Frees the places of all streams behind this one; appends what they carried.
    pub fn close_behind(&mut self, last: u32, carried: &mut Vec<u64>) {
        let mut behind: Vec<(u32, u64)> = self
            .iter_mut()
            .filter(|stream| stream.id > last)
            .map(|stream| (stream.id, stream.request.request_id))
            .collect();
        behind.sort_unstable(); // in the order in which they were opened
        for (id, request_id) in behind {
            self.close(id);
            carried.push(request_id);
        }
    }

    const fn place_of(&self, id: u32) -> usize {
        (id as usize >> 1) & (self.places.len() - 1)
    }

    /// Goes on with this number, to come near the last one in a test.
    #[cfg(test)]
    pub fn skip_to(&mut self, id: u32) {
        self.next = id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(request_id: u64) -> Request {
        Request {
            request_id,
            demand: Nanos::ZERO,
        }
    }

    #[test]
    fn a_stream_that_takes_long_is_stepped_over() {
        let mut streams = Streams::new(2);
        let window = SendWindow::new(9);
        assert_eq!(streams.open(&request(100), window), Some(1));
        let mut opened = Vec::new();
        for count in 0..6u64 {
            let id = streams.open(&request(count), window).unwrap();
            assert_eq!(streams.get(id).unwrap().request.request_id, count);
            opened.push(id);
            streams.close(id);
            assert!(streams.get(id).is_none());
        }
        assert_eq!(opened, [3, 5, 7, 11, 13, 15]);
        assert_eq!(streams.get(1).unwrap().request.request_id, 100);
        assert!(streams.is_past(9) && !streams.is_past(17) && !streams.is_past(2));
        assert_eq!(streams.open_count(), 1);
    }

    #[test]
    fn numbers_end() {
        let mut streams = Streams::new(4);
        streams.skip_to(STREAM_MAX - 2);
        let mut open = || streams.open(&request(1), SendWindow::new(0));
        assert_eq!(
            [open(), open(), open()],
            [Some(STREAM_MAX - 2), Some(STREAM_MAX), None]
        );
        assert!(streams.is_exhausted());
        let mut carried = Vec::new();
        streams.close_behind(STREAM_MAX - 2, &mut carried);
        assert_eq!((streams.open_count(), carried), (1, vec![1]));
    }
}
