//! Running a command: bounded output, a deadline, and what it used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};

use super::{Measured, within};
use crate::error::GuestError;
use crate::sys;

/// Most bytes kept of each output stream. In JSON a byte takes at most six, so
/// that both streams always fit into one frame.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Most arguments.
const ARGUMENTS_MAX: usize = 1024;
/// Most variables that are added to the environment.
const VARIABLES_MAX: usize = 64;
/// Longest deadline: an hour.
const TIMEOUT_NS_MAX: u64 = 3_600_000_000_000;

/// A command to run.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    argv: Vec<String>,
    /// Added to the guest's own environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Where the command begins; the guest's own directory unless given.
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default = "output_bytes_default")]
    output_bytes_max: usize,
    #[serde(default = "timeout_default")]
    timeout_ns: u64,
}

const fn output_bytes_default() -> usize {
    OUTPUT_BYTES_MAX
}

const fn timeout_default() -> u64 {
    60_000_000_000
}

impl ExecRequest {
    /// A command with the default bounds.
    pub const fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: BTreeMap::new(),
            cwd: None,
            output_bytes_max: output_bytes_default(),
            timeout_ns: timeout_default(),
        }
    }
}

/// What became of a command.
#[derive(Debug, Serialize)]
pub struct Executed {
    #[serde(flatten)]
    measured: Measured,
    exit_code: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
    stdout: String,
    stderr: String,
    /// All bytes that came, kept or not.
    stdout_bytes: u64,
    stderr_bytes: u64,
    user_ns: u64,
    system_ns: u64,
    max_rss_bytes: u64,
}

/// One output stream: what is kept of it, and how much came.
struct Output {
    pipe: Option<File>,
    kept: Vec<u8>,
    kept_max: usize,
    seen_bytes: u64,
}

/// Runs the command to its end or to its deadline; `batch_ns` is from spawn to exit seen.
pub fn run(request: &ExecRequest) -> Result<Executed, GuestError> {
    within(
        "number of arguments in argv",
        request.argv.len(),
        1..=ARGUMENTS_MAX,
    )?;
    within(
        "output_bytes_max",
        request.output_bytes_max,
        0..=OUTPUT_BYTES_MAX,
    )?;
    within("timeout_ns", request.timeout_ns, 1..=TIMEOUT_NS_MAX)?;
    within(
        "number of variables in env",
        request.env.len(),
        0..=VARIABLES_MAX,
    )?;
    let start_ns = sys::monotonic_ns();
    // From here on the group dies with the guest, should the host say STOP meanwhile.
    sys::expect_child_group();
    let mut child = spawn(request).inspect_err(|_| sys::set_child_group(0))?;
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Err(GuestError::BadRequest(
            "the child has no process id".to_owned(),
        ));
    };
    sys::set_child_group(pid.as_raw_nonzero().get());
    let mut outputs = [
        Output::new(
            child.stdout.take().map(OwnedFd::from),
            request.output_bytes_max,
        ),
        Output::new(
            child.stderr.take().map(OwnedFd::from),
            request.output_bytes_max,
        ),
    ];
    let deadline_ns = start_ns.saturating_add(request.timeout_ns);
    let timed_out = follow(pid, &mut outputs, deadline_ns)?;
    let end_ns = sys::monotonic_ns();
    // What the command left in its group goes too; before reaping, while the
    // group's number still is the command's.
    let _ = kill_process_group(pid, Signal::KILL);
    sys::set_child_group(0);
    let end = sys::reap(pid.as_raw_nonzero().get()).map_err(GuestError::probe("wait4"))?;
    reap_orphans();
    let [stdout, stderr] = outputs;
    Ok(Executed {
        measured: Measured::new("exec", 1, vec![end_ns.saturating_sub(start_ns)]),
        exit_code: end.exit_code,
        signal: end.signal,
        timed_out,
        stdout_bytes: stdout.seen_bytes,
        stderr_bytes: stderr.seen_bytes,
        stdout: String::from_utf8_lossy(&stdout.kept).into_owned(),
        stderr: String::from_utf8_lossy(&stderr.kept).into_owned(),
        user_ns: end.user_ns,
        system_ns: end.system_ns,
        max_rss_bytes: end.max_rss_bytes,
    })
}

/// Starts the command in a process group of its own, with pipes for all streams:
/// `/dev/null` need not exist in a sandbox.
fn spawn(request: &ExecRequest) -> Result<Child, GuestError> {
    let Some((program, arguments)) = request.argv.split_first() else {
        return Err(GuestError::BadRequest("argv is empty".to_owned()));
    };
    let mut command = Command::new(program);
    if let Some(directory) = &request.cwd {
        command.current_dir(directory);
    }
    let mut child = command
        .args(arguments)
        .envs(&request.env)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.raw_os_error() {
            Some(number) => GuestError::Probe {
                what: format!("start {program}"),
                errno: Errno::from_raw_os_error(number),
            },
            None => GuestError::BadRequest(format!("start {program}: {error}")),
        })?;
    drop(child.stdin.take()); // it reads the end of the file
    Ok(child)
}

