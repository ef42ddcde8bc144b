//! Limits, windows, and how connections begin and end.

use super::*;

#[test]
fn a_connection_begins_with_wide_windows_and_its_settings_are_acknowledged() {
    let mut talk = Talk::new(client(&[], Operation::Empty, 4), &[]);
    let told = talk.written();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("Settings"));
    assert_eq!(told[1], "Window { stream: 0, increment: 2147418112 }");
    assert_eq!(told[2], "SettingsAck");
    let mut bytes = Vec::new();
    append_header(8, Kind::Ping, Flags(0), 0, &mut bytes);
    bytes.extend_from_slice(b"abcdefgh");
    assert_eq!(talk.hear(&bytes), []);
    assert_eq!(
        talk.out[..frames::HEADER_BYTES],
        [0, 0, 8, 6, 1, 0, 0, 0, 0]
    );
    assert_eq!(&talk.out[frames::HEADER_BYTES..], b"abcdefgh");
}

#[test]
fn streams_beyond_the_servers_limit_are_held_back_and_counted() {
    let limit = [(settings::MAX_CONCURRENT_STREAMS, 2)];
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 8), &limit);
    talk.out.clear();
    (1..=5).for_each(|id| talk.say(id));
    assert_eq!(talk.written().len(), 4);
    assert_eq!(talk.client.held_back_count(), 3);
    let mut bytes = Vec::new();
    answer(3, b"hello", &mut bytes);
    assert_eq!(talk.replies(&bytes), [(2, None)]);
    assert_eq!(talk.written(), ["headers 5", "data 5 10 true"]);
    bytes.clear();
    settings::append(&[(settings::MAX_CONCURRENT_STREAMS, 100)], &mut bytes);
    assert_eq!(talk.hear(&bytes), []);
    assert_eq!(
        talk.written()[1..],
        ["headers 7", "data 7 10 true", "headers 9", "data 9 10 true"]
    );
    bytes.clear();
    for stream in [9, 5, 1, 7] {
        answer(stream, b"hello", &mut bytes);
    }
    assert_eq!(
        talk.replies(&bytes),
        [(5, None), (3, None), (1, None), (4, None)]
    );
    assert_eq!(talk.client.held_back_count(), 3);
}

#[test]
fn an_abandoned_call_is_cancelled_and_gives_its_stream_to_the_next() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 1), &[]);
    talk.out.clear();
    (1..=4).for_each(|id| talk.say(id));
    assert_eq!(talk.written().len(), 4, "two streams, two requests wait");
    let abandon = |talk: &mut Talk, id| {
        talk.client.abandon(&mut talk.state, id, &mut talk.out);
        talk.written()
    };
    assert_eq!(abandon(&mut talk, 3), [""; 0]);
    assert_eq!(
        abandon(&mut talk, 1),
        ["reset 1 CANCEL", "headers 5", "data 5 10 true"]
    );
    let mut bytes = Vec::new();
    answer(1, b"hello", &mut bytes);
    answer(5, b"hello", &mut bytes);
    assert_eq!(talk.replies(&bytes), [(4, None)]);
}

#[test]
fn a_flood_of_pings_is_not_answered_for_ever() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 1), &[]);
    talk.say(1);
    let mut pings = Vec::new();
    for _ in 0..60_000 {
        append_header(8, Kind::Ping, Flags(0), 0, &mut pings);
        pings.extend_from_slice(b"abcdefgh");
    }
    assert_eq!(talk.hear(&pings), []);
    let mut bytes = Vec::new();
    answer(1, b"hello", &mut bytes);
    assert_eq!(talk.replies(&bytes), [(1, None)]);
    assert_eq!(talk.hear(&pings), [], "a reply came between them");
    let told = talk.error(&pings);
    assert!(told.contains("more than 100000 pings"), "{told}");
}

#[test]
fn requests_stop_at_the_windows_and_go_on() {
    let window = [(settings::INITIAL_WINDOW_SIZE, 4)];
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 8), &window);
    talk.out.clear();
    (1..=2).for_each(|id| talk.say(id));
    assert_eq!(
        talk.written(),
        ["headers 1", "data 1 4 false", "headers 3", "data 3 4 false"]
    );
    let mut bytes = Vec::new();
    append_window_update(3, 100, &mut bytes);
    append_window_update(1, 1, &mut bytes);
    assert_eq!(talk.hear(&bytes), []);
    assert_eq!(talk.written(), ["data 3 6 true", "data 1 1 false"]);
    bytes.clear();
    settings::append(&[(settings::INITIAL_WINDOW_SIZE, 6)], &mut bytes);
    assert_eq!(talk.hear(&bytes), []);
    assert_eq!(talk.written(), ["SettingsAck", "data 1 2 false"]);
    // The server answers without waiting for the rest, which it does not get.
    bytes.clear();
    answer(1, b"hello", &mut bytes);
    append_window_update(1, 100, &mut bytes);
    assert_eq!(talk.replies(&bytes), [(1, None)]);
    assert_eq!(talk.written(), ["reset 1 CANCEL"]);
}

