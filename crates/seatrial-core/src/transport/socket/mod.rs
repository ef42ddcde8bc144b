//! Stream sockets (TCP and unix), non-blocking, many on one epoll set.
//!
//! One read takes whatever is there: several replies in one read become several
//! events with the instant of that read. Events are level-triggered, so a
//! connection with more to read is reported again and needs no second, empty read.
//! [`Transport::wait`] returns as soon as one connection has given something, and goes on
//! with the others of the same report when it is called again.

mod connecting;
mod link;
mod reading;
mod writing;

use std::sync::Arc;

use rustix::net::RecvFlags;

use super::ready::{ReadySet, Token};
pub use super::routes::Routes;
use super::{
    CloseCause, Event, Protocol, ReplyOrder, Request, Traffic, Transport, TransportReport,
};
use crate::clock::Clock;
use crate::error::CoreError;
use crate::stop::StopSignal;
use crate::units::Nanos;
use link::{Link, Stage};

/// Bytes that one read can take: a few thousand rpc replies.
const READ_BYTES: usize = 64 * 1024;

/// The connections of one thread to its servers.
pub struct SocketTransport<P: Protocol, C: Clock> {
    routes: Routes,
    protocol: P,
    clock: C,
    ready: ReadySet,
    links: Vec<Link<P::State>>,
    buffer: Box<[u8]>,
    traffic: Traffic,
    /// Of the first TCP connection; the others are made alike.
    congestion_control: Option<String>,
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
        let links = std::iter::repeat_with(Link::default)
            .take(routes.connections)
            .collect();
        Ok(Self {
            routes,
            protocol,
            clock,
            ready: ReadySet::new(stop)?,
            links,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            congestion_control: None,
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

    /// Whether the only connection there is can be read without asking the epoll set first.
    fn is_single(&self) -> bool {
        match self.links.as_slice() {
            [link] => {
                let is_up = matches!(link.stage, Stage::Up | Stage::Closing);
                is_up && link.fd.is_some() && !link.wants_write
            }
            _ => false,
        }
    }
}

impl<P: Protocol, C: Clock> Transport for SocketTransport<P, C> {
    fn order(&self) -> ReplyOrder {
        self.protocol.order()
    }

    fn connect(&mut self, connection: usize, events: &mut Vec<Event>) {
        match self.open(connection) {
            Ok(true) => self.welcome(connection, events),
            Ok(false) => {}
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
        if self.ready.is_empty() {
            let timeout = self.clock.now().until(until);
            if timeout == Nanos::ZERO && self.is_single() {
                // A spin on one connection: a read says as much as a look at the set.
                self.read(0, RecvFlags::DONTWAIT, events);
                return Ok(());
            }
            self.ready.wait(timeout)?;
        }
        while let Some(token) = self.ready.take() {
            let connection = token.connection as usize;
            if self.links[connection].generation == token.generation {
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
            held_back_count: self.protocol.held_back_count(),
            congestion_control: self.congestion_control.clone(),
            ..TransportReport::default()
        }
    }
}
