//! Start plans, requests and results as data: what crosses the launcher's control socket.
//!
//! Every instant is `CLOCK_MONOTONIC` in nanoseconds, read in the launcher, unless its name
//! says `guest`; `None` means that the event did not happen.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The default for [`StartRequest::stop_grace_ns`] and [`StopRequest::grace_ns`]: five seconds.
pub const STOP_GRACE_NS: u64 = 5_000_000_000;

/// The bound on a `kill_argv` command: ten seconds.
pub const CLEAN_UP_NS: u64 = 10_000_000_000;

/// How long a process may take to vanish after `SIGKILL` before it is given up: ten seconds.
pub const REAP_NS: u64 = 10_000_000_000;

/// Most bytes of a captured output that a result keeps.
pub const STDERR_TAIL_BYTES_MAX: usize = 4 << 10;

/// Most plans in one batch.
pub const PLANS_MAX: usize = 4096;

/// A name space that [`Isolation`] can give to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// Mount points.
    Mount,
    /// Process ids; the sandbox becomes process 1.
    Pid,
    /// Host name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network; empty but for a loopback interface that is down.
    Net,
    /// User ids and capabilities.
    User,
    /// The root of what the sandbox sees of the control groups.
    Cgroup,
}

/// A directory or file of the host that a sandbox sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: String,
    /// Absolute path in the sandbox; it must exist in the root.
    pub target: String,
    /// Whether the sandbox may not write to it.
    #[serde(default)]
    pub read_only: bool,
}

/// The recipe of the `lean` sandbox: what the child does to itself between `clone` and `execve`.
///
/// With a root and without [`Namespace::User`] the child is made in a mount name space that holds
/// nothing but that root, prepared once for all sandboxes of it; it gets a copy of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// The name spaces that are new.
    pub namespaces: Vec<Namespace>,
    /// Absolute path of the directory that becomes the root; needs [`Namespace::Mount`].
    #[serde(default)]
    pub root: Option<String>,
    /// What is bound into the root.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// Whether `/proc` is mounted; needs [`Namespace::Pid`] to show the sandbox only.
    #[serde(default)]
    pub proc: bool,
    /// Directories of the root that get an empty tmpfs.
    #[serde(default)]
    pub tmpfs: Vec<String>,
    /// The host name inside; needs [`Namespace::Uts`].
    #[serde(default)]
    pub hostname: Option<String>,
    /// A line for `/proc/self/uid_map`, such as `0 1000 1`; needs [`Namespace::User`].
    #[serde(default)]
    pub uid_map: Option<String>,
    /// A line for `/proc/self/gid_map`; needs [`Namespace::User`].
    #[serde(default)]
    pub gid_map: Option<String>,
    /// Whether the root itself is read-only; binds and tmpfs keep their own flags.
    #[serde(default)]
    pub read_only_root: bool,
    /// Whether the network name space is made before the release of the batch; needs
    /// [`Namespace::Net`], and not [`Namespace::User`], which would have to own it.
    #[serde(default)]
    pub network_ahead: bool,
}

/// Where the standard streams of a sandbox go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdio {
    /// All three are `/dev/null`.
    #[default]
    Null,
    /// Input is `/dev/null`; output and errors go into one pipe whose last bytes are kept.
    Capture,
}

/// What the guest of a plan says when it is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// `HELLO` is all that is to be expected.
    #[default]
    Hello,
    /// `HELLO`, and `READY` when its role is set up.
    Ready,
}

/// One sandbox to be started, complete: nothing is looked up or decided in the timed path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartPlan {
    /// Unique among the sandboxes that this launcher holds.
    pub id: String,
    /// The command; the first word is an absolute path.
    pub argv: Vec<String>,
    /// The whole environment, as `KEY=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// The working directory, inside of the root when there is one.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The descriptor number that carries the control channel; `None` for a command without one.
    #[serde(default)]
    pub channel_fd: Option<i32>,
    /// The path of a Unix socket on which the launcher awaits the guest, for a sandbox that
    /// inherits no descriptor from the command; its directory exists. Not beside `channel_fd`.
    #[serde(default)]
    pub channel_path: Option<String>,
    /// The secret that the guest says when it calls by TCP, at an address of [`Request::Listen`]:
    /// `control::TOKEN_BYTES` lower-case hexadecimal digits. Instead of the two above.
    #[serde(default)]
    pub channel_token: Option<String>,
    /// Files that the child writes `0` to before anything else: `cgroup.procs`, one a hierarchy.
    /// They are opened before the release.
    #[serde(default)]
    pub cgroup_procs: Vec<String>,
    /// The network name space to enter, as a path.
    #[serde(default)]
    pub network_namespace: Option<String>,
    /// The recipe of the `lean` sandbox.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// Where the standard streams go.
    #[serde(default)]
    pub stdio: Stdio,
    /// How long after the barrier the wait goal may be reached.
    pub deadline_ns: u64,
    /// A command that cleans up after a sandbox that had to be killed, such as `runc delete -f`.
    #[serde(default)]
    pub kill_argv: Option<Vec<String>>,
    /// What the guest says when it is up.
    #[serde(default)]
    pub ready: Readiness,
}

