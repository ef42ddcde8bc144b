//! Turns a [`StartPlan`] into a [`Program`]: opens, allocates and checks everything, so that
//! nothing but system calls on prepared memory is left for the timed path.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use thiserror::Error;

use super::channel::Channel;
use super::homes::Homes;
use super::isolate;
use super::plan::{PLANS_MAX, StartPlan, Stdio};
use super::sys::{Host, Ingredients, Program, SOURCE_FD_MIN, Step};
use crate::control::{TOKEN_BYTES, is_token};

/// Why a plan cannot be started.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The plan contradicts itself or the contract.
    #[error("{0}")]
    Invalid(String),
    /// The system refused something that the plan needs.
    #[error("{what}: {}", super::sys::errno_text(errno.raw_os_error()))]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        errno: rustix::io::Errno,
    },
}

impl PlanError {
    /// An [`PlanError::Invalid`] of a text.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// An [`PlanError::System`] of what was tried, for `map_err`.
    pub fn system(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let what = what.into();
        move |errno| Self::System { what, errno }
    }
}

/// A plan that is ready to be executed.
pub struct Prepared {
    /// For the child, and where to start it.
    pub program: Program,
    /// Our end of the control channel.
    pub channel: Option<Channel>,
    /// Our end of the captured output.
    pub output: Option<OwnedFd>,
}

/// A text as the system wants it.
///
/// # Errors
/// It contains a null byte.
pub fn c_string(text: &str) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_| PlanError::invalid(format!("{text:?} contains a null byte")))
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, PlanError> {
    texts.iter().map(|text| c_string(text)).collect()
}

/// Checks that a path is absolute and does not climb.
///
/// # Errors
/// It is not, or does.
pub fn absolute(what: &str, path: &str) -> Result<(), PlanError> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(PlanError::invalid(format!(
            "{what}: {path:?}, expected an absolute path without '..'"
        )));
    }
    Ok(())
}

/// Checks what can be checked without touching the system.
///
/// # Errors
/// The plan contradicts itself or the contract.
pub fn validate(plan: &StartPlan) -> Result<(), PlanError> {
    if plan.id.is_empty() || plan.id.len() > 255 {
        return Err(PlanError::invalid("an id must have 1 to 255 bytes"));
    }
    let Some(program) = plan.argv.first() else {
        return Err(PlanError::invalid(
            "argv is empty, expected at least a program",
        ));
    };
    absolute("argv", program)?;
    if let Some(number) = plan.channel_fd
        && !(3..SOURCE_FD_MIN).contains(&number)
    {
        return Err(PlanError::invalid(format!(
            "channel_fd {number}, expected 3 to {}",
            SOURCE_FD_MIN - 1
        )));
    }
    if let Some(path) = &plan.channel_path {
        absolute("channel_path", path)?;
    }
    if let Some(token) = &plan.channel_token
        && !is_token(token.as_bytes())
    {
        // Not what it is: it may be nearly right, and errors are kept in logs.
        return Err(PlanError::invalid(format!(
            "channel_token of {} bytes, expected {TOKEN_BYTES} of 0-9 and a-f",
            token.len()
        )));
    }
    let ways = [
        plan.channel_fd.is_some(),
        plan.channel_path.is_some(),
        plan.channel_token.is_some(),
    ];
    if ways.iter().filter(|is_given| **is_given).count() > 1 {
        let text = "expected at most one of channel_fd, channel_path and channel_token";
        return Err(PlanError::invalid(text));
    }
    if let Some(command) = &plan.kill_argv {
        let program = command
            .first()
            .ok_or_else(|| PlanError::invalid("kill_argv is empty"))?;
        absolute("kill_argv", program)?;
    }
    for path in plan.cgroup_procs.iter().chain(&plan.network_namespace) {
        absolute("plan", path)?;
    }
    plan.isolation.as_ref().map_or(Ok(()), isolate::validate)
}

/// Checks the size of a batch.
///
/// # Errors
/// It is empty or larger than [`PLANS_MAX`].
pub fn validate_count(count: usize) -> Result<(), PlanError> {
    if !(1..=PLANS_MAX).contains(&count) {
        return Err(PlanError::invalid(format!(
            "{count} plans, expected 1 to {PLANS_MAX}"
        )));
    }
    Ok(())
}

