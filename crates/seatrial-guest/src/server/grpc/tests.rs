//! The service against clients whose bytes the tests write themselves.

use proptest::prelude::*;
use seatrial_core::grpc::load::{LoadReply, LoadRequest};
use seatrial_core::grpc::prefix;
use seatrial_core::http2::frames::{Flags, Kind, append_data, append_header};
use seatrial_core::http2::hpack::{Decoder, encoder};
use seatrial_core::wire::checksum;

use super::*;
use crate::server::stats::Stats;
use crate::server::work::Memory;
use crate::spin::Spinner;

const ECHO_PATH: &str = "/any.Service/Echo";

fn request_head(stream: u32, path: &str, is_end: bool, out: &mut Vec<u8>) {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        ("content-type", "application/grpc+proto"),
    ] {
        encoder::append_field(name.as_bytes(), value.as_bytes(), &mut block);
    }
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

fn body(message: &[u8]) -> Vec<u8> {
    [&prefix(message.len()), message].concat()
}

fn call(stream: u32, path: &str, message: &[u8], out: &mut Vec<u8>) {
    request_head(stream, path, false, out);
    append_data(stream, &body(message), true, 16_384, out);
}

fn client_start(own: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    settings::append(own, &mut bytes);
    bytes
}

/// One connection to the service.
struct Talk {
    grpc: Grpc,
    memory: Memory,
    stats: Stats,
    reader: Reader,
    decoder: Decoder,
    /// Input that the service has not used.
    kept: Vec<u8>,
    flush_count: usize,
    is_closed: bool,
}

impl Talk {
    fn new(own: &[(u16, u32)]) -> Self {
        let mut talk = Self {
            grpc: Grpc::new(1, 2),
            memory: Memory::new(),
            stats: Stats::default(),
            reader: Reader::default(),
            decoder: Decoder::default(),
            kept: Vec::new(),
            flush_count: 0,
            is_closed: false,
        };
        let told = talk.say(&client_start(own));
        assert_eq!(told[0][..8], *"Settings", "{told:?}");
        assert_eq!(told.last().unwrap(), "SettingsAck");
        talk
    }

    /// Serves as a connection does; all that was answered, as texts.
    fn say(&mut self, bytes: &[u8]) -> Vec<String> {
        let output = self.serve(bytes);
        let (mut rest, mut told) = (output.as_slice(), Vec::new());
        while let Some(event) = self.reader.next(&mut rest).unwrap() {
            told.push(match event {
                Event::Headers {
                    stream,
                    block,
                    is_end,
                } => {
                    let mut fields = Vec::new();
                    let mut note = |name: &[u8], value: &[u8]| {
                        fields.push(format!("{}={}", name.escape_ascii(), value.escape_ascii()));
                    };
                    self.decoder.decode(block, &mut note).unwrap();
                    format!("{stream} {} {is_end}", fields.join(" "))
                }
                Event::Data { stream, data, .. } => format!("{stream} {}", data.escape_ascii()),
                Event::Reset { stream, code } => format!("{stream} reset {}", code.name()),
                Event::GoAway {
                    last_stream,
                    code,
                    text,
                } => {
                    format!(
                        "go away {last_stream} {} {}",
                        code.name(),
                        text.escape_ascii()
                    )
                }
                other => format!("{other:?}"),
            });
        }
        told
    }

    fn serve(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(bytes);
        let mut all = Vec::new();
        let mut tools = Tools::new(Spinner::detect(), &mut self.memory, &self.stats);
        tools.read_now();
        loop {
            let mut output = Vec::new();
            let step = self.grpc.serve(&self.kept, &mut output, &mut tools);
            self.kept.drain(..step.used_bytes);
            all.extend_from_slice(&output);
            match step.next {
                Next::Flush => {
                    assert!(step.used_bytes > 0 || !output.is_empty(), "no progress");
                    self.flush_count += 1;
                }
                Next::Read { .. } => return all,
                Next::Close => {
                    self.is_closed = true;
                    return all;
                }
                Next::Mirror => panic!("a mirror"),
            }
        }
    }
}

const HEAD: &str = ":status=200 content-type=application/grpc";

#[test]
fn any_method_but_our_own_echoes() {
    let mut talk = Talk::new(&[]);
    for stream in [1, 3, 7] {
        let mut bytes = Vec::new();
        call(stream, ECHO_PATH, b"hello", &mut bytes);
        let expected = [
            format!("{stream} {HEAD} false"),
            format!("{stream} \\x00\\x00\\x00\\x00\\x05hello"),
            format!("{stream} grpc-status=0 true"),
        ];
        assert_eq!(talk.say(&bytes), expected);
    }
    assert_eq!(talk.grpc.link.streams.open_count(), 0);
}

