//! Before the load: every key of a store is written once, so that reads find something.
//!
//! One connection to each target, one after another, blocking, with the protocol of the load itself.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::engine::plan::LoadPlan;
use crate::engine::protocols::{Speaker, Speech};
use crate::error::CoreError;
use crate::stop::StopSignal;
use crate::transport::target::{SocketTarget, Target};
use crate::transport::{Decoded, Protocol, Request};
use crate::units::Nanos;

/// Requests that wait for their replies at once.
const BATCH_REQUESTS: u64 = 256;

/// Bytes of requests after which replies are read, so that neither side's buffers fill up.
const BATCH_BYTES: usize = 256 * 1024;

/// Bytes that one read can take.
const READ_BYTES: usize = 64 * 1024;

/// How long one read or write may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Writes the keys, if the options ask for it; returns early when told to stop.
///
/// # Errors
/// [`CoreError::Preload`] that names the target and what it said.
pub(super) fn preload(
    plan: &LoadPlan,
    speech: &Speech,
    stop: &StopSignal,
) -> Result<(), CoreError> {
    // Of agents that share a load the first one does it.
    let Some((speech, count)) = speech.for_preload().filter(|_| plan.agent == 0) else {
        return Ok(());
    };
    let deadline = Instant::now() + TIMEOUT;
    for (number, target) in plan.targets.iter().enumerate() {
        let Target::Socket(target) = target else {
            continue;
        };
        let failed = |reason: String| CoreError::Preload {
            target: plan.targets_text[number].clone(),
            reason,
        };
        let stream = connect(target).map_err(|error| failed(error.to_string()))?;
        let filler = Filler {
            connection: u32::try_from(number).unwrap_or(u32::MAX),
            stream,
            count,
            stop,
            deadline,
        };
        speech.speak(plan, filler)?.map_err(failed)?;
    }
    Ok(())
}

/// A connected stream of any family.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connect(target: &SocketTarget) -> std::io::Result<Box<dyn Stream>> {
    match target {
        SocketTarget::Tcp(address) | SocketTarget::Tls(address) => {
            let stream = TcpStream::connect_timeout(address, STEP_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STEP_TIMEOUT))?;
            stream.set_write_timeout(Some(STEP_TIMEOUT))?;
            Ok(Box::new(stream))
        }
        SocketTarget::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(STEP_TIMEOUT))?;
            stream.set_write_timeout(Some(STEP_TIMEOUT))?;
            Ok(Box::new(stream))
        }
        SocketTarget::Udp(_) => Err(ErrorKind::Unsupported.into()),
    }
}

/// Writes all keys over one connection.
struct Filler<'a> {
    connection: u32,
    stream: Box<dyn Stream>,
    count: u64,
    stop: &'a StopSignal,
    deadline: Instant,
}

impl Speaker for Filler<'_> {
    type Output = Result<(), String>;

    fn speak<P: Protocol>(self, protocol: P) -> Result<Self::Output, CoreError> {
        let state = protocol.open(self.connection);
        let conversation = Conversation {
            protocol,
            state,
            stream: self.stream,
            out: Vec::new(),
            buffer: vec![0; READ_BYTES],
        };
        Ok(conversation.fill(self.count, self.stop, self.deadline))
    }
}

struct Conversation<P: Protocol> {
    protocol: P,
    state: P::State,
    stream: Box<dyn Stream>,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl<P: Protocol> Conversation<P> {
    fn fill(mut self, count: u64, stop: &StopSignal, deadline: Instant) -> Result<(), String> {
        let greeting = self.protocol.greet(&mut self.state, &mut self.out);
        let mut is_ready = greeting.map_err(|error| error.to_string())?;
        let mut next = 0;
        // Asked before each read, because a server may go on talking without ever answering.
        let may_go_on = |written: u64| {
            if Instant::now() >= deadline {
                let limit = TIMEOUT.as_secs();
                return Err(format!(
                    "{written} of {count} keys were written in {limit} s"
                ));
            }
            Ok(!stop.is_raised())
        };
        while !is_ready {
            if !may_go_on(0)? {
                return Ok(());
            }
            self.read(|told| is_ready |= *told == Decoded::Ready)?;
        }
        while next < count {
            let first = next;
            while next < count && next - first < BATCH_REQUESTS && self.out.len() < BATCH_BYTES {
                let request = Request {
                    request_id: next,
                    demand: Nanos::ZERO,
                };
                self.protocol
                    .encode(&mut self.state, &request, &mut self.out);
                next += 1;
            }
            let (mut missing, mut failure) = (next - first, None);
            while missing > 0 {
                if !may_go_on(first)? {
                    return Ok(());
                }
                self.read(|told| {
                    if let Decoded::Reply(reply) = told {
                        missing = missing.saturating_sub(1);
                        failure = failure.take().or_else(|| reply.failure.clone());
                    }
                })?;
            }
            if let Some(text) = failure {
                return Err(format!("one of keys {first} to {}: {text}", next - 1));
            }
        }
        Ok(())
    }

    /// Writes what is outstanding, then reads once.
    fn read(&mut self, mut tell: impl FnMut(&Decoded)) -> Result<(), String> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("nothing moved for {} s", STEP_TIMEOUT.as_secs())
            }
            _ => error.to_string(),
        };
        self.stream.write_all(&self.out).map_err(failed)?;
        self.out.clear();
        let length = match self.stream.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let mut rest = &self.buffer[..length];
        while !rest.is_empty() || self.protocol.holds_back(&self.state) {
            let decoded = self
                .protocol
                .decode(&mut self.state, &mut rest, &mut self.out);
            tell(&decoded.map_err(|error| error.to_string())?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::options::Options;
    use crate::transport::resp::{Resp, RespOptions};

    /// Says things that answer nothing until nobody listens.
    fn chatter(mut server: UnixStream) {
        while server.write_all(b">1\r\n+news\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn fill(stop: &StopSignal, deadline: Instant) -> Result<(), String> {
        let (client, server) = UnixStream::pair().unwrap();
        let talker = std::thread::spawn(move || chatter(server));
        let options = Options::from([("keys".to_owned(), "10".to_owned())]);
        let protocol = Resp::new(RespOptions::read(&options, 1).unwrap());
        let conversation = Conversation {
            state: protocol.open(0),
            protocol,
            stream: Box::new(client),
            out: Vec::new(),
            buffer: vec![0; READ_BYTES],
        };
        let filled = conversation.fill(10, stop, deadline);
        talker.join().unwrap();
        filled
    }

    #[test]
    fn a_server_that_talks_and_never_answers_is_given_up() {
        let stop = StopSignal::new().unwrap();
        let told = fill(&stop, Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(told.starts_with("0 of 10 keys were written"), "{told}");
    }

    #[test]
    fn an_order_to_stop_ends_it_while_replies_are_missing() {
        let stop = StopSignal::new().unwrap();
        let filled = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                stop.raise();
            });
            fill(&stop, Instant::now() + TIMEOUT)
        });
        assert_eq!(filled, Ok(()));
    }
}
