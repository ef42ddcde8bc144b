//! Requests as bytes, replies out of any cut of a stream, and damaged streams.

use proptest::prelude::*;

use super::*;
use crate::transport::fuzz;
use crate::transport::keys::MISS;
use crate::units::Nanos;

fn resp(pairs: &[(&str, &str)]) -> Resp {
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
    Resp::new(RespOptions::read(&options, 1).unwrap())
}

/// A connection on which requests 0 to `count - 1` were sent.
fn asked(resp: &mut Resp, count: u64) -> (RespState, Vec<u8>) {
    let mut state = resp.open(0);
    let mut out = Vec::new();
    assert_eq!(resp.greet(&mut state, &mut out), Ok(true));
    for request_id in 0..count {
        let request = Request {
            request_id,
            demand: Nanos::new(9),
        };
        resp.encode(&mut state, &request, &mut out);
    }
    (state, out)
}

fn value(resp: &Resp, key: u64) -> Vec<u8> {
    let mut out = Vec::new();
    resp.options.keys.append_value(key, &mut out);
    out
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// What the server's answer to one request comes to.
fn outcome(resp: &mut Resp, answer: &[u8]) -> Result<Reply, String> {
    let (mut state, _) = asked(resp, 1);
    let found =
        fuzz::replies_of(resp, &mut state, answer.chunks(3)).map_err(|error| error.to_string())?;
    assert_eq!(found.len(), 1, "{:?}", String::from_utf8_lossy(answer));
    Ok(found[0].clone())
}

fn failure(resp: &mut Resp, answer: &[u8]) -> Option<String> {
    outcome(resp, answer).unwrap().failure.map(String::from)
}

#[test]
fn requests_are_written_as_arrays_of_texts() {
    let (_, bytes) = asked(&mut resp(&[("read_ratio", "1")]), 2);
    assert_eq!(
        bytes,
        b"*2\r\n$3\r\nGET\r\n$4\r\n0000\r\n*2\r\n$3\r\nGET\r\n$4\r\n0001\r\n"
    );
    let mut writer = resp(&[("read_ratio", "0")]);
    let (_, bytes) = asked(&mut writer, 1);
    let expected = [
        b"*3\r\n$3\r\nSET\r\n$4\r\n0000\r\n".as_slice(),
        &bulk(&value(&writer, 0)),
    ]
    .concat();
    assert_eq!(bytes, expected);
    let (_, bytes) = asked(
        &mut resp(&[("command", "RPUSH  l{id} {key} x{demand_ns}")]),
        1,
    );
    assert_eq!(
        bytes,
        b"*4\r\n$5\r\nRPUSH\r\n$2\r\nl0\r\n$4\r\n0000\r\n$2\r\nx9\r\n"
    );
}

#[test]
fn replies_of_every_kind_are_read_however_they_are_cut() {
    let mut resp = resp(&[("command", "ANY")]);
    let replies: [&[u8]; 17] = [
        b"+OK\r\n",
        b"+QUEUED\r\n",
        b":-42\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"$-1\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*2\r\n*2\r\n:1\r\n$1\r\nx\r\n*1\r\n*0\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5e3\r\n",
        b"(12345678901234567890\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"%1\r\n+a\r\n:1\r\n",
        b"~1\r\n+a\r\n",
        b">1\r\n+pushed\r\n+OK\r\n",
    ];
    let stream = replies.concat();
    for cut in 1..=stream.len() {
        let (mut state, _) = asked(&mut resp, replies.len() as u64);
        let found = fuzz::replies_of(&mut resp, &mut state, stream.chunks(cut)).unwrap();
        assert_eq!(found, vec![Reply::default(); replies.len()], "cut at {cut}");
    }
}

#[test]
fn errors_of_the_server_are_failures_with_their_text() {
    let mut any = resp(&[("command", "ANY")]);
    let told = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(
        failure(&mut any, format!("-{told}\r\n").as_bytes()).as_deref(),
        Some(told)
    );
    assert_eq!(
        failure(&mut any, b"!5\r\nERR x\r\n").as_deref(),
        Some("ERR x")
    );
    let nested = failure(&mut any, b"*3\r\n+OK\r\n-ERR one\r\n-ERR two\r\n");
    assert_eq!(nested.as_deref(), Some("ERR one"));
}

#[test]
fn reads_and_writes_have_answers_of_their_own() {
    let mut reader = resp(&[("read_ratio", "1")]);
    let right = value(&reader, 0);
    assert_eq!(failure(&mut reader, &bulk(&right)), None);
    assert_eq!(outcome(&mut reader, b"$-1\r\n").unwrap().note, Some(MISS));
    let told = failure(&mut reader, &bulk(&right[..3])).unwrap();
    assert_eq!(told, "value of 3 bytes, expected 20, for key 0000");
    let mut flipped = right.clone();
    flipped[7] ^= 1;
    let told = failure(&mut reader, &bulk(&flipped)).unwrap();
    assert_eq!(told, "value differs at byte 7 of 20, for key 0000");
    assert_eq!(
        failure(&mut reader, b":1\r\n").as_deref(),
        Some("GET is answered with an integer")
    );
    let mut strict = resp(&[("read_ratio", "1"), ("miss", "error"), ("verify", "false")]);
    assert_eq!(failure(&mut strict, b"$-1\r\n").as_deref(), Some(MISS));
    assert_eq!(failure(&mut strict, &bulk(&flipped)), None);
    let mut writer = resp(&[("read_ratio", "0")]);
    assert_eq!(failure(&mut writer, b"+OK\r\n"), None);
    assert_eq!(
        failure(&mut writer, b"$-1\r\n").as_deref(),
        Some("SET is answered with nil")
    );
}

#[test]
fn what_is_said_first_has_to_be_granted() {
    let mut resp = resp(&[("auth", "alice:secret"), ("db", "3")]);
    let (mut state, mut out) = (resp.open(0), Vec::new());
    assert_eq!(resp.greet(&mut state, &mut out), Ok(false));
    assert_eq!(
        out,
        b"*3\r\n$4\r\nAUTH\r\n$5\r\nalice\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
    );
    let mut granted = b"+OK\r\n+OK\r\n".as_slice();
    assert_eq!(
        resp.decode(&mut state, &mut granted, &mut out),
        Ok(Decoded::Ready)
    );
    let mut state = resp.open(0);
    resp.greet(&mut state, &mut out).unwrap();
    let mut refused = b"-WRONGPASS invalid\r\n".as_slice();
    let error = resp.decode(&mut state, &mut refused, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "AUTH: WRONGPASS invalid");
}

#[test]
fn what_is_no_reply_breaks_the_connection() {
    let deep = "*1\r\n".repeat(33);
    let rows = [
        ("HTTP/1.1 400\r\n", "begins with byte 0x48"),
        ("\r\n", "empty line"),
        ("$536870913\r\n", "length"),
        ("$x\r\n", "length"),
        ("$-2\r\n", "length"),
        ("*16777217\r\n", "length"),
        (":1x\r\n", "integer"),
        ("$1\r\nabc\r\n", "line of more than 0 bytes"),
        ("$1\r\na\r\n$", ""),
        (&deep, "32 arrays"),
        ("+OK\r\n+OK\r\n", "nobody asked"),
        ("+OK\r\n-\r\n", "an error without a text"),
    ];
    for (answer, told) in rows {
        let mut resp = resp(&[("command", "ANY")]);
        match outcome(&mut resp, answer.as_bytes()) {
            Ok(_) => assert_eq!(told, ""),
            Err(error) => assert!(error.contains(told), "{answer:?}: {error}"),
        }
    }
    let (mut state, _) = asked(&mut resp(&[]), 0);
    let error = resp(&[]).decode(
        &mut state,
        &mut b"-ERR max number of clients reached\r\n".as_slice(),
        &mut Vec::new(),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "ERR max number of clients reached"
    );
}

#[test]
fn a_preload_writes_every_key_once() {
    let of = |is_preloaded: &str| resp(&[("preload", is_preloaded), ("command", "PING")]).options;
    assert!(of("false").for_preload().is_none());
    let (options, count) = of("true").for_preload().unwrap();
    let (_, bytes) = asked(&mut Resp::new(options), count);
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<_> = text
        .match_indices("SET\r\n$4\r\n")
        .map(|(at, found)| &text[at + found.len()..][..4])
        .collect();
    assert_eq!(names, ["0000", "0001", "0002", "0003", "0004"]);
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// Whatever is done to a stream of replies, reading it ends, with replies or with an error.
    #[test]
    fn damaged_streams_end(damage in fuzz::damage(), cuts in fuzz::cuts()) {
        let mut resp = resp(&[("read_ratio", "1")]);
        let stream = [
            bulk(&value(&resp, 0)),
            b"$-1\r\n*2\r\n*2\r\n:1\r\n$1\r\nx\r\n*1\r\n*0\r\n-ERR no\r\n".to_vec(),
            bulk(&value(&resp, 4)),
            b"%1\r\n+a\r\n(99999999999999999999\r\n".to_vec(),
        ]
        .concat();
        let stream = damage.applied_to(&stream);
        let (mut state, _) = asked(&mut resp, 6);
        match fuzz::replies_of(&mut resp, &mut state, cuts.pieces(&stream)) {
            Ok(replies) => prop_assert!(replies.len() <= 6),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
