//! A small real UDP server for tests: one thread, which answers as it is told to.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use seatrial_core::wire::{HEADER_BYTES, RequestHeader, Status};

use super::server::reply_to;

/// What the server sends for the datagram with this number; each answer goes out by itself.
pub type Answer = fn(&[u8], u64) -> Vec<Vec<u8>>;

/// Runs until it is dropped; its thread is joined by then.
pub struct DatagramServer {
    pub target: String,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl DatagramServer {
    pub fn new(answer: Answer) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            let mut count = 0;
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                if flag.load(Ordering::Acquire) {
                    break;
                }
                for reply in answer(&buffer[..length], count) {
                    // The peer may be gone, as far as the kernel was told.
                    let _ = socket.send_to(&reply, peer);
                }
                count += 1;
            }
            count
        });
        Self {
            target: format!("udp://{address}"),
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let waker = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = waker.send_to(b"stop", self.address).unwrap();
        let _ = self.thread.take().unwrap().join().unwrap();
    }
}

/// The datagram as it came.
pub fn echo(datagram: &[u8], _number: u64) -> Vec<Vec<u8>> {
    vec![datagram.to_vec()]
}

/// The plain reply to an rpc request.
pub fn rpc(datagram: &[u8], _number: u64) -> Vec<Vec<u8>> {
    let header = datagram[..HEADER_BYTES].try_into().unwrap();
    let header = RequestHeader::decode(&header).unwrap();
    vec![reply_to(&header, Status::Ok)]
}
