//! HTTP/1.1 from the client's side: requests made once, replies read as they come.
//!
//! A request ends with the last byte of its reply: of the head when there is no body, of a
//! body of known length, of the last trailer of a chunked one, or with the connection.
//! Interim replies (1xx) are skipped; redirects are not followed.

mod body;
mod head;
mod options;
#[cfg(test)]
mod tests;

use self::body::{Body, Seen};
use self::head::{Head, HeadReader};
pub use self::options::HttpOptions;
use self::options::{BodyCheck, Mark, Rendered};
use super::template::append_number;
use super::{DecodeError, Decoded, Protocol, Reply, Request};

/// The protocol with one kind of request.
#[derive(Clone, Debug)]
pub struct Http {
    options: HttpOptions,
    /// The request for each target.
    requests: Vec<Rendered>,
    has_body: bool,
    /// Length and sum of the first body, when all have to be the same.
    first_body: Option<(u64, u32)>,
}

impl Http {
    /// The protocol for servers at these addresses, as a `Host` field names them; connection `i` goes to
    /// address `i mod addresses`. There is at least one.
    #[must_use]
    pub fn new(options: HttpOptions, addresses: &[String]) -> Self {
        Self {
            requests: addresses
                .iter()
                .map(|address| options.render(address))
                .collect(),
            has_body: options.has_body(),
            options,
            first_body: None,
        }
    }

    /// Judges a whole reply.
    #[inline]
    fn reply(&mut self, head: &Head, seen: Seen) -> Reply {
        let failure = if self.options.expected.contains(head.status) {
            self.body_failure(seen)
        } else {
            Some(status_failure(head.status))
        };
        Reply {
            failure,
            service: head.service,
            ..Reply::default()
        }
    }

    #[inline]
    fn body_failure(&mut self, seen: Seen) -> Option<Box<str>> {
        let length = seen.length;
        let sum = |seen: Seen| seen.hasher.map_or(0, crc32fast::Hasher::finalize);
        match self.options.body_check {
            BodyCheck::None => None,
            BodyCheck::Length(expected) => (length != expected)
                .then(|| format!("body of {length} bytes, expected {expected}").into()),
            BodyCheck::Crc32(expected) => {
                let sum = sum(seen);
                (sum != expected).then(|| {
                    format!("body of {length} bytes with CRC-32 {sum:08x}, expected {expected:08x}")
                        .into()
                })
            }
            BodyCheck::Same => {
                let found = (length, sum(seen));
                let first = *self.first_body.get_or_insert(found);
                (found != first).then(|| {
                    let ((length, sum), (first_length, first_sum)) = (found, first);
                    format!(
                        "body of {length} bytes with CRC-32 {sum:08x}, the first one had {first_length} and {first_sum:08x}"
                    )
                    .into()
                })
            }
        }
    }
}

#[cold]
fn status_failure(status: u16) -> Box<str> {
    let hint = if matches!(status, 301 | 302 | 303 | 307 | 308) {
        ", and redirects are not followed"
    } else {
        ""
    };
    format!("HTTP {status}{hint}").into()
}

/// What is being read.
#[derive(Debug, Default)]
enum Reading {
    #[default]
    Head,
    Body(Head, Body, Seen),
    /// The connection carries no further reply.
    Over,
}

/// What one connection remembers.
#[derive(Debug)]
pub struct HttpState {
    target: usize,
    heads: HeadReader,
    reading: Reading,
}

impl Protocol for Http {
    type State = HttpState;

    fn open(&self, connection: u32) -> HttpState {
        HttpState {
            target: connection as usize % self.requests.len(),
            heads: HeadReader::default(),
            reading: Reading::Head,
        }
    }

    fn encode(&mut self, state: &mut HttpState, request: &Request, out: &mut Vec<u8>) {
        let fill = |mark, out: &mut Vec<u8>| match mark {
            Mark::Demand => append_number(request.demand.get(), out),
            Mark::Id => append_number(request.request_id, out),
        };
        let Rendered { head, body } = &self.requests[state.target];
        head.append(out, fill);
        if let Some(body) = body {
            let mut text = Vec::new();
            body.append(&mut text, fill);
            append_number(text.len() as u64, out);
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(&text);
        }
    }

    #[inline]
    fn decode(
        &mut self,
        state: &mut HttpState,
        bytes: &mut &[u8],
        _out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError> {
        loop {
            match &mut state.reading {
                Reading::Head => match state.heads.take(bytes, self.has_body)? {
                    None => return Ok(Decoded::More),
                    Some(head) if head.is_interim() => {}
                    Some(head) => {
                        let body = Body::new(head.framing);
                        state.reading = Reading::Body(head, body, self.options.body_check.seen());
                    }
                },
                Reading::Body(head, body, seen) => {
                    if !body.take(bytes, seen)? {
                        return Ok(Decoded::More);
                    }
                    let (head, seen) = (*head, std::mem::take(seen));
                    state.reading = if head.is_last {
                        Reading::Over
                    } else {
                        Reading::Head
                    };
                    return Ok(Decoded::Reply(self.reply(&head, seen)));
                }
                Reading::Over => {
                    *bytes = &[];
                    return Ok(Decoded::More);
                }
            }
        }
    }

    fn is_spent(&self, state: &HttpState) -> bool {
        matches!(state.reading, Reading::Over)
    }

    fn end(&mut self, state: &mut HttpState) -> Option<Reply> {
        match std::mem::replace(&mut state.reading, Reading::Over) {
            Reading::Body(head, Body::UntilClose, seen) => Some(self.reply(&head, seen)),
            _ => None,
        }
    }
}
