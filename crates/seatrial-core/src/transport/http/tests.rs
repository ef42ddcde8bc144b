//! The protocol as a whole: requests as bytes, replies out of any cut of a stream.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::transport::fuzz;
use crate::units::Nanos;

fn http(pairs: &[(&str, &str)]) -> Http {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options = pairs.iter().map(own).collect::<BTreeMap<_, _>>();
    Http::new(
        HttpOptions::read(&options).unwrap(),
        &["h:1".to_owned(), "i:2".to_owned()],
    )
}

fn refused(pairs: &[(&str, &str)]) -> String {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    HttpOptions::read(&pairs.iter().map(own).collect())
        .unwrap_err()
        .to_string()
}

fn request_text(http: &mut Http, connection: u32) -> String {
    let mut out = Vec::new();
    let mut state = http.open(connection);
    let request = Request {
        request_id: 7,
        demand: Nanos::new(1_000),
    };
    http.encode(&mut state, &request, &mut out);
    String::from_utf8(out).unwrap()
}

/// All replies of a stream that is read in pieces of this size, and of its end.
fn replies(http: &mut Http, stream: &[u8], cut: usize) -> Result<Vec<Reply>, DecodeError> {
    let mut state = http.open(0);
    let mut found = fuzz::replies_of(http, &mut state, stream.chunks(cut))?;
    found.extend(http.end(&mut state));
    Ok(found)
}

fn failures(http: &mut Http, stream: &str) -> Vec<Option<String>> {
    let found = replies(http, stream.as_bytes(), 7).unwrap();
    found
        .into_iter()
        .map(|reply| reply.failure.map(String::from))
        .collect()
}

#[test]
fn requests_are_written_as_asked_for() {
    assert_eq!(
        request_text(&mut http(&[]), 0),
        "GET / HTTP/1.1\r\nHost: h:1\r\n\r\n"
    );
    assert_eq!(
        request_text(&mut http(&[]), 3),
        "GET / HTTP/1.1\r\nHost: i:2\r\n\r\n"
    );
    let pairs = [
        ("method", "POST"),
        ("path", "/spin/{demand_ns}?id={id}"),
        ("host", "example.org"),
        ("header", "Accept: */*\nX-Id:{id}"),
        ("keep_alive", "false"),
        ("body", "n={id}{x}"),
    ];
    assert_eq!(
        request_text(&mut http(&pairs), 0),
        "POST /spin/1000?id=7 HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\nX-Id: 7\r\n\
         Connection: close\r\nContent-Length: 6\r\n\r\nn=7{x}"
    );
    let text = request_text(&mut http(&[("method", "PUT"), ("body_bytes", "100")]), 0);
    assert!(text.contains("Content-Length: 100\r\n\r\n\0\u{1}"));
    let text = request_text(&mut http(&[("method", "POST")]), 0);
    assert!(text.ends_with("Content-Length: 0\r\n\r\n"));
    let text = request_text(&mut http(&[("body", "plain")]), 0);
    assert!(text.ends_with("Content-Length: 5\r\n\r\nplain"));
}

#[test]
fn a_body_from_a_file_is_sent_as_it_is() {
    let path = std::env::temp_dir().join(format!("seatrial-http-body-{}", std::process::id()));
    std::fs::write(&path, "{id}").unwrap();
    let text = request_text(&mut http(&[("body_file", path.to_str().unwrap())]), 0);
    std::fs::remove_file(&path).unwrap();
    assert!(text.ends_with("Content-Length: 4\r\n\r\n{id}"));
    assert!(refused(&[("body_file", "/nowhere/at all")]).contains("No such file"));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let rows: [&[(&str, &str)]; 13] = [
        &[("method", "get")],
        &[("method", "CONNECT")],
        &[("path", "x")],
        &[("path", "/a b")],
        &[("path", "/\r\nX: y")],
        &[("header", "Host: x")],
        &[("header", "no colon")],
        &[("header", "X: y\n\nZ: 1")],
        &[("host", "a\r\nb")],
        &[("expect_status", "1xx")],
        &[("check_body", "crc32:1")],
        &[("body", "x"), ("body_bytes", "1")],
        &[("body", "x"), ("body_file", "/etc/hostname")],
    ];
    for pairs in rows {
        let told = refused(pairs);
        assert!(told.starts_with("http option"), "{told}");
    }
    assert!(refused(&[("pth", "/")]).contains("check_body"));
}

