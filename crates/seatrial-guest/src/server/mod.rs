//! The server that load is offered to: one acceptor a listener, N workers.
//!
//! Connections are dealt to the workers in turn. A worker is one epoll loop
//! which handles one request after another, so that one worker is one queue with
//! one server, which is what queueing formulas are about.
//!
//! What is spoken is a [`Service`]: it turns bytes into bytes and knows nothing
//! of sockets. A worker serves whatever one read brought and sends the replies
//! with one write, except that no reply waits for a request that takes time.
//!
//! Everything is bounded: connections ([`CONNECTIONS_MAX`]), a request (by its
//! protocol), and what half-received requests and untaken replies of all
//! connections together may hold ([`HELD_BYTES_MAX`]). A peer that does not read
//! is not read from.

mod connection;
mod datagram;
mod echo;
mod grpc;
mod http;
mod listen;
mod report;
mod rpc;
mod service;
mod stats;
mod work;
mod worker;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::GuestError;
use datagram::{DatagramPort, Loss};
use listen::Bound;
pub use listen::LISTENERS_MAX;
use service::Service;
use stats::Stats;

/// Most connections at a time; further ones are closed as soon as they are accepted.
const CONNECTIONS_MAX: usize = 10_000;

/// Most bytes that all connections may hold for requests not whole and replies not taken.
const HELD_BYTES_MAX: usize = 256 << 20;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes go back as they came.
    Echo,
    /// `seatrial_core::wire`.
    Rpc,
    /// Unary calls over HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

impl Protocol {
    /// Whether a datagram can be a request.
    pub const fn has_datagrams(self) -> bool {
        matches!(self, Self::Echo | Self::Rpc)
    }

    /// Its name on the command line and in reports.
    const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Rpc => "rpc",
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }

    /// The operations that it tells apart, by the numbers under which they are counted.
    const fn operations(self) -> &'static [&'static str] {
        match self {
            Self::Echo => echo::OPERATIONS,
            Self::Rpc => rpc::OPERATIONS,
            Self::Grpc => grpc::OPERATIONS,
            Self::Http => http::OPERATIONS,
        }
    }

    /// The service of a new connection with this number.
    fn service(self, seed: u64, connection: u64) -> Box<dyn Service> {
        match self {
            Self::Echo => Box::new(echo::Echo),
            Self::Rpc => Box::new(rpc::Rpc::new(seed, connection)),
            Self::Grpc => Box::new(grpc::Grpc::new(seed, connection)),
            Self::Http => Box::new(http::Http::new()),
        }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port, 0 for any.
    Tcp(SocketAddr),
    /// A path of a unix socket.
    Unix(String),
    /// An IP address and a port, 0 for any; datagrams.
    Udp(SocketAddr),
}

/// How to serve.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
    /// What is spoken.
    pub protocol: Protocol,
    /// Where to listen.
    pub listen: Vec<Address>,
    /// Number of workers.
    pub workers: usize,
    /// What fresh payloads are made from.
    pub seed: u64,
    /// Share of datagrams that are lost on purpose, 0 to 1.
    pub drop_ratio: f64,
}

/// What acceptors and workers share.
#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    seed: u64,
    workers: Vec<Inbox>,
    ports: Vec<DatagramPort>,
    accepted_count: AtomicU64,
    refused_count: AtomicU64,
    open_count: AtomicUsize,
    held_bytes: AtomicUsize,
}

/// A worker's counters, its epoll, and the connections that it was dealt but has not seen yet.
///
/// The acceptor registers a connection itself; the worker takes it from here at
/// its first event. So dealing wakes nobody up without need.
#[derive(Debug)]
struct Inbox {
    stats: Stats,
    epoll: OwnedFd,
    sockets: Mutex<HashMap<u64, OwnedFd>>,
}

/// A server at work; it ends with the program.
#[derive(Debug)]
pub struct Server {
    /// The addresses as they were bound.
    pub endpoints: Vec<String>,
    shared: Arc<Shared>,
}

impl Server {
    /// What was counted so far, as JSON text.
    pub fn stats(&self) -> String {
        report::report(&self.shared).to_string()
    }
}

/// Listens and starts all threads.
pub fn start(options: &ServerOptions) -> Result<Server, GuestError> {
    raise_descriptor_limit();
    let mut listeners = Vec::new();
    let mut ports = Vec::new();
    let mut endpoints = Vec::new();
    for address in &options.listen {
        let endpoint = match listen::bind(address)? {
            Bound::Stream(listener, endpoint) => {
                listeners.push(listener);
                endpoint
            }
            Bound::Datagram(socket, endpoint) => {
                let loss = Loss::new(options.drop_ratio, options.seed);
                ports.push(DatagramPort { socket, loss });
                endpoint
            }
        };
        endpoints.push(endpoint);
    }
    let workers = (0..options.workers)
        .map(|_| Inbox::new(&ports))
        .collect::<Result<_, _>>()?;
    let shared = Arc::new(Shared {
        protocol: options.protocol,
        seed: options.seed,
        workers,
        ports,
        accepted_count: AtomicU64::new(0),
        refused_count: AtomicU64::new(0),
        open_count: AtomicUsize::new(0),
        held_bytes: AtomicUsize::new(0),
    });
    for index in 0..options.workers {
        let shared = Arc::clone(&shared);
        spawn("worker", move || worker::work(&shared, index))?;
    }
    for listener in listeners {
        let shared = Arc::clone(&shared);
        spawn("accept", move || listen::accept_all(&listener, &shared))?;
    }
    Ok(Server { endpoints, shared })
}

impl Inbox {
    fn new(ports: &[DatagramPort]) -> Result<Self, GuestError> {
        let failed = |errno| GuestError::System {
            what: "make an epoll",
            errno,
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        for (number, port) in ports.iter().enumerate() {
            datagram::watch(&epoll, port, number).map_err(failed)?;
        }
        Ok(Self {
            stats: Stats::default(),
            epoll,
            sockets: Mutex::new(HashMap::new()),
        })
    }

    /// The socket that was dealt under this number, once.
    fn take(&self, token: u64) -> Option<OwnedFd> {
        self.sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&token)
    }
}

/// Starts a thread; should it ever panic, the whole guest ends rather than half of it.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), GuestError> {
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            std::process::abort();
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .map(drop)
        .map_err(|error| {
            let errno =
                rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::AGAIN);
            GuestError::System {
                what: "start a thread",
                errno,
            }
        })
}

/// Lets the soft limit of open files reach the hard one; many connections need it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A sandbox that forbids this only serves fewer connections.
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }
}
