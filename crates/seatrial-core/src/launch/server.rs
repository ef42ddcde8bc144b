//! The launcher's loop: requests in, starts and stops carried out, one wake-up at a time.

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::mount::UnmountFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Signal, getppid};

use super::control_socket::ControlSocket;
use super::descendants;
use super::plan::{
    LauncherUsage, Reply, Request, StartReply, StartRequest, StopReply, StopRequest,
};
use super::pool::{Gate, Job, Part, Pool, Report};
use super::prepare::{self, PlanError};
use super::reactor::{Alarm, Reactor, Source};
use super::sandbox::{Sandbox, Terms};
use super::sys::{self, Host};

/// What the loop is doing for its client.
#[derive(Debug)]
enum Operation {
    /// Nothing.
    None,
    /// A batch of starts.
    Start { keys: Vec<u64>, pending: HashSet<u64>, released_at_ns: u64, used_before: LauncherUsage },
    /// A batch of stops.
    Stop { keys: Vec<u64>, pending: HashSet<u64> },
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    End,
}

/// A request that cannot be carried out.
struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        Self::new("bad-request", error.to_string())
    }
}

/// The launcher.
pub struct Server {
    host: Host,
    reactor: Reactor,
    control: ControlSocket,
    descriptors: OwnedFd,
    signals: OwnedFd,
    wake: Arc<OwnedFd>,
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
            host,
            reactor,
            control,
            descriptors,
            signals,
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
            return Err(io::Error::other(format!("{left_count} processes could not be killed")));
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
            self.reap_orphans(now_ns)?;
            self.conclude()?;
            while matches!(self.operation, Operation::None) {
                let Some(request) = self.control.next_request()? else { break };
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
            Source::Exit(key) => self.with(key, |box_, r| box_.on_exit(now_ns, r))?,
            Source::CleanUpExit(key) => self.with(key, |box_, _| {
                box_.on_clean_up_exit();
                Ok(())
            })?,
            Source::Timer => {
                while let Some((key, alarm)) = self.reactor.next_alarm(now_ns)? {
                    self.with(key, |box_, r| box_.on_alarm(alarm, now_ns, r))?;
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
        while let Some(Report { key, part, spawned, .. }) = self.pool.next_report() {
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
    /// While starts are in hand an unknown child may be one whose number is not reported yet.
    fn reap_orphans(&mut self, now_ns: u64) -> io::Result<()> {
        if !self.has_dead_children || self.starting_count > 0 {
            return Ok(());
        }
        while let Ok(Some(pid)) = sys::peek_ended_child() {
            let owner = self.sandboxes.iter().find(|(_, sandbox)| sandbox.pids().any(|p| p == pid));
            match owner.map(|(&key, _)| key) {
                None => drop(sys::reap(pid)),
                Some(key) => self.with(key, |sandbox, reactor| {
                    sandbox.on_clean_up_exit();
                    sandbox.on_exit(now_ns, reactor)
                })?,
            }
        }
        self.has_dead_children = false;
        Ok(())
    }

    /// Goes through the sandboxes to which something has happened, and replies when all that the
    /// operation waits for has.
    fn conclude(&mut self) -> io::Result<()> {
        for key in std::mem::take(&mut self.touched) {
            self.clean_up(key)?;
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
        let reply = match std::mem::replace(&mut self.operation, Operation::None) {
            Operation::None => return Ok(()),
            Operation::Start { keys, released_at_ns, used_before, .. } => {
                let used = sys::own_usage();
                let results = keys.iter().filter_map(|key| self.sandboxes.get(key));
                let results = results.map(Sandbox::start_result).collect();
                self.forget_all(keys.into_iter(), Sandbox::is_over);
                let launcher = LauncherUsage {
                    user_ns: used.user_ns.saturating_sub(used_before.user_ns),
                    system_ns: used.system_ns.saturating_sub(used_before.system_ns),
                };
                Reply::Start(StartReply { released_at_ns, results, launcher })
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
    fn clean_up(&mut self, key: u64) -> io::Result<()> {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else { return Ok(()) };
        let Some((argv, env)) = sandbox.take_clean_up() else { return Ok(()) };
        match prepare::prepare_command(&argv, &env, &self.host) {
            Err(error) => sandbox.on_clean_up_refused(&error.to_string()),
            Ok(program) => {
                self.pool.reserve(1)?;
                let slot = Arc::default();
                let gate = Arc::new(Gate::opened());
                self.starting_count += 1;
                self.pool.submit(Job { key, part: Part::CleanUp, program, slot, gate });
            }
        }
        Ok(())
    }

    fn accept(&mut self, request: &[u8]) -> io::Result<Flow> {
        let request = match serde_json::from_slice::<Request>(request) {
            Ok(request) => request,
            Err(error) => {
                self.refuse(&Refusal::new("bad-request", format!("not a request: {error}")))?;
                return Ok(Flow::Continue);
            }
        };
        let answer = match request {
            Request::Version => {
                Ok(Some(Reply::Version { version: env!("CARGO_PKG_VERSION").to_owned() }))
            }
            Request::Context { unmount } => self.context(&unmount).map(|()| Some(Reply::Done {})),
            Request::Channel { id } => self.lend(&id).map(|()| Some(Reply::Done {})),
            Request::Start(request) => self.start(request).map(|()| None),
            Request::Stop(request) => self.stop(request).map(|()| None),
            Request::Shutdown => {
                self.reply(&Reply::Done {})?;
                return Ok(Flow::End);
            }
        };
        match answer {
            Ok(Some(reply)) => self.reply(&reply)?,
            Ok(None) => self.conclude()?,
            Err(refusal) => self.refuse(&refusal)?,
        }
        Ok(Flow::Continue)
    }

    fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        let bytes = reply.to_json().map_err(io::Error::from)?;
        self.control.send(&bytes, &self.reactor)
    }

    fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        let Refusal { code, message } = refusal;
        self.reply(&Reply::Failure { code: (*code).to_owned(), message: message.clone() })
    }

    fn context(&mut self, unmount: &[String]) -> Result<(), Refusal> {
        if !self.pool.is_empty() {
            // Threads that exist would stay behind in the old name space.
            return Err(Refusal::new("too-late", "the context must be set before the first start"));
        }
        sys::unshare_mounts().map_err(|error| {
            Refusal::new("context", format!("unshare of the mount name space: {error}"))
        })?;
        for path in unmount {
            prepare::absolute("context", path)?;
            rustix::mount::unmount(path.as_str(), UnmountFlags::empty())
                .or_else(|_| rustix::mount::unmount(path.as_str(), UnmountFlags::DETACH))
                .map_err(|errno| {
                    let why = sys::errno_text(errno.raw_os_error());
                    Refusal::new("context", format!("unmount of {path}: {why}"))
                })?;
        }
        Ok(())
    }

    fn lend(&mut self, id: &str) -> Result<(), Refusal> {
        let unknown = || Refusal::new("unknown-id", format!("no held sandbox {id:?} with a channel"));
        let sandbox = self.names.get(id).and_then(|key| self.sandboxes.get_mut(key));
        let channel =
            sandbox.and_then(|box_| box_.lend_channel(&self.reactor)).ok_or_else(unknown)?;
        let lent = [channel.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&lent));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let text = [IoSlice::new(id.as_bytes())];
        rustix::net::sendmsg(&self.descriptors, &text, &mut ancillary, flags).map_err(|errno| {
            let why = sys::errno_text(errno.raw_os_error());
            Refusal::new("channel", format!("handing over the channel of {id:?}: {why}"))
        })?;
        Ok(())
    }

    fn start(&mut self, request: StartRequest) -> Result<(), Refusal> {
        let StartRequest { plans, wait_for, hold, timeout_ns, stop_grace_ns } = request;
        self.check_plans(&plans)?;
        let environment = |error: io::Error| Refusal::new("environment", error.to_string());
        self.pool.reserve(plans.len()).map_err(environment)?;
        let terms = Terms { wait_for, is_held: hold, stop_grace_ns };
        let mut keys = Vec::with_capacity(plans.len());
        let mut deadlines = Vec::with_capacity(plans.len());
        let mut programs = Vec::with_capacity(plans.len());
        for plan in plans {
            let key = self.next_key;
            self.next_key += 1;
            keys.push(key);
            deadlines.push(plan.deadline_ns.min(timeout_ns));
            self.names.insert(plan.id.clone(), key);
            let (ends, program) = match prepare::prepare(&plan, &self.host) {
                Ok(prepared) => ((prepared.channel, prepared.output), Ok(prepared.program)),
                Err(error) => ((None, None), Err(error.to_string())),
            };
            let mut sandbox =
                Sandbox::new(key, plan, terms, ends, &self.reactor).map_err(environment)?;
            match program {
                Ok(program) => programs.push((key, program, sandbox.slot())),
                Err(why) => sandbox.on_refused(why),
            }
            self.touched.push(key);
            self.sandboxes.insert(key, sandbox);
        }
        let used = sys::own_usage();
        let released_at_ns = self.release(programs);
        for (&key, deadline_ns) in keys.iter().zip(deadlines) {
            if let Some(sandbox) = self.sandboxes.get_mut(&key) {
                sandbox.result.due_at_ns = released_at_ns;
            }
            let at_ns = released_at_ns.saturating_add(deadline_ns);
            self.reactor.set_alarm(at_ns, key, Alarm::Deadline).map_err(environment)?;
        }
        let pending = keys.iter().copied().collect();
        let used_before = LauncherUsage { user_ns: used.user_ns, system_ns: used.system_ns };
        self.operation = Operation::Start { keys, pending, released_at_ns, used_before };
        Ok(())
    }

    /// Brings a thread before the gate for each program, then opens it.
    fn release(&mut self, programs: Vec<(u64, sys::Program, Arc<sys::PidfdSlot>)>) -> u64 {
        let gate = Arc::new(Gate::new(u32::try_from(programs.len()).unwrap_or(u32::MAX)));
        for (key, program, slot) in programs {
            self.starting_count += 1;
            let gate = Arc::clone(&gate);
            self.pool.submit(Job { key, part: Part::Sandbox, program, slot, gate });
        }
        gate.wait_for_all();
        let released_at_ns = sys::now_ns();
        gate.open();
        released_at_ns
    }

    fn check_plans(&self, plans: &[super::plan::StartPlan]) -> Result<(), Refusal> {
        prepare::validate_count(plans.len())?;
        let mut ids = HashSet::new();
        for plan in plans {
            prepare::validate(plan).map_err(|error| {
                Refusal::new("bad-request", format!("plan {:?}: {error}", plan.id))
            })?;
            if !ids.insert(&plan.id) || self.names.contains_key(&plan.id) {
                let message = format!("plan {:?}: the id is in use", plan.id);
                return Err(Refusal::new("bad-request", message));
            }
        }
        Ok(())
    }

    fn stop(&mut self, request: StopRequest) -> Result<(), Refusal> {
        let StopRequest { ids, how, grace_ns } = request;
        let keys = match ids {
            None => {
                let mut keys: Vec<_> = self.sandboxes.keys().copied().collect();
                keys.sort_unstable();
                keys
            }
            Some(ids) => {
                let known = |id: &String| {
                    let refusal = || Refusal::new("unknown-id", format!("no held sandbox {id:?}"));
                    self.names.get(id).copied().ok_or_else(refusal)
                };
                ids.iter().map(known).collect::<Result<_, _>>()?
            }
        };
        for key in &keys {
            self.with(*key, |sandbox, reactor| sandbox.stop(how, grace_ns, reactor))
                .map_err(|error| Refusal::new("environment", error.to_string()))?;
        }
        let pending = keys.iter().copied().collect();
        self.operation = Operation::Stop { keys, pending };
        Ok(())
    }
}
