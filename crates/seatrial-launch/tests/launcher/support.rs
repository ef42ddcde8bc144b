//! A client of the launcher, and plans for it.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;
use seatrial_core::control::TOKEN_VARIABLE;
use seatrial_core::launch::plan::{
    Readiness, Reply, Request, StartPlan, StartReply, StartRequest, Stdio, StopHow, StopReply,
    StopRequest, WaitFor,
};

/// Generous: no test waits this long unless it fails.
pub const LONG_NS: u64 = 30_000_000_000;

/// The variable that tells a process of this binary which guest to be.
pub const MODE: &str = "SEATRIAL_FAKE_GUEST";

/// The variable that gives a guest the port at which its host listens.
pub const PORT: &str = "SEATRIAL_FAKE_PORT";

/// The variable that names another launcher than the one that was built with the tests.
pub const LAUNCHER: &str = "SEATRIAL_TEST_LAUNCHER";

/// Descriptors without close-on-exec must not leak into what another test starts meanwhile.
static SPAWN: Mutex<()> = Mutex::new(());

/// Does something while no other test starts a process, which would hold files open that are being
/// written and so keep them from being executed.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _guard = SPAWN.lock().unwrap();
    work()
}

/// A launcher and our ends of its sockets.
pub struct Client {
    pub control: UnixStream,
    pub descriptors: OwnedFd,
    pub child: Child,
}

impl Client {
    /// Starts a launcher.
    pub fn new() -> Self {
        let _guard = SPAWN.lock().unwrap();
        let (control, theirs) = UnixStream::pair().unwrap();
        let (descriptors, their_descriptors) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).unwrap();
        rustix::io::fcntl_setfd(&their_descriptors, FdFlags::empty()).unwrap();
        let program = std::env::var(LAUNCHER)
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_seatrial-launch").to_owned());
        let child = Command::new(program)
            .args(["--control-fd", &theirs.as_raw_fd().to_string()])
            .args([
                "--descriptor-fd",
                &their_descriptors.as_raw_fd().to_string(),
            ])
            .spawn()
            .unwrap();
        Self {
            control,
            descriptors,
            child,
        }
    }

    /// Sends bytes as a frame.
    pub fn send(&mut self, request: &[u8]) {
        let length = u32::try_from(request.len()).unwrap();
        self.control.write_all(&length.to_le_bytes()).unwrap();
        self.control.write_all(request).unwrap();
    }

    /// Waits for a reply.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.control.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        self.control.read_exact(&mut reply).unwrap();
        reply
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Reply {
        self.send(&serde_json::to_vec(request).unwrap());
        serde_json::from_slice(&self.receive()).unwrap()
    }

    /// Starts a batch with the usual bounds.
    pub fn start(&mut self, plans: Vec<StartPlan>, wait_for: WaitFor, hold: bool) -> StartReply {
        let request = StartRequest {
            plans,
            wait_for,
            hold,
            timeout_ns: LONG_NS,
            stop_grace_ns: LONG_NS,
        };
        match self.ask(&Request::Start(request)) {
            Reply::Start(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// Takes the channel of a held sandbox over.
    pub fn borrow(&mut self, id: &str) -> UnixStream {
        let request = Request::Channel { id: id.to_owned() };
        assert_eq!(self.ask(&request), Reply::Done {});
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 16];
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.descriptors, &mut parts, &mut ancillary, flags).unwrap();
        assert_eq!(&text[..got.bytes], id.as_bytes());
        let Some(RecvAncillaryMessage::ScmRights(mut descriptors)) = ancillary.drain().next()
        else {
            panic!("no descriptor")
        };
        UnixStream::from(descriptors.next().unwrap())
    }

    /// Stops everything that is held.
    pub fn stop(&mut self, how: StopHow, grace_ns: u64) -> StopReply {
        match self.ask(&Request::Stop(StopRequest {
            ids: None,
            how,
            grace_ns,
        })) {
            Reply::Stop(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// Closes the control socket and waits for the launcher's end.
    pub fn hang_up(mut self) -> ExitStatus {
        self.control.shutdown(Shutdown::Both).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Harmless after `hang_up`; otherwise it is what ends the launcher.
        let _ = self.control.shutdown(Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// A plan that runs this test binary as a guest of the given kind.
pub fn guest(id: &str, mode: &str) -> StartPlan {
    let program = std::env::current_exe().unwrap();
    let words = [
        program.to_str().unwrap(),
        "guest::fake_guest",
        "--exact",
        "--nocapture",
        "-q",
    ];
    StartPlan {
        env: vec![format!("{MODE}={mode}"), "PATH=/usr/bin:/bin".to_owned()],
        channel_fd: Some(3),
        channel_path: None,
        ..command(id, &words)
    }
}

/// A plan that runs this test binary as a guest that calls a port of this host and says a token.
pub fn caller(id: &str, mode: &str, port: u16, token: &str) -> StartPlan {
    let mut plan = guest(id, mode);
    plan.channel_fd = None;
    plan.channel_token = Some(token.to_owned());
    plan.env.push(format!("{PORT}={port}"));
    plan.env.push(format!("{TOKEN_VARIABLE}={token}"));
    plan
}

/// A plan that runs a command without a channel.
pub fn command(id: &str, argv: &[&str]) -> StartPlan {
    StartPlan {
        id: id.to_owned(),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: Vec::new(),
        cwd: None,
        channel_fd: None,
        channel_path: None,
        channel_token: None,
        cgroup_procs: Vec::new(),
        network_namespace: None,
        isolation: None,
        stdio: Stdio::Capture,
        deadline_ns: LONG_NS,
        kill_argv: None,
        ready: Readiness::Ready,
    }
}

/// A plan that runs a line of shell without a channel.
pub fn shell(id: &str, line: &str) -> StartPlan {
    command(id, &["/bin/sh", "-c", line])
}

/// A descriptor for a process that lives now.
pub fn watch(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Waits for the end of a process; fails when it does not come.
pub fn expect_end(pidfd: impl AsFd) {
    let timeout = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
    assert_eq!(
        poll(&mut watched, Some(&timeout)).unwrap(),
        1,
        "the process is still there"
    );
}
