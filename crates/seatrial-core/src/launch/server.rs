//! The launcher's loop: requests in, starts and stops carried out, one wake-up at a time.

mod requests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Signal, getppid};

use super::callers::{Call, Callers};
use super::control_socket::ControlSocket;
use super::descendants;
use super::homes::Homes;
use super::plan::{LauncherUsage, Reply, StartReply, StopReply};
use super::pool::{Gate, Job, Part, Pool, Report};
use super::prepare;
use super::reactor::{Alarm, Reactor, Source};
use super::sandbox::Sandbox;
use super::sys::{self, Host};

/// What the loop is doing for its client.
#[derive(Debug)]
enum Operation {
    /// Nothing.
    None,
    /// A batch of starts.
    Start {
        keys: Vec<u64>,
        pending: HashSet<u64>,
        released_at_ns: u64,
        used_before: LauncherUsage,
    },
    /// A batch of stops.
    Stop {
        keys: Vec<u64>,
        pending: HashSet<u64>,
    },
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    End,
}

/// The launcher.
pub struct Server {
    host: Host,
    reactor: Reactor,
    control: ControlSocket,
    descriptors: OwnedFd,
    signals: OwnedFd,
    wake: Arc<OwnedFd>,
    homes: Homes,
    callers: Callers,
    pool: Pool,
    sandboxes: HashMap<u64, Sandbox>,
    names: HashMap<String, u64>,
    next_key: u64,
    operation: Operation,
    touched: Vec<u64>,
    /// Jobs given to the pool and not reported yet.
    starting_count: usize,
    has_dead_children: bool,
    parent: Option<rustix::process::Pid>,
}

impl Server {
    /// Prepares this process and waits for nothing yet. Call it before any thread is made.
    ///
    /// `control` carries requests and replies, `descriptors` hands channels over.
    ///
    /// # Errors
    /// The system refused something that every launcher needs.
    pub fn new(control: OwnedFd, descriptors: OwnedFd) -> io::Result<Self> {
        let parent = getppid();
        sys::ignore_signal(libc::SIGINT);
        sys::block_all_signals()?;
        let host = Host::prepare()?;
        // A session of our own keeps the terminal's Ctrl-C away; a leader has one already.
        let _ = rustix::process::setsid();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // Sent when the *thread* that made us ends, so `on_signal` looks whether our parent did.
        rustix::process::set_parent_process_death_signal(Some(Signal::HUP))?;
        let signals = sys::signal_descriptor(&[libc::SIGCHLD, libc::SIGHUP, libc::SIGTERM])?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let reactor = Reactor::new()?;
        let control = ControlSocket::new(control);
        reactor.watch(&control, Source::Control)?;
        reactor.watch(&signals, Source::Signal)?;
        reactor.watch(&*wake, Source::Report)?;
        Ok(Self {
            callers: Callers::new(host.high_fd_base),
            host,
            reactor,
            control,
            descriptors,
            signals,
            homes: Homes::default(),
            pool: Pool::new(Arc::clone(&wake)),
            wake,
            sandboxes: HashMap::new(),
            names: HashMap::new(),
            next_key: 0,
            operation: Operation::None,
            touched: Vec::new(),
            starting_count: 0,
            has_dead_children: false,
            parent,
        })
    }

    /// Serves until the client goes or asks for the end; leaves no descendant behind.
    ///
    /// # Errors
    /// The system refused something that the loop cannot do without.
    pub fn run(mut self) -> io::Result<()> {
        let served = self.serve();
        for sandbox in self.sandboxes.values_mut() {
            sandbox.kill_now();
        }
        let left_count = descendants::kill_all(&self.signals);
        served?;
        if left_count > 0 {
            return Err(io::Error::other(format!(
                "{left_count} processes could not be killed"
            )));
        }
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut sources = Vec::new();
        loop {
            let now_ns = self.reactor.wait(&mut sources)?;
            for &source in &sources {
                if self.handle(source, now_ns)? == Flow::End {
                    return Ok(());
                }
            }
            self.reap_orphans();
            self.conclude()?;
            while matches!(self.operation, Operation::None) {
                let Some(request) = self.control.next_request()? else {
                    break;
                };
                if self.accept(&request)? == Flow::End {
                    return Ok(());
                }
            }
        }
    }

