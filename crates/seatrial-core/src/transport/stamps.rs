//! When packets left and came, as the kernel or the network device saw it.
//!
//! The kernel stamps what is received as it comes from the device (software, `CLOCK_REALTIME`) and
//! hands the stamp out with the bytes. What is sent it stamps as it goes to the device, and
//! puts the stamp into the error queue of the socket with a number: the offset of the last byte
//! of the send call (TCP), or the number of the datagram. [`LinkStamps`] turns those numbers
//! back into requests. A stamp that is missing is counted and nothing else.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::clock::RealTimeOffset;
use crate::error::CoreError;
use crate::sys::device::{device_of, stamp_in_hardware};
use crate::sys::message::{PacketStamps, SentStamp, set_stamping, take_sent_stamp};
use crate::units::Nanos;

/// Requests of one connection whose stamps are waited for; replies to older ones have none.
const MARKS_MAX: usize = 4_096;

/// What is stamped, besides what each send call asks for by itself.
const RECEIVED: u32 = libc::SOF_TIMESTAMPING_RX_SOFTWARE
    | libc::SOF_TIMESTAMPING_SOFTWARE
    | libc::SOF_TIMESTAMPING_OPT_ID
    | libc::SOF_TIMESTAMPING_OPT_TSONLY;
const RECEIVED_BY_DEVICE: u32 = libc::SOF_TIMESTAMPING_RX_HARDWARE
    | libc::SOF_TIMESTAMPING_RAW_HARDWARE
    | libc::SOF_TIMESTAMPING_OPT_TX_SWHW;

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

/// Asks for the stamps of the connections of one thread, and reads them.
#[derive(Debug)]
pub(super) struct Stamper {
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

/// A request whose stamp is waited for.
#[derive(Clone, Copy, Debug)]
struct Mark {
    request_id: u64,
    /// Position behind its last byte, or of its datagram from 1.
    end: u64,
    is_sampled: bool,
    stamps: Option<PacketStamps>,
}

/// A send call whose stamp is waited for: everything above `start` and up to `end`.
#[derive(Clone, Copy, Debug)]
struct Call {
    id: u32,
    start: u64,
    end: u64,
}

/// The stamps of one connection. Positions are bytes of a stream, or datagrams, from 0.
#[derive(Debug, Default)]
pub(super) struct LinkStamps {
    marks: VecDeque<Mark>,
    calls: VecDeque<Call>,
    /// What the kernel has taken.
    written: u64,
    /// The end of the last request that is to be stamped.
    sampled_end: u64,
    /// Datagrams that a stamp was asked for; the kernel numbers only those.
    asked_count: u32,
}

impl LinkStamps {
    /// A request was put behind what is written and another `pending` bytes or datagrams, its
    /// own included.
    pub fn note_request(&mut self, request_id: u64, pending: usize, is_sampled: bool) {
        let end = self.written + pending as u64;
        if self.marks.len() == MARKS_MAX {
            let _ = self.marks.pop_front();
        }
        if is_sampled {
            self.sampled_end = end;
        }
        self.marks.push_back(Mark {
            request_id,
            end,
            is_sampled,
            stamps: None,
        });
    }

    /// Whether what comes next has a request that is to be stamped.
    pub fn is_due(&self) -> bool {
        self.sampled_end > self.written
    }

    /// The kernel has taken these bytes with one call.
    pub fn note_bytes(&mut self, count: usize, is_asked: bool) {
        let start = self.written;
        self.written += count as u64;
        if is_asked {
            self.note_call(low_half(self.written.wrapping_sub(1)), start);
        }
    }

    /// The kernel has taken these datagrams.
    pub fn note_datagrams(&mut self, count: usize, is_asked: bool) {
        for _ in 0..count {
            self.written += 1;
            if is_asked {
                self.note_call(self.asked_count, self.written - 1);
                self.asked_count = self.asked_count.wrapping_add(1);
            }
        }
    }

    fn note_call(&mut self, id: u32, start: u64) {
        if self.calls.len() == MARKS_MAX {
            let _ = self.calls.pop_front();
        }
        self.calls.push_back(Call {
            id,
            start,
            end: self.written,
        });
    }

    /// Takes the stamps that are there.
    pub fn collect(&mut self, fd: BorrowedFd<'_>) {
        // An error is one of the connection, which the next read tells.
        while let Ok(Some(stamp)) = take_sent_stamp(fd) {
            self.note_sent(&stamp);
        }
    }

