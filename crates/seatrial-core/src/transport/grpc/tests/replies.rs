//! Requests and their replies.

use proptest::prelude::*;

use super::*;

#[test]
fn requests_are_streams_with_the_demand_in_their_message() {
    let mut talk = Talk::new(client(&[], Operation::Spin, 4), &[]);
    talk.out.clear();
    talk.say(10);
    talk.say(11);
    let bytes = talk.out.clone();
    assert_eq!(
        talk.written(),
        ["headers 1", "data 1 21 true", "headers 3", "data 3 21 true"]
    );
    let message = &bytes[bytes.len() - 16..];
    let sent = LoadRequest::read(message).unwrap();
    assert_eq!(
        (sent.argument, sent.operation, sent.payload.len()),
        (77, 2, 3)
    );
    let mut decoder = Decoder::default();
    let length = usize::from(bytes[2]);
    let mut path = Vec::new();
    let note = |name: &[u8], value: &[u8]| {
        if name == b":path" {
            path = value.to_vec();
        }
    };
    decoder.decode(&bytes[9..9 + length], note).unwrap();
    assert_eq!(path, b"/seatrial.v1.Load/Call");
}

#[test]
fn replies_out_of_order_find_their_requests() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 4), &[]);
    (1..=3).for_each(|id| talk.say(id));
    let mut bytes = Vec::new();
    headers(1, OK_HEAD, false, &mut bytes);
    answer(5, b"hello", &mut bytes);
    answer(3, b"hello", &mut bytes);
    append_data(
        1,
        &[&prefix(5)[..], b"hello"].concat(),
        false,
        4,
        &mut bytes,
    );
    append_data(1, b"", false, 4, &mut bytes);
    headers(1, &[("grpc-status", "0")], true, &mut bytes);
    assert_eq!(talk.replies(&bytes), [(3, None), (2, None), (1, None)]);
}

#[test]
fn the_first_byte_of_a_reply_is_its_own() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 4), &[]);
    (1..=2).for_each(|id| talk.say(id));
    let mut first = Vec::new();
    headers(3, OK_HEAD, false, &mut first);
    headers(1, OK_HEAD, false, &mut first);
    talk.client.note_read(&mut talk.state, Nanos::new(10));
    assert_eq!(talk.hear(&first), []);
    let mut second = Vec::new();
    append_data(3, b"\0\0\0\0\x05hello", false, 99, &mut second);
    headers(3, &[("grpc-status", "0")], true, &mut second);
    talk.client.note_read(&mut talk.state, Nanos::new(20));
    assert_eq!(talk.replies(&second), [(2, None)]);
    assert_eq!(talk.client.first_byte_at(&talk.state), Some(Nanos::new(10)));
}

#[test]
fn failures_are_told_in_the_servers_words() {
    let not_found = [("grpc-status", "5"), ("grpc-message", "no %22x%22")];
    let rows: [(&[(&str, &str)], &str); 4] = [
        (
            &[OK_HEAD, &not_found[..]].concat(),
            "grpc-status 5 (NOT_FOUND): no \"x\"",
        ),
        (&[(":status", "404")], "HTTP status 404"),
        (
            &[(":status", "200"), ("content-type", "text/html")],
            "no gRPC",
        ),
        (
            &[(":status", "503"), ("grpc-status", "14")],
            "grpc-status 14 (UNAVAILABLE)",
        ),
    ];
    for (fields, expected) in rows {
        let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 4), &[]);
        talk.say(1);
        let mut bytes = Vec::new();
        headers(1, fields, true, &mut bytes);
        let told = talk.failure(&bytes);
        assert!(told.contains(expected), "{told}");
    }
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 4), &[]);
    (1..=3).for_each(|id| talk.say(id));
    let mut bytes = Vec::new();
    headers(1, &[(":status", "500")], false, &mut bytes);
    append_data(1, b"<html>", true, 99, &mut bytes);
    assert_eq!(talk.failure(&bytes), "HTTP status 500");
    bytes.clear();
    append_reset(3, ErrorCode::REFUSED_STREAM, &mut bytes);
    assert_eq!(
        talk.failure(&bytes),
        "the server reset the stream: REFUSED_STREAM"
    );
    bytes.clear();
    headers(5, OK_HEAD, false, &mut bytes);
    append_data(5, b"\0\0\0\0\x05he", false, 99, &mut bytes);
    headers(5, &[("grpc-status", "4")], true, &mut bytes);
    assert!(talk.failure(&bytes).contains("DEADLINE_EXCEEDED"));
}

