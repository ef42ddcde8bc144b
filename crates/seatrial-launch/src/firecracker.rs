//! Starts one Firecracker machine from a script that is data, and carries its control channel.
//!
//! Firecracker inherits no descriptor for its guest: what a machine is comes over an HTTP API on a
//! unix socket, and the guest is reached through another one (vsock, by `CONNECT PORT`). This
//! program is the process that the launcher starts: it starts the monitor, makes the calls, and
//! copies the channel both ways until one end closes. It looks for the sockets, and for the guest
//! behind the second, once a millisecond; nothing tells when they are there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use seatrial_core::control::{Frame, HostFrame};
use serde::Deserialize;
use serde_json::Value;

/// How often something is looked for that does not tell when it is there.
const QUANTUM: Duration = Duration::from_millis(1);
/// How long a machine may take to go when its guest has hung up or was told to.
const END_WAIT: Duration = Duration::from_secs(5);
/// Longest answer of the API that is read; errors are a sentence.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longest line that a guest says before the channel.
const LINE_BYTES_MAX: usize = 256;
const COPY_BYTES: usize = 64 << 10;

/// One call of the API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: String,
    path: String,
    body: Value,
}

/// What a copy of a template is told before its channel opens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    port: u32,
    line: String,
    /// What the guest must say first, or it is no copy.
    boot_id: String,
}

/// What is done with a machine that becomes a template, instead of serving a channel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    port: u32,
    /// Where the boot id goes that copies will say.
    boot_id_file: String,
    /// The calls that write the machine down.
    calls: Vec<Call>,
}

/// Everything about one start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    argv: Vec<String>,
    /// Where relative paths of the sockets are.
    directory: String,
    api_socket: String,
    guest_socket: String,
    calls: Vec<Call>,
    #[serde(default)]
    order: Option<Order>,
    #[serde(default)]
    template: Option<Template>,
    channel_port: u32,
    deadline_ns: u64,
}

/// Runs a script with the channel that was inherited, which a template has not; gives the exit
/// status.
///
/// # Errors
/// The machine could not be started, or ended before its guest was reached.
pub fn run(script: &str, channel: Option<OwnedFd>) -> io::Result<u8> {
    let script: Script = serde_json::from_str(&std::fs::read_to_string(script)?)?;
    std::env::set_current_dir(&script.directory)?;
    let (program, arguments) = script
        .argv
        .split_first()
        .ok_or_else(|| trouble("argv is empty, expected at least a program"))?;
    let monitor = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()?;
    let mut machine = Machine {
        monitor,
        deadline: Instant::now() + Duration::from_nanos(script.deadline_ns),
    };
    let outcome = match (&script.template, channel) {
        (Some(template), None) => machine.become_template(&script, template),
        (None, Some(channel)) => machine
            .set_up(&script)
            .and_then(|guest| machine.serve(guest, &channel.into())),
        _ => Err(trouble(
            "a template has no channel, and every other machine has one",
        )),
    };
    if outcome.is_err() {
        let _ = machine.monitor.kill();
        let _ = machine.monitor.wait();
    }
    outcome
}

/// A running monitor, and until when its guest must be there.
struct Machine {
    monitor: Child,
    deadline: Instant,
}

impl Machine {
    /// Makes the calls that start the machine; gives the API.
    fn start(&mut self, script: &Script) -> io::Result<UnixStream> {
        let mut api = self.persist("the API socket", || UnixStream::connect(&script.api_socket))?;
        api.set_read_timeout(Some(self.left()?))?;
        for call in &script.calls {
            perform(&mut api, call)?;
        }
        Ok(api)
    }

    /// Starts the machine, sees its guest wait, and writes it down; it ends with that.
    fn become_template(&mut self, script: &Script, template: &Template) -> io::Result<u8> {
        let mut api = self.start(script)?;
        let boot_id = read_line(&mut self.reach(&script.guest_socket, template.port)?)?;
        std::fs::write(&template.boot_id_file, boot_id.trim())?;
        for call in &template.calls {
            perform(&mut api, call)?;
        }
        self.monitor.kill()?;
        self.monitor.wait()?;
        Ok(0)
    }

    /// Starts the machine, and gives the connection to its guest.
    fn set_up(&mut self, script: &Script) -> io::Result<UnixStream> {
        self.start(script)?;
        if let Some(order) = &script.order {
            let mut guest = self.reach(&script.guest_socket, order.port)?;
            let said = read_line(&mut guest)?;
            if said.trim() != order.boot_id {
                return Err(trouble(&format!(
                    "this machine is no copy of its template: it said boot id {:?}, expected {:?}",
                    said.trim(),
                    order.boot_id
                )));
            }
            guest.write_all(order.line.as_bytes())?;
        }
        self.reach(&script.guest_socket, script.channel_port)
    }

