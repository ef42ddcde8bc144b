//! Connections that end while requests are under way: what was answered counts as answered.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use seatrial_core::arrival::Share;
use seatrial_core::clock::{Clock, MonotonicClock};
use seatrial_core::stop::StopSignal;
use seatrial_core::transport::http::{Http, HttpOptions};
use seatrial_core::transport::options::Options;
use seatrial_core::transport::socket::{Routes, SocketTransport};
use seatrial_core::transport::stamps::Stamping;
use seatrial_core::transport::target::SocketTarget;
use seatrial_core::transport::{CloseCause, Event, Request, Transport};
use seatrial_core::units::Nanos;
use support::SECOND;

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
