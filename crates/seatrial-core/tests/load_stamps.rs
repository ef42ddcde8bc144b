//! Time stamps of the kernel on loopback: what they say fits what the engine itself saw.
#![allow(clippy::unwrap_used)] // tests fail by panic

mod support;

use seatrial_core::engine::plan::ProtocolKind;
use seatrial_core::engine::{LoadPlan, LoadResult};
use seatrial_core::record::RecordColumns;
use seatrial_core::transport::stamps::{StampSource, Stamping};
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use seatrial_core::wire::Operation;
use support::datagrams::{self, DatagramServer};
use support::server::{self, Server};
use support::{SECOND, run};

const REQUESTS: u64 = 3_000;

fn plan(target: &str, source: StampSource) -> LoadPlan {
    LoadPlan {
        targets: vec![Target::parse(target).unwrap()],
        targets_text: vec![target.to_owned()],
        protocol: ProtocolKind::Echo,
        payload_bytes: 64,
        measure: Nanos::new(60 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        drain: Nanos::new(60 * SECOND),
        requests_max: REQUESTS,
        stamping: Stamping { source, every: 1 },
        ..support::plan(support::fake())
    }
}

/// Rows with both stamps, after a look at each of them.
fn check_rows(records: &RecordColumns, uncertainty: i64) -> u64 {
    let mut matched = 0;
    for index in 0..records.len() {
        let (sent, received) = (&records.kernel_sent_at_ns, &records.kernel_received_at_ns);
        if !sent.is_known(index) || !received.is_known(index) {
            continue;
        }
        matched += 1;
        let (sent, received) = (sent.values[index], received.values[index]);
        let own_sent = records.sent_at_ns.values[index];
        let own_done = records.done_at_ns.values[index];
        assert!(own_sent <= sent + uncertainty, "left before it was sent");
        assert!(sent <= received, "came before it left");
        assert!(received <= own_done, "read before it came");
        assert!(received - sent <= own_done - own_sent, "longer than ours");
    }
    matched
}

/// Nearly all replies are matched, and each stamp lies between our own instants.
fn check(result: &LoadResult) {
    assert_eq!(result.counters.ok_count, REQUESTS, "{:?}", result.counters);
    let stamps = &result.stamps;
    assert_eq!((stamps.used, &stamps.reason), (StampSource::Kernel, &None));
    let uncertainty = stamps.clock_uncertainty.as_i64();
    let rows: u64 = result
        .records
        .iter()
        .map(|records| check_rows(records, uncertainty))
        .sum();
    assert_eq!(rows, stamps.matched_count);
    assert_eq!(stamps.matched_count + stamps.missing_count, REQUESTS);
    // The kernel begins to stamp a little after it was asked to.
    assert!(stamps.matched_count > REQUESTS / 2, "{stamps:?}");
    assert_eq!(result.wire.count(), stamps.matched_count);
    assert_eq!(result.wake.count(), stamps.matched_count);
    assert!(result.wire.max().unwrap() <= result.service.max().unwrap());
}

#[test]
fn kernel_stamps_over_tcp_lie_between_our_own() {
    let echoes = Server::tcp(server::echo);
    check(&run(&plan(&echoes.target, StampSource::Kernel)));
    let parallel = LoadPlan {
        connections: 3,
        threads: 2,
        depth: 8,
        ..plan(&echoes.target, StampSource::Kernel)
    };
    check(&run(&parallel));
    let rpcs = Server::tcp(server::rpc);
    let large = LoadPlan {
        protocol: ProtocolKind::Rpc,
        operation: Operation::Empty,
        payload_bytes: 4_000,
        depth: 4,
        ..plan(&rpcs.target, StampSource::Kernel)
    };
    check(&run(&large));
}

#[test]
fn kernel_stamps_over_udp_lie_between_our_own() {
    let echoes = DatagramServer::new(datagrams::echo);
    check(&run(&plan(&echoes.target, StampSource::Kernel)));
    let parallel = LoadPlan {
        connections: 3,
        depth: 8,
        ..plan(&echoes.target, StampSource::Kernel)
    };
    check(&run(&parallel));
}

#[test]
fn a_part_of_the_requests_is_stamped_when_asked_so() {
    let server = Server::tcp(server::echo);
    let every_tenth = LoadPlan {
        stamping: Stamping {
            source: StampSource::Kernel,
            every: 10,
        },
        ..plan(&server.target, StampSource::Kernel)
    };
    let stamps = run(&every_tenth).stamps;
    let known = stamps.matched_count + stamps.missing_count;
    assert_eq!(known, REQUESTS / 10);
}

#[test]
fn what_cannot_be_had_falls_back_with_a_reason() {
    let tcp = Server::tcp(server::echo);
    let unix = Server::unix("stamps", server::echo);
    let rows = [
        (
            &tcp,
            StampSource::Hardware,
            StampSource::Kernel,
            "stamps no packets",
        ),
        (
            &unix,
            StampSource::Kernel,
            StampSource::User,
            "unix sockets",
        ),
        (
            &unix,
            StampSource::Hardware,
            StampSource::User,
            "unix sockets",
        ),
    ];
    for (server, requested, used, reason) in rows {
        let result = run(&plan(&server.target, requested));
        assert_eq!(result.counters.ok_count, REQUESTS);
        assert_eq!(
            (result.stamps.requested, result.stamps.used),
            (requested, used)
        );
        let told = result.stamps.reason.unwrap();
        assert!(told.contains(reason), "{told}");
    }
    let result = run(&LoadPlan {
        stamping: Stamping {
            source: StampSource::Kernel,
            every: 1,
        },
        requests_max: 5,
        ..support::plan(support::fake())
    });
    assert_eq!(result.stamps.used, StampSource::User);
    assert!(result.stamps.reason.unwrap().contains("modelled"));
}

#[test]
fn nothing_is_stamped_that_nobody_asked_for() {
    let server = Server::tcp(server::echo);
    let result = run(&plan(&server.target, StampSource::User));
    assert_eq!(result.stamps.reason, None);
    assert_eq!((result.stamps.matched_count, result.wire.count()), (0, 0));
    let mut known = result
        .records
        .iter()
        .flat_map(|records| &records.kernel_sent_at_ns.known);
    assert!(known.all(|bits| *bits == 0));
}
