//! The other part of the send loop: requests whose time is over, whose connection ends, or that find no place,
//! and the records of those of which one is kept.

use crate::arrival::{Arrival, Scheduled};
use crate::clock::Clock;
use crate::engine::failures::reasons;
use crate::engine::flights::Flight;
use crate::engine::ledger::blank;
use crate::engine::member::{Member, asked};
use crate::record::{Outcome, RequestRecord};
use crate::transport::{CloseCause, Transport};
use crate::units::Nanos;

impl<A: Arrival, T: Transport, C: Clock> Member<'_, A, T, C> {
    /// Ends what is past its deadline, and connections that will not answer any more.
    #[cold]
    pub(super) fn expire(&mut self, now: Nanos) {
        while let Some(flight) = self.table.next_expired(now, || self.arrival.think()) {
            for one in flight.each(self.table.id_step()) {
                self.keep_timed_out(&one, reasons::TIMEOUT_LATE);
                let (connection, id) = (one.connection as usize, one.scheduled.request_id);
                self.transport.abandon(connection, id, &mut self.events);
            }
        }
        while let Some(flight) = self.table.next_returned(now) {
            self.keep_timed_out(&flight, reasons::TIMEOUT_UNSERVED);
        }
        while let Some(connection) = self.table.next_silent(now) {
            self.transport.disconnect(connection);
            self.lose(connection, CloseCause::Silent, None);
        }
    }

    /// Puts requests that a peer has left alone on places that are free by now.
    #[cold]
    pub(super) fn send_again(&mut self, now: Nanos) {
        while let Some((connection, before)) = self.table.reassign(now) {
            self.ledger.note_resent(&before);
            self.transport.send(connection, &asked(&before.scheduled));
        }
    }

    /// Leaves a connection alone whose peer will end it, and takes back what that peer will not serve.
    #[cold]
    pub(super) fn drain(&mut self, connection: usize, unserved: &[u64]) {
        let now = self.clock.now();
        self.table.drain(connection);
        for id in unserved {
            self.table.take_back(connection, *id, now);
        }
    }

    /// Records what was on a connection that is gone.
    pub(super) fn lose(
        &mut self,
        connection: usize,
        cause: CloseCause,
        first_byte_at: Option<Nanos>,
    ) {
        let now = self.clock.now();
        self.roll(now);
        let is_unserved = cause == CloseCause::Spent;
        let is_announced = is_unserved || cause == CloseCause::Announced;
        self.table.take_down(connection, now, is_announced);
        let mut first_byte_at = first_byte_at;
        let mut is_oldest = true;
        if is_unserved {
            self.table.take_all_back(connection, now);
        }
        while let Some(flight) = self.table.next_stranded(connection, now) {
            let (outcome, text) = reasons::of_loss(&cause, is_oldest);
            let ended = self.ended(&flight, outcome);
            let is_of_reply = |at: &Nanos| ended.sent_at.is_some_and(|sent_at| sent_at <= *at);
            let record = RequestRecord {
                // What came before, such as a session ticket, answers nothing.
                first_byte_at: first_byte_at.take().filter(is_of_reply),
                ..ended
            };
            self.ledger.note_lag(&flight);
            self.ledger.keep_failed(&record, text);
            is_oldest = false;
        }
        self.last_cause = Some(cause);
    }

    /// Keeps a request that was on a connection and got no whole reply in time.
    fn keep_timed_out(&mut self, flight: &Flight, text: &str) {
        let record = self.ended(flight, Outcome::Timeout);
        self.ledger.note_lag(flight);
        self.ledger.keep_failed(&record, text);
    }

    /// Keeps a request that found no place in time.
    pub(super) fn keep_unsent(&mut self, scheduled: &Scheduled, text: &str) {
        let refused = match self.last_cause {
            Some(CloseCause::Refused(code)) if self.table.is_down() => Some(code),
            _ => None,
        };
        let outcome = if refused.is_some() {
            Outcome::Refused
        } else {
            Outcome::Unsent
        };
        let phase = self.window.phase_of(scheduled.intended_at);
        let record = RequestRecord {
            intended_at: scheduled.intended_at,
            request_id: scheduled.request_id,
            demand: scheduled.demand,
            ..blank(outcome, phase)
        };
        match refused {
            None => self.ledger.keep_failed(&record, text),
            Some(code) => {
                let told = std::io::Error::from_raw_os_error(code).to_string();
                self.ledger.keep_failed(&record, &told);
            }
        }
    }

    /// At the end: what waits for a reply timed out, what waits for a place was never sent.
    pub(super) fn give_up_rest(&mut self) {
        while let Some(flight) = self.table.next_waiting() {
            self.keep_timed_out(&flight, reasons::TIMEOUT_AT_END);
        }
        while let Some(flight) = self.table.next_returned(Nanos::MAX) {
            self.keep_timed_out(&flight, reasons::TIMEOUT_UNSERVED);
        }
        while let Some(intended_at) = self.arrival.due_at(None) {
            if intended_at >= self.window.offer_end {
                break;
            }
            let scheduled = self.arrival.take(intended_at);
            self.ledger.note_due(intended_at, 1, self.slot);
            self.keep_unsent(&scheduled, reasons::UNSENT_AT_END);
        }
    }

    /// The record of a request that was on a connection; without a reply so far.
    pub(super) fn ended(&self, flight: &Flight, outcome: Outcome) -> RequestRecord {
        RequestRecord {
            intended_at: flight.scheduled.intended_at,
            sent_at: flight.sent_at(),
            connection: Some(self.thread.number_of(flight.connection as usize)),
            request_id: flight.scheduled.request_id,
            demand: flight.scheduled.demand,
            ..blank(outcome, flight.phase)
        }
    }
}
