//! One worker: an epoll loop over its connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use super::Shared;
use super::connection::{Connection, Interest, Turn};
use crate::spin::Spinner;

/// Events taken at a time.
const EVENTS_MAX: usize = 256;

/// Bytes read at a time, once for all connections of a worker.
const SCRATCH_BYTES: usize = 64 << 10;

/// Serves this worker's connections for ever.
pub fn work(shared: &Shared, index: usize) {
    let inbox = &shared.workers[index];
    // The least slack (default 50 µs), since `sleep` is a service time of stated length.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let spinner = Spinner::detect();
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut connections = HashMap::<u64, Connection>::new();
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        match epoll::wait(&inbox.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return, // only for a descriptor that is no epoll
        }
        for event in events.drain(..) {
            let token = event.data.u64();
            let connection = match connections.entry(token) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => match inbox.take(token) {
                    Some(socket) => entry.insert(Connection::new(socket, shared.protocol)),
                    None => continue, // cannot be: it is put there before its first event
                },
            };
            let mut turn = Turn {
                scratch: &mut scratch,
                spinner,
                pending_bytes: &shared.pending_bytes,
            };
            let before = connection.interest();
            let wanted = connection.take_turn(&mut turn);
            let keep = match wanted {
                None => false,
                Some(after) if after == before => true,
                Some(after) => {
                    let data = epoll::EventData::new_u64(token);
                    epoll::modify(&inbox.epoll, connection.socket(), data, flags_of(after)).is_ok()
                }
            };
            if !keep {
                if let Some(mut connection) = connections.remove(&token) {
                    connection.give_back(&shared.pending_bytes);
                }
                shared.open_count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

const fn flags_of(interest: Interest) -> epoll::EventFlags {
    match interest {
        Interest::Read => epoll::EventFlags::IN,
        Interest::Write => epoll::EventFlags::OUT,
    }
}
