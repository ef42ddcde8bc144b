//! Requests that are on connections: found by age, by connection, by deadline and by id,
//! each in constant time. It does no input or output.
//!
//! All flights of a thread live in one slab. Two lists run through it: the flights of each
//! connection, oldest first, and those that have not expired, earliest deadline first.

mod flight;
mod index;
#[cfg(test)]
mod tests;

use std::hash::BuildHasherDefault;

use crate::arrival::Scheduled;
use crate::record::Phase;
use crate::transport::ReplyOrder;
use crate::units::Nanos;
use flight::UNSENT;
use index::Index;

pub(super) use flight::{Flight, RUN_MAX, Sending};

/// No node.
const NIL: u32 = u32::MAX;

/// Flights that are given room before the load; more of them make the slab grow.
const RESERVED_MAX: usize = 4_096;

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
