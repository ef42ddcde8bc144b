//! Connections that end while requests are under way: what was answered counts as answered.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use seatrial_core::arrival::Share;
use seatrial_core::clock::{Clock, MonotonicClock};
use seatrial_core::engine::LoadPlan;
use seatrial_core::engine::plan::ProtocolKind;
use seatrial_core::record::Outcome;
use seatrial_core::stop::StopSignal;
use seatrial_core::transport::http::{Http, HttpOptions};
use seatrial_core::transport::options::Options;
use seatrial_core::transport::socket::{Routes, SocketTransport};
use seatrial_core::transport::stamps::Stamping;
use seatrial_core::transport::target::{SocketTarget, Target};
use seatrial_core::transport::{CloseCause, Event, Request, Transport};
use seatrial_core::units::Nanos;
use support::{SECOND, fake, outcomes, plan, run};

const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CUT: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nhalf of it";

/// What is told of a connection whose server says this and is gone before the next request.
fn told_after(answer: &[u8]) -> Vec<Event> {
    let name = format!("seatrial-endings-{}-{}", std::process::id(), answer.len());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let routes = Routes {
        targets: vec![SocketTarget::Unix(path.clone())],
        thread: Share {
            member: 0,
            members: 1,
        },
        connections: 1,
    };
    let http = Http::new(
        HttpOptions::read(&Options::new()).unwrap(),
        &["a".to_owned()],
    );
    let stop = Arc::new(StopSignal::new().unwrap());
    let mut transport =
        SocketTransport::new(routes, Stamping::default(), http, MonotonicClock, stop).unwrap();
    let mut events = Vec::new();
    transport.connect(0, &mut events);
    assert_eq!(events, [Event::Connected { connection: 0 }]);
    events.clear();
    let mut send = |transport: &mut SocketTransport<_, _>, request_id| {
        let request = Request {
            request_id,
            demand: Nanos::ZERO,
        };
        transport.send(0, &request);
        transport.flush(0, &mut events);
    };
    send(&mut transport, 0);
    let (mut server, _) = listener.accept().unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(server.read(&mut [0; 1_024]).unwrap() > 0);
    server.write_all(answer).unwrap();
    drop(server);
    send(&mut transport, 1);
    while !matches!(events.last(), Some(Event::Closed { .. })) {
        let until = MonotonicClock.now().later_by(Nanos::new(SECOND));
        transport.wait(until, &mut events).unwrap();
    }
    events
}

#[test]
fn replies_that_came_before_a_write_failed_are_given() {
    let events = told_after(&[WHOLE, WHOLE].concat());
    let replies = events
        .iter()
        .filter(|event| matches!(event, Event::Reply { .. }));
    assert_eq!(replies.count(), 2, "{events:?}");
    let Some(Event::Closed { cause, .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(*cause, CloseCause::Reset);
}

#[test]
fn a_body_until_the_end_is_not_whole_when_the_connection_was_cut() {
    let events = told_after(CUT);
    let [Event::Closed { cause, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(*cause, CloseCause::Reset);
}

/// Answers so many requests of a connection and closes it, as it says with the last one.
fn serve_some(stream: &TcpStream, count: usize) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    for number in 1..=count {
        // A request without a body ends with an empty line.
        if !lines.by_ref().any(|line| line.is_empty()) {
            return;
        }
        let close = if number == count {
            "Connection: close\r\n"
        } else {
            ""
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 2\r\n\r\nok");
        let _ = { stream }.write_all(answer.as_bytes());
    }
    // What was read ahead must not turn the end into a reset before the client has seen the replies.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    lines.by_ref().for_each(drop);
}

/// A closed loop of eight pipelined requests against a server that answers so many a connection, and
/// accepts so many connections.
fn pipelined(answers: usize, connections: usize, request_timeout: Nanos) -> LoadPlan {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut listener = Some(listener);
        for number in 1..=connections {
            let Some((stream, _)) = listener.as_ref().and_then(|open| open.accept().ok()) else {
                return;
            };
            // Nobody listens any more from the last one on.
            listener = listener.filter(|_| number < connections);
            serve_some(&stream, answers);
        }
    });
    LoadPlan {
        targets: vec![Target::parse(&address).unwrap()],
        targets_text: vec![address],
        protocol: ProtocolKind::Http,
        depth: 8,
        requests_max: 100,
        measure: Nanos::new(20 * SECOND),
        drain: Nanos::new(10 * SECOND),
        request_timeout,
        ..plan(fake())
    }
}

#[test]
fn requests_behind_the_last_reply_of_a_connection_are_sent_on_the_next_one() {
    let result = run(&pipelined(5, usize::MAX, Nanos::new(10 * SECOND)));
    assert_eq!(outcomes(&result, Outcome::Ok), 100, "{:?}", result.failures);
    let sent: u64 = result.intervals.iter().map(|each| each.sent_count).sum();
    assert_eq!((result.counters.sent_count, sent), (100, 100));
    // Each connection ends with three requests or more that it does not serve, the last ones with
    // fewer; with eight where its replies came one by one, and each made room for another request.
    assert!(result.resent_count > 40, "{}", result.resent_count);
    assert!(
        result.resent_count <= 8 * 20,
        "more than were left: {}",
        result.resent_count
    );
}

#[test]
fn requests_that_nobody_serves_before_their_deadline_time_out() {
    let plan = LoadPlan {
        measure: Nanos::new(SECOND),
        ..pipelined(5, 1, Nanos::new(SECOND / 5))
    };
    let result = run(&plan);
    assert_eq!(outcomes(&result, Outcome::Ok), 5);
    let [failure] = result.failures.as_slice() else {
        panic!("{:?}", result.failures);
    };
    assert_eq!(failure.outcome, Outcome::Timeout);
    assert!(failure.text.contains("not served by a connection that"));
    // As many as were behind the last reply, whether they were there before it or came then.
    let rest = result.counters.intended_count - 5;
    assert!((3..=8).contains(&rest), "{rest}");
    assert_eq!((failure.count, result.counters.timeout_count), (rest, rest));
    assert_eq!(result.resent_count, 0);
}
