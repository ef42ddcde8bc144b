//! The command line behind the options of the channel.

use std::ffi::OsString;
use std::net::SocketAddr;

use crate::error::GuestError;
use crate::probe::ExecRequest;
use crate::server::{Address, LISTENERS_MAX, Protocol, ServerOptions};

/// What the command line may be.
pub const USAGE: &str = "\
usage: seatrial-guest [--channel-fd N|none | --channel-path SOCKET | --channel-tcp IP:PORT] ROLE

--channel-tcp calls the host by TCP and says the token in SEATRIAL_CHANNEL_TOKEN first

roles:
  null                     say HELLO and exit
  idle [--load R]          say HELLO and READY, then obey the control channel; keep the share R
                           of one processor busy meanwhile
  serve --protocol echo|rpc|http|grpc --listen tcp:IP:PORT|unix:/PATH|udp:IP:PORT [--listen ...]
        [--workers N] [--seed N] [--drop-ratio R]
                           serve, and obey the control channel meanwhile
  exec -- COMMAND [ARGUMENT...]
                           run a command and report what it did
  version                  print the version
";

/// Most workers of a server.
const WORKERS_MAX: usize = 64;

/// What the guest is to be.
#[derive(Debug, PartialEq)]
pub enum Role {
    /// Say hello and exit.
    Null,
    /// Only obey the channel.
    Idle {
        /// Share of one processor that is kept busy.
        load_ratio: f64,
    },
    /// Serve load.
    Serve(ServerOptions),
    /// Run one command.
    Exec(ExecRequest),
    /// Print the version.
    Version,
    /// Print the usage.
    Help,
}

/// Reads the role and its options.
pub fn parse(words: &[OsString]) -> Result<Role, GuestError> {
    let Some((role, options)) = words.split_first() else {
        return Err(usage(
            "no role given; expected null, idle, serve, exec or version",
        ));
    };
    match (role.to_str(), options) {
        (Some("null"), []) => Ok(Role::Null),
        (Some("idle"), []) => Ok(Role::Idle { load_ratio: 0.0 }),
        (Some("idle"), [name, value]) if name == "--load" => Ok(Role::Idle {
            load_ratio: parse_load(&value.to_string_lossy())?,
        }),
        (Some("version"), []) => Ok(Role::Version),
        (Some("help" | "--help"), []) => Ok(Role::Help),
        (Some("serve"), options) => parse_serve(options).map(Role::Serve),
        (Some("exec"), options) => parse_exec(options).map(Role::Exec),
        (Some("null" | "idle" | "version"), [extra, ..]) => Err(usage(&format!(
            "{}: unexpected argument {}",
            role.to_string_lossy(),
            extra.to_string_lossy()
        ))),
        _ => Err(usage(&format!(
            "unknown role {}; expected null, idle, serve, exec or version",
            role.to_string_lossy()
        ))),
    }
}

fn usage(message: &str) -> GuestError {
    GuestError::Usage(message.to_owned())
}

fn parse_serve(options: &[OsString]) -> Result<ServerOptions, GuestError> {
    let mut protocol = None;
    let mut listen = Vec::new();
    let mut workers = 1;
    let mut seed = 1;
    let mut drop_ratio = 0.0;
    for pair in options.chunks(2) {
        let name = pair[0].to_str().unwrap_or_default();
        let value = pair.get(1).and_then(|value| value.to_str());
        let Some(value) = value else {
            return Err(usage(&format!("serve: {name} needs a value")));
        };
        match name {
            "--protocol" => protocol = Some(parse_protocol(value)?),
            "--listen" => listen.push(parse_address(value)?),
            "--workers" => workers = parse_workers(value)?,
            "--seed" => seed = parse_seed(value)?,
            "--drop-ratio" => drop_ratio = parse_ratio(value)?,
            _ => return Err(usage(&format!("serve: unknown option {name}"))),
        }
    }
    let protocol =
        protocol.ok_or_else(|| usage("serve: --protocol echo|rpc|http|grpc is needed"))?;
    if listen.is_empty() || listen.len() > LISTENERS_MAX {
        return Err(usage(&format!(
            "serve: {} --listen options, expected 1 to {LISTENERS_MAX}",
            listen.len()
        )));
    }
    let has_udp = listen
        .iter()
        .any(|address| matches!(address, Address::Udp(_)));
    if has_udp && !protocol.has_datagrams() {
        return Err(usage(
            "serve: --listen udp: is for the protocols echo and rpc; expected tcp:IP:PORT or unix:/PATH",
        ));
    }
    if drop_ratio > 0.0 && !has_udp {
        return Err(usage(
            "serve: --drop-ratio is about datagrams; expected a --listen udp:IP:PORT beside it",
        ));
    }
    Ok(ServerOptions {
        protocol,
        listen,
        workers,
        seed,
        drop_ratio,
    })
}

fn parse_protocol(value: &str) -> Result<Protocol, GuestError> {
    match value {
        "echo" => Ok(Protocol::Echo),
        "rpc" => Ok(Protocol::Rpc),
        "http" => Ok(Protocol::Http),
        "grpc" => Ok(Protocol::Grpc),
        _ => Err(usage(&format!(
            "serve: --protocol {value}, expected echo, rpc, http or grpc"
        ))),
    }
}