    fn handle(&mut self, source: Source, now_ns: u64) -> io::Result<Flow> {
        match source {
            Source::Report => self.on_reports()?,
            Source::Channel(key) => self.with(key, |box_, r| box_.on_channel(now_ns, r))?,
            Source::Output(key) => self.with(key, |box_, _| {
                box_.on_output();
                Ok(())
            })?,
            Source::Listener(index) => self.callers.answer(index, now_ns, &mut self.reactor)?,
            Source::Caller(id) => {
                let call = self.callers.hear(id, now_ns, &self.reactor);
                self.put_through(call)?;
            }
            Source::Exit(key) => {
                if self.callers.expects(key) {
                    let calls = self.callers.hear_all(now_ns, &mut self.reactor)?;
                    self.put_through(calls)?;
                }
                self.with(key, |box_, r| box_.on_exit(now_ns, r))?;
            }
            Source::CleanUpExit(key) => self.with(key, |box_, _| {
                box_.on_clean_up_exit();
                Ok(())
            })?,
            Source::Timer => {
                while let Some((key, alarm)) = self.reactor.next_alarm(now_ns)? {
                    if alarm == Alarm::Caller {
                        self.callers.on_alarm(now_ns, &mut self.reactor)?;
                    } else {
                        self.with(key, |box_, r| box_.on_alarm(alarm, now_ns, r))?;
                    }
                }
            }
            Source::Signal => return Ok(self.on_signal()),
            Source::Control => {
                self.control.resume(&self.reactor)?;
                if !self.control.receive()? {
                    return Ok(Flow::End);
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// Gives calls to the sandboxes whose guests have made them.
    fn put_through(&mut self, calls: impl IntoIterator<Item = Call>) -> io::Result<()> {
        for call in calls {
            let Call {
                key,
                fd,
                heard_at_ns,
            } = call;
            self.with(key, |sandbox, r| sandbox.on_call(fd, heard_at_ns, r))?;
        }
        Ok(())
    }

    /// Tells a sandbox something, unless it has gone meanwhile.
    fn with(
        &mut self,
        key: u64,
        tell: impl FnOnce(&mut Sandbox, &mut Reactor) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(sandbox) = self.sandboxes.get_mut(&key) {
            tell(sandbox, &mut self.reactor)?;
            self.touched.push(key);
        }
        Ok(())
    }

    fn on_reports(&mut self) -> io::Result<()> {
        let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        while let Some(Report {
            key, part, spawned, ..
        }) = self.pool.next_report()
        {
            self.starting_count -= 1;
            self.with(key, |sandbox, reactor| match part {
                Part::Sandbox => sandbox.on_spawned(spawned, reactor),
                Part::CleanUp => sandbox.on_clean_up_spawned(spawned, reactor),
            })?;
        }
        Ok(())
    }

    fn on_signal(&mut self) -> Flow {
        while let Some(signal) = sys::read_signal(&self.signals) {
            match signal {
                libc::SIGTERM => return Flow::End,
                // A thread of our parent may have ended while the parent lives.
                libc::SIGHUP if getppid() != self.parent => return Flow::End,
                libc::SIGCHLD => self.has_dead_children = true,
                _ => {}
            }
        }
        Flow::Continue
    }

    /// Reaps children that no sandbox knows: what runtimes have left to their subreaper.
    ///
    /// While starts are in hand an unknown child may be one whose number is not reported yet. A
    /// known one has its own event, with an instant of its own; orphans behind it wait for that.
    fn reap_orphans(&mut self) {
        if !self.has_dead_children || self.starting_count > 0 {
            return;
        }
        while let Ok(Some(pid)) = sys::peek_ended_child() {
            if self
                .sandboxes
                .values()
                .any(|sandbox| sandbox.pids().any(|own| own == pid))
            {
                return;
            }
            // Nobody asks how an orphan ended.
            let _ = sys::reap(pid);
        }
        self.has_dead_children = false;
    }

    /// Goes through the sandboxes to which something has happened, and replies when all that the
    /// operation waits for has.
    fn conclude(&mut self) -> io::Result<()> {
        for key in std::mem::take(&mut self.touched) {
            self.clean_up(key);
            let is_settled = self.sandboxes.get(&key).is_none_or(Sandbox::is_settled);
            match &mut self.operation {
                Operation::Start { pending, .. } | Operation::Stop { pending, .. }
                    if is_settled =>
                {
                    pending.remove(&key);
                }
                _ => {}
            }
        }
        let is_done = match &self.operation {
            Operation::None => false,
            Operation::Start { pending, .. } | Operation::Stop { pending, .. } => {
                pending.is_empty()
            }
        };
        if is_done { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> io::Result<()> {
        // Between operations nothing is due, and a stale alarm would wake us into a later one.
        self.reactor.clear_alarms()?;
        self.callers.dismiss();
        let reply = match std::mem::replace(&mut self.operation, Operation::None) {
            Operation::None => return Ok(()),
            Operation::Start {
                keys,
                released_at_ns,
                used_before,
                ..
            } => {
                let used = sys::own_usage();
                let results = keys.iter().filter_map(|key| self.sandboxes.get(key));
                let results = results.map(Sandbox::start_result).collect();
                self.forget_all(keys.into_iter(), Sandbox::is_over);
                let launcher = LauncherUsage {
                    user_ns: used.user_ns.saturating_sub(used_before.user_ns),
                    system_ns: used.system_ns.saturating_sub(used_before.system_ns),
                };
                Reply::Start(StartReply {
                    released_at_ns,
                    results,
                    launcher,
                })
            }
            Operation::Stop { keys, .. } => {
                let results = keys.iter().filter_map(|key| self.sandboxes.get(key));
                let results = results.map(Sandbox::stop_result).collect();
                self.forget_all(keys.into_iter(), |_| true);
                Reply::Stop(StopReply { results })
            }
        };
        self.reply(&reply)
    }

    fn forget_all(&mut self, keys: impl Iterator<Item = u64>, is_over: fn(&Sandbox) -> bool) {
        for key in keys {
            if self.sandboxes.get(&key).is_some_and(is_over)
                && let Some(sandbox) = self.sandboxes.remove(&key)
            {
                self.names.remove(&sandbox.result.id);
            }
        }
    }

    /// Runs the `kill_argv` of a sandbox that was killed, when its time has come.
    fn clean_up(&mut self, key: u64) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else {
            return;
        };
        let Some((argv, env)) = sandbox.take_clean_up() else {
            return;
        };
        let program = match prepare::prepare_command(&argv, &env, &self.host) {
            Err(error) => return sandbox.on_clean_up_refused(&error.to_string()),
            Ok(program) => program,
        };
        let (slot, gate) = (Arc::default(), Arc::new(Gate::opened()));
        let job = Job {
            key,
            part: Part::CleanUp,
            program,
            slot,
            gate,
        };
        if self.pool.reserve([&job.program]).is_ok() && self.pool.submit(job) {
            self.starting_count += 1;
        } else {
            sandbox.on_clean_up_refused("no thread to start it");
        }
    }
}
