//! What a sandbox and the launcher say to each other on the control channel.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use super::{Ending, Process, Sandbox, Verdict};
use crate::control::{GuestFrame, HostFrame};
use crate::launch::channel::{Channel, ChannelError, Received};
use crate::launch::plan::{Outcome, Readiness, WaitFor};
use crate::launch::reactor::{Alarm, Reactor, Source};
use crate::launch::sys;

/// What a `PING` carries: as much as a small remote call.
const PING_PAYLOAD: [u8; 64] = *b"seatrial ping: these sixty-four bytes come back as they were....";

impl Sandbox {
    /// The channel can be read: takes one frame. What came behind it wakes the loop again and
    /// gets an instant of its own, which therefore is never before that of its cause.
    ///
    /// # Errors
    /// The system refused to set a timer.
    pub fn on_channel(&mut self, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        self.receive(now_ns, reactor).map(drop)
    }

    /// The guest has called by TCP and said who it is.
    ///
    /// # Errors
    /// The system refused to watch the connection.
    pub fn on_call(&mut self, fd: OwnedFd, heard_at_ns: u64, r: &mut Reactor) -> io::Result<()> {
        if self.verdict != Verdict::Open {
            return Ok(()); // it is given up, and sees the connection close
        }
        let channel = Channel::remote(fd);
        r.watch(&channel, Source::Channel(self.key))?;
        self.result.first_byte_at_ns = Some(heard_at_ns);
        self.channel = Some(channel);
        Ok(())
    }

