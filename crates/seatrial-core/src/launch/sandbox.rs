//! One sandbox from its plan to its end: a state machine that is told what happened and when.

mod talk;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::channel::Channel;
use super::plan::{
    CLEAN_UP_NS, Outcome, REAP_NS, Readiness, STDERR_TAIL_BYTES_MAX, StartPlan, StartResult,
    StopHow, StopResult, WaitFor,
};
use super::reactor::{Alarm, Reactor, Source};
use super::sys::{self, Ended, PidfdSlot, Spawned};

/// Where a direct child is in its life.
#[derive(Debug)]
enum Process {
    /// A thread of the pool has it in hand.
    Starting,
    /// It runs, or has ended and was not reaped.
    Running { pid: i32, pidfd: OwnedFd },
    /// It was reaped, never came to life, or could not be killed.
    Gone,
}

/// Where the `kill_argv` of a killed sandbox is.
#[derive(Debug)]
enum CleanUp {
    /// There is nothing to clean up so far.
    None,
    /// To be started when the direct child is gone.
    Wanted,
    /// A thread of the pool has it in hand.
    Starting,
    /// It runs.
    Running { pid: i32, pidfd: OwnedFd },
}

/// What is decided about a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing yet.
    Open,
    /// The goal was reached.
    Reached,
    /// It was not and will not be.
    Failed,
}

/// Whether and how a sandbox is being brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It is not.
    None,
    /// It was asked.
    Requested,
    /// It was killed.
    Killed,
}

/// How the batch treats its sandboxes.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The event that is waited for.
    pub wait_for: WaitFor,
    /// Whether the sandbox stays after it.
    pub is_held: bool,
    /// How long it may take to obey.
    pub stop_grace_ns: u64,
}

/// One sandbox.
#[derive(Debug)]
pub struct Sandbox {
    key: u64,
    ready: Readiness,
    kill_argv: Option<Vec<String>>,
    env: Vec<String>,
    terms: Terms,
    channel: Option<Channel>,
    output: Option<OwnedFd>,
    tail: Option<Vec<u8>>,
    slot: Arc<PidfdSlot>,
    process: Process,
    clean_up: CleanUp,
    verdict: Verdict,
    ending: Ending,
    /// Whether the plan asked for a channel; ours may be closed by now.
    has_channel: bool,
    /// Whether the guest has to call, as it inherits no channel.
    calls: bool,
    /// Everything known about the start.
    pub result: StartResult,
}

impl Sandbox {
    /// A sandbox whose plan was prepared and is about to be given to the pool.
    ///
    /// # Errors
    /// The system refused to watch its descriptors.
    pub fn new(
        key: u64,
        plan: StartPlan,
        terms: Terms,
        (channel, output): (Option<Channel>, Option<OwnedFd>),
        reactor: &Reactor,
    ) -> io::Result<Self> {
        if let Some(channel) = &channel {
            reactor.watch(channel, Source::Channel(key))?;
        }
        if let Some(fd) = &output {
            reactor.watch(fd, Source::Output(key))?;
        }
        Ok(Self {
            key,
            ready: plan.ready,
            kill_argv: plan.kill_argv,
            env: plan.env,
            terms,
            has_channel: channel.is_some() || plan.channel_token.is_some(),
            calls: plan.channel_path.is_some() || plan.channel_token.is_some(),
            channel,
            tail: output.is_some().then(Vec::new),
            output,
            slot: Arc::new(PidfdSlot::new()),
            process: Process::Starting,
            clean_up: CleanUp::None,
            verdict: Verdict::Open,
            ending: Ending::None,
            result: StartResult {
                id: plan.id,
                ..StartResult::default()
            },
        })
    }

    /// Where the pool puts the descriptor of the child that it starts.
    #[must_use]
    pub fn slot(&self) -> Arc<PidfdSlot> {
        Arc::clone(&self.slot)
    }

