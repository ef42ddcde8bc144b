//! Before the load: connections are made and all threads meet at one instant.

use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::Errno;

use crate::clock::Clock;
use crate::engine::Job;
use crate::error::CoreError;
use crate::histogram::Histogram;
use crate::transport::{CloseCause, Event, Transport};
use crate::units::Nanos;

/// Some connection has to be made within this time, or the target does not answer.
const CONNECT_TIMEOUT: Nanos = Nanos::new(5_000_000_000);

/// All connections of a thread have to be made within the time above and this much for each.
const CONNECT_TIME_EACH: Nanos = Nanos::new(10_000_000);

/// Connections of one thread that are being made at once: below any server's backlog.
const CONNECTING_MAX: usize = 64;

/// Pause before a unix socket with a full backlog is tried again.
const BACKLOG_PAUSE: Nanos = Nanos::new(1_000_000);

/// Where threads meet before the load starts.
#[derive(Debug)]
pub(super) struct StartLine {
    members: u32,
    lead: Nanos,
    agreed: Option<Nanos>,
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LineState {
    arrived: u32,
    gone: u32,
    start: Option<Nanos>,
}

/// What came of waiting at the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// All begin at this instant.
    At(Nanos),
    /// Another thread has ended before.
    Cancelled,
}

impl StartLine {
    /// A line for this many threads: they start at the agreed instant, or `lead` after the last has come.
    pub fn new(members: u32, lead: Nanos, agreed: Option<Nanos>) -> Self {
        Self {
            members,
            lead,
            agreed,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits until all are here.
    ///
    /// # Errors
    /// [`CoreError::StartMissed`] to the last one that comes, when the agreed instant is over.
    pub fn arrive(&self, clock: &impl Clock) -> Result<Start, CoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrived += 1;
        if state.arrived == self.members {
            let now = clock.now();
            if let Some(late) = self.agreed.and_then(|agreed| now.checked_sub(agreed)) {
                return Err(CoreError::StartMissed { late });
            }
            state.start = Some(self.agreed.unwrap_or(now.later_by(self.lead)));
            self.changed.notify_all();
        }
        while state.start.is_none() && state.gone == 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.start.map_or(Start::Cancelled, Start::At))
    }

    /// Tells the others when its thread ends, however it ends.
    pub fn guard(&self) -> LineGuard<'_> {
        LineGuard(self)
    }
}

/// See [`StartLine::guard`].
pub(super) struct LineGuard<'a>(&'a StartLine);

impl Drop for LineGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gone += 1;
        self.0.changed.notify_all();
    }
}

/// Makes the connections of one thread, a few at once; ends early when told to stop.
///
/// How long each took is noted in `times`.
pub(super) fn connect_all(
    job: &Job<'_>,
    transport: &mut impl Transport,
    clock: &impl Clock,
    times: &mut Histogram,
) -> Result<(), CoreError> {
    let mut dial = Dial::new(job, clock.now());
    let mut events = Vec::new();
    while dial.made < dial.began.len() && !job.stop.is_raised() {
        dial.begin_more(transport, clock, &mut events);
        if events.is_empty() {
            transport.wait(dial.deadline(), &mut events)?;
        }
        for event in events.drain(..) {
            dial.handle(event, clock.now(), times)?;
        }
        if !dial.to_retry.is_empty() {
            transport.wait(clock.now().later_by(BACKLOG_PAUSE), &mut events)?;
        }
        dial.check_time(clock.now())?;
    }
    Ok(())
}

/// How far a thread has come with its connections.
struct Dial<'a> {
    job: &'a Job<'a>,
    /// When each connection was begun; `None` when it is not, or has been made.
    began: Vec<Option<Nanos>>,
    begun: usize,
    made: usize,
    to_retry: Vec<usize>,
    last_made_at: Nanos,
    deadline: Nanos,
}

impl<'a> Dial<'a> {
    fn new(job: &'a Job<'a>, now: Nanos) -> Self {
        let total = job.connections();
        let for_each = CONNECT_TIME_EACH.get().saturating_mul(total as u64);
        Self {
            job,
            began: vec![None; total],
            begun: 0,
            made: 0,
            to_retry: Vec::new(),
            last_made_at: now,
            deadline: now.later_by(CONNECT_TIMEOUT).later_by(Nanos::new(for_each)),
        }
    }

    /// When it is too late for more.
    fn deadline(&self) -> Nanos {
        self.deadline
            .min(self.last_made_at.later_by(CONNECT_TIMEOUT))
    }

    fn begin_more(
        &mut self,
        transport: &mut impl Transport,
        clock: &impl Clock,
        events: &mut Vec<Event>,
    ) {
        for connection in self.to_retry.drain(..) {
            transport.connect(connection, events);
        }
        while self.begun < self.began.len() && self.begun < self.made + CONNECTING_MAX {
            self.began[self.begun] = Some(clock.now());
            transport.connect(self.begun, events);
            self.begun += 1;
        }
    }

    fn handle(&mut self, event: Event, now: Nanos, times: &mut Histogram) -> Result<(), CoreError> {
        match event {
            Event::Connected { connection } => {
                if let Some(began_at) = self.began[connection].take() {
                    times.record(began_at.until(now));
                    self.made += 1;
                    self.last_made_at = now;
                }
            }
            Event::Closed {
                connection, cause, ..
            } => {
                let is_made = self.began[connection].is_none();
                match cause {
                    CloseCause::Refused(code) if code == Errno::AGAIN.raw_os_error() => {}
                    CloseCause::Announced | CloseCause::Spent if is_made => {
                        self.began[connection] = Some(now);
                        self.made -= 1;
                    }
                    cause => return Err(self.failed(connection, reason(cause))),
                }
                self.to_retry.push(connection);
            }
            // An end follows, and with it a new connection.
            Event::Reply { .. } | Event::Replies { .. } | Event::Draining { .. } => {}
        }
        Ok(())
    }

    fn check_time(&self, now: Nanos) -> Result<(), CoreError> {
        if now < self.deadline() || self.made == self.began.len() {
            return Ok(());
        }
        let first = self.began.iter().position(Option::is_some);
        let source = std::io::ErrorKind::TimedOut.into();
        Err(self.failed(first.unwrap_or_default(), source))
    }

    fn failed(&self, connection: usize, source: std::io::Error) -> CoreError {
        let Job { plan, thread, .. } = *self.job;
        CoreError::Connect {
            target: plan.target_text_of(thread.number_of(connection)),
            connection: thread.number_of(connection),
            total: plan.connections,
            source,
        }
    }
}

fn reason(cause: CloseCause) -> std::io::Error {
    match cause {
        CloseCause::Refused(code) => std::io::Error::from_raw_os_error(code),
        CloseCause::Reset | CloseCause::Announced | CloseCause::Spent => {
            std::io::ErrorKind::ConnectionReset.into()
        }
        CloseCause::Silent => std::io::ErrorKind::TimedOut.into(),
        CloseCause::Protocol(text) => {
            std::io::Error::new(std::io::ErrorKind::InvalidData, String::from(text))
        }
    }
}
