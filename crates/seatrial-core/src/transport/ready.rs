//! The epoll set of one thread, and what it has reported and nobody looked at yet.
//!
//! Reported connections are handed out one at a time, so that the engine can answer the
//! replies of one before the next is read: the server works meanwhile, and a request that
//! falls due does not wait until a whole batch of replies was read.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::error::CoreError;
use crate::stop::StopSignal;
use crate::sys::{EpollEvent, epoll_wait_ns};
use crate::units::Nanos;

/// Events taken from the kernel at once; more are reported by the next wait.
const EVENTS_MAX: usize = 256;

/// Marks the stop signal among the connections of the epoll set.
const STOP_TOKEN: u64 = u64::MAX;

/// A connection as it was when it was put into the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Its number among those of the thread.
    pub connection: u32,
    /// How often it had been made before; what was reported of an earlier one is void.
    pub generation: u32,
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.connection))
    }

    #[allow(clippy::cast_possible_truncation)] // the two halves of what `data` put together
    const fn of(data: u64) -> Self {
        Self {
            connection: data as u32,
            generation: (data >> 32) as u32,
        }
    }
}

/// What the kernel reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub token: Token,
    /// Whether it has an error or something in its error queue, where the stamps of what was
    /// sent are.
    pub has_error: bool,
}

/// An epoll set with the connections of one thread and the stop signal.
pub(super) struct ReadySet {
    epoll: OwnedFd,
    reported: Vec<EpollEvent>,
    /// What of `reported` is still to be looked at.
    next: usize,
    count: usize,
    /// Keeps the descriptor open that the epoll set watches.
    _stop: Arc<StopSignal>,
}

impl ReadySet {
    pub fn new(stop: Arc<StopSignal>) -> Result<Self, CoreError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(CoreError::system("epoll_create1"))?;
        let data = EventData::new_u64(STOP_TOKEN);
        // Edge-triggered: told once, so that a load which drains does not wake for it again and again.
        let once = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, stop.as_fd(), data, once).map_err(CoreError::system("epoll_ctl"))?;
        Ok(Self {
            epoll,
            reported: vec![EpollEvent { events: 0, u64: 0 }; EVENTS_MAX],
            next: 0,
            count: 0,
            _stop: stop,
        })
    }

    /// Watches a descriptor; closing it takes it out again.
    pub fn add(&self, fd: impl AsFd, token: Token, interest: EventFlags) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, token.data(), interest)
    }

    pub fn modify(&self, fd: impl AsFd, token: Token, interest: EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.epoll, fd, token.data(), interest)
    }

    /// Whether everything that was reported has been looked at.
    pub fn is_empty(&self) -> bool {
        self.next == self.count
    }

    /// Asks the kernel, once everything has been looked at.
    pub fn wait(&mut self, timeout: Nanos) -> Result<(), CoreError> {
        self.next = 0;
        self.count = 0;
        self.count =
            epoll_wait_ns(self.epoll.as_fd(), &mut self.reported, timeout).map_err(|source| {
                CoreError::System {
                    call: "epoll_pwait2",
                    source,
                }
            })?;
        Ok(())
    }

    /// The next connection that was reported.
    pub fn take(&mut self) -> Option<Report> {
        while self.next < self.count {
            let EpollEvent { events, u64: data } = self.reported[self.next];
            self.next += 1;
            if data != STOP_TOKEN {
                return Some(Report {
                    token: Token::of(data),
                    has_error: EventFlags::from_bits_retain(events).contains(EventFlags::ERR),
                });
            }
        }
        None
    }
}
