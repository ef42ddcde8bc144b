//! An HTTP/1.1 server made for load: the path says what to do.
//!
//! Connections stay open and requests may be pipelined. Whatever is not HTTP gets
//! a reply that says what was wrong, and the end of the connection. A head has to
//! come within [`HEAD_NS_MAX`] of its first byte, a body within [`BODY_NS_MAX`] of
//! its head; between requests a connection may rest for as long as it likes.

mod body;
mod head;
mod path;
mod reply;

use super::service::{Next, OUTPUT_BYTES_SOFT, Refusal, Service, Step, Tools};
use body::BodyError;
use head::Head;
use path::Action;

pub use path::OPERATIONS;

/// From the first byte of a head to its last.
const HEAD_NS_MAX: u64 = 10_000_000_000;

/// From the last byte of a head to the last one of its body.
const BODY_NS_MAX: u64 = 30_000_000_000;

/// What is expected next on a connection.
#[derive(Debug)]
enum Stage {
    /// A head.
    Head {
        /// How much of it was looked at in vain.
        seen_bytes: usize,
        /// How much there has to be before it is worth another look without an empty line.
        retry_bytes: usize,
    },
    /// The rest of a body.
    Body(Head),
    /// Nothing; the request is whole and will be answered.
    Answer(Head),
}

const NEW: Stage = Stage::Head {
    seen_bytes: 0,
    retry_bytes: 0,
};

/// One connection's side of HTTP/1.1.
#[derive(Debug)]
pub struct Http {
    stage: Stage,
    /// By when the request that has begun has to be whole.
    until_ns: Option<u64>,
    /// The body of a request that gets it back.
    content: Vec<u8>,
}

impl Http {
    /// A connection on which nothing was said yet.
    pub const fn new() -> Self {
        Self {
            stage: NEW,
            until_ns: None,
            content: Vec::new(),
        }
    }

    /// Looks for a head at the front of `input`. Gives the bytes used, or what to do instead.
    fn read_head(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        tools: &mut Tools,
    ) -> Result<usize, Next> {
        let Stage::Head {
            seen_bytes,
            retry_bytes,
        } = &mut self.stage
        else {
            return Ok(0);
        };
        if input.is_empty() {
            return Err(self.more());
        }
        let fresh = &input[seen_bytes.saturating_sub(3).min(input.len())..];
        let is_worth_it = input.len() >= *retry_bytes
            || fresh.windows(2).any(|two| two == b"\n\r" || two == b"\n\n");
        *seen_bytes = input.len();
        if !is_worth_it {
            return Err(self.more());
        }
        match head::parse(input) {
            Ok(Some((head, used_bytes))) => {
                if head.expects_continue && !head.body.is_whole() {
                    output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.content.clear();
                self.until_ns = Some(tools.read_ns().saturating_add(BODY_NS_MAX));
                self.stage = Stage::Body(head);
                Ok(used_bytes)
            }
            Ok(None) => {
                // Looked at again when it has doubled, so that a head that comes
                // byte by byte costs no more than a few looks.
                *retry_bytes = input.len() * 2;
                let until_ns = tools.read_ns().saturating_add(HEAD_NS_MAX);
                self.until_ns.get_or_insert(until_ns);
                Err(self.more())
            }
            Err(refused) => {
                tools.stats.bad_request(true);
                reply::refuse(refused.status, refused.text, output);
                Err(Next::Close)
            }
        }
    }

    /// Reads the body as far as it has come. Gives the bytes used, or what to do instead.
    fn read_body(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        tools: &Tools,
    ) -> Result<usize, Next> {
        let Stage::Body(head) = &mut self.stage else {
            return Ok(0);
        };
        let is_echo = head.action == Ok(Action::Echo);
        let sink = is_echo.then_some(&mut self.content);
        match head.body.take(input, sink) {
            Ok(used_bytes) => {
                if head.body.is_whole() {
                    let head = head.clone();
                    self.stage = Stage::Answer(head);
                    self.until_ns = None;
                }
                Ok(used_bytes)
            }
            Err(error) => {
                let (status, text) = match error {
                    BodyError::TooLarge => (413, "the body is longer than 1 MiB\n"),
                    BodyError::Malformed => (400, "the chunks of the body are malformed\n"),
                };
                tools.stats.bad_request(true);
                reply::refuse(status, text, output);
                Err(Next::Close)
            }
        }
    }

    /// Answers the request that is whole; says what to do then, if not to go on.
    fn answer(&mut self, output: &mut Vec<u8>, tools: &mut Tools) -> Result<(), Next> {
        let Stage::Answer(head) = &self.stage else {
            return Err(self.more());
        };
        let takes_time = matches!(head.action, Ok(Action::Work(_)));
        if output.len() > OUTPUT_BYTES_SOFT || (takes_time && !output.is_empty()) {
            return Err(Next::Flush); // replies before this one do not wait for it
        }
        let mut form = head.form;
        form.closes |= head.action == Ok(Action::Close);
        match &head.action {
            Ok(action) => {
                if let Action::Work(work) = action {
                    tools.perform(*work);
                }
                let patch = reply::write(*action, form, &self.content, output);
                let times = tools.finish(action.number());
                reply::patch(output, patch, times.service_ns);
            }
            Err(unknown) => {
                if unknown.status == 400 {
                    tools.stats.bad_request(true); // a path of ours with a value that it cannot have
                } else {
                    tools.stats.unknown_request();
                }
                reply::unknown(unknown, form, output);
            }
        }
        self.stage = NEW;
        self.content = Vec::new();
        match (form.closes, takes_time) {
            (true, _) => Err(Next::Close),
            (false, true) => Err(Next::Flush),
            (false, false) => Ok(()),
        }
    }

    /// More bytes have to come.
    const fn more(&self) -> Next {
        Next::Read {
            whole_bytes: 0,
            until_ns: self.until_ns,
        }
    }
}

impl Service for Http {
    fn serve(&mut self, input: &[u8], output: &mut Vec<u8>, tools: &mut Tools) -> Step {
        let mut used_bytes = 0;
        loop {
            let stepped = self
                .read_head(&input[used_bytes..], output, tools)
                .and_then(|used| {
                    used_bytes += used;
                    self.read_body(&input[used_bytes..], output, tools)
                })
                .and_then(|used| {
                    used_bytes += used;
                    self.answer(output, tools)
                });
            if let Err(next) = stepped {
                return Step { used_bytes, next };
            }
        }
    }

    fn refuse(&mut self, _input: &[u8], why: Refusal, output: &mut Vec<u8>) {
        match why {
            Refusal::Memory => reply::refuse(503, "too much is under way here\n", output),
            Refusal::Late => reply::refuse(
                408,
                "the rest of the request did not come in time\n",
                output,
            ),
        }
    }

    fn held_bytes(&self) -> usize {
        self.content.capacity()
    }
}

#[cfg(test)]
mod tests;
