//! The guest as its host sees it through the control channel.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use seatrial_core::control::{
    Decoder, Frame, GuestFrame, HostFrame, PING_BYTES_MAX, TOKEN_BYTES, TOKEN_VARIABLE,
};
use support::{GUEST, Guest, PATIENCE};

const LONG_SPIN: &str = r#"{"probe": "spin", "cpu_ns": 60000000000}"#;

#[test]
fn null_says_hello_and_exits() {
    let mut guest = Guest::start(&["null"]);
    let hello = guest.hello();
    assert_eq!(i32::try_from(hello.pid).unwrap(), guest.id());
    assert!(hello.build.starts_with("seatrial-guest "));
    assert!(hello.first_instruction_mono_ns <= hello.hello_mono_ns);
    assert_eq!(guest.next(), None);
    assert_eq!(guest.wait().code(), Some(0));
}

#[test]
fn idle_is_ready_answers_and_stops() {
    let mut guest = Guest::start(&["idle"]);
    let hello = guest.hello();
    let Some(GuestFrame::Ready(ready)) = guest.next() else {
        panic!("no READY")
    };
    assert!(ready.ready_mono_ns >= hello.hello_mono_ns);
    assert_eq!(ready.endpoints, Vec::<String>::new());
    for payload in [Vec::new(), b"hello".to_vec(), vec![7; PING_BYTES_MAX]] {
        guest.send(&HostFrame::Ping(payload.clone()));
        assert_eq!(guest.next(), Some(GuestFrame::Pong(payload)));
    }
    guest.send(&HostFrame::Stop);
    assert_eq!(guest.next(), None);
    assert_eq!(guest.wait().code(), Some(0));
}

#[test]
fn a_closed_channel_ends_every_role() {
    for role in [
        &["idle"][..],
        &["serve", "--protocol", "echo", "--listen", "tcp:127.0.0.1:0"],
        &["exec", "--", "/bin/sleep", "1000"],
    ] {
        let mut guest = Guest::start(role);
        guest.hello();
        guest.hang_up();
        assert_eq!(guest.wait().code(), Some(0), "{role:?}");
    }
}

#[test]
fn a_closed_channel_ends_a_running_probe() {
    let (mut guest, _) = Guest::start_ready(&["idle"]);
    guest.send(&HostFrame::Run(LONG_SPIN.to_owned()));
    guest.hang_up();
    assert_eq!(guest.wait().code(), Some(0));
}

#[test]
fn ping_and_stop_are_heard_while_a_probe_runs() {
    let (mut guest, _) = Guest::start_ready(&["idle"]);
    guest.send(&HostFrame::Run(LONG_SPIN.to_owned()));
    guest.send(&HostFrame::Ping(b"there?".to_vec()));
    assert_eq!(guest.next(), Some(GuestFrame::Pong(b"there?".to_vec())));
    guest.send(&HostFrame::Run(LONG_SPIN.to_owned()));
    assert_eq!(guest.error().code, "busy");
    guest.send(&HostFrame::Stop);
    assert_eq!(guest.next(), None);
    assert_eq!(guest.wait().code(), Some(0));
}

