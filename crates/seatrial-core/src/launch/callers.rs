//! Guests that call by TCP, because their sandbox takes over no descriptor and shares no socket:
//! virtual machines behind a runtime that is not ours.
//!
//! Whoever reaches the address can call, so a caller is nobody until it has said the secret token
//! of a sandbox that is being started. It has a bounded time for that, is dropped at the first byte
//! that no token has, and delays nobody else. A token is good for one call.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt::{set_ip_freebind, set_ipv6_freebind, set_tcp_nodelay};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, accept_with, socket_with};

use super::reactor::{Alarm, Reactor, Source};
use crate::control::{TOKEN_BYTES, is_token_byte};

/// How long a caller may take to say its token: ten seconds.
pub const TOKEN_WAIT_NS: u64 = 10_000_000_000;

/// Most addresses at which one launcher listens.
pub const LISTENERS_MAX: usize = 8;

/// Most callers that have not said their token; then the oldest has to go.
const CALLERS_MAX: usize = 1024;

/// Most calls taken in one wake-up, so that a flood of them does not keep the loop from the rest.
const CALLS_AT_ONCE_MAX: usize = 256;

/// Calls that the system keeps for us until we take them; it may keep fewer.
const BACKLOG: i32 = 4096;

/// A call from the guest of a sandbox.
#[derive(Debug)]
pub struct Call {
    /// The sandbox.
    pub key: u64,
    /// The connection, right behind the token.
    pub fd: OwnedFd,
    /// The wake-up in which its first byte was there.
    pub heard_at_ns: u64,
}

/// Somebody who has not said a token yet.
#[derive(Debug)]
struct Caller {
    fd: OwnedFd,
    said: Vec<u8>,
    heard_at_ns: Option<u64>,
    until_ns: u64,
}

/// An address at which guests can call.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: IpAddr,
    /// Not while there is no descriptor left for a call.
    is_watched: bool,
}

/// Where guests call, whose calls are expected, and who has called.
#[derive(Debug, Default)]
pub struct Callers {
    /// Where the launcher's own descriptors are, out of the way of children.
    first_fd: RawFd,
    listeners: Vec<Listener>,
    /// The sandboxes that are expected to call, by their tokens. The map's keyed hash keeps the
    /// time of a look-up from telling how much of a guess was right.
    expected: HashMap<Vec<u8>, u64>,
    /// By the order of their calls, which is also that of the ends of their time.
    unknown: BTreeMap<u64, Caller>,
    calls_count: u64,
    has_alarm: bool,
}

impl Callers {
    /// Nobody listens yet; descriptors are numbered from `first_fd` on.
    #[must_use]
    pub fn new(first_fd: RawFd) -> Self {
        Self {
            first_fd,
            ..Self::default()
        }
    }

    /// Whether there is an address at which guests can call.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Listens at an address, which need not be the host's yet, on a port that the system
    /// chooses; gives the port, the same one for the same address.
    ///
    /// # Errors
    /// It is the address of all interfaces or of many hosts, there are [`LISTENERS_MAX`] already,
    /// or the system refused.
    pub fn listen(&mut self, address: IpAddr, reactor: &Reactor) -> io::Result<u16> {
        let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || is_broadcast {
            return Err(io::Error::other("expected an address of one interface"));
        }
        let known = self.listeners.iter().find(|one| one.address == address);
        if let Some(listener) = known {
            return Ok(listener.socket.local_addr()?.port());
        }
        if self.listeners.len() >= LISTENERS_MAX {
            let text = format!("already listening at {LISTENERS_MAX} addresses");
            return Err(io::Error::other(text));
        }
        let socket = self.bind(address)?;
        let port = socket.local_addr()?.port();
        reactor.watch(&socket, Source::Listener(self.listeners.len() as u64))?;
        self.listeners.push(Listener {
            socket,
            address,
            is_watched: true,
        });
        Ok(port)
    }

