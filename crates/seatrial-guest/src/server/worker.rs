//! One worker: an epoll loop over its connections.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::connection::{Connection, Interest, Turn};
use super::service::{Service, Tools};
use super::work::Memory;
use super::{Inbox, Shared, datagram};
use crate::spin::Spinner;
use crate::sys;

/// Events taken at a time.
const EVENTS_MAX: usize = 256;

/// Bytes read at a time, once for all connections of a worker.
const SCRATCH_BYTES: usize = 64 << 10;

/// Replies larger than this do not keep their buffer.
const OUTPUT_BYTES_KEPT: usize = 256 << 10;

/// What a worker owns.
struct Worker<'a> {
    shared: &'a Shared,
    inbox: &'a Inbox,
    spinner: Spinner,
    /// One for each port, since they may remember as little as connections' services.
    datagram_services: Vec<Box<dyn Service>>,
    memory: Memory,
    scratch: Vec<u8>,
    output: Vec<u8>,
    connections: HashMap<u64, Connection, BuildHasherDefault<TokenHasher>>,
    deadlines: Deadlines,
}

/// Deadlines with the number of their connection, the earliest on top. One that
/// is not the connection's any more only has it looked at in vain.
type Deadlines = BinaryHeap<Reverse<(u64, u64)>>;

/// Spreads numbers that this program gave out itself; no peer chooses them.
#[derive(Default)]
struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // 2^64 divided by the golden ratio: consecutive numbers differ in their high bits.
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Serves this worker's connections for ever.
pub fn work(shared: &Shared, index: usize) {
    // The least slack (default 50 µs), since `sleep` is a service time of stated length.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut worker = Worker {
        shared,
        inbox: &shared.workers[index],
        spinner: Spinner::detect(),
        datagram_services: datagram_services(shared, index),
        memory: Memory::new(),
        scratch: vec![0; SCRATCH_BYTES],
        output: Vec::new(),
        connections: HashMap::default(),
        deadlines: BinaryHeap::new(),
    };
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        let timeout = worker.timeout();
        match epoll::wait(
            &worker.inbox.epoll,
            spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return, // only for a descriptor that is no epoll
        }
        for event in events.drain(..) {
            let token = event.data.u64();
            match datagram::port_of(token) {
                Some(port) => worker.handle_datagrams(port),
                None => worker.handle(token),
            }
        }
        if timeout.is_some() {
            worker.end_late_ones();
        }
    }
}

impl Worker<'_> {
    /// How long nothing has to happen; `None` where no connection has a deadline.
    fn timeout(&self) -> Option<Timespec> {
        let Reverse((deadline_ns, _)) = self.deadlines.peek()?;
        let left_ns = deadline_ns.saturating_sub(sys::monotonic_ns());
        Some(Timespec {
            tv_sec: i64::try_from(left_ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left_ns % 1_000_000_000).unwrap_or(0),
        })
    }

    /// Datagrams have come.
    fn handle_datagrams(&mut self, number: usize) {
        let port = self.shared.ports.get(number);
        let (Some(port), Some(service)) = (port, self.datagram_services.get_mut(number)) else {
            return; // cannot be: both are made for each port that is watched
        };
        let mut tools = Tools::new(self.spinner, &mut self.memory, &self.inbox.stats);
        let (scratch, output) = (&mut self.scratch, &mut self.output);
        datagram::serve(port, service.as_mut(), scratch, output, &mut tools);
    }

    /// Something happened on a connection.
    fn handle(&mut self, token: u64) {
        if let Entry::Vacant(entry) = self.connections.entry(token) {
            let Some(socket) = self.inbox.take(token) else {
                return; // cannot be: it is put there before its first event
            };
            let Shared { protocol, seed, .. } = *self.shared;
            entry.insert(Connection::new(socket, protocol.service(seed, token)));
        }
        self.give_turn(token, Connection::take_turn);
    }

    /// Tells connections whose deadline has passed.
    fn end_late_ones(&mut self) {
        let now_ns = sys::monotonic_ns();
        while let Some(Reverse((noted_ns, token))) = self.deadlines.peek().copied() {
            if noted_ns > now_ns {
                return;
            }
            self.deadlines.pop();
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            if connection.noted_ns != Some(noted_ns) {
                continue; // an earlier one was noted since
            }
            connection.noted_ns = None;
            match connection.deadline_ns() {
                Some(deadline_ns) if deadline_ns <= now_ns => {
                    self.give_turn(token, Connection::be_late);
                }
                _ => note_deadline(&mut self.deadlines, token, connection),
            }
        }
    }

    /// Lets a connection act, waits for what it then waits for, or ends it.
    fn give_turn(
        &mut self,
        token: u64,
        act: impl FnOnce(&mut Connection, &mut Turn<'_>) -> Option<Interest>,
    ) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut turn = Turn {
            scratch: &mut self.scratch,
            output: &mut self.output,
            tools: Tools::new(self.spinner, &mut self.memory, &self.inbox.stats),
            held_bytes: &self.shared.held_bytes,
        };
        let before = connection.interest();
        let keep = match act(connection, &mut turn) {
            None => false,
            Some(after) if after == before => true,
            Some(after) => {
                let data = epoll::EventData::new_u64(token);
                let flags = flags_of(after);
                epoll::modify(&self.inbox.epoll, connection.socket(), data, flags).is_ok()
            }
        };
        if keep {
            note_deadline(&mut self.deadlines, token, connection);
        } else {
            self.end(token);
        }
        self.output.clear();
        self.output.shrink_to(OUTPUT_BYTES_KEPT);
    }

    fn end(&mut self, token: u64) {
        if let Some(mut connection) = self.connections.remove(&token) {
            connection.give_back(&self.shared.held_bytes);
            self.inbox.stats.closed.add(1);
            self.shared.open_count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn datagram_services(shared: &Shared, worker: usize) -> Vec<Box<dyn Service>> {
    let numbers = (0..shared.ports.len()).map(|port| datagram::service_number(worker, port));
    numbers
        .map(|number| shared.protocol.service(shared.seed, number))
        .collect()
}

/// Notes a connection's deadline, unless one that is as early is noted already.
fn note_deadline(deadlines: &mut Deadlines, token: u64, connection: &mut Connection) {
    let Some(deadline_ns) = connection.deadline_ns() else {
        return;
    };
    if connection
        .noted_ns
        .is_none_or(|noted_ns| deadline_ns < noted_ns)
    {
        connection.noted_ns = Some(deadline_ns);
        deadlines.push(Reverse((deadline_ns, token)));
    }
}

const fn flags_of(interest: Interest) -> epoll::EventFlags {
    match interest {
        Interest::Read => epoll::EventFlags::IN,
        Interest::Write => epoll::EventFlags::OUT,
    }
}
