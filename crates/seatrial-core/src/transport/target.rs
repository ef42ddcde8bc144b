//! Where load goes: `tcp://127.0.0.1:7000`, `tls://`, `udp://`, `unix:///run/x.sock` or `fake://...`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::arrival::DemandLaw;
use crate::error::CoreError;
use crate::transport::fake::{FakeModel, Stall};
use crate::units::parse_duration;

/// Something that load can be offered to.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A real server.
    Socket(SocketTarget),
    /// A modelled server on the virtual clock.
    Fake(FakeModel),
}

/// The address of a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketTarget {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The same, with TLS on top of it.
    Tls(SocketAddr),
    /// An IP address and port for datagrams.
    Udp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Target {
    /// How a URL would name the host: without the port where it is the usual one.
    #[must_use]
    pub fn host(&self) -> String {
        let (address, usual_port) = match self {
            Self::Socket(SocketTarget::Tcp(address) | SocketTarget::Udp(address)) => (address, 80),
            Self::Socket(SocketTarget::Tls(address)) => (address, 443),
            Self::Socket(SocketTarget::Unix(_)) | Self::Fake(_) => return "localhost".to_owned(),
        };
        match address {
            SocketAddr::V4(v4) if v4.port() == usual_port => v4.ip().to_string(),
            SocketAddr::V6(v6) if v6.port() == usual_port => format!("[{}]", v6.ip()),
            _ => address.to_string(),
        }
    }

    /// Reads a target.
    ///
    /// A fake one takes its model as a query: `fake://?workers=2&service=exponential:1ms`,
    /// with `workers` (1), `service` (none) on top of each request's demand, and
    /// `stall_at` with `stall` for one interval in which the server does nothing.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when the scheme, the address or a key is not known.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        let invalid = |expected| CoreError::InvalidValue {
            what: "target",
            value: text.to_owned(),
            expected,
        };
        match text.split_once("://") {
            Some((scheme @ ("tcp" | "tls" | "udp"), address)) => {
                let kind = match scheme {
                    "tcp" => SocketTarget::Tcp,
                    "tls" => SocketTarget::Tls,
                    _ => SocketTarget::Udp,
                };
                address
                    .parse()
                    .map(|address| Self::Socket(kind(address)))
                    .map_err(|_| invalid("ADDRESS:PORT with a numeric address"))
            }
            Some(("unix", path)) if path.starts_with('/') => {
                Ok(Self::Socket(SocketTarget::Unix(path.into())))
            }
            Some(("fake", query)) => parse_fake(query.trim_start_matches('?'))
                .and_then(|model| model.ok_or_else(|| invalid("fake://?workers=N&service=LAW"))),
            _ => Err(invalid(
                "tcp://ADDRESS:PORT, tls://, udp://, unix:///PATH or fake://?MODEL",
            )),
        }
    }
}

/// Reads the model of a fake server; `None` for a key or number that is not known.
fn parse_fake(query: &str) -> Result<Option<Target>, CoreError> {
    let mut model = FakeModel::default();
    let (mut stall_at, mut stall) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("workers", count)) => match count.parse() {
                Ok(count) if (1..=1024).contains(&count) => model.workers = count,
                _ => return Ok(None),
            },
            Some(("service", law)) => model.service = DemandLaw::parse(law)?,
            Some(("stall_at", instant)) => stall_at = Some(parse_duration(instant)?),
            Some(("stall", duration)) => stall = Some(parse_duration(duration)?),
            _ => return Ok(None),
        }
    }
    match (stall_at, stall) {
        (Some(at), Some(duration)) => model.stalls.push(Stall { at, duration }),
        (None, None) => {}
        _ => return Ok(None),
    }
    Ok(Some(Target::Fake(model)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn targets_are_read() {
        let tcp = Target::parse("tcp://127.0.0.1:7000").unwrap();
        assert!(
            matches!(tcp, Target::Socket(SocketTarget::Tcp(address)) if address.port() == 7000)
        );
        let unix = Target::parse("unix:///run/a.sock").unwrap();
        assert_eq!(
            unix,
            Target::Socket(SocketTarget::Unix("/run/a.sock".into()))
        );
        let text = "fake://?workers=3&service=constant:1ms&stall_at=1s&stall=250ms";
        let Target::Fake(model) = Target::parse(text).unwrap() else {
            panic!("not fake")
        };
        assert_eq!((model.workers, model.stalls.len()), (3, 1));
        assert_eq!(model.service, DemandLaw::Constant(Nanos::new(1_000_000)));
        assert_eq!(
            Target::parse("fake://").unwrap(),
            Target::Fake(FakeModel::default())
        );
    }

    #[test]
    fn hosts_are_named_as_in_a_url() {
        let rows = [
            ("tcp://127.0.0.1:80", "127.0.0.1"),
            ("tcp://127.0.0.1:8080", "127.0.0.1:8080"),
            ("tls://[::1]:443", "[::1]"),
            ("tls://[::1]:80", "[::1]:80"),
            ("unix:///run/a.sock", "localhost"),
        ];
        for (text, host) in rows {
            assert_eq!(Target::parse(text).unwrap().host(), host, "{text}");
        }
    }

    #[test]
    fn unknown_targets_are_refused() {
        let rows = [
            "",
            "127.0.0.1:80",
            "tcp://localhost:80",
            "tcp://127.0.0.1",
            "unix://relative",
            "http://127.0.0.1:80",
            "fake://?workers=0",
            "fake://?speed=1",
            "fake://?stall=1s",
            "fake://?service=1ms",
        ];
        for text in rows {
            assert_eq!(
                Target::parse(text).unwrap_err().code(),
                "invalid-value",
                "{text}"
            );
        }
    }
}
