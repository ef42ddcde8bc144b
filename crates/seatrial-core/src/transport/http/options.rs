//! Settings of the HTTP protocol, read and checked as a whole.

use std::fs::File;
use std::io::Read;

use super::body::Seen;
use crate::error::CoreError;
use crate::transport::options::{OptionReader, Options};
use crate::transport::payload_pattern;
use crate::transport::template::{Template, read_number};

/// Largest body of a request: it is kept in memory once for each thread.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Fields that follow from other options.
const OWN_FIELDS: [&str; 5] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
];

/// What a request fills in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The work that it asks for, in nanoseconds.
    Demand,
    /// Its number in the run.
    Id,
}

/// The places that path, fields and body may have.
pub(super) const MARKS: [(&str, Mark); 2] = [("demand_ns", Mark::Demand), ("id", Mark::Id)];

/// What every body has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyCheck {
    None,
    /// This many bytes.
    Length(u64),
    /// Bytes with this CRC-32.
    Crc32(u32),
    /// As the first one that this thread gets.
    Same,
}

impl BodyCheck {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "none" => Some(Self::None),
            None if text == "same" => Some(Self::Same),
            Some(("length", length)) => read_number(length.as_bytes()).map(Self::Length),
            Some(("crc32", sum)) if sum.len() == 8 => {
                u32::from_str_radix(sum, 16).ok().map(Self::Crc32)
            }
            _ => None,
        }
    }

    /// What a body is looked at with.
    pub fn seen(self) -> Seen {
        let wants_sum = matches!(self, Self::Crc32(_) | Self::Same);
        Seen {
            length: 0,
            hasher: wants_sum.then(crc32fast::Hasher::new),
        }
    }
}

/// Status codes that count as success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    fn parse(text: &str) -> Option<Self> {
        let range = |part: &str| match part.as_bytes() {
            [class @ b'2'..=b'5', b'x', b'x'] => {
                let first = u16::from(class - b'0') * 100;
                Some((first, first + 99))
            }
            digits => {
                let status = read_number(digits).and_then(|status| u16::try_from(status).ok())?;
                (200..=599).contains(&status).then_some((status, status))
            }
        };
        text.split(',')
            .map(|part| range(part.trim()))
            .collect::<Option<_>>()
            .map(Self)
    }

    #[inline]
    pub fn contains(&self, status: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// Settings of the HTTP protocol.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    method: String,
    path: String,
    host: Option<String>,
    fields: Vec<String>,
    body: Option<Vec<u8>>,
    is_body_template: bool,
    pub(super) expected: Statuses,
    pub(super) body_check: BodyCheck,
    keep_alive: bool,
}

/// One request without its values. A body of varying length is apart from the head, which then
/// ends where the length has to be.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub head: Template<Mark>,
    pub body: Option<Template<Mark>>,
}

impl HttpOptions {
    /// Reads the options, and the file of the body if one is named.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for other names, values that do not fit, and a file that cannot be read.
    pub fn read(options: &Options) -> Result<Self, CoreError> {
        let mut reader = OptionReader::new("http", options);
        let method = reader.parsed(
            "method",
            "GET".to_owned(),
            "the name of a method in capital letters, not CONNECT",
            |text| {
                let is_name = !text.is_empty()
                    && text.len() <= 32
                    && text.bytes().all(|byte| byte.is_ascii_uppercase());
                (is_name && text != "CONNECT").then(|| text.to_owned())
            },
        )?;
        let path = reader.parsed(
            "path",
            "/".to_owned(),
            "a path that begins with / and has no spaces",
            |text| {
                let is_path = text == "*" || text.starts_with('/');
                (is_path
                    && text.len() <= 16_384
                    && text.bytes().all(|byte| byte.is_ascii_graphic()))
                .then(|| text.to_owned())
            },
        )?;
        let host = reader.parsed(
            "host",
            None,
            "a host name, with a port or without",
            |text| {
                (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
                    .then(|| Some(text.to_owned()))
            },
        )?;
        let fields = reader.parsed(
            "header",
            Vec::new(),
            "lines of 'name: value', none of them Host, Connection, Content-Length, Transfer-Encoding or Upgrade",
            |text| text.lines().map(field).collect(),
        )?;
        let expected = reader.parsed(
            "expect_status",
            Statuses(vec![(200, 299)]),
            "codes or classes such as 200,404 or 2xx,3xx",
            Statuses::parse,
        )?;
        let body_check = reader.parsed(
            "check_body",
            BodyCheck::None,
            "none, same, length:BYTES or crc32: with 8 hexadecimal digits",
            BodyCheck::parse,
        )?;
        let keep_alive = reader.flag("keep_alive", true)?;
        let (body, is_body_template) = read_body(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            method,
            path,
            host,
            fields,
            body,
            is_body_template,
            expected,
            body_check,
            keep_alive,
        })
    }

