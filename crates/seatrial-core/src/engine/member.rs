//! The send loop: one thread's part of a load, generic over arrival, transport and clock.
//!
//! There is no queue of waiting requests. A request that is due while every place
//! is taken stays at the head of its schedule, keeps its intended instant, and is sent
//! when a place becomes free; so an overload takes no memory and hides no delay.
//! The clock is read once a turn, once for each connection that something is sent on, and once
//! (by the transport) for each read.

use crate::arrival::{Arrival, Scheduled, Share};
use crate::clock::Clock;
use crate::engine::endings::Arrived;
use crate::engine::failures::reasons;
use crate::engine::flights::Flight;
use crate::engine::ledger::{Answer, Ledger, MemberResult};
use crate::engine::placement::Sightings;
use crate::engine::plan::LoadPlan;
use crate::engine::table::{Answered, ConnectionTable};
use crate::engine::watch::Slot;
use crate::engine::window::Window;
use crate::error::CoreError;
use crate::histogram::Histogram;
use crate::pacer::{Pacer, Woken};
use crate::record::Outcome;
use crate::stop::{Order, StopSignal};
use crate::sys::{self, ThreadUsage};
use crate::transport::{CloseCause, Event, Reply, Request, Traffic, Transport};
use crate::units::Nanos;

/// Requests started in a row before the connections are looked at again.
const BATCH_MAX: usize = 256;

/// Turns of the loop between two looks at which CPU it runs on.
const TURNS_PER_SIGHTING: u32 = 64;

/// How long replies are waited for once the run was told to stop.
const STOP_DRAIN: Nanos = Nanos::new(20_000_000);

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
    /// How long connections took to make.
    pub connect: Histogram,
    /// Where to tell what happens, when somebody looks.
    pub slot: Option<&'a Slot>,
    pub pacer: Pacer,
    /// Which thread of this agent it is: decides the numbers of its connections.
    pub thread: Share,
    pub plan: &'a LoadPlan,
    pub stop: &'a StopSignal,
    /// The strongest order that was carried out.
    pub obeyed: Order,
    pub was_finished_early: bool,
    pub last_cause: Option<CloseCause>,
    pub sightings: Sightings,
    pub turns: u32,
    /// Bytes moved before what is handled now was read.
    pub moved: Traffic,
    pub events: Vec<Event>,
}

