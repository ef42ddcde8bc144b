//! Requests: checked as a whole first, then carried out.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::mount::UnmountFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::{Flow, Operation, Server};
use crate::launch::plan::{LauncherUsage, Reply, Request, StartPlan, StartRequest, StopRequest};
use crate::launch::pool::{Gate, Job, Part};
use crate::launch::prepare::{self, PlanError};
use crate::launch::reactor::Alarm;
use crate::launch::sandbox::{Sandbox, Terms};
use crate::launch::sys;

/// A request that cannot be carried out.
struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        Self::new("bad-request", error.to_string())
    }
}

/// Why a batch does not go ahead.
enum Trouble {
    /// The request cannot be carried out; nothing was started.
    Refused(Refusal),
    /// The launcher cannot go on.
    Fatal(io::Error),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Fatal(error)
    }
}

impl Server {
    pub(super) fn accept(&mut self, request: &[u8]) -> io::Result<Flow> {
        let request = match serde_json::from_slice::<Request>(request) {
            Ok(request) => request,
            Err(error) => {
                self.refuse(&Refusal::new(
                    "bad-request",
                    format!("not a request: {error}"),
                ))?;
                return Ok(Flow::Continue);
            }
        };
        let answer = match request {
            Request::Version => Ok(Some(Reply::Version {
                version: env!("CARGO_PKG_VERSION").to_owned(),
            })),
            Request::Context { unmount } => self.context(&unmount).map(|()| Some(Reply::Done {})),
            Request::Listen { address } => self.listen(address).map(Some),
            Request::Channel { id } => self.lend(&id).map(|()| Some(Reply::Done {})),
            Request::Start(request) => match self.start(request) {
                Ok(()) => Ok(None),
                Err(Trouble::Refused(refusal)) => Err(refusal),
                Err(Trouble::Fatal(error)) => return Err(error),
            },
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

    pub(super) fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        let bytes = reply.to_json().map_err(io::Error::from)?;
        self.control.send(&bytes, &self.reactor)
    }

    fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        let Refusal { code, message } = refusal;
        self.reply(&Reply::Failure {
            code: (*code).to_owned(),
            message: message.clone(),
        })
    }

