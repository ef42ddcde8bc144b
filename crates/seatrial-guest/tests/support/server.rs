//! A guest that serves, and the requests and replies of a client by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use seatrial_core::wire::{Operation, REPLY_HEADER_BYTES, Reply, RequestHeader};

use super::{Guest, PATIENCE};

/// A guest that serves, and where.
pub struct Server {
    pub guest: Guest,
    pub address: String,
}

impl Server {
    /// Starts it on a free port.
    pub fn start(protocol: &str, workers: usize) -> Self {
        let workers = workers.to_string();
        let (guest, ready) = Guest::start_ready(&[
            "serve",
            "--protocol",
            protocol,
            "--listen",
            "tcp:127.0.0.1:0",
            "--workers",
            &workers,
        ]);
        let address = ready.endpoints[0].strip_prefix("tcp:").unwrap().to_owned();
        Self { guest, address }
    }

    /// A connection that does not wait for ever.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A fresh connection is still served.
    pub fn assert_alive(&self) {
        let mut stream = self.connect();
        stream
            .write_all(&request(Operation::Empty, 99, 0, b""))
            .unwrap();
        assert_eq!(reply(&mut stream).request_id, 99);
    }
}

/// A whole request.
pub fn request(operation: Operation, request_id: u64, argument: u64, payload: &[u8]) -> Vec<u8> {
    let payload_bytes = u32::try_from(payload.len()).unwrap();
    let header = RequestHeader {
        operation,
        request_id,
        argument,
        reply_bytes: 0,
        payload_bytes,
    };
    [&header.encode(), payload].concat()
}

/// The sum of a request's payload.
pub fn checksum(payload: &[u8]) -> u64 {
    seatrial_core::wire::checksum(payload, 0)
}

/// A reply without payload.
pub fn reply(stream: &mut impl Read) -> Reply {
    let (reply, payload) = reply_with_payload(stream);
    assert!(payload.is_empty());
    reply
}

/// A reply and its payload.
pub fn reply_with_payload(stream: &mut impl Read) -> (Reply, Vec<u8>) {
    let mut bytes = [0; REPLY_HEADER_BYTES];
    stream.read_exact(&mut bytes).unwrap();
    let reply = Reply::decode(&bytes).unwrap();
    let mut payload = vec![0; reply.payload_bytes as usize];
    stream.read_exact(&mut payload).unwrap();
    (reply, payload)
}

/// The peer has closed, with nothing left to read.
pub fn assert_ended(stream: &mut impl Read) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}
