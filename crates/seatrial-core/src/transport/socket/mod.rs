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
use std::time::Duration;

use super::ready::{ReadySet, Token};
pub use super::routes::Routes;
use super::runs::RequestRun;
use super::stamps::{Stamper, Stamping};
use super::{
    CloseCause, Event, Protocol, ReplyOrder, Request, Traffic, Transport, TransportReport,
};
use crate::clock::Clock;
use crate::error::CoreError;
use crate::stop::StopSignal;
use crate::units::Nanos;
use link::{Link, Stage};
use reading::Waiting;

/// Bytes that one read can take: a few thousand rpc replies.
const READ_BYTES: usize = 64 * 1024;

/// How long a read of the only connection sleeps at most: until the order to stop is seen.
const READ_PATIENCE: Duration = Duration::from_millis(50);

/// Waits longer than this may be cut into such reads, which end a tick of the kernel (up to
/// 10 ms) late.
const READ_PATIENCE_BOUND: Nanos = Nanos::new(100_000_000);

/// The connections of one thread to its servers.
pub struct SocketTransport<P: Protocol, C: Clock> {
    routes: Routes,
    protocol: P,
    clock: C,
    ready: ReadySet,
    links: Vec<Link<P::State>>,
    buffer: Box<[u8]>,
    stamper: Option<Stamper>,
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
            stamper: Stamper::new(stamping),
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

    /// How to read from the only connection there is without asking the epoll set first, which
    /// saves a system call for each reply; `None` when the set has to be asked.
    ///
    /// A wait that is neither nothing nor long is the set's matter: its time-out is precise.
    fn waiting_alone(&self, timeout: Nanos) -> Option<Waiting> {
        let [link] = self.links.as_slice() else {
            return None;
        };
        let is_up = matches!(link.stage, Stage::Up | Stage::Closing);
        if !is_up || link.fd.is_none() || link.wants_write {
            None
        } else if timeout == Nanos::ZERO {
            Some(Waiting::No)
        } else {
            (timeout > READ_PATIENCE_BOUND).then_some(Waiting::Yes)
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

    #[inline]
    fn send(&mut self, connection: usize, request: &Request) {
        let link = &mut self.links[connection];
        let Some(state) = link.state.as_mut() else {
            return;
        };
        let before = link.outgoing.len();
        self.protocol.encode(state, request, &mut link.outgoing);
        // A protocol that holds a request back writes nothing yet, and nothing can be stamped.
        if let (Some(stamper), true) = (&mut self.stamper, link.outgoing.len() > before) {
            let (is_sampled, pending) = (stamper.is_next_sampled(), link.pending());
            if let Some(stamps) = &mut link.stamps {
                stamps.note_request(request.request_id, pending, is_sampled);
            }
        }
    }

    #[inline]
    fn send_run(&mut self, connection: usize, run: &RequestRun) {
        if self.stamper.is_some() {
            // Where each request ends in the stream has to be known.
            for request in run.each() {
                self.send(connection, &request);
            }
            return;
        }
        let link = &mut self.links[connection];
        if let Some(state) = link.state.as_mut() {
            self.protocol.encode_run(state, run, &mut link.outgoing);
        }
    }

    #[inline]
    fn flush(&mut self, connection: usize, events: &mut Vec<Event>) {
        if self.write_out(connection).is_err() {
            self.read_rest(connection, events);
        }
    }

    fn abandon(&mut self, connection: usize, request_id: u64, events: &mut Vec<Event>) {
        if self.order() == ReplyOrder::Fifo {
            return; // its place is taken until the reply comes
        }
        let link = &mut self.links[connection];
        if let Some(state) = link.state.as_mut() {
            self.protocol.abandon(state, request_id, &mut link.outgoing);
            self.flush(connection, events);
            if let Some(cause) = self.spent(connection) {
                self.close(connection, cause, events);
            }
        }
    }

    #[inline]
    fn wait(&mut self, until: Nanos, events: &mut Vec<Event>) -> Result<(), CoreError> {
        if self.ready.is_empty() {
            let timeout = self.clock.now().until(until);
            if let Some(waiting) = self.waiting_alone(timeout) {
                self.read(0, waiting, events);
                return Ok(());
            }
            self.ready.wait(timeout)?;
        }
        while let Some(report) = self.ready.take() {
            let connection = report.token.connection as usize;
            if self.links[connection].generation == report.token.generation {
                if report.has_error {
                    self.links[connection].collect_stamps();
                }
                self.handle(connection, events);
                if !events.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn report(&self) -> TransportReport {
        TransportReport {
            held_back_count: self.protocol.held_back_count(),
            congestion_control: self.congestion_control.clone(),
            stamps: self.stamper.as_ref().map(|stamper| stamper.report.clone()),
            ..TransportReport::default()
        }
    }
}