/// What a start waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// The guest's `HELLO`.
    Hello,
    /// The guest's `READY`.
    Ready,
    /// The answer to a `PING`, which is sent as soon as the guest is up ([`StartPlan::ready`]).
    Reply,
}

/// A batch of starts that are released by one barrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The sandboxes.
    pub plans: Vec<StartPlan>,
    /// What each start waits for; a plan without a channel waits for its exit, or when it is
    /// held for nothing but its `execve`.
    pub wait_for: WaitFor,
    /// Whether the sandboxes stay when they have reached their goal.
    #[serde(default)]
    pub hold: bool,
    /// A bound on all deadlines, from the barrier.
    pub timeout_ns: u64,
    /// How long a guest may take to obey `STOP` before it is killed.
    #[serde(default = "default_grace")]
    pub stop_grace_ns: u64,
}

/// How a held sandbox is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopHow {
    /// `STOP` on the channel (`SIGTERM` without one), then `SIGKILL` after the grace.
    Request,
    /// `SIGKILL` at once, then `kill_argv`.
    Kill,
}

/// Which held sandboxes to stop, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// The sandboxes; `None` for all.
    #[serde(default)]
    pub ids: Option<Vec<String>>,
    /// How.
    pub how: StopHow,
    /// How long a guest may take to obey before it is killed.
    #[serde(default = "default_grace")]
    pub grace_ns: u64,
}

/// A request to the launcher; each gets one reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Asks who answers.
    Version,
    /// Moves the launcher into a private mount name space and unmounts there; once, before
    /// the first start.
    Context {
        /// Mount points to be removed from the launcher's view.
        #[serde(default)]
        unmount: Vec<String>,
    },
    /// Listens for guests that call by TCP, for as long as the launcher lives.
    Listen {
        /// An address of this host, or one that it will have by then.
        address: IpAddr,
    },
    /// Starts a batch.
    Start(StartRequest),
    /// Hands the channel of a held sandbox over.
    Channel {
        /// The sandbox.
        id: String,
    },
    /// Stops held sandboxes.
    Stop(StopRequest),
    /// Kills what lives and exits.
    Shutdown,
}

/// How a start ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The goal was reached.
    #[default]
    Ok,
    /// The program could not be executed.
    SpawnFailed,
    /// It ended before the goal.
    ExitedEarly,
    /// The deadline passed; what is known of the duration is a lower bound.
    TimedOut,
    /// What it said on the channel was not our protocol.
    ProtocolError,
}

/// What the system says a process and the descendants it waited for have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time in user mode.
    pub user_ns: u64,
    /// Time in the kernel.
    pub system_ns: u64,
    /// Largest resident set of any of them; never below the launcher's own, whose memory the
    /// child shares until `execve`.
    pub max_rss_bytes: u64,
}

/// The timeline and the end of one start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartResult {
    /// The plan's.
    pub id: String,
    /// The direct child.
    pub pid: Option<i32>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the goal was not reached when the deadline passed.
    pub censored: bool,
    /// What went wrong.
    pub error: Option<String>,
    /// The direct child's exit status.
    pub exit_code: Option<i32>,
    /// The signal that ended the direct child.
    pub signal: Option<i32>,
    /// The last bytes of the captured output.
    pub stderr_tail: Option<String>,
    /// The barrier's release.
    pub due_at_ns: u64,
    /// Immediately before `clone`.
    pub invoked_at_ns: Option<u64>,
    /// Immediately after `clone` returned, which is after the child's `execve`.
    pub accepted_at_ns: Option<u64>,
    /// The wake-up in which the first byte of the channel was there.
    pub first_byte_at_ns: Option<u64>,
    /// The wake-up in which `READY` was complete.
    pub ready_at_ns: Option<u64>,
    /// Immediately before the `PING` was written.
    pub ping_sent_at_ns: Option<u64>,
    /// The wake-up in which the `PONG` was complete.
    pub first_reply_at_ns: Option<u64>,
    /// Immediately before `STOP` was written, or the signal sent.
    pub stop_requested_at_ns: Option<u64>,
    /// The wake-up in which the direct child was found to have ended.
    pub exit_seen_at_ns: Option<u64>,
    /// The guest's own clock at its first instruction.
    pub guest_first_instruction_mono_ns: Option<u64>,
    /// The guest's own clock when it made its `HELLO`.
    pub guest_hello_mono_ns: Option<u64>,
    /// The guest's own clock when it was ready.
    pub guest_ready_mono_ns: Option<u64>,
    /// The direct child's time in user mode, with the descendants it waited for.
    pub user_ns: Option<u64>,
    /// The direct child's time in the kernel, likewise.
    pub system_ns: Option<u64>,
    /// See [`Usage::max_rss_bytes`].
    pub max_rss_bytes: Option<u64>,
}

