//! A modelled server on the virtual clock: exact, instant and repeatable.
//!
//! It works like the guest's server: connections are dealt to workers in turn, and a
//! worker serves its requests one after another in the order they came. A
//! request takes its own demand plus a draw from the server's law.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{CloseCause, Event, Reply, ReplyOrder, Request, Traffic, Transport};
use crate::arrival::{DemandLaw, Draws, Stream};
use crate::clock::{Clock, VirtualClock};
use crate::error::CoreError;
use crate::units::Nanos;

/// An interval in which the server does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When it begins, on the virtual clock.
    pub at: Nanos,
    /// How long it lasts.
    pub duration: Nanos,
}

/// Something that breaks, on the virtual clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every connection is closed; new ones are accepted again.
    ResetAll,
    /// Every connection is closed, as the server had announced.
    Announce,
    /// Every connection is closed and new ones are turned away from now on.
    Die,
    /// The next reply carries the id of no request.
    WrongId,
    /// The next reply reports a failure.
    Failure,
}

/// How the modelled server behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeModel {
    /// Queues; connection `i` belongs to queue `i mod workers`.
    pub workers: usize,
    /// With [`ReplyOrder::ById`] each request goes to the queue that is free first instead,
    /// whatever its connection, so that replies overtake each other.
    pub order: ReplyOrder,
    /// Time that each request takes beyond its own demand.
    pub service: DemandLaw,
    /// Intervals in which nothing is served, in order and apart from each other.
    pub stalls: Vec<Stall>,
    /// What breaks and when, in order.
    pub faults: Vec<(Nanos, Fault)>,
}

impl Default for FakeModel {
    fn default() -> Self {
        Self {
            workers: 1,
            order: ReplyOrder::Fifo,
            service: DemandLaw::None,
            stalls: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl FakeModel {
    /// When work of this length ends that begins at `start` at the earliest.
    fn end_of(&self, start: Nanos, service: Nanos) -> Nanos {
        let mut end = start.later_by(service);
        let mut begun = start;
        for stall in &self.stalls {
            let stall_end = stall.at.later_by(stall.duration);
            if begun >= stall_end || end <= stall.at {
                continue;
            }
            let lost = begun.max(stall.at).until(stall_end);
            end = end.later_by(lost);
            begun = stall_end;
        }
        end
    }
}

/// A reply on its way; ordered by time, then by the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    at: Nanos,
    number: u64,
    connection: usize,
    /// Which life of the connection it belongs to.
    life: u32,
    request_id: u64,
    service: Nanos,
}

/// Whether a connection is there, and how often it was closed: what is on its way is lost then.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    is_open: bool,
    life: u32,
}

/// A transport to a modelled server.
#[derive(Debug)]
pub struct FakeTransport {
    model: FakeModel,
    clock: VirtualClock,
    draws: Draws,
    /// When each worker has done all that it was given.
    workers_free_at: Vec<Nanos>,
    pending: BinaryHeap<Reverse<Pending>>,
    sent_count: u64,
    lines: Vec<Line>,
    is_dead: bool,
    faults_done: usize,
    damage: Option<Fault>,
}

impl FakeTransport {
    /// A server of this model with this many connections that can be made.
    #[must_use]
    pub fn new(model: FakeModel, clock: VirtualClock, connections: usize, seed: u64) -> Self {
        Self {
            workers_free_at: vec![Nanos::ZERO; model.workers.max(1)],
            draws: Draws::new(seed, Stream::FakeService),
            pending: BinaryHeap::new(),
            sent_count: 0,
            lines: vec![Line::default(); connections],
            is_dead: false,
            faults_done: 0,
            damage: None,
            model,
            clock,
        }
    }

    fn worker_for(&self, connection: usize) -> usize {
        let count = self.workers_free_at.len();
        match self.model.order {
            ReplyOrder::Fifo => connection % count,
            ReplyOrder::ById => (0..count)
                .min_by_key(|worker| self.workers_free_at[*worker])
                .unwrap_or_default(),
        }
    }

    fn next_fault_at(&self) -> Option<Nanos> {
        self.model.faults.get(self.faults_done).map(|(at, _)| *at)
    }

    fn break_now(&mut self, fault: Fault, events: &mut Vec<Event>) {
        match fault {
            Fault::WrongId | Fault::Failure => self.damage = Some(fault),
            Fault::ResetAll | Fault::Announce | Fault::Die => {
                let cause = if fault == Fault::Announce {
                    CloseCause::Announced
                } else {
                    CloseCause::Reset
                };
                self.is_dead = fault == Fault::Die;
                for connection in 0..self.lines.len() {
                    if self.lines[connection].is_open {
                        self.disconnect(connection);
                        events.push(Event::Closed {
                            connection,
                            cause: cause.clone(),
                            first_byte_at: None,
                        });
                    }
                }
            }
        }
    }

