//! The connections of one thread: which are up, what is on them, and which
//! places are free. It does no input or output, and looks at no more connections than an event is about.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::arrival::Scheduled;
use crate::engine::flights::{Ends, Flight, Flights, RUN_MAX};
use crate::engine::layout::Layout;
use crate::engine::places::Places;
use crate::record::Phase;
use crate::transport::ReplyOrder;
use crate::transport::runs::ReplyRun;
use crate::units::Nanos;

/// Failures of a connection without a reply between them before it is given up.
const FAILURES_MAX: u32 = 100;

/// First and longest pause before a connection is made again; it doubles each time.
const RETRY_AFTER: Nanos = Nanos::new(1_000_000);
const RETRY_AFTER_MAX: Nanos = Nanos::new(100_000_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting {
        since: Nanos,
    },
    Up,
    /// It takes no further requests, and those on it are still answered.
    Draining,
    Pausing,
    GivenUp,
}

#[derive(Debug)]
struct Connection {
    state: State,
    flights: Ends,
    failures: u32,
    /// Whether a reply came since it was made.
    is_answered: bool,
}

/// What a reply was for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answered {
    /// This request; of a run of replies, the first of them answer its requests.
    Flight(Flight),
    /// One that has ended before, or several.
    Late(u32),
    /// None: the connection cannot be trusted any more.
    Nobody,
}

#[derive(Debug)]
pub(super) struct ConnectionTable {
    layout: Layout,
    connections: Vec<Connection>,
    flights: Flights,
    places: Places,
    /// Connections with requests that were assigned and not yet stamped as sent.
    unflushed: Vec<usize>,
    /// Requests that timed out where replies come in order: when patience with each ends, its
    /// connection and its id, in the order of time.
    silences: VecDeque<(Nanos, usize, u64)>,
    /// Connections that will be made again, the next one in front; each is there once.
    retries: BinaryHeap<Reverse<(Nanos, usize)>>,
    /// Requests whose peer did nothing about them, and that have no place yet, by deadline.
    returned: VecDeque<Flight>,
    live_count: usize,
    up_count: usize,
    given_up_count: usize,
    last_id: Option<u64>,
}

impl ConnectionTable {
    pub fn new(layout: Layout) -> Self {
        let places_count = layout.connections * layout.depth as usize;
        let new_connection = || Connection {
            state: State::Connecting { since: Nanos::ZERO },
            flights: Ends::default(),
            failures: 0,
            is_answered: false,
        };
        let bound = layout.outstanding_max.filter(|bound| *bound < places_count);
        let connections = std::iter::repeat_with(new_connection);
        // Requests that are found by their ids, or whose places go different ways, are kept one by one.
        let is_grouped = layout.order == ReplyOrder::Fifo && !layout.is_thinking;
        Self {
            connections: connections.take(layout.connections).collect(),
            flights: Flights::new(
                layout.order,
                bound.unwrap_or(places_count),
                layout.request_timeout,
                layout.share.members.into(),
            ),
            places: Places::new(layout.connections, bound, is_grouped),
            unflushed: Vec::with_capacity(layout.connections),
            silences: VecDeque::new(),
            retries: BinaryHeap::new(),
            returned: VecDeque::new(),
            live_count: 0,
            up_count: 0,
            given_up_count: 0,
            last_id: None,
            layout,
        }
    }

    /// Requests that still wait for their reply in time.
    #[inline]
    pub fn live_count(&self) -> usize {
        self.live_count
    }

