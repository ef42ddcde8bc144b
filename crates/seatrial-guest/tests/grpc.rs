//! The guest's gRPC server under the load engine, and under clients and servers of others.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

#[path = "../../seatrial-core/tests/support/mod.rs"]
mod load;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use load::SECOND;
use seatrial_core::arrival::DemandLaw;
use seatrial_core::engine::LoadPlan;
use seatrial_core::engine::plan::ProtocolKind;
use seatrial_core::record::Outcome;
use seatrial_core::transport::options::Options;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use seatrial_core::wire::Operation;
use support::Guest;

/// A folder of its own for a test, removed with it.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("seatrial-grpc-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self { path }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).unwrap();
    }
}

/// A server that listens on TCP and on a unix socket.
struct Server {
    _guest: Guest,
    _folder: Folder,
    endpoints: Vec<String>,
}

impl Server {
    fn start(workers: usize) -> Self {
        let folder = Folder::new();
        let unix = format!("unix:{}", folder.path.join("grpc.sock").display());
        let workers = workers.to_string();
        let (guest, ready) = Guest::start_ready(&[
            "serve",
            "--protocol",
            "grpc",
            "--listen",
            "tcp:127.0.0.1:0",
            "--listen",
            &unix,
            "--workers",
            &workers,
        ]);
        let endpoints = ready.endpoints.iter();
        let endpoints = endpoints.map(|endpoint| endpoint.replacen(':', "://", 1));
        Self {
            endpoints: endpoints.collect(),
            _guest: guest,
            _folder: folder,
        }
    }
}

/// A closed loop of so many requests at once, until so many were made.
fn plan(target: &str, requests: u64, depth: u32) -> LoadPlan {
    LoadPlan {
        targets: vec![Target::parse(target).unwrap()],
        targets_text: vec![target.to_owned()],
        protocol: ProtocolKind::Grpc,
        depth,
        connections: 2,
        measure: Nanos::new(60 * SECOND),
        drain: Nanos::new(20 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        requests_max: requests,
        ..load::plan(load::fake())
    }
}

fn options(pairs: &[(&str, &str)]) -> Options {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn every_operation_is_served_over_tcp_and_unix() {
    let server = Server::start(2);
    let constant = DemandLaw::Constant(Nanos::new(50_000));
    for endpoint in &server.endpoints {
        for (operation, demand) in [
            (Operation::Empty, DemandLaw::None),
            (Operation::Checksum, DemandLaw::None),
            (Operation::Spin, constant),
            (Operation::SpinWall, constant),
            (Operation::Sleep, constant),
            (Operation::Touch, DemandLaw::None),
        ] {
            let payload_bytes = 100;
            let result = load::run(&LoadPlan {
                operation,
                demand,
                payload_bytes,
                ..plan(endpoint, 200, 8)
            });
            assert_eq!(
                load::outcomes(&result, Outcome::Ok),
                200,
                "{operation:?} on {endpoint}"
            );
        }
    }
}

#[test]
fn service_times_come_back() {
    let server = Server::start(1);
    let demand = Nanos::new(2_000_000);
    let result = load::run(&LoadPlan {
        operation: Operation::Sleep,
        demand: DemandLaw::Constant(demand),
        ..plan(&server.endpoints[0], 20, 4)
    });
    assert_eq!(load::outcomes(&result, Outcome::Ok), 20);
    let slept = i64::try_from(demand.get()).unwrap();
    for records in &result.records {
        let told = &records.server_service_ns.values;
        assert!(told.iter().all(|nanos| *nanos >= slept), "{told:?}");
    }
}

#[test]
fn large_messages_pass_the_windows_of_both_sides() {
    let server = Server::start(1);
    let result = load::run(&LoadPlan {
        operation: Operation::Checksum,
        payload_bytes: 1 << 20,
        options: options(&[("reply_bytes", "1048576")]),
        ..plan(&server.endpoints[0], 40, 8)
    });
    assert_eq!(load::outcomes(&result, Outcome::Ok), 40);
    let echoed = load::run(&LoadPlan {
        payload_bytes: 300_000,
        options: options(&[("method", "/a.B/Echo"), ("expect", "echo")]),
        ..plan(&server.endpoints[0], 40, 8)
    });
    assert_eq!(load::outcomes(&echoed, Outcome::Ok), 40);
}

#[test]
fn a_thousand_streams_at_once_are_all_answered() {
    let server = Server::start(1);
    let result = load::run(&LoadPlan {
        connections: 1,
        options: options(&[
            ("method", "/a.B/Echo"),
            ("message", "hi"),
            ("expect", "echo"),
        ]),
        ..plan(&server.endpoints[0], 5_000, 1_024)
    });
    assert_eq!(load::outcomes(&result, Outcome::Ok), 5_000);
}

#[test]
fn what_the_server_refuses_is_an_application_error() {
    let server = Server::start(1);
    let day = DemandLaw::Constant(Nanos::new(86_400 * SECOND));
    let result = load::run(&LoadPlan {
        operation: Operation::Sleep,
        demand: day,
        ..plan(&server.endpoints[0], 10, 2)
    });
    assert_eq!(load::outcomes(&result, Outcome::ApplicationError), 10);
}

/// h2load as an independent client: all of its calls succeed.
#[test]
fn h2load_finds_no_failure() {
    let Ok(version) = Command::new("h2load").arg("--version").output() else {
        eprintln!("skipped: h2load is missing (Debian package nghttp2-client)");
        return;
    };
    assert!(version.status.success());
    let server = Server::start(2);
    let folder = Folder::new();
    let body = folder.path.join("body");
    std::fs::write(&body, b"\0\0\0\0\x05hello").unwrap();
    let address = server.endpoints[0].strip_prefix("tcp://").unwrap();
    for (clients, streams) in [(1, 1), (4, 1), (4, 50)] {
        let done = Command::new("h2load")
            .args([
                "-n",
                "4000",
                "-c",
                &clients.to_string(),
                "-m",
                &streams.to_string(),
            ])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .arg("-d")
            .arg(&body)
            .arg(format!("http://{address}/any.Service/Echo"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        let expected = "4000 total, 4000 started, 4000 done, 4000 succeeded, 0 failed, 0 errored";
        assert!(told.contains(expected), "{told}");
        assert!(told.contains("4000 2xx"), "{told}");
    }
}
