//! Asks for stamps, and reads them.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::{KernelStamps, LinkStamps, StampReport, StampSource, Stamping};
use crate::clock::RealTimeOffset;
use crate::sys::device::{device_of, stamp_in_hardware};
use crate::sys::message::{PacketStamps, set_stamping};
use crate::units::Nanos;

/// What is stamped, besides what each send call asks for by itself.
const RECEIVED: u32 = libc::SOF_TIMESTAMPING_RX_SOFTWARE
    | libc::SOF_TIMESTAMPING_SOFTWARE
    | libc::SOF_TIMESTAMPING_OPT_ID
    | libc::SOF_TIMESTAMPING_OPT_TSONLY;
const RECEIVED_BY_DEVICE: u32 = libc::SOF_TIMESTAMPING_RX_HARDWARE
    | libc::SOF_TIMESTAMPING_RAW_HARDWARE
    | libc::SOF_TIMESTAMPING_OPT_TX_SWHW;

/// Asks for the stamps of the connections of one thread, and reads them.
#[derive(Debug)]
pub(in crate::transport) struct Stamper {
    every: u32,
    /// Requests so far, to find every so-maniest.
    request_count: u32,
    offset: RealTimeOffset,
    pub report: StampReport,
}

impl Stamper {
    /// `None` when nothing but our own instants was asked for.
    pub fn new(stamping: Stamping) -> Option<Self> {
        (stamping.source != StampSource::User).then(|| {
            let offset = RealTimeOffset::sample();
            Self {
                every: stamping.every.max(1),
                request_count: 0,
                offset,
                report: StampReport {
                    requested: stamping.source,
                    used: stamping.source,
                    clock_uncertainty: offset.uncertainty(),
                    ..StampReport::default()
                },
            }
        })
    }

    /// Uses less than was asked for, and says why; the first reason stands.
    pub fn fall_back(&mut self, to: StampSource, reason: impl Into<String>) {
        if to < self.report.used {
            self.report.used = to;
            let _ = self.report.reason.get_or_insert(reason.into());
        }
    }

    /// Asks for the stamps of a connected socket; `None` when there will be none.
    ///
    /// To be called before anything is sent, since the kernel counts from here.
    pub fn enable(&mut self, fd: BorrowedFd<'_>, local: Option<IpAddr>) -> Option<Box<LinkStamps>> {
        if self.report.used == StampSource::Hardware {
            if let Err(reason) = enable_device(fd, local) {
                self.fall_back(StampSource::Kernel, reason);
            }
        }
        if self.report.used == StampSource::User {
            return None;
        }
        let mut flags = RECEIVED;
        if self.report.used == StampSource::Hardware {
            flags |= RECEIVED_BY_DEVICE;
        }
        // The second try is for kernels before 6.2, whose number is the same on a fresh connection.
        let is_set = set_stamping(fd, flags | libc::SOF_TIMESTAMPING_OPT_ID_TCP)
            .or_else(|_| set_stamping(fd, flags));
        if let Err(error) = is_set {
            self.fall_back(StampSource::User, format!("SO_TIMESTAMPING: {error}"));
            return None;
        }
        Some(Box::default())
    }

    /// What a send call has to ask for.
    pub fn asked(&self) -> u32 {
        let device = if self.report.used == StampSource::Hardware {
            libc::SOF_TIMESTAMPING_TX_HARDWARE
        } else {
            0
        };
        libc::SOF_TIMESTAMPING_TX_SOFTWARE | device
    }

    /// Whether the next request is one of those that are stamped.
    pub fn is_next_sampled(&mut self) -> bool {
        let is_sampled = self.request_count == 0;
        self.request_count = (self.request_count + 1) % self.every;
        is_sampled
    }

    /// What is known about the request that a reply answers.
    pub fn stamps_of(
        &mut self,
        link: &mut LinkStamps,
        fd: impl AsFd,
        reply: (Option<u64>, PacketStamps, Nanos),
    ) -> Option<Box<KernelStamps>> {
        let (request_id, received, read_at) = reply;
        self.offset.refresh(read_at);
        let uncertainty = self.offset.uncertainty();
        self.report.clock_uncertainty = self.report.clock_uncertainty.max(uncertainty);
        // On most devices the stamp is there when the send call returns; this one was late.
        if link.is_waiting_for(request_id) {
            link.collect(fd.as_fd());
        }
        let mark = link.take(request_id).filter(|mark| mark.is_sampled)?;
        let sent = mark.stamps.unwrap_or_default();
        let pair = match self.report.used {
            StampSource::Hardware => (sent.hardware, received.hardware),
            _ => (sent.software, received.software),
        };
        let wire = match pair {
            (Some(sent), Some(received)) => received.checked_sub(sent),
            _ => None,
        };
        let received_at = received
            .software
            .and_then(|at| self.offset.to_monotonic(at));
        let mut stamps = KernelStamps {
            sent_at: sent.software.and_then(|at| self.offset.to_monotonic(at)),
            // Within the uncertainty it came when we read it; beyond it, a clock was set.
            received_at: received_at
                .filter(|at| *at <= read_at.later_by(uncertainty))
                .map(|at| at.min(read_at)),
            wire,
        };
        if wire.is_some() && stamps.received_at.is_some() {
            self.report.matched_count += 1;
        } else {
            self.report.missing_count += 1;
            stamps.wire = None;
        }
        Some(Box::new(stamps))
    }
}

fn enable_device(fd: BorrowedFd<'_>, local: Option<IpAddr>) -> Result<(), String> {
    let address = local.ok_or("the socket has no address of a device")?;
    let device = device_of(address)
        .map_err(|error| format!("the list of devices: {error}"))?
        .ok_or_else(|| format!("no device has the address {address}"))?;
    stamp_in_hardware(fd, &device)
        .map_err(|error| format!("the device of {address} stamps no packets: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_so_maniest_request_is_stamped() {
        let stamping = Stamping {
            source: StampSource::Kernel,
            every: 3,
        };
        let mut stamper = Stamper::new(stamping).unwrap();
        let sampled: Vec<_> = (0..7).map(|_| stamper.is_next_sampled()).collect();
        assert_eq!(sampled, [true, false, false, true, false, false, true]);
        assert!(Stamper::new(Stamping::default()).is_none());
    }

    #[test]
    fn the_first_reason_to_use_less_stands() {
        let mut stamper = Stamper::new(Stamping {
            source: StampSource::Hardware,
            every: 1,
        })
        .unwrap();
        stamper.fall_back(StampSource::Kernel, "one");
        stamper.fall_back(StampSource::Kernel, "two");
        stamper.fall_back(StampSource::User, "three");
        let report = stamper.report;
        assert_eq!(report.used, StampSource::User);
        assert_eq!(report.reason.as_deref(), Some("one"));
    }
}
