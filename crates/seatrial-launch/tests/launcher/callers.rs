//! Guests that call by TCP, among others who call.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seatrial_core::control::{Frame, GuestFrame, Hello, TOKEN_BYTES};
use seatrial_core::launch::plan::{Outcome, Reply, Request, StartRequest, StopHow, WaitFor};

use crate::support::{Client, LONG_NS, caller, guest};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn listen(client: &mut Client) -> u16 {
    match client.ask(&Request::Listen { address: LOCAL }) {
        Reply::Listening { port } => port,
        other => panic!("{other:?}"),
    }
}

fn token(number: usize) -> String {
    format!("{number:0TOKEN_BYTES$x}")
}

/// Waits until the other side has closed.
fn expect_closed(mut stream: TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    match stream.read(&mut [0]) {
        Ok(length) => assert_eq!(length, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn guests_get_through_a_crowd_of_others() {
    let mut client = Client::new();
    let port = listen(&mut client);
    assert_eq!(listen(&mut client), port);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let wrong = token(77);
            let said = ["", "abc", "GET / HTTP/1.1\r\n\r\n", wrong.as_str()];
            let mut silent = Vec::new();
            for text in said.iter().cycle().take(4000) {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let mut stream = TcpStream::connect((LOCAL, port)).unwrap();
                // It may have been dropped before it could say so much.
                let _ = stream.write_all(text.as_bytes());
                silent.push(stream);
                silent.drain(..silent.len().saturating_sub(100));
            }
        });
        let plans =
            (0..8).map(|number| caller(&number.to_string(), "obedient", port, &token(number)));
        let reply = client.start(plans.collect(), WaitFor::Reply, true);
        is_over.store(true, Ordering::Relaxed);
        for result in &reply.results {
            assert_eq!(
                (result.outcome, result.error.as_deref()),
                (Outcome::Ok, None)
            );
            let instants = [
                result.invoked_at_ns,
                result.first_byte_at_ns,
                result.ready_at_ns,
                result.ping_sent_at_ns,
                result.first_reply_at_ns,
            ];
            assert!(
                instants.iter().all(Option::is_some) && instants.is_sorted(),
                "{result:#?}"
            );
        }
    });
    // Nobody is expected: whoever calls now is sent away at once, with a right token too.
    let mut late = TcpStream::connect((LOCAL, port)).unwrap();
    let _ = late.write_all(token(0).as_bytes());
    expect_closed(late);
    let stopped = client.stop(StopHow::Request, LONG_NS);
    assert_eq!(stopped.results.len(), 8);
    for result in stopped.results {
        assert_eq!((result.exit_code, result.error.as_deref()), (Some(0), None));
    }
    assert!(client.hang_up().success());
    assert!(TcpStream::connect((LOCAL, port)).is_err());
}

#[test]
fn a_guest_without_its_token_is_a_failure_of_its_own() {
    let mut client = Client::new();
    let port = listen(&mut client);
    let mut silent = caller("silent", "silent", port, &token(1));
    silent.argv = ["/bin/sleep", "1000"].map(str::to_owned).to_vec();
    silent.deadline_ns = 300_000_000;
    let mut impostor = caller("impostor", "obedient", port, &token(2));
    impostor.env.retain(|entry| !entry.contains("TOKEN"));
    impostor
        .env
        .push(format!("SEATRIAL_CHANNEL_TOKEN={}", token(9)));
    let plans = vec![
        silent,
        impostor,
        caller("garbage", "garbage", port, &token(3)),
        caller("null", "null", port, &token(4)),
        caller("good", "obedient", port, &token(5)),
        guest("inherits", "obedient"),
    ];
    let reply = client.start(plans, WaitFor::Hello, false);
    let expected = [
        (Outcome::TimedOut, "ms: the guest never called"),
        (Outcome::ExitedEarly, "before HELLO"),
        (Outcome::ProtocolError, "length"),
        (Outcome::Ok, ""),
        (Outcome::Ok, ""),
        (Outcome::Ok, ""),
    ];
    for (result, (outcome, text)) in reply.results.iter().zip(expected) {
        assert_eq!(result.outcome, outcome, "{result:#?}");
        let error = result.error.as_deref().unwrap_or_default();
        assert!(error.contains(text), "{result:#?}");
    }
    assert!(client.stop(StopHow::Request, LONG_NS).results.is_empty());
    assert!(client.hang_up().success());
}