impl<A: Arrival, T: Transport, C: Clock> Member<'_, A, T, C> {
    /// Offers the load and returns what became of it.
    pub fn run(mut self) -> Result<MemberResult, CoreError> {
        let before = usage()?;
        self.moved = self.transport.traffic();
        self.ledger.note_traffic_before(self.moved);
        if let Some(slot) = self.slot {
            slot.begin(self.window.start, self.ledger.timeline.clone());
        }
        let arrival = &mut self.arrival;
        self.table.start(self.window.start, || arrival.think());
        let mut offered_until = None;
        loop {
            self.obey();
            self.look_around();
            let now = self.clock.now();
            self.roll(now);
            // First, because what expires may free a place for what is due.
            if now >= self.table.expiry_at() {
                self.expire(now);
            }
            let offer = self.dispatch(now);
            self.flush();
            if offer == Offer::Over {
                let until = *offered_until.get_or_insert(self.offered_until(now));
                // What comes later is not of the phase whose length is told.
                self.window.measure_end = self.window.measure_end.min(until);
            }
            if offer != Offer::Over || self.table.has_returned() {
                self.reconnect(now);
            }
            let is_idle = offer == Offer::Over && self.table.live_count() == 0;
            if is_idle || now >= self.window.drain_end {
                break;
            }
            self.arrival.prepare();
            self.wait(offer, now)?;
            self.handle_events();
        }
        self.give_up_rest();
        let ended_at = self.clock.now();
        self.moved = self.transport.traffic();
        self.close_interval(ended_at);
        if let Some(slot) = self.slot {
            slot.end();
        }
        let counted_until = self.counted_until();
        let offered_until = offered_until.unwrap_or(self.window.offer_end);
        Ok(MemberResult {
            ledger: self.ledger,
            connect: self.connect,
            guard: self.pacer.guard(),
            usage: usage()?.since(&before),
            sightings: self.sightings,
            traffic: self.transport.traffic(),
            transport: self.transport.report(),
            started_at: self.window.start,
            measure_start: self.window.measure_start,
            measure_end: self.window.measure_end.min(offered_until),
            counted_until,
            ended_at,
            was_interrupted: self.obeyed == Order::Stop,
            was_finished_early: self.was_finished_early,
        })
    }

    /// Cuts the phases short once the run was told to.
    fn obey(&mut self) {
        let order = self.stop.order();
        if order <= self.obeyed {
            return;
        }
        let now = self.clock.now();
        match order {
            Order::Run => {}
            Order::Finish => {
                self.was_finished_early = now < self.window.offer_end;
                self.window.cut(now, self.plan.drain);
            }
            Order::Stop => self.window.cut(now, STOP_DRAIN),
        }
        self.obeyed = order;
    }

    /// Goes on to the interval in which `now` is.
    #[inline]
    pub(super) fn roll(&mut self, now: Nanos) {
        if now >= self.ledger.interval_end() {
            self.close_interval(now);
        }
    }

    fn close_interval(&mut self, now: Nanos) {
        self.ledger.close_interval(now, self.moved, self.slot);
    }

    /// Looks from time to time at which CPU this is.
    fn look_around(&mut self) {
        if self.turns % TURNS_PER_SIGHTING == 0 {
            self.sightings.note();
        }
        self.turns = self.turns.wrapping_add(1);
    }

    /// Puts what is due on free places, and says what comes next.
    fn dispatch(&mut self, now: Nanos) -> Offer {
        if self.table.has_returned() {
            self.send_again(now);
        }
        for _ in 0..BATCH_MAX {
            let slot_free_at = self.table.oldest_free_at();
            let offer = self.next_offer(now, slot_free_at);
            let Offer::At(intended_at) = offer else {
                return offer;
            };
            if intended_at > now {
                return offer;
            }
            let has_slot = slot_free_at.is_some();
            let is_late = intended_at.later_by(self.plan.request_timeout) <= now;
            if is_late || (!has_slot && self.table.is_lost()) {
                let scheduled = self.arrival.take(intended_at);
                self.ledger.note_due(intended_at, self.slot);
                self.keep_unsent(&scheduled, reasons::UNSENT_LATE);
            } else if has_slot {
                self.put_on_connection(intended_at);
            } else {
                return Offer::WaitingForSlot;
            }
        }
        Offer::At(now)
    }

    #[inline]
    fn next_offer(&self, now: Nanos, slot_free_at: Option<Nanos>) -> Offer {
        match self.arrival.due_at(slot_free_at) {
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
        let until = if is_cut { now } else { Nanos::MAX };
        until.min(self.window.offer_end)
    }

    /// Until when replies were counted: where the requests ran out, until the last reply.
    fn counted_until(&self) -> Nanos {
        match self.ledger.achieved_at {
            Some(at) if self.arrival.is_exhausted() => at,
            _ => self.window.measure_end,
        }
    }

    fn put_on_connection(&mut self, intended_at: Nanos) {
        let scheduled = self.arrival.take(intended_at);
        let phase = self.window.phase_of(intended_at);
        self.ledger.note_due(intended_at, self.slot);
        if let Some((connection, slot_free_at)) = self.table.assign(scheduled, phase) {
            self.ledger.note_place(phase, intended_at, slot_free_at);
            self.transport.send(connection, &asked(&scheduled));
        }
    }

    /// Hands over what was put on connections; the instant just before is *sent*.
    fn flush(&mut self) {
        while let Some(connection) = self.table.next_unflushed() {
            let sent_at = self.clock.now();
            self.roll(sent_at);
            let count = self.table.stamp(connection, sent_at);
            self.ledger.note_sent(count);
            self.transport.flush(connection, &mut self.events);
        }
    }

    fn reconnect(&mut self, now: Nanos) {
        while let Some(connection) = self.table.next_retry(now) {
            self.transport.connect(connection, &mut self.events);
        }
    }

    /// Waits for the next thing to do; replies end the wait.
    fn wait(&mut self, offer: Offer, now: Nanos) -> Result<(), CoreError> {
        self.moved = self.transport.traffic();
        if !self.events.is_empty() {
            return Ok(());
        }
        let mut until = self.window.drain_end;
        if now < self.window.offer_end {
            until = until.min(self.window.offer_end);
        }
        until = until.min(self.table.expiry_at());
        let has_returned = self.table.has_returned();
        if has_returned {
            until = until.min(self.table.oldest_free_at().unwrap_or(Nanos::MAX));
        }
        if offer != Offer::Over || has_returned {
            until = until.min(self.table.retry_at().unwrap_or(Nanos::MAX));
        }
        if offer == Offer::WaitingForSlot {
            // What waits for a place ends at its deadline, whether or not anything else happens then.
            let waiting_at = self.arrival.due_at(None).unwrap_or(Nanos::MAX);
            until = until.min(waiting_at.later_by(self.plan.request_timeout));
        }
        if self.slot.is_some() {
            until = until.min(self.ledger.interval_end());
        }
        let (transport, events) = (&mut self.transport, &mut self.events);
        let (stop, obeyed) = (self.stop, self.obeyed);
        let poll = |instant| {
            transport.wait(instant, events)?;
            let has_news = !events.is_empty() || stop.order() > obeyed;
            Ok(if has_news {
                Woken::ByEvent
            } else {
                Woken::ByTime
            })
        };
        let _woken = match offer {
            Offer::At(due_at) if due_at <= until => {
                self.pacer.wait_until(&self.clock, due_at, poll)?
            }
            _ => self.pacer.idle_until(&self.clock, until, poll)?,
        };
        Ok(())
    }

    fn handle_events(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        // They are looked at where they are: one is written and read for each reply.
        for event in &events {
            match event {
                Event::Reply {
                    connection,
                    reply,
                    first_byte_at,
                    done_at,
                    kernel,
                } => {
                    if self.table.is_up(*connection) {
                        let arrived = Arrived {
                            first_byte_at: *first_byte_at,
                            done_at: *done_at,
                            kernel: kernel.as_deref(),
                        };
                        self.handle_reply(*connection, reply, arrived);
                    }
                }
                Event::Connected { connection } => {
                    let now = self.clock.now();
                    let think = || self.arrival.think();
                    if let Some(time) = self.table.bring_up(*connection, now, think) {
                        self.connect.record(time);
                    }
                }
                Event::Draining {
                    connection,
                    unserved,
                } => {
                    if self.table.is_up(*connection) {
                        self.drain(*connection, unserved);
                    }
                }
                Event::Closed {
                    connection,
                    cause,
                    first_byte_at,
                } => {
                    if self.table.is_in_use(*connection) {
                        self.lose(*connection, cause.clone(), *first_byte_at);
                    }
                }
            }
        }
        events.clear();
        // Handling may have lost a connection, but never appends events; keep the allocation.
        self.events = events;
        self.moved = self.transport.traffic();
    }

    #[inline]
    fn handle_reply(&mut self, connection: usize, reply: &Reply, arrived: Arrived<'_>) {
        let done_at = arrived.done_at;
        self.roll(done_at);
        let think = || self.arrival.think();
        let answered = self
            .table
            .complete(connection, reply.request_id, done_at, think);
        let flight = match answered {
            Answered::Flight(flight) => flight,
            Answered::Late => {
                self.ledger.late_reply_count += 1;
                return;
            }
            Answered::Nobody => {
                self.transport.disconnect(connection);
                let cause = CloseCause::Protocol("a reply that answers no request".into());
                self.lose(connection, cause, Some(arrived.first_byte_at));
                return;
            }
        };
        if let Some(text) = &reply.failure {
            let record = self.answered(&flight, reply, arrived, Outcome::ApplicationError);
            self.ledger.note_lag(&flight);
            self.ledger.keep_failed(&record, text);
        } else {
            self.count_ok(&flight, reply, arrived);
        }
    }

    /// Counts a correct reply. Its record is made only if it belongs to the sample.
    #[inline]
    fn count_ok(&mut self, flight: &Flight, reply: &Reply, arrived: Arrived<'_>) {
        let done_at = arrived.done_at;
        if let Some(note) = reply.note {
            self.ledger.failures.count(Outcome::Ok, note, 1);
        }
        let connection = self.thread.number_of(flight.connection as usize);
        if self.window.is_counted(done_at) {
            self.ledger.note_achieved(connection, done_at);
        }
        // Nothing is answered that was not sent; the table sees to it.
        if let Some(sending) = flight.sending() {
            self.ledger.count_ok(Answer {
                sending,
                done_at,
                phase: flight.phase,
                connection,
            });
        }
        if let Some(kernel) = arrived.kernel {
            self.ledger.note_kernel(flight.phase, done_at, kernel);
        }
        if self.ledger.records.wants(flight.scheduled.request_id) {
            let record = self.answered(flight, reply, arrived, Outcome::Ok);
            self.ledger.records.push(&record);
        }
    }
}

/// What a transport has to know of a request.
pub(super) const fn asked(scheduled: &Scheduled) -> Request {
    Request {
        request_id: scheduled.request_id,
        demand: scheduled.demand,
    }
}

fn usage() -> Result<ThreadUsage, CoreError> {
    sys::thread_usage().map_err(|source| CoreError::System {
        call: "getrusage",
        source,
    })
}
