//! Messages with time stamps, and several datagrams in one call.
//!
//! Each function wraps one call of the kernel whose pointers come from Rust references that
//! outlive it, as in the module above.
#![allow(unsafe_code)] // raw system calls; see the reason above

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::control::{ControlBuffer, Told};
pub use super::control::{PacketStamps, SentStamp};

/// Most datagrams that one call takes or sends.
pub const BATCH_MAX: usize = 32;

/// Longest payload of a datagram over IPv4: 64 KiB less the headers of IP and UDP.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Asks the kernel for time stamps of a socket (`SO_TIMESTAMPING`); `flags` are
/// `SOF_TIMESTAMPING_*`.
///
/// # Errors
/// What the kernel said: `EINVAL` for flags or a state of the socket that it does not support.
pub fn set_stamping(fd: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: the option value is a `u32` that lives during the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPING,
            std::ptr::from_ref(&flags).cast(),
            length_of(size_of::<u32>()),
        )
    };
    check(result as isize).map(drop)
}

/// Reads from a stream, with the stamps of the newest packet whose bytes were taken; sleeps until
/// there is something only if it may, and the socket does not say otherwise.
///
/// # Errors
/// What the kernel said.
pub fn receive_stamped(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    may_sleep: bool,
) -> io::Result<(usize, PacketStamps)> {
    let flags = if may_sleep { 0 } else { libc::MSG_DONTWAIT };
    let mut control: ControlBuffer = [0; 32];
    let (count, control_bytes) = receive(fd, buffer, &mut control, flags)?;
    Ok((count, Told::read(&control, control_bytes).stamps))
}