    fn note_sent(&mut self, sent: &SentStamp) {
        let Some(index) = self.calls.iter().position(|call| call.id == sent.id) else {
            return;
        };
        // Stamps come in the order of sending, so earlier calls get none any more. This one
        // may get a second, by the device.
        let _ = self.calls.drain(..index);
        let call = self.calls[0];
        let first = self.marks.partition_point(|mark| mark.end <= call.start);
        let marks = self.marks.range_mut(first..);
        for mark in marks.take_while(|mark| mark.end <= call.end) {
            let known = mark.stamps.get_or_insert_default();
            known.software = known.software.or(sent.stamps.software);
            known.hardware = known.hardware.or(sent.stamps.hardware);
        }
    }

    fn position_of(&self, request_id: Option<u64>) -> Option<usize> {
        match request_id {
            // Ids of one connection grow in the order of sending.
            Some(id) => self
                .marks
                .binary_search_by_key(&id, |mark| mark.request_id)
                .ok(),
            None => (!self.marks.is_empty()).then_some(0),
        }
    }

    fn is_waiting_for(&self, request_id: Option<u64>) -> bool {
        let mark = self.position_of(request_id).map(|index| self.marks[index]);
        mark.is_some_and(|mark| mark.is_sampled && mark.stamps.is_none())
    }

    fn take(&mut self, request_id: Option<u64>) -> Option<Mark> {
        self.marks.remove(self.position_of(request_id)?)
    }
}

/// The kernel numbers with 32 bits.
#[allow(clippy::cast_possible_truncation)] // that is what it is for
const fn low_half(position: u64) -> u32 {
    position as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: u32, at: u64) -> SentStamp {
        let stamps = PacketStamps {
            software: Some(Nanos::new(at)),
            hardware: None,
        };
        SentStamp { id, stamps }
    }

    fn sent_at(link: &mut LinkStamps, id: u64) -> Option<u64> {
        let stamps = link.take(Some(id)).unwrap().stamps?;
        stamps.software.map(Nanos::get)
    }

    #[test]
    fn requests_of_one_call_share_the_stamp_of_its_last_byte() {
        let mut link = LinkStamps::default();
        link.note_request(1, 8, true);
        link.note_request(2, 16, true);
        link.note_bytes(16, true);
        link.note_request(3, 8, true);
        link.note_bytes(8, true);
        link.note_sent(&sent(15, 100));
        link.note_sent(&sent(23, 200));
        assert_eq!(
            [1, 2, 3].map(|id| sent_at(&mut link, id)),
            [Some(100), Some(100), Some(200)]
        );
    }

    #[test]
    fn a_request_in_two_calls_has_left_with_the_second() {
        let mut link = LinkStamps::default();
        link.note_request(1, 10, true);
        link.note_bytes(4, true);
        assert!(link.is_due());
        link.note_bytes(6, true);
        assert!(!link.is_due());
        link.note_sent(&sent(3, 100));
        assert!(link.is_waiting_for(Some(1)));
        link.note_sent(&sent(9, 200));
        assert_eq!(sent_at(&mut link, 1), Some(200));
    }

    #[test]
    fn a_stamp_is_not_given_to_what_was_sent_before() {
        let mut link = LinkStamps::default();
        link.note_request(1, 8, false);
        assert!(!link.is_due());
        link.note_bytes(8, false);
        link.note_request(2, 8, true);
        link.note_bytes(8, true);
        link.note_request(3, 8, true);
        link.note_bytes(8, true);
        link.note_sent(&sent(23, 300));
        assert_eq!(
            [1, 2, 3].map(|id| sent_at(&mut link, id)),
            [None, None, Some(300)]
        );
    }

    #[test]
    fn numbers_of_bytes_wrap() {
        let mut link = LinkStamps {
            written: (1 << 32) - 4,
            ..LinkStamps::default()
        };
        link.note_request(7, 8, true);
        link.note_bytes(8, true);
        link.note_sent(&sent(3, 100));
        assert_eq!(sent_at(&mut link, 7), Some(100));
    }

    #[test]
    fn only_datagrams_with_a_stamp_are_numbered() {
        let mut link = LinkStamps::default();
        link.note_request(1, 1, false);
        link.note_datagrams(1, false);
        link.note_request(2, 1, true);
        link.note_request(3, 2, true);
        link.note_datagrams(2, true);
        link.note_sent(&sent(0, 100));
        link.note_sent(&sent(1, 200));
        assert_eq!(
            [2, 3].map(|id| sent_at(&mut link, id)),
            [Some(100), Some(200)]
        );
    }

    #[test]
    fn what_is_never_answered_is_forgotten_in_time() {
        let mut link = LinkStamps::default();
        for id in 0..10_000 {
            link.note_request(id, 1, true);
            link.note_datagrams(1, true);
        }
        assert_eq!((link.marks.len(), link.calls.len()), (MARKS_MAX, MARKS_MAX));
    }

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
