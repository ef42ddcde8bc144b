//! The client against a server whose bytes the tests write themselves.

mod replies;
mod streams;

use super::*;
use crate::http2::frames::{
    self, Flags, Kind, append_data, append_go_away, append_header, append_reset,
};
use crate::http2::hpack::{Decoder, encoder};
use crate::http2::{ErrorCode, Event, Reader};
use crate::transport::fuzz::{self, cuts, damage};
use crate::transport::options::Options;

const FOREIGN: &[(&str, &str)] = &[
    ("method", "/a.B/C"),
    ("message", "hello"),
    ("expect", "echo"),
];

fn client(pairs: &[(&str, &str)], operation: Operation, depth: u32) -> Grpc {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options: Options = pairs.iter().map(owned).collect();
    let options = GrpcOptions::read(&options).unwrap();
    let target = Target::parse("tcp://127.0.0.1:50051").unwrap();
    Grpc::new(&options, operation, (3, depth), &[target])
}

fn request(request_id: u64) -> Request {
    Request {
        request_id,
        demand: Nanos::new(77),
    }
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        encoder::append_field(name.as_bytes(), value.as_bytes(), &mut block);
    }
    block
}

fn headers(stream: u32, fields: &[(&str, &str)], is_end: bool, out: &mut Vec<u8>) {
    let block = block(fields);
    let end = if is_end { Flags::END_STREAM } else { Flags(0) };
    append_header(
        block.len(),
        Kind::Headers,
        Flags::END_HEADERS.and(end),
        stream,
        out,
    );
    out.extend_from_slice(&block);
}

const OK_HEAD: &[(&str, &str)] = &[
    (":status", "200"),
    ("content-type", "application/grpc+proto"),
];

/// A whole good reply.
fn answer(stream: u32, message: &[u8], out: &mut Vec<u8>) {
    headers(stream, OK_HEAD, false, out);
    append_data(
        stream,
        &[&prefix(message.len()), message].concat(),
        false,
        16_384,
        out,
    );
    headers(stream, &[("grpc-status", "0")], true, out);
}

/// A connection with its client; what it wrote is in `out`.
struct Talk {
    client: Grpc,
    state: GrpcState,
    out: Vec<u8>,
}

impl Talk {
    /// A connection to a server with these settings.
    fn new(client: Grpc, server: &[(u16, u32)]) -> Self {
        let state = client.open(0);
        let out = Vec::new();
        let mut talk = Self { client, state, out };
        assert_eq!(talk.client.greet(&mut talk.state, &mut talk.out), Ok(false));
        assert!(talk.out.starts_with(PREFACE));
        talk.out.drain(..PREFACE.len());
        let mut bytes = Vec::new();
        settings::append(server, &mut bytes);
        assert_eq!(talk.hear(&bytes), [Ok(Decoded::Ready)]);
        talk
    }

    fn say(&mut self, request_id: u64) {
        self.client
            .encode(&mut self.state, &request(request_id), &mut self.out);
    }

    /// All that the bytes give.
    fn hear(&mut self, mut bytes: &[u8]) -> Vec<Result<Decoded, DecodeError>> {
        let mut told = Vec::new();
        while !bytes.is_empty() {
            match self
                .client
                .decode(&mut self.state, &mut bytes, &mut self.out)
            {
                Ok(Decoded::More) => {}
                Err(error) => {
                    told.push(Err(error));
                    break;
                }
                decoded => told.push(decoded),
            }
        }
        told
    }

    fn replies(&mut self, bytes: &[u8]) -> Vec<(u64, Option<Box<str>>)> {
        let told = self.hear(bytes).into_iter().map(|decoded| match decoded {
            Ok(Decoded::Reply(reply)) => (reply.request_id.unwrap(), reply.failure),
            other => panic!("no reply but {other:?}"),
        });
        told.collect()
    }

    /// The one failure that the bytes give.
    fn failure(&mut self, bytes: &[u8]) -> String {
        let replies = self.replies(bytes);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies[0].1.as_deref().unwrap().to_owned()
    }

    fn error(&mut self, bytes: &[u8]) -> String {
        let last = self.hear(bytes).pop();
        last.unwrap().unwrap_err().to_string()
    }

    /// What the client wrote since the last call, as texts.
    fn written(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.out);
        let mut start = Vec::new();
        settings::append(&[], &mut start);
        let bytes = [start, bytes].concat();
        let (mut reader, mut rest, mut told) = (Reader::default(), bytes.as_slice(), Vec::new());
        while let Some(event) = reader.next(&mut rest).unwrap() {
            told.push(match event {
                Event::Data {
                    stream,
                    data,
                    is_end,
                    ..
                } => {
                    format!("data {stream} {} {is_end}", data.len())
                }
                Event::Headers { stream, .. } => format!("headers {stream}"),
                Event::Reset { stream, code } => format!("reset {stream} {}", code.name()),
                other => format!("{other:?}"),
            });
        }
        told.drain(..1);
        told
    }
}
