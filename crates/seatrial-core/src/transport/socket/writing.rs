//! What leaves a connection: requests, and what a protocol says by itself.

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::SocketTransport;
use crate::clock::Clock;
use crate::transport::Protocol;

impl<P: Protocol, C: Clock> SocketTransport<P, C> {
    /// Writes what is outstanding, as far as the kernel takes it; the rest follows when
    /// the kernel has room.
    pub(super) fn write_out(&mut self, connection: usize) -> Result<(), Errno> {
        let link = &mut self.links[connection];
        let Some(fd) = &link.fd else { return Ok(()) };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while link.outgoing_start < link.outgoing.len() {
            match send(fd, &link.outgoing[link.outgoing_start..], flags) {
                Ok(count) => {
                    link.outgoing_start += count;
                    self.traffic.sent_bytes += count as u64;
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
        if link.wants_write {
            link.wants_write = false;
            self.set_interest(connection, EventFlags::IN)?;
        }
        Ok(())
    }
}