/// The next stamp of something that was sent; `None` when there is none.
///
/// # Errors
/// What the kernel said.
pub fn take_sent_stamp(fd: BorrowedFd<'_>) -> io::Result<Option<SentStamp>> {
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    loop {
        let mut control: ControlBuffer = [0; 32];
        match receive(fd, &mut [], &mut control, flags) {
            Ok((_, control_bytes)) => {
                let Told { stamps, sent_id } = Told::read(&control, control_bytes);
                // What is no stamp was taken off the queue and is of no use here.
                if let Some(id) = sent_id {
                    return Ok(Some(SentStamp { id, stamps }));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes read, and bytes of control messages.
fn receive(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: &mut ControlBuffer,
    flags: i32,
) -> io::Result<(usize, usize)> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` holds pointers and integers only, for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<ControlBuffer>();
    // SAFETY: the message points to one part, which describes `buffer`, and to `control` with
    // its size; all of them live and are ours alone during the call.
    let count = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
    check(count).map(|count| (count, message.msg_controllen))
}

/// The control message that asks for stamps of one send call, in the kernel's layout.
fn stamp_request(stamps: u32) -> [u64; 3] {
    let length = 16 + size_of::<u32>() as u64;
    let mut kind = [0; 8];
    kind[..4].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    kind[4..].copy_from_slice(&libc::SO_TIMESTAMPING.to_ne_bytes());
    let mut data = [0; 8];
    data[..4].copy_from_slice(&stamps.to_ne_bytes());
    [length, u64::from_ne_bytes(kind), u64::from_ne_bytes(data)]
}

/// Writes to a stream and asks for the stamp of the last byte; `stamps` are
/// `SOF_TIMESTAMPING_TX_*`.
///
/// # Errors
/// What the kernel said.
pub fn send_stamped(fd: BorrowedFd<'_>, bytes: &[u8], stamps: u32) -> io::Result<usize> {
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = stamp_request(stamps);
    // SAFETY: `msghdr` holds pointers and integers only, for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message points to one part, which describes `bytes` and is only read, and to
    // `control` with its size; all of them live during the call.
    let count = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) };
    check(count)
}

/// Sends datagrams that lie one after another in `bytes` and end at `ends`, up to
/// [`BATCH_MAX`] of them; how many were taken. `stamps` asks for stamps of each, unless it is 0.
///
/// # Errors
/// What the kernel said about the first of them.
pub fn send_datagrams(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    ends: &[usize],
    stamps: u32,
) -> io::Result<usize> {
    let mut control = stamp_request(stamps);
    // SAFETY: both structures hold pointers and integers only, for which zero is a valid value.
    let (mut parts, mut messages): ([libc::iovec; BATCH_MAX], [libc::mmsghdr; BATCH_MAX]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut begin = 0;
    let count = ends.len().min(BATCH_MAX);
    for (index, end) in ends[..count].iter().enumerate() {
        let datagram = &bytes[begin..*end];
        begin = *end;
        parts[index] = libc::iovec {
            iov_base: datagram.as_ptr().cast_mut().cast(),
            iov_len: datagram.len(),
        };
        let header = &mut messages[index].msg_hdr;
        header.msg_iov = &raw mut parts[index];
        header.msg_iovlen = 1;
        if stamps != 0 {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control);
        }
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the first `count` messages point to one part each, which describes a piece of
    // `bytes` and is only read, and to `control` with its size; all of them live during the call.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            u32::try_from(count).unwrap_or(u32::MAX),
            flags,
        )
    };
    check(sent as isize)
}

/// Room for the datagrams of one call.
pub struct DatagramBatch {
    bytes: Box<[u8]>,
    lengths: [usize; BATCH_MAX],
    told: [PacketStamps; BATCH_MAX],
}

impl Default for DatagramBatch {
    fn default() -> Self {
        Self {
            bytes: vec![0; BATCH_MAX * DATAGRAM_BYTES_MAX].into_boxed_slice(),
            lengths: [0; BATCH_MAX],
            told: [PacketStamps::default(); BATCH_MAX],
        }
    }
}

impl DatagramBatch {
    /// Takes up to `count_max` datagrams that are there, without waiting; how many there were.
    ///
    /// # Errors
    /// What the kernel said about the first of them; `WouldBlock` when there is none.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, count_max: usize) -> io::Result<usize> {
        let mut controls: [ControlBuffer; BATCH_MAX] = [[0; 32]; BATCH_MAX];
        // SAFETY: both structures hold pointers and integers only, for which zero is a valid value.
        let (mut parts, mut messages): ([libc::iovec; BATCH_MAX], [libc::mmsghdr; BATCH_MAX]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let count_max = count_max.clamp(1, BATCH_MAX);
        let buffers = self.bytes.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        for (index, buffer) in buffers.take(count_max).enumerate() {
            parts[index] = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            let header = &mut messages[index].msg_hdr;
            header.msg_iov = &raw mut parts[index];
            header.msg_iovlen = 1;
            header.msg_control = controls[index].as_mut_ptr().cast();
            header.msg_controllen = size_of::<ControlBuffer>();
        }
        // SAFETY: the first `count_max` messages point to one part each, which describes a piece
        // of `bytes` of its own, and to a control buffer of its own with its size; all of them
        // live and are ours alone during the call. A null time-out is allowed.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                u32::try_from(count_max).unwrap_or(u32::MAX),
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = check(received as isize)?;
        for index in 0..count {
            let header = &messages[index].msg_hdr;
            self.lengths[index] = messages[index].msg_len as usize;
            self.told[index] = if header.msg_controllen == 0 {
                PacketStamps::default()
            } else {
                Told::read(&controls[index], header.msg_controllen).stamps
            };
        }
        Ok(count)
    }

    /// Datagram `index` of the last call.
    #[must_use]
    pub fn datagram(&self, index: usize) -> (&[u8], PacketStamps) {
        let start = index * DATAGRAM_BYTES_MAX;
        let bytes = &self.bytes[start..start + self.lengths[index]];
        (bytes, self.told[index])
    }
}

/// The result of a call, or what went wrong.
fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A size as the kernel wants it; all sizes here are those of small structures.
fn length_of(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(libc::socklen_t::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket) {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let two = UdpSocket::bind("127.0.0.1:0").unwrap();
        one.connect(two.local_addr().unwrap()).unwrap();
        two.connect(one.local_addr().unwrap()).unwrap();
        (one, two)
    }

    #[test]
    fn datagrams_keep_their_borders() {
        let (from, to) = pair();
        let sent = send_datagrams(from.as_fd(), b"abbccc", &[1, 3, 6], 0).unwrap();
        let mut batch = DatagramBatch::default();
        let first = batch.receive(to.as_fd(), 2).unwrap();
        let texts: Vec<_> = (0..first).map(|index| batch.datagram(index).0).collect();
        assert_eq!((sent, texts), (3, vec![b"a".as_slice(), b"bb"]));
        assert_eq!(batch.receive(to.as_fd(), 32).unwrap(), 1);
        assert_eq!(
            batch.datagram(0),
            (b"ccc".as_slice(), PacketStamps::default())
        );
        let none = batch.receive(to.as_fd(), 32).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn nobody_there_is_an_error_of_the_next_call() {
        let (from, to) = pair();
        drop(to);
        let mut batch = DatagramBatch::default();
        assert_eq!(send_datagrams(from.as_fd(), b"a", &[1], 0).unwrap(), 1);
        let told = batch.receive(from.as_fd(), 1).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn loopback_stamps_what_is_sent_and_received() {
        let (from, to) = pair();
        let sending = libc::SOF_TIMESTAMPING_SOFTWARE
            | libc::SOF_TIMESTAMPING_OPT_ID
            | libc::SOF_TIMESTAMPING_OPT_TSONLY;
        set_stamping(from.as_fd(), sending).unwrap();
        let receiving = libc::SOF_TIMESTAMPING_SOFTWARE | libc::SOF_TIMESTAMPING_RX_SOFTWARE;
        set_stamping(to.as_fd(), receiving).unwrap();
        let asked = libc::SOF_TIMESTAMPING_TX_SOFTWARE;
        assert_eq!(take_sent_stamp(from.as_fd()).unwrap(), None);
        let mut batch = DatagramBatch::default();
        // The kernel begins to stamp what it receives a little after it was asked to.
        let mut pair_of = |number: u32| {
            let _ = send_datagrams(from.as_fd(), b"a", &[1], asked).unwrap();
            assert_eq!(batch.receive(to.as_fd(), 32).unwrap(), 1);
            let sent = take_sent_stamp(from.as_fd()).unwrap().unwrap();
            assert_eq!(sent.id, number);
            Some((sent.stamps.software?, batch.datagram(0).1.software?))
        };
        let (sent, received) = (0..10_000_000).find_map(&mut pair_of).unwrap();
        assert!(sent <= received);
    }
}