#[test]
fn pieces_and_interleaved_requests_are_put_together() {
    let mut bytes = client_start(&[]);
    request_head(1, ECHO_PATH, false, &mut bytes);
    request_head(3, ECHO_PATH, false, &mut bytes);
    append_data(1, &body(b"first")[..7], false, 2, &mut bytes);
    append_data(3, &body(b"second"), true, 4, &mut bytes);
    append_data(1, b"rst", true, 2, &mut bytes);
    for piece in 1..bytes.len() {
        let mut talk = Talk::new(&[]);
        let start = client_start(&[]).len();
        let mut told = Vec::new();
        for part in bytes[start..].chunks(piece) {
            told.extend(talk.say(part));
        }
        assert_eq!(told.len(), 6);
        assert!(
            told[1].ends_with("second") && told[4].ends_with("first"),
            "{told:?}"
        );
    }
}

#[test]
fn our_own_method_does_the_operations() {
    let payload = b"some payload";
    let request = LoadRequest {
        argument: checksum(payload, 0),
        operation: 1,
        payload,
        reply_bytes: 100,
    };
    let mut message = Vec::new();
    request.append(&mut message);
    let mut talk = Talk::new(&[]);
    let mut bytes = Vec::new();
    call(1, METHOD, &message, &mut bytes);
    let output = talk.serve(&bytes);
    let (mut rest, mut found) = (output.as_slice(), false);
    let mut reader = Reader::default();
    let mut start = Vec::new();
    settings::append(&[], &mut start);
    assert!(reader.next(&mut start.as_slice()).unwrap().is_some());
    while let Some(event) = reader.next(&mut rest).unwrap() {
        if let Event::Data { data, .. } = event {
            let reply = LoadReply::read(&data[5..]).unwrap();
            assert_eq!(reply.payload.len(), 100);
            assert_eq!(checksum(reply.payload, reply.seed), reply.value);
            assert_ne!(reply.instance, 0);
            found = true;
        }
    }
    assert!(found);
}

#[test]
fn what_our_method_cannot_do_has_a_status() {
    let damaged = LoadRequest {
        operation: 1,
        payload: b"x",
        ..LoadRequest::default()
    };
    let unknown = LoadRequest {
        operation: 9,
        ..LoadRequest::default()
    };
    let too_long = LoadRequest {
        operation: 3,
        argument: u64::MAX,
        ..LoadRequest::default()
    };
    let rows = [
        (damaged, "grpc-status=15"),
        (unknown, "grpc-status=3"),
        (too_long, "grpc-status=8"),
    ];
    let mut talk = Talk::new(&[]);
    for (stream, (request, expected)) in (1..).step_by(2).zip(rows) {
        let (mut message, mut bytes) = (Vec::new(), Vec::new());
        request.append(&mut message);
        call(stream, METHOD, &message, &mut bytes);
        let told = talk.say(&bytes);
        assert!(
            told[0].contains(expected) && told[0].ends_with("true"),
            "{told:?}"
        );
    }
    let mut bytes = Vec::new();
    call(7, METHOD, b"\x0b", &mut bytes);
    assert!(talk.say(&bytes)[0].contains("grpc-status=3 grpc-message=the message holds"));
}

#[test]
fn replies_do_not_wait_for_a_request_that_takes_time() {
    let mut talk = Talk::new(&[]);
    let (mut message, mut bytes) = (Vec::new(), Vec::new());
    LoadRequest {
        operation: 3,
        ..LoadRequest::default()
    }
    .append(&mut message);
    call(1, ECHO_PATH, b"quick", &mut bytes);
    call(3, METHOD, &message, &mut bytes);
    call(5, ECHO_PATH, b"behind", &mut bytes);
    talk.flush_count = 0;
    let told = talk.say(&bytes);
    assert_eq!(told.len(), 9);
    assert!(
        told[1].ends_with("quick") && told[7].ends_with("behind"),
        "{told:?}"
    );
    assert_eq!(talk.flush_count, 2, "before and after the sleep");
}

#[test]
fn windows_of_the_peer_hold_replies_back() {
    let mut talk = Talk::new(&[(settings::INITIAL_WINDOW_SIZE, 6)]);
    let mut bytes = Vec::new();
    call(1, ECHO_PATH, b"hello", &mut bytes);
    call(3, ECHO_PATH, b"", &mut bytes);
    let told = talk.say(&bytes);
    assert_eq!(told[1], "1 \\x00\\x00\\x00\\x00\\x05h");
    assert_eq!(told[4], "3 grpc-status=0 true");
    assert!(talk.grpc.held_bytes() >= 10);
    bytes.clear();
    append_window_update(1, 3, &mut bytes);
    assert_eq!(talk.say(&bytes), ["1 ell"]);
    bytes.clear();
    settings::append(&[(settings::INITIAL_WINDOW_SIZE, 100)], &mut bytes);
    assert_eq!(
        talk.say(&bytes),
        ["SettingsAck", "1 o", "1 grpc-status=0 true"]
    );
    assert_eq!(talk.grpc.link.replies.blocked_count(), 0);
    assert_eq!(talk.grpc.link.replies.held_bytes(), 0);
}