#[test]
fn only_a_mark_carries_the_demand() {
    let carries = |pairs: &[(&str, &str)]| http(pairs).options.carries_demand();
    assert!(carries(&[("path", "/spin/{demand_ns}")]));
    assert!(carries(&[("body", "{demand_ns}")]));
    assert!(!carries(&[("path", "/{id}")]));
}

const STREAM: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
    HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\n\
    HTTP/1.1 204 No Content\r\nDate: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld\
    HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain\
    HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno\
    HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\nX-Seatrial-Service-Ns: 12\r\n\r\n";

#[test]
fn a_stream_gives_the_same_replies_however_it_is_cut() {
    for cut in 1..STREAM.len() {
        let found = replies(&mut http(&[]), STREAM.as_bytes(), cut).unwrap();
        let told: Vec<_> = found.iter().map(|reply| reply.failure.as_deref()).collect();
        let redirect = Some("HTTP 302, and redirects are not followed");
        assert_eq!(
            told,
            [None, None, None, None, None, Some("HTTP 503"), redirect],
            "cut at {cut}"
        );
        assert_eq!(found[6].service, Some(Nanos::new(12)));
    }
}

#[test]
fn replies_to_head_have_no_body() {
    let stream = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".repeat(3);
    assert_eq!(
        failures(&mut http(&[("method", "HEAD")]), &stream),
        [None, None, None]
    );
}

#[test]
fn the_connection_may_end_the_body_but_nothing_else() {
    let mut http = http(&[("check_body", "length:3")]);
    assert_eq!(failures(&mut http, "HTTP/1.0 200 OK\r\n\r\nabc"), [None]);
    let cut = [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200",
        "",
    ];
    for stream in cut {
        assert_eq!(failures(&mut http, stream), [], "{stream:?}");
    }
}

#[test]
fn an_announced_close_is_told_and_what_follows_is_nothing() {
    let mut http = http(&[]);
    let mut state = http.open(0);
    let stream = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n";
    assert!(!http.is_spent(&state));
    let found = fuzz::replies_of(&mut http, &mut state, [stream.as_slice()].into_iter()).unwrap();
    assert_eq!(found.len(), 1);
    assert!(http.is_spent(&state));
    assert_eq!(http.end(&mut state), None);
}

#[test]
fn expected_statuses_and_bodies_decide_about_success() {
    let reply = |status: u16, body: &str| {
        format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (mut found, mut not_found) = (http(&[("expect_status", "404,3xx")]), http(&[]));
    assert_eq!(failures(&mut found, &reply(404, "")), [None]);
    assert_eq!(failures(&mut found, &reply(301, "")), [None]);
    assert_eq!(
        failures(&mut found, &reply(200, "")),
        [Some("HTTP 200".to_owned())]
    );
    assert_eq!(
        failures(&mut not_found, &reply(404, "")),
        [Some("HTTP 404".to_owned())]
    );

    // The CRC-32 of "123456789" is the check value that its specification gives.
    let mut sum = http(&[("check_body", "crc32:cbf43926")]);
    assert_eq!(failures(&mut sum, &reply(200, "123456789")), [None]);
    let told = failures(&mut sum, &reply(200, "123456780"));
    assert!(
        told[0].as_ref().unwrap().contains("expected cbf43926"),
        "{told:?}"
    );

    let mut same = http(&[("check_body", "same")]);
    let told = failures(
        &mut same,
        &[reply(200, "ab"), reply(200, "ab"), reply(200, "ac")].concat(),
    );
    assert_eq!((&told[0], &told[1]), (&None, &None));
    assert!(
        told[2].as_ref().unwrap().contains("the first one had 2"),
        "{told:?}"
    );
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// Whatever is done to a stream of replies, reading it ends, with replies or with an error.
    #[test]
    fn damaged_streams_end(damage in fuzz::damage(), cuts in fuzz::cuts()) {
        let stream = damage.applied_to(STREAM.as_bytes());
        let mut http = http(&[("check_body", "same")]);
        let mut state = http.open(0);
        let found = fuzz::replies_of(&mut http, &mut state, cuts.pieces(&stream));
        if let Ok(replies) = &found {
            prop_assert!(replies.len() <= stream.len() / 15);
        }
        if let Err(error) = found {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
