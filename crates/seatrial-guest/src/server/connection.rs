//! One connection: bytes in, replies out, and how it ends.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use seatrial_core::wire::{
    HEADER_BYTES, Operation, Reply, RequestHeader, Status, checksum, request_id_of,
};

use super::{PENDING_BYTES_MAX, Protocol};
use crate::spin::{DEMAND_NS_MAX, Spinner};
use crate::sys;

/// Reads of one connection before the others of its worker have their turn.
const READS_PER_TURN: usize = 4;

/// A frame up to this size may wait for its rest without asking the common budget.
const PENDING_BYTES_FREE: usize = 4096;

/// Payloads up to this size are answered so fast that replies before them may wait.
const QUICK_PAYLOAD_BYTES: usize = 4096;

/// Bytes still read, and thrown away, from a peer that was told it is wrong.
const DRAIN_BYTES_MAX: usize = 4 << 20;

/// An input buffer that grew beyond this for a large frame is given back after it.
const INPUT_BYTES_KEPT: usize = 64 << 10;

/// What a worker lends to a connection for its turn.
pub struct Turn<'a> {
    /// Where bytes are read to.
    pub scratch: &'a mut [u8],
    /// How CPU time is burnt.
    pub spinner: Spinner,
    /// What half-received frames of all connections hold.
    pub pending_bytes: &'a AtomicUsize,
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
    /// The peer broke the protocol; the reply that says so goes out.
    Refusing,
    /// That reply is out. What still comes is thrown away, because closing with
    /// unread bytes would reset the connection and destroy the reply.
    Draining { left_bytes: usize },
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    protocol: Protocol,
    state: State,
    /// Bytes of a frame that is not whole yet.
    input: Vec<u8>,
    /// Bytes that the peer has not taken yet, from `output_start` on.
    output: Vec<u8>,
    output_start: usize,
    /// What this connection has taken of the common budget.
    pending_bytes: usize,
}

/// The peer is gone or unusable.
struct Gone;

impl Connection {
    /// A connection that was just accepted.
    pub const fn new(socket: OwnedFd, protocol: Protocol) -> Self {
        Self {
            socket,
            protocol,
            state: State::Open,
            input: Vec::new(),
            output: Vec::new(),
            output_start: 0,
            pending_bytes: 0,
        }
    }

    /// Its socket.
    pub const fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// What it waits for.
    pub fn interest(&self) -> Interest {
        if self.output.is_empty() {
            Interest::Read
        } else {
            Interest::Write
        }
    }

    /// Does what can be done now; gives what to wait for, `None` when it is over.
    pub fn take_turn(&mut self, turn: &mut Turn<'_>) -> Option<Interest> {
        self.advance(turn).ok().map(|()| self.interest())
    }

    /// Returns its part of the common budget.
    pub fn give_back(&mut self, budget: &AtomicUsize) {
        budget.fetch_sub(self.pending_bytes, Ordering::Relaxed);
        self.pending_bytes = 0;
    }

