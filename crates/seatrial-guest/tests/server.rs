//! The guest's server as load sees it.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use seatrial_core::control::{GuestFrame, HostFrame};
use seatrial_core::histogram::Histogram;
use seatrial_core::wire::{HEADER_BYTES, Operation, PAYLOAD_BYTES_MAX, RequestHeader, Status};
use support::server::{Server, assert_ended, checksum, reply, reply_with_payload, request};
use support::{GUEST, Guest};

#[test]
fn echo_gives_everything_back_then_closes() {
    let server = Server::start("echo", 1);
    let mut stream = server.connect();
    stream.write_all(b"one").unwrap();
    let mut three = [0; 3];
    stream.read_exact(&mut three).unwrap();
    assert_eq!(&three, b"one");
    stream.write_all(b"two").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"two");
}

#[test]
fn echo_waits_for_a_peer_that_does_not_read() {
    let server = Server::start("echo", 1);
    let mut stream = server.connect();
    let sent = (0..16_u32 << 20)
        .map(|n| (n % 251) as u8)
        .collect::<Vec<_>>();
    let copy = sent.clone();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // The same worker serves another connection while this one is stuck.
    let mut other = server.connect();
    other.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(
        received == sent,
        "{} bytes came back of {}",
        received.len(),
        sent.len()
    );
}

#[test]
fn a_request_may_come_one_byte_at_a_time() {
    let server = Server::start("rpc", 1);
    let mut stream = server.connect();
    let payload = b"0123456789";
    let bytes = request(Operation::Checksum, 7, checksum(payload), payload);
    for byte in bytes.iter().chain(&bytes) {
        stream.write_all(&[*byte]).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(reply(&mut stream).status, Status::Ok);
    }
}

#[test]
fn the_largest_payload_passes_and_a_larger_one_is_refused() {
    let server = Server::start("rpc", 1);
    let mut stream = server.connect();
    let payload = vec![9; PAYLOAD_BYTES_MAX];
    for request_id in 0..3 {
        let bytes = request(
            Operation::Checksum,
            request_id,
            checksum(&payload),
            &payload,
        );
        stream.write_all(&bytes).unwrap();
        let reply = reply(&mut stream);
        assert_eq!((reply.status, reply.request_id), (Status::Ok, request_id));
    }
    let payload_bytes = u32::try_from(PAYLOAD_BYTES_MAX + 1).unwrap();
    let header = RequestHeader {
        operation: Operation::Empty,
        request_id: 8,
        argument: 0,
        reply_bytes: 0,
        payload_bytes,
    };
    stream.write_all(&header.encode()).unwrap();
    let refused = reply(&mut stream);
    assert_eq!((refused.status, refused.request_id), (Status::TooLarge, 8));
    assert_ended(&mut stream);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start("rpc", 1);
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        for request_id in 0..20_000 {
            let payload = vec![1; usize::try_from(request_id % 50).unwrap()];
            let bytes = request(
                Operation::Checksum,
                request_id,
                checksum(&payload),
                &payload,
            );
            writer.write_all(&bytes).unwrap();
        }
    });
    for request_id in 0..20_000 {
        let reply = reply(&mut stream);
        assert_eq!((reply.status, reply.request_id), (Status::Ok, request_id));
    }
    writing.join().unwrap();
}

#[test]
fn a_reply_does_not_wait_for_a_slow_request_behind_it() {
    let server = Server::start("rpc", 1);
    let mut stream = server.connect();
    let bytes = [
        request(Operation::Empty, 1, 0, b""),
        request(Operation::Spin, 2, 1_000_000, b""),
        request(Operation::Sleep, 3, 50_000_000_000, b""),
    ]
    .concat();
    stream.write_all(&bytes).unwrap();
    assert_eq!(reply(&mut stream).request_id, 1);
    assert_eq!(reply(&mut stream).request_id, 2);
    stream.set_nonblocking(true).unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn garbage_is_answered_with_its_id_and_closed() {
    let server = Server::start("rpc", 1);
    let mut valid = [0; HEADER_BYTES];
    valid.copy_from_slice(&request(Operation::Empty, 0x0102, 0, b""));
    for (offset, value) in [(0, 27), (4, 9), (5, 6), (6, 1), (31, 1)] {
        let mut bytes = valid;
        bytes[offset] = value;
        let mut stream = server.connect();
        // More behind it must not reset the connection before the reply is read.
        stream
            .write_all(&[&bytes[..], &[0xee; 10_000]].concat())
            .unwrap();
        let refused = reply(&mut stream);
        assert_eq!(
            (refused.status, refused.request_id),
            (Status::BadRequest, 0x0102)
        );
        assert_ended(&mut stream);
    }
    let mut stream = server.connect();
    stream.write_all(b"GET /").unwrap(); // refused although it is no whole header
    assert_eq!(reply(&mut stream).status, Status::BadRequest);
    assert_ended(&mut stream);
    let mut stream = server.connect();
    stream
        .write_all(&request(Operation::Empty, 1, 0, b"")[..9])
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_ended(&mut stream);
    server.assert_alive();
}

#[test]
fn requests_before_the_end_are_still_answered() {
    let server = Server::start("rpc", 1);
    let mut stream = server.connect();
    let bytes = request(Operation::Empty, 1, 0, b"");
    stream
        .write_all(&[&bytes[..], &bytes[..20]].concat())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reply(&mut stream).request_id, 1);
    assert_ended(&mut stream);
    drop(server.connect()); // a connection that says nothing at all
    server.assert_alive();
}

