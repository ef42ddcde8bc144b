//! The engine against a real UDP server on loopback: what happens, never how fast.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use seatrial_core::engine::LoadPlan;
use seatrial_core::engine::plan::ProtocolKind;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use support::datagrams::{DatagramServer, echo, rpc};
use support::{MILLISECOND, SECOND, run};

/// A closed loop of 200 echoes on one connection, with a time limit that is never reached.
fn plan(server: &DatagramServer) -> LoadPlan {
    LoadPlan {
        targets: vec![Target::parse(&server.target).unwrap()],
        targets_text: vec![server.target.clone()],
        protocol: ProtocolKind::Echo,
        payload_bytes: 64,
        measure: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        requests_max: 200,
        ..support::plan(support::fake())
    }
}

#[test]
fn every_datagram_is_answered_whatever_the_protocol_and_the_depth() {
    let echoes = DatagramServer::new(echo);
    let rpcs = DatagramServer::new(rpc);
    let in_parallel = |plan| LoadPlan {
        connections: 3,
        threads: 2,
        // As many as the server's socket surely has room for.
        depth: 8,
        ..plan
    };
    let as_rpc = LoadPlan {
        protocol: ProtocolKind::Rpc,
        payload_bytes: 1_000,
        ..plan(&rpcs)
    };
    let plans = [
        plan(&echoes),
        in_parallel(plan(&echoes)),
        as_rpc.clone(),
        in_parallel(as_rpc),
    ];
    for plan in plans {
        let result = run(&plan);
        assert_eq!(result.counters.ok_count, 200, "{:?}", result.counters);
        assert_eq!(result.counters.sent_count, 200);
    }
}

/// Answers nothing that fits: cut short, or with more than the reply, by turns.
fn wrong_length(datagram: &[u8], number: u64) -> Vec<Vec<u8>> {
    let longer = [datagram, b"more"].concat();
    match number {
        0 => vec![datagram[..60].to_vec()],
        1 => vec![longer],
        _ => vec![datagram.to_vec()],
    }
}

#[test]
fn a_datagram_that_is_no_reply_is_a_protocol_error() {
    let server = DatagramServer::new(wrong_length);
    let result = run(&plan(&server));
    assert_eq!(result.counters.protocol_error_count, 2);
    assert_eq!(result.counters.ok_count, 198);
}

#[test]
fn nobody_listening_fails_requests_and_not_the_run() {
    let server = DatagramServer::new(echo);
    let plan = LoadPlan {
        measure: Nanos::new(50 * MILLISECOND),
        ..plan(&server)
    };
    drop(server);
    let counters = run(&plan).counters;
    assert_eq!(counters.ok_count, 0);
    assert!(counters.error_count() > 0, "{counters:?}");
    assert_eq!(counters.timeout_count, 0, "the host said so: {counters:?}");
}

#[test]
fn what_does_not_fit_into_a_datagram_is_refused() {
    let server = DatagramServer::new(echo);
    for payload_bytes in [7, 65_508] {
        let plan = LoadPlan {
            payload_bytes,
            ..plan(&server)
        };
        let told = plan.validate().unwrap_err();
        assert_eq!(told.code(), "invalid-plan");
        assert!(told.to_string().contains("payload_bytes"), "{told}");
    }
}