    fn deliver(&mut self, pending: &Pending, events: &mut Vec<Event>) {
        if self.lines[pending.connection].life != pending.life {
            return;
        }
        let mut reply = Reply {
            request_id: Some(pending.request_id),
            service: Some(pending.service),
            ..Reply::default()
        };
        match self.damage.take() {
            Some(Fault::WrongId) => reply.request_id = Some(u64::MAX),
            Some(Fault::Failure) => reply.failure = Some("scripted failure".into()),
            _ => {}
        }
        events.push(Event::Reply {
            connection: pending.connection,
            reply,
            first_byte_at: pending.at,
            done_at: pending.at,
            kernel: None,
        });
    }
}

impl Transport for FakeTransport {
    fn order(&self) -> ReplyOrder {
        self.model.order
    }

    /// A model moves no bytes.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn connect(&mut self, connection: usize, events: &mut Vec<Event>) {
        if self.is_dead {
            let cause = CloseCause::Refused(rustix::io::Errno::CONNREFUSED.raw_os_error());
            events.push(Event::Closed {
                connection,
                cause,
                first_byte_at: None,
            });
        } else {
            self.lines[connection].is_open = true;
            events.push(Event::Connected { connection });
        }
    }

    fn disconnect(&mut self, connection: usize) {
        let line = &mut self.lines[connection];
        line.is_open = false;
        line.life = line.life.wrapping_add(1);
    }

    fn send(&mut self, connection: usize, request: &Request) {
        let worker = self.worker_for(connection);
        let now = self.clock.now();
        let own = self.model.service.draw(&mut self.draws);
        let service = request.demand.later_by(own);
        let start = self.workers_free_at[worker].max(now);
        let end = self.model.end_of(start, service);
        self.workers_free_at[worker] = end;
        self.pending.push(Reverse(Pending {
            at: end,
            number: self.sent_count,
            connection,
            life: self.lines[connection].life,
            request_id: request.request_id,
            service,
        }));
        self.sent_count += 1;
    }

    fn flush(&mut self, _connection: usize, _events: &mut Vec<Event>) {}

    fn wait(&mut self, until: Nanos, events: &mut Vec<Event>) -> Result<(), CoreError> {
        let next_reply = self.pending.peek().map(|Reverse(next)| next.at);
        if let Some(at) = self.next_fault_at() {
            if at <= until && next_reply.is_none_or(|reply_at| at <= reply_at) {
                self.clock.advance_to(at);
                let fault = self.model.faults[self.faults_done].1;
                self.faults_done += 1;
                self.break_now(fault, events);
                return Ok(());
            }
        }
        match next_reply {
            Some(at) if at <= until => {
                self.clock.advance_to(at);
                while let Some(Reverse(next)) = self.pending.peek().copied() {
                    if next.at > at {
                        break;
                    }
                    let _ = self.pending.pop();
                    self.deliver(&next, events);
                }
            }
            _ => self.clock.advance_to(until),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled(at: u64, duration: u64) -> FakeModel {
        let stall = Stall {
            at: Nanos::new(at),
            duration: Nanos::new(duration),
        };
        FakeModel {
            stalls: vec![stall],
            ..FakeModel::default()
        }
    }

    #[test]
    fn a_stall_delays_what_it_overlaps() {
        let model = stalled(100, 50);
        // (start, service, end): before, across, inside, after.
        let rows = [(0, 100, 100), (90, 20, 160), (120, 10, 160), (150, 10, 160)];
        for (start, service, end) in rows {
            let told = model.end_of(Nanos::new(start), Nanos::new(service));
            assert_eq!(told, Nanos::new(end), "{start} + {service}");
        }
    }

    #[test]
    fn a_worker_serves_in_order_of_arrival() {
        let clock = VirtualClock::default();
        let mut fake = FakeTransport::new(FakeModel::default(), clock.clone(), 2, 0);
        let mut events = Vec::new();
        for connection in 0..2 {
            fake.connect(connection, &mut events);
            let request = Request {
                request_id: connection as u64,
                demand: Nanos::new(10),
            };
            fake.send(connection, &request);
        }
        events.clear();
        for end in [10, 20] {
            fake.wait(Nanos::new(1_000), &mut events).unwrap();
            assert_eq!(clock.now(), Nanos::new(end));
        }
        assert_eq!(events.len(), 2);
        fake.wait(Nanos::new(1_000), &mut events).unwrap();
        assert_eq!(clock.now(), Nanos::new(1_000));
    }
}
