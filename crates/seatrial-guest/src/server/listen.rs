//! Listening sockets and the acceptors that deal connections to the workers.

use std::ffi::CString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::epoll;
use rustix::fs::{FileType, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind as bind_socket,
    connect, getsockname, listen, socket_with, sockopt,
};

use super::{Address, CONNECTIONS_MAX, Shared};
use crate::error::GuestError;
use crate::sys::{RemovedOnExit, remove_on_exit};

/// Connections that wait for being accepted; the kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;

/// What may wait in a UDP socket, if the kernel allows it.
const DATAGRAM_BUFFER_BYTES: usize = 4 << 20;

/// Most addresses a server listens on.
pub const LISTENERS_MAX: usize = 64;

/// How long an acceptor waits when the process or the system has no descriptor left.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(10);

/// Numbers connections over all acceptors; a number is never used again.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// A socket that listens.
pub struct Listener {
    socket: OwnedFd,
    is_tcp: bool,
    _removed: Option<RemovedOnExit>,
}

/// A bound socket and its address, as `tcp:IP:PORT`, `unix:/path` or `udp:IP:PORT`.
pub enum Bound {
    /// It is connected to.
    Stream(Listener, String),
    /// It gets datagrams.
    Datagram(OwnedFd, String),
}

/// Makes the socket of an address.
pub fn bind(address: &Address) -> Result<Bound, GuestError> {
    let (bound, address) = match address {
        Address::Tcp(address) => (bind_tcp(*address), format!("tcp:{address}")),
        Address::Unix(path) => (bind_unix(path), format!("unix:{path}")),
        Address::Udp(address) => (bind_udp(*address), format!("udp:{address}")),
    };
    bound.map_err(|errno| GuestError::Listen { address, errno })
}

fn bind_tcp(address: SocketAddr) -> Result<Bound, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(family_of(address), SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind_socket(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    let endpoint = format!("tcp:{}", bound_address(&socket)?);
    let listener = Listener {
        socket,
        is_tcp: true,
        _removed: None,
    };
    Ok(Bound::Stream(listener, endpoint))
}

fn bind_udp(address: SocketAddr) -> Result<Bound, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family_of(address), SocketType::DGRAM, flags, None)?;
    // A burst should not be lost for want of room; what cannot be had stays as it was.
    if sockopt::set_socket_recv_buffer_size_force(&socket, DATAGRAM_BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, DATAGRAM_BUFFER_BYTES);
    }
    bind_socket(&socket, &address)?;
    let endpoint = format!("udp:{}", bound_address(&socket)?);
    Ok(Bound::Datagram(socket, endpoint))
}

const fn family_of(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}

fn bound_address(socket: &OwnedFd) -> Result<SocketAddr, Errno> {
    let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Ok(SocketAddr::try_from(getsockname(socket)?).unwrap_or(fallback))
}

fn bind_unix(path: &str) -> Result<Bound, Errno> {
    let name = CString::new(path).map_err(|_| Errno::INVAL)?;
    let address = SocketAddrUnix::new(name.as_c_str())?;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match bind_socket(&socket, &address) {
        Err(Errno::ADDRINUSE) if is_abandoned(&name, &address) => {
            unlink(name.as_c_str())?;
            bind_socket(&socket, &address)?;
        }
        bound => bound?,
    }
    let removed = Some(remove_on_exit(name));
    listen(&socket, BACKLOG)?;
    let listener = Listener {
        socket,
        is_tcp: false,
        _removed: removed,
    };
    Ok(Bound::Stream(listener, format!("unix:{path}")))
}

/// Whether a path is a socket on which nobody listens any more.
fn is_abandoned(name: &CString, address: &SocketAddrUnix) -> bool {
    let Ok(status) = lstat(name.as_c_str()) else {
        return false;
    };
    if FileType::from_raw_mode(status.st_mode) != FileType::Socket {
        return false;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .is_ok_and(|probe| connect(&probe, address) == Err(Errno::CONNREFUSED))
}

/// Accepts for ever.
pub fn accept_all(listener: &Listener, shared: &Shared) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        match accept_with(&listener.socket, flags) {
            Ok(socket) => deal(socket, listener.is_tcp, shared),
            // The listener itself is gone; nothing else can end this loop.
            Err(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => return,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                std::thread::sleep(EXHAUSTED_WAIT);
            }
            Err(_) => {} // an error of that connection: it was aborted, or its network went
        }
    }
}

/// Gives a connection to the worker whose turn it is.
fn deal(socket: OwnedFd, is_tcp: bool, shared: &Shared) {
    if is_tcp {
        // Small replies go out at once; a kernel that cannot is slower, not wrong.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
    }
    if shared.open_count.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        shared.open_count.fetch_sub(1, Ordering::Relaxed);
        shared.refused_count.fetch_add(1, Ordering::Relaxed);
        return; // dropping the socket closes it
    }
    let token = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let count = shared.workers.len() as u64;
    let turn = usize::try_from(token % count).unwrap_or(0);
    let inbox = &shared.workers[turn];
    // Locked until it is registered: the worker's first event finds the socket here.
    let mut sockets = inbox.sockets.lock().unwrap_or_else(PoisonError::into_inner);
    let data = epoll::EventData::new_u64(token);
    if epoll::add(&inbox.epoll, &socket, data, epoll::EventFlags::IN).is_err() {
        shared.open_count.fetch_sub(1, Ordering::Relaxed);
        shared.refused_count.fetch_add(1, Ordering::Relaxed);
        return;
    }
    shared.accepted_count.fetch_add(1, Ordering::Relaxed);
    sockets.insert(token, socket);
}
