//! One connection: bytes in, replies out, and how it ends.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::HELD_BYTES_MAX;
use super::service::{Next, Refusal, Service, Tools};
use crate::sys;

/// Reads of one connection before the others of its worker have their turn.
const READS_PER_TURN: usize = 4;

/// What a connection may hold without asking the common budget.
const HELD_BYTES_FREE: usize = 8 << 10;

/// Bytes still read, and thrown away, from a peer that is not served any more.
const DRAIN_BYTES_MAX: usize = 4 << 20;

/// How long such a peer may take to read its replies and to hang up.
const CLOSE_NS_MAX: u64 = 10_000_000_000;

/// A buffer that grew beyond this is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 4 << 10;

/// What a worker lends to a connection for its turn.
pub struct Turn<'a> {
    /// Where bytes are read to.
    pub scratch: &'a mut [u8],
    /// Where replies are made; empty between turns.
    pub output: &'a mut Vec<u8>,
    /// What it lends to the service.
    pub tools: Tools<'a>,
    /// What all connections hold.
    pub held_bytes: &'a AtomicUsize,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes from the peer.
    Read,
    /// Room for bytes to the peer; meanwhile nothing is read from it.
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Requests are answered.
    Open,
    /// The peer has finished sending; the rest of the replies goes out.
    Finishing,
    /// Nothing more is served; the replies that were made go out.
    Closing,
    /// They are out. What still comes is thrown away, because closing with
    /// unread bytes would reset the connection and destroy the last reply.
    Draining { left_bytes: usize },
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    service: Box<dyn Service>,
    is_timed: bool,
    state: State,
    /// Bytes that are not served yet: a request that is not whole, or more
    /// behind replies that the peer has not taken.
    input: Vec<u8>,
    /// Whether serving stopped for the peer to read first.
    is_stalled: bool,
    /// Bytes that the peer has not taken yet, from `unsent_start` on.
    unsent: Vec<u8>,
    unsent_start: usize,
    /// Length of the request that has begun, as far as it tells.
    whole_bytes: usize,
    /// What this connection has taken of the common budget.
    held_bytes: usize,
    /// When it ends unless more has come.
    deadline_ns: Option<u64>,
    /// The earliest deadline of this connection that the worker has noted.
    pub noted_ns: Option<u64>,
}

/// The peer is gone or unusable.
struct Gone;

impl Connection {
    /// A connection that was just accepted.
    pub fn new(socket: OwnedFd, service: Box<dyn Service>) -> Self {
        Self {
            socket,
            is_timed: service.is_timed(),
            service,
            state: State::Open,
            input: Vec::new(),
            is_stalled: false,
            unsent: Vec::new(),
            unsent_start: 0,
            whole_bytes: 0,
            held_bytes: 0,
            deadline_ns: None,
            noted_ns: None,
        }
    }

    /// Its socket.
    pub const fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// What it waits for.
    pub fn interest(&self) -> Interest {
        if self.unsent.is_empty() {
            Interest::Read
        } else {
            Interest::Write
        }
    }

    /// When it is to be told that it is late, if ever.
    pub const fn deadline_ns(&self) -> Option<u64> {
        self.deadline_ns
    }

    /// Does what can be done now; gives what to wait for, `None` when it is over.
    pub fn take_turn(&mut self, turn: &mut Turn<'_>) -> Option<Interest> {
        let outcome = self.advance(turn).and_then(|()| self.hold(turn));
        outcome.ok().map(|()| self.interest())
    }

    /// Its deadline has passed; gives what to wait for, `None` when it is over.
    pub fn be_late(&mut self, turn: &mut Turn<'_>) -> Option<Interest> {
        if self.state != State::Open || !self.unsent.is_empty() {
            return None;
        }
        self.refuse(Refusal::Late, turn).ok()?;
        self.take_turn(turn)
    }

    /// Returns its part of the common budget.
    pub fn give_back(&mut self, budget: &AtomicUsize) {
        budget.fetch_sub(self.held_bytes, Ordering::Relaxed);
        self.held_bytes = 0;
    }

