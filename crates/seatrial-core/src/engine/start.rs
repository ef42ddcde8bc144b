//! Before the load: connections are made and all threads meet at one instant.

use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::Errno;

use crate::clock::Clock;
use crate::engine::Job;
use crate::error::CoreError;
use crate::transport::{CloseCause, Event, Transport};
use crate::units::Nanos;

/// All connections have to be made within this time.
const CONNECT_TIMEOUT: Nanos = Nanos::new(5_000_000_000);

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

    /// Waits until all are here; the common start, or `None` when one of them has ended before.
    pub fn arrive(&self, clock: &impl Clock) -> Option<Nanos> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrived += 1;
        if state.arrived == self.members {
            let soonest = clock.now().later_by(self.lead);
            state.start = Some(self.agreed.unwrap_or(soonest));
            self.changed.notify_all();
        }
        while state.start.is_none() && state.gone == 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.start
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
pub(super) fn connect_all(
    job: &Job<'_>,
    transport: &mut impl Transport,
    clock: &impl Clock,
) -> Result<(), CoreError> {
    let Job {
        plan, thread, stop, ..
    } = *job;
    let total = job.connections();
    let deadline = clock.now().later_by(CONNECT_TIMEOUT);
    let failed = |connection: usize, source| CoreError::Connect {
        target: plan.target_text_of(thread.number_of(connection)),
        connection: thread.number_of(connection),
        total: plan.connections,
        source,
    };
    let mut is_up = vec![false; total];
    let (mut begun, mut made) = (0, 0);
    let mut to_retry = Vec::new();
    let mut events = Vec::new();
    while made < total && !stop.is_raised() {
        for connection in to_retry.drain(..) {
            transport.connect(connection, &mut events);
        }
        while begun < total && begun - made < CONNECTING_MAX {
            transport.connect(begun, &mut events);
            begun += 1;
        }
        if events.is_empty() {
            transport.wait(deadline, &mut events)?;
        }
        for event in events.drain(..) {
            match event {
                Event::Connected { connection } => {
                    is_up[connection] = true;
                    made += 1;
                }
                Event::Closed {
                    connection,
                    cause: CloseCause::Refused(code),
                    ..
                } if code == Errno::AGAIN.raw_os_error() => {
                    to_retry.push(connection);
                }
                Event::Closed {
                    connection, cause, ..
                } => {
                    return Err(failed(connection, reason(cause)));
                }
                Event::Reply { .. } => {}
            }
        }
        if !to_retry.is_empty() {
            transport.wait(clock.now().later_by(BACKLOG_PAUSE), &mut events)?;
        }
        if clock.now() >= deadline && made < total {
            let first = is_up.iter().position(|is_up| !is_up).unwrap_or_default();
            return Err(failed(first, std::io::ErrorKind::TimedOut.into()));
        }
    }
    Ok(())
}

fn reason(cause: CloseCause) -> std::io::Error {
    match cause {
        CloseCause::Refused(code) => std::io::Error::from_raw_os_error(code),
        CloseCause::Reset | CloseCause::Announced => std::io::ErrorKind::ConnectionReset.into(),
        CloseCause::Protocol(text) => {
            std::io::Error::new(std::io::ErrorKind::InvalidData, String::from(text))
        }
    }
}
