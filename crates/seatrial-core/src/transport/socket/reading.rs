//! What arrives on a connection: replies, and its end.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::SocketTransport;
use super::link::Stage;
use crate::clock::Clock;
use crate::sys::message::{PacketStamps, receive_stamped};
use crate::transport::runs::ReplyRun;
use crate::transport::{CloseCause, Decoded, Event, Protocol};
use crate::units::Nanos;

/// Reads of a connection that can be written to no more; a peer may go on talking for ever.
const RESTS_MAX: usize = 64;

/// Whether a read may sleep until something comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    No,
    /// As long as the socket's own time-out allows.
    Yes,
}

impl Waiting {
    const fn flags(self) -> RecvFlags {
        match self {
            Self::No => RecvFlags::DONTWAIT,
            Self::Yes => RecvFlags::empty(),
        }
    }
}

/// What one read gave.
#[derive(Clone, Copy)]
struct Taken {
    count: usize,
    at: Nanos,
    received: PacketStamps,
}

impl<P: Protocol, C: Clock> SocketTransport<P, C> {
    /// Does what a report of the kernel asks for.
    #[inline]
    pub(super) fn handle(&mut self, connection: usize, events: &mut Vec<Event>) {
        let link = &self.links[connection];
        if link.fd.is_none() {
            return;
        }
        if link.stage == Stage::Connecting {
            match self.finish_connect(connection) {
                Ok(()) => self.welcome(connection, events),
                Err(errno) => {
                    let cause = CloseCause::Refused(errno.raw_os_error());
                    self.close(connection, cause, events);
                }
            }
            return;
        }
        self.read(connection, Waiting::No, events);
    }

    /// Reads once, appends the replies that are whole now, and writes what the protocol answers.
    #[inline]
    pub(super) fn read(&mut self, connection: usize, waiting: Waiting, events: &mut Vec<Event>) {
        if let Some(cause) = self.read_in(connection, waiting, events) {
            self.close(connection, cause, events);
        } else if !self.links[connection].outgoing.is_empty() && self.write_out(connection).is_err()
        {
            self.read_rest(connection, events);
        }
    }

    /// The peer takes nothing more: gives what it had said before, and ends the connection.
    #[cold]
    pub(super) fn read_rest(&mut self, connection: usize, events: &mut Vec<Event>) {
        self.links[connection].is_cut = true;
        let mut cause = CloseCause::Reset;
        for _ in 0..RESTS_MAX {
            let before = self.traffic.received_bytes;
            if let Some(found) = self.read_in(connection, Waiting::No, events) {
                cause = found;
                break;
            }
            if self.traffic.received_bytes == before {
                break;
            }
        }
        self.close(connection, cause, events);
    }