/// Collects output until the child has exited; says whether the deadline came first.
///
/// A thread waits for the exit and closes a pipe, since not every kernel in
/// question has process descriptors. It does not reap (`WNOWAIT`), so the
/// process id stays the child's.
fn follow(pid: Pid, outputs: &mut [Output; 2], deadline_ns: u64) -> Result<bool, GuestError> {
    let (exit_seen, exit_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(GuestError::probe("make a pipe"))?;
    let waiter = std::thread::Builder::new()
        .name("wait".to_owned())
        .spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
            drop(exit_writer);
        });
    let Ok(waiter) = waiter else {
        let _ = kill_process_group(pid, Signal::KILL);
        return Ok(false);
    };
    let mut timed_out = false;
    loop {
        let now_ns = sys::monotonic_ns();
        if !timed_out && now_ns >= deadline_ns {
            timed_out = true;
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let left_ns = if timed_out {
            None
        } else {
            Some(deadline_ns - now_ns)
        };
        if wait_for_output(&exit_seen, outputs, left_ns)? {
            break;
        }
    }
    for output in outputs.iter_mut() {
        output.take_what_is_there(); // the last words, without waiting for grandchildren
    }
    let _ = waiter.join();
    Ok(timed_out)
}

/// Waits for output, exit or time-out; takes output; says whether the child has exited.
fn wait_for_output(
    exit_seen: &OwnedFd,
    outputs: &mut [Output; 2],
    left_ns: Option<u64>,
) -> Result<bool, GuestError> {
    let left = left_ns.and_then(|ns| Timespec::try_from(Duration::from_nanos(ns)).ok());
    let mut watched = vec![PollFd::new(exit_seen, PollFlags::IN)];
    let pipes = outputs.iter().filter_map(|output| output.pipe.as_ref());
    watched.extend(pipes.map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
    match poll(&mut watched, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => {
            return Err(GuestError::Probe {
                what: "poll".to_owned(),
                errno,
            });
        }
    }
    let has_exited = !watched[0].revents().is_empty();
    drop(watched);
    for output in outputs {
        output.take_what_is_there();
    }
    Ok(has_exited)
}

impl Output {
    fn new(pipe: Option<OwnedFd>, kept_max: usize) -> Self {
        let pipe = pipe.filter(|pipe| rustix::io::ioctl_fionbio(pipe, true).is_ok());
        Self {
            pipe: pipe.map(File::from),
            kept: Vec::new(),
            kept_max,
            seen_bytes: 0,
        }
    }

    /// Reads until the pipe is empty or ended; a bounded number of times, so
    /// that a command that never stops writing cannot outrun its deadline.
    fn take_what_is_there(&mut self) {
        let mut chunk = [0; 16 << 10];
        for _ in 0..16 {
            let Some(pipe) = self.pipe.as_mut() else {
                return;
            };
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    self.seen_bytes += count as u64;
                    let room = self.kept_max - self.kept.len();
                    self.kept.extend_from_slice(&chunk[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

/// As process 1 the guest inherits what the command left behind.
fn reap_orphans() {
    if std::process::id() != 1 {
        return;
    }
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str, adjust: impl FnOnce(&mut ExecRequest)) -> Executed {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let mut request = ExecRequest::new(argv);
        adjust(&mut request);
        run(&request).unwrap()
    }

    #[test]
    fn output_status_and_usage_come_back() {
        let done = run_shell("echo out; echo err >&2; exit 3", |_| {});
        assert_eq!(
            (done.exit_code, done.signal, done.timed_out),
            (Some(3), None, false)
        );
        assert_eq!(
            (done.stdout.as_str(), done.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert!(done.max_rss_bytes > 0);
        assert!(done.measured.batch_ns[0] > 0);
    }

    #[test]
    fn output_is_bounded_but_counted() {
        let done = run_shell("head -c 300000 /dev/zero", |request| {
            request.output_bytes_max = 10;
        });
        assert_eq!(done.stdout, "\0".repeat(10));
        assert_eq!(done.stdout_bytes, 300_000);
    }

    #[test]
    fn the_deadline_kills_the_whole_group() {
        let done = run_shell("echo begun; sleep 1000 & sleep 1000", |request| {
            request.timeout_ns = 300_000_000;
        });
        assert!(done.timed_out);
        assert_eq!((done.exit_code, done.signal), (None, Some(9)));
        assert_eq!(done.stdout, "begun\n");
    }

    #[test]
    fn grandchildren_that_hold_the_pipes_do_not_delay_the_end() {
        let done = run_shell("sleep 1000 & echo bye", |_| {});
        assert_eq!((done.exit_code, done.timed_out), (Some(0), false));
        assert_eq!(done.stdout, "bye\n");
    }

    #[test]
    fn environment_and_directory_are_the_commands() {
        let done = run_shell("echo $WORD; pwd", |request| {
            request.env.insert("WORD".to_owned(), "said".to_owned());
            request.cwd = Some("/".to_owned());
        });
        assert_eq!(done.stdout, "said\n/\n");
        let mut request = ExecRequest::new(vec!["/bin/true".to_owned()]);
        request.env = (0..=VARIABLES_MAX)
            .map(|number| (format!("V{number}"), String::new()))
            .collect();
        assert_eq!(run(&request).unwrap_err().code(), "bad-request");
    }

    #[test]
    fn standard_input_is_empty() {
        assert_eq!(run_shell("cat; echo end", |_| {}).stdout, "end\n");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&ExecRequest::new(vec!["/no/such".to_owned()])).unwrap_err();
        assert_eq!(error.code(), "probe-failed");
        assert!(error.to_string().contains("start /no/such"), "{error}");
        assert_eq!(
            run(&ExecRequest::new(Vec::new())).unwrap_err().code(),
            "bad-request"
        );
    }
}