fn parse_workers(value: &str) -> Result<usize, GuestError> {
    value
        .parse()
        .ok()
        .filter(|count| (1..=WORKERS_MAX).contains(count))
        .ok_or_else(|| {
            usage(&format!(
                "serve: --workers {value}, expected a number from 1 to {WORKERS_MAX}"
            ))
        })
}

fn parse_seed(value: &str) -> Result<u64, GuestError> {
    value.parse().map_err(|_| {
        usage(&format!(
            "serve: --seed {value}, expected a number from 0 to {}",
            u64::MAX
        ))
    })
}

fn parse_ratio(value: &str) -> Result<f64, GuestError> {
    share("serve: --drop-ratio", value)
}

fn parse_load(value: &str) -> Result<f64, GuestError> {
    share("idle: --load", value)
}

fn share(option: &str, value: &str) -> Result<f64, GuestError> {
    value
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| usage(&format!("{option} {value}, expected a share from 0 to 1")))
}

fn parse_address(value: &str) -> Result<Address, GuestError> {
    let address = match value.split_once(':') {
        Some(("tcp", rest)) => rest.parse::<SocketAddr>().ok().map(Address::Tcp),
        Some(("udp", rest)) => rest.parse::<SocketAddr>().ok().map(Address::Udp),
        Some(("unix", path)) if path.starts_with('/') => Some(Address::Unix(path.to_owned())),
        _ => None,
    };
    address.ok_or_else(|| {
        usage(&format!(
            "serve: --listen {value}, expected tcp:IP:PORT, udp:IP:PORT or unix:/absolute/path"
        ))
    })
}

fn parse_exec(options: &[OsString]) -> Result<ExecRequest, GuestError> {
    let command = match options.split_first() {
        Some((dashes, command)) if dashes == "--" && !command.is_empty() => command,
        _ => return Err(usage("exec: expected -- COMMAND [ARGUMENT...]")),
    };
    let argv = command
        .iter()
        .map(|word| {
            let word = word
                .to_str()
                .ok_or_else(|| usage("exec: an argument is not UTF-8"))?;
            Ok(word.to_owned())
        })
        .collect::<Result<Vec<_>, GuestError>>()?;
    Ok(ExecRequest::new(argv))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Role, String> {
        let words = line
            .split_whitespace()
            .map(OsString::from)
            .collect::<Vec<_>>();
        parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn roles_are_read() {
        assert_eq!(parsed("null"), Ok(Role::Null));
        assert_eq!(parsed("idle"), Ok(Role::Idle { load_ratio: 0.0 }));
        assert_eq!(
            parsed("idle --load 0.25"),
            Ok(Role::Idle { load_ratio: 0.25 })
        );
        assert_eq!(parsed("version"), Ok(Role::Version));
        assert_eq!(
            parsed("exec -- /bin/true -x"),
            Ok(Role::Exec(ExecRequest::new(vec![
                "/bin/true".to_owned(),
                "-x".to_owned()
            ])))
        );
        assert_eq!(
            parsed("serve --protocol rpc --listen tcp:127.0.0.1:0 --listen unix:/s --workers 3"),
            Ok(Role::Serve(ServerOptions {
                protocol: Protocol::Rpc,
                listen: vec![
                    Address::Tcp("127.0.0.1:0".parse().unwrap()),
                    Address::Unix("/s".to_owned())
                ],
                workers: 3,
                seed: 1,
                drop_ratio: 0.0,
            }))
        );
    }

    #[test]
    fn mistakes_are_named_with_what_was_expected() {
        for (line, expected) in [
            ("", "no role given"),
            ("fly", "unknown role fly"),
            ("idle now", "unexpected argument now"),
            ("idle --load 1.5", "expected a share from 0 to 1"),
            (
                "serve --listen tcp:0.0.0.0:1",
                "--protocol echo|rpc|http|grpc is needed",
            ),
            ("serve --protocol", "--protocol needs a value"),
            ("serve --protocol smtp", "expected echo, rpc, http or grpc"),
            ("serve --protocol echo", "0 --listen options"),
            (
                "serve --protocol echo --listen tcp:host:1",
                "expected tcp:IP:PORT",
            ),
            (
                "serve --protocol echo --listen unix:relative",
                "absolute/path",
            ),
            (
                "serve --protocol echo --listen unix:/s --workers 0",
                "expected a number from 1",
            ),
            (
                "serve --protocol echo --listen unix:/s --fast 1",
                "unknown option --fast",
            ),
            (
                "serve --protocol echo --listen udp:0.0.0.0:1 --drop-ratio 2",
                "a share from 0 to 1",
            ),
            (
                "serve --protocol http --listen udp:0.0.0.0:1",
                "for the protocols echo and rpc",
            ),
            (
                "serve --protocol echo --listen tcp:0.0.0.0:1 --drop-ratio 0.5",
                "expected a --listen udp:IP:PORT",
            ),
            (
                "serve --protocol rpc --listen unix:/s --seed -1",
                "expected a number from 0",
            ),
            ("exec /bin/true", "expected -- COMMAND"),
            ("exec --", "expected -- COMMAND"),
        ] {
            let message = parsed(line).unwrap_err();
            assert!(message.contains(expected), "{line:?} gave {message:?}");
        }
    }
}
