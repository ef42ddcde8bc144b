//! The send loop: one thread's part of a load, generic over arrival, transport and clock.
//!
//! There is no queue of waiting requests. A request that is due while every place
//! is taken stays at the head of its schedule, keeps its intended instant, and is sent
//! when a place becomes free; so an overload takes no memory and hides no delay.
//! The clock is read once a turn, unless what is due follows from replies that were just read, once for each
//! connection that something is sent on, and once (by the transport) for each read.

use crate::arrival::{Arrival, Scheduled, Share};
use crate::clock::Clock;
use crate::engine::failures::reasons;
use crate::engine::ledger::{Ledger, MemberResult};
use crate::engine::placement::Sightings;
use crate::engine::plan::LoadPlan;
use crate::engine::table::ConnectionTable;
use crate::engine::watch::Slot;
use crate::engine::window::Window;
use crate::error::CoreError;
use crate::histogram::Histogram;
use crate::pacer::{Pacer, Woken};
use crate::stop::{Order, StopSignal};
use crate::sys::{self, ThreadUsage};
use crate::transport::runs::RequestRun;
use crate::transport::{CloseCause, Event, Request, Traffic, Transport};
use crate::units::Nanos;

/// Requests started in a row before the connections are looked at again.
const BATCH_MAX: u32 = 256;

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
    /// When the replies were read that were handled since the clock was looked at.
    pub read_at: Option<Nanos>,
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
            let now = self.present();
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

    /// The present instant, as far as it matters to what is due: where that follows from replies, the
    /// instant at which they were read will do, and a look at the clock is spared.
    #[inline]
    fn present(&mut self) -> Nanos {
        let read_at = self.read_at.take();
        let known = read_at.filter(|_| self.arrival.follows_replies());
        known.unwrap_or_else(|| self.clock.now())
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
        let mut left = BATCH_MAX;
        while left > 0 {
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
                self.ledger.note_due(intended_at, 1, self.slot);
                self.keep_unsent(&scheduled, reasons::UNSENT_LATE);
                left -= 1;
            } else if has_slot {
                left -= self.put_on_connection(intended_at, left);
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

    /// Puts what is due at this instant on the place that waits longest: a request, or up to `most`
    /// where several are due and several places wait equally long; how many.
    #[inline]
    fn put_on_connection(&mut self, intended_at: Nanos, most: u32) -> u32 {
        let most = self.table.run_max().min(most);
        let (scheduled, count) = self.arrival.take_run(intended_at, most);
        let phase = self.window.phase_of(intended_at);
        self.ledger.note_due(intended_at, count, self.slot);
        if let Some((connection, slot_free_at)) = self.table.assign((scheduled, count), phase) {
            let instants = (intended_at, slot_free_at);
            self.ledger.note_place(phase, count, instants);
            let run = RequestRun {
                first: asked(&scheduled),
                count,
                step: self.table.id_step(),
            };
            self.transport.send_run(connection, &run);
        }
        count
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
