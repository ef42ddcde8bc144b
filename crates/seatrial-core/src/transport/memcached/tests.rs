//! Both dialects: requests as bytes, replies out of any cut of a stream, and damaged streams.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::transport::fuzz;
use crate::transport::keys::MISS;
use crate::units::Nanos;

fn memcached(pairs: &[(&str, &str)]) -> Memcached {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut options: Options = pairs.iter().map(own).collect();
    options.entry("keys".to_owned()).or_insert("5".to_owned());
    options
        .entry("key_bytes".to_owned())
        .or_insert("4".to_owned());
    options
        .entry("popularity".to_owned())
        .or_insert("round-robin".to_owned());
    options
        .entry("value_bytes".to_owned())
        .or_insert("20".to_owned());
    Memcached::new(MemcachedOptions::read(&options, 1).unwrap())
}

/// A connection on which requests 0 to `count - 1` were sent.
fn asked(memcached: &mut Memcached, count: u64) -> (MemcachedState, Vec<u8>) {
    let mut state = memcached.open(0);
    let mut out = Vec::new();
    for request_id in 0..count {
        let request = Request {
            request_id,
            demand: Nanos::ZERO,
        };
        memcached.encode(&mut state, &request, &mut out);
    }
    (state, out)
}

fn value(memcached: &Memcached, key: u64) -> Vec<u8> {
    let mut out = Vec::new();
    memcached.options.keys.append_value(key, &mut out);
    out
}

/// What a server answers to the reads 0 to 4: three values and two misses.
fn answers(memcached: &Memcached) -> Vec<u8> {
    let mut out = Vec::new();
    for id in 0..5u64 {
        let is_meta = memcached.options.dialect == Dialect::Meta;
        let is_there = id % 2 == 0;
        let line = match (is_meta, is_there) {
            (true, true) => format!("VA 20 O{id}\r\n"),
            (true, false) => "EN\r\n".to_owned(),
            (false, true) => format!("VALUE {id:04} 0 20\r\n"),
            (false, false) => String::new(),
        };
        out.extend_from_slice(line.as_bytes());
        if is_there {
            out.extend_from_slice(&value(memcached, id));
            out.extend_from_slice(b"\r\n");
        }
        if !is_meta {
            out.extend_from_slice(b"END\r\n");
        }
    }
    out
}

/// What the server's answer to one request comes to.
fn outcome(memcached: &mut Memcached, answer: &[u8]) -> Result<Option<String>, String> {
    let (mut state, _) = asked(memcached, 1);
    let found = fuzz::replies_of(memcached, &mut state, answer.chunks(3));
    let found = found.map_err(|error| error.to_string())?;
    assert_eq!(found.len(), 1, "{:?}", readable(answer));
    Ok(found[0].failure.as_deref().map(str::to_owned))
}

