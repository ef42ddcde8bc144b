//! The echo protocol: bytes come back as they went, framed by a fixed size.
//!
//! Eight bytes or more carry the request id in front, so that a lost or swapped
//! echo is seen; all other bytes are compared with the pattern that was sent.

use super::options::{OptionReader, Options};
use super::runs::{ReplyRun, RequestRun};
use super::{DecodeError, Decoded, Protocol, Reply, Request, payload_pattern, take_front};
use crate::error::CoreError;

/// Bytes of the request id in front of the payload.
const ID_BYTES: usize = 8;

/// Bytes of requests that are kept ready, so that a run of small ones is one copy; at least one request.
const READY_BYTES: usize = 16 * 1024;

/// What can be set about the echo protocol.
#[derive(Clone, Copy, Debug)]
pub struct EchoOptions {
    /// Whether what comes back is compared with what went. Without it only bytes are counted, so
    /// that a load tells what a client can do that trusts its server.
    pub is_verified: bool,
}

impl Default for EchoOptions {
    fn default() -> Self {
        Self { is_verified: true }
    }
}

impl EchoOptions {
    /// Reads them: `verify` (true). Datagrams are told apart by the ids in them, so that
    /// nothing but `true` will do there.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for other names and values.
    pub fn read(options: &Options, is_udp: bool) -> Result<Self, CoreError> {
        let mut reader = OptionReader::new("echo", options);
        let expected = if is_udp {
            "true, because datagrams are told apart by what is in them"
        } else {
            "true or false"
        };
        let read = |text: &str| text.parse().ok().filter(|is_on| *is_on || !is_udp);
        let is_verified = reader.parsed("verify", true, expected, read)?;
        reader.finish().map(|()| Self { is_verified })
    }
}

/// The echo protocol with one size of payload.
#[derive(Clone, Debug)]
pub struct Echo {
    pattern: Vec<u8>,
    /// Requests one after another, but for their ids.
    ready: Vec<u8>,
    id_bytes: usize,
    is_verified: bool,
}

impl Echo {
    /// Echoes of this many bytes, at least 1.
    #[must_use]
    pub fn new(payload_bytes: usize, options: EchoOptions) -> Self {
        let id_bytes = if payload_bytes >= ID_BYTES && options.is_verified {
            ID_BYTES
        } else {
            0
        };
        let pattern = payload_pattern(payload_bytes);
        Self {
            ready: pattern.repeat((READY_BYTES / payload_bytes.max(1)).max(1)),
            pattern,
            id_bytes,
            is_verified: options.is_verified,
        }
    }
}

impl Echo {
    /// The whole, unchanged echoes at the front whose ids lie equally far apart.
    #[inline]
    fn run_with_ids(&self, bytes: &[u8]) -> ReplyRun {
        let mut run = ReplyRun::NONE;
        let expected = &self.pattern[ID_BYTES..];
        for echo in bytes.chunks_exact(self.pattern.len()) {
            let Some((id, rest)) = echo.split_first_chunk::<ID_BYTES>() else {
                break;
            };
            if rest != expected || !run.extend(u64::from_le_bytes(*id)) {
                break;
            }
        }
        run
    }
}

/// An echo that has not come back whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartialEcho {
    received_bytes: usize,
    id: [u8; ID_BYTES],
}

impl Protocol for Echo {
    type State = PartialEcho;
    const FITS_DATAGRAMS: bool = true;

    fn open(&self, _connection: u32) -> PartialEcho {
        PartialEcho::default()
    }

