//! The connections of one thread: which are up, what is on them, and which
//! places are free. It does no input or output.

use std::collections::VecDeque;

use crate::arrival::Scheduled;
use crate::record::Phase;
use crate::units::Nanos;

/// Failures of a connection without a reply between them before it is given up.
const FAILURES_MAX: u32 = 100;

/// First and longest pause before a connection is made again; it doubles each time.
const RETRY_AFTER: Nanos = Nanos::new(1_000_000);
const RETRY_AFTER_MAX: Nanos = Nanos::new(100_000_000);

/// A request on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub scheduled: Scheduled,
    pub phase: Phase,
    /// When its place on the connection became free.
    pub slot_free_at: Nanos,
    pub sent_at: Option<Nanos>,
    /// Recorded as a time-out already; it only waits for its late reply.
    pub is_expired: bool,
}

/// A free place on a connection.
#[derive(Clone, Copy, Debug)]
struct Slot {
    connection: usize,
    free_at: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Up,
    Pausing { retry_at: Nanos },
    GivenUp,
}

#[derive(Debug)]
struct Connection {
    state: State,
    flights: VecDeque<Flight>,
    failures: u32,
}

/// A reply that fits no request: the connection cannot be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch;

#[derive(Debug)]
pub(super) struct ConnectionTable {
    connections: Vec<Connection>,
    depth: u32,
    /// Free places, the one that waits longest in front.
    free: VecDeque<Slot>,
    /// Connections with requests that were assigned and not yet stamped as sent.
    unflushed: Vec<usize>,
    live_count: usize,
    up_count: usize,
    given_up_count: usize,
    /// No request on a connection has a deadline before this one.
    expiry_at: Option<Nanos>,
    request_timeout: Nanos,
}

impl ConnectionTable {
    pub fn new(connections: usize, depth: u32, request_timeout: Nanos) -> Self {
        let new_connection = || Connection {
            state: State::Connecting,
            flights: VecDeque::with_capacity(depth as usize),
            failures: 0,
        };
        Self {
            connections: std::iter::repeat_with(new_connection)
                .take(connections)
                .collect(),
            depth,
            free: VecDeque::with_capacity(connections * depth as usize),
            unflushed: Vec::with_capacity(connections),
            live_count: 0,
            up_count: 0,
            given_up_count: 0,
            expiry_at: None,
            request_timeout,
        }
    }

    /// Requests that still wait for their reply in time.
    pub fn live_count(&self) -> usize {
        self.live_count
    }

    /// Whether every connection was given up.
    pub fn is_lost(&self) -> bool {
        self.given_up_count == self.connections.len()
    }

    /// Whether no connection can be used at present.
    pub fn is_down(&self) -> bool {
        self.up_count == 0
    }

    /// When the place that waits longest became free; `None` when all are taken.
    pub fn oldest_free_at(&self) -> Option<Nanos> {
        self.free.front().map(|slot| slot.free_at)
    }

    /// Marks all connections as up, with all places free since `start`.
    ///
    /// Places are dealt over the connections first and in depth last.
    pub fn start(&mut self, start: Nanos) {
        for connection in &mut self.connections {
            connection.state = State::Up;
        }
        self.up_count = self.connections.len();
        for _ in 0..self.depth {
            let slots = (0..self.connections.len()).map(|connection| Slot {
                connection,
                free_at: start,
            });
            self.free.extend(slots);
        }
    }

    /// Puts a request on the place that waits longest; its connection, if there was a place.
    pub fn assign(&mut self, scheduled: Scheduled, phase: Phase) -> Option<usize> {
        let Slot {
            connection,
            free_at: slot_free_at,
        } = self.free.pop_front()?;
        let flight = Flight {
            scheduled,
            phase,
            slot_free_at,
            sent_at: None,
            is_expired: false,
        };
        let flights = &mut self.connections[connection].flights;
        if flights.back().is_none_or(|last| last.sent_at.is_some()) {
            self.unflushed.push(connection);
        }
        flights.push_back(flight);
        self.live_count += 1;
        let deadline = self.deadline_of(&flight);
        self.expiry_at = Some(self.expiry_at.map_or(deadline, |at| at.min(deadline)));
        Some(connection)
    }

    /// A connection with requests that were not handed over yet.
    pub fn next_unflushed(&mut self) -> Option<usize> {
        self.unflushed.pop()
    }

    /// Stamps what was not handed over yet; tells `note` about each.
    pub fn stamp(&mut self, connection: usize, sent_at: Nanos, mut note: impl FnMut(&Flight)) {
        let flights = self.connections[connection].flights.iter_mut().rev();
        for flight in flights.take_while(|flight| flight.sent_at.is_none()) {
            flight.sent_at = Some(sent_at);
            note(flight);
        }
    }