    /// What is waited for.
    pub(super) const fn goal(&self) -> &'static str {
        match self.terms.wait_for {
            _ if !self.has_channel => "exit with status 0",
            WaitFor::Hello => "HELLO",
            WaitFor::Ready => "READY",
            WaitFor::Reply => "PONG",
        }
    }

    /// What to add where a guest that has to call has not: perhaps it cannot reach us.
    pub(super) const fn silence(&self) -> &'static str {
        match (self.calls, self.result.first_byte_at_ns) {
            (true, None) => ": the guest never called",
            _ => "",
        }
    }

    /// Takes one frame from the channel; `false` when there is nothing more to be taken.
    pub(super) fn receive(&mut self, now_ns: u64, reactor: &mut Reactor) -> io::Result<bool> {
        if self.verdict != Verdict::Open {
            return Ok(false);
        }
        let Some(channel) = &mut self.channel else {
            return Ok(false);
        };
        if channel.is_listening() {
            // What the caller has said wakes the loop again, at an instant of its own.
            let has_called = channel.answer()?;
            if has_called {
                reactor.watch(&*channel, Source::Channel(self.key))?;
            }
            return Ok(has_called);
        }
        let received = channel.receive();
        if channel.has_spoken {
            self.result.first_byte_at_ns.get_or_insert(now_ns);
        }
        match received {
            Ok(Received::Frame(frame)) => self.on_frame(frame, now_ns, reactor)?,
            Ok(Received::Nothing) => return Ok(false),
            Ok(Received::Closed) => {
                // It is ending; its exit, or the deadline, decides what this start was.
                reactor.forget(&*channel);
                self.finish_channel();
                return Ok(false);
            }
            Err(error) => self.on_nonsense(&error.to_string(), now_ns, reactor)?,
        }
        Ok(true)
    }

    /// Nothing more will come: closes our end and says so if that is within a frame.
    pub(super) fn finish_channel(&mut self) {
        let held_bytes = self.channel.as_ref().map_or(0, Channel::held_bytes);
        self.close();
        if held_bytes > 0 && self.verdict == Verdict::Open {
            self.note_error(&format!("closed {held_bytes} bytes into a frame"));
        }
    }

    fn on_frame(
        &mut self,
        frame: GuestFrame,
        now_ns: u64,
        reactor: &mut Reactor,
    ) -> io::Result<()> {
        match frame {
            GuestFrame::Hello(hello) if !self.has_greeted() => {
                self.result.guest_first_instruction_mono_ns = Some(hello.first_instruction_mono_ns);
                self.result.guest_hello_mono_ns = Some(hello.hello_mono_ns);
                match (self.terms.wait_for, self.ready) {
                    (WaitFor::Hello, _) => self.reach_goal(reactor),
                    (WaitFor::Reply, Readiness::Hello) => {
                        self.ping();
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            GuestFrame::Ready(ready) if self.has_greeted() && self.result.ready_at_ns.is_none() => {
                self.result.ready_at_ns = Some(now_ns);
                self.result.guest_ready_mono_ns = Some(ready.ready_mono_ns);
                match (self.terms.wait_for, self.ready) {
                    (WaitFor::Ready, _) => self.reach_goal(reactor),
                    (WaitFor::Reply, Readiness::Ready) => {
                        self.ping();
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            GuestFrame::Pong(payload) if self.result.ping_sent_at_ns.is_some() => {
                if payload != PING_PAYLOAD {
                    let why = "PONG with another payload than the PING";
                    return self.on_nonsense(why, now_ns, reactor);
                }
                self.result.first_reply_at_ns = Some(now_ns);
                self.reach_goal(reactor)
            }
            GuestFrame::Error(report) => {
                // It ends now; its exit, or the deadline, decides what this start was.
                self.note_error(&format!("guest: {}: {}", report.code, report.message));
                Ok(())
            }
            other => {
                let why = format!("{} frame out of turn", name_of(&other));
                self.on_nonsense(&why, now_ns, reactor)
            }
        }
    }

    fn on_nonsense(&mut self, why: &str, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        self.fail(Outcome::ProtocolError, why);
        self.kill(now_ns, reactor)
    }

    fn ping(&mut self) {
        let Some(channel) = &self.channel else { return };
        let now_ns = sys::now_ns();
        match channel.send(&HostFrame::Ping(PING_PAYLOAD.to_vec())) {
            Ok(()) => self.result.ping_sent_at_ns = Some(now_ns),
            // Its exit follows, or else the deadline.
            Err(error) => self.note_error(&format!("PING could not be sent: {error}")),
        }
    }

    /// Whether the guest has said `HELLO`.
    const fn has_greeted(&self) -> bool {
        self.result.guest_hello_mono_ns.is_some()
    }

    fn reach_goal(&mut self, reactor: &mut Reactor) -> io::Result<()> {
        self.verdict = Verdict::Reached;
        if let Some(channel) = &self.channel {
            reactor.forget(channel);
        }
        if self.terms.is_held {
            Ok(())
        } else {
            self.request_stop(reactor)
        }
    }

    pub(super) fn request_stop(&mut self, reactor: &mut Reactor) -> io::Result<()> {
        self.ending = Ending::Requested;
        let now_ns = sys::now_ns();
        let sent = match (&self.channel, &self.process) {
            (Some(channel), _) => channel.send(&HostFrame::Stop),
            (None, Process::Running { pidfd, .. }) => {
                rustix::process::pidfd_send_signal(pidfd, Signal::TERM)
                    .map_err(|errno| ChannelError::System(errno.into()))
            }
            _ => Ok(()),
        };
        // When it cannot be sent, the guest is ending by itself.
        if sent.is_ok() {
            self.result.stop_requested_at_ns = Some(now_ns);
        }
        reactor.set_alarm(
            now_ns.saturating_add(self.terms.stop_grace_ns),
            self.key,
            Alarm::Grace,
        )
    }
}

const fn name_of(frame: &GuestFrame) -> &'static str {
    match frame {
        GuestFrame::Hello(_) => "HELLO",
        GuestFrame::Ready(_) => "READY",
        GuestFrame::Pong(_) => "PONG",
        GuestFrame::Result(_) => "RESULT",
        GuestFrame::Error(_) => "ERROR",
        GuestFrame::Stats(_) => "STATS",
    }
}