    #[inline]
    fn encode(&mut self, _partial: &mut PartialEcho, request: &Request, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&request.request_id.to_le_bytes()[..self.id_bytes]);
        bytes.extend_from_slice(&self.pattern[self.id_bytes..]);
    }

    #[inline]
    fn encode_run(&mut self, _partial: &mut PartialEcho, run: &RequestRun, out: &mut Vec<u8>) {
        let size = self.pattern.len();
        let start = out.len();
        let mut left = run.count as usize * size;
        while left > 0 {
            let part = left.min(self.ready.len());
            out.extend_from_slice(&self.ready[..part]);
            left -= part;
        }
        if self.id_bytes == ID_BYTES {
            for (bytes, request) in out[start..].chunks_exact_mut(size).zip(run.each()) {
                bytes[..ID_BYTES].copy_from_slice(&request.request_id.to_le_bytes());
            }
        }
    }

    #[inline]
    fn decode_run(&mut self, partial: &mut PartialEcho, bytes: &mut &[u8]) -> ReplyRun {
        if partial.received_bytes > 0 {
            return ReplyRun::NONE;
        }
        let size = self.pattern.len();
        let run = if self.id_bytes == ID_BYTES {
            self.run_with_ids(bytes)
        } else {
            let is_same = |echo: &&[u8]| *echo == self.pattern;
            let count = if self.is_verified {
                bytes.chunks_exact(size).take_while(is_same).count()
            } else {
                bytes.len() / size
            };
            ReplyRun::anonymous(u32::try_from(count).unwrap_or(u32::MAX))
        };
        *bytes = &bytes[run.count as usize * size..];
        run
    }

    // The reply is then made where it stays: one that is copied right after it was written stalls the processor.
    #[allow(clippy::inline_always)] // 15 ns a request; see above
    #[inline(always)]
    fn decode(
        &mut self,
        partial: &mut PartialEcho,
        bytes: &mut &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError> {
        let id_part = take_front(bytes, self.id_bytes.saturating_sub(partial.received_bytes));
        let id_end = partial.received_bytes + id_part.len();
        if !id_part.is_empty() {
            partial.id[partial.received_bytes..id_end].copy_from_slice(id_part);
            partial.received_bytes = id_end;
        }
        let start = partial.received_bytes;
        let part = take_front(bytes, self.pattern.len() - start);
        let expected = &self.pattern[start..start + part.len()];
        if self.is_verified && part != expected {
            let same = part
                .iter()
                .zip(expected)
                .take_while(|(got, want)| got == want)
                .count();
            return Err(DecodeError::Echo {
                offset: start + same,
            });
        }
        partial.received_bytes += part.len();
        if partial.received_bytes < self.pattern.len() {
            return Ok(Decoded::More);
        }
        let done = std::mem::take(partial);
        let request_id = (self.id_bytes > 0).then(|| u64::from_le_bytes(done.id));
        Ok(Decoded::Reply(Reply {
            request_id,
            ..Reply::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;
    use proptest::prelude::*;

    fn request(request_id: u64) -> Request {
        Request {
            request_id,
            demand: Nanos::ZERO,
        }
    }

    proptest! {
        /// However the stream is cut into reads, every echo is found once, in order.
        #[test]
        fn replies_survive_any_cut(payload_bytes in 1..40usize, cut in 1..17usize, count in 1..9u64) {
            let mut echo = Echo::new(payload_bytes, EchoOptions::default());
            let (mut partial, mut stream) = (PartialEcho::default(), Vec::new());
            for id in 0..count {
                echo.encode(&mut partial, &request(id), &mut stream);
            }
            let mut ids = Vec::new();
            for mut piece in stream.chunks(cut) {
                while let Decoded::Reply(reply) =
                    echo.decode(&mut partial, &mut piece, &mut Vec::new()).unwrap()
                {
                    ids.push(reply.request_id);
                }
                prop_assert!(piece.is_empty());
            }
            let told = |id| if payload_bytes >= ID_BYTES { Some(id) } else { None };
            prop_assert_eq!(ids, (0..count).map(told).collect::<Vec<_>>());
        }
    }

    /// What a stream says, one by one or in runs where there are any: ids, and where it is wrong.
    fn read_all(
        echo: &mut Echo,
        stream: &[u8],
        cut: usize,
        has_runs: bool,
    ) -> (Vec<Option<u64>>, Option<DecodeError>) {
        let (mut partial, mut ids) = (PartialEcho::default(), Vec::new());
        for mut piece in stream.chunks(cut) {
            while !piece.is_empty() {
                if has_runs {
                    let run = echo.decode_run(&mut partial, &mut piece);
                    ids.extend((0..u64::from(run.count)).map(|index| {
                        run.first_id
                            .map(|id| id.wrapping_add(index.wrapping_mul(run.step)))
                    }));
                    if run.count > 0 {
                        continue;
                    }
                }
                match echo.decode(&mut partial, &mut piece, &mut Vec::new()) {
                    Ok(Decoded::Reply(reply)) => ids.push(reply.request_id),
                    Ok(_) => {}
                    Err(error) => return (ids, Some(error)),
                }
            }
        }
        (ids, None)
    }

    proptest! {
        /// A run of requests has the very bytes of its requests, one after the other.
        #[test]
        fn a_run_is_written_like_its_requests(
            payload_bytes in 1..40usize,
            is_verified: bool,
            count in 1..3000u32,
            step in 0..9u64,
        ) {
            let mut echo = Echo::new(payload_bytes, EchoOptions { is_verified });
            let run = RequestRun { first: request(7), count, step };
            // What stands before it stays.
            let (mut whole, mut single) = (vec![9; 3], vec![9; 3]);
            echo.encode_run(&mut PartialEcho::default(), &run, &mut whole);
            for request in run.each() {
                echo.encode(&mut PartialEcho::default(), &request, &mut single);
            }
            prop_assert_eq!(whole, single);
        }

        /// In runs or one by one, the same is read from the same bytes, a wrong one included.
        #[test]
        fn runs_are_read_like_single_replies(
            payload_bytes in 1..40usize,
            is_verified: bool,
            ids in proptest::collection::vec(0..6u64, 1..40),
            cut in 1..200usize,
            wrong in proptest::option::of((0..2000usize, 1..=255u8)),
        ) {
            let mut echo = Echo::new(payload_bytes, EchoOptions { is_verified });
            let mut stream = Vec::new();
            for id in ids {
                echo.encode(&mut PartialEcho::default(), &request(id), &mut stream);
            }
            if let Some((place, bits)) = wrong {
                let place = place % stream.len();
                stream[place] ^= bits;
            }
            let singles = read_all(&mut echo, &stream, cut, false);
            prop_assert_eq!(read_all(&mut echo, &stream, cut, true), singles);
        }
    }

    #[test]
    fn a_changed_byte_is_a_protocol_error() {
        let mut echo = Echo::new(16, EchoOptions::default());
        let (mut partial, mut stream) = (PartialEcho::default(), Vec::new());
        echo.encode(&mut partial, &request(1), &mut stream);
        stream[12] ^= 1;
        let decoded = echo.decode(&mut partial, &mut stream.as_slice(), &mut Vec::new());
        assert_eq!(decoded, Err(DecodeError::Echo { offset: 12 }));
    }

    #[test]
    fn without_verification_bytes_are_only_counted() {
        let trusting = EchoOptions { is_verified: false };
        let mut echo = Echo::new(16, trusting);
        let (mut partial, mut stream) = (PartialEcho::default(), Vec::new());
        echo.encode(&mut partial, &request(1), &mut stream);
        assert_eq!(stream.len(), 16);
        stream.fill(7);
        let decoded = echo.decode(&mut partial, &mut stream.as_slice(), &mut Vec::new());
        assert_eq!(decoded, Ok(Decoded::Reply(Reply::default())));
    }
}