#[test]
fn the_window_of_the_connection_is_shared() {
    let large = "x".repeat(40_000);
    let options = [("method", "/a.B/C"), ("message", large.as_str())];
    let wide = [(settings::INITIAL_WINDOW_SIZE, WINDOW_MAX)];
    let mut talk = Talk::new(client(&options, Operation::Empty, 8), &wide);
    talk.out.clear();
    (1..=3).for_each(|id| talk.say(id));
    let told = talk.written();
    assert_eq!(told[3], "data 1 7237 true");
    assert_eq!(told.last().unwrap(), "headers 5");
    assert_eq!(told[told.len() - 2], "data 3 9146 false");
    let mut bytes = Vec::new();
    append_window_update(0, 100_000, &mut bytes);
    assert_eq!(talk.hear(&bytes), []);
    let told = talk.written();
    assert_eq!(told[0], "data 3 14475 true");
    assert_eq!(told.last().unwrap(), "data 5 7237 true");
}

#[test]
fn a_server_without_a_table_gets_text() {
    let none = [(settings::HEADER_TABLE_SIZE, 0)];
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 8), &none);
    talk.out.clear();
    talk.say(1);
    assert_eq!(talk.out[9], 0x20, "an announcement that the table is empty");
    let first = talk.out.len();
    talk.say(2);
    assert_eq!(talk.out.len(), 2 * first - 1);
}

#[test]
fn a_server_that_goes_away_answers_what_it_has() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 8), &[]);
    (1..=3).for_each(|id| talk.say(id));
    let mut bytes = Vec::new();
    append_go_away(3, ErrorCode::NO_ERROR, "bye", &mut bytes);
    assert_eq!(talk.hear(&bytes), [Ok(Decoded::Closing)]);
    talk.out.clear();
    talk.say(4);
    assert_eq!(talk.written(), Vec::<String>::new());
    assert!(!talk.client.is_spent(&talk.state));
    bytes.clear();
    answer(3, b"hello", &mut bytes);
    answer(1, b"hello", &mut bytes);
    assert_eq!(talk.replies(&bytes), [(2, None), (1, None)]);
    assert!(talk.client.is_spent(&talk.state));
    assert_eq!(talk.written(), Vec::<String>::new());
}

#[test]
fn what_a_server_that_goes_away_left_alone_is_told_once() {
    let mut talk = Talk::new(
        client(FOREIGN, Operation::Empty, 8),
        &[(settings::MAX_CONCURRENT_STREAMS, 4)],
    );
    (1..=6).for_each(|id| talk.say(id)); // 1 to 4 on streams 1 to 7, the others held back
    let unserved = |talk: &mut Talk, last| {
        let (mut bytes, mut unserved) = (Vec::new(), Vec::new());
        append_go_away(last, ErrorCode::NO_ERROR, "bye", &mut bytes);
        assert_eq!(talk.hear(&bytes), [Ok(Decoded::Closing)]);
        talk.client.take_unserved(&mut talk.state, &mut unserved);
        unserved
    };
    // Announced without a number first, as RFC 9113, 6.8 advises.
    assert_eq!(unserved(&mut talk, crate::http2::STREAM_MAX), [5, 6]);
    assert_eq!(unserved(&mut talk, 3), [3, 4]);
    assert!(unserved(&mut talk, 3).is_empty());
    assert!(!talk.client.is_spent(&talk.state));
    let mut bytes = Vec::new();
    answer(1, b"hello", &mut bytes);
    answer(7, b"hello", &mut bytes); // nobody waits for it here any more
    answer(3, b"hello", &mut bytes);
    assert_eq!(talk.replies(&bytes), [(1, None), (2, None)]);
    assert!(talk.client.is_spent(&talk.state) && talk.client.has_served_all(&talk.state));
}

#[test]
fn a_server_that_throws_us_out_says_why() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 8), &[]);
    talk.say(1);
    let mut bytes = Vec::new();
    append_go_away(
        0,
        ErrorCode::ENHANCE_YOUR_CALM,
        "too_many\npings",
        &mut bytes,
    );
    assert_eq!(
        talk.error(&bytes),
        "the server ends the connection: ENHANCE_YOUR_CALM too_many\\npings"
    );
}

#[test]
fn a_connection_without_further_numbers_is_spent() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 8), &[]);
    talk.out.clear();
    talk.state.link.streams.skip_to(crate::http2::STREAM_MAX);
    (1..=2).for_each(|id| talk.say(id));
    assert_eq!(
        talk.written(),
        ["headers 2147483647", "data 2147483647 10 true"]
    );
    assert!(!talk.client.is_spent(&talk.state));
    let mut bytes = Vec::new();
    answer(crate::http2::STREAM_MAX, b"hello", &mut bytes);
    assert_eq!(talk.replies(&bytes), [(1, None)]);
    assert!(talk.client.is_spent(&talk.state));
}

#[test]
fn late_frames_of_closed_streams_are_ignored_but_their_headers_are_remembered() {
    let mut talk = Talk::new(client(FOREIGN, Operation::Empty, 8), &[]);
    (1..=2).for_each(|id| talk.say(id));
    let mut bytes = Vec::new();
    append_reset(1, ErrorCode::CANCEL, &mut bytes);
    append_data(1, b"late", false, 99, &mut bytes);
    let mut remembered = Vec::new();
    encoder::append_remembered(b"grpc-status", b"9", &mut remembered);
    append_header(remembered.len(), Kind::Headers, Flags(5), 1, &mut bytes);
    bytes.extend_from_slice(&remembered);
    headers(3, OK_HEAD, false, &mut bytes);
    append_header(1, Kind::Headers, Flags(5), 3, &mut bytes);
    bytes.push(0xbe);
    let replies = talk.replies(&bytes);
    assert_eq!(replies.len(), 2);
    assert!(
        replies[1]
            .1
            .as_deref()
            .unwrap()
            .contains("FAILED_PRECONDITION")
    );
}
