//! UDP: one connected socket a connection, one request and one reply a datagram.
//!
//! A datagram may be lost, come twice or overtake another one, so replies are told apart by the
//! id that they carry. What is lost is not sent again: it shows as a time-out of the
//! request. A reply that came before is counted and dropped, for it answers nothing; one that
//! comes after a later one is counted as reordered and taken.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, getsockname, socket_with, sockopt,
};

use super::ready::{ReadySet, Token};
use super::routes::Routes;
use super::stamps::{KernelStamps, LinkStamps, Stamper, Stamping};
use super::target::SocketTarget;
use super::{
    CloseCause, Decoded, Event, Protocol, Reply, ReplyOrder, Request, Traffic, Transport,
    TransportReport,
};
use crate::clock::Clock;
use crate::error::CoreError;
use crate::stop::StopSignal;
use crate::sys::message::{BATCH_MAX, DatagramBatch, send_datagrams};
use crate::units::Nanos;

/// Ids of replies that a connection remembers, to know a second copy when it comes.
const REMEMBERED_MAX: usize = 64;

/// Room for replies that come at once on one connection: what a thousand small ones take.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// One connected socket.
#[derive(Debug, Default)]
struct Link {
    fd: Option<OwnedFd>,
    generation: u32,
    wants_write: bool,
    /// Datagrams that the kernel has not taken yet, one after another.
    outgoing: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    seen: Seen,
    /// The kernel's stamps, if they were asked for and there are any.
    stamps: Option<Box<LinkStamps>>,
}

impl Link {
    fn reset(&mut self) {
        *self = Self {
            generation: self.generation.wrapping_add(1),
            ..Self::default()
        };
    }

    /// Drops the first `count` datagrams, which the kernel has taken.
    fn drop_sent(&mut self, count: usize) {
        if count == self.ends.len() {
            self.outgoing.clear();
            self.ends.clear();
        } else if let Some(taken) = count.checked_sub(1).map(|last| self.ends[last]) {
            let _ = self.outgoing.drain(..taken);
            let _ = self.ends.drain(..count);
            for end in &mut self.ends {
                *end -= taken;
            }
        }
    }
}

/// The replies that came lately; ids of one connection grow in the order of sending.
#[derive(Debug, Default)]
struct Seen {
    /// The largest id so far.
    highest: Option<u64>,
    /// The last ids, the oldest at `oldest` once it is full.
    recent: Vec<u64>,
    oldest: usize,
}

/// How a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    InOrder,
    Overtaken,
    Again,
}

impl Seen {
    fn note(&mut self, id: u64) -> Coming {
        let coming = match self.highest {
            Some(highest) if id <= highest => {
                if self.recent.contains(&id) {
                    return Coming::Again;
                }
                Coming::Overtaken
            }
            _ => {
                self.highest = Some(id);
                Coming::InOrder
            }
        };
        if self.recent.len() < REMEMBERED_MAX {
            self.recent.push(id);
        } else {
            self.recent[self.oldest] = id;
            self.oldest = (self.oldest + 1) % REMEMBERED_MAX;
        }
        coming
    }
}

/// The datagram sockets of one thread.
pub struct DatagramTransport<P: Protocol, C: Clock> {
    routes: Routes,
    protocol: P,
    clock: C,
    ready: ReadySet,
    links: Vec<Link>,
    batch: DatagramBatch,
    stamper: Option<Stamper>,
    report: TransportReport,
    traffic: Traffic,
}

impl<P: Protocol, C: Clock> DatagramTransport<P, C> {
    /// Prepares these sockets; none is made yet.
    ///
    /// # Errors
    /// [`CoreError::System`] when the kernel gives no epoll set.
    pub fn new(
        routes: Routes,
        stamping: Stamping,
        protocol: P,
        clock: C,
        stop: Arc<StopSignal>,
    ) -> Result<Self, CoreError> {
        let links = std::iter::repeat_with(Link::default)
            .take(routes.connections)
            .collect();
        Ok(Self {
            routes,
            protocol,
            clock,
            ready: ReadySet::new(stop)?,
            links,
            batch: DatagramBatch::default(),
            stamper: Stamper::new(stamping),
            report: TransportReport::default(),
            traffic: Traffic::default(),
        })
    }

    fn token(&self, connection: usize) -> Token {
        Token {
            // There are at most `CONNECTIONS_MAX` of them.
            connection: u32::try_from(connection).unwrap_or(u32::MAX),
            generation: self.links[connection].generation,
        }
    }

