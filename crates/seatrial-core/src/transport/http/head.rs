//! Heads of replies: status line and header fields, and what they say about the body.

use std::mem::MaybeUninit;

use crate::transport::DecodeError;
use crate::transport::template::read_number;
use crate::units::Nanos;

/// Longest head of a reply, and longest trailer section.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most header fields of a reply.
const HEADERS_MAX: usize = 256;

/// Longest head that is remembered: longer ones are rare and read anew.
const MEMO_BYTES_MAX: usize = 4096;

/// Our guest's server tells its own time for the request in this field.
const SERVICE_FIELD: &str = "x-seatrial-service-ns";

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// By a chunk of length 0.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub status: u16,
    pub framing: Framing,
    /// Whether the server closes the connection after this reply.
    pub is_last: bool,
    pub service: Option<Nanos>,
}

impl Head {
    /// Whether the real reply is still to come.
    pub const fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// Finds heads in what has come; remembers the one before, because the next one is mostly the same.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// The begin of a head that came in several reads.
    partial: Vec<u8>,
    /// The last final head and what it said.
    memo_bytes: Vec<u8>,
    memo: Option<Head>,
}

impl HeadReader {
    /// Takes a head from the front; `None` when more is needed, and then all bytes are taken.
    #[inline]
    pub fn take(&mut self, bytes: &mut &[u8], has_body: bool) -> Result<Option<Head>, DecodeError> {
        if let (Some(head), true) = (self.memo, self.partial.is_empty()) {
            if let Some(rest) = bytes.strip_prefix(self.memo_bytes.as_slice()) {
                *bytes = rest;
                return Ok(Some(head));
            }
        }
        self.take_new(bytes, has_body)
    }

    #[cold]
    fn take_new(&mut self, bytes: &mut &[u8], has_body: bool) -> Result<Option<Head>, DecodeError> {
        if !self.partial.is_empty() {
            return self.take_partial(bytes, has_body);
        }
        let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let Some((head, head_bytes)) = parse(window, has_body)? else {
            if window.len() == HEAD_BYTES_MAX {
                return Err(too_long());
            }
            self.partial.extend_from_slice(bytes);
            *bytes = &[];
            return Ok(None);
        };
        let (taken, rest) = bytes.split_at(head_bytes);
        self.remember(taken, head);
        *bytes = rest;
        Ok(Some(head))
    }

    /// Goes on with a head of which a part is kept. It is read only where a line is empty,
    /// so a server that sends byte by byte does not make us read it again for each.
    fn take_partial(
        &mut self,
        bytes: &mut &[u8],
        has_body: bool,
    ) -> Result<Option<Head>, DecodeError> {
        while let Some((first, rest)) = bytes.split_first() {
            self.partial.push(*first);
            *bytes = rest;
            let is_end = *first == b'\n'
                && (self.partial.ends_with(b"\n\r\n") || self.partial.ends_with(b"\n\n"));
            if is_end {
                if let Some((head, head_bytes)) = parse(&self.partial, has_body)? {
                    if head_bytes != self.partial.len() {
                        return Err(broken("a head with an empty line inside"));
                    }
                    let taken = std::mem::take(&mut self.partial);
                    self.remember(&taken, head);
                    return Ok(Some(head));
                }
            }
            if self.partial.len() >= HEAD_BYTES_MAX {
                return Err(too_long());
            }
        }
        // What cannot become a head is told now, not when the peer gives up.
        if self.partial.len() <= 16 {
            parse(&self.partial, has_body)?;
        }
        Ok(None)
    }

    fn remember(&mut self, head_bytes: &[u8], head: Head) {
        if head.is_interim() || head_bytes.len() > MEMO_BYTES_MAX {
            return;
        }
        self.memo_bytes.clear();
        self.memo_bytes.extend_from_slice(head_bytes);
        self.memo = Some(head);
    }
}

/// Reads one head; `None` when it is not whole.
fn parse(bytes: &[u8], has_body: bool) -> Result<Option<(Head, usize)>, DecodeError> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut fields,
    );
    let head_bytes = match parsed {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(broken(&format!(
                "a reply with more than {HEADERS_MAX} header fields"
            )));
        }
        Err(error) => return Err(broken(&format!("not an HTTP/1 reply: {error}"))),
    };
    // Both are there when the parse is complete.
    let (status, version) = (
        response.code.unwrap_or_default(),
        response.version.unwrap_or_default(),
    );
    let head = read_fields(status, version, response.headers, has_body)?;
    Ok(Some((head, head_bytes)))
}