    /// Connects to a port of the guest as soon as something listens on it.
    fn reach(&mut self, socket: &str, port: u32) -> io::Result<UnixStream> {
        let left = self.left()?;
        self.persist("the guest", || {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(left))?;
            stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
            let said = read_line(&mut stream)?;
            if !said.starts_with("OK ") {
                return Err(trouble(&format!("said {said:?} to CONNECT {port}")));
            }
            stream.set_read_timeout(None)?;
            Ok(stream)
        })
    }

    /// Tries until it works, the deadline passes or the monitor has ended.
    fn persist<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let error = match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let Some(status) = self.monitor.try_wait()? {
                return Err(trouble(&format!(
                    "firecracker ended ({status}) before {what} was there"
                )));
            }
            if Instant::now() >= self.deadline {
                return Err(trouble(&format!("{what} was not there in time: {error}")));
            }
            thread::sleep(QUANTUM);
        }
    }

    fn left(&self) -> io::Result<Duration> {
        self.deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or_else(|| trouble("the deadline has passed"))
    }

    /// Copies the channel both ways until it ends, then sees the machine out.
    fn serve(&mut self, guest: UnixStream, host: &UnixStream) -> io::Result<u8> {
        let was_stopped = Arc::new(AtomicBool::new(false));
        let (from_host, to_guest) = (host.try_clone()?, guest.try_clone()?);
        let is_stopping = Arc::clone(&was_stopped);
        // It ends with the process: nobody waits for a host that says nothing more.
        thread::spawn(move || copy_to_guest(from_host, to_guest, &is_stopping));
        copy_to_host(guest, host);
        // Before our own hanging up looks like the host's.
        let is_asked = was_stopped.load(Ordering::SeqCst);
        let _ = host.shutdown(Shutdown::Both);
        let status = self.see_out()?;
        Ok(match status.code().map(u8::try_from) {
            Some(Ok(0)) if is_asked => 0,
            Some(Ok(code @ 1..)) => code,
            _ => 1, // the guest ended by itself, or the monitor was killed
        })
    }

    fn see_out(&mut self) -> io::Result<ExitStatus> {
        let until = Instant::now() + END_WAIT;
        while Instant::now() < until {
            if let Some(status) = self.monitor.try_wait()? {
                return Ok(status);
            }
            thread::sleep(QUANTUM);
        }
        self.monitor.kill()?;
        self.monitor.wait()
    }
}

/// Copies what the host says; its end, or its `STOP`, is what makes the guest's end an asked one.
fn copy_to_guest(mut host: UnixStream, mut guest: UnixStream, was_stopped: &AtomicBool) {
    let stop = HostFrame::Stop.encode().unwrap_or_default();
    let mut chunk = vec![0; COPY_BYTES];
    loop {
        match host.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                was_stopped.store(chunk[..count].ends_with(&stop), Ordering::SeqCst);
                if guest.write_all(&chunk[..count]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    was_stopped.store(true, Ordering::SeqCst);
    let _ = guest.shutdown(Shutdown::Write);
}

fn copy_to_host(mut guest: UnixStream, mut host: &UnixStream) {
    let mut chunk = vec![0; COPY_BYTES];
    loop {
        match guest.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                if host.write_all(&chunk[..count]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// Makes one call; only an answer of success lets the next one be made.
fn perform(api: &mut UnixStream, call: &Call) -> io::Result<()> {
    let body = call.body.to_string();
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        call.method,
        call.path,
        body.len()
    );
    api.write_all(head.as_bytes())?;
    api.write_all(body.as_bytes())?;
    let (code, said) = read_answer(&mut BufReader::new(api))?;
    if !(200..300).contains(&code) {
        return Err(trouble(&format!(
            "firecracker refused {} {}: status {code}: {said}",
            call.method, call.path
        )));
    }
    Ok(())
}

/// Reads status and body of an answer.
fn read_answer(stream: &mut impl BufRead) -> io::Result<(u16, String)> {
    let mut length = 0;
    let mut status = String::new();
    stream.read_line(&mut status)?;
    let code = status
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.trim().parse().ok())
        .ok_or_else(|| trouble(&format!("the API said {status:?}, expected an HTTP status")))?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value
                .trim()
                .parse()
                .ok()
                .filter(|length| *length <= ANSWER_BYTES_MAX)
                .ok_or_else(|| trouble(&format!("the API's {line:?}, expected a small number")))?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}

/// Reads one line a byte at a time, since what follows it belongs to somebody else.
fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_BYTES_MAX && stream.read(&mut byte)? == 1 {
        line.push(byte[0]);
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
    }
    Err(trouble("the line ended before its end"))
}

fn trouble(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_a_body() {
        let mut said: &[u8] = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n\
            HTTP/1.1 400 Bad\r\ncontent-length: 5\r\n\r\nfault";
        assert_eq!(read_answer(&mut said).unwrap(), (204, String::new()));
        assert_eq!(read_answer(&mut said).unwrap(), (400, "fault".to_owned()));
        for wrong in [
            "",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
        ] {
            assert!(read_answer(&mut wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_line_leaves_what_follows() {
        let mut said: &[u8] = b"OK 1073741824\nrest";
        assert_eq!(read_line(&mut said).unwrap(), "OK 1073741824\n");
        assert_eq!(said, b"rest");
        assert!(read_line(&mut &b"no end"[..]).is_err());
        assert!(read_line(&mut &[b'x'; 400][..]).is_err());
    }
}
