//! TLS around any protocol: what it says is encrypted, what it reads is decrypted and checked.
//!
//! The handshake is part of making the connection, not of any request. A connection that ends
//! without the peer's `close_notify` was cut, so it never completes a reply.

mod setup;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::{CertificateError, ClientConnection};

pub use self::setup::{PREFIX, TlsSetup};
use super::{DecodeError, Decoded, Protocol, ReplyOrder, Request};
use crate::units::Nanos;

/// A protocol inside of TLS.
#[derive(Clone, Debug)]
pub struct Tls<P> {
    inner: P,
    setup: TlsSetup,
    /// Addresses of the targets; connection `i` goes to number `i mod addresses`.
    addresses: Vec<IpAddr>,
    /// What the inner protocol wants to say, until it is encrypted.
    plain: Vec<u8>,
}

impl<P> Tls<P> {
    /// The protocol, for servers at these addresses; there is at least one.
    #[must_use]
    pub const fn new(inner: P, setup: TlsSetup, addresses: Vec<IpAddr>) -> Self {
        Self {
            inner,
            setup,
            addresses,
            plain: Vec::new(),
        }
    }
}

/// What one connection remembers.
#[derive(Debug)]
pub struct TlsState<S> {
    inner: S,
    /// Why there is none, if there is none.
    session: Result<ClientConnection, Box<str>>,
    /// Whether the handshake is over and the inner protocol has greeted.
    is_open: bool,
    /// Whether the peer has said that it will send nothing more.
    is_closed: bool,
    /// Decrypted bytes that the inner protocol has not taken yet, from `plain_start` on.
    plain: Vec<u8>,
    plain_start: usize,
    read_at: Nanos,
    /// When the first decrypted byte since the last reply was read.
    first_byte_at: Option<Nanos>,
    /// The same of the reply that was just told.
    told_first_byte_at: Option<Nanos>,
}

impl<S> TlsState<S> {
    fn has_plain(&self) -> bool {
        self.plain_start < self.plain.len()
    }

    fn session(&mut self) -> Result<&mut ClientConnection, DecodeError> {
        self.session
            .as_mut()
            .map_err(|reason| DecodeError::Broken(reason.clone()))
    }

    /// Takes some encrypted bytes, and keeps what they mean.
    fn decrypt(&mut self, bytes: &mut &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.plain.clear();
        self.plain_start = 0;
        let session = self
            .session
            .as_mut()
            .map_err(|reason| DecodeError::Broken(reason.clone()))?;
        session
            .read_tls(bytes)
            .map_err(|error| broken(format!("TLS: {error}")))?;
        let io = match session.process_new_packets() {
            Ok(io) => io,
            Err(error) => {
                drop(flush(session, out)); // the alert that tells the peer why
                return Err(explained(&error));
            }
        };
        let length = io.plaintext_bytes_to_read();
        if length > 0 {
            self.plain.resize(length, 0);
            let read = session.reader().read_exact(&mut self.plain);
            read.map_err(|error| broken(format!("TLS: {error}")))?;
            let _ = self.first_byte_at.get_or_insert(self.read_at);
        }
        self.is_closed |= io.peer_has_closed();
        flush(session, out)
    }
}

impl<P: Protocol> Tls<P> {
    /// Lets the inner protocol look at decrypted bytes; `None` when it took all of them and tells nothing.
    fn decode_plain(
        &mut self,
        state: &mut TlsState<P::State>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Decoded>, DecodeError> {
        let mut rest = &state.plain[state.plain_start..];
        let decoded = self
            .inner
            .decode(&mut state.inner, &mut rest, &mut self.plain)?;
        state.plain_start = state.plain.len() - rest.len();
        self.encrypt(state, out)?;
        if matches!(decoded, Decoded::Reply(_)) {
            state.told_first_byte_at = state.first_byte_at.take();
            state.first_byte_at = state.has_plain().then_some(state.read_at);
        }
        Ok(Some(decoded).filter(|decoded| *decoded != Decoded::More))
    }

    /// Encrypts what the inner protocol wants to say.
    fn encrypt(
        &mut self,
        state: &mut TlsState<P::State>,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let session = state.session()?;
        let written = session.writer().write_all(&self.plain);
        self.plain.clear();
        written.map_err(|error| broken(format!("TLS: {error}")))?;
        flush(session, out)
    }

    /// The handshake is over: lets the inner protocol greet, and says whether requests may follow.
    fn open_inner(
        &mut self,
        state: &mut TlsState<P::State>,
        out: &mut Vec<u8>,
    ) -> Result<bool, DecodeError> {
        state.is_open = true;
        let is_ready = self.inner.greet(&mut state.inner, &mut self.plain)?;
        self.encrypt(state, out)?;
        Ok(is_ready)
    }
}

impl<P: Protocol> Protocol for Tls<P> {
    type State = TlsState<P::State>;