#[test]
fn requests_are_written_in_both_dialects() {
    let (_, bytes) = asked(&mut memcached(&[("read_ratio", "1")]), 2);
    assert_eq!(bytes, b"get 0000\r\nget 0001\r\n");
    let (_, bytes) = asked(
        &mut memcached(&[("read_ratio", "1"), ("dialect", "meta")]),
        2,
    );
    assert_eq!(bytes, b"mg 0000 v O0\r\nmg 0001 v O1\r\n");
    for (dialect, line) in [
        ("text", "set 0000 0 0 20\r\n"),
        ("meta", "ms 0000 20 O0\r\n"),
    ] {
        let mut memcached = memcached(&[("read_ratio", "0"), ("dialect", dialect)]);
        let (_, bytes) = asked(&mut memcached, 1);
        let expected = [line.as_bytes(), &value(&memcached, 0), b"\r\n"].concat();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn a_stream_gives_the_same_replies_however_it_is_cut() {
    for dialect in ["text", "meta"] {
        let mut memcached = memcached(&[("read_ratio", "1"), ("dialect", dialect)]);
        let stream = answers(&memcached);
        for cut in 1..=stream.len() {
            let (mut state, _) = asked(&mut memcached, 5);
            let found = fuzz::replies_of(&mut memcached, &mut state, stream.chunks(cut)).unwrap();
            assert!(found.iter().all(Reply::is_ok), "{found:?}");
            let notes: Vec<_> = found.iter().map(|reply| reply.note).collect();
            assert_eq!(notes, [None, Some(MISS), None, Some(MISS), None]);
            let ids: Vec<_> = found.iter().map(|reply| reply.request_id).collect();
            assert_eq!(ids, (0..5).map(Some).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_stray_line_ends_the_connection_and_shifts_no_reply() {
    let rows = [
        ("0", "ERROR", "STORED"),
        ("0", "CLIENT_ERROR bad data chunk", "ERROR"),
        ("1", "ERROR", "END"),
    ];
    for (read_ratio, stray, next) in rows {
        for dialect in ["text", "meta"] {
            let mut memcached = memcached(&[("read_ratio", read_ratio), ("dialect", dialect)]);
            let (mut state, _) = asked(&mut memcached, 2);
            let answer = format!("{stray}\r\n{next}\r\n");
            let found = fuzz::replies_of(&mut memcached, &mut state, answer.as_bytes().chunks(5));
            let told = found.unwrap_err().to_string();
            assert!(told.contains(stray), "{told}");
            assert!(told.contains("read a part of a request"), "{told}");
        }
    }
    let mut read = memcached(&[("read_ratio", "1")]);
    let told = outcome(&mut read, b"CLIENT_ERROR x\r\n").unwrap();
    assert_eq!(
        told.as_deref(),
        Some("CLIENT_ERROR x"),
        "nothing follows a read"
    );
}

#[test]
fn errors_of_the_server_are_failures_with_their_text() {
    let rows = [
        ("text", "STORED", None),
        ("text", "NOT_STORED", Some("NOT_STORED")),
        (
            "text",
            "SERVER_ERROR out of memory storing object",
            Some("SERVER_ERROR out of memory storing object"),
        ),
        ("meta", "HD O0", None),
        ("meta", "NS O0", Some("NS")),
        ("meta", "SERVER_ERROR x", Some("SERVER_ERROR x")),
    ];
    for (dialect, line, failure) in rows {
        let mut memcached = memcached(&[("read_ratio", "0"), ("dialect", dialect)]);
        let found = outcome(&mut memcached, format!("{line}\r\n").as_bytes()).unwrap();
        assert_eq!(found.as_deref(), failure, "{line}");
    }
    let mut strict = memcached(&[("read_ratio", "1"), ("miss", "error")]);
    assert_eq!(
        outcome(&mut strict, b"END\r\n").unwrap().as_deref(),
        Some(MISS)
    );
}

#[test]
fn a_wrong_value_is_found() {
    let mut memcached = memcached(&[("read_ratio", "1")]);
    let right = value(&memcached, 0);
    let answer = |value: &[u8]| {
        [
            format!("VALUE 0000 0 {}\r\n", value.len()).as_bytes(),
            value,
            b"\r\nEND\r\n",
        ]
        .concat()
    };
    assert_eq!(outcome(&mut memcached, &answer(&right)), Ok(None));
    let mut flipped = right.clone();
    flipped[13] ^= 4;
    let told = outcome(&mut memcached, &answer(&flipped)).unwrap().unwrap();
    assert_eq!(told, "value differs at byte 13 of 20, for key 0000");
    let other = value(&memcached, 1);
    let told = outcome(&mut memcached, &answer(&other)).unwrap().unwrap();
    assert!(told.starts_with("value differs at byte 0"), "{told}");
    let told = outcome(&mut memcached, &answer(&right[..19]))
        .unwrap()
        .unwrap();
    assert!(told.contains("19 bytes, expected 20"), "{told}");
}

#[test]
fn what_is_no_reply_breaks_the_connection() {
    let rows = [
        (
            "text",
            "1",
            "VALUE 0001 0 2\r\nab\r\nEND\r\n",
            "expected \"0000\"",
        ),
        ("text", "1", "VALUE 0000 0 x\r\n", "without a length"),
        (
            "text",
            "1",
            "VALUE 0000 0 99999999999\r\n",
            "longer than 1 GiB",
        ),
        (
            "text",
            "1",
            "VALUE 0000 0 1\r\nabc\r\n",
            "longer than it says",
        ),
        ("text", "1", "STORED\r\n", "to a read"),
        ("text", "0", "END\r\n", "to a write"),
        ("meta", "1", "VA 1 O7\r\n", "expected 0"),
        ("meta", "0", "HD\r\n", "expected 0"),
        ("text", "1", "END\r\nEND\r\n", "nobody asked"),
    ];
    for (dialect, ratio, answer, told) in rows {
        let mut memcached = memcached(&[("read_ratio", ratio), ("dialect", dialect)]);
        let error = outcome(&mut memcached, answer.as_bytes()).unwrap_err();
        assert!(error.contains(told), "{answer:?}: {error}");
    }
    let long = "x".repeat(LINE_BYTES_MAX + 3);
    let error = outcome(&mut memcached(&[]), long.as_bytes()).unwrap_err();
    assert!(error.contains("2048 bytes"), "{error}");
}

#[test]
fn a_preload_writes_every_key_once() {
    let of = |is_preloaded: &str| {
        memcached(&[("preload", is_preloaded), ("popularity", "zipf:skew=1")]).options
    };
    assert!(of("false").for_preload().is_none());
    let (options, count) = of("true").for_preload().unwrap();
    let (_, bytes) = asked(&mut Memcached::new(options), count);
    let mut expected = String::new();
    for key in 0..count {
        write!(expected, "set {key:04} ").unwrap();
    }
    let text = String::from_utf8_lossy(&bytes);
    let found: String = text
        .split("\r\n")
        .filter(|line| line.starts_with("set "))
        .map(|line| &line[..9])
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    for (name, value) in [
        ("dialect", "binary"),
        ("key_bytes", "251"),
        ("read_ratio", "1.5"),
        ("kes", "1"),
    ] {
        let options = Options::from([(name.to_owned(), value.to_owned())]);
        let error = MemcachedOptions::read(&options, 1).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// Whatever is done to a stream of replies, reading it ends, with replies or with an error.
    #[test]
    fn damaged_streams_end(is_meta in any::<bool>(), damage in fuzz::damage(), cuts in fuzz::cuts()) {
        let dialect = if is_meta { "meta" } else { "text" };
        let mut memcached = memcached(&[("read_ratio", "1"), ("dialect", dialect)]);
        let stream = damage.applied_to(&answers(&memcached));
        let (mut state, _) = asked(&mut memcached, 5);
        match fuzz::replies_of(&mut memcached, &mut state, cuts.pieces(&stream)) {
            Ok(replies) => prop_assert!(replies.len() <= 5),
            Err(error) => prop_assert!(error.to_string().contains("memcached") || error.to_string().contains("line")),
        }
    }
}
