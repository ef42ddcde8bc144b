//! `seatrial-launch`: the small process that starts sandboxes, so that no start is charged for
//! the size of ours. See `seatrial_core::launch`.
//!
//! It talks on the two sockets that it is started with and ends when the first is closed. With
//! `cri-run` it is not the launcher but one of the commands that a launcher starts: it brings a
//! pod up by CRI, stays as long as the pod and ends with it. See `seatrial_core::cri`.
//! `firecracker` is likewise the process that starts one Firecracker machine and carries its channel.

mod firecracker;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use seatrial_core::cri::{self, Client, PodSpec};
use seatrial_core::launch::{Server, adopt_descriptor};

const USAGE: &str = "\
usage: seatrial-launch --control-fd N --descriptor-fd N
       seatrial-launch cri-run|cri-remove SPEC.json
       seatrial-launch firecracker --channel-fd N|none SCRIPT.json
       seatrial-launch cri-call SOCKET METHOD TIMEOUT_NS < REQUEST > REPLY";

/// The variable by which a plugin of CNI is told what to do.
const CNI_COMMAND: &str = "CNI_COMMAND";

/// The version of CNI in which that plugin answers.
const CNI_VERSION: &str = "0.4.0";

/// What a shell's command says when a service is not available (`EX_UNAVAILABLE` of `sysexits.h`).
const EXIT_UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] if std::env::var_os(CNI_COMMAND).is_some() => answer_cni(),
        ["cri-run", spec] => run_pod(spec),
        ["cri-remove", spec] => remove_pod(spec),
        ["firecracker", "--channel-fd", fd, script] => return start_machine(fd, script),
        ["cri-call", socket, method, timeout] => call(socket, method, timeout),
        _ => match parse(&words) {
            Some((control, descriptors)) => {
                return match serve(control, descriptors) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => complain(&format!("seatrial-launch: {error}"), 1),
                };
            }
            None => return complain(USAGE, 2),
        },
    };
    done.unwrap_or_else(|text| complain(&format!("seatrial-launch: {text}"), EXIT_UNAVAILABLE))
}

fn serve(control: i32, descriptors: i32) -> io::Result<()> {
    Server::new(adopt_descriptor(control)?, adopt_descriptor(descriptors)?)?.run()
}

fn start_machine(fd: &str, script: &str) -> ExitCode {
    let channel = match (fd, fd.parse()) {
        ("none", _) => Ok(None),
        (_, Ok(number)) if number > 2 => adopt_descriptor(number).map(Some),
        _ => return complain(USAGE, 2),
    };
    match channel.and_then(|channel| firecracker::run(script, channel)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(&format!("seatrial-launch: {error}"), 1),
    }
}

fn parse(arguments: &[&str]) -> Option<(i32, i32)> {
    let ["--control-fd", control, "--descriptor-fd", descriptors] = arguments else {
        return None;
    };
    let number = |text: &str| text.parse().ok().filter(|number| *number > 2);
    Some((number(control)?, number(descriptors)?)).filter(|(a, b)| a != b)
}

/// Ends as the container did; a status that does not fit a process is 255.
fn run_pod(spec: &str) -> Result<ExitCode, String> {
    let status = cri::run(&read_spec(spec)?).map_err(|error| error.to_string())?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

fn remove_pod(spec: &str) -> Result<ExitCode, String> {
    cri::remove(&read_spec(spec)?).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn read_spec(path: &str) -> Result<PodSpec, String> {
    let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))
}

fn call(socket: &str, method: &str, timeout: &str) -> Result<ExitCode, String> {
    let timeout_ns = timeout
        .parse()
        .map_err(|_| format!("{timeout:?}, expected a time-out in nanoseconds"))?;
    let mut request = Vec::new();
    let read = io::stdin().read_to_end(&mut request);
    read.map_err(|error| format!("the request on standard input: {error}"))?;
    let reply = Client::connect(Path::new(socket))
        .and_then(|mut client| client.call(method, &request, Duration::from_nanos(timeout_ns)))
        .map_err(|error| error.to_string())?;
    let written = io::stdout().write_all(&reply);
    written.map_err(|error| format!("the reply on standard output: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

/// As a plugin of CNI that connects a pod to nothing: it makes no interface and says that there is
/// one, because CRI refuses a pod without an address.
fn answer_cni() -> Result<ExitCode, String> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let answer = match variable(CNI_COMMAND).as_str() {
        "ADD" => serde_json::json!({
            "cniVersion": CNI_VERSION,
            "interfaces": [{"name": variable("CNI_IFNAME"), "sandbox": variable("CNI_NETNS")}],
            "ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"}],
        }),
        "VERSION" => serde_json::json!({
            "cniVersion": CNI_VERSION,
            "supportedVersions": ["0.3.0", "0.3.1", CNI_VERSION],
        }),
        _ => return Ok(ExitCode::SUCCESS),
    };
    let written = io::stdout().write_all(answer.to_string().as_bytes());
    written.map_err(|error| format!("the answer on standard output: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

fn complain(text: &str, code: u8) -> ExitCode {
    // There is nobody left to tell when even this fails.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}