    fn order(&self) -> ReplyOrder {
        self.inner.order()
    }

    fn open(&self, connection: u32) -> Self::State {
        let address = self.addresses[connection as usize % self.addresses.len()];
        let name = self.setup.name_of(address);
        let session = ClientConnection::new(Arc::clone(&self.setup.config), name);
        let session = session.map(|mut session| {
            session.set_buffer_limit(None); // requests may be larger than the 64 KiB that it allows for
            session
        });
        TlsState {
            inner: self.inner.open(connection),
            session: session.map_err(|error| format!("TLS: {error}").into()),
            is_open: false,
            is_closed: false,
            plain: Vec::new(),
            plain_start: 0,
            read_at: Nanos::ZERO,
            first_byte_at: None,
            told_first_byte_at: None,
        }
    }

    fn greet(&mut self, state: &mut Self::State, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        flush(state.session()?, out)?;
        Ok(false)
    }

    fn encode(&mut self, state: &mut Self::State, request: &Request, out: &mut Vec<u8>) {
        self.inner
            .encode(&mut state.inner, request, &mut self.plain);
        if let Err(error) = self.encrypt(state, out) {
            // The next bytes that come are answered with the reason.
            state.session = Err(error.to_string().into());
        }
    }

    fn decode(
        &mut self,
        state: &mut Self::State,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Decoded, DecodeError> {
        loop {
            while state.has_plain() || self.inner.holds_back(&state.inner) {
                if let Some(decoded) = self.decode_plain(state, out)? {
                    return Ok(decoded);
                }
            }
            if state.is_closed {
                *bytes = &[]; // nothing that follows is from the peer
                let reply = self.inner.end(&mut state.inner);
                state.told_first_byte_at = state.first_byte_at.take();
                return Ok(reply.map_or(Decoded::More, Decoded::Reply));
            }
            if bytes.is_empty() {
                return Ok(Decoded::More);
            }
            state.decrypt(bytes, out)?;
            let is_open = !state.session()?.is_handshaking();
            if is_open && !state.is_open && self.open_inner(state, out)? {
                return Ok(Decoded::Ready);
            }
        }
    }

    fn abandon(&mut self, state: &mut Self::State, request_id: u64, out: &mut Vec<u8>) {
        self.inner
            .abandon(&mut state.inner, request_id, &mut self.plain);
        if let Err(error) = self.encrypt(state, out) {
            state.session = Err(error.to_string().into());
        }
    }

    fn note_read(&mut self, state: &mut Self::State, read_at: Nanos) {
        state.read_at = read_at;
        self.inner.note_read(&mut state.inner, read_at);
    }

    fn first_byte_at(&self, state: &Self::State) -> Option<Nanos> {
        // Not the first encrypted byte: that may be of a session ticket, which answers nothing.
        self.inner
            .first_byte_at(&state.inner)
            .or(state.told_first_byte_at)
    }

    fn is_spent(&self, state: &Self::State) -> bool {
        state.is_closed || self.inner.is_spent(&state.inner)
    }

    fn has_served_all(&self, state: &Self::State) -> bool {
        // The end of TLS alone says nothing about requests.
        self.inner.is_spent(&state.inner) && self.inner.has_served_all(&state.inner)
    }

    fn take_unserved(&mut self, state: &mut Self::State, unserved: &mut Vec<u64>) {
        self.inner.take_unserved(&mut state.inner, unserved);
    }

    fn holds_back(&self, state: &Self::State) -> bool {
        state.has_plain() || self.inner.holds_back(&state.inner)
    }

    fn held_back_count(&self) -> u64 {
        self.inner.held_back_count()
    }
}

/// Appends what the session wants to send.
fn flush(session: &mut ClientConnection, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    while session.wants_write() {
        session
            .write_tls(out)
            .map_err(|error| broken(format!("TLS: {error}")))?;
    }
    Ok(())
}

fn broken(text: String) -> DecodeError {
    DecodeError::Broken(text.into())
}

/// What went wrong, and what to do about it.
fn explained(error: &rustls::Error) -> DecodeError {
    use rustls::Error;
    let advice = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "; name the PEM file of the CA in tls_ca, or accept anybody with tls_insecure=true"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "; name the host that it is for in tls_server_name",
        Error::InvalidMessage(_) => "; does the server speak TLS on this port?",
        _ => "",
    };
    broken(format!("TLS: {error}{advice}"))
}
