//! UDP: one datagram is one request, and its reply is one datagram.
//!
//! All workers share one socket, so that it is one queue with N servers. A
//! datagram that is not exactly one request is counted and thrown away: without
//! a connection there is nobody to close on.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use seatrial_core::wire::{DATAGRAM_BYTES_MAX, payload_seed};

use super::listen::LISTENERS_MAX;
use super::service::{Service, Tools};

/// Datagrams that a worker takes before its connections have their turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// Connection numbers of datagram services begin here; accepted ones never get that far.
const SERVICE_NUMBERS: u64 = 1 << 63;

/// A bound UDP socket.
#[derive(Debug)]
pub struct DatagramPort {
    /// The socket, which does not block.
    pub socket: OwnedFd,
    /// Which datagrams are lost on purpose.
    pub loss: Loss,
}

/// Deterministic loss: the n-th datagram is lost or not by the seed alone.
#[derive(Debug)]
pub struct Loss {
    /// Lost are those whose number below 2^64 is below this one.
    below: u64,
    seed: u64,
    count: AtomicU64,
}

impl Loss {
    /// Loses this share (0 to 1) of all datagrams.
    pub fn new(ratio: f64, seed: u64) -> Self {
        // The cast saturates, which is what a share of 1 needs.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let below = (ratio * 18_446_744_073_709_551_616.0) as u64;
        Self {
            below,
            seed,
            count: AtomicU64::new(0),
        }
    }

    /// Whether the next datagram is lost.
    fn takes_next(&self) -> bool {
        if self.below == 0 {
            return false;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        payload_seed(self.seed, SERVICE_NUMBERS, number) < self.below
    }
}

/// The number under which a worker's epoll tells of a port; connections count from 0.
pub const fn token_of(port: usize) -> u64 {
    u64::MAX - port as u64
}

/// The port behind such a number.
pub fn port_of(token: u64) -> Option<usize> {
    let port = usize::try_from(u64::MAX - token).ok()?;
    (port < LISTENERS_MAX).then_some(port)
}

/// The number of a worker's service for a port, from which its payloads are made.
pub const fn service_number(worker: usize, port: usize) -> u64 {
    SERVICE_NUMBERS + (worker * LISTENERS_MAX + port) as u64
}

/// Has an epoll tell of datagrams; one of the workers that wait is enough for each.
pub fn watch(epoll: &OwnedFd, port: &DatagramPort, number: usize) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64(token_of(number));
    let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
    match epoll::add(epoll, &port.socket, data, flags) {
        // A kernel without exclusive waiting wakes all workers in vain, and is not wrong.
        Err(Errno::INVAL) => epoll::add(epoll, &port.socket, data, epoll::EventFlags::IN),
        added => added,
    }
}

/// Answers what has come, up to a bound.
pub fn serve(
    port: &DatagramPort,
    service: &mut dyn Service,
    scratch: &mut [u8],
    output: &mut Vec<u8>,
    tools: &mut Tools,
) {
    tools.reply_bytes_max = DATAGRAM_BYTES_MAX;
    for _ in 0..DATAGRAMS_PER_TURN {
        let (count, peer) = match recvfrom(&port.socket, &mut *scratch, RecvFlags::empty()) {
            Ok((count, _, Some(peer))) => (count, peer),
            Ok((_, _, None)) | Err(Errno::INTR) => continue,
            Err(_) => return, // nothing more, or an error that the next event brings again
        };
        let datagram = &scratch[..count];
        tools.stats.received_bytes.add(count as u64);
        if port.loss.takes_next() {
            tools.stats.dropped.add(1);
            continue;
        }
        if !service.is_one_request(datagram) {
            tools.stats.bad_request(false);
            continue;
        }
        tools.read_now();
        output.clear();
        service.serve(datagram, output, tools);
        let reply = if output.is_empty() {
            tools.finish(0);
            datagram // an echo
        } else {
            output.as_slice()
        };
        // Counted first, so that whoever has the reply finds it counted. One that
        // the kernel does not take is lost, as any datagram may be.
        tools.stats.sent_bytes.add(reply.len() as u64);
        if sendto(&port.socket, reply, SendFlags::NOSIGNAL, &peer).is_err() {
            tools.stats.sent_bytes.take_back(reply.len() as u64);
        }
    }
    output.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_share_asked_for_and_repeats() {
        let lost = |ratio, seed| {
            let loss = Loss::new(ratio, seed);
            (0..100_000).map(|_| loss.takes_next()).collect::<Vec<_>>()
        };
        let count = |lost: &[bool]| lost.iter().filter(|lost| **lost).count();
        let a_hundredth = lost(0.01, 1);
        // Five standard deviations of a binomial around 1000; the seed is fixed, so it holds or not.
        assert!((850..1150).contains(&count(&a_hundredth)));
        assert_eq!(a_hundredth, lost(0.01, 1));
        assert_ne!(a_hundredth, lost(0.01, 2));
        assert_eq!(count(&lost(0.0, 1)), 0);
        assert_eq!(count(&lost(1.0, 1)), 100_000);
    }

    #[test]
    fn ports_and_connections_have_different_numbers() {
        assert_eq!(port_of(token_of(0)), Some(0));
        assert_eq!(
            port_of(token_of(LISTENERS_MAX - 1)),
            Some(LISTENERS_MAX - 1)
        );
        assert_eq!(port_of(token_of(LISTENERS_MAX)), None);
        assert_eq!(port_of(7), None);
        assert_ne!(service_number(0, 1), service_number(1, 0));
    }
}
