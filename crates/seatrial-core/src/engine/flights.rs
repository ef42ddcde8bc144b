//! Requests that are on connections: found by age, by connection, by deadline and by id,
//! each in constant time. It does no input or output.
//!
//! All flights of a thread live in one slab. Two lists run through it: the flights of each
//! connection, oldest first, and those that have not expired, earliest deadline first.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::arrival::Scheduled;
use crate::record::Phase;
use crate::transport::ReplyOrder;
use crate::units::Nanos;

/// No node.
const NIL: u32 = u32::MAX;

/// Flights that are given room before the load; more of them make the slab grow.
const RESERVED_MAX: usize = 4_096;

/// Most requests that are one flight.
pub(super) const RUN_MAX: u32 = u8::MAX as u32;

/// A request on a connection, or several that are alike: put on it at once, due at the same instant,
/// and with ids that lie one step apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// The first of them.
    pub scheduled: Scheduled,
    pub phase: Phase,
    /// How many there are; so narrow that a node fits into one line of a cache.
    count: u8,
    /// The connection, among those of the thread.
    pub connection: u32,
    /// When its place on the connection became free.
    pub slot_free_at: Nanos,
    /// [`UNSENT`] until it is known.
    sent_at: Nanos,
    /// Recorded as a time-out already; it only waits for its late reply.
    pub is_expired: bool,
    /// Was on another connection before, whose peer did nothing about it.
    pub is_resent: bool,
}

/// When a request was due, when it could be sent, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    pub intended_at: Nanos,
    /// When its place on the connection became free.
    pub slot_free_at: Nanos,
    pub sent_at: Nanos,
    /// It was sent before, on another connection.
    pub is_resent: bool,
}

/// Stands for a request that was not handed over yet; no clock reaches it.
const UNSENT: Nanos = Nanos::MAX;

impl Flight {
    /// A request that was just put on a connection.
    #[inline]
    pub const fn new(
        scheduled: Scheduled,
        phase: Phase,
        connection: u32,
        slot_free_at: Nanos,
    ) -> Self {
        Self {
            scheduled,
            phase,
            count: 1,
            connection,
            slot_free_at,
            sent_at: UNSENT,
            is_expired: false,
            is_resent: false,
        }
    }

    /// So many of them, at most [`RUN_MAX`].
    #[inline]
    pub fn times(self, count: u32) -> Self {
        let count = u8::try_from(count).unwrap_or(u8::MAX);
        Self { count, ..self }
    }

    /// How many requests it stands for.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.into()
    }

    /// The requests one by one; their ids lie `step` apart.
    pub fn each(self, step: u64) -> impl Iterator<Item = Self> {
        (0..u64::from(self.count)).map(move |index| {
            let mut one = self.times(1);
            one.scheduled.request_id += index * step;
            one
        })
    }

    /// The same request on another connection, where it was not handed over yet.
    pub const fn resent(self, connection: u32, slot_free_at: Nanos) -> Self {
        Self {
            connection,
            slot_free_at,
            sent_at: UNSENT,
            is_resent: true,
            ..self
        }
    }

    /// When it was due, could be sent, and was; `None` for one that was not handed over.
    #[inline]
    pub fn sending(&self) -> Option<Sending> {
        let sent_at = self.sent_at()?;
        Some(Sending {
            intended_at: self.scheduled.intended_at,
            slot_free_at: self.slot_free_at,
            sent_at,
            is_resent: self.is_resent,
        })
    }

    /// When it was handed over, if it was.
    #[inline]
    pub fn sent_at(&self) -> Option<Nanos> {
        (self.sent_at != UNSENT).then_some(self.sent_at)
    }
}

/// First and last of a list through the slab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    head: u32,
    tail: u32,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            head: NIL,
            tail: NIL,
        }
    }
}

/// Neighbours in one list.
#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
}

const UNLINKED: Links = Links {
    before: NIL,
    after: NIL,
};