    fn advance(&mut self, turn: &mut Turn<'_>) -> Result<(), Gone> {
        self.flush()?;
        for _ in 0..READS_PER_TURN {
            if !self.output.is_empty() {
                return Ok(()); // the peer is slow; it is heard again when it has read
            }
            match self.state {
                State::Open | State::Draining { .. } => {}
                State::Finishing => return Err(Gone),
                State::Refusing => {
                    shutdown(&self.socket, Shutdown::Write).map_err(|_| Gone)?;
                    self.state = State::Draining {
                        left_bytes: DRAIN_BYTES_MAX,
                    };
                }
            }
            let count = match recv(&self.socket, &mut *turn.scratch, RecvFlags::empty()) {
                Ok((0, _)) => return self.finish(),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Gone),
            };
            self.take_bytes(count, turn)?;
            self.flush()?;
            if count < turn.scratch.len() && self.state == State::Open {
                return Ok(()); // most likely all there was; epoll tells otherwise
            }
        }
        Ok(())
    }

    /// The peer has said its last byte; what it is still owed goes out first.
    fn finish(&mut self) -> Result<(), Gone> {
        self.state = State::Finishing;
        if self.output.is_empty() {
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
        match self.protocol {
            Protocol::Echo => self.send_or_keep(&turn.scratch[..count]),
            Protocol::Rpc if self.input.is_empty() => {
                let bytes = &turn.scratch[..count];
                let used = self.answer_frames(bytes, turn.spinner)?;
                self.input.extend_from_slice(&bytes[used..]);
                self.hold_input(turn.pending_bytes);
                Ok(())
            }
            Protocol::Rpc => self.take_more(count, turn),
        }
    }

    /// Continues a frame of which a part had come before.
    fn take_more(&mut self, count: usize, turn: &Turn<'_>) -> Result<(), Gone> {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(&turn.scratch[..count]);
        let used = self.answer_frames(&input, turn.spinner)?;
        if used > 0 {
            self.give_back(turn.pending_bytes);
        }
        self.input = if input.capacity() > INPUT_BYTES_KEPT && used > 0 {
            input.split_off(used)
        } else {
            input.drain(..used);
            input
        };
        self.hold_input(turn.pending_bytes);
        Ok(())
    }

    /// Makes room for the frame that has begun, if the common budget allows it.
    fn hold_input(&mut self, budget: &AtomicUsize) {
        if self.state != State::Open {
            self.input = Vec::new();
            self.give_back(budget);
            return;
        }
        let Some(head) = self.input.first_chunk::<HEADER_BYTES>() else {
            return;
        };
        let Ok(header) = RequestHeader::decode(head) else {
            return;
        };
        let frame_bytes = header.frame_bytes();
        if frame_bytes <= PENDING_BYTES_FREE || self.pending_bytes > 0 {
            return;
        }
        self.pending_bytes = frame_bytes;
        if budget.fetch_add(frame_bytes, Ordering::Relaxed) + frame_bytes > PENDING_BYTES_MAX {
            self.give_back(budget);
            self.input = Vec::new();
            self.refuse(header.request_id, Status::TooLarge);
            return;
        }
        self.input
            .reserve_exact(frame_bytes.saturating_sub(self.input.len()));
    }

    /// Answers each whole request at the start of `bytes`; gives the bytes used.
    fn answer_frames(&mut self, bytes: &[u8], spinner: Spinner) -> Result<usize, Gone> {
        let mut used = 0;
        while let Some(head) = bytes[used..].first_chunk::<HEADER_BYTES>() {
            let header = match RequestHeader::decode(head) {
                Ok(header) => header,
                Err(error) => {
                    self.refuse(request_id_of(head), error.status());
                    break;
                }
            };
            let Some(frame) = bytes[used..].get(..header.frame_bytes()) else {
                break;
            };
            let takes_time = match header.operation {
                Operation::Spin | Operation::Sleep => true,
                Operation::Checksum => frame.len() > QUICK_PAYLOAD_BYTES,
                Operation::Empty => false,
            };
            if takes_time {
                self.flush()?; // replies before this one do not wait for it
            }
            let reply = execute(&header, &frame[HEADER_BYTES..], spinner);
            self.output.extend_from_slice(&reply.encode());
            if takes_time {
                self.flush()?;
            }
            used += frame.len();
        }
        Ok(used)
    }

    fn refuse(&mut self, request_id: u64, status: Status) {
        let reply = Reply {
            status,
            request_id,
            value: 0,
            service_ns: 0,
        };
        self.output.extend_from_slice(&reply.encode());
        self.state = State::Refusing;
    }

    fn send_or_keep(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let sent = if self.output.is_empty() {
            self.send(bytes)?
        } else {
            0
        };
        self.output.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.output_start += self.send(&self.output[self.output_start..])?;
        if self.output_start == self.output.len() {
            self.output.clear();
            self.output_start = 0;
        }
        Ok(())
    }

    /// Sends what the peer takes now.
    fn send(&self, bytes: &[u8]) -> Result<usize, Gone> {
        loop {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(_) => return Err(Gone),
            }
        }
    }
}

/// Does what a request asks; `service_ns` is from the whole request being taken up to the reply.
///
/// Waiting for earlier requests is not in it: that is the queue, not the service.
fn execute(header: &RequestHeader, payload: &[u8], spinner: Spinner) -> Reply {
    let start_ns = sys::monotonic_ns();
    let (status, value) = match header.operation {
        Operation::Empty => (Status::Ok, 0),
        Operation::Checksum => {
            let value = checksum(payload);
            let is_right = value == header.argument;
            (
                if is_right {
                    Status::Ok
                } else {
                    Status::ChecksumMismatch
                },
                value,
            )
        }
        Operation::Spin | Operation::Sleep if header.argument > DEMAND_NS_MAX => {
            (Status::TooLarge, 0)
        }
        Operation::Spin => {
            spinner.burn(header.argument);
            (Status::Ok, 0)
        }
        Operation::Sleep => {
            std::thread::sleep(Duration::from_nanos(header.argument));
            (Status::Ok, 0)
        }
    };
    let service_ns = sys::monotonic_ns().saturating_sub(start_ns);
    Reply {
        status,
        request_id: header.request_id,
        value,
        service_ns,
    }
}