    /// Whether a request tells the server how much work it asks for.
    #[must_use]
    pub fn carries_demand(&self) -> bool {
        let mut marks = self.head_text("").into_bytes();
        if self.is_body_template {
            marks.extend_from_slice(self.body.as_deref().unwrap_or_default());
        }
        Template::parse(&marks, &MARKS)
            .marks()
            .any(|mark| mark == Mark::Demand)
    }

    /// Whether replies have bodies.
    pub(super) fn has_body(&self) -> bool {
        self.method != "HEAD"
    }

    /// The request for a server at this address.
    pub(super) fn render(&self, address: &str) -> Rendered {
        let mut head = self
            .head_text(self.host.as_deref().unwrap_or(address))
            .into_bytes();
        let wants_length =
            self.body.is_some() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        let body = self.body.as_deref().unwrap_or_default();
        if self.is_body_template {
            let body = Template::parse(body, &MARKS);
            head.extend_from_slice(b"Content-Length: ");
            if !body.is_fixed() {
                return Rendered {
                    head: Template::parse(&head, &MARKS),
                    body: Some(body),
                };
            }
            head.extend_from_slice(
                format!("{}\r\n", self.body.as_ref().map_or(0, Vec::len)).as_bytes(),
            );
        } else if wants_length {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        // Braces in a body that is no template stay what they are.
        Rendered {
            head: Template::parse(&head, &MARKS).followed_by(body),
            body: None,
        }
    }

    /// Request line and fields, all but the length of the body.
    fn head_text(&self, host: &str) -> String {
        let Self {
            method,
            path,
            fields,
            ..
        } = self;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for field in fields {
            text.push_str(field);
            text.push_str("\r\n");
        }
        if !self.keep_alive {
            text.push_str("Connection: close\r\n");
        }
        text
    }
}

/// One header field as it was written; `None` when it is none, or one that we write ourselves.
fn field(line: &str) -> Option<String> {
    let (name, value) = line.split_once(':')?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    let is_value = value
        .bytes()
        .all(|byte| byte == b'\t' || !byte.is_ascii_control());
    let is_own = OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own));
    (is_name && is_value && !is_own).then(|| format!("{name}: {}", value.trim()))
}

/// The body, and whether marks in it are to be filled.
fn read_body(reader: &mut OptionReader<'_>) -> Result<(Option<Vec<u8>>, bool), CoreError> {
    const ONE_OF: &str = "only one of body, body_bytes and body_file";
    let text = reader.text("body").map(|text| text.as_bytes().to_vec());
    let is_text = text.is_some();
    let pattern = reader.parsed(
        "body_bytes",
        None,
        "0 to 16777216 bytes (16 MiB), and only one of body, body_bytes and body_file",
        |length| {
            let length = usize::try_from(read_number(length.as_bytes())?).ok()?;
            (length <= BODY_BYTES_MAX && !is_text).then(|| Some(payload_pattern(length)))
        },
    )?;
    let is_taken = is_text || pattern.is_some();
    let file = reader.text("body_file");
    let file = match file {
        Some(_) if is_taken => return Err(reader.invalid_text("body_file", ONE_OF.to_owned())),
        Some(path) => {
            Some(read_file(path).map_err(|reason| reader.invalid_text("body_file", reason))?)
        }
        None => None,
    };
    Ok((text.or(pattern).or(file), is_text))
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = BODY_BYTES_MAX as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| format!("the path of a readable file ({error})"))?;
    if bytes.len() > BODY_BYTES_MAX {
        return Err("a file of at most 16 MiB".to_owned());
    }
    Ok(bytes)
}