    /// Whether the connection is up; events of others are late ones of the past.
    pub fn is_up(&self, connection: usize) -> bool {
        self.connections[connection].state == State::Up
    }

    /// Whether the connection is up or being made.
    pub fn is_in_use(&self, connection: usize) -> bool {
        matches!(
            self.connections[connection].state,
            State::Up | State::Connecting
        )
    }

    /// Takes the oldest request off the connection and frees its place.
    pub fn complete(
        &mut self,
        connection: usize,
        request_id: Option<u64>,
        done_at: Nanos,
    ) -> Result<Flight, Mismatch> {
        let entry = &mut self.connections[connection];
        let front = entry.flights.front().ok_or(Mismatch)?;
        let is_ours = request_id.is_none_or(|id| id == front.scheduled.request_id);
        if front.sent_at.is_none() || !is_ours {
            return Err(Mismatch);
        }
        let flight = entry.flights.pop_front().ok_or(Mismatch)?;
        entry.failures = 0;
        self.live_count -= usize::from(!flight.is_expired);
        self.free.push_back(Slot {
            connection,
            free_at: done_at,
        });
        Ok(flight)
    }

    /// Marks what is past its deadline; tells `note` about each.
    pub fn expire(&mut self, now: Nanos, mut note: impl FnMut(usize, &Flight)) {
        if self.expiry_at.is_none_or(|at| now < at) {
            return;
        }
        let timeout = self.request_timeout;
        let mut next = None;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            for flight in connection
                .flights
                .iter_mut()
                .filter(|flight| !flight.is_expired)
            {
                let deadline = flight.scheduled.intended_at.later_by(timeout);
                if deadline <= now {
                    flight.is_expired = true;
                    self.live_count -= 1;
                    note(index, flight);
                } else {
                    next = Some(next.map_or(deadline, |at: Nanos| at.min(deadline)));
                }
            }
        }
        self.expiry_at = next;
    }

    /// No deadline comes before this instant.
    pub fn expiry_at(&self) -> Option<Nanos> {
        self.expiry_at
    }

    fn deadline_of(&self, flight: &Flight) -> Nanos {
        flight.scheduled.intended_at.later_by(self.request_timeout)
    }

    /// Takes a connection out of use; gives what was on it and still waited, the oldest first.
    pub fn take_down(&mut self, connection: usize, now: Nanos) -> Vec<Flight> {
        let entry = &mut self.connections[connection];
        if entry.state == State::Up {
            self.up_count -= 1;
            self.free.retain(|slot| slot.connection != connection);
            self.unflushed.retain(|other| *other != connection);
        }
        entry.failures += 1;
        entry.state = if entry.failures > FAILURES_MAX {
            self.given_up_count += 1;
            State::GivenUp
        } else {
            let doubled = RETRY_AFTER.get() << (entry.failures - 1).min(10);
            let pause = Nanos::new(doubled).min(RETRY_AFTER_MAX);
            State::Pausing {
                retry_at: now.later_by(pause),
            }
        };
        let waiting: Vec<Flight> = entry
            .flights
            .drain(..)
            .filter(|flight| !flight.is_expired)
            .collect();
        self.live_count -= waiting.len();
        waiting
    }

    /// Puts a connection into use that was made again.
    pub fn bring_up(&mut self, connection: usize, now: Nanos) {
        self.connections[connection].state = State::Up;
        self.up_count += 1;
        let slot = Slot {
            connection,
            free_at: now,
        };
        self.free
            .extend(std::iter::repeat_n(slot, self.depth as usize));
    }

    /// When the next connection should be made again; `None` when all are up or given up.
    pub fn retry_at(&self) -> Option<Nanos> {
        if self.up_count + self.given_up_count == self.connections.len() {
            return None;
        }
        let retries = self
            .connections
            .iter()
            .filter_map(|connection| match connection.state {
                State::Pausing { retry_at } => Some(retry_at),
                _ => None,
            });
        retries.min()
    }

    /// A connection whose pause is over; it counts as connecting from now on.
    pub fn next_retry(&mut self, now: Nanos) -> Option<usize> {
        self.retry_at().filter(|at| *at <= now)?;
        let is_over = |connection: &Connection| matches!(connection.state, State::Pausing { retry_at } if retry_at <= now);
        let index = self.connections.iter().position(is_over)?;
        self.connections[index].state = State::Connecting;
        Some(index)
    }

    /// Everything that still waits, with its connection; the table is empty afterwards.
    pub fn drain(&mut self) -> Vec<(usize, Flight)> {
        self.live_count = 0;
        let entries = self.connections.iter_mut().enumerate();
        entries
            .flat_map(|(index, entry)| entry.flights.drain(..).map(move |flight| (index, flight)))
            .filter(|(_, flight)| !flight.is_expired)
            .collect()
    }
}
