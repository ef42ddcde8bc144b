//! The send loop: one thread's part of a load, generic over arrival, transport and clock.
//!
//! There is no queue of waiting requests. A request that is due while every place
//! is taken stays at the head of its schedule, keeps its intended instant, and is sent
//! when a place becomes free; so an overload takes no memory and hides no delay.

use crate::arrival::{Arrival, Scheduled};
use crate::clock::Clock;
use crate::engine::ledger::{Ledger, MemberResult};
use crate::engine::table::{ConnectionTable, Flight};
use crate::error::CoreError;
use crate::pacer::{Pacer, Woken};
use crate::record::{Outcome, Phase, RequestRecord};
use crate::stop::StopSignal;
use crate::sys::{self, CpuTime};
use crate::transport::{CloseCause, Event, Reply, Request, Transport};
use crate::units::Nanos;

/// Requests started in a row before the connections are looked at again.
const BATCH_MAX: usize = 64;

/// How long replies are waited for once the run was told to stop.
const STOP_DRAIN: Nanos = Nanos::new(20_000_000);

/// The phases of a run as instants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub start: Nanos,
    pub measure_start: Nanos,
    /// Requests due from here on are not offered.
    pub offer_end: Nanos,
    pub drain_end: Nanos,
}

impl Window {
    fn phase_of(&self, intended_at: Nanos) -> Phase {
        if intended_at < self.measure_start {
            Phase::WarmUp
        } else {
            Phase::Measure
        }
    }
}

/// Numbers of a thread's connections in the whole run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbering {
    pub first: u32,
    pub step: u32,
}

impl Numbering {
    fn of(self, connection: usize) -> u32 {
        self.first + self.step * u32::try_from(connection).unwrap_or(u32::MAX)
    }
}

/// What is to be done next, as far as arrivals are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// A request is due at this instant.
    At(Nanos),
    /// A place has to become free first.
    WaitingForSlot,
    /// Nothing will be offered any more.
    Over,
}

/// One thread of the engine.
pub(super) struct Member<'a, A, T, C> {
    pub arrival: A,
    pub transport: T,
    pub clock: C,
    pub window: Window,
    pub table: ConnectionTable,
    pub ledger: Ledger,
    pub pacer: Pacer,
    pub numbering: Numbering,
    pub request_timeout: Nanos,
    pub stop: &'a StopSignal,
    pub was_interrupted: bool,
    pub last_cause: Option<CloseCause>,
    pub events: Vec<Event>,
}

