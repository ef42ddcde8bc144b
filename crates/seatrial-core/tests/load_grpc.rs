//! gRPC load against an independent HTTP/2 implementation: the `h2` crate as a server.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::future::poll_fn;
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use seatrial_core::engine::plan::ProtocolKind;
use seatrial_core::engine::{LoadPlan, LoadResult};
use seatrial_core::record::Outcome;
use seatrial_core::transport::options::Options;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use support::{SECOND, fake, open, outcomes, plan, run};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How the server behaves.
#[derive(Clone)]
struct Manners {
    builder: Builder,
    /// Calls that have to be there before any is answered, the last one first.
    together: usize,
    /// Calls after which a connection is ended in an orderly way.
    calls_max: usize,
    /// Calls of a connection, the first ones, that are never answered.
    hanging: usize,
}

impl Manners {
    fn new() -> Self {
        Self {
            builder: Builder::new(),
            together: 1,
            calls_max: usize::MAX,
            hanging: 0,
        }
    }
}

/// A server on a thread of its own.
struct Server {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(manners: Manners) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let accepting = tokio::spawn(accept(listener, manners));
                let _ = stopped.await;
                accepting.abort();
            });
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn accept(listener: TcpListener, manners: Manners) {
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).unwrap();
        tokio::spawn(serve(socket, manners.clone()));
    }
}

type Call = (Request<RecvStream>, SendResponse<Bytes>);

async fn serve(socket: TcpStream, manners: Manners) {
    let Ok(mut connection) = manners.builder.handshake(socket).await else {
        return;
    };
    let (mut calls, mut count, mut hanging) = (Vec::new(), 0, Vec::new());
    while let Some(Ok(call)) = connection.accept().await {
        count += 1;
        if count <= manners.hanging {
            hanging.push(call);
            continue;
        }
        calls.push(call);
        if count == manners.calls_max {
            connection.graceful_shutdown();
        }
        if calls.len() >= manners.together {
            while let Some(call) = calls.pop() {
                tokio::spawn(answer(call));
            }
        }
    }
    finish(connection).await;
}

/// Lets what was answered go out.
async fn finish(mut connection: Connection<TcpStream, Bytes>) {
    let _ = poll_fn(|context| connection.poll_closed(context)).await;
}

/// Echoes; or fails as the path says.
async fn answer((mut request, mut respond): Call) {
    let mut message = BytesMut::new();
    while let Some(Ok(data)) = request.body_mut().data().await {
        let _ = request
            .body_mut()
            .flow_control()
            .release_capacity(data.len());
        message.extend_from_slice(&data);
    }
    let path = request.uri().path().to_owned();
    if path == "/peer.Test/Reset" {
        respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        return;
    }
    let code = if path == "/peer.Test/Missing" {
        404
    } else {
        200
    };
    let head = Response::builder()
        .status(code)
        .header("content-type", "application/grpc")
        .header("x-authority", request.uri().authority().unwrap().as_str())
        .body(())
        .unwrap();
    let Ok(mut stream) = respond.send_response(head, code == 404) else {
        return;
    };
    if code == 404 {
        return;
    }
    let mut trailers = HeaderMap::new();
    if path == "/peer.Test/Fail" {
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("not%20here"));
    } else {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = stream.send_data(message.freeze(), false);
    }
    let _ = stream.send_trailers(trailers);
}

/// A closed loop of so many requests at once on one connection, until so many were made.
fn load(server: &Server, method: &str, requests: u64, depth: u32) -> LoadPlan {
    let pairs = [("method", method), ("expect", "echo")];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    LoadPlan {
        targets: vec![Target::parse(&server.address).unwrap()],
        targets_text: vec![server.address.clone()],
        protocol: ProtocolKind::Grpc,
        options: pairs.map(owned).into_iter().collect::<Options>(),
        payload_bytes: 64,
        depth,
        measure: Nanos::new(60 * SECOND),
        drain: Nanos::new(20 * SECOND),
        request_timeout: Nanos::new(60 * SECOND),
        requests_max: requests,
        ..plan(fake())
    }
}

fn assert_all_ok(result: &LoadResult, requests: usize) {
    assert_eq!(
        outcomes(result, Outcome::Ok),
        requests,
        "{:?}",
        result.failures
    );
}

const ECHO: &str = "/peer.Test/Echo";

#[test]
fn calls_are_answered_one_by_one_and_many_at_once() {
    let server = Server::start(Manners::new());
    for depth in [1, 32] {
        let result = run(&load(&server, ECHO, 2_000, depth));
        assert_all_ok(&result, 2_000);
    }
}

#[test]
fn replies_in_reverse_order_find_their_requests() {
    let server = Server::start(Manners {
        together: 8,
        ..Manners::new()
    });
    let result = run(&load(&server, ECHO, 800, 8));
    assert_all_ok(&result, 800);
}

#[test]
fn a_limit_of_streams_holds_requests_back_and_is_told() {
    let mut manners = Manners::new();
    manners.builder.max_concurrent_streams(3);
    let server = Server::start(manners);
    let result = run(&load(&server, ECHO, 500, 16));
    assert_all_ok(&result, 500);
    assert!(
        result.transport.held_back_count > 0,
        "{:?}",
        result.transport
    );
}

#[test]
fn small_windows_only_slow_down() {
    let mut manners = Manners::new();
    manners.builder.initial_window_size(10);
    let server = Server::start(manners);
    let mut load = load(&server, ECHO, 100, 4);
    load.payload_bytes = 5_000;
    assert_all_ok(&run(&load), 100);
}

#[test]
fn calls_that_are_never_answered_take_no_stream_from_others() {
    let server = Server::start(Manners {
        hanging: 5,
        ..Manners::new()
    });
    let plan = LoadPlan {
        request_timeout: Nanos::new(SECOND / 4),
        ..load(&server, ECHO, 20, 1)
    };
    let result = run(&plan);
    assert_eq!(
        outcomes(&result, Outcome::Timeout),
        5,
        "{:?}",
        result.failures
    );
    assert_eq!(outcomes(&result, Outcome::Ok), 15);
}

#[test]
fn failures_are_told_in_the_servers_words() {
    let server = Server::start(Manners::new());
    for (method, expected) in [
        ("/peer.Test/Fail", "grpc-status 5 (NOT_FOUND): not here"),
        ("/peer.Test/Missing", "HTTP status 404"),
        (
            "/peer.Test/Reset",
            "the server reset the stream: ENHANCE_YOUR_CALM",
        ),
    ] {
        let result = run(&load(&server, method, 20, 4));
        assert_eq!(outcomes(&result, Outcome::ApplicationError), 20);
        let told = format!("{:?}", result.failures);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_server_that_goes_away_is_connected_anew() {
    let server = Server::start(Manners {
        calls_max: 50,
        ..Manners::new()
    });
    for depth in [1, 16] {
        let result = run(&load(&server, ECHO, 300, depth));
        assert_all_ok(&result, 300);
        assert_eq!(result.counters.sent_count, 300);
    }
}

#[test]
fn an_open_loop_loses_nothing_to_servers_that_go_away() {
    let server = Server::start(Manners {
        calls_max: 20,
        ..Manners::new()
    });
    let plan = LoadPlan {
        arrival: open("poisson", 3_000.0),
        connections: 2,
        ..load(&server, ECHO, 900, 8)
    };
    let result = run(&plan);
    assert_all_ok(&result, 900);
    assert_eq!(result.counters.sent_count, 900);
}
