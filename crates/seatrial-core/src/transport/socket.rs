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
use super::{CloseCause, Event, Protocol, Request, Transport};
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

/// One connection.
#[derive(Debug)]
struct Link<S> {
    fd: Option<OwnedFd>,
    is_connecting: bool,
    wants_write: bool,
    /// Bytes that the kernel has not taken yet, from `outgoing_start` on.
    outgoing: Vec<u8>,
    outgoing_start: usize,
    partial: S,
    first_byte_at: Option<Nanos>,
}

impl<S: Default> Default for Link<S> {
    fn default() -> Self {
        Self {
            fd: None,
            is_connecting: false,
            wants_write: false,
            outgoing: Vec::new(),
            outgoing_start: 0,
            partial: S::default(),
            first_byte_at: None,
        }
    }
}

/// The connections of one thread to one server.
pub struct SocketTransport<P: Protocol, C: Clock> {
    target: SocketTarget,
    protocol: P,
    clock: C,
    epoll: OwnedFd,
    links: Vec<Link<P::Partial>>,
    buffer: Box<[u8]>,
    ready: Vec<EpollEvent>,
    /// Keeps the descriptor open that the epoll set watches.
    _stop: Arc<StopSignal>,
}

impl<P: Protocol, C: Clock> SocketTransport<P, C> {
    /// Prepares this many connections; none is made yet.
    ///
    /// # Errors
    /// [`CoreError::System`] when the kernel gives no epoll set.
    pub fn new(
        target: SocketTarget,
        protocol: P,
        clock: C,
        connections: usize,
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
        Ok(Self {
            target,
            protocol,
            clock,
            epoll,
            links: std::iter::repeat_with(Link::default)
                .take(connections)
                .collect(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            ready: vec![EpollEvent { events: 0, u64: 0 }; EVENTS_MAX],
            _stop: stop,
        })
    }

    /// Makes a socket and begins to connect it; whether it is connected already.
    fn open(&mut self, connection: usize) -> Result<bool, Errno> {
        let family = match &self.target {
            SocketTarget::Tcp(address) if address.is_ipv6() => AddressFamily::INET6,
            SocketTarget::Tcp(_) => AddressFamily::INET,
            SocketTarget::Unix(_) => AddressFamily::UNIX,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, None)?;
        let begun = match &self.target {
            SocketTarget::Tcp(address) => {
                // Small requests must not wait for the acknowledgement of others.
                sockopt::set_tcp_nodelay(&fd, true)?;
                connect(&fd, address)
            }
            SocketTarget::Unix(path) => connect(&fd, &SocketAddrUnix::new(path)?),
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
            is_connecting: !is_connected,
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
        self.links[connection].is_connecting = false;
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
        let fd = link.fd.as_ref()?;
        let count = match recv(fd, &mut *self.buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Some(CloseCause::Reset),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => return Some(CloseCause::Reset),
        };
        let read_at = self.clock.now();
        let mut rest = &self.buffer[..count];
        while !rest.is_empty() {
            let first_byte_at = *link.first_byte_at.get_or_insert(read_at);
            match self.protocol.decode(&mut link.partial, &mut rest) {
                Ok(Some(reply)) => {
                    link.first_byte_at = None;
                    events.push(Event::Reply {
                        connection,
                        reply,
                        first_byte_at,
                        done_at: read_at,
                    });
                }
                Ok(None) => {}
                Err(_) => return Some(CloseCause::Protocol),
            }
        }
        None
    }

    fn close(&mut self, connection: usize, cause: CloseCause, events: &mut Vec<Event>) {
        let first_byte_at = self.links[connection].first_byte_at;
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
        if link.is_connecting {
            match self.finish_connect(connection) {
                Ok(()) => events.push(Event::Connected { connection }),
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
        let has_outgoing = link.wants_write;
        if let Some(cause) = self.read_in(connection, events) {
            self.close(connection, cause, events);
        } else if has_outgoing && self.write_out(connection).is_err() {
            self.close(connection, CloseCause::Reset, events);
        }
    }
}

impl<P: Protocol, C: Clock> Transport for SocketTransport<P, C> {
    fn connect(&mut self, connection: usize, events: &mut Vec<Event>) {
        match self.open(connection) {
            Ok(true) => events.push(Event::Connected { connection }),
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
        self.protocol
            .encode(request, &mut self.links[connection].outgoing);
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