impl Default for Node {
    fn default() -> Self {
        let scheduled = Scheduled {
            request_id: 0,
            intended_at: Nanos::ZERO,
            demand: Nanos::ZERO,
        };
        Self {
            flight: Flight::new(scheduled, Phase::WarmUp, 0, Nanos::ZERO),
            of_connection: UNLINKED,
            of_deadline: UNLINKED,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    flight: Flight,
    of_connection: Links,
    of_deadline: Links,
}

/// Which of the two lists a link belongs to.
#[derive(Clone, Copy)]
enum Chain {
    Connection,
    Deadline,
}

/// Spreads request ids, which come in steps of the number of threads.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // Fibonacci hashing; the fold brings the well mixed high bits to where tables look first.
        let mixed = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type Index = HashMap<u64, u32, BuildHasherDefault<IdHasher>>;

/// The flights of one thread.
#[derive(Debug)]
pub(super) struct Flights {
    nodes: Vec<Node>,
    unused: Vec<u32>,
    deadlines: Ends,
    /// From one id to the next, in a flight of several requests.
    step: u64,
    /// From the intended instant to the deadline.
    request_timeout: Nanos,
    /// Nodes by request id; only when replies are matched so.
    by_id: Option<Index>,
}

impl Flights {
    /// Room for flights whose replies come in this order; `places` is how many there can be, and
    /// `step` is from one id to the next in a flight of several requests.
    pub fn new(order: ReplyOrder, places: usize, request_timeout: Nanos, step: u64) -> Self {
        let reserved = places.min(RESERVED_MAX);
        let index = || Index::with_capacity_and_hasher(reserved, BuildHasherDefault::default());
        Self {
            nodes: Vec::with_capacity(reserved),
            unused: Vec::new(),
            deadlines: Ends::default(),
            step,
            request_timeout,
            by_id: (order == ReplyOrder::ById).then(index),
        }
    }

    /// Adds a flight to its connection.
    #[inline]
    pub fn push(&mut self, ends: &mut Ends, flight: Flight) {
        let at = self.unused_node();
        // Made where it stays: a copy that is read right after it was written stalls the processor.
        self.nodes[at as usize] = Node {
            flight,
            of_connection: UNLINKED,
            of_deadline: UNLINKED,
        };
        self.link_after(Chain::Connection, ends, ends.tail, at);
        // Instants increase nearly always, so the walk from the end is short.
        let mut earlier = self.deadlines.tail;
        let intended_at = flight.scheduled.intended_at;
        while earlier != NIL && self.get(earlier).scheduled.intended_at > intended_at {
            earlier = self.nodes[earlier as usize].of_deadline.before;
        }
        let mut deadlines = self.deadlines;
        self.link_after(Chain::Deadline, &mut deadlines, earlier, at);
        self.deadlines = deadlines;
        if let Some(index) = &mut self.by_id {
            let _ = index.insert(flight.scheduled.request_id, at);
        }
    }

    #[inline]
    fn unused_node(&mut self) -> u32 {
        self.unused.pop().unwrap_or_else(|| self.new_node())
    }

    #[cold]
    fn new_node(&mut self) -> u32 {
        self.nodes.push(Node::default());
        // 10,000 connections of depth 1,024 are far below the largest index.
        u32::try_from(self.nodes.len() - 1).unwrap_or(NIL)
    }

    /// From one id to the next, in a flight of several requests.
    #[inline]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Takes the oldest flight off a connection, or only its first requests, at most so many.
    #[inline]
    pub fn pop_front(&mut self, ends: &mut Ends, most: u32) -> Option<Flight> {
        (ends.head != NIL).then(|| self.take(ends, ends.head, most))
    }

    /// Takes the first requests of a flight off its connection, at most so many, at least one.
    #[inline]
    pub fn take(&mut self, ends: &mut Ends, at: u32, most: u32) -> Flight {
        let flight = &mut self.nodes[at as usize].flight;
        if flight.count() <= most {
            return self.remove(ends, at);
        }
        let taken = flight.times(most);
        flight.count -= taken.count;
        flight.scheduled.request_id += u64::from(taken.count) * self.step;
        taken
    }

    /// The oldest flight of a connection.
    #[inline]
    pub fn front(&self, ends: Ends) -> Option<&Flight> {
        self.nodes.get(ends.head as usize).map(|node| &node.flight)
    }

    /// The newest flight of a connection.
    #[inline]
    pub fn back(&self, ends: Ends) -> Option<&Flight> {
        self.nodes.get(ends.tail as usize).map(|node| &node.flight)
    }

    /// The node of the flight with this id on this connection.
    #[inline]
    pub fn find(&self, connection: u32, request_id: u64) -> Option<u32> {
        let at = *self.by_id.as_ref()?.get(&request_id)?;
        (self.nodes[at as usize].flight.connection == connection).then_some(at)
    }

    /// The flight at a node that [`Flights::find`] or [`Flights::first_due`] named.
    #[inline]
    pub fn get(&self, at: u32) -> &Flight {
        &self.nodes[at as usize].flight
    }

    /// Takes a flight off its connection.
    #[inline]
    pub fn remove(&mut self, ends: &mut Ends, at: u32) -> Flight {
        let flight = self.nodes[at as usize].flight;
        self.unlink(Chain::Connection, ends, at);
        if !flight.is_expired {
            self.unlink_deadline(at);
        }
        if let Some(index) = &mut self.by_id {
            let _ = index.remove(&flight.scheduled.request_id);
        }
        self.unused.push(at);
        flight
    }

    /// Marks what was not sent yet as sent, the newest first; how many there were that had not
    /// been sent before on another connection.
    #[inline]
    pub fn stamp(&mut self, ends: Ends, sent_at: Nanos) -> u64 {
        let (mut at, mut count) = (ends.tail, 0);
        while at != NIL {
            let newest = &mut self.nodes[at as usize];
            if newest.flight.sent_at != UNSENT {
                break;
            }
            newest.flight.sent_at = sent_at;
            if !newest.flight.is_resent {
                count += u64::from(newest.flight.count);
            }
            at = newest.of_connection.before;
        }
        count
    }

    /// The node with the earliest deadline, and that deadline.
    #[inline]
    pub fn first_due(&self) -> Option<(u32, Nanos)> {
        let at = self.deadlines.head;
        (at != NIL).then(|| (at, self.deadline_of(self.get(at))))
    }

    /// When a request times out.
    #[inline]
    pub fn deadline_of(&self, flight: &Flight) -> Nanos {
        flight.scheduled.intended_at.later_by(self.request_timeout)
    }

    /// Lets a flight stay on its connection without a deadline.
    pub fn expire(&mut self, at: u32) -> Flight {
        self.unlink_deadline(at);
        let flight = &mut self.nodes[at as usize].flight;
        flight.is_expired = true;
        *flight
    }

    #[inline]
    fn unlink_deadline(&mut self, at: u32) {
        let mut deadlines = self.deadlines;
        self.unlink(Chain::Deadline, &mut deadlines, at);
        self.deadlines = deadlines;
    }

    #[inline]
    fn links(&mut self, chain: Chain, at: u32) -> &mut Links {
        let node = &mut self.nodes[at as usize];
        match chain {
            Chain::Connection => &mut node.of_connection,
            Chain::Deadline => &mut node.of_deadline,
        }
    }

    /// Puts a node behind another one, or in front of all when that is [`NIL`].
    #[inline]
    fn link_after(&mut self, chain: Chain, ends: &mut Ends, before: u32, at: u32) {
        let after = if before == NIL {
            std::mem::replace(&mut ends.head, at)
        } else {
            std::mem::replace(&mut self.links(chain, before).after, at)
        };
        if after == NIL {
            ends.tail = at;
        } else {
            self.links(chain, after).before = at;
        }
        *self.links(chain, at) = Links { before, after };
    }

    #[inline]
    fn unlink(&mut self, chain: Chain, ends: &mut Ends, at: u32) {
        let Links { before, after } = *self.links(chain, at);
        if before == NIL {
            ends.head = after;
        } else {
            self.links(chain, before).after = after;
        }
        if after == NIL {
            ends.tail = before;
        } else {
            self.links(chain, after).before = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(request_id: u64, connection: u32, intended_at: u64) -> Flight {
        let scheduled = Scheduled {
            request_id,
            intended_at: Nanos::new(intended_at),
            demand: Nanos::ZERO,
        };
        Flight::new(scheduled, Phase::Measure, connection, Nanos::ZERO)
    }

    fn due_ids(flights: &mut Flights) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some((at, _)) = flights.first_due() {
            ids.push(flights.expire(at).scheduled.request_id);
        }
        ids
    }

    #[test]
    fn lists_stay_whole_when_flights_leave_from_anywhere() {
        let mut flights = Flights::new(ReplyOrder::ById, 100, Nanos::new(7), 1);
        let mut ends = [Ends::default(); 2];
        for id in 0..10u64 {
            let connection = u32::try_from(id % 2).unwrap();
            let to = &mut ends[connection as usize];
            flights.push(to, flight(id, connection, 100 + id));
        }
        for id in [4, 0, 9] {
            let connection = u32::try_from(id % 2).unwrap();
            assert_eq!(
                flights.find(1 - connection, id),
                None,
                "the other connection"
            );
            let at = flights.find(connection, id).unwrap();
            let left = flights.remove(&mut ends[connection as usize], at);
            assert_eq!(left.scheduled.request_id, id);
            assert_eq!(flights.find(connection, id), None);
        }
        flights.push(&mut ends[0], flight(10, 0, 102));
        let mut of_first = Vec::new();
        let mut copy = ends[0];
        assert_eq!(flights.back(copy).unwrap().scheduled.request_id, 10);
        assert_eq!(due_ids(&mut flights), [1, 2, 10, 3, 5, 6, 7, 8]);
        while let Some(flight) = flights.pop_front(&mut copy, 1) {
            of_first.push(flight.scheduled.request_id);
        }
        assert_eq!(of_first, [2, 6, 8, 10]);
        assert!(flights.front(copy).is_none());
    }

    #[test]
    fn only_what_was_not_sent_is_stamped() {
        let mut flights = Flights::new(ReplyOrder::Fifo, 100, Nanos::new(7), 1);
        let mut ends = Ends::default();
        let mut last = 0;
        for (count, at) in [(1, 5), (2, 6)] {
            for _ in 0..count {
                flights.push(&mut ends, flight(last, 0, 10));
                last += 1;
            }
            assert_eq!(flights.stamp(ends, Nanos::new(at)), count);
        }
        let mut stamps = Vec::new();
        while let Some(flight) = flights.pop_front(&mut ends, 1) {
            stamps.push(flight.sent_at().unwrap().get());
        }
        assert_eq!(stamps, [5, 6, 6]);
    }

    #[test]
    fn a_flight_is_due_its_time_out_after_it_was_intended() {
        let mut flights = Flights::new(ReplyOrder::Fifo, 100, Nanos::new(7), 1);
        let mut ends = Ends::default();
        for (id, at) in [(0, 20), (1, 10)] {
            flights.push(&mut ends, flight(id, 0, at));
        }
        assert_eq!(flights.first_due(), Some((1, Nanos::new(17))));
    }

    #[test]
    fn requests_leave_a_flight_of_several_from_its_front() {
        let mut flights = Flights::new(ReplyOrder::Fifo, 100, Nanos::new(7), 3);
        let mut ends = Ends::default();
        flights.push(&mut ends, flight(1, 0, 10).times(5));
        flights.push(&mut ends, flight(16, 0, 11));
        assert_eq!(flights.stamp(ends, Nanos::new(12)), 6);
        let ids = |flight: Flight| -> Vec<u64> {
            flight.each(3).map(|one| one.scheduled.request_id).collect()
        };
        assert_eq!(ids(flights.pop_front(&mut ends, 2).unwrap()), [1, 4]);
        assert_eq!(flights.front(ends).unwrap().scheduled.request_id, 7);
        let (at, deadline) = flights.first_due().unwrap();
        assert_eq!(
            deadline,
            Nanos::new(17),
            "what is left has the same deadline"
        );
        assert_eq!(ids(flights.take(&mut ends, at, 1)), [7]);
        assert_eq!(ids(flights.pop_front(&mut ends, 9).unwrap()), [10, 13]);
        assert_eq!(ids(flights.pop_front(&mut ends, 9).unwrap()), [16]);
        assert!(flights.pop_front(&mut ends, 9).is_none());
    }
}
