//! The settings of a gRPC load.

use crate::error::CoreError;
use crate::grpc::load;
use crate::transport::options::{OptionReader, Options};
use crate::transport::rpc::RpcOptions;

/// Longest message and longest metadata that can be written into the options.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const METADATA_BYTES_MAX: usize = 8 << 10;

/// Names that are ours to give, or that HTTP/2 does not allow.
const RESERVED: [&str; 10] = [
    "te",
    "content-type",
    "user-agent",
    "grpc-encoding",
    "grpc-accept-encoding",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
    "host",
];

/// Settings of the gRPC protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcOptions {
    /// The path of the method: `/package.Service/Method`.
    pub method: String,
    /// Whom the requests are for; the address of the target if not given.
    pub authority: Option<String>,
    /// Metadata of each request: names and values.
    pub metadata: Vec<(String, String)>,
    /// The message of each request to another method than our own, if given.
    pub message: Option<Vec<u8>>,
    /// Whether the reply has to be the bytes of the request.
    pub expects_echo: bool,
    /// Settings of the operations of our own method.
    pub rpc: RpcOptions,
}

impl GrpcOptions {
    /// Reads `method`, `authority`, `header` (one `name: value` a line), and for our own method
    /// `reply_bytes` and `touch_bytes`, for another one `message` (text) or `message_hex`, and
    /// `expect` (`any` or `echo`).
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for other names and for values that cannot be.
    pub fn read(options: &Options) -> Result<Self, CoreError> {
        let mut reader = OptionReader::new("grpc", options);
        let method = reader.parsed(
            "method",
            load::METHOD.to_owned(),
            "/package.Service/Method in printable ASCII",
            |text| is_method(text).then(|| text.to_owned()),
        )?;
        let authority = reader.parsed(
            "authority",
            None,
            "HOST or HOST:PORT in printable ASCII, at most 255 bytes",
            |text| is_authority(text).then(|| Some(text.to_owned())),
        )?;
        let metadata = reader.parsed(
            "header",
            Vec::new(),
            "one `name: value` a line, lower-case names that are not reserved, at most 8 KiB",
            metadata,
        )?;
        let mut read = Self {
            method,
            authority,
            metadata,
            message: None,
            expects_echo: false,
            rpc: RpcOptions::default(),
        };
        if read.is_load() {
            read.rpc = RpcOptions::take(&mut reader)?;
        } else {
            read.message = message(&mut reader)?;
            let expected = "any or echo";
            read.expects_echo = reader.parsed("expect", false, expected, |text| match text {
                "any" => Some(false),
                "echo" => Some(true),
                _ => None,
            })?;
        }
        reader.finish().map(|()| read)
    }

    /// Whether the method is our own, which does the operations of the rpc protocol.
    #[must_use]
    pub fn is_load(&self) -> bool {
        self.method == load::METHOD
    }
}

fn message(reader: &mut OptionReader<'_>) -> Result<Option<Vec<u8>>, CoreError> {
    let expected = "at most 1 MiB of text, and not message_hex as well";
    let has_hex = reader.text("message_hex").is_some();
    let text = reader.parsed("message", None, expected, |text| {
        let is_right = !has_hex && text.len() <= MESSAGE_BYTES_MAX;
        is_right.then(|| Some(text.as_bytes().to_vec()))
    })?;
    let expected = "pairs of hexadecimal digits, at most 1 MiB of bytes";
    let bytes = reader.parsed("message_hex", None, expected, |text| {
        unhex(text)
            .filter(|bytes| bytes.len() <= MESSAGE_BYTES_MAX)
            .map(Some)
    })?;
    Ok(text.or(bytes))
}

fn is_method(text: &str) -> bool {
    let is_long_enough = text.len() <= 1024
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.contains('/'));
    is_long_enough && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_authority(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn metadata(text: &str) -> Option<Vec<(String, String)>> {
    if text.len() > METADATA_BYTES_MAX {
        return None;
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let (name, value) = (name.trim(), value.trim());
        let is_letter =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
        let is_name = !name.is_empty() && name.bytes().all(is_letter) && !RESERVED.contains(&name);
        let is_value = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        (is_name && is_value).then(|| (name.to_owned(), value.to_owned()))
    };
    lines.map(pair).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .map(|letter| {
            letter
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let digits = digits?;
    let is_even = digits.len() % 2 == 0;
    is_even.then(|| {
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<GrpcOptions, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = pairs.iter().map(owned).collect();
        GrpcOptions::read(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn our_own_method_is_the_default() {
        let options = read(&[("reply_bytes", "7"), ("header", "a: 1\n\nb-bin:  x y \n")]).unwrap();
        assert!(options.is_load());
        assert_eq!(options.rpc.reply_bytes, 7);
        let pairs = [("a", "1"), ("b-bin", "x y")];
        assert_eq!(
            options.metadata,
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn another_method_has_its_message() {
        let method = ("method", "/a.B/C");
        let text = read(&[method, ("message", "hi"), ("expect", "echo")]).unwrap();
        assert_eq!(
            (text.message, text.expects_echo),
            (Some(b"hi".to_vec()), true)
        );
        let hex = read(&[method, ("message_hex", "00 fF")]).unwrap();
        assert_eq!((hex.message, hex.expects_echo), (Some(vec![0, 255]), false));
        assert_eq!(read(&[method]).unwrap().message, None);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let method = ("method", "/a.B/C");
        let rows: [(&[(&str, &str)], &str); 14] = [
            (&[("method", "a.B/C")], "method"),
            (&[("method", "/a.B")], "method"),
            (&[("method", "/a.B/C d")], "method"),
            (&[("authority", "")], "authority"),
            (&[("header", "Upper: x")], "header"),
            (&[("header", ":path: x")], "header"),
            (&[("header", "te: x")], "header"),
            (&[("header", "a: \u{e4}")], "header"),
            (&[("header", "a")], "header"),
            (&[method, ("message_hex", "0")], "message_hex"),
            (&[method, ("message_hex", "0g")], "message_hex"),
            (
                &[method, ("message_hex", "00"), ("message", "a")],
                "message",
            ),
            (&[method, ("expect", "more")], "expect"),
            (&[("message", "hi")], "message"),
        ];
        for (pairs, name) in rows {
            let told = read(pairs).unwrap_err();
            assert!(told.contains(name), "{pairs:?}: {told}");
        }
    }
}