#[test]
fn an_echo_that_differs_is_not_ok() {
    for (message, expected) in [
        (&b"hellO"[..], "differs at byte 4: 0x4f, expected 0x6f"),
        (b"hell", "an echo of 4 bytes, expected the 5"),
    ] {
        let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 4), &[]);
        talk.say(1);
        let mut bytes = Vec::new();
        answer(1, message, &mut bytes);
        // In the smallest pieces, so that the prefix is cut as well.
        let mut told = Vec::new();
        for byte in bytes.chunks(1) {
            told.extend(talk.replies(byte));
        }
        let told = told[0].1.as_deref().unwrap();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn our_own_replies_are_read_and_verified() {
    let seed = 5;
    let mut payload = Vec::new();
    wire::append_payload(seed, 20, &mut payload);
    let good = LoadReply {
        service_ns: 123,
        payload: &payload,
        value: wire::checksum(&payload, seed),
        seed,
        ..LoadReply::default()
    };
    let mut damaged = payload.clone();
    damaged[7] ^= 1;
    let bad = LoadReply {
        payload: &damaged,
        ..good
    };
    let short = LoadReply {
        payload: &payload[..9],
        ..good
    };
    let options = [("reply_bytes", "20")];
    for (reply, expected) in [
        (good, None),
        (bad, Some("byte 7")),
        (short, Some("of 9 bytes")),
    ] {
        let mut message = Vec::new();
        reply.append(&mut message);
        for piece in [1, 10, 1000] {
            let mut talk = Talk::new(client(&options, Operation::Checksum, 4), &[]);
            talk.say(1);
            let mut bytes = Vec::new();
            headers(1, OK_HEAD, false, &mut bytes);
            let body = [&prefix(message.len()), message.as_slice()].concat();
            append_data(1, &body, false, piece, &mut bytes);
            headers(1, &[("grpc-status", "0")], true, &mut bytes);
            let told = talk.hear(&bytes);
            let [Ok(Decoded::Reply(told))] = told.as_slice() else {
                panic!("{told:?}")
            };
            assert_eq!(told.service, Some(Nanos::new(123)));
            match expected {
                None => assert_eq!(told.failure, None),
                Some(text) => assert!(told.failure.as_deref().unwrap().contains(text), "{told:?}"),
            }
        }
    }
    let mut talk = Talk::new(client(&options, Operation::Checksum, 4), &[]);
    talk.say(1);
    let mut bytes = Vec::new();
    answer(1, b"\x0b", &mut bytes);
    assert!(talk.failure(&bytes).contains("no seatrial.v1.LoadReply"));
}

#[test]
fn replies_that_are_no_grpc_break_the_connection() {
    type Row<'a> = (&'a dyn Fn(&mut Vec<u8>), &'a str);
    let status = [("grpc-status", "0")];
    let rows: [Row<'_>; 7] = [
        (
            &|out| headers(1, OK_HEAD, true, out),
            "ends without grpc-status",
        ),
        (
            &|out| {
                headers(1, OK_HEAD, false, out);
                append_data(1, b"\0\0\0\0\x05hello", true, 99, out);
            },
            "ends without grpc-status",
        ),
        (
            &|out| headers(1, &[OK_HEAD, &status[..]].concat(), true, out),
            "without a whole message",
        ),
        (
            &|out| append_data(1, b"x", false, 99, out),
            "DATA before HEADERS",
        ),
        (
            &|out| {
                headers(1, OK_HEAD, false, out);
                append_data(1, b"\x01\0\0\0\x01x", false, 99, out);
            },
            "compression flag 1",
        ),
        (&|out| headers(9, OK_HEAD, true, out), "never opened"),
        (&|out| append_data(2, b"x", true, 99, out), "never opened"),
    ];
    for (write, expected) in rows {
        let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 4), &[]);
        talk.say(1);
        let mut bytes = Vec::new();
        write(&mut bytes);
        let told = talk.error(&bytes);
        assert!(told.contains(expected), "{told}");
    }
}

/// What a server sends in good order, for some requests.
fn server_stream(streams: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    settings::append(&[(settings::MAX_CONCURRENT_STREAMS, 3)], &mut bytes);
    frames::append_settings_ack(&mut bytes);
    for stream in streams {
        answer(*stream, b"hello", &mut bytes);
    }
    append_window_update(0, 9, &mut bytes);
    append_go_away(99, ErrorCode::NO_ERROR, "", &mut bytes);
    bytes
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// Damaged streams, cut anywhere, end in replies or an error; what is written stays bounded.
    #[test]
    fn damaged_replies_are_read_or_refused(damage in damage(), cuts in cuts(), own: bool) {
        let options = if own { &[] } else { FOREIGN };
        let mut client = client(options, Operation::Empty, 8);
        let mut state = client.open(0);
        let mut out = Vec::new();
        client.greet(&mut state, &mut out).unwrap();
        (1..=6).for_each(|id| client.encode(&mut state, &request(id), &mut out));
        let bytes = damage.applied_to(&server_stream(&[5, 1, 3, 7, 9, 11]));
        let replies = fuzz::replies_of(&mut client, &mut state, cuts.pieces(&bytes));
        if let Ok(replies) = replies {
            prop_assert!(replies.len() <= 6);
        }
        prop_assert!(state.reader.held_bytes() <= 1 << 17);
    }
}
