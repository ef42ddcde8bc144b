//! One epoll and one timer: everything that the launcher waits for, and the instant at which it
//! was told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::sys::now_ns;

/// Most events taken in one wake-up, which share one stamp.
const EVENTS_MAX: usize = 4096;

/// What an event is about. The order is the order of handling within a wake-up: what a sandbox
/// said counts before its end, and both before a deadline that passed in the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A thread of the pool has reported.
    Report,
    /// A socket on which guests call.
    Listener(u64),
    /// Somebody who has called.
    Caller(u64),
    /// A sandbox's channel.
    Channel(u64),
    /// A sandbox's captured output.
    Output(u64),
    /// A sandbox's direct child has ended.
    Exit(u64),
    /// A sandbox's `kill_argv` has ended.
    CleanUpExit(u64),
    /// A signal for the launcher.
    Signal,
    /// A timer.
    Timer,
    /// The control socket.
    Control,
}

impl Source {
    fn encode(self) -> u64 {
        match self {
            Self::Report => 0,
            Self::Channel(key) => key << 4 | 1,
            Self::Output(key) => key << 4 | 2,
            Self::Exit(key) => key << 4 | 3,
            Self::CleanUpExit(key) => key << 4 | 4,
            Self::Signal => 5,
            Self::Timer => 6,
            Self::Listener(index) => index << 4 | 7,
            Self::Caller(id) => id << 4 | 8,
            Self::Control => 9,
        }
    }

    fn decode(data: u64) -> Self {
        let key = data >> 4;
        match data & 15 {
            0 => Self::Report,
            1 => Self::Channel(key),
            2 => Self::Output(key),
            3 => Self::Exit(key),
            4 => Self::CleanUpExit(key),
            5 => Self::Signal,
            6 => Self::Timer,
            7 => Self::Listener(key),
            8 => Self::Caller(key),
            _ => Self::Control,
        }
    }
}

/// Why a timer was set. A timer that no longer matters is ignored when it goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The goal should have been reached.
    Deadline,
    /// The sandbox should have obeyed `STOP`.
    Grace,
    /// The sandbox should have vanished after `SIGKILL`.
    GiveUp,
    /// The `kill_argv` should have ended.
    CleanUp,
    /// The oldest caller should have said its token.
    Caller,
}

/// The epoll and the timers.
pub struct Reactor {
    epoll: OwnedFd,
    timer: OwnedFd,
    alarms: BinaryHeap<Reverse<(u64, u64, Alarm)>>,
    armed_at_ns: Option<u64>,
    events: Vec<Event>,
}