    /// Reads once; why the connection ended, if it did.
    #[inline]
    fn read_in(
        &mut self,
        connection: usize,
        waiting: Waiting,
        events: &mut Vec<Event>,
    ) -> Option<CloseCause> {
        let link = &self.links[connection];
        let fd = link.fd.as_ref()?;
        let taken = match link.stamps {
            None => recv(fd, &mut *self.buffer, waiting.flags())
                .map(|(count, _)| (count, PacketStamps::default())),
            Some(_) => receive_stamped(fd.as_fd(), &mut self.buffer, waiting == Waiting::Yes)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        let (count, received) = match taken {
            Ok((0, _)) => return Some(self.end(connection, events)),
            Ok(taken) => taken,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => return Some(CloseCause::Reset),
        };
        self.traffic.received_bytes += count as u64;
        let taken = Taken {
            count,
            at: self.clock.now(),
            received,
        };
        self.decode(connection, taken, events)
    }

    /// Turns what was read into events.
    #[inline]
    fn decode(
        &mut self,
        connection: usize,
        taken: Taken,
        events: &mut Vec<Event>,
    ) -> Option<CloseCause> {
        let read_at = taken.at;
        let link = &mut self.links[connection];
        let state = link.state.as_mut()?;
        self.protocol.note_read(state, read_at);
        let mut rest = &self.buffer[..taken.count];
        while !rest.is_empty() || self.protocol.holds_back(state) {
            // What began with an earlier read, or may have stamps of its own, is told one by one.
            if link.first_byte_at.is_none() && link.stamps.is_none() {
                let run = self.protocol.decode_run(state, &mut rest);
                if run.count > 0 {
                    events.push(run_event(connection, run, read_at));
                    continue;
                }
            }
            let first_byte_at = *link.first_byte_at.get_or_insert(read_at);
            let decoded = self.protocol.decode(state, &mut rest, &mut link.outgoing);
            match decoded {
                Ok(Decoded::Reply(reply)) => {
                    link.first_byte_at = None;
                    let own = self.protocol.first_byte_at(state);
                    let kernel = match (&mut self.stamper, &mut link.stamps, &link.fd) {
                        (Some(stamper), Some(stamps), Some(fd)) => stamper.stamps_of(
                            stamps,
                            fd,
                            (reply.request_id, taken.received, read_at),
                        ),
                        _ => None,
                    };
                    events.push(Event::Reply {
                        connection,
                        reply,
                        first_byte_at: own.unwrap_or(first_byte_at),
                        done_at: read_at,
                        kernel,
                    });
                }
                Ok(Decoded::Ready) => {
                    link.first_byte_at = None;
                    if link.stage == Stage::Greeting {
                        link.stage = Stage::Up;
                        events.push(Event::Connected { connection });
                    }
                }
                Ok(Decoded::Closing) => {
                    link.stage = Stage::Closing;
                    let mut unserved = Vec::new();
                    self.protocol.take_unserved(state, &mut unserved);
                    events.push(Event::Draining {
                        connection,
                        unserved,
                    });
                }
                Ok(Decoded::More) => {}
                Err(error) => return Some(CloseCause::Protocol(error.to_string().into())),
            }
        }
        if link.stage == Stage::Greeting {
            link.first_byte_at = None; // what was read belongs to no request
        }
        if self.protocol.is_spent(state) {
            return self.spent(connection);
        }
        None
    }

    /// How a connection ends that can carry nothing more and owes nothing; `None` if it is not one.
    #[cold]
    pub(super) fn spent(&self, connection: usize) -> Option<CloseCause> {
        let state = self.links[connection].state.as_ref()?;
        let is_spent = self.protocol.is_spent(state);
        is_spent.then(|| {
            if self.protocol.has_served_all(state) {
                CloseCause::Spent
            } else {
                CloseCause::Announced
            }
        })
    }

    /// The peer has closed: asks the protocol for a reply that ends so, and says why it closed.
    fn end(&mut self, connection: usize, events: &mut Vec<Event>) -> CloseCause {
        let link = &mut self.links[connection];
        let done_at = self.clock.now();
        let reply = link
            .state
            .as_mut()
            // A connection that was cut does not end a reply.
            .filter(|_| !link.is_cut)
            .and_then(|state| self.protocol.end(state));
        let is_ended = reply.is_some();
        if let Some(reply) = reply {
            let first_byte_at = link.first_byte_at.take().unwrap_or(done_at);
            events.push(Event::Reply {
                connection,
                reply,
                first_byte_at,
                done_at,
                // It was read before, and only its end came now.
                kernel: None,
            });
        }
        if is_ended {
            // A reply that ends with its connection is the last one that the peer gives on it.
            CloseCause::Spent
        } else if link.stage == Stage::Closing {
            CloseCause::Announced
        } else {
            CloseCause::Reset
        }
    }
}

/// Tells of replies that were read whole at this instant.
#[inline]
const fn run_event(connection: usize, run: ReplyRun, done_at: Nanos) -> Event {
    Event::Replies {
        connection,
        run,
        done_at,
    }
}
