//! Stream sockets (TCP and unix), non-blocking, many on one epoll set.
//!
//! One read takes whatever is there: several replies in one read become several
//! events with the instant of that read. Events are level-triggered, so a
//! connection with more to read is reported again and needs no second, empty read.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};

use super::target::SocketTarget;
use super::{CloseCause, Decoded, Event, Protocol, ReplyOrder, Request, Transport};
use crate::arrival::Share;
use crate::clock::Clock;
use crate::error::CoreError;
use crate::stop::StopSignal;
use crate::sys::{EpollEvent, epoll_wait_ns};
use crate::units::Nanos;

/// Bytes that one read can take: a few thousand rpc replies.
const READ_BYTES: usize = 64 * 1024;

/// Events taken from the kernel at once; more are reported by the next wait.
const EVENTS_MAX: usize = 256;

/// Marks the stop signal among the connections of the epoll set.
const STOP_TOKEN: u64 = u64::MAX;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The kernel is still at it.
    Connecting,
    /// The protocol still has to say that requests may follow.
    Greeting,
    /// Requests and replies.
    #[default]
    Up,
    /// The peer has announced that it will close.
    Closing,
}

/// One connection.
#[derive(Debug)]
struct Link<S> {
    fd: Option<OwnedFd>,
    stage: Stage,
    wants_write: bool,
    /// Bytes that the kernel has not taken yet, from `outgoing_start` on.
    outgoing: Vec<u8>,
    outgoing_start: usize,
    /// What the protocol remembers; there as long as the descriptor is.
    state: Option<S>,
    first_byte_at: Option<Nanos>,
}

impl<S> Default for Link<S> {
    fn default() -> Self {
        Self {
            fd: None,
            stage: Stage::Up,
            wants_write: false,
            outgoing: Vec::new(),
            outgoing_start: 0,
            state: None,
            first_byte_at: None,
        }
    }
}

/// Which connections one thread has, and where each goes.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Where the connections of the run go, in turn; at least one.
    pub targets: Vec<SocketTarget>,
    /// The thread, among those that the connections are dealt to.
    pub thread: Share,
    /// Connections of this thread.
    pub connections: usize,
}

impl Routes {
    /// The number in the run of connection `own` of this thread, and its target.
    fn of(&self, own: usize) -> (u32, &SocketTarget) {
        let number = self.thread.number_of(own);
        (number, &self.targets[number as usize % self.targets.len()])
    }
}

/// The connections of one thread to one server.
pub struct SocketTransport<P: Protocol, C: Clock> {
    routes: Routes,
    protocol: P,
    clock: C,
    epoll: OwnedFd,
    links: Vec<Link<P::State>>,
    buffer: Box<[u8]>,
    ready: Vec<EpollEvent>,
    /// Keeps the descriptor open that the epoll set watches.
    _stop: Arc<StopSignal>,
}