    fn open(&mut self, connection: usize) -> Result<(), Errno> {
        let (_, target) = self.routes.of(connection);
        let SocketTarget::Udp(address) = target else {
            return Err(Errno::PROTONOSUPPORT);
        };
        let family = if address.is_ipv6() {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::DGRAM, flags, None)?;
        // What does not fit is lost, and would be taken for a loss on the way. The kernel clips
        // this to its own bound.
        sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES)?;
        connect(&fd, address)?;
        self.links[connection].reset();
        self.ready
            .add(&fd, self.token(connection), EventFlags::IN)?;
        let link = &mut self.links[connection];
        if let Some(stamper) = &mut self.stamper {
            let local = SocketAddr::try_from(getsockname(&fd)?).ok();
            link.stamps = stamper.enable(fd.as_fd(), local.map(|address| address.ip()));
        }
        link.fd = Some(fd);
        Ok(())
    }

    fn set_interest(&self, connection: usize, interest: EventFlags) -> Result<(), Errno> {
        match &self.links[connection].fd {
            Some(fd) => self.ready.modify(fd, self.token(connection), interest),
            None => Ok(()),
        }
    }

    /// Sends what is outstanding, as far as the kernel takes it.
    fn write_out(&mut self, connection: usize) -> Result<(), Errno> {
        let link = &mut self.links[connection];
        let Some(fd) = &link.fd else { return Ok(()) };
        let mut wants_write = false;
        let (mut done, mut start) = (0, 0);
        while done < link.ends.len() {
            let next = link.ends.len().min(done + BATCH_MAX);
            let mut ends = [0; BATCH_MAX];
            for (relative, end) in ends.iter_mut().zip(&link.ends[done..next]) {
                *relative = end - start;
            }
            let ends = &ends[..next - done];
            let due = link.stamps.as_ref().filter(|stamps| stamps.is_due());
            let asked = due.and(self.stamper.as_ref()).map_or(0, Stamper::asked);
            match send_datagrams(fd.as_fd(), &link.outgoing[start..], ends, asked) {
                Ok(count) => {
                    if let Some(stamps) = &mut link.stamps {
                        stamps.note_datagrams(count, asked != 0);
                        if asked != 0 {
                            // Loopback and veth have stamped them by now.
                            stamps.collect(fd.as_fd());
                        }
                    }
                    done += count;
                    start = link.ends[done - 1];
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    // A full queue of the device says "no buffers"; both mean "later".
                    Some(Errno::AGAIN | Errno::NOBUFS) => {
                        wants_write = true;
                        break;
                    }
                    errno => return Err(errno.unwrap_or(Errno::IO)),
                },
            }
        }
        self.traffic.sent_bytes += start as u64;
        link.drop_sent(done);
        if link.wants_write != wants_write {
            link.wants_write = wants_write;
            let more = if wants_write {
                EventFlags::OUT
            } else {
                EventFlags::empty()
            };
            self.set_interest(connection, EventFlags::IN | more)?;
        }
        Ok(())
    }

    /// Takes the datagrams that are there, up to one batch.
    fn read_in(&mut self, connection: usize, events: &mut Vec<Event>) -> Option<CloseCause> {
        let link = &self.links[connection];
        let fd = link.fd.as_ref()?;
        let count = match self.batch.receive(fd.as_fd(), BATCH_MAX) {
            Ok(count) => count,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN | Errno::INTR) => None,
                    // The peer's host answers that nobody listens there (ICMP).
                    errno => Some(CloseCause::Refused(
                        errno.unwrap_or(Errno::IO).raw_os_error(),
                    )),
                };
            }
        };
        let read_at = self.clock.now();
        for index in 0..count {
            match self.decode(connection, index) {
                Ok(Some(reply)) => {
                    let kernel = self.stamps_of(connection, index, reply.request_id, read_at);
                    events.push(Event::Reply {
                        connection,
                        reply,
                        first_byte_at: read_at,
                        done_at: read_at,
                        kernel,
                    });
                }
                Ok(None) => {}
                Err(text) => return Some(CloseCause::Protocol(text)),
            }
        }
        None
    }

    fn stamps_of(
        &mut self,
        connection: usize,
        index: usize,
        request_id: Option<u64>,
        read_at: Nanos,
    ) -> Option<Box<KernelStamps>> {
        let link = &mut self.links[connection];
        match (&mut self.stamper, &mut link.stamps, &link.fd) {
            (Some(stamper), Some(stamps), Some(fd)) => {
                let (_, received) = self.batch.datagram(index);
                stamper.stamps_of(stamps, fd, (request_id, received, read_at))
            }
            _ => None,
        }
    }

    /// The reply in a datagram, unless it is a copy of one that came before.
    fn decode(&mut self, connection: usize, index: usize) -> Result<Option<Reply>, Box<str>> {
        let (number, _) = self.routes.of(connection);
        let mut state = self.protocol.open(number);
        let (mut rest, _) = self.batch.datagram(index);
        let length = rest.len();
        self.traffic.received_bytes += length as u64;
        let decoded = self
            .protocol
            .decode(&mut state, &mut rest, &mut Vec::new())
            .map_err(|error| error.to_string())?;
        let Decoded::Reply(reply) = decoded else {
            return Err(format!("a datagram of {length} bytes is no whole reply").into());
        };
        if !rest.is_empty() {
            return Err(format!("{} bytes after the reply in its datagram", rest.len()).into());
        }
        let Some(id) = reply.request_id else {
            return Err("a reply without an id".into());
        };
        match self.links[connection].seen.note(id) {
            Coming::InOrder => {}
            Coming::Overtaken => self.report.reordered_count += 1,
            Coming::Again => {
                self.report.duplicate_count += 1;
                return Ok(None);
            }
        }
        Ok(Some(reply))
    }

    fn close(&mut self, connection: usize, cause: CloseCause, events: &mut Vec<Event>) {
        self.links[connection].reset();
        events.push(Event::Closed {
            connection,
            cause,
            first_byte_at: None,
        });
    }

    fn handle(&mut self, connection: usize, events: &mut Vec<Event>) {
        if let Some(cause) = self.read_in(connection, events) {
            self.close(connection, cause, events);
        } else if self.links[connection].wants_write {
            self.flush(connection, events);
        }
    }
}