    /// Whether the operation that the sandbox is part of has nothing more to wait for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self.process {
            Process::Starting => false,
            Process::Running { .. } => {
                self.terms.is_held
                    && self.verdict == Verdict::Reached
                    && self.ending == Ending::None
            }
            Process::Gone => matches!(self.clean_up, CleanUp::None),
        }
    }

    /// Whether the sandbox still has a process, and stays with the launcher.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.process, Process::Gone)
    }

    /// Whether nothing is left to be stopped, asked for or reported.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.terms.is_held || self.verdict == Verdict::Failed
    }

    /// The processes that only this sandbox may reap.
    pub fn pids(&self) -> impl Iterator<Item = i32> {
        let own = if let Process::Running { pid, .. } = self.process {
            Some(pid)
        } else {
            None
        };
        let clean_up = if let CleanUp::Running { pid, .. } = self.clean_up {
            Some(pid)
        } else {
            None
        };
        own.into_iter().chain(clean_up)
    }

    /// The channel, to be handed over; from now on it is not read here any more.
    pub fn lend_channel(&mut self, reactor: &Reactor) -> Option<&Channel> {
        let channel = self.channel.as_ref().filter(|one| !one.is_listening())?;
        reactor.forget(channel);
        Some(channel)
    }

    /// The command that cleans up and its environment, once it is time to run it.
    pub fn take_clean_up(&mut self) -> Option<(Vec<String>, Vec<String>)> {
        if !matches!(
            (&self.process, &self.clean_up),
            (Process::Gone, CleanUp::Wanted)
        ) {
            return None;
        }
        self.clean_up = CleanUp::Starting;
        Some((self.kill_argv.clone().unwrap_or_default(), self.env.clone()))
    }

    /// The plan could not be prepared.
    pub fn on_refused(&mut self, why: &str) {
        self.fail(Outcome::SpawnFailed, why);
        self.process = Process::Gone;
    }

    /// The pool has started it, or not.
    ///
    /// # Errors
    /// The system refused to watch the child.
    pub fn on_spawned(&mut self, spawned: Spawned, reactor: &mut Reactor) -> io::Result<()> {
        self.result.invoked_at_ns = Some(spawned.invoked_at_ns);
        self.result.accepted_at_ns = Some(spawned.accepted_at_ns);
        match spawned.child {
            Err(failure) => {
                self.result.pid = failure.pid;
                self.result.exit_code = failure.pid.map(|_| 127);
                self.result.accepted_at_ns = None;
                self.fail(Outcome::SpawnFailed, &failure.text);
                self.process = Process::Gone;
                self.clean_up = CleanUp::None;
                self.close();
            }
            Ok((pid, pidfd)) => {
                self.result.pid = Some(pid);
                reactor.watch(&pidfd, Source::Exit(self.key))?;
                if self.ending == Ending::Killed {
                    kill_group(pid, &pidfd);
                }
                self.process = Process::Running { pid, pidfd };
                if !self.has_channel && self.terms.is_held {
                    self.verdict = Verdict::Reached;
                }
            }
        }
        Ok(())
    }

    /// Output was captured.
    pub fn on_output(&mut self) {
        let (Some(fd), Some(tail)) = (&self.output, &mut self.tail) else {
            return;
        };
        let mut buffer = [0; 16 << 10];
        // Bounded by what fits into a pipe, so that a chatterer cannot keep us here.
        for _ in 0..8 {
            match rustix::io::read(fd, &mut buffer) {
                Ok(length) if length > 0 => {
                    tail.extend_from_slice(&buffer[..length]);
                    let excess = tail.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
                    tail.drain(..excess);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                _ => {
                    self.output = None;
                    return;
                }
            }
        }
    }

    /// The direct child has ended.
    ///
    /// # Errors
    /// The system refused to set a timer.
    pub fn on_exit(&mut self, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        let Process::Running { pid, .. } = self.process else {
            return Ok(());
        };
        let Some(ended) = sys::reap(pid).unwrap_or(Some(Ended::UNKNOWN)) else {
            return Ok(());
        };
        self.process = Process::Gone;
        // What it had said before its end counts.
        while self.receive(now_ns, reactor)? {}
        // Another child may hold a copy of its end for a moment, so its closing may not show yet.
        self.finish_channel();
        self.on_output();
        self.result.exit_seen_at_ns = Some(now_ns);
        self.result.exit_code = ended.exit_code;
        self.result.signal = ended.signal;
        self.result.user_ns = ended.usage.map(|usage| usage.user_ns);
        self.result.system_ns = ended.usage.map(|usage| usage.system_ns);
        self.result.max_rss_bytes = ended.usage.map(|usage| usage.max_rss_bytes);
        if !self.has_channel && self.verdict != Verdict::Failed && ended.exit_code == Some(0) {
            self.verdict = Verdict::Reached;
        }
        if self.verdict != Verdict::Reached {
            let how = describe_end(ended);
            self.fail(
                Outcome::ExitedEarly,
                &format!("{how} before {}", self.goal()),
            );
        }
        Ok(())
    }

    /// A timer went off.
    ///
    /// # Errors
    /// The system refused to set the next one.
    pub fn on_alarm(&mut self, alarm: Alarm, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        match alarm {
            Alarm::Deadline if self.is_alive() && self.verdict == Verdict::Open => {
                self.result.censored = true;
                let waited_ns = now_ns.saturating_sub(self.result.due_at_ns);
                let waited = Duration::from_nanos(waited_ns - waited_ns % 1_000_000);
                let why = format!("no {} within {waited:?}{}", self.goal(), self.silence());
                self.fail(Outcome::TimedOut, &why);
                self.kill(now_ns, reactor)
            }
            Alarm::Grace if self.is_alive() && self.ending != Ending::Killed => {
                self.note_error("did not obey STOP in time and was killed");
                self.kill(now_ns, reactor)
            }
            Alarm::GiveUp if self.is_alive() => {
                self.note_error("still there long after SIGKILL; given up");
                self.process = Process::Gone;
                Ok(())
            }
            Alarm::CleanUp => {
                if let CleanUp::Running { pidfd, .. } = &self.clean_up {
                    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                    self.note_error("kill_argv did not end in time and was killed");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Asks a held sandbox to end.
    ///
    /// # Errors
    /// The system refused to set a timer.
    pub fn stop(&mut self, how: StopHow, grace_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        self.terms.is_held = false;
        self.terms.stop_grace_ns = grace_ns;
        self.result.error = None;
        if !self.is_alive() {
            return Ok(());
        }
        match how {
            StopHow::Request => self.request_stop(reactor),
            StopHow::Kill => {
                let now_ns = sys::now_ns();
                self.result.stop_requested_at_ns = Some(now_ns);
                self.kill(now_ns, reactor)
            }
        }
    }

    /// The pool has started the `kill_argv`, or not.
    ///
    /// # Errors
    /// The system refused to watch it.
    pub fn on_clean_up_spawned(
        &mut self,
        spawned: Spawned,
        reactor: &mut Reactor,
    ) -> io::Result<()> {
        match spawned.child {
            Err(failure) => self.on_clean_up_refused(&failure.text),
            Ok((pid, pidfd)) => {
                reactor.watch(&pidfd, Source::CleanUpExit(self.key))?;
                reactor.set_alarm(sys::now_ns() + CLEAN_UP_NS, self.key, Alarm::CleanUp)?;
                self.clean_up = CleanUp::Running { pid, pidfd };
            }
        }
        Ok(())
    }

    /// The `kill_argv` cannot be run.
    pub fn on_clean_up_refused(&mut self, why: &str) {
        self.note_error(&format!("kill_argv: {why}"));
        self.clean_up = CleanUp::None;
    }

    /// The `kill_argv` has ended.
    pub fn on_clean_up_exit(&mut self) {
        let CleanUp::Running { pid, .. } = self.clean_up else {
            return;
        };
        match sys::reap(pid) {
            Ok(None) => return,
            Ok(Some(ended)) if ended.exit_code != Some(0) => {
                self.note_error(&format!("kill_argv {}", describe_end(ended)));
            }
            _ => {}
        }
        self.clean_up = CleanUp::None;
    }

    /// Kills without ceremony, when the launcher itself is ending.
    pub fn kill_now(&mut self) {
        self.close();
        match &self.process {
            Process::Starting => self.slot.kill(),
            Process::Running { pid, pidfd } => kill_group(*pid, pidfd),
            Process::Gone => {}
        }
    }

    /// The result of the start, as far as it has come.
    #[must_use]
    pub fn start_result(&self) -> StartResult {
        let mut result = self.result.clone();
        result.stderr_tail = self.tail_text();
        result
    }

    /// The result of a stop.
    #[must_use]
    pub fn stop_result(&self) -> StopResult {
        let result = &self.result;
        StopResult {
            id: result.id.clone(),
            stop_requested_at_ns: result.stop_requested_at_ns,
            exit_seen_at_ns: result.exit_seen_at_ns,
            exit_code: result.exit_code,
            signal: result.signal,
            error: result.error.clone(),
            stderr_tail: self.tail_text(),
            user_ns: result.user_ns,
            system_ns: result.system_ns,
            max_rss_bytes: result.max_rss_bytes,
        }
    }

    fn kill(&mut self, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        self.ending = Ending::Killed;
        if self.kill_argv.is_some() {
            self.clean_up = CleanUp::Wanted;
        }
        self.kill_now();
        reactor.set_alarm(now_ns.saturating_add(REAP_NS), self.key, Alarm::GiveUp)
    }

    /// Closes the channel, which also ends a guest that outlives its runtime.
    fn close(&mut self) {
        if let Some(channel) = self.channel.take() {
            channel.hang_up();
        }
    }

    fn fail(&mut self, outcome: Outcome, why: &str) {
        if self.verdict == Verdict::Open {
            self.verdict = Verdict::Failed;
            self.result.outcome = outcome;
            self.note_error(why);
        }
    }

    fn note_error(&mut self, text: &str) {
        match &mut self.result.error {
            Some(error) => {
                error.push_str("; ");
                error.push_str(text);
            }
            none => *none = Some(text.to_owned()),
        }
    }

    fn tail_text(&self) -> Option<String> {
        self.tail
            .as_ref()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Kills a direct child and the session that it leads.
///
/// While it is not reaped its number, which is also that of its process group, is not reused.
fn kill_group(pid: i32, pidfd: impl AsFd) {
    if let Some(group) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
}

fn describe_end(ended: Ended) -> String {
    match (ended.exit_code, ended.signal) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in a way that is not known".to_owned(),
    }
}