#[test]
fn what_is_reset_is_forgotten() {
    let mut talk = Talk::new(&[(settings::INITIAL_WINDOW_SIZE, 0)]);
    let mut bytes = Vec::new();
    call(1, ECHO_PATH, b"hello", &mut bytes);
    request_head(3, ECHO_PATH, false, &mut bytes);
    append_data(3, &body(b"cut")[..6], false, 99, &mut bytes);
    append_reset(3, ErrorCode::CANCEL, &mut bytes);
    append_reset(1, ErrorCode::CANCEL, &mut bytes);
    append_data(3, b"late", false, 99, &mut bytes);
    assert_eq!(talk.say(&bytes), [format!("1 {HEAD} false")]);
    let link = &talk.grpc.link;
    assert_eq!(
        (link.streams.held_bytes(), link.replies.held_bytes()),
        (0, 0)
    );
}

#[test]
fn requests_that_are_no_grpc_are_told_so() {
    let mut talk = Talk::new(&[]);
    let mut bytes = Vec::new();
    let mut block = Vec::new();
    encoder::append_field(b":method", b"GET", &mut block);
    append_header(block.len(), Kind::Headers, Flags(5), 1, &mut bytes);
    bytes.extend_from_slice(&block);
    assert_eq!(talk.say(&bytes), ["1 :status=415 true"]);
    for (stream, message, expected) in [
        (3, &b"\x01\0\0\0\x01x"[..], "grpc-status=12"),
        (5, b"\0\xff\0\0\0", "grpc-status=8"),
        (7, b"\0\0\0\0\0x", "grpc-status=3"),
        (9, b"\0\0\0\0\x05x", "grpc-status=3"),
    ] {
        bytes.clear();
        request_head(stream, ECHO_PATH, false, &mut bytes);
        append_data(stream, message, true, 99, &mut bytes);
        let told = talk.say(&bytes);
        assert!(told[0].contains(expected), "{told:?}");
    }
}

#[test]
fn breaches_end_the_connection_with_their_code() {
    let rows: [(&[u8], &str); 4] = [
        (
            &[0, 0, 1, 0, 0, 0, 0, 0, 9, 0],
            "go away 0 PROTOCOL_ERROR a frame on stream 9",
        ),
        (
            &[0, 0, 1, 1, 5, 0, 0, 0, 2, 0x82],
            "go away 0 PROTOCOL_ERROR HEADERS on stream 2",
        ),
        (
            &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0xff],
            "go away 0 COMPRESSION_ERROR",
        ),
        (
            &[0xff, 0, 0, 0, 0, 0, 0, 0, 1],
            "go away 0 FRAME_SIZE_ERROR",
        ),
    ];
    for (bytes, expected) in rows {
        let mut talk = Talk::new(&[]);
        let told = talk.say(bytes);
        assert!(told[0].starts_with(expected), "{told:?}");
        assert!(talk.is_closed);
    }
    let mut grpc = Grpc::new(1, 2);
    let (mut memory, stats) = (Memory::new(), Stats::default());
    let mut tools = Tools::new(Spinner::detect(), &mut memory, &stats);
    let step = grpc.serve(b"GET / HTTP/1.1", &mut Vec::new(), &mut tools);
    assert_eq!(step.next, Next::Close);
}

#[test]
fn streams_are_bounded() {
    let mut talk = Talk::new(&[]);
    let mut bytes = Vec::new();
    for stream in (1..).step_by(2).take(STREAMS_MAX as usize + 1) {
        request_head(stream, ECHO_PATH, false, &mut bytes);
    }
    assert_eq!(talk.say(&bytes), ["2049 reset REFUSED_STREAM"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12_000))]

    /// Damaged requests, cut anywhere, are answered or refused, and what is held stays bounded.
    #[test]
    fn damaged_requests_are_served_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        piece in 1..200usize,
    ) {
        let mut bytes = Vec::new();
        let mut message = Vec::new();
        // Of a length that is the number of no operation, so that no damage makes it sleep.
        LoadRequest { operation: 0, payload: b"sevenXX", ..LoadRequest::default() }.append(&mut message);
        for stream in [1, 3, 5] {
            call(stream, if stream == 3 { METHOD } else { ECHO_PATH }, &message, &mut bytes);
        }
        append_window_update(0, 5, &mut bytes);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1).max(1));
        let mut talk = Talk::new(&[(settings::INITIAL_WINDOW_SIZE, 7)]);
        for part in bytes.chunks(piece) {
            if talk.is_closed {
                break;
            }
            talk.serve(part);
            prop_assert!(talk.grpc.held_bytes() < 1 << 17);
        }
    }
}
