//! Which stamp belongs to which request of one connection.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use crate::sys::message::{PacketStamps, SentStamp, take_sent_stamp};

/// Requests of one connection whose stamps are waited for; replies to older ones have none.
const MARKS_MAX: usize = 4_096;

/// A request whose stamp is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    request_id: u64,
    /// Position behind its last byte, or of its datagram from 1.
    end: u64,
    pub is_sampled: bool,
    pub stamps: Option<PacketStamps>,
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
pub(in crate::transport) struct LinkStamps {
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

    pub(super) fn is_waiting_for(&self, request_id: Option<u64>) -> bool {
        let mark = self.position_of(request_id).map(|index| self.marks[index]);
        mark.is_some_and(|mark| mark.is_sampled && mark.stamps.is_none())
    }

    pub(super) fn take(&mut self, request_id: Option<u64>) -> Option<Mark> {
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
    use crate::units::Nanos;

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
}
