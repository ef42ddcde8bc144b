//! The head of a request: its line and header fields.

use super::body::{BODY_BYTES_MAX, Body};
use super::path::{Action, Unknown};
use super::reply::Form;

/// Longest head.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Most header fields.
const FIELDS_MAX: usize = 64;

/// What the head says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is asked for, or why that is nothing.
    pub action: Result<Action, Unknown>,
    /// How the reply has to look.
    pub form: Form,
    /// Whether the client waits before it sends the body.
    pub expects_continue: bool,
    /// The body that follows.
    pub body: Body,
}

/// Why bytes are no head: the status and the text of the reply, after which the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// What was wrong.
    pub text: &'static str,
}

const fn refused(status: u16, text: &'static str) -> Refused {
    Refused { status, text }
}

/// The head at the front of `bytes` and its length, or `None` for one that is not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let limited = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let length = match request.parse(limited) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => {
            return Err(refused(431, "the head is longer than 16 KiB\n"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refused(431, "more than 64 header fields\n"));
        }
        Err(httparse::Error::Version) => {
            return Err(refused(505, "expected HTTP/1.0 or HTTP/1.1\n"));
        }
        Err(_) => return Err(refused(400, "this is no HTTP/1.1 request\n")),
    };
    let is_old = request.version == Some(0);
    let target = request.path.unwrap_or_default();
    let action = match request.method {
        Some("GET" | "HEAD" | "POST") => Action::parse(path_of(target)),
        _ => Err(Unknown {
            status: 405,
            text: "expected GET, HEAD or POST\n",
        }),
    };
    let mut head = Head {
        action,
        form: Form {
            omits_body: request.method == Some("HEAD"),
            is_old,
            closes: is_old,
        },
        expects_continue: false,
        body: Body::NONE,
    };
    let mut framing = Framing::default();
    for field in request.headers.iter() {
        read_field(&mut head, &mut framing, field)?;
    }
    if !is_old && !framing.has_host {
        return Err(refused(400, "expected a Host field\n"));
    }
    head.body = framing.body(is_old)?;
    Ok(Some((head, length)))
}

/// The path of a target that may be a whole URL, as proxies get it.
fn path_of(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://") else {
        return target;
    };
    rest.find('/').map_or("/", |start| &rest[start..])
}

/// What says where the body ends.
#[derive(Default)]
struct Framing {
    has_host: bool,
    length_bytes: Option<u64>,
    is_chunked: bool,
}

impl Framing {
    /// The body; two lengths that disagree are how requests are smuggled, so they are refused.
    fn body(&self, is_old: bool) -> Result<Body, Refused> {
        match (self.length_bytes, self.is_chunked) {
            (Some(_), true) => Err(refused(
                400,
                "Content-Length and Transfer-Encoding together\n",
            )),
            (None, true) if is_old => Err(refused(400, "chunks need HTTP/1.1\n")),
            (None, true) => Ok(Body::CHUNKED),
            (Some(bytes), false) if bytes > BODY_BYTES_MAX => {
                Err(refused(413, "the body is longer than 1 MiB\n"))
            }
            (length_bytes, false) => Ok(Body::Sized {
                left_bytes: length_bytes.unwrap_or(0),
            }),
        }
    }
}

fn read_field(
    head: &mut Head,
    framing: &mut Framing,
    field: &httparse::Header<'_>,
) -> Result<(), Refused> {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name);
    let has = |word: &str| {
        let mut words = field.value.split(|byte| *byte == b',');
        words.any(|found| found.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    if is("host") {
        framing.has_host = true;
    } else if is("content-length") {
        let length = length_of(field.value).ok_or(refused(400, "Content-Length is no number\n"))?;
        if framing.length_bytes.is_some_and(|other| other != length) {
            return Err(refused(400, "two different Content-Lengths\n"));
        }
        framing.length_bytes = Some(length);
    } else if is("transfer-encoding") {
        let is_only_chunked = field.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !is_only_chunked || framing.is_chunked {
            return Err(refused(501, "the only transfer coding known is chunked\n"));
        }
        framing.is_chunked = true;
    } else if is("connection") {
        if has("close") {
            head.form.closes = true;
        } else if head.form.is_old && has("keep-alive") {
            head.form.closes = false;
        }
    } else if is("expect") {
        if !has("100-continue") {
            return Err(refused(417, "the only expectation known is 100-continue\n"));
        }
        head.expects_continue = !head.form.is_old;
    }
    Ok(())
}

fn length_of(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // More digits than a number has are a body that is too large, not a wrong text.
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Head {
        let (head, length) = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(length, text.len());
        head
    }

    #[test]
    fn heads_are_read() {
        let plain = head("GET /ok HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(plain.action, Ok(Action::Okay));
        assert!(!plain.form.closes && !plain.form.omits_body && plain.body.is_whole());
        let posted = head(
            "POST http://x:1/echo HTTP/1.1\r\nhost: x\r\nConnection: foo, Close\r\n\
             Expect: 100-continue\r\ncontent-length: 7\r\n\r\n",
        );
        assert_eq!(posted.action, Ok(Action::Echo));
        assert!(posted.form.closes && posted.expects_continue);
        assert_eq!(posted.body, Body::Sized { left_bytes: 7 });
        let chunked = head("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n");
        assert_eq!(chunked.body, Body::CHUNKED);
        assert!(head("GET / HTTP/1.0\r\n\r\n").form.closes);
        assert!(
            !head("HEAD / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                .form
                .closes
        );
        let deleted = head("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(deleted.action.unwrap_err().status, 405);
    }

    #[test]
    fn what_is_no_head_is_told() {
        let host = "GET / HTTP/1.1\r\nHost: x\r\n";
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("\0\u{1}\u{2}".to_owned(), 400),
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
            (format!("{host}Content-Length: -1\r\n\r\n"), 400),
            (
                format!("{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
                400,
            ),
            (
                format!("{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
                400,
            ),
            (format!("{host}Content-Length: 1048577\r\n\r\n"), 413),
            (
                format!("{host}Content-Length: 99999999999999999999\r\n\r\n"),
                413,
            ),
            (
                format!("{host}Transfer-Encoding: gzip, chunked\r\n\r\n"),
                501,
            ),
            (
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
                400,
            ),
            (format!("{host}Expect: gold\r\n\r\n"), 417),
            (format!("{host}{}\r\n", "a: b\r\n".repeat(64)), 431),
            (format!("{host}a: {}", "b".repeat(HEAD_BYTES_MAX)), 431),
        ] {
            let told = parse(text.as_bytes()).unwrap_err();
            assert_eq!(told.status, status, "{:?}", &text[..text.len().min(80)]);
        }
        assert_eq!(parse(b"GET / HT"), Ok(None));
        assert_eq!(parse(b""), Ok(None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// A head with damage is read, wanted more of, or refused; it is never longer than given.
        #[test]
        fn damaged_heads_never_panic(
            damages in prop::collection::vec((0..120usize, any::<u8>()), 0..5), cut in 0..120usize,
        ) {
            let mut bytes = b"POST /spin/100us?a=b HTTP/1.1\r\nHost: example\r\nContent-Length: 12\r\n\
                Connection: keep-alive\r\nExpect: 100-continue\r\n\r\n".to_vec();
            for (offset, value) in damages {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len().min(cut.max(20)));
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