    /// Whether every connection was given up.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.given_up_count == self.connections.len()
    }

    /// Whether no connection can be used at present.
    pub fn is_down(&self) -> bool {
        self.up_count == 0
    }

    /// When the place that waits longest became free; `None` when all are taken.
    #[inline]
    pub fn oldest_free_at(&self) -> Option<Nanos> {
        self.places.oldest_free_at()
    }

    /// Marks all connections as up, with all places free since `start`.
    ///
    /// Places are dealt over the connections first and in depth last.
    pub fn start(&mut self, start: Nanos, mut think: impl FnMut() -> Nanos) {
        for connection in &mut self.connections {
            connection.state = State::Up;
        }
        self.up_count = self.connections.len();
        self.places
            .reserve(self.connections.len() * self.layout.depth as usize);
        for _ in 0..self.layout.depth {
            for connection in 0..self.connections.len() {
                self.places.add(narrow(connection), start, think());
            }
        }
    }

    /// From the id of a request to the next one in a flight of several.
    #[inline]
    pub fn id_step(&self) -> u64 {
        self.flights.step()
    }

    /// How many requests can be put on places at once that have waited longest.
    #[inline]
    pub fn run_max(&self) -> u32 {
        self.places.oldest_count().min(RUN_MAX)
    }

    /// Puts a request on the place that waits longest, or as many as [`Self::run_max`] says; the
    /// connection and since when the place was free, if there was one.
    #[inline]
    pub fn assign(
        &mut self,
        (scheduled, count): (Scheduled, u32),
        phase: Phase,
    ) -> Option<(usize, Nanos)> {
        let (connection, slot_free_at) = self.places.take(count)?;
        let flight = Flight::new(scheduled, phase, connection, slot_free_at).times(count);
        let last_id = scheduled.request_id + u64::from(count - 1) * self.id_step();
        self.last_id = self.last_id.max(Some(last_id));
        self.live_count += count as usize;
        self.put(flight);
        Some((connection as usize, slot_free_at))
    }

    /// Puts a flight on its connection.
    #[inline]
    fn put(&mut self, flight: Flight) {
        let connection = flight.connection;
        let ends = &mut self.connections[connection as usize].flights;
        let last = self.flights.back(*ends);
        if last.is_none_or(|last| last.sent_at().is_some()) {
            self.unflushed.push(connection as usize);
        }
        self.flights.push(ends, flight);
    }

    /// A connection with requests that were not handed over yet.
    #[inline]
    pub fn next_unflushed(&mut self) -> Option<usize> {
        self.unflushed.pop()
    }

    /// Stamps what was not handed over yet; how many requests that were.
    #[inline]
    pub fn stamp(&mut self, connection: usize, sent_at: Nanos) -> u64 {
        let ends = self.connections[connection].flights;
        self.flights.stamp(ends, sent_at)
    }

    /// Whether replies can come on the connection; those of others are late ones of the past.
    #[inline]
    pub fn is_up(&self, connection: usize) -> bool {
        matches!(
            self.connections[connection].state,
            State::Up | State::Draining
        )
    }

    /// Whether the connection is up or being made.
    pub fn is_in_use(&self, connection: usize) -> bool {
        matches!(
            self.connections[connection].state,
            State::Up | State::Draining | State::Connecting { .. }
        )
    }

    /// Takes the request that the first of these replies answers off the connection and frees its place; with
    /// it those that were put there at once with it, as far as there are replies to them.
    #[inline]
    pub fn complete(
        &mut self,
        connection: usize,
        replies: &ReplyRun,
        done_at: Nanos,
        think: impl FnOnce() -> Nanos,
    ) -> Answered {
        let entry = &mut self.connections[connection];
        let flight = match self.layout.order {
            ReplyOrder::Fifo => {
                let first_id = replies.first_id;
                let front = self.flights.front(entry.flights).filter(|front| {
                    let is_ours = first_id.is_none_or(|id| id == front.scheduled.request_id);
                    front.sent_at().is_some() && is_ours
                });
                if front.is_none() {
                    return Answered::Nobody;
                }
                let most = replies.alike(self.flights.step());
                self.flights.pop_front(&mut entry.flights, most)
            }
            ReplyOrder::ById => {
                let id = replies.first_id;
                let found = id.and_then(|id| self.flights.find(narrow(connection), id));
                let Some(at) = found.filter(|at| self.flights.get(*at).sent_at().is_some()) else {
                    return self.answered_before(id);
                };
                Some(self.flights.remove(&mut entry.flights, at))
            }
        };
        let Some(flight) = flight else {
            return Answered::Nobody;
        };
        entry.failures = 0;
        entry.is_answered = true;
        let count = flight.count();
        if entry.state == State::Up {
            if count == 1 {
                self.places.add(narrow(connection), done_at, think());
            } else {
                self.places.add_run(narrow(connection), count, done_at);
            }
        }
        self.places.give_back_permit(done_at);
        if flight.is_expired {
            return Answered::Late(count);
        }
        self.live_count -= count as usize;
        Answered::Flight(flight)
    }

    /// Judges a reply to a request that is on no connection: an id of ours had its time.
    fn answered_before(&self, request_id: Option<u64>) -> Answered {
        let was_sent =
            |id: &u64| self.layout.share.owns(*id) && self.last_id.is_some_and(|last| *id <= last);
        match request_id.filter(was_sent) {
            Some(_) => Answered::Late(1),
            None => Answered::Nobody,
        }
    }

    /// The next request that is past its deadline, if there is one, or several that are alike.
    ///
    /// When replies come in order, its place stays taken until its late reply comes, or until
    /// patience ends ([`Self::next_silent`]); otherwise the place is free from now on.
    pub fn next_expired(&mut self, now: Nanos, think: impl FnOnce() -> Nanos) -> Option<Flight> {
        let (at, _) = self.flights.first_due().filter(|(_, due)| *due <= now)?;
        self.live_count -= self.flights.get(at).count() as usize;
        match self.layout.order {
            ReplyOrder::Fifo => {
                let flight = self.flights.expire(at);
                let patience_ends_at = now.later_by(self.layout.request_timeout);
                let connection = flight.connection as usize;
                for one in flight.each(self.id_step()) {
                    let id = one.scheduled.request_id;
                    self.silences.push_back((patience_ends_at, connection, id));
                }
                Some(flight)
            }
            ReplyOrder::ById => {
                let connection = self.flights.get(at).connection;
                let entry = &mut self.connections[connection as usize];
                let flight = self.flights.remove(&mut entry.flights, at);
                if entry.state == State::Up {
                    self.places.add(connection, now, think());
                }
                self.places.give_back_permit(now);
                Some(flight)
            }
        }
    }

    /// A connection that has been silent for as long again as a request may take: it will not
    /// answer any more, and its places are of no use.
    pub fn next_silent(&mut self, now: Nanos) -> Option<usize> {
        while let Some((at, connection, id)) = self.silences.front().copied() {
            if at > now {
                return None;
            }
            let _ = self.silences.pop_front();
            let oldest = self.flights.front(self.connections[connection].flights);
            if oldest.is_some_and(|oldest| oldest.scheduled.request_id == id) {
                return Some(connection);
            }
        }
        None
    }

    /// The earliest instant at which a request times out, or patience with one ends; never
    /// ([`Nanos::MAX`]) when nothing waits.
    #[inline]
    pub fn expiry_at(&self) -> Nanos {
        let deadline = self.flights.first_due().map_or(Nanos::MAX, |(_, due)| due);
        let patience = self.silences.front().map_or(Nanos::MAX, |(at, ..)| *at);
        let returned = self.returned.front();
        let returned = returned.map_or(Nanos::MAX, |flight| self.flights.deadline_of(flight));
        deadline.min(patience).min(returned)
    }

    /// Puts no further request on a connection, which goes on with those that it has.
    pub fn drain(&mut self, connection: usize) {
        let entry = &mut self.connections[connection];
        if entry.state == State::Up {
            entry.state = State::Draining;
            self.up_count -= 1;
            self.places.revoke(narrow(connection));
        }
    }

    /// Takes a request off its connection, to be put on another one; one that has expired is
    /// recorded already.
    pub fn take_back(&mut self, connection: usize, request_id: u64, now: Nanos) {
        if let Some(at) = self.flights.find(narrow(connection), request_id) {
            let ends = &mut self.connections[connection].flights;
            let flight = self.flights.remove(ends, at);
            self.places.give_back_permit(now);
            if flight.is_expired {
                return;
            }
            self.keep_returned(flight);
        }
    }

    /// Takes all requests off a connection that was taken down, to be put on others.
    pub fn take_all_back(&mut self, connection: usize, now: Nanos) {
        while let Some(flight) = self.next_stranded(connection, now) {
            self.live_count += 1;
            self.keep_returned(flight);
        }
    }

    /// Keeps a live request that is on no connection any more until it has a place on another.
    fn keep_returned(&mut self, flight: Flight) {
        let intended_at = |flight: &Flight| flight.scheduled.intended_at;
        let is_earlier = |other: &Flight| intended_at(other) <= intended_at(&flight);
        let at = self.returned.partition_point(is_earlier);
        self.returned.insert(at, flight);
    }

    /// Whether requests wait for a place on another connection than the one they had.
    pub fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Puts the most urgent of these on a place that is free by now; the connection, and the
    /// request as it was before.
    pub fn reassign(&mut self, now: Nanos) -> Option<(usize, Flight)> {
        let _ = self.returned.front()?;
        self.oldest_free_at().filter(|free_at| *free_at <= now)?;
        let (connection, slot_free_at) = self.places.take(1)?;
        let before = self.returned.pop_front()?;
        self.put(before.resent(connection, slot_free_at));
        Some((connection as usize, before))
    }

    /// One of these whose time is over by `now`.
    pub fn next_returned(&mut self, now: Nanos) -> Option<Flight> {
        let first = self.returned.front()?;
        if self.flights.deadline_of(first) > now {
            return None;
        }
        self.live_count -= 1;
        self.returned.pop_front()
    }

    /// Takes a connection out of use. An announced end of a connection that has served is
    /// nobody's fault: it is made again at once.
    pub fn take_down(&mut self, connection: usize, now: Nanos, is_announced: bool) {
        let entry = &mut self.connections[connection];
        if entry.state == State::Up {
            self.up_count -= 1;
            self.places.revoke(narrow(connection));
        } // one that was draining has no places any more
        let is_fair = is_announced && entry.is_answered;
        entry.is_answered = false;
        entry.failures += u32::from(!is_fair);
        if entry.failures > FAILURES_MAX {
            self.given_up_count += 1;
            entry.state = State::GivenUp;
            return;
        }
        let pause = if is_fair {
            Nanos::ZERO
        } else {
            let doubled = RETRY_AFTER.get() << (entry.failures - 1).min(10);
            Nanos::new(doubled).min(RETRY_AFTER_MAX)
        };
        entry.state = State::Pausing;
        self.retries
            .push(Reverse((now.later_by(pause), connection)));
    }

    /// The oldest request of a connection that was taken down, if it still waited.
    pub fn next_stranded(&mut self, connection: usize, now: Nanos) -> Option<Flight> {
        let entry = &mut self.connections[connection];
        loop {
            let flight = self.flights.pop_front(&mut entry.flights, 1)?;
            self.places.give_back_permit(now);
            if !flight.is_expired {
                self.live_count -= 1;
                return Some(flight);
            }
        }
    }

    /// Puts a connection into use that was made again; how long that took.
    pub fn bring_up(
        &mut self,
        connection: usize,
        now: Nanos,
        mut think: impl FnMut() -> Nanos,
    ) -> Option<Nanos> {
        let entry = &mut self.connections[connection];
        let State::Connecting { since } = entry.state else {
            return None;
        };
        entry.state = State::Up;
        self.up_count += 1;
        for _ in 0..self.layout.depth {
            self.places.add(narrow(connection), now, think());
        }
        Some(since.until(now))
    }

    /// When the next connection should be made again; `None` when all are up or given up.
    #[inline]
    pub fn retry_at(&self) -> Option<Nanos> {
        self.retries.peek().map(|Reverse((at, _))| *at)
    }

    /// A connection whose pause is over; it counts as connecting from now on.
    pub fn next_retry(&mut self, now: Nanos) -> Option<usize> {
        self.retry_at().filter(|at| *at <= now)?;
        let Reverse((_, connection)) = self.retries.pop()?;
        self.connections[connection].state = State::Connecting { since: now };
        Some(connection)
    }

    /// Something that still waits for its reply, taken off the table.
    pub fn next_waiting(&mut self) -> Option<Flight> {
        let (at, _) = self.flights.first_due()?;
        self.live_count -= 1;
        let connection = self.flights.get(at).connection as usize;
        let ends = &mut self.connections[connection].flights;
        Some(self.flights.take(ends, at, 1))
    }
}

/// The number of a connection; a plan allows far fewer than the type.
fn narrow(connection: usize) -> u32 {
    u32::try_from(connection).unwrap_or(u32::MAX)
}