fn read_fields(
    status: u16,
    minor_version: u8,
    fields: &[httparse::Header<'_>],
    has_body: bool,
) -> Result<Head, DecodeError> {
    if status == 101 || !(100..=599).contains(&status) {
        return Err(broken(&format!("status {status}, which nobody asked for")));
    }
    let (mut length, mut coding, mut service) = (None, None, None);
    let (mut says_close, mut says_keep) = (false, false);
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            for part in field.value.split(|byte| *byte == b',') {
                let found = read_number(part.trim_ascii())
                    .ok_or_else(|| broken("Content-Length is no number"))?;
                if length.replace(found).is_some_and(|before| before != found) {
                    return Err(broken("two different Content-Lengths"));
                }
            }
        } else if is("transfer-encoding") {
            coding = field
                .value
                .rsplit(|byte| *byte == b',')
                .next()
                .map(<[u8]>::trim_ascii);
        } else if is("connection") {
            for option in field
                .value
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
            {
                says_close |= option.eq_ignore_ascii_case(b"close");
                says_keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is(SERVICE_FIELD) {
            service = read_number(field.value.trim_ascii()).map(Nanos::new);
        }
    }
    if coding.is_some() && minor_version == 0 {
        return Err(broken("Transfer-Encoding in an HTTP/1.0 reply"));
    }
    let has_none = !has_body || status < 200 || status == 204 || status == 304;
    let framing = match (coding, length) {
        _ if has_none => Framing::Length(0),
        (Some(coding), _) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        (Some(_), _) | (None, None) => Framing::UntilClose,
        (None, Some(length)) => Framing::Length(length),
    };
    let is_last =
        says_close || (minor_version == 0 && !says_keep) || framing == Framing::UntilClose;
    Ok(Head {
        status,
        framing,
        is_last: is_last && status >= 200,
        service,
    })
}

pub(super) fn broken(text: &str) -> DecodeError {
    DecodeError::Broken(text.into())
}

fn too_long() -> DecodeError {
    broken(&format!(
        "the head of a reply is longer than {HEAD_BYTES_MAX} bytes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, DecodeError> {
        let mut bytes = text.as_bytes();
        let found = HeadReader::default().take(&mut bytes, true)?;
        assert!(bytes.is_empty());
        Ok(found.expect("a whole head"))
    }

    fn framing(text: &str) -> Framing {
        head(text).unwrap().framing
    }

    #[test]
    fn the_end_of_a_body_follows_from_the_head() {
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
            Framing::Length(7)
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\ncontent-length: 7, 7\r\n\r\n"),
            Framing::Length(7)
        );
        assert_eq!(
            framing(
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
            ),
            Framing::Chunked
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
            Framing::UntilClose
        );
        assert_eq!(framing("HTTP/1.0 200 OK\r\n\r\n"), Framing::UntilClose);
        assert_eq!(
            framing("HTTP/1.1 204 No Content\r\n\r\n"),
            Framing::Length(0)
        );
        assert_eq!(
            framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            Framing::Length(0)
        );
    }

    #[test]
    fn who_closes_is_known_from_version_and_field() {
        let rows = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: foo, Close\r\n\r\n",
                true,
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", true),
        ];
        for (text, is_last) in rows {
            assert_eq!(head(text).unwrap().is_last, is_last, "{text:?}");
        }
    }

    #[test]
    fn heads_that_cannot_be_are_refused_with_what_is_wrong() {
        let rows = [
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "no number"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "two different",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                "no number",
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "HTTP/1.0",
            ),
            ("HTTP/1.1 101 Switching\r\n\r\n", "101"),
            ("HTTP/1.1 700 What\r\n\r\n", "700"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP/1 reply"),
        ];
        for (text, told) in rows {
            let error = head(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_whole_or_in_pieces() {
        for cut in [1, 1000, HEAD_BYTES_MAX * 2] {
            let text = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
            let mut reader = HeadReader::default();
            let told = text
                .as_bytes()
                .chunks(cut)
                .find_map(|mut piece| reader.take(&mut piece, true).err());
            assert!(
                told.unwrap()
                    .to_string()
                    .contains("longer than 65536 bytes")
            );
        }
    }

    #[test]
    fn the_memory_of_the_head_before_changes_nothing() {
        let texts = [
            "HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nDate: 2\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\nDate: 2\r\nContent-Length: 6\r\n\r\n",
        ];
        let mut reader = HeadReader::default();
        for text in texts {
            let mut bytes = text.as_bytes();
            assert_eq!(
                reader.take(&mut bytes, true).unwrap(),
                Some(head(text).unwrap())
            );
            assert!(bytes.is_empty());
        }
        assert_eq!(reader.memo_bytes, texts[2].as_bytes());
    }

    #[test]
    fn the_server_s_own_time_is_read() {
        let told = head("HTTP/1.1 204 No Content\r\nX-Seatrial-Service-Ns: 1234\r\n\r\n").unwrap();
        assert_eq!(told.service, Some(Nanos::new(1234)));
    }
}
