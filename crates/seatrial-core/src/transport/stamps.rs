//! When packets left and came, as the kernel or the network device saw it.
//!
//! The kernel stamps what is received as it comes from the device (software, `CLOCK_REALTIME`) and
//! hands the stamp out with the bytes. What is sent it stamps as it goes to the device, and
//! puts the stamp into the error queue of the socket with a number: the offset of the last byte
//! of the send call (TCP), or the number of the datagram. [`LinkStamps`] turns those numbers
//! back into requests. A stamp that is missing is counted and nothing else.

mod link;
mod stamper;

use crate::error::CoreError;
use crate::units::Nanos;

pub(super) use link::LinkStamps;
pub(super) use stamper::Stamper;

/// Who says when a packet left and came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StampSource {
    /// Nobody but ourselves: the instants just before the send call and just after the read.
    #[default]
    User,
    /// The kernel too.
    Kernel,
    /// The network device too.
    Hardware,
}

impl StampSource {
    /// Reads `user`, `kernel` or `hardware`.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for any other name.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        match text {
            "user" => Ok(Self::User),
            "kernel" => Ok(Self::Kernel),
            "hardware" => Ok(Self::Hardware),
            _ => Err(CoreError::InvalidValue {
                what: "timestamps",
                value: text.to_owned(),
                expected: "user, kernel or hardware",
            }),
        }
    }

    /// The name that [`StampSource::parse`] reads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Hardware => "hardware",
        }
    }
}

/// Which stamps a load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamping {
    /// Whose.
    pub source: StampSource,
    /// Of every so-maniest request, at least 1; each costs a system call.
    pub every: u32,
}

impl Default for Stamping {
    fn default() -> Self {
        Self {
            source: StampSource::User,
            every: 1,
        }
    }
}

/// What the kernel and the device know about one request and its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStamps {
    /// When the request went from the kernel to the device, on `CLOCK_MONOTONIC`.
    pub sent_at: Option<Nanos>,
    /// When the reply came from the device to the kernel.
    pub received_at: Option<Nanos>,
    /// Between the two: by the device's own stamps, if those were asked for.
    pub wire: Option<Nanos>,
}

/// What became of the stamps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StampReport {
    /// What was asked for.
    pub requested: StampSource,
    /// What was used.
    pub used: StampSource,
    /// Why that is less.
    pub reason: Option<String>,
    /// Replies with both stamps.
    pub matched_count: u64,
    /// Replies to requests that should have been stamped, without both stamps.
    pub missing_count: u64,
    /// How well the kernel's clock could be converted to ours, at the worst.
    pub clock_uncertainty: Nanos,
}

impl KernelStamps {
    /// Nothing.
    pub const NONE: Self = Self {
        sent_at: None,
        received_at: None,
        wire: None,
    };
}

impl StampReport {
    /// Of a load whose transport knows no stamps at all.
    pub(crate) fn without(requested: StampSource) -> Self {
        let is_less = requested != StampSource::User;
        Self {
            requested,
            reason: is_less.then(|| "a modelled server has no network".to_owned()),
            ..Self::default()
        }
    }

    /// Adds what another thread reports.
    pub fn add(&mut self, other: &Self) {
        self.requested = self.requested.max(other.requested);
        self.used = self.used.min(other.used);
        if self.reason.is_none() {
            self.reason.clone_from(&other.reason);
        }
        self.matched_count += other.matched_count;
        self.missing_count += other.missing_count;
        self.clock_uncertainty = self.clock_uncertainty.max(other.clock_uncertainty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names() {
        for source in [
            StampSource::User,
            StampSource::Kernel,
            StampSource::Hardware,
        ] {
            assert_eq!(StampSource::parse(source.name()).unwrap(), source);
        }
        assert_eq!(
            StampSource::parse("nic").unwrap_err().code(),
            "invalid-value"
        );
    }
}
