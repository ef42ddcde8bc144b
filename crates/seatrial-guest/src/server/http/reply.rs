//! Replies as bytes.

use super::path::{Action, Unknown};

/// Digits of the service time: more than any request may take.
const TIME_DIGITS: usize = 12;

/// Bytes in a chunk of a chunked reply.
const CHUNK_BYTES: usize = 4096;

/// How the reply has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Without the body, as an answer to HEAD.
    pub omits_body: bool,
    /// For HTTP/1.0, which knows no chunks.
    pub is_old: bool,
    /// With the end of the connection.
    pub closes: bool,
}

/// Writes the reply of an action; gives the place of the service time, see [`patch`].
pub fn write(action: Action, form: Form, content: &[u8], output: &mut Vec<u8>) -> usize {
    let (status, length) = match action {
        Action::Bytes(bytes) | Action::Chunked(bytes) => (200, bytes as usize),
        Action::Echo => (200, content.len()),
        Action::Status(204 | 304) => (status_of(action), 0),
        _ => (status_of(action), OKAY.len()),
    };
    let is_chunked = matches!(action, Action::Chunked(_)) && !form.is_old;
    start(status, form, output);
    match action {
        // These never have a body, and so no length.
        Action::Status(204 | 304) => {}
        _ if is_chunked => output.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => put_length(length, output),
    }
    output.extend_from_slice(b"x-seatrial-service-ns: ");
    let place = output.len();
    output.extend_from_slice(&[b'0'; TIME_DIGITS]);
    output.extend_from_slice(b"\r\n\r\n");
    if form.omits_body {
        return place;
    }
    match action {
        Action::Echo => output.extend_from_slice(content),
        Action::Chunked(_) if is_chunked => put_chunks(length, output),
        Action::Bytes(_) | Action::Chunked(_) => fill(length, output),
        _ => output.extend_from_slice(&OKAY[..length]),
    }
    place
}

/// Writes the service time, which is known only when the reply is ready, to its place.
pub fn patch(output: &mut [u8], place: usize, service_ns: u64) {
    let mut rest = service_ns;
    for digit in output[place..place + TIME_DIGITS].iter_mut().rev() {
        // A remainder of ten is one digit.
        #[allow(clippy::cast_possible_truncation)]
        let value = (rest % 10) as u8;
        *digit = b'0' + value;
        rest /= 10;
    }
}

/// Writes the reply to a request for nothing that exists.
pub fn unknown(unknown: &Unknown, form: Form, output: &mut Vec<u8>) {
    told(unknown.status, unknown.text, form, output);
}

/// Writes the reply to what is no request.
pub fn refuse(status: u16, text: &str, output: &mut Vec<u8>) {
    let form = Form {
        omits_body: false,
        is_old: false,
        closes: true,
    };
    told(status, text, form, output);
}

const OKAY: &[u8] = b"ok\n";

const fn status_of(action: Action) -> u16 {
    match action {
        Action::Status(status) => status,
        _ => 200,
    }
}

fn told(status: u16, text: &str, form: Form, output: &mut Vec<u8>) {
    start(status, form, output);
    if status == 405 {
        output.extend_from_slice(b"allow: GET, HEAD, POST\r\n");
    }
    put_length(text.len(), output);
    output.extend_from_slice(b"\r\n");
    if !form.omits_body {
        output.extend_from_slice(text.as_bytes());
    }
}

fn start(status: u16, form: Form, output: &mut Vec<u8>) {
    output.extend_from_slice(b"HTTP/1.1 ");
    put_number(status.into(), output);
    output.push(b' ');
    output.extend_from_slice(reason_of(status));
    output.extend_from_slice(b"\r\ncontent-type: text/plain\r\n");
    if form.closes {
        output.extend_from_slice(b"connection: close\r\n");
    } else if form.is_old {
        output.extend_from_slice(b"connection: keep-alive\r\n");
    }
}

fn put_length(length: usize, output: &mut Vec<u8>) {
    output.extend_from_slice(b"content-length: ");
    put_number(length, output);
    output.extend_from_slice(b"\r\n");
}

fn put_number(number: usize, output: &mut Vec<u8>) {
    use std::io::Write;
    let _ = write!(output, "{number}"); // writing to memory cannot fail
}

fn fill(length: usize, output: &mut Vec<u8>) {
    output.resize(output.len() + length, b'x');
}

fn put_chunks(length: usize, output: &mut Vec<u8>) {
    use std::io::Write;
    let mut left = length;
    while left > 0 {
        let size = left.min(CHUNK_BYTES);
        let _ = write!(output, "{size:x}\r\n"); // writing to memory cannot fail
        fill(size, output);
        output.extend_from_slice(b"\r\n");
        left -= size;
    }
    output.extend_from_slice(b"0\r\n\r\n");
}

const fn reason_of(status: u16) -> &'static [u8] {
    match status {
        200 => b"OK",
        204 => b"No Content",
        304 => b"Not Modified",
        400 => b"Bad Request",
        404 => b"Not Found",
        405 => b"Method Not Allowed",
        408 => b"Request Timeout",
        413 => b"Content Too Large",
        417 => b"Expectation Failed",
        431 => b"Request Header Fields Too Large",
        501 => b"Not Implemented",
        503 => b"Service Unavailable",
        505 => b"HTTP Version Not Supported",
        _ => b"As Asked",
    }
}