    fn bind(&self, address: IpAddr) -> io::Result<TcpListener> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        // The end of a pod's network on the host, and its address, come with the first pod.
        if address.is_ipv4() {
            set_ip_freebind(&socket, true)?;
        } else {
            set_ipv6_freebind(&socket, true)?;
        }
        rustix::net::bind(&socket, &SocketAddr::new(address, 0))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(fcntl_dupfd_cloexec(&socket, self.first_fd)?.into())
    }

    /// Expects the guest of a sandbox to call.
    ///
    /// # Errors
    /// The system refused to watch for calls again.
    pub fn expect(&mut self, token: &str, key: u64, reactor: &Reactor) -> io::Result<()> {
        self.expected.insert(token.as_bytes().to_vec(), key);
        for (index, listener) in (0_u64..).zip(&mut self.listeners) {
            if !listener.is_watched {
                reactor.watch(&listener.socket, Source::Listener(index))?;
                listener.is_watched = true;
            }
        }
        Ok(())
    }

    /// Whether the guest of a sandbox is still expected to call.
    #[must_use]
    pub fn expects(&self, key: u64) -> bool {
        self.expected.values().any(|expected| *expected == key)
    }

    /// Takes the calls at a listener.
    ///
    /// # Errors
    /// The system refused to watch a caller or to set the timer.
    pub fn answer(&mut self, index: u64, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        for _ in 0..CALLS_AT_ONCE_MAX {
            let Some(listener) = self.listeners.get_mut(place) else {
                return Ok(());
            };
            // Left blocking, as every channel is: whoever it is lent to says otherwise.
            match accept_with(&listener.socket, SocketFlags::CLOEXEC) {
                Ok(caller) => self.admit(&caller, now_ns, reactor)?,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    if self.unknown.pop_first().is_none() {
                        // It would wake us for ever; the next sandbox that is to call turns it on.
                        reactor.forget(&listener.socket);
                        listener.is_watched = false;
                        return Ok(());
                    }
                }
                // The call was lost before it was taken, by whatever trouble on its way.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn admit(&mut self, caller: &OwnedFd, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        if self.expected.is_empty() {
            return Ok(()); // nobody's call is of any use: it is closed
        }
        let Ok(fd) = fcntl_dupfd_cloexec(caller, self.first_fd) else {
            return Ok(()); // no number left for it
        };
        // Frames are small and each is waited for.
        let _ = set_tcp_nodelay(&fd, true);
        if self.unknown.len() >= CALLERS_MAX {
            self.unknown.pop_first();
        }
        let id = self.calls_count;
        self.calls_count += 1;
        reactor.watch(&fd, Source::Caller(id))?;
        let until_ns = now_ns.saturating_add(TOKEN_WAIT_NS);
        let caller = Caller {
            fd,
            said: Vec::with_capacity(TOKEN_BYTES),
            heard_at_ns: None,
            until_ns,
        };
        self.unknown.insert(id, caller);
        self.set_alarm(reactor)
    }

    /// Sets one timer, for the caller whose time ends first.
    fn set_alarm(&mut self, reactor: &mut Reactor) -> io::Result<()> {
        match self.unknown.first_key_value() {
            Some((_, oldest)) if !self.has_alarm => {
                self.has_alarm = true;
                reactor.set_alarm(oldest.until_ns, 0, Alarm::Caller)
            }
            _ => Ok(()),
        }
    }

    /// Drops those whose time is over.
    ///
    /// # Errors
    /// The system refused to set the next timer.
    pub fn on_alarm(&mut self, now_ns: u64, reactor: &mut Reactor) -> io::Result<()> {
        self.has_alarm = false;
        self.unknown.retain(|_, caller| caller.until_ns > now_ns);
        self.set_alarm(reactor)
    }

    /// Listens to a caller; gives its call when it has said a token that was expected. One that
    /// says anything else is dropped, and so is everybody else when nobody is expected any more.
    pub fn hear(&mut self, id: u64, now_ns: u64, reactor: &Reactor) -> Option<Call> {
        let caller = self.unknown.get_mut(&id)?;
        let key = match caller.listen(now_ns) {
            Heard::Part => return None,
            Heard::Token => self.expected.remove(&caller.said),
            Heard::Nonsense => None,
        };
        let caller = self.unknown.remove(&id)?;
        let call = Call {
            key: key?,
            heard_at_ns: caller.heard_at_ns.unwrap_or(now_ns),
            fd: caller.fd,
        };
        reactor.forget(&call.fd);
        if self.expected.is_empty() {
            self.unknown.clear();
        }
        Some(call)
    }

    /// Takes all calls and listens to all callers, before somebody's silence is held against it.
    ///
    /// # Errors
    /// The system refused to watch a caller or to set the timer.
    pub fn hear_all(&mut self, now_ns: u64, reactor: &mut Reactor) -> io::Result<Vec<Call>> {
        for index in 0..self.listeners.len() as u64 {
            self.answer(index, now_ns, reactor)?;
        }
        let ids: Vec<_> = self.unknown.keys().copied().collect();
        let calls = ids.into_iter();
        Ok(calls
            .filter_map(|id| self.hear(id, now_ns, reactor))
            .collect())
    }

    /// Expects nobody any more and drops whoever has called. The timer is the caller's to clear.
    pub fn dismiss(&mut self) {
        self.expected.clear();
        self.unknown.clear();
        self.has_alarm = false;
    }
}

