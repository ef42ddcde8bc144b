//! The part of the send loop that handles what came: replies, and news of connections.

use crate::arrival::Arrival;
use crate::clock::Clock;
use crate::engine::flights::Flight;
use crate::engine::ledger::Answer;
use crate::engine::member::Member;
use crate::engine::table::Answered;
use crate::record::{Outcome, RequestRecord};
use crate::transport::runs::ReplyRun;
use crate::transport::stamps::KernelStamps;
use crate::transport::{CloseCause, Event, Reply, Transport};
use crate::units::Nanos;

/// When a reply came, and what it says about the server's time.
#[derive(Clone, Copy, Debug)]
struct Arrived<'a> {
    first_byte_at: Nanos,
    done_at: Nanos,
    kernel: Option<&'a KernelStamps>,
    service: Option<Nanos>,
}

impl<A: Arrival, T: Transport, C: Clock> Member<'_, A, T, C> {
    pub(super) fn handle_events(&mut self) {
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
                            service: reply.service,
                        };
                        self.handle_reply(*connection, reply, arrived);
                    }
                }
                Event::Replies {
                    connection,
                    run,
                    done_at,
                } => {
                    if self.table.is_up(*connection) {
                        self.handle_run(*connection, *run, *done_at);
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
        let replies = ReplyRun::one(reply.request_id);
        let Answered::Flight(flight) = self.find_answered(connection, &replies, arrived) else {
            return;
        };
        if let Some(text) = &reply.failure {
            let record = self.answered(&flight, arrived, Outcome::ApplicationError);
            self.ledger.note_lag(&flight);
            self.ledger.keep_failed(&record, text);
            return;
        }
        if let Some(note) = reply.note {
            self.ledger.failures.count(Outcome::Ok, note, 1);
        }
        self.count_ok(&flight, arrived);
    }

    /// Handles correct replies that came at once.
    #[inline]
    fn handle_run(&mut self, connection: usize, run: ReplyRun, done_at: Nanos) {
        let arrived = Arrived {
            first_byte_at: done_at,
            done_at,
            kernel: None,
            service: None,
        };
        let mut left = run;
        while left.count > 0 {
            let count = match self.find_answered(connection, &left, arrived) {
                Answered::Flight(flight) => {
                    self.count_ok(&flight, arrived);
                    flight.count()
                }
                Answered::Late(count) => count,
                Answered::Nobody => return, // the connection is gone
            };
            left.skip(count);
        }
    }

    /// Finds what the first of these replies answers; a connection with one that answers nothing is given up.
    #[allow(clippy::inline_always)] // a flight that is handed over in memory costs 10 ns a request
    #[inline(always)]
    fn find_answered(
        &mut self,
        connection: usize,
        replies: &ReplyRun,
        arrived: Arrived<'_>,
    ) -> Answered {
        let done_at = arrived.done_at;
        self.roll(done_at);
        self.read_at = Some(done_at);
        let think = || self.arrival.think();
        let answered = self.table.complete(connection, replies, done_at, think);
        match answered {
            Answered::Flight(_) => {}
            Answered::Late(count) => self.ledger.late_reply_count += u64::from(count),
            Answered::Nobody => self.distrust(connection, arrived.first_byte_at),
        }
        answered
    }

    /// Gives up a connection whose peer answers what nobody has asked.
    #[cold]
    fn distrust(&mut self, connection: usize, first_byte_at: Nanos) {
        self.transport.disconnect(connection);
        let cause = CloseCause::Protocol("a reply that answers no request".into());
        self.lose(connection, cause, Some(first_byte_at));
    }

    /// Counts correct replies to the requests of a flight. Their records are made only if they belong to
    /// the sample.
    #[allow(clippy::inline_always)] // the same
    #[inline(always)]
    fn count_ok(&mut self, flight: &Flight, arrived: Arrived<'_>) {
        let done_at = arrived.done_at;
        let connection = self.thread.number_of(flight.connection as usize);
        let count = flight.count();
        if self.window.is_counted(done_at) {
            self.ledger.note_achieved(connection, done_at, count);
        }
        // Nothing is answered that was not sent; the table sees to it.
        if let Some(sending) = flight.sending() {
            let answer = Answer {
                sending,
                done_at,
                phase: flight.phase,
                connection,
            };
            self.ledger.count_ok(answer, count);
        }
        if let Some(kernel) = arrived.kernel {
            self.ledger.note_kernel(flight.phase, done_at, kernel);
        }
        let (first, step) = (flight.scheduled.request_id, self.table.id_step());
        for index in 0..u64::from(count) {
            let request_id = first + index * step;
            if self.ledger.records.wants(request_id) {
                self.keep_answered(flight, request_id, arrived);
            }
        }
    }

    /// Keeps the record of one of the requests of a flight.
    fn keep_answered(&mut self, flight: &Flight, request_id: u64, arrived: Arrived<'_>) {
        let record = RequestRecord {
            request_id,
            ..self.answered(flight, arrived, Outcome::Ok)
        };
        self.ledger.records.push(&record);
    }

    /// The record of a request that got a whole reply.
    fn answered(&self, flight: &Flight, arrived: Arrived<'_>, outcome: Outcome) -> RequestRecord {
        RequestRecord {
            first_byte_at: Some(arrived.first_byte_at),
            done_at: Some(arrived.done_at),
            server_service: arrived.service,
            kernel: arrived.kernel.copied().unwrap_or(KernelStamps::NONE),
            ..self.ended(flight, outcome)
        }
    }
}
