//! How a connection is made, greeted and given up.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::event::epoll::EventFlags;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, getsockname, socket_with,
    sockopt,
};

use super::link::{Link, Stage};
use super::{READ_PATIENCE, SocketTransport};
use crate::clock::Clock;
use crate::transport::stamps::StampSource;
use crate::transport::target::SocketTarget;
use crate::transport::{CloseCause, Event, Protocol, ReplyOrder};

impl<P: Protocol, C: Clock> SocketTransport<P, C> {
    /// Makes a socket and begins to connect it; whether it is connected already.
    pub(super) fn open(&mut self, connection: usize) -> Result<bool, Errno> {
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
        if self.congestion_control.is_none() && !matches!(target, SocketTarget::Unix(_)) {
            self.congestion_control = sockopt::tcp_congestion(&fd).ok();
        }
        let is_connected = match begun {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(errno) => return Err(errno),
        };
        let (interest, stage) = if is_connected {
            (EventFlags::IN, Stage::Up)
        } else {
            (EventFlags::OUT, Stage::Connecting)
        };
        self.links[connection].reset();
        self.ready.add(&fd, self.token(connection), interest)?;
        let link = &mut self.links[connection];
        link.fd = Some(fd);
        link.stage = stage;
        link.state = Some(self.protocol.open(number));
        Ok(is_connected)
    }

    pub(super) fn finish_connect(&mut self, connection: usize) -> Result<(), Errno> {
        if let Some(fd) = &self.links[connection].fd {
            sockopt::socket_error(fd)??;
        }
        self.links[connection].stage = Stage::Up;
        self.set_interest(connection, EventFlags::IN)
    }

    pub(super) fn set_interest(
        &self,
        connection: usize,
        interest: EventFlags,
    ) -> Result<(), Errno> {
        match &self.links[connection].fd {
            Some(fd) => self.ready.modify(fd, self.token(connection), interest),
            None => Ok(()),
        }
    }

    /// Greets a connection that was just made, and says that it is up once it is.
    pub(super) fn welcome(&mut self, connection: usize, events: &mut Vec<Event>) {
        match self.greet(connection) {
            Ok(true) => events.push(Event::Connected { connection }),
            Ok(false) => {}
            Err(cause) => self.close(connection, cause, events),
        }
    }

    /// Asks for the kernel's stamps of a connection on which nothing was sent yet.
    fn enable_stamps(&mut self, connection: usize) {
        let (_, target) = self.routes.of(connection);
        let is_unix = matches!(target, SocketTarget::Unix(_));
        let link = &mut self.links[connection];
        let (Some(stamper), Some(fd)) = (&mut self.stamper, &link.fd) else {
            return;
        };
        if is_unix {
            stamper.fall_back(StampSource::User, "unix sockets have no packets to stamp");
            return;
        }
        let local = getsockname(fd)
            .ok()
            .and_then(|address| SocketAddr::try_from(address).ok());
        link.stamps = stamper.enable(fd.as_fd(), local.map(|address| address.ip()));
    }

    /// Lets the protocol say what it has to say first; whether requests may follow at once.
    fn greet(&mut self, connection: usize) -> Result<bool, CloseCause> {
        self.enable_stamps(connection);
        if let [Link { fd: Some(fd), .. }] = self.links.as_slice() {
            // Every call but one says by itself that it must not wait.
            ioctl_fionbio(fd, false)
                .and_then(|()| set_socket_timeout(fd, Timeout::Recv, Some(READ_PATIENCE)))
                .map_err(|_| CloseCause::Reset)?;
        }
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

    /// Ends a connection and says why.
    pub(super) fn close(&mut self, connection: usize, cause: CloseCause, events: &mut Vec<Event>) {
        let is_fifo = self.protocol.order() == ReplyOrder::Fifo;
        // Where replies interleave, nothing tells whose byte was the first.
        let first_byte_at = self.links[connection].first_byte_at.filter(|_| is_fifo);
        self.links[connection].reset();
        events.push(Event::Closed {
            connection,
            cause,
            first_byte_at,
        });
    }
}
