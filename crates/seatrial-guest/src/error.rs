//! What can go wrong in a guest, with the code its host sees.

use rustix::io::Errno;
use seatrial_core::control::{ControlError, EXIT_PROTOCOL, ErrorReport};
use thiserror::Error;

/// Exit status after a wrong command line (`EX_USAGE`).
pub const EXIT_USAGE: i32 = 64;
/// Exit status when the operating system refused something needed (`EX_OSERR`).
pub const EXIT_SYSTEM: i32 = 71;

/// A failure that the guest reports, on the channel where it has one.
#[derive(Debug, Error)]
pub enum GuestError {
    /// The command line is not one the guest knows.
    #[error("{0}")]
    Usage(String),
    /// The host sent something that is not the protocol.
    #[error(transparent)]
    Protocol(#[from] ControlError),
    /// A `RUN` asks for something that does not exist or is out of bounds.
    #[error("{0}")]
    BadRequest(String),
    /// A `RUN` came while another was still going on.
    #[error("a probe is already running; wait for its RESULT before the next RUN")]
    Busy,
    /// A guest in another role was asked what its server has counted.
    #[error("this guest serves nothing, so it has counted nothing; STATS is for the role serve")]
    NoServer,
    /// A probe could not do its work.
    #[error("{what}: {errno}")]
    Probe {
        /// The step that failed, with the thing it failed on.
        what: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A probe ran longer than a probe may.
    #[error("the probe passed its limit of {limit_ns} ns after {batches} of its batches")]
    TooSlow {
        /// The limit.
        limit_ns: u64,
        /// Batches that were finished.
        batches: usize,
    },
    /// The server could not be set up.
    #[error("cannot listen on {address}: {errno}")]
    Listen {
        /// The address as it was asked for.
        address: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The operating system refused something the guest needs.
    #[error("{what}: {errno}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl GuestError {
    /// The short stable word for this failure.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Protocol(_) => "protocol",
            Self::BadRequest(_) => "bad-request",
            Self::Busy => "busy",
            Self::NoServer => "no-server",
            Self::Probe { .. } | Self::TooSlow { .. } => "probe-failed",
            Self::Listen { .. } => "listen-failed",
            Self::System { .. } => "system",
        }
    }

    /// The status the guest exits with where this failure ends it.
    pub const fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Protocol(_) => EXIT_PROTOCOL,
            _ => EXIT_SYSTEM,
        }
    }

    /// The failure as it travels.
    pub fn report(&self) -> ErrorReport {
        ErrorReport {
            code: self.code().to_owned(),
            message: self.to_string(),
        }
    }

    /// For `map_err` after a system call of a probe.
    pub fn probe(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |errno| Self::Probe { what, errno }
    }
}