impl Reactor {
    /// A reactor that waits for nothing yet.
    ///
    /// # Errors
    /// The system refused.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let events = Vec::with_capacity(EVENTS_MAX);
        let reactor = Self {
            epoll,
            timer,
            alarms: BinaryHeap::new(),
            armed_at_ns: None,
            events,
        };
        reactor.watch(&reactor.timer, Source::Timer)?;
        Ok(reactor)
    }

    /// Waits for a descriptor to be readable, until it is closed or [`Reactor::forget`].
    ///
    /// # Errors
    /// The system refused.
    pub fn watch(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(source.encode()),
            EventFlags::IN,
        )?;
        Ok(())
    }

    /// Waits for a watched descriptor to be writable as well, or no longer.
    ///
    /// # Errors
    /// The system refused.
    pub fn watch_writing(&self, fd: impl AsFd, source: Source, is_wanted: bool) -> io::Result<()> {
        let flags = if is_wanted {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        epoll::modify(&self.epoll, fd, EventData::new_u64(source.encode()), flags)?;
        Ok(())
    }

    /// No longer waits for a descriptor.
    pub fn forget(&self, fd: impl AsFd) {
        // It may have been forgotten before.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Sets a timer for a sandbox.
    ///
    /// # Errors
    /// The system refused.
    pub fn set_alarm(&mut self, at_ns: u64, key: u64, alarm: Alarm) -> io::Result<()> {
        self.alarms.push(Reverse((at_ns, key, alarm)));
        self.arm()
    }

    /// Drops all alarms: nothing is waited for any more.
    ///
    /// # Errors
    /// The system refused.
    pub fn clear_alarms(&mut self) -> io::Result<()> {
        self.alarms.clear();
        self.armed_at_ns = None;
        self.set_timer(0)
    }

    /// Takes the next alarm that has gone off by `now_ns`.
    ///
    /// # Errors
    /// The system refused to set the timer for the next one.
    pub fn next_alarm(&mut self, now_ns: u64) -> io::Result<Option<(u64, Alarm)>> {
        match self.alarms.peek() {
            Some(Reverse((at_ns, key, alarm))) if *at_ns <= now_ns => {
                let due = (*key, *alarm);
                self.alarms.pop();
                Ok(Some(due))
            }
            _ => {
                self.armed_at_ns = None;
                self.arm()?;
                Ok(None)
            }
        }
    }

    /// Sleeps until something happens; gives the instant of the wake-up and what happened, in
    /// the order in which it is to be handled.
    ///
    /// # Errors
    /// The system refused.
    pub fn wait(&mut self, sources: &mut Vec<Source>) -> io::Result<u64> {
        self.events.clear();
        let woken = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            None,
        );
        let now_ns = now_ns();
        sources.clear();
        match woken {
            Ok(_) => sources.extend(
                self.events
                    .iter()
                    .map(|event| Source::decode(event.data.u64())),
            ),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        sources.sort_unstable();
        Ok(now_ns)
    }

    /// Sets the system's timer to the earliest alarm.
    fn arm(&mut self) -> io::Result<()> {
        let Some(Reverse((at_ns, _, _))) = self.alarms.peek() else {
            // One that goes off for nothing finds no alarm; but it must not stay readable.
            return self.set_timer(0);
        };
        let at_ns = *at_ns;
        if self.armed_at_ns.is_some_and(|armed| armed <= at_ns) {
            return Ok(());
        }
        self.armed_at_ns = Some(at_ns);
        self.set_timer(at_ns.max(1))
    }

    /// Sets the timer to an absolute instant; zero disarms it. Either makes it unreadable.
    fn set_timer(&self, at_ns: u64) -> io::Result<()> {
        let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let it_value = Timespec {
            tv_sec: part(at_ns / 1_000_000_000),
            tv_nsec: part(at_ns % 1_000_000_000),
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval,
            it_value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel_and_sort_by_precedence() {
        let key = u64::MAX >> 4;
        let sorted = [
            Source::Report,
            Source::Listener(0),
            Source::Caller(7),
            Source::Caller(key),
            Source::Channel(7),
            Source::Channel(key),
            Source::Output(7),
            Source::Exit(0),
            Source::CleanUpExit(key),
            Source::Signal,
            Source::Timer,
            Source::Control,
        ];
        assert!(sorted.is_sorted());
        for source in sorted {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }

    #[test]
    fn alarms_go_off_in_order_and_once() {
        let mut reactor = Reactor::new().unwrap();
        let start_ns = now_ns();
        for (key, delay_ns) in [(1, 3_000_000), (2, 1_000_000), (3, 2_000_000)] {
            reactor
                .set_alarm(start_ns + delay_ns, key, Alarm::Deadline)
                .unwrap();
        }
        let mut sources = Vec::new();
        let mut gone_off = Vec::new();
        while gone_off.len() < 3 {
            let now_ns = reactor.wait(&mut sources).unwrap();
            assert_eq!(sources, [Source::Timer]);
            while let Some((key, _)) = reactor.next_alarm(now_ns).unwrap() {
                gone_off.push(key);
            }
        }
        assert_eq!(gone_off, [2, 3, 1]);
        assert_eq!(reactor.next_alarm(u64::MAX).unwrap(), None);
    }

    #[test]
    fn cleared_alarms_do_not_go_off() {
        let mut reactor = Reactor::new().unwrap();
        reactor.set_alarm(1, 1, Alarm::Grace).unwrap();
        reactor.clear_alarms().unwrap();
        reactor
            .set_alarm(now_ns() + 1_000_000, 2, Alarm::Grace)
            .unwrap();
        let now_ns = reactor.wait(&mut Vec::new()).unwrap();
        assert_eq!(reactor.next_alarm(now_ns).unwrap(), Some((2, Alarm::Grace)));
    }
}