impl<P: Protocol, C: Clock> SocketTransport<P, C> {
    /// Prepares these connections; none is made yet.
    ///
    /// # Errors
    /// [`CoreError::System`] when the kernel gives no epoll set.
    pub fn new(
        routes: Routes,
        protocol: P,
        clock: C,
        stop: Arc<StopSignal>,
    ) -> Result<Self, CoreError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(CoreError::system("epoll_create1"))?;
        epoll::add(
            &epoll,
            stop.as_fd(),
            EventData::new_u64(STOP_TOKEN),
            EventFlags::IN,
        )
        .map_err(CoreError::system("epoll_ctl"))?;
        let links = std::iter::repeat_with(Link::default)
            .take(routes.connections)
            .collect();
        Ok(Self {
            routes,
            protocol,
            clock,
            epoll,
            links,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            ready: vec![EpollEvent { events: 0, u64: 0 }; EVENTS_MAX],
            _stop: stop,
        })
    }

    /// Makes a socket and begins to connect it; whether it is connected already.
    fn open(&mut self, connection: usize) -> Result<bool, Errno> {
        let (number, target) = self.routes.of(connection);
        let family = match target {
            SocketTarget::Tcp(address) | SocketTarget::Tls(address) if address.is_ipv6() => {
                AddressFamily::INET6
            }
            SocketTarget::Tcp(_) | SocketTarget::Tls(_) => AddressFamily::INET,
            SocketTarget::Unix(_) => AddressFamily::UNIX,
            SocketTarget::Udp(_) => return Err(Errno::PROTONOSUPPORT),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, None)?;
        let begun = match target {
            SocketTarget::Tcp(address) | SocketTarget::Tls(address) => {
                // Small requests must not wait for the acknowledgement of others.
                sockopt::set_tcp_nodelay(&fd, true)?;
                connect(&fd, address)
            }
            SocketTarget::Unix(path) => connect(&fd, &SocketAddrUnix::new(path)?),
            SocketTarget::Udp(_) => Err(Errno::PROTONOSUPPORT),
        };
        let is_connected = match begun {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(errno) => return Err(errno),
        };
        let interest = if is_connected {
            EventFlags::IN
        } else {
            EventFlags::OUT
        };
        epoll::add(
            &self.epoll,
            &fd,
            EventData::new_u64(connection as u64),
            interest,
        )?;
        self.links[connection] = Link {
            fd: Some(fd),
            stage: if is_connected {
                Stage::Up
            } else {
                Stage::Connecting
            },
            state: Some(self.protocol.open(number)),
            ..Link::default()
        };
        Ok(is_connected)
    }

    fn set_interest(&self, connection: usize, interest: EventFlags) -> Result<(), Errno> {
        match &self.links[connection].fd {
            Some(fd) => epoll::modify(
                &self.epoll,
                fd,
                EventData::new_u64(connection as u64),
                interest,
            ),
            None => Ok(()),
        }
    }

    fn finish_connect(&mut self, connection: usize) -> Result<(), Errno> {
        if let Some(fd) = &self.links[connection].fd {
            sockopt::socket_error(fd)??;
        }
        self.links[connection].stage = Stage::Up;
        self.set_interest(connection, EventFlags::IN)
    }

    /// Writes what is outstanding, as far as the kernel takes it.
    fn write_out(&mut self, connection: usize) -> Result<(), Errno> {
        let link = &mut self.links[connection];
        let Some(fd) = &link.fd else { return Ok(()) };
        while link.outgoing_start < link.outgoing.len() {
            match send(
                fd,
                &link.outgoing[link.outgoing_start..],
                SendFlags::NOSIGNAL,
            ) {
                Ok(count) => link.outgoing_start += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !link.wants_write {
                        link.wants_write = true;
                        self.set_interest(connection, EventFlags::IN | EventFlags::OUT)?;
                    }
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
        link.outgoing.clear();
        link.outgoing_start = 0;
        if link.wants_write {
            link.wants_write = false;
            self.set_interest(connection, EventFlags::IN)?;
        }
        Ok(())
    }

    /// Reads once and appends the replies that are whole now; why the connection ended, if it did.
    fn read_in(&mut self, connection: usize, events: &mut Vec<Event>) -> Option<CloseCause> {
        let link = &mut self.links[connection];
        let (fd, state) = (link.fd.as_ref()?, link.state.as_mut()?);
        let count = match recv(fd, &mut *self.buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Some(self.end(connection, events)),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => return Some(CloseCause::Reset),
        };
        let read_at = self.clock.now();
        self.protocol.note_read(state, read_at);
        let mut rest = &self.buffer[..count];
        while !rest.is_empty() || self.protocol.holds_back(state) {
            let first_byte_at = *link.first_byte_at.get_or_insert(read_at);
            let decoded = self.protocol.decode(state, &mut rest, &mut link.outgoing);
            match decoded {
                Ok(Decoded::Reply(reply)) => {
                    link.first_byte_at = None;
                    let own = self.protocol.first_byte_at(state);
                    let first_byte_at = own.unwrap_or(first_byte_at);
                    events.push(Event::Reply {
                        connection,
                        reply,
                        first_byte_at,
                        done_at: read_at,
                    });
                }
                Ok(Decoded::Ready) => {
                    link.first_byte_at = None;
                    if link.stage == Stage::Greeting {
                        link.stage = Stage::Up;
                        events.push(Event::Connected { connection });
                    }
                }
                Ok(Decoded::Closing) => link.stage = Stage::Closing,
                Ok(Decoded::More) => {}
                Err(error) => return Some(CloseCause::Protocol(error.to_string().into())),
            }
        }
        if link.stage == Stage::Greeting {
            link.first_byte_at = None; // what was read belongs to no request
        }
        if self.protocol.is_spent(state) {
            return Some(CloseCause::Announced);
        }
        None
    }

    /// The peer has closed: asks the protocol for a reply that ends so, and says why it closed.
    fn end(&mut self, connection: usize, events: &mut Vec<Event>) -> CloseCause {
        let link = &mut self.links[connection];
        let done_at = self.clock.now();
        let reply = link
            .state
            .as_mut()
            .and_then(|state| self.protocol.end(state));
        let is_ended = reply.is_some();
        if let Some(reply) = reply {
            let first_byte_at = link.first_byte_at.take().unwrap_or(done_at);
            events.push(Event::Reply {
                connection,
                reply,
                first_byte_at,
                done_at,
            });
        }
        if is_ended || link.stage == Stage::Closing {
            CloseCause::Announced
        } else {
            CloseCause::Reset
        }
    }

    /// Lets the protocol say what it has to say first; whether requests may follow at once.
    fn greet(&mut self, connection: usize) -> Result<bool, CloseCause> {
        let link = &mut self.links[connection];
        let Some(state) = link.state.as_mut() else {
            return Ok(false);
        };
        let is_ready = self
            .protocol
            .greet(state, &mut link.outgoing)
            .map_err(|error| CloseCause::Protocol(error.to_string().into()))?;
        if !is_ready {
            link.stage = Stage::Greeting;
        }
        self.write_out(connection)
            .map(|()| is_ready)
            .map_err(|_| CloseCause::Reset)
    }

    /// Greets a connection that was just made, and says that it is up once it is.
    fn welcome(&mut self, connection: usize, events: &mut Vec<Event>) {
        match self.greet(connection) {
            Ok(true) => events.push(Event::Connected { connection }),
            Ok(false) => {}
            Err(cause) => self.close(connection, cause, events),
        }
    }

    fn close(&mut self, connection: usize, cause: CloseCause, events: &mut Vec<Event>) {
        let is_fifo = self.protocol.order() == ReplyOrder::Fifo;
        // Where replies interleave, nothing tells whose byte was the first.
        let first_byte_at = self.links[connection].first_byte_at.filter(|_| is_fifo);
        // Dropping the descriptor takes it out of the epoll set.
        self.links[connection] = Link::default();
        events.push(Event::Closed {
            connection,
            cause,
            first_byte_at,
        });
    }

    fn handle(&mut self, connection: usize, events: &mut Vec<Event>) {
        let link = &self.links[connection];
        if link.fd.is_none() {
            return;
        }
        if link.stage == Stage::Connecting {
            match self.finish_connect(connection) {
                Ok(()) => self.welcome(connection, events),
                Err(errno) => {
                    self.close(
                        connection,
                        CloseCause::Refused(errno.raw_os_error()),
                        events,
                    );
                }
            }
            return;
        }
        if let Some(cause) = self.read_in(connection, events) {
            self.close(connection, cause, events);
        } else if !self.links[connection].outgoing.is_empty() && self.write_out(connection).is_err()
        {
            self.close(connection, CloseCause::Reset, events);
        }
    }
}

impl<P: Protocol, C: Clock> Transport for SocketTransport<P, C> {
    fn connect(&mut self, connection: usize, events: &mut Vec<Event>) {
        match self.open(connection) {
            Ok(true) => self.welcome(connection, events),
            Ok(false) => {}
            Err(errno) => {
                self.close(
                    connection,
                    CloseCause::Refused(errno.raw_os_error()),
                    events,
                );
            }
        }
    }

    fn disconnect(&mut self, connection: usize) {
        self.links[connection] = Link::default();
    }

    fn send(&mut self, connection: usize, request: &Request) {
        let link = &mut self.links[connection];
        if let Some(state) = link.state.as_mut() {
            self.protocol.encode(state, request, &mut link.outgoing);
        }
    }

    fn flush(&mut self, connection: usize, events: &mut Vec<Event>) {
        if self.write_out(connection).is_err() {
            self.close(connection, CloseCause::Reset, events);
        }
    }

    fn wait(&mut self, until: Nanos, events: &mut Vec<Event>) -> Result<(), CoreError> {
        let timeout = self.clock.now().until(until);
        let count =
            epoll_wait_ns(self.epoll.as_fd(), &mut self.ready, timeout).map_err(|source| {
                CoreError::System {
                    call: "epoll_pwait2",
                    source,
                }
            })?;
        for index in 0..count {
            let token = self.ready[index].u64;
            if let (Ok(connection), true) = (usize::try_from(token), token != STOP_TOKEN) {
                self.handle(connection, events);
            }
        }
        Ok(())
    }
}