#[test]
fn two_hundred_connections_are_served() {
    let mut server = Server::start("rpc", 2);
    let mut streams = (0..200).map(|_| server.connect()).collect::<Vec<_>>();
    for round in 0..3 {
        for (index, stream) in streams.iter_mut().enumerate() {
            let id = 1000 * round + index as u64;
            stream
                .write_all(&request(Operation::Empty, id, 0, b"hello"))
                .unwrap();
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            assert_eq!(reply(stream).request_id, 1000 * round + index as u64);
        }
    }
    // The channel is heard under load.
    let ping = HostFrame::Ping(b"p".to_vec());
    server.guest.send(&ping);
    assert_eq!(server.guest.next(), Some(GuestFrame::Pong(b"p".to_vec())));
}

#[test]
fn slow_and_silent_peers_hold_nobody_up() {
    let server = Server::start("rpc", 1);
    let bytes = request(Operation::Empty, 1, 0, &[0; 5000]);
    let mut slow = (0..20).map(|_| server.connect()).collect::<Vec<_>>();
    for (index, stream) in slow.iter_mut().enumerate() {
        stream.write_all(&bytes[..=index * 200]).unwrap();
    }
    // Sends without ever reading, until the server no longer takes anything.
    let mut deaf = server.connect();
    deaf.set_nonblocking(true).unwrap();
    let burst = request(Operation::Empty, 2, 0, b"").repeat(2000);
    let mut full_count = 0;
    while full_count < 3 {
        match deaf.write(&burst) {
            Ok(_) => full_count = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                full_count += 1;
                server.assert_alive();
            }
            Err(error) => panic!("{error}"),
        }
    }
    for (index, stream) in slow.iter_mut().enumerate() {
        stream.write_all(&bytes[index * 200 + 1..]).unwrap();
        assert_eq!(reply(stream).request_id, 1);
    }
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let path = std::env::temp_dir().join(format!("seatrial-server-{}", std::process::id()));
    let listen = format!("unix:{}", path.display());
    let role = ["serve", "--protocol", "rpc", "--listen", &listen];
    let (mut killed, _) = Guest::start_ready(&role);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(&request(Operation::Empty, 3, 0, b""))
        .unwrap();
    assert_eq!(reply(&mut stream).request_id, 3);
    // Two cannot have the same path, unless the first was killed and left it.
    let mut second = Guest::start(&role);
    second.hello();
    assert_eq!(second.error().code, "listen-failed");
    signal("KILL", killed.id());
    killed.wait();
    assert!(path.exists());
    let (mut third, ready) = Guest::start_ready(&role);
    assert_eq!(ready.endpoints, [listen.as_str()]);
    signal("TERM", third.id());
    assert_eq!(third.wait().code(), Some(0));
    assert!(!path.exists());
}

fn signal(name: &str, pid: i32) {
    let arguments = [format!("-{name}"), pid.to_string()];
    assert!(
        Command::new("kill")
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn without_a_channel_it_serves_until_it_is_told_to_end() {
    let mut child = Command::new(GUEST)
        .args(["--channel-fd", "none", "serve", "--protocol", "echo"])
        .args(["--listen", "tcp:127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let mut stream = TcpStream::connect(line.trim().strip_prefix("tcp:").unwrap()).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    signal("TERM", i32::try_from(child.id()).unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Many connections with damaged requests each: the server answers or closes, and lives.
    #[test]
    fn damaged_requests_never_end_the_server(
        cases in prop::collection::vec(
            (prop::collection::vec((0..40_usize, any::<u8>()), 0..6), 0..60_usize, 0..40_u8),
            40,
        ),
    ) {
        let server = Server::start("rpc", 2);
        for (damages, cut, length) in cases {
            let payload = vec![3; usize::from(length)];
            let mut bytes = request(Operation::Checksum, 1, checksum(&payload), &payload);
            for (offset, value) in damages {
                // Spin and sleep of any length would only make the test wait.
                let offset = if offset == 5 { 4 } else { offset };
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte = value;
                }
            }
            bytes.truncate(cut.max(1));
            let mut stream = server.connect();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let _ = reply_with_payload(&mut rest);
            }
        }
        server.assert_alive();
    }
}

#[test]
fn counts_are_told_on_the_channel() {
    let mut server = Server::start("rpc", 2);
    let mut stream = server.connect();
    for request_id in 0..3 {
        stream
            .write_all(&request(Operation::Empty, request_id, 0, b""))
            .unwrap();
        assert_eq!(reply(&mut stream).status, Status::Ok);
    }
    server.guest.send(&HostFrame::Stats);
    let Some(GuestFrame::Stats(text)) = server.guest.next() else {
        panic!("no STATS");
    };
    let stats = serde_json::from_str::<serde_json::Value>(&text).unwrap();
    assert_eq!(
        (&stats["requests"], &stats["replies"]),
        (&3.into(), &3.into())
    );
    assert_eq!(stats["operations"]["empty"], 3);
    assert_eq!(stats["connections"]["accepted"], 1);
    let times = stats["service_histogram"].as_str().unwrap();
    let bytes = (0..times.len() / 2)
        .map(|index| u8::from_str_radix(&times[2 * index..2 * index + 2], 16).unwrap())
        .collect::<Vec<_>>();
    assert_eq!(Histogram::from_bytes(&bytes).unwrap().count(), 3);
}
