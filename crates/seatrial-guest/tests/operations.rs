//! What the guest's rpc server does for each operation.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::io::Write;

use seatrial_core::wire::{Operation, RequestHeader, Status, append_payload};
use support::server::{Server, checksum, reply, reply_with_payload, request};

#[test]
fn every_operation_is_done() {
    let server = Server::start("rpc", 2);
    let mut stream = server.connect();
    let payload = vec![5; 100_000];
    let sum = checksum(&payload);
    // Without a payload in the reply, its sum is that of no bytes with its seed.
    for (operation, argument, payload, status, value) in [
        (Operation::Empty, 0, &b""[..], Status::Ok, 0),
        (Operation::Empty, 0, &payload, Status::Ok, 0),
        (Operation::Checksum, sum, &payload, Status::Ok, u64::MAX),
        (
            Operation::Checksum,
            sum ^ 1,
            &payload,
            Status::ChecksumMismatch,
            sum,
        ),
        (
            Operation::Checksum,
            checksum(b""),
            b"",
            Status::Ok,
            u64::MAX,
        ),
        (Operation::Spin, 3_000_000, b"", Status::Ok, 0),
        (Operation::Sleep, 3_000_000, b"", Status::Ok, 0),
        (Operation::SpinWall, 3_000_000, b"", Status::Ok, 0),
        (Operation::Touch, 3_000_000, b"", Status::Ok, 0),
        (Operation::Touch, 256 << 20, b"", Status::Ok, 0),
        (Operation::Spin, u64::MAX, b"", Status::TooLarge, 0),
        (Operation::Sleep, u64::MAX, b"", Status::TooLarge, 0),
        (Operation::SpinWall, u64::MAX, b"", Status::TooLarge, 0),
        (Operation::Touch, (256 << 20) + 1, b"", Status::TooLarge, 0),
    ] {
        stream
            .write_all(&request(operation, 42, argument, payload))
            .unwrap();
        let reply = reply(&mut stream);
        let value = if value == u64::MAX {
            seatrial_core::wire::checksum(b"", reply.seed)
        } else {
            value
        };
        assert_eq!(
            (reply.status, reply.request_id, reply.value),
            (status, 42, value)
        );
        let is_timed = matches!(
            operation,
            Operation::Spin | Operation::Sleep | Operation::SpinWall
        );
        if status == Status::Ok && is_timed {
            assert!(
                reply.service_ns >= argument,
                "{operation:?} took {}",
                reply.service_ns
            );
        }
    }
}

#[test]
fn every_checksum_reply_has_a_new_payload_of_the_size_asked_for() {
    let server = Server::start("rpc", 2);
    let mut seeds = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect();
        for reply_bytes in [2048, 2048, 0, 1, 1 << 20] {
            let header = RequestHeader {
                operation: Operation::Checksum,
                request_id: 9,
                argument: checksum(b"ask"),
                reply_bytes,
                payload_bytes: 3,
            };
            stream.write_all(&header.encode()).unwrap();
            stream.write_all(b"ask").unwrap();
            let (reply, payload) = reply_with_payload(&mut stream);
            assert_eq!(
                (reply.status, reply.payload_bytes),
                (Status::Ok, reply_bytes)
            );
            let mut expected = Vec::new();
            append_payload(reply.seed, reply_bytes as usize, &mut expected);
            assert!(payload == expected);
            assert_eq!(
                reply.value,
                seatrial_core::wire::checksum(&payload, reply.seed)
            );
            seeds.push(reply.seed);
        }
        let header = RequestHeader {
            operation: Operation::Checksum,
            request_id: 10,
            argument: checksum(b""),
            reply_bytes: (1 << 20) + 1,
            payload_bytes: 0,
        };
        stream.write_all(&header.encode()).unwrap();
        assert_eq!(reply(&mut stream).status, Status::TooLarge);
    }
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 10);
}