/// What a caller has said.
enum Heard {
    /// Not enough to tell.
    Part,
    /// As much as a token.
    Token,
    /// What no token begins with, or the end.
    Nonsense,
}

impl Caller {
    /// Reads up to the end of the token and no further.
    fn listen(&mut self, now_ns: u64) -> Heard {
        let mut buffer = [0; TOKEN_BYTES];
        loop {
            let missing = TOKEN_BYTES - self.said.len();
            if missing == 0 {
                return Heard::Token;
            }
            let fd = self.fd.as_fd();
            match rustix::net::recv(fd, &mut buffer[..missing], RecvFlags::DONTWAIT) {
                Ok((length, _)) if length > 0 => {
                    let part = &buffer[..length];
                    self.heard_at_ns.get_or_insert(now_ns);
                    if !part.iter().copied().all(is_token_byte) {
                        return Heard::Nonsense;
                    }
                    self.said.extend_from_slice(part);
                }
                Err(Errno::AGAIN) => return Heard::Part,
                Err(Errno::INTR) => {}
                _ => return Heard::Nonsense,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    use super::*;
    use crate::launch::sys::now_ns;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    struct Exchange {
        callers: Callers,
        reactor: Reactor,
        port: u16,
    }

    impl Exchange {
        fn new(tokens: &[&str]) -> Self {
            let (mut callers, reactor) = (Callers::new(100), Reactor::new().unwrap());
            let port = callers.listen(LOCAL, &reactor).unwrap();
            for (key, token) in (1..).zip(tokens) {
                callers.expect(token, key, &reactor).unwrap();
            }
            Self {
                callers,
                reactor,
                port,
            }
        }

        fn call(&self) -> TcpStream {
            let stream = TcpStream::connect((LOCAL, self.port)).unwrap();
            stream
                .set_read_timeout(Some(std::time::Duration::from_secs(20)))
                .unwrap();
            stream
        }

        /// Handles wake-ups until a call has come, or until nobody is unknown any more.
        fn next(&mut self) -> Option<Call> {
            let mut sources = Vec::new();
            loop {
                let now_ns = self.reactor.wait(&mut sources).unwrap();
                for &source in &sources {
                    match source {
                        Source::Listener(index) => self
                            .callers
                            .answer(index, now_ns, &mut self.reactor)
                            .unwrap(),
                        Source::Caller(id) => {
                            if let Some(call) = self.callers.hear(id, now_ns, &self.reactor) {
                                return Some(call);
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
                if self.callers.unknown.is_empty() {
                    return None;
                }
            }
        }
    }

    fn token(digit: char) -> String {
        String::from(digit).repeat(TOKEN_BYTES)
    }

    /// Whether the other side has closed, with or without a reset.
    fn is_closed(mut stream: &TcpStream) -> bool {
        match stream.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    #[test]
    fn a_token_names_the_sandbox_and_is_spent() {
        let (one, two) = (token('a'), token('b'));
        let mut exchange = Exchange::new(&[&one, &two]);
        let before_ns = now_ns();
        let mut guest = exchange.call();
        guest.write_all(format!("{two}HELLO").as_bytes()).unwrap();
        let call = exchange.next().unwrap();
        assert_eq!(call.key, 2);
        assert!((before_ns..=now_ns()).contains(&call.heard_at_ns));
        assert!(exchange.callers.expects(1) && !exchange.callers.expects(2));
        // Not a byte behind the token was read.
        let mut rest = [0; 16];
        let (length, _) = rustix::net::recv(&call.fd, &mut rest, RecvFlags::empty()).unwrap();
        assert_eq!(&rest[..length], b"HELLO");
        // Somebody who has overheard it comes too late.
        let mut thief = exchange.call();
        thief.write_all(two.as_bytes()).unwrap();
        assert!(exchange.next().is_none());
        assert!(is_closed(&thief));
    }

    #[test]
    fn a_token_may_come_in_pieces() {
        let one = token('0');
        let mut exchange = Exchange::new(&[&one]);
        let mut guest = exchange.call();
        let mut now_ns = now_ns();
        exchange
            .callers
            .answer(0, now_ns, &mut exchange.reactor)
            .unwrap();
        for byte in one.bytes() {
            assert!(
                exchange
                    .callers
                    .hear(0, now_ns, &exchange.reactor)
                    .is_none()
            );
            guest.write_all(&[byte]).unwrap();
            now_ns += 1;
        }
        let first_ns = now_ns - one.len() as u64 + 1;
        let call = exchange.callers.hear(0, now_ns, &exchange.reactor).unwrap();
        assert!((first_ns..=now_ns).contains(&call.heard_at_ns));
    }

    #[test]
    fn wrong_garbled_and_silent_callers_are_dropped_without_harm() {
        let one = token('c');
        let mut exchange = Exchange::new(&[&one]);
        let (mut wrong, mut garbled, silent) = (exchange.call(), exchange.call(), exchange.call());
        wrong.write_all(token('d').as_bytes()).unwrap();
        garbled.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(exchange.call());
        let mut guest = exchange.call();
        guest.write_all(one.as_bytes()).unwrap();
        assert_eq!(exchange.next().unwrap().key, 1);
        // Nobody else is expected, so nobody is listened to.
        for other in [&wrong, &garbled, &silent] {
            assert!(is_closed(other));
        }
        let late = exchange.call();
        assert!(exchange.next().is_none());
        assert!(is_closed(&late));
    }

    #[test]
    fn a_caller_has_a_bounded_time_for_its_token() {
        let mut exchange = Exchange::new(&[&token('e')]);
        let slow = exchange.call();
        let now_ns = now_ns();
        let Exchange {
            callers, reactor, ..
        } = &mut exchange;
        callers.answer(0, now_ns, reactor).unwrap();
        callers
            .on_alarm(now_ns + TOKEN_WAIT_NS - 1, reactor)
            .unwrap();
        assert_eq!(callers.unknown.len(), 1);
        callers.on_alarm(now_ns + TOKEN_WAIT_NS, reactor).unwrap();
        assert!(callers.unknown.is_empty() && callers.expects(1));
        assert!(is_closed(&slow));
    }

    #[test]
    fn a_crowd_of_silent_callers_is_bounded_and_the_guest_gets_through() {
        let one = token('f');
        let mut exchange = Exchange::new(&[&one]);
        let mut crowd = Vec::new();
        for _ in 0..CALLERS_MAX + 10 {
            crowd.push(exchange.call());
            let now_ns = now_ns();
            exchange
                .callers
                .answer(0, now_ns, &mut exchange.reactor)
                .unwrap();
        }
        assert_eq!(exchange.callers.unknown.len(), CALLERS_MAX);
        assert!(is_closed(&crowd[0]));
        let mut guest = exchange.call();
        guest.write_all(one.as_bytes()).unwrap();
        let now_ns = now_ns();
        let calls = exchange
            .callers
            .hear_all(now_ns, &mut exchange.reactor)
            .unwrap();
        assert_eq!(calls.len(), 1);
    }

    #[test]
    fn an_address_has_one_port_and_there_are_few_addresses() {
        let mut exchange = Exchange::new(&[]);
        let Exchange {
            callers,
            reactor,
            port,
        } = &mut exchange;
        assert_eq!(callers.listen(LOCAL, reactor).unwrap(), *port);
        // Addresses that this machine does not have yet (TEST-NET-1).
        for last in 1..u8::try_from(LISTENERS_MAX).unwrap() {
            let address = Ipv4Addr::new(192, 0, 2, last).into();
            assert_ne!(callers.listen(address, reactor).unwrap(), 0);
        }
        for text in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255"] {
            let error = callers.listen(text.parse().unwrap(), reactor).unwrap_err();
            assert!(
                error.to_string().contains("one interface"),
                "{text}: {error}"
            );
        }
        let one_more = callers.listen(Ipv6Addr::LOCALHOST.into(), reactor);
        assert!(one_more.unwrap_err().to_string().contains("8 addresses"));
    }
}
