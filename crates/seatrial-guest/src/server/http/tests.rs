//! The service as a whole, without a socket.

use proptest::prelude::*;

use super::super::service::{Next, Refusal, Service, Tools};
use super::super::stats::Stats;
use super::super::work::Memory;
use super::Http;
use crate::spin::{Method, Spinner};

/// What a connection gets for the bytes it sends in pieces of this size, and whether it was closed.
fn exchange(bytes: &[u8], cut: usize) -> (String, bool, Stats) {
    let stats = Stats::default();
    let mut memory = Memory::new();
    let spinner = Spinner {
        method: Method::ThreadCpu,
        cpu_clock_step_ns: None,
    };
    let mut tools = Tools::new(spinner, &mut memory, &stats);
    let mut http = Http::new();
    let (mut sent, mut input, mut is_closed) = (Vec::new(), Vec::new(), false);
    'connection: for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        let mut steps = 0;
        loop {
            let mut output = Vec::new();
            let step = http.serve(&input, &mut output, &mut tools);
            assert!(step.used_bytes <= input.len());
            input.drain(..step.used_bytes);
            sent.extend(output);
            steps += 1;
            assert!(steps < 10_000, "it does not end");
            match step.next {
                Next::Read { .. } => break,
                Next::Close => {
                    is_closed = true;
                    break 'connection;
                }
                Next::Flush => {}
                Next::Mirror => panic!("HTTP has no mirror"),
            }
        }
    }
    let text = String::from_utf8_lossy(&sent).into_owned();
    (text, is_closed, stats)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Status and body of each reply that has a length.
fn replies(text: &str) -> Vec<(u16, String)> {
    let mut rest = text;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = rest.split_once("\r\n\r\n").unwrap();
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        found.push((status, behind[..length].to_owned()));
        rest = &behind[length..];
    }
    found
}

#[test]
fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
    let stream = [
        get("/ok"),
        get("/bytes/5"),
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nping".to_owned(),
        get("/spin/1us"),
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
            .to_owned(),
        get("/status/503"),
        get("/nowhere"),
        get("/touch/4096"),
        get("/status/204"),
        "PUT /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        get("/close"),
        get("/ok"),
    ]
    .concat();
    for cut in [1, 2, 3, 7, 64, 100_000] {
        let (text, is_closed, stats) = exchange(stream.as_bytes(), cut);
        let found = replies(&text);
        let statuses = found.iter().map(|(status, _)| *status).collect::<Vec<_>>();
        assert_eq!(
            statuses,
            [200, 200, 200, 200, 200, 503, 404, 200, 204, 405, 200],
            "in pieces of {cut}"
        );
        let bodies = [1, 2, 4].map(|index: usize| found[index].1.as_str());
        assert_eq!(bodies, ["xxxxx", "ping", "abcd"]);
        assert!(is_closed, "nothing is served after /close");
        assert_eq!((stats.requests.get(), stats.bad_requests.get()), (9, 0));
        assert_eq!(stats.unknown_requests.get(), 2, "a path and a method");
        assert_eq!(stats.replies.get(), 11);
    }
}

#[test]
fn heads_and_chunks_look_as_they_should() {
    let (text, ..) = exchange(get("/chunked/5000").as_bytes(), 1000);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"));
    assert!(body.starts_with("1000\r\nx") && body.ends_with("x\r\n0\r\n\r\n"));
    assert!(body.contains("\r\n388\r\nx"));
    let (text, is_closed, _) = exchange(b"GET /chunked/3 HTTP/1.0\r\n\r\n", 1000);
    assert!(text.ends_with("\r\n\r\nxxx") && is_closed);
    let (text, ..) = exchange(b"HEAD /bytes/9 HTTP/1.1\r\nHost: x\r\n\r\n", 1000);
    assert!(text.contains("content-length: 9\r\n") && text.ends_with("\r\n\r\n"));
    let posted =
        b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    let (text, ..) = exchange(posted, 1000);
    assert_eq!(text, "HTTP/1.1 100 Continue\r\n\r\n");
    let (text, ..) = exchange(get("/spin_wall/2ms").as_bytes(), 1000);
    let (_, time) = text.split_once("x-seatrial-service-ns: ").unwrap();
    assert!(time[..12].parse::<u64>().unwrap() >= 2_000_000);
}

#[test]
fn a_request_that_is_late_or_too_much_is_told_so() {
    for (why, status) in [(Refusal::Late, "408"), (Refusal::Memory, "503")] {
        let mut output = Vec::new();
        Http::new().refuse(b"GET", why, &mut output);
        let text = String::from_utf8(output).unwrap();
        assert!(text.contains(status) && text.contains("connection: close"));
    }
}

#[test]
fn only_a_request_that_has_begun_has_a_deadline() {
    let stats = Stats::default();
    let mut memory = Memory::new();
    let spinner = Spinner {
        method: Method::ThreadCpu,
        cpu_clock_step_ns: None,
    };
    let mut tools = Tools::new(spinner, &mut memory, &stats);
    tools.read_now();
    let mut http = Http::new();
    let mut deadline = |input: &[u8]| {
        let step = http.serve(input, &mut Vec::new(), &mut tools);
        match step.next {
            Next::Read { until_ns, .. } => until_ns,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(deadline(b""), None);
    let first = deadline(b"GE").unwrap();
    assert_eq!(
        deadline(b"GET / HTTP"),
        Some(first),
        "trickling does not put it off"
    );
    assert_eq!(deadline(get("/").as_bytes()), None);
    assert!(deadline(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab").is_some());
    assert_eq!(deadline(b"c"), None);
}

fn damaged_stream() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::sample::select(vec![
        get("/ok"),
        get("/bytes/100"),
        get("/touch/4096"),
        get("/chunked/10"),
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nping".to_owned(),
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            .to_owned(),
        "\r\n\r\n".to_owned(),
        "GET /status/404 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(),
    ]);
    let stream = prop::collection::vec(requests, 1..6);
    let damages = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..6);
    (stream, damages).prop_map(|(requests, damages)| {
        let mut bytes = requests.concat().into_bytes();
        for (place, value, kind) in damages {
            let offset = place.index(bytes.len().max(1));
            match kind {
                0 if offset < bytes.len() => bytes[offset] = value,
                1 => bytes.insert(offset.min(bytes.len()), value),
                _ if offset < bytes.len() => drop(bytes.remove(offset)),
                _ => {}
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    /// Whatever comes, requests are served alike however they are cut into reads, and nothing hangs.
    #[test]
    fn damaged_streams_get_typed_replies(bytes in damaged_stream(), cut in 1..50usize) {
        // Work could take a minute if a digit changed; it has its own tests.
        let text = String::from_utf8_lossy(&bytes);
        prop_assume!(!text.contains("/sp") && !text.contains("/sl"));
        let without_times = |text: String| {
            let mut parts = text.split("x-seatrial-service-ns: ");
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |text, part| text + &part[12..])
        };
        let (whole, is_closed, stats) = exchange(&bytes, usize::MAX);
        let (cut_up, is_cut_closed, cut_stats) = exchange(&bytes, cut);
        let (whole, cut_up) = (without_times(whole), without_times(cut_up));
        prop_assert_eq!(stats.requests.get(), cut_stats.requests.get());
        // A head that comes in small pieces is not looked at for each; that it is
        // none may be told only later, at its end or its deadline.
        prop_assert!(is_closed >= is_cut_closed);
        if is_closed == is_cut_closed {
            prop_assert_eq!(whole, cut_up);
        } else {
            prop_assert!(whole.starts_with(&cut_up));
        }
    }
}