impl<A: Arrival, T: Transport, C: Clock> Member<'_, A, T, C> {
    /// Offers the load and returns what became of it.
    pub fn run(mut self) -> Result<MemberResult, CoreError> {
        let cpu_before = cpu_time()?;
        self.table.start(self.window.start);
        let mut offered_until = None;
        loop {
            self.obey_stop();
            let offer = self.dispatch();
            self.flush();
            let now = self.clock.now();
            self.expire(now);
            if offer == Offer::Over {
                let _ = offered_until.get_or_insert(self.offered_until(now));
            } else {
                self.reconnect(now);
            }
            let is_idle = offer == Offer::Over && self.table.live_count() == 0;
            if is_idle || now >= self.window.drain_end {
                break;
            }
            self.wait(offer, now)?;
            self.handle_events();
        }
        self.give_up_rest();
        let cpu_after = cpu_time()?;
        let spent = |after: Nanos, before: Nanos| before.until(after);
        Ok(MemberResult {
            ledger: self.ledger,
            pacing_lag: self.pacer.into_lag(),
            cpu: CpuTime {
                user: spent(cpu_after.user, cpu_before.user),
                system: spent(cpu_after.system, cpu_before.system),
            },
            started_at: self.window.start,
            offered_until: offered_until.unwrap_or(self.window.offer_end),
            ended_at: self.clock.now(),
            was_interrupted: self.was_interrupted,
        })
    }

    /// Cuts the phases short once the run was told to stop.
    fn obey_stop(&mut self) {
        if self.was_interrupted || !self.stop.is_raised() {
            return;
        }
        self.was_interrupted = true;
        let now = self.clock.now();
        self.window.offer_end = self.window.offer_end.min(now);
        self.window.drain_end = self.window.drain_end.min(now.later_by(STOP_DRAIN));
    }

    /// Puts what is due on free places, and says what comes next.
    fn dispatch(&mut self) -> Offer {
        let now = self.clock.now();
        for _ in 0..BATCH_MAX {
            let offer = self.next_offer(now);
            let Offer::At(intended_at) = offer else {
                return offer;
            };
            if intended_at > now {
                return offer;
            }
            let has_slot = self.table.oldest_free_at().is_some();
            let is_late = intended_at.later_by(self.request_timeout) <= now;
            if is_late || (!has_slot && self.table.is_lost()) {
                let scheduled = self.arrival.take(intended_at);
                self.keep_unsent(&scheduled);
            } else if has_slot {
                self.put_on_connection(intended_at);
            } else {
                return Offer::WaitingForSlot;
            }
        }
        Offer::At(now)
    }

    fn next_offer(&self, now: Nanos) -> Offer {
        match self.arrival.due_at(self.table.oldest_free_at()) {
            Some(at) if at < self.window.offer_end => Offer::At(at),
            Some(_) => Offer::Over,
            None if self.arrival.is_exhausted() || self.table.is_lost() => Offer::Over,
            None if now >= self.window.offer_end => Offer::Over,
            None => Offer::WaitingForSlot,
        }
    }

    /// Until when there was an offer, asked once it is over.
    fn offered_until(&self, now: Nanos) -> Nanos {
        let is_cut = self.arrival.is_exhausted() || self.table.is_lost();
        if is_cut {
            now.min(self.window.offer_end)
        } else {
            self.window.offer_end
        }
    }

    fn put_on_connection(&mut self, intended_at: Nanos) {
        let scheduled = self.arrival.take(intended_at);
        let phase = self.window.phase_of(intended_at);
        if let Some(connection) = self.table.assign(scheduled, phase) {
            let request = Request {
                request_id: scheduled.request_id,
                demand: scheduled.demand,
            };
            self.transport.send(connection, &request);
        }
    }

    /// Hands over what was put on connections; the instant just before is *sent*.
    fn flush(&mut self) {
        while let Some(connection) = self.table.next_unflushed() {
            let sent_at = self.clock.now();
            let pacer = &mut self.pacer;
            self.table.stamp(connection, sent_at, |flight| {
                if flight.phase == Phase::Measure {
                    let possible_at = flight.scheduled.intended_at.max(flight.slot_free_at);
                    pacer.note_sent(possible_at, sent_at);
                }
            });
            self.transport.flush(connection, &mut self.events);
        }
    }

    fn expire(&mut self, now: Nanos) {
        let (ledger, numbering) = (&mut self.ledger, self.numbering);
        self.table.expire(now, |connection, flight| {
            ledger.keep(&ended(flight, Outcome::Timeout, numbering.of(connection)));
        });
    }

    fn reconnect(&mut self, now: Nanos) {
        while let Some(connection) = self.table.next_retry(now) {
            self.transport.connect(connection, &mut self.events);
        }
    }

    /// Waits for the next thing to do; replies end the wait.
    fn wait(&mut self, offer: Offer, now: Nanos) -> Result<(), CoreError> {
        if !self.events.is_empty() {
            return Ok(());
        }
        let mut until = self.window.drain_end;
        if now < self.window.offer_end {
            until = until.min(self.window.offer_end);
        }
        let retry_at = if offer == Offer::Over {
            None
        } else {
            self.table.retry_at()
        };
        for instant in [self.table.expiry_at(), retry_at].into_iter().flatten() {
            until = until.min(instant);
        }
        let (transport, events) = (&mut self.transport, &mut self.events);
        match offer {
            Offer::At(due_at) if due_at <= until => {
                let _woken = self.pacer.wait_until(&self.clock, due_at, |instant| {
                    transport.wait(instant, events)?;
                    Ok(if events.is_empty() {
                        Woken::ByTime
                    } else {
                        Woken::ByEvent
                    })
                })?;
                Ok(())
            }
            _ => transport.wait(until, events),
        }
    }

    fn handle_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Connected { connection } => {
                    self.table.bring_up(connection, self.clock.now());
                }
                Event::Reply {
                    connection,
                    reply,
                    first_byte_at,
                    done_at,
                } => {
                    if self.table.is_up(connection) {
                        self.handle_reply(connection, &reply, first_byte_at, done_at);
                    }
                }
                Event::Closed {
                    connection,
                    cause,
                    first_byte_at,
                } => {
                    if self.table.is_in_use(connection) {
                        self.lose(connection, cause, first_byte_at);
                    }
                }
            }
        }
        // Handling may have lost a connection, but never appends events; keep the allocation.
        self.events = events;
    }

    fn handle_reply(
        &mut self,
        connection: usize,
        reply: &Reply,
        first_byte_at: Nanos,
        done_at: Nanos,
    ) {
        let Ok(flight) = self.table.complete(connection, reply.request_id, done_at) else {
            self.transport.disconnect(connection);
            let cause = CloseCause::Protocol("a reply that answers no request".into());
            self.lose(connection, cause, Some(first_byte_at));
            return;
        };
        if flight.is_expired {
            return;
        }
        let outcome = if reply.is_ok() {
            Outcome::Ok
        } else {
            Outcome::ApplicationError
        };
        self.ledger.keep(&RequestRecord {
            first_byte_at: Some(first_byte_at),
            done_at: Some(done_at),
            server_service: reply.service,
            ..ended(&flight, outcome, self.numbering.of(connection))
        });
    }

    /// Records what was on a connection that is gone.
    fn lose(&mut self, connection: usize, cause: CloseCause, first_byte_at: Option<Nanos>) {
        let flights = self.table.take_down(connection, self.clock.now());
        for (position, flight) in flights.iter().enumerate() {
            // Bytes that are no reply belong to the oldest request; the others just lost their connection.
            let is_oldest = position == 0;
            let outcome = match &cause {
                CloseCause::Protocol(_) if is_oldest => Outcome::ProtocolError,
                _ => Outcome::Reset,
            };
            self.ledger.keep(&RequestRecord {
                first_byte_at: first_byte_at.filter(|_| is_oldest),
                ..ended(flight, outcome, self.numbering.of(connection))
            });
        }
        self.last_cause = Some(cause);
    }

    fn keep_unsent(&mut self, scheduled: &Scheduled) {
        let is_refused =
            self.table.is_down() && matches!(self.last_cause, Some(CloseCause::Refused(_)));
        self.ledger.keep(&RequestRecord {
            intended_at: scheduled.intended_at,
            sent_at: None,
            first_byte_at: None,
            done_at: None,
            outcome: if is_refused {
                Outcome::Refused
            } else {
                Outcome::Unsent
            },
            connection: None,
            request_id: scheduled.request_id,
            demand: scheduled.demand,
            server_service: None,
            phase: self.window.phase_of(scheduled.intended_at),
        });
    }

    /// At the end: what waits for a reply timed out, what waits for a place was never sent.
    fn give_up_rest(&mut self) {
        for (connection, flight) in self.table.drain() {
            let connection = self.numbering.of(connection);
            self.ledger
                .keep(&ended(&flight, Outcome::Timeout, connection));
        }
        while let Some(intended_at) = self.arrival.due_at(None) {
            if intended_at >= self.window.offer_end {
                break;
            }
            let scheduled = self.arrival.take(intended_at);
            self.keep_unsent(&scheduled);
        }
    }
}

/// The record of a request that was on a connection; without a reply so far.
fn ended(flight: &Flight, outcome: Outcome, connection: u32) -> RequestRecord {
    RequestRecord {
        intended_at: flight.scheduled.intended_at,
        sent_at: flight.sent_at,
        first_byte_at: None,
        done_at: None,
        outcome,
        connection: Some(connection),
        request_id: flight.scheduled.request_id,
        demand: flight.scheduled.demand,
        server_service: None,
        phase: flight.phase,
    }
}

fn cpu_time() -> Result<CpuTime, CoreError> {
    sys::thread_cpu_time().map_err(|source| CoreError::System {
        call: "getrusage",
        source,
    })
}