#[test]
fn probes_answer_one_after_another() {
    let (mut guest, _) = Guest::start_ready(&["idle"]);
    for _ in 0..20 {
        let answer = guest.run(r#"{"probe": "syscall", "iterations": 10, "batches": 2}"#);
        let GuestFrame::Result(text) = answer else {
            panic!("{answer:?}")
        };
        let value = serde_json::from_str::<serde_json::Value>(&text).unwrap();
        assert_eq!(value["batch_ns"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn bad_requests_are_refused_and_the_guest_lives_on() {
    let (mut guest, _) = Guest::start_ready(&["idle"]);
    for request in [
        "",
        "{",
        "[]",
        "null",
        r#"{"probe": "fly"}"#,
        r#"{"probe": "syscall"}"#,
    ] {
        let GuestFrame::Error(report) = guest.run(request) else {
            panic!("{request}")
        };
        assert_eq!(report.code, "bad-request", "{request}");
    }
    // Deep nesting must be an error, not a stack overflow.
    let GuestFrame::Error(report) = guest.run(&"[".repeat(200_000)) else {
        panic!()
    };
    assert_eq!(report.code, "bad-request");
    let missing = r#"{"probe": "file-write", "path": "/nonexistent", "bytes": 1}"#;
    let GuestFrame::Error(report) = guest.run(missing) else {
        panic!()
    };
    assert_eq!(report.code, "probe-failed");
    guest.send(&HostFrame::Ping(Vec::new()));
    assert_eq!(guest.next(), Some(GuestFrame::Pong(Vec::new())));
}

#[test]
fn exec_reports_what_the_command_did() {
    let mut guest = Guest::start(&["exec", "--", "/bin/sh", "-c", "echo hi; exit 5"]);
    guest.hello();
    let Some(GuestFrame::Result(text)) = guest.next() else {
        panic!("no RESULT")
    };
    let value = serde_json::from_str::<serde_json::Value>(&text).unwrap();
    assert_eq!(
        (&value["exit_code"], &value["stdout"]),
        (&5.into(), &"hi\n".into())
    );
    assert_eq!(guest.next(), None);
    assert_eq!(guest.wait().code(), Some(0));
}

#[test]
fn output_of_control_bytes_still_fits_into_a_frame() {
    let (mut guest, _) = Guest::start_ready(&["idle"]);
    let script = "head -c 70000 /dev/zero; head -c 70000 /dev/zero >&2";
    let request = serde_json::json!({"probe": "exec", "argv": ["/bin/sh", "-c", script]});
    let answer = guest.run(&request.to_string());
    assert!(matches!(answer, GuestFrame::Result(_)), "{answer:?}");
}

#[test]
fn a_command_dies_with_its_guest() {
    let (mut guest, _) = Guest::start_ready(&["idle"]);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    // The command holds a unix socket open through its own connection: it
    // connects, and when it dies the connection closes.
    drop(theirs);
    let directory = std::env::temp_dir().join(format!("seatrial-guest-{}", guest.id()));
    std::fs::create_dir_all(&directory).unwrap();
    let fifo = directory.join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let script = format!("exec 9>{}; sleep 1000", fifo.display());
    let request = serde_json::json!({"probe": "exec", "argv": ["/bin/sh", "-c", script]});
    guest.send(&HostFrame::Run(request.to_string()));
    // Opening blocks until the command has opened its end, so it runs now.
    let mut reader = std::fs::File::open(&fifo).unwrap();
    guest.send(&HostFrame::Stop);
    assert_eq!(guest.wait().code(), Some(0));
    // The end of the file comes when the command and its child are gone.
    assert_eq!(std::io::copy(&mut reader, &mut ours).unwrap(), 0);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_is_not_the_protocol_is_refused_with_status_70() {
    let cases: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", "length"),
        (&[0, 0, 0, 0], "length 0"),
        (&[255, 255, 255, 255, 2, 0x13], "length 4294967295"),
        (&[1, 0, 16, 0, 2, 0x12], "length 1048577"),
        (&[2, 0, 0, 0, 3, 0x13], "version 3"),
        (&[2, 0, 0, 0, 2, 0x15], "type 0x15"),
    ];
    for (bytes, expected) in cases {
        let (mut guest, _) = Guest::start_ready(&["idle"]);
        guest.send_raw(bytes).unwrap();
        let report = guest.error();
        assert_eq!(report.code, "protocol");
        assert!(
            report.message.contains(expected),
            "{bytes:?}: {}",
            report.message
        );
        assert_eq!(guest.next(), None);
        assert_eq!(guest.wait().code(), Some(70), "{bytes:?}");
    }
}

#[test]
fn a_wrong_command_line_is_reported_on_the_channel() {
    for role in [
        &[][..],
        &["fly"],
        &["serve", "--protocol", "http"],
        &["idle", "now"],
    ] {
        let mut guest = Guest::start(role);
        guest.hello();
        assert_eq!(guest.error().code, "usage", "{role:?}");
        assert_eq!(guest.wait().code(), Some(64), "{role:?}");
    }
    let mut guest = Guest::start(&[
        "serve",
        "--protocol",
        "echo",
        "--listen",
        "unix:/nonexistent/socket",
    ]);
    guest.hello();
    let report = guest.error();
    assert_eq!(report.code, "listen-failed");
    assert!(
        report.message.contains("unix:/nonexistent/socket"),
        "{}",
        report.message
    );
    assert_eq!(guest.wait().code(), Some(71));
}

#[test]
fn a_channel_that_is_not_there_is_an_error() {
    for (fd, code) in [("77", 71), ("x", 64), ("-1", 64)] {
        let status = Command::new(GUEST)
            .args(["--channel-fd", fd, "idle"])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "--channel-fd {fd}");
    }
}

#[test]
fn by_tcp_the_token_comes_with_the_hello() {
    let token = "0123456789abcdef".repeat(4);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut child = Command::new(GUEST)
        .args(["--channel-tcp", &address, "idle"])
        .env(TOKEN_VARIABLE, &token)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut host, _) = listener.accept().unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = [0; 4096];
    // Written in one piece, so it comes in one piece.
    let length = host.read(&mut said).unwrap();
    let (first, rest) = said[..length].split_at(TOKEN_BYTES);
    assert_eq!(first, token.as_bytes());
    let mut decoder = Decoder::<GuestFrame>::new();
    decoder.push(rest).unwrap();
    assert!(matches!(
        decoder.next_frame(),
        Ok(Some(GuestFrame::Hello(_)))
    ));
    host.write_all(&HostFrame::Stop.encode().unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_call_by_tcp_needs_an_address_a_token_and_somebody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let token = "0123456789abcdef".repeat(4);
    for (address, token, code, expected) in [
        (address.as_str(), token.as_str(), 71, address.as_str()),
        ("here:1", &token, 64, "expected IP:PORT"),
        (&address, &token.to_uppercase(), 64, "expected a token"),
        (&address, &token[1..], 64, "expected a token"),
        (&address, "", 64, "expected a token"),
    ] {
        let output = Command::new(GUEST)
            .args(["--channel-tcp", address, "idle"])
            .env(TOKEN_VARIABLE, token)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(token.is_empty() || !said.contains(token), "{said}");
    }
}

#[test]
fn version_needs_no_channel() {
    let output = Command::new(GUEST).arg("version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        output.stdout,
        concat!("seatrial-guest ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a host sends, the guest ends with 0 (closed) or 70 (refused), never by a signal.
    #[test]
    fn any_bytes_end_in_a_typed_way(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut guest, _) = Guest::start_ready(&["idle"]);
        let _ = guest.send_raw(&bytes);
        guest.hang_up();
        let code = guest.wait().code();
        prop_assert!(matches!(code, Some(0 | 70)), "{:?} ended with {:?}", bytes, code);
    }
}