/// Makes everything that a start needs.
///
/// # Errors
/// The plan is invalid, or the system refused something.
pub fn prepare(plan: &StartPlan, host: &Host, homes: &mut Homes) -> Result<Prepared, PlanError> {
    let mut descriptors = vec![(Arc::clone(&host.null), 0)];
    let output = output(plan, host, &mut descriptors)?;
    let channel = match (plan.channel_fd, &plan.channel_path) {
        (None, None) => None, // or the guest's call brings it
        (None, Some(path)) => Some(Channel::listening(listen(path, host)?)),
        (Some(number), _) => {
            let (ours, theirs) = socketpair(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .map_err(PlanError::system("socketpair for the channel"))?;
            descriptors.push((for_child(theirs, host)?, number));
            Some(Channel::new(for_launcher(&ours, host)?))
        }
    };
    let (early_steps, mut steps) = (cgroup_steps(plan, host)?, Vec::new());
    if let Some(path) = &plan.network_namespace {
        let namespace = rustix::fs::open(
            path.as_str(),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(PlanError::system(format!(
            "open of the network name space {path}"
        )))?;
        steps.push(Step::EnterNetwork(namespace));
    }
    let (mut namespaces, mut home, mut network_ahead) = (0, None, None);
    if let Some(isolation) = &plan.isolation {
        namespaces = isolate::clone_flags(isolation);
        home = homes.of(isolation, host)?;
        network_ahead = isolation.network_ahead.then(|| Arc::clone(&host.network));
        steps.extend(isolate::steps(isolation)?);
    }
    if let Some(path) = &plan.cwd {
        steps.push(Step::ChangeDirectory(c_string(path)?));
    }
    let (argv, env) = (c_strings(&plan.argv)?, c_strings(&plan.env)?);
    let ingredients = Ingredients {
        namespaces,
        home,
        network_ahead,
        early_steps,
        steps,
        descriptors,
        argv,
        env,
    };
    Ok(Prepared {
        program: Program::new(ingredients, host),
        channel,
        output,
    })
}

/// Makes the program of a `kill_argv`: no channel, no limits, nothing kept of what it says.
///
/// # Errors
/// A text contains a null byte.
pub fn prepare_command(argv: &[String], env: &[String], host: &Host) -> Result<Program, PlanError> {
    let ingredients = Ingredients {
        namespaces: 0,
        home: None,
        network_ahead: None,
        early_steps: Vec::new(),
        steps: Vec::new(),
        descriptors: (0..3)
            .map(|number| (Arc::clone(&host.null), number))
            .collect(),
        argv: c_strings(argv)?,
        env: c_strings(env)?,
    };
    Ok(Program::new(ingredients, host))
}

fn output(
    plan: &StartPlan,
    host: &Host,
    descriptors: &mut Vec<(Arc<OwnedFd>, i32)>,
) -> Result<Option<OwnedFd>, PlanError> {
    let (theirs, ours) = match plan.stdio {
        Stdio::Null => (Arc::clone(&host.null), None),
        Stdio::Capture => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
                .map_err(PlanError::system("pipe for the captured output"))?;
            let ours = for_launcher(&reader, host)?;
            // Only our end: the sandbox's end is an open file of its own.
            rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)
                .map_err(PlanError::system("making the captured output non-blocking"))?;
            (for_child(writer, host)?, Some(ours))
        }
    };
    descriptors.push((Arc::clone(&theirs), 1));
    descriptors.push((theirs, 2));
    Ok(ours)
}

/// A socket at a path on which the guest will call.
fn listen(path: &str, host: &Host) -> Result<OwnedFd, PlanError> {
    let system = |errno| PlanError::system(format!("listening at {path:?}"))(errno);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.map_err(system)?;
    let address = SocketAddrUnix::new(path).map_err(system)?;
    rustix::net::bind(&socket, &address).map_err(system)?;
    rustix::net::listen(&socket, 1).map_err(system)?;
    for_launcher(&socket, host)
}

/// The files by which the child joins its groups, open. They are numbered out of the way of the
/// children, of which none needs a copy, as long as enough such numbers are left for the rest.
fn cgroup_steps(plan: &StartPlan, host: &Host) -> Result<Vec<Step>, PlanError> {
    let scarce_from = host.high_fd_base + host.high_fd_base / 2;
    let step = |path: &String| {
        let path = cheapest_join_file(path);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let what = format!("joining the control group {path}");
        let mut file = rustix::fs::open(path.as_str(), flags, Mode::empty())
            .map_err(PlanError::system(what))?;
        if let Ok(moved) = fcntl_dupfd_cloexec(&file, host.high_fd_base)
            && moved.as_raw_fd() < scarce_from
        {
            file = moved;
        }
        let path = c_string(&path)?;
        Ok(Step::Join { file, path })
    };
    plan.cgroup_procs.iter().map(step).collect()
}

/// In a version 1 hierarchy `tasks` does for our single-threaded child what `cgroup.procs` does,
/// without the lock on all thread groups, which an idle system takes only after an RCU grace
/// period: 16 ms instead of 25 us were seen. Version 2 has no such file.
fn cheapest_join_file(path: &str) -> String {
    path.strip_suffix("/cgroup.procs")
        .map(|group| format!("{group}/tasks"))
        .filter(|tasks| Path::new(tasks).exists())
        .unwrap_or_else(|| path.to_owned())
}

/// Moves a descriptor to where children are given theirs from.
fn for_child(fd: OwnedFd, host: &Host) -> Result<Arc<OwnedFd>, PlanError> {
    let moved = if fd.as_raw_fd() >= SOURCE_FD_MIN {
        fd
    } else {
        fcntl_dupfd_cloexec(&fd, SOURCE_FD_MIN).map_err(PlanError::system("moving a descriptor"))?
    };
    if moved.as_raw_fd() >= host.high_fd_base {
        return Err(PlanError::invalid(format!(
            "more descriptors are needed at once than the limit of open files leaves room for \
             ({} for sandboxes being started); raise 'ulimit -n' or start fewer at once",
            host.high_fd_base
        )));
    }
    Ok(Arc::new(moved))
}

/// Moves a descriptor to where no child gets a copy of it.
fn for_launcher(fd: &OwnedFd, host: &Host) -> Result<OwnedFd, PlanError> {
    fcntl_dupfd_cloexec(fd, host.high_fd_base).map_err(PlanError::system(
        "moving a descriptor out of the way of the children",
    ))
}
