//! What can go wrong in the core. Each variant has a stable code, for programs.
//!
//! Trouble of a single request is not an error: it is that request's
//! [`Outcome`](crate::record::Outcome). An error here means that a whole call
//! could not do its work.

use thiserror::Error;

use crate::units::Nanos;

/// An error of the core.
#[derive(Debug, Error)]
pub enum CoreError {
    /// A setting of a load plan is out of its range, or contradicts another one.
    #[error("load plan: {field} is {value}, expected {expected}")]
    InvalidPlan {
        /// The setting.
        field: &'static str,
        /// What it was.
        value: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// A CPU that threads should run on is none that this process may use.
    #[error("load plan: cpus has {cpu}, expected CPUs that this process may use: {allowed}")]
    CpuNotAllowed {
        /// The CPU.
        cpu: u32,
        /// Those that would have been accepted, such as `0-3,8`.
        allowed: String,
    },
    /// The instant at which the load should have begun was over when all was ready.
    #[error(
        "load plan: start_at_ns was {} ns ago when all connections were made, expected an instant after that",
        late.get()
    )]
    StartMissed {
        /// By how much.
        late: Nanos,
    },
    /// A text does not name a value of its kind.
    #[error("{what} {value:?}, expected {expected}")]
    InvalidValue {
        /// The kind of value.
        what: &'static str,
        /// The text.
        value: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// An option of a protocol is not known or has a value that does not fit.
    #[error("{protocol} option {name}={value:?}, expected {expected}")]
    InvalidOption {
        /// The protocol.
        protocol: &'static str,
        /// The option.
        name: String,
        /// Its value.
        value: String,
        /// What would have been accepted.
        expected: String,
    },
    /// The target turned connections away before the load began.
    #[error(
        "connection {connection} of {total} to {target} failed before the load began: {source}{}",
        connect_hint(source)
    )]
    Connect {
        /// The target as the plan names it.
        target: String,
        /// Number of the connection, from 0.
        connection: u32,
        /// Connections that were asked for.
        total: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The keys of a store could not be written before the load.
    #[error("keys could not be written to {target} before the load: {reason}")]
    Preload {
        /// The target as the plan names it.
        target: String,
        /// What went wrong, or what the server said.
        reason: String,
    },
    /// A system call that has to work did not.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Bytes are not a stored histogram.
    #[error("not a stored histogram: {reason}")]
    BadHistogram {
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A thread of the engine ended in a panic: a bug of ours.
    #[error("a thread of the load engine panicked; this is a bug in Seatrial")]
    ThreadPanicked,
}

impl CoreError {
    /// The code of this kind of error; it does not change between versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidPlan { .. } | Self::CpuNotAllowed { .. } => "invalid-plan",
            Self::StartMissed { .. } => "start-missed",
            Self::InvalidValue { .. } => "invalid-value",
            Self::InvalidOption { .. } => "invalid-option",
            Self::Connect { .. } => "connect-failed",
            Self::Preload { .. } => "preload-failed",
            Self::System { .. } => "system-call-failed",
            Self::BadHistogram { .. } => "bad-histogram",
            Self::ThreadPanicked => "thread-panicked",
        }
    }

    /// What would have been accepted, for a text that repeats the rest itself.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::InvalidValue { expected, .. } | Self::InvalidPlan { expected, .. } => {
                (*expected).to_owned()
            }
            other => other.to_string(),
        }
    }

    /// Names the system call that failed.
    pub(crate) fn system(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System {
            call,
            source: errno.into(),
        }
    }
}

/// What to do about a connection that could not be made, where the cause is on this side.
fn connect_hint(source: &std::io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => {
            "; no source port is free for this target: use fewer connections or more targets, \
             widen net.ipv4.ip_local_port_range, or wait a minute for closed ones to be forgotten"
        }
        Some(libc::EMFILE) => "; this process may not open more files: raise 'ulimit -Hn'",
        Some(libc::ENFILE) => "; this machine may not open more files: raise fs.file-max",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_on_our_side_comes_with_advice() {
        let rows = [
            (libc::EADDRNOTAVAIL, "ip_local_port_range"),
            (libc::EMFILE, "ulimit"),
            (libc::ENFILE, "file-max"),
        ];
        let told = |code| {
            let error = CoreError::Connect {
                target: "tcp://127.0.0.1:1".into(),
                connection: 3,
                total: 9,
                source: std::io::Error::from_raw_os_error(code),
            };
            error.to_string()
        };
        for (code, advice) in rows {
            assert!(told(code).contains(advice), "{}", told(code));
        }
        assert!(told(libc::ECONNREFUSED).ends_with("(os error 111)"));
    }

    #[test]
    fn messages_say_what_was_found_and_expected() {
        let error = CoreError::InvalidPlan {
            field: "depth",
            value: "0".into(),
            expected: "1 to 1024",
        };
        assert_eq!(
            error.to_string(),
            "load plan: depth is 0, expected 1 to 1024"
        );
        assert_eq!(error.code(), "invalid-plan");
    }
}
