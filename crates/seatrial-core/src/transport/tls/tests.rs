//! TLS against a real server session in memory: what is trusted, what is told, and how it ends.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use super::*;
use crate::transport::Reply;
use crate::transport::fuzz::{self, cuts, damage};
use crate::transport::http::{Http, HttpOptions};
use crate::transport::options::Options;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

fn options(pairs: &[(&str, &str)]) -> Options {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn ca() -> String {
    format!("{DATA}tls-ca.pem")
}

fn client(pairs: &[(&str, &str)], address: IpAddr) -> Tls<Http> {
    let setup = TlsSetup::read(&options(pairs), &["http/1.1"]).unwrap();
    let http = Http::new(
        HttpOptions::read(&Options::new()).unwrap(),
        &["h".to_owned()],
    );
    Tls::new(http, setup, vec![address])
}

fn trusting() -> Tls<Http> {
    client(&[("tls_ca", &ca())], IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn server_config() -> Arc<ServerConfig> {
    server_config_of(rustls::DEFAULT_VERSIONS)
}

fn server_config_of(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(format!("{DATA}tls-server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{DATA}tls-server.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// One connection between a client and a server in memory.
struct Pair {
    tls: Tls<Http>,
    state: TlsState<<Http as Protocol>::State>,
    server: ServerConnection,
    to_server: Vec<u8>,
    now: u64,
}

impl Pair {
    fn new(mut tls: Tls<Http>, config: &Arc<ServerConfig>) -> Self {
        let mut state = tls.open(0);
        let mut to_server = Vec::new();
        assert_eq!(tls.greet(&mut state, &mut to_server), Ok(false));
        let server = ServerConnection::new(Arc::clone(config)).unwrap();
        Self {
            tls,
            state,
            server,
            to_server,
            now: 0,
        }
    }

    /// Lets the server read what was sent to it; what it has to send.
    fn exchange(&mut self) -> Vec<u8> {
        let mut bytes = self.to_server.as_slice();
        while !bytes.is_empty() {
            self.server.read_tls(&mut bytes).unwrap();
            drop(self.server.process_new_packets()); // a refusal shows on the client's side
        }
        self.to_server.clear();
        self.pull()
    }

    fn pull(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Gives the client these bytes in pieces; all that it tells.
    fn feed(&mut self, bytes: &[u8], cut: usize) -> Result<Vec<Decoded>, DecodeError> {
        let mut told = Vec::new();
        for mut piece in bytes.chunks(cut) {
            self.now += 1;
            self.tls.note_read(&mut self.state, Nanos::new(self.now));
            while !piece.is_empty() || self.tls.holds_back(&self.state) {
                let decoded = self
                    .tls
                    .decode(&mut self.state, &mut piece, &mut self.to_server)?;
                if decoded != Decoded::More {
                    told.push(decoded);
                }
            }
        }
        Ok(told)
    }

    /// Makes the handshake; whether it ended with the client ready.
    fn shake_hands(&mut self, cut: usize) -> Result<(), DecodeError> {
        let mut told = Vec::new();
        for _ in 0..4 {
            let bytes = self.exchange();
            told.extend(self.feed(&bytes, cut)?);
        }
        assert_eq!(told, [Decoded::Ready]);
        Ok(())
    }

    fn say(&mut self, text: &[u8]) -> Vec<u8> {
        self.server.writer().write_all(text).unwrap();
        self.pull()
    }
}

fn refusal(tls: Tls<Http>) -> String {
    let mut pair = Pair::new(tls, &server_config());
    pair.shake_hands(10_000).unwrap_err().to_string()
}

#[test]
fn requests_and_replies_pass_however_the_stream_is_cut() {
    for cut in [1, 7, 100, 100_000] {
        let mut pair = Pair::new(trusting(), &server_config());
        pair.shake_hands(cut).unwrap();
        assert_eq!(pair.server.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = Request {
            request_id: 1,
            demand: Nanos::ZERO,
        };
        pair.tls
            .encode(&mut pair.state, &request, &mut pair.to_server);
        assert!(!pair.to_server.windows(4).any(|bytes| bytes == b"HTTP"));
        assert!(pair.exchange().is_empty());
        let mut text = vec![0; 18 + 9];
        pair.server.reader().read_exact(&mut text).unwrap();
        assert_eq!(text, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..27]);
        // Three replies in one record are three replies.
        let bytes = pair.say(&REPLY.repeat(3));
        let told = pair.feed(&bytes, cut).unwrap();
        assert_eq!(
            told,
            vec![Decoded::Reply(Reply::default()); 3],
            "cut at {cut}"
        );
    }
}

#[test]
fn a_reply_begins_with_its_own_bytes_and_not_with_a_session_ticket() {
    let mut pair = Pair::new(trusting(), &server_config());
    pair.shake_hands(10_000).unwrap();
    pair.now = 100;
    let bytes = pair.say(REPLY);
    pair.feed(&bytes, 10_000).unwrap();
    assert_eq!(pair.tls.first_byte_at(&pair.state), Some(Nanos::new(101)));
}

#[test]
fn whom_to_trust_decides_about_the_connection() {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let told = refusal(client(&[], local));
    assert!(
        told.contains("UnknownIssuer") && told.contains("tls_ca"),
        "{told}"
    );
    let told = refusal(client(&[("tls_ca", &ca())], NO_ADDRESS));
    assert!(
        told.contains("127.0.0.1") && told.contains("tls_server_name"),
        "{told}"
    );
    let named = [
        ("tls_ca", ca()),
        ("tls_server_name", "localhost".to_owned()),
    ];
    let named: Vec<_> = named
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Pair::new(client(&named, NO_ADDRESS), &server_config())
        .shake_hands(50)
        .unwrap();
    let anybody = client(&[("tls_insecure", "true")], NO_ADDRESS);
    Pair::new(anybody, &server_config())
        .shake_hands(50)
        .unwrap();
}

#[test]
fn a_server_without_tls_is_told() {
    let mut pair = Pair::new(trusting(), &server_config());
    let told = pair.feed(REPLY, 10_000).unwrap_err().to_string();
    assert!(told.contains("speak TLS"), "{told}");
}

#[test]
fn only_a_proper_end_completes_a_body() {
    let open_end = b"HTTP/1.0 200 OK\r\n\r\nhalf";
    let mut pair = Pair::new(trusting(), &server_config());
    pair.shake_hands(10_000).unwrap();
    let bytes = pair.say(open_end);
    assert_eq!(pair.feed(&bytes, 10_000).unwrap(), []);
    assert!(!pair.tls.is_spent(&pair.state));
    assert_eq!(pair.tls.end(&mut pair.state), None, "cut by somebody");

    let mut pair = Pair::new(trusting(), &server_config());
    pair.shake_hands(10_000).unwrap();
    let mut bytes = pair.say(open_end);
    pair.server.send_close_notify();
    bytes.extend(pair.pull());
    assert_eq!(
        pair.feed(&bytes, 10_000).unwrap(),
        [Decoded::Reply(Reply::default())]
    );
    assert!(pair.tls.is_spent(&pair.state));
    assert_eq!(pair.tls.end(&mut pair.state), None, "told already");
}

#[test]
fn a_changed_byte_is_found() {
    let mut pair = Pair::new(trusting(), &server_config());
    pair.shake_hands(10_000).unwrap();
    let mut bytes = pair.say(REPLY);
    bytes[20] ^= 1;
    let told = pair.feed(&bytes, 10_000).unwrap_err().to_string();
    assert!(told.contains("decrypt"), "{told}");
}

#[test]
fn sessions_are_resumed_unless_told_otherwise() {
    let rows = [
        ("true", HandshakeKind::Resumed),
        ("false", HandshakeKind::Full),
    ];
    for (is_resuming, second) in rows {
        let config = server_config();
        let pairs = [("tls_ca", ca()), ("tls_resumption", is_resuming.to_owned())];
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let tls = client(&pairs, IpAddr::V4(Ipv4Addr::LOCALHOST));
        for kind in [HandshakeKind::Full, second] {
            let mut pair = Pair::new(tls.clone(), &config);
            pair.shake_hands(10_000).unwrap();
            assert_eq!(pair.server.handshake_kind(), Some(kind));
        }
    }
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let empty = format!("{DATA}tls-server.key");
    let rows: [(&[(&str, &str)], &str); 7] = [
        (&[("tls_ca", "/nowhere.pem")], "readable PEM file"),
        (&[("tls_ca", &empty)], "CERTIFICATE"),
        (
            &[("tls_ca", "/x"), ("tls_insecure", "true")],
            "trusts anybody",
        ),
        (&[("tls_insecure", "yes")], "true or false"),
        (&[("tls_server_name", "a b")], "host name"),
        (&[("tls_alpn", "h2,,x")], "http/1.1"),
        (&[("tls_cert", "x")], "tls_resumption"),
    ];
    for (pairs, told) in rows {
        let error = TlsSetup::read(&options(pairs), &[]).unwrap_err();
        assert_eq!(error.code(), "invalid-option");
        assert!(error.to_string().contains(told), "{error}");
    }
    assert!(
        TlsSetup::read(&options(&[("path", "/")]), &[]).is_ok(),
        "others are the protocol's"
    );
}

/// A client, and servers of both versions of TLS; made once, since files and keys are read for it.
static ENDS: LazyLock<(Tls<Http>, [Arc<ServerConfig>; 2])> = LazyLock::new(|| {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    (
        trusting(),
        versions.map(|version| server_config_of(&[version])),
    )
});

proptest! {
    #![proptest_config(fuzz::config())]

    /// Whatever becomes of the server's bytes, in the handshake or after it: there is a typed error, or the
    /// client waits for more; what it believes is what the server said.
    #[test]
    fn damaged_streams_are_refused(
        damage in damage(), cuts in cuts(), is_greeting in any::<bool>(), is_old in any::<bool>(),
    ) {
        let (tls, servers) = &*ENDS;
        let mut pair = Pair::new(tls.clone(), &servers[usize::from(is_old)]);
        let bytes = if is_greeting {
            pair.exchange()
        } else {
            pair.shake_hands(10_000).unwrap();
            [(); 3].map(|()| pair.say(REPLY)).concat()
        };
        let bytes = damage.applied_to(&bytes);
        let found = fuzz::replies_of(&mut pair.tls, &mut pair.state, cuts.pieces(&bytes));
        match found {
            Ok(replies) => prop_assert!(replies.iter().all(|reply| *reply == Reply::default())),
            Err(error) => prop_assert!(error.to_string().starts_with("TLS: "), "{}", error),
        }
        // Nor is anything said afterwards that the client could not bear.
        let request = Request { request_id: 1, demand: Nanos::ZERO };
        pair.tls.encode(&mut pair.state, &request, &mut pair.to_server);
        let _ = pair.tls.end(&mut pair.state);
    }
}
