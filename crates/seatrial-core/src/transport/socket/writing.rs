//! What leaves a connection: requests, and what a protocol says by itself.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::SocketTransport;
use crate::clock::Clock;
use crate::sys::message::send_stamped;
use crate::transport::Protocol;
use crate::transport::stamps::Stamper;

impl<P: Protocol, C: Clock> SocketTransport<P, C> {
    /// Writes what is outstanding, as far as the kernel takes it; the rest follows when
    /// the kernel has room.
    #[inline]
    pub(super) fn write_out(&mut self, connection: usize) -> Result<(), Errno> {
        let link = &mut self.links[connection];
        let Some(fd) = &link.fd else { return Ok(()) };
        let mut is_asked = false;
        while link.outgoing_start < link.outgoing.len() {
            let rest = &link.outgoing[link.outgoing_start..];
            let due = link.stamps.as_ref().filter(|stamps| stamps.is_due());
            let asked = due.and(self.stamper.as_ref()).map(Stamper::asked);
            match write(fd, rest, asked) {
                Ok(count) => {
                    link.outgoing_start += count;
                    self.traffic.sent_bytes += count as u64;
                    if let Some(stamps) = &mut link.stamps {
                        stamps.note_bytes(count, asked.is_some());
                        is_asked |= asked.is_some();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !link.wants_write {
                        link.wants_write = true;
                        self.set_interest(connection, EventFlags::IN | EventFlags::OUT)?;
                    }
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
        link.outgoing.clear();
        link.outgoing_start = 0;
        if is_asked {
            // Loopback and veth have stamped it by now; what waits here would end the next wait.
            link.collect_stamps();
        }
        if link.wants_write {
            link.wants_write = false;
            self.set_interest(connection, EventFlags::IN)?;
        }
        Ok(())
    }
}

/// Hands bytes to the kernel; `asked` are the stamps that it should keep of the last of them.
fn write(fd: &OwnedFd, bytes: &[u8], asked: Option<u32>) -> Result<usize, Errno> {
    match asked {
        None => send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
        Some(stamps) => send_stamped(fd.as_fd(), bytes, stamps)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}