/// What the launcher itself has used during a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherUsage {
    /// Time in user mode.
    pub user_ns: u64,
    /// Time in the kernel.
    pub system_ns: u64,
}

/// The answer to a [`StartRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReply {
    /// The barrier's release.
    pub released_at_ns: u64,
    /// In the order of the plans.
    pub results: Vec<StartResult>,
    /// The launcher's own share.
    pub launcher: LauncherUsage,
}

/// The end of one held sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopResult {
    /// The plan's.
    pub id: String,
    /// Immediately before the request or the signal; `None` when it had ended before.
    pub stop_requested_at_ns: Option<u64>,
    /// The wake-up in which the direct child was found to have ended.
    pub exit_seen_at_ns: Option<u64>,
    /// Its exit status.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
    /// The last bytes of the captured output.
    pub stderr_tail: Option<String>,
    /// Time in user mode, with the descendants it waited for.
    pub user_ns: Option<u64>,
    /// Time in the kernel, likewise.
    pub system_ns: Option<u64>,
    /// See [`Usage::max_rss_bytes`].
    pub max_rss_bytes: Option<u64>,
}

/// The answer to a [`StopRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReply {
    /// In the order of the request.
    pub results: Vec<StopResult>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// It was refused or failed.
    Failure {
        /// A short stable word.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// To a start.
    Start(StartReply),
    /// To a stop.
    Stop(StopReply),
    /// To a version request.
    Version {
        /// The launcher's version.
        version: String,
    },
    /// To a request to listen.
    Listening {
        /// The port that the system chose, the same one whenever the address is named again.
        port: u16,
    },
    /// To everything else.
    Done {},
}

impl Reply {
    /// The reply as it is sent, with its `ok` mark.
    ///
    /// # Errors
    /// The reply has no JSON form; none of the types here can provoke that.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Marked<'a> {
            ok: bool,
            #[serde(flatten)]
            reply: &'a Reply,
        }
        let ok = !matches!(self, Self::Failure { .. });
        serde_json::to_vec(&Marked { ok, reply: self })
    }
}

const fn default_grace() -> u64 {
    STOP_GRACE_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_request_is_complete() {
        let text = r#"{"op":"start","wait_for":"reply","timeout_ns":9,
            "plans":[{"id":"a","argv":["/bin/true"],"deadline_ns":5}]}"#;
        let Request::Start(request) = serde_json::from_str(text).unwrap() else {
            panic!()
        };
        assert_eq!(
            (request.hold, request.stop_grace_ns),
            (false, STOP_GRACE_NS)
        );
        let plan = &request.plans[0];
        assert_eq!(
            (plan.channel_fd, plan.stdio, plan.ready),
            (None, Stdio::Null, Readiness::Hello)
        );
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        for text in [
            r#"{"op":"start","wait_for":"hello","timeout_ns":1,"plans":[],"holt":true}"#,
            r#"{"op":"stop","how":"request","idz":[]}"#,
            r#"{"op":"stop","how":"gently"}"#,
            r#"{"op":"listen","address":"here"}"#,
            r#"{"op":"start","wait_for":"hello","timeout_ns":1,
                "plans":[{"id":"a","argv":[],"deadline_ns":1,"isolation":{"namespaces":["moon"]}}]}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn replies_are_marked() {
        let json = |reply: Reply| String::from_utf8(reply.to_json().unwrap()).unwrap();
        assert_eq!(json(Reply::Done {}), r#"{"ok":true}"#);
        let failure = Reply::Failure {
            code: "a".to_owned(),
            message: "b".to_owned(),
        };
        assert_eq!(json(failure), r#"{"ok":false,"code":"a","message":"b"}"#);
        assert_eq!(
            json(Reply::Listening { port: 7 }),
            r#"{"ok":true,"port":7}"#
        );
        let stop = Reply::Stop(StopReply {
            results: Vec::new(),
        });
        assert_eq!(json(stop), r#"{"ok":true,"results":[]}"#);
        let start = Reply::Start(StartReply {
            released_at_ns: 1,
            results: vec![StartResult {
                outcome: Outcome::TimedOut,
                ..StartResult::default()
            }],
            launcher: LauncherUsage::default(),
        });
        let text = json(start);
        assert!(text.contains(r#""outcome":"timed-out""#), "{text}");
        assert!(text.contains(r#""first_byte_at_ns":null"#), "{text}");
        assert!(
            text.contains(r#""launcher":{"user_ns":0,"system_ns":0}"#),
            "{text}"
        );
    }
}