    fn context(&mut self, unmount: &[String]) -> Result<(), Refusal> {
        if !self.pool.is_empty() {
            // Threads that exist would stay behind in the old name space.
            return Err(Refusal::new(
                "too-late",
                "the context must be set before the first start",
            ));
        }
        sys::unshare_mounts().map_err(|error| {
            Refusal::new(
                "context",
                format!("unshare of the mount name space: {error}"),
            )
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

    fn listen(&mut self, address: IpAddr) -> Result<Reply, Refusal> {
        let port = self.callers.listen(address, &self.reactor);
        let port = port.map_err(|error| {
            Refusal::new(
                "listen",
                format!("listening for guests at {address}: {error}"),
            )
        })?;
        Ok(Reply::Listening { port })
    }

    fn lend(&mut self, id: &str) -> Result<(), Refusal> {
        let unknown = || {
            Refusal::new(
                "unknown-id",
                format!("no held sandbox {id:?} with a channel"),
            )
        };
        let sandbox = self
            .names
            .get(id)
            .and_then(|key| self.sandboxes.get_mut(key));
        let channel = sandbox
            .and_then(|box_| box_.lend_channel(&self.reactor))
            .ok_or_else(unknown)?;
        let lent = [channel.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&lent));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let text = [IoSlice::new(id.as_bytes())];
        rustix::net::sendmsg(&self.descriptors, &text, &mut ancillary, flags).map_err(|errno| {
            let why = sys::errno_text(errno.raw_os_error());
            Refusal::new(
                "channel",
                format!("handing over the channel of {id:?}: {why}"),
            )
        })?;
        Ok(())
    }

    /// Prepares a batch and releases it; what fails after that is fatal to the launcher.
    fn start(&mut self, request: StartRequest) -> Result<(), Trouble> {
        let StartRequest {
            plans,
            wait_for,
            hold,
            timeout_ns,
            stop_grace_ns,
        } = request;
        self.check_plans(&plans)?;
        let environment = |error: io::Error| Refusal::new("environment", error.to_string());
        let terms = Terms {
            wait_for,
            is_held: hold,
            stop_grace_ns,
        };
        let delays: Vec<_> = plans
            .iter()
            .map(|plan| plan.deadline_ns.min(timeout_ns))
            .collect();
        let mut keys = Vec::with_capacity(plans.len());
        let mut programs = Vec::with_capacity(plans.len());
        for plan in plans {
            match self.admit(plan, terms) {
                Ok((key, program)) => {
                    keys.push(key);
                    programs.extend(program.map(|program| (key, program)));
                }
                Err(error) => {
                    self.callers.dismiss();
                    self.forget_all(keys.into_iter(), |_| true);
                    return Err(environment(error).into());
                }
            }
        }
        let needed = programs.iter().map(|(_, program)| program);
        if let Err(error) = self.pool.reserve(needed) {
            self.callers.dismiss();
            self.forget_all(keys.into_iter(), |_| true);
            return Err(environment(error).into());
        }
        let used = sys::own_usage();
        let released_at_ns = self.release(programs);
        for (&key, delay_ns) in keys.iter().zip(delays) {
            if let Some(sandbox) = self.sandboxes.get_mut(&key) {
                sandbox.result.due_at_ns = released_at_ns;
            }
            let at_ns = released_at_ns.saturating_add(delay_ns);
            self.reactor.set_alarm(at_ns, key, Alarm::Deadline)?;
        }
        let pending = keys.iter().copied().collect();
        let used_before = LauncherUsage {
            user_ns: used.user_ns,
            system_ns: used.system_ns,
        };
        self.operation = Operation::Start {
            keys,
            pending,
            released_at_ns,
            used_before,
        };
        Ok(())
    }

    /// Makes a sandbox of a plan, and its program unless the system refuses what it needs.
    fn admit(&mut self, plan: StartPlan, terms: Terms) -> io::Result<(u64, Option<sys::Program>)> {
        let key = self.next_key;
        self.next_key += 1;
        let (ends, program) = match prepare::prepare(&plan, &self.host, &mut self.homes) {
            Ok(prepared) => ((prepared.channel, prepared.output), Ok(prepared.program)),
            Err(error) => ((None, None), Err(error.to_string())),
        };
        if let (Ok(_), Some(token)) = (&program, &plan.channel_token) {
            self.callers.expect(token, key, &self.reactor)?;
        }
        let id = plan.id.clone();
        let mut sandbox = Sandbox::new(key, plan, terms, ends, &self.reactor)?;
        if let Err(why) = &program {
            sandbox.on_refused(why);
        }
        self.names.insert(id, key);
        self.sandboxes.insert(key, sandbox);
        self.touched.push(key);
        Ok((key, program.ok()))
    }

    /// Brings a thread before the gate for each program, then opens it.
    fn release(&mut self, programs: Vec<(u64, sys::Program)>) -> u64 {
        let gate = Arc::new(Gate::new(u32::try_from(programs.len()).unwrap_or(u32::MAX)));
        for (key, program) in programs {
            let Some(sandbox) = self.sandboxes.get_mut(&key) else {
                continue;
            };
            let (slot, their_gate) = (sandbox.slot(), Arc::clone(&gate));
            let job = Job {
                key,
                part: Part::Sandbox,
                program,
                slot,
                gate: their_gate,
            };
            if self.pool.submit(job) {
                self.starting_count += 1;
            } else {
                // Threads were reserved, so this one has died; the others must not wait for it.
                sandbox.on_refused("no thread to start it");
                gate.excuse();
            }
        }
        gate.wait_for_all();
        let released_at_ns = sys::now_ns();
        gate.open();
        released_at_ns
    }

    fn check_plans(&self, plans: &[StartPlan]) -> Result<(), Refusal> {
        prepare::validate_count(plans.len())?;
        let (mut ids, mut tokens) = (HashSet::new(), HashSet::new());
        for plan in plans {
            prepare::validate(plan).map_err(|error| {
                Refusal::new("bad-request", format!("plan {:?}: {error}", plan.id))
            })?;
            if !ids.insert(&plan.id) || self.names.contains_key(&plan.id) {
                let message = format!("plan {:?}: the id is in use", plan.id);
                return Err(Refusal::new("bad-request", message));
            }
            let Some(token) = &plan.channel_token else {
                continue;
            };
            let is_new = tokens.insert(token);
            if !is_new || !self.callers.is_listening() {
                let why = if is_new {
                    "nobody listens for its guest; expected a request to listen before"
                } else {
                    "another plan has the same channel_token"
                };
                let message = format!("plan {:?}: {why}", plan.id);
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
            self.with(*key, |sandbox, reactor| {
                sandbox.stop(how, grace_ns, reactor)
            })
            .map_err(|error| Refusal::new("environment", error.to_string()))?;
        }
        let pending = keys.iter().copied().collect();
        self.operation = Operation::Stop { keys, pending };
        Ok(())
    }
}
