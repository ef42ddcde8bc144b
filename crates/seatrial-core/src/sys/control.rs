//! Control messages of the kernel, read from bytes: no pointer, no unsafe code.

use crate::units::Nanos;

/// Room for the control messages of one datagram, in words so that it is aligned: a time stamp
/// (64 bytes) and what the error queue adds (at most 64), and some to spare.
pub(super) type ControlBuffer = [u64; 32];

/// `SCM_TSTAMP_SND`: the stamp was taken when the packet went to the device.
const TSTAMP_SND: u32 = 0;

/// When the kernel or the device saw a packet, on the clock that stamped it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketStamps {
    /// By the kernel, on `CLOCK_REALTIME`.
    pub software: Option<Nanos>,
    /// By the network device, on its own clock.
    pub hardware: Option<Nanos>,
}

/// The stamp of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentStamp {
    /// For TCP the offset of the last byte of the send call, for datagrams their number; both
    /// from 0 and without what is above 32 bits.
    pub id: u32,
    /// When it left.
    pub stamps: PacketStamps,
}

/// What the control messages of one read say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub stamps: PacketStamps,
    /// From the error queue: what was sent.
    pub sent_id: Option<u32>,
}

impl Told {
    /// Reads the first `count` bytes of a control buffer.
    pub fn read(buffer: &ControlBuffer, count: usize) -> Self {
        let mut bytes = [0; size_of::<ControlBuffer>()];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(buffer) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::of(&bytes[..count.min(bytes.len())])
    }

    fn of(mut rest: &[u8]) -> Self {
        let mut told = Self::default();
        // A header is its whole length as a word, the level and the type; the next one is aligned.
        while let (Some(length), Some(level), Some(kind)) =
            (word_at(rest, 0), int_at(rest, 8), int_at(rest, 12))
        {
            let Some(data) = usize::try_from(length)
                .ok()
                .and_then(|end| rest.get(16..end))
            else {
                break;
            };
            match (level, kind) {
                (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => told.stamps = stamps_of(data),
                (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                    told.sent_id = sent_id_of(data);
                }
                _ => {}
            }
            let next = (16 + data.len()).next_multiple_of(8);
            rest = rest.get(next..).unwrap_or_default();
        }
        told
    }
}

/// `struct scm_timestamping`: three instants, the second unused; zero means *none*.
fn stamps_of(data: &[u8]) -> PacketStamps {
    let instant = |offset| {
        let (seconds, nanos) = (word_at(data, offset)?, word_at(data, offset + 8)?);
        let total = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
        (total > 0).then_some(Nanos::new(total))
    };
    PacketStamps {
        software: instant(0),
        hardware: instant(32),
    }
}

/// `struct sock_extended_err`: errno, origin, type, code, pad, info, data.
fn sent_id_of(data: &[u8]) -> Option<u32> {
    let is_stamp = int_at(data, 0)? == libc::ENOMSG && data[4] == libc::SO_EE_ORIGIN_TIMESTAMPING;
    let number =
        |offset| int_at(data, offset).map(|number| u32::from_ne_bytes(number.to_ne_bytes()));
    (is_stamp && number(8)? == TSTAMP_SND)
        .then(|| number(12))
        .flatten()
}

fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..offset + 8)?.try_into().ok()?;
    Some(u64::from_ne_bytes(word))
}

fn int_at(bytes: &[u8], offset: usize) -> Option<i32> {
    let word = bytes.get(offset..offset + 4)?.try_into().ok()?;
    Some(i32::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + data.len() as u64).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn times(seconds: [u64; 3]) -> Vec<u8> {
        let words = seconds.into_iter().flat_map(|second| [second, second / 2]);
        words.flat_map(u64::to_ne_bytes).collect()
    }

    fn error_of(errno: i32, origin: u8, info: u32, id: u32) -> Vec<u8> {
        let mut bytes = errno.to_ne_bytes().to_vec();
        bytes.extend([origin, 0, 0, 0]);
        bytes.extend(info.to_ne_bytes());
        bytes.extend(id.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_stamp_and_its_number_are_read() {
        let mut bytes = message(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &times([4, 0, 0]));
        let told = error_of(libc::ENOMSG, libc::SO_EE_ORIGIN_TIMESTAMPING, 0, 77);
        bytes.extend(message(libc::SOL_IP, libc::IP_RECVERR, &told));
        let told = Told::of(&bytes);
        assert_eq!(told.stamps.software, Some(Nanos::new(4_000_000_002)));
        assert_eq!((told.stamps.hardware, told.sent_id), (None, Some(77)));
    }

    #[test]
    fn a_device_stamp_is_told_apart() {
        let bytes = message(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &times([0, 0, 6]));
        let told = Told::of(&bytes);
        assert_eq!(told.stamps.software, None);
        assert_eq!(told.stamps.hardware, Some(Nanos::new(6_000_000_003)));
    }

    #[test]
    fn other_errors_and_other_kinds_of_stamps_have_no_number() {
        let stamping = libc::SO_EE_ORIGIN_TIMESTAMPING;
        let rows = [
            (libc::ECONNREFUSED, libc::SO_EE_ORIGIN_ICMP, 0),
            (libc::ENOMSG, 5, 0),        // SO_EE_ORIGIN_ZEROCOPY
            (libc::ENOMSG, stamping, 2), // SCM_TSTAMP_ACK
        ];
        for (errno, origin, info) in rows {
            let told = error_of(errno, origin, info, 5);
            let bytes = message(libc::SOL_IPV6, libc::IPV6_RECVERR, &told);
            assert_eq!(Told::of(&bytes).sent_id, None, "{errno} {origin} {info}");
        }
    }

    proptest! {
        /// Whatever the bytes are, reading them ends.
        #[test]
        fn garbage_is_nothing(bytes: Vec<u8>) {
            let _ = Told::of(&bytes);
        }
    }
}