#[test]
fn a_killed_guest_and_the_next_batch_with_its_token() {
    let mut client = Client::new();
    let port = listen(&mut client);
    for _ in 0..2 {
        let plans = vec![caller("a", "deaf", port, &token(1))];
        let reply = client.start(plans, WaitFor::Hello, true);
        assert_eq!(reply.results[0].outcome, Outcome::Ok, "{reply:#?}");
        let stopped = client.stop(StopHow::Kill, LONG_NS);
        assert_eq!(stopped.results[0].signal, Some(9));
    }
}

#[test]
fn a_lent_channel_ends_with_its_sandbox_though_the_guest_says_no_word() {
    let mut client = Client::new();
    let port = listen(&mut client);
    // The connection is ours, so the end of the process closes it as little as a machine's would.
    let mut plan = caller("a", "null", port, &token(1));
    plan.argv = ["/bin/sleep", "1000"].map(str::to_owned).to_vec();
    let hello = GuestFrame::Hello(Hello {
        first_instruction_mono_ns: 1,
        hello_mono_ns: 2,
        pid: 3,
        build: "machine".to_owned(),
    });
    let said = [token(1).as_bytes(), &hello.encode().unwrap()].concat();
    let guest = std::thread::spawn(move || {
        // It is sent away until its sandbox is being started.
        for _ in 0..100_000 {
            let mut stream = TcpStream::connect((LOCAL, port)).unwrap();
            let half_second = Some(Duration::from_millis(500));
            stream.set_read_timeout(half_second).unwrap();
            let is_written = stream.write_all(&said).is_ok();
            let read = stream.read(&mut [0]);
            if is_written && read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                return stream;
            }
        }
        panic!("never listened to")
    });
    let reply = client.start(vec![plan], WaitFor::Hello, true);
    assert_eq!(reply.results[0].outcome, Outcome::Ok, "{reply:#?}");
    let stream = guest.join().unwrap();
    let mut lent = client.borrow("a");
    lent.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let stopped = client.stop(StopHow::Kill, LONG_NS);
    assert_eq!(stopped.results[0].signal, Some(9));
    assert_eq!(lent.read(&mut [0]).unwrap(), 0);
    drop(stream);
}

#[test]
fn plans_that_cannot_be_called_for_are_refused_before_anything_runs() {
    let mut client = Client::new();
    let mut refusal = |plans| {
        let request = StartRequest {
            plans,
            wait_for: WaitFor::Hello,
            hold: false,
            timeout_ns: LONG_NS,
            stop_grace_ns: LONG_NS,
        };
        match client.ask(&Request::Start(request)) {
            Reply::Failure { code, message } => {
                assert_eq!(code, "bad-request");
                message
            }
            other => panic!("{other:?}"),
        }
    };
    let good = caller("a", "obedient", 1, &token(1));
    assert!(refusal(vec![good.clone()]).contains("nobody listens"));
    for bad in [
        "",
        "abc",
        &token(1).replace('0', "g"),
        &token(1).replace('0', "A"),
    ] {
        let mut plan = good.clone();
        plan.channel_token = Some(bad.to_owned());
        let said = refusal(vec![plan]);
        assert!(said.contains("expected 64 of 0-9 and a-f"), "{said}");
        assert!(bad.is_empty() || !said.contains(bad), "{said}");
    }
    let mut both = good.clone();
    both.channel_fd = Some(3);
    assert!(refusal(vec![both]).contains("at most one of channel_fd"));
    let port = listen(&mut client);
    let twins = ["a", "b"].map(|id| caller(id, "obedient", port, &token(1)));
    let request = StartRequest {
        plans: twins.to_vec(),
        wait_for: WaitFor::Hello,
        hold: false,
        timeout_ns: LONG_NS,
        stop_grace_ns: LONG_NS,
    };
    let Reply::Failure { message, .. } = client.ask(&Request::Start(request)) else {
        panic!("two plans with one token were started")
    };
    assert!(message.contains("the same channel_token"), "{message}");
}

#[test]
fn an_address_that_cannot_be_had_is_an_error() {
    let mut client = Client::new();
    let address = "255.255.255.255".parse().unwrap();
    let Reply::Failure { code, message } = client.ask(&Request::Listen { address }) else {
        panic!("listening at the broadcast address")
    };
    assert_eq!(code, "listen");
    assert!(message.contains("255.255.255.255"), "{message}");
}