impl<P: Protocol, C: Clock> Transport for DatagramTransport<P, C> {
    fn order(&self) -> ReplyOrder {
        ReplyOrder::ById
    }

    /// There is no handshake: whether anybody listens shows with the first request.
    fn connect(&mut self, connection: usize, events: &mut Vec<Event>) {
        match self.open(connection) {
            Ok(()) => events.push(Event::Connected { connection }),
            Err(errno) => {
                let cause = CloseCause::Refused(errno.raw_os_error());
                self.close(connection, cause, events);
            }
        }
    }

    fn disconnect(&mut self, connection: usize) {
        self.links[connection].reset();
    }

    fn send(&mut self, connection: usize, request: &Request) {
        let (number, _) = self.routes.of(connection);
        let link = &mut self.links[connection];
        if link.fd.is_some() {
            let mut state = self.protocol.open(number);
            self.protocol
                .encode(&mut state, request, &mut link.outgoing);
            link.ends.push(link.outgoing.len());
            if let (Some(stamper), Some(stamps)) = (&mut self.stamper, &mut link.stamps) {
                let is_sampled = stamper.is_next_sampled();
                stamps.note_request(request.request_id, link.ends.len(), is_sampled);
            }
        }
    }

    fn flush(&mut self, connection: usize, events: &mut Vec<Event>) {
        if let Err(errno) = self.write_out(connection) {
            // What the kernel has against it was said about an earlier datagram (ICMP).
            let cause = CloseCause::Refused(errno.raw_os_error());
            self.close(connection, cause, events);
        }
    }

    fn wait(&mut self, until: Nanos, events: &mut Vec<Event>) -> Result<(), CoreError> {
        if self.ready.is_empty() {
            let timeout = self.clock.now().until(until);
            self.ready.wait(timeout)?;
        }
        while let Some(report) = self.ready.take() {
            let connection = report.token.connection as usize;
            if self.links[connection].generation == report.token.generation {
                let link = &mut self.links[connection];
                if let (Some(fd), Some(stamps), true) =
                    (&link.fd, &mut link.stamps, report.has_error)
                {
                    stamps.collect(fd.as_fd());
                }
                self.handle(connection, events);
                if !events.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn report(&self) -> TransportReport {
        TransportReport {
            stamps: self.stamper.as_ref().map(|stamper| stamper.report.clone()),
            ..self.report.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Coming::{Again, InOrder, Overtaken};
    use super::*;

    #[test]
    fn copies_and_overtaken_replies_are_told_apart() {
        let mut seen = Seen::default();
        let comings = [3, 5, 4, 5, 3, 9].map(|id| seen.note(id));
        assert_eq!(
            comings,
            [InOrder, InOrder, Overtaken, Again, Again, InOrder]
        );
    }

    #[test]
    fn a_connection_remembers_a_bounded_number_of_replies() {
        let mut seen = Seen::default();
        for id in 0..1_000 {
            assert_eq!(seen.note(id), InOrder);
        }
        assert_eq!(seen.recent.len(), REMEMBERED_MAX);
        assert_eq!(seen.note(999), Again);
        assert_eq!(seen.note(1_000 - 64), Again);
        assert_eq!(seen.note(0), Overtaken, "too old to be known");
    }

    #[test]
    fn datagrams_that_were_sent_leave_the_queue() {
        let mut link = Link {
            outgoing: b"abbccc".to_vec(),
            ends: vec![1, 3, 6],
            ..Link::default()
        };
        link.drop_sent(2);
        assert_eq!(
            (link.outgoing.as_slice(), &link.ends),
            (b"ccc".as_slice(), &vec![3])
        );
        link.drop_sent(0);
        assert_eq!(link.ends, [3]);
        link.drop_sent(1);
        assert!(link.outgoing.is_empty() && link.ends.is_empty());
    }
}