    fn advance(&mut self, turn: &mut Turn<'_>) -> Result<(), Gone> {
        self.flush(turn)?;
        self.serve_stalled(turn)?;
        for _ in 0..READS_PER_TURN {
            if !self.unsent.is_empty() {
                return Ok(()); // the peer is slow; it is heard again when it has read
            }
            match self.state {
                State::Open | State::Draining { .. } => {}
                State::Finishing => return Err(Gone),
                State::Closing => self.start_draining()?,
            }
            let count = match recv(&self.socket, &mut *turn.scratch, RecvFlags::empty()) {
                Ok((0, _)) => return self.finish(turn),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Gone),
            };
            self.take_bytes(count, turn)?;
            self.serve_stalled(turn)?;
            if count < turn.scratch.len() && self.state == State::Open {
                return Ok(()); // most likely all there was; epoll tells otherwise
            }
        }
        Ok(())
    }

    fn start_draining(&mut self) -> Result<(), Gone> {
        shutdown(&self.socket, Shutdown::Write).map_err(|_| Gone)?;
        self.state = State::Draining {
            left_bytes: DRAIN_BYTES_MAX,
        };
        Ok(())
    }

    /// Nothing more is served; the peer gets a bounded time to take its replies and hang up.
    fn close_soon(&mut self) {
        self.state = State::Closing;
        self.whole_bytes = 0;
        self.deadline_ns = Some(sys::monotonic_ns().saturating_add(CLOSE_NS_MAX));
    }

    /// The peer has said its last byte; what it is still owed goes out first.
    fn finish(&mut self, turn: &Turn<'_>) -> Result<(), Gone> {
        if self.state == State::Open && !self.input.is_empty() {
            turn.tools.stats.bad_request(false); // its last request never came whole
        }
        self.state = State::Finishing;
        if self.unsent.is_empty() {
            Err(Gone)
        } else {
            Ok(())
        }
    }

    fn take_bytes(&mut self, count: usize, turn: &mut Turn<'_>) -> Result<(), Gone> {
        if let State::Draining { left_bytes } = self.state {
            let left_bytes = left_bytes.checked_sub(count).ok_or(Gone)?;
            self.state = State::Draining { left_bytes };
            return Ok(());
        }
        turn.tools.stats.received_bytes.add(count as u64);
        if self.is_timed {
            turn.tools.read_now();
        }
        if !self.input.is_empty() {
            self.input.extend_from_slice(&turn.scratch[..count]);
            return self.serve_input(turn);
        }
        // Lent out for the call, since serving needs the rest of the turn.
        let scratch = std::mem::take(&mut turn.scratch);
        let served = self.serve(&scratch[..count], turn);
        turn.scratch = scratch;
        self.input.extend_from_slice(&turn.scratch[served?..count]);
        self.flush(turn)
    }

    /// Goes on where serving stopped, as long as the peer takes the replies.
    fn serve_stalled(&mut self, turn: &mut Turn<'_>) -> Result<(), Gone> {
        while self.is_stalled && self.unsent.is_empty() {
            self.is_stalled = false;
            turn.tools.resume_now();
            self.serve_input(turn)?;
        }
        Ok(())
    }

    /// Serves what was kept.
    fn serve_input(&mut self, turn: &mut Turn<'_>) -> Result<(), Gone> {
        let mut input = std::mem::take(&mut self.input);
        let used_bytes = self.serve(&input, turn)?;
        self.input = if input.capacity() > BUFFER_BYTES_KEPT && used_bytes > 0 {
            input.split_off(used_bytes)
        } else {
            input.drain(..used_bytes);
            input
        };
        self.flush(turn)
    }

    /// Has the service answer what is whole; gives the bytes that it is done with.
    fn serve(&mut self, input: &[u8], turn: &mut Turn<'_>) -> Result<usize, Gone> {
        let mut used_bytes = 0;
        loop {
            let rest = &input[used_bytes..];
            let step = self.service.serve(rest, turn.output, &mut turn.tools);
            used_bytes += step.used_bytes;
            match step.next {
                Next::Read {
                    whole_bytes,
                    until_ns,
                } => {
                    self.whole_bytes = whole_bytes;
                    self.deadline_ns = until_ns;
                    return Ok(used_bytes);
                }
                Next::Mirror => self.send_or_keep(&rest[..step.used_bytes], turn)?,
                Next::Flush => {
                    self.flush(turn)?;
                    turn.tools.resume_now();
                }
                Next::Close => {
                    self.close_soon();
                    return Ok(input.len());
                }
            }
            if !self.unsent.is_empty() {
                self.is_stalled = true;
                self.whole_bytes = 0;
                self.deadline_ns = None;
                return Ok(used_bytes);
            }
        }
    }

    /// Ends the request that has begun with the reply that says why.
    fn refuse(&mut self, why: Refusal, turn: &mut Turn<'_>) -> Result<(), Gone> {
        let before_bytes = turn.output.len();
        self.service.refuse(&self.input, why, turn.output);
        let is_told = turn.output.len() > before_bytes;
        turn.tools.stats.bad_request(is_told);
        self.input = Vec::new();
        self.close_soon();
        self.flush(turn)
    }

    /// Takes from the common budget what this connection holds between turns, or refuses to hold it.
    fn hold(&mut self, turn: &mut Turn<'_>) -> Result<(), Gone> {
        let wanted_bytes = self.wanted_bytes();
        if wanted_bytes > self.held_bytes {
            let more_bytes = wanted_bytes - self.held_bytes;
            let all_bytes = turn.held_bytes.fetch_add(more_bytes, Ordering::Relaxed);
            self.held_bytes = wanted_bytes;
            if all_bytes + more_bytes > HELD_BYTES_MAX {
                if self.state != State::Open || !self.unsent.is_empty() {
                    return Err(Gone); // it cannot even be told
                }
                self.refuse(Refusal::Memory, turn)?;
            }
        }
        let wanted_bytes = self.wanted_bytes();
        if wanted_bytes < self.held_bytes {
            turn.held_bytes
                .fetch_sub(self.held_bytes - wanted_bytes, Ordering::Relaxed);
            self.held_bytes = wanted_bytes;
        }
        let missing_bytes = self.whole_bytes.saturating_sub(self.input.len());
        self.input.reserve_exact(missing_bytes);
        Ok(())
    }

    /// What this connection holds now, or will for the request that has begun.
    fn wanted_bytes(&self) -> usize {
        let input_bytes = self.input.len().max(self.whole_bytes);
        let bytes = input_bytes + self.unsent.len() + self.service.held_bytes();
        if bytes > HELD_BYTES_FREE { bytes } else { 0 }
    }

    /// Sends bytes that are a reply as they are.
    fn send_or_keep(&mut self, bytes: &[u8], turn: &Turn<'_>) -> Result<(), Gone> {
        let sent_bytes = if self.unsent.is_empty() {
            self.send(bytes, turn)?
        } else {
            0
        };
        self.unsent.extend_from_slice(&bytes[sent_bytes..]);
        Ok(())
    }

    /// Sends what the peer takes now of what was kept and of what was made since.
    fn flush(&mut self, turn: &mut Turn<'_>) -> Result<(), Gone> {
        if !self.unsent.is_empty() {
            self.unsent_start += self.send(&self.unsent[self.unsent_start..], turn)?;
            if self.unsent_start == self.unsent.len() {
                self.unsent.clear();
                self.unsent.shrink_to(BUFFER_BYTES_KEPT);
                self.unsent_start = 0;
            }
        }
        if !turn.output.is_empty() {
            let output = std::mem::take(turn.output);
            let kept = self.send_or_keep(&output, turn);
            *turn.output = output;
            turn.output.clear();
            kept?;
        }
        Ok(())
    }

    /// Sends what the peer takes now.
    fn send(&self, bytes: &[u8], turn: &Turn<'_>) -> Result<usize, Gone> {
        loop {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent_bytes) => {
                    turn.tools.stats.sent_bytes.add(sent_bytes as u64);
                    return Ok(sent_bytes);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(_) => return Err(Gone),
            }
        }
    }
}
