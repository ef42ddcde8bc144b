use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;
use crate::grpc::prefix;
use crate::http2::frames::{Flags, Kind, append_data, append_header};
use crate::http2::hpack::{Decoder, encoder};
use crate::http2::{Event, PREFACE, Reader, settings};

/// What the server does with a call.
enum Answer {
    /// Replies with a message.
    Reply(Vec<u8>),
    /// Refuses with a status and a text.
    Refuse(u32, &'static str),
    /// Sends a message on the stream that stays open.
    Feed(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Goes away.
    Close,
}

/// A server for one connection; it tells which methods were called with which message.
fn serve(
    name: &str,
    answer: impl Fn(&str) -> Answer + Send + 'static,
) -> (PathBuf, Receiver<(String, Vec<u8>)>) {
    let directory = std::env::temp_dir().join(format!("st-cri-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let listener = UnixListener::bind(directory.join("s")).unwrap();
    let (calls, called) = channel();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut preface = [0; PREFACE.len()];
        socket.read_exact(&mut preface).unwrap();
        assert_eq!(&preface, PREFACE);
        let mut hello = Vec::new();
        settings::append(&[], &mut hello);
        socket.write_all(&hello).unwrap();
        let (mut reader, mut decoder) = (Reader::default(), Decoder::default());
        let (mut buffer, mut path) = (vec![0; 65_536], String::new());
        loop {
            let Ok(count @ 1..) = socket.read(&mut buffer) else {
                return;
            };
            let mut bytes = &buffer[..count];
            while let Some(event) = reader.next(&mut bytes).unwrap() {
                match event {
                    Event::Headers { block, .. } => {
                        let mut fields = Vec::new();
                        let note = |name: &[u8], value: &[u8]| {
                            fields.push((name.to_vec(), value.to_vec()));
                        };
                        decoder.decode(block, note).unwrap();
                        let value = |key: &[u8]| {
                            let found = fields.iter().find(|(name, _)| name == key);
                            String::from_utf8(found.unwrap().1.clone()).unwrap()
                        };
                        assert_eq!(value(b"te"), "trailers");
                        path = value(b":path");
                    }
                    Event::Data { stream, data, .. } => {
                        let method = path.rsplit('/').next().unwrap().to_owned();
                        let what = answer(&method);
                        calls.send((method, data[5..].to_vec())).unwrap();
                        if !respond(&mut socket, stream, what) {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        }
    });
    (directory, called)
}

fn respond(socket: &mut UnixStream, stream: u32, what: Answer) -> bool {
    let mut out = Vec::new();
    let head = |fields: &[(&str, &str)], is_end: bool, out: &mut Vec<u8>| {
        let mut block = Vec::new();
        for (name, value) in fields {
            encoder::append_literal(name.as_bytes(), value.as_bytes(), &mut block);
        }
        let end = if is_end { Flags::END_STREAM } else { Flags(0) };
        let flags = Flags::END_HEADERS.and(end);
        append_header(block.len(), Kind::Headers, flags, stream, out);
        out.extend_from_slice(&block);
    };
    let begin = [(":status", "200"), ("content-type", "application/grpc")];
    match what {
        Answer::Silence => return true,
        Answer::Close => return false,
        Answer::Refuse(code, text) => {
            let status = code.to_string();
            let fields = [begin[0], ("grpc-status", &status), ("grpc-message", text)];
            head(&fields, true, &mut out);
        }
        Answer::Reply(message) | Answer::Feed(message) if message.first() == Some(&0xff) => {
            // Not a message at all.
            head(&begin, false, &mut out);
            append_data(stream, b"\x01\0\0\0\0", true, 16_384, &mut out);
        }
        Answer::Reply(message) => {
            head(&begin, false, &mut out);
            let mut body = prefix(message.len()).to_vec();
            body.extend_from_slice(&message);
            append_data(stream, &body, false, 16_384, &mut out);
            head(&[("grpc-status", "0")], true, &mut out);
        }
        Answer::Feed(message) => {
            head(&begin, false, &mut out);
            let mut body = prefix(message.len()).to_vec();
            body.extend_from_slice(&message);
            append_data(stream, &body, false, 16_384, &mut out);
        }
    }
    socket.write_all(&out).is_ok()
}

fn text(field: u32, value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    append_bytes(field, value.as_bytes(), &mut out);
    out
}

/// The event that a task of this container has ended with a status.
fn task_exit(container: &str, process: &str, status: u8) -> Vec<u8> {
    let mut exit = [text(1, container), text(2, process)].concat();
    exit.extend([3 << 3, 9, 4 << 3, status]);
    let (mut any, mut envelope) = (
        text(1, "containerd.events.TaskExit"),
        text(3, "/tasks/exit"),
    );
    append_bytes(2, &exit, &mut any);
    append_bytes(4, &any, &mut envelope);
    envelope
}

fn spec(directory: &Path) -> PodSpec {
    PodSpec {
        endpoint: directory.join("s"),
        pod_request: "0a00".to_owned(),
        container_request: "1200".to_owned(),
        label: ("key".to_owned(), "value".to_owned()),
        watch: Watch::ContainerdEvents,
        group: None,
        shim_join: Vec::new(),
        group_directories: vec![directory.join("box")],
        report: directory.join("report.json"),
        timeout_ns: 5_000_000_000,
    }
}

fn ordinary(method: &str) -> Answer {
    match method {
        "RunPodSandbox" => Answer::Reply(text(1, "pod")),
        "CreateContainer" => Answer::Reply(text(1, "container")),
        "Subscribe" => Answer::Feed(task_exit("container", "container", 7)),
        _ => Answer::Reply(Vec::new()),
    }
}

#[test]
fn a_pod_is_started_watched_and_removed() {
    let (directory, calls) = serve("whole", ordinary);
    fs::create_dir(directory.join("box")).unwrap();
    let spec = spec(&directory);
    assert_eq!(run(&spec).unwrap(), 7);
    let calls: Vec<_> = calls.into_iter().collect();
    let methods: Vec<_> = calls.iter().map(|(method, _)| method.as_str()).collect();
    let expected = [
        "RunPodSandbox",
        "CreateContainer",
        "Subscribe",
        "StartContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    assert_eq!(methods, expected);
    assert_eq!(calls[0].1, [0x0a, 0]);
    assert_eq!(calls[1].1, [&[0x12, 0][..], &text(1, "pod")].concat());
    let filter = text_of(&calls[2].1, 1);
    assert_eq!(
        filter,
        r#"topic=="/tasks/exit",event.container_id=="container""#
    );
    assert_eq!(calls[3].1, text(1, "container"));
    assert_eq!(calls[5].1, text(1, "pod"));
    assert!(!directory.join("box").exists() && !spec.report.exists());
    let done = fs::read(directory.join("report.done")).unwrap();
    let report: PodReport = serde_json::from_slice(&done).unwrap();
    assert_eq!(report.container_id, "container");
    let instants = [
        report.begun_at_ns,
        report.pod_at_ns,
        report.created_at_ns,
        report.started_at_ns,
    ];
    assert!(instants.is_sorted() && instants[0] > 0);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_refused_pod_leaves_nothing_to_remove() {
    let (directory, calls) = serve("refused", |method| match method {
        "RunPodSandbox" => Answer::Refuse(2, "no%20such handler"),
        other => ordinary(other),
    });
    let spec = spec(&directory);
    let error = run(&spec).unwrap_err().to_string();
    assert_eq!(error, "RunPodSandbox: UNKNOWN (2): no such handler");
    assert!(!spec.report.exists());
    let methods: Vec<_> = calls.into_iter().map(|(method, _)| method).collect();
    assert_eq!(methods, ["RunPodSandbox", "ListPodSandbox"]);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_refused_pod_that_is_in_the_books_is_removed() {
    let (directory, calls) = serve("unknown", |method| match method {
        "RunPodSandbox" => Answer::Refuse(2, "no space left on device"),
        "ListPodSandbox" => {
            let mut list = Vec::new();
            append_bytes(1, &text(1, "half"), &mut list);
            Answer::Reply(list)
        }
        other => ordinary(other),
    });
    let spec = spec(&directory);
    let error = run(&spec).unwrap_err().to_string();
    assert!(error.ends_with("no space left on device"), "{error}");
    let last = calls.into_iter().last().unwrap();
    assert_eq!(last, ("RemovePodSandbox".to_owned(), text(1, "half")));
    assert!(spec.report.with_extension("done").exists());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_report_of_a_refused_pod_stays_when_nobody_can_tell_what_is_left() {
    let (directory, _calls) = serve("silent-books", |_| Answer::Refuse(2, "not now"));
    let spec = spec(&directory);
    let error = run(&spec).unwrap_err().to_string();
    assert_eq!(error, "RunPodSandbox: UNKNOWN (2): not now");
    assert!(spec.report.exists());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_pod_whose_container_is_refused_is_removed() {
    let (directory, calls) = serve("container", |method| match method {
        "CreateContainer" => Answer::Refuse(5, "no image"),
        other => ordinary(other),
    });
    let error = run(&spec(&directory)).unwrap_err().to_string();
    assert_eq!(error, "CreateContainer: NOT_FOUND (5): no image");
    let last = calls.into_iter().last().unwrap();
    assert_eq!(last, ("RemovePodSandbox".to_owned(), text(1, "pod")));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_removal_that_is_refused_is_asked_for_again() {
    // More than a second's worth: as long as cleaning up after a shim takes on a busy machine.
    const REFUSALS: usize = 9;
    let refusals = std::cell::Cell::new(REFUSALS);
    let (directory, calls) = serve("again", move |method| match method {
        "StopPodSandbox" if refusals.get() > 0 => {
            refusals.set(refusals.get() - 1);
            Answer::Refuse(2, "ttrpc: closed")
        }
        other => ordinary(other),
    });
    let spec = spec(&directory);
    assert_eq!(run(&spec).unwrap(), 7);
    let methods: Vec<_> = calls
        .into_iter()
        .skip(4)
        .map(|(method, _)| method)
        .collect();
    let (last, stops) = methods.split_last().unwrap();
    assert_eq!(last, "RemovePodSandbox");
    assert_eq!(stops, ["StopPodSandbox"; REFUSALS + 1]);
    assert!(spec.report.with_extension("done").exists());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_removal_that_is_always_refused_is_an_error() {
    let (directory, calls) = serve("never", |method| match method {
        "RemovePodSandbox" => Answer::Refuse(9, "still there"),
        other => ordinary(other),
    });
    let spec = PodSpec {
        timeout_ns: 100_000_000,
        ..spec(&directory)
    };
    let error = run(&spec).unwrap_err().to_string();
    assert_eq!(
        error,
        "RemovePodSandbox: FAILED_PRECONDITION (9): still there"
    );
    let tries = calls
        .into_iter()
        .filter(|(method, _)| method == "RemovePodSandbox");
    assert!((2..=5).contains(&tries.count()), "bounded by the time-out");
    assert!(
        spec.report.exists(),
        "somebody else still has to look for the pod"
    );
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_server_that_goes_away_is_told_and_the_report_stays() {
    let (directory, _calls) = serve("gone", |method| match method {
        "StartContainer" => Answer::Close,
        "Subscribe" => Answer::Silence,
        other => ordinary(other),
    });
    let spec = spec(&directory);
    let error = run(&spec).unwrap_err().to_string();
    assert_eq!(error, "StartContainer: the server closed the connection");
    assert!(spec.report.exists());
    let error = remove(&spec).unwrap_err().to_string();
    assert!(error.starts_with("ListPodSandbox: "), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn silence_ends_with_the_time_out() {
    let (directory, _calls) = serve("silent", |_| Answer::Silence);
    let spec = PodSpec {
        timeout_ns: 50_000_000,
        ..spec(&directory)
    };
    let error = run(&spec).unwrap_err().to_string();
    assert_eq!(error, "RunPodSandbox: no reply within 50ms");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_reply_that_is_none_is_an_error() {
    let (directory, _calls) = serve("nonsense", |_| Answer::Reply(vec![0xff]));
    let error = run(&spec(&directory)).unwrap_err().to_string();
    assert!(error.contains("compressed"), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_pod_that_stays_does_not_keep_the_others() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let begun = std::cell::OnceCell::new();
    let (directory, calls) = serve("one-stays", move |method| match method {
        "ListPodSandbox" => {
            let mut list = Vec::new();
            append_bytes(1, &text(1, "one"), &mut list);
            append_bytes(1, &text(1, "two"), &mut list);
            Answer::Reply(list)
        }
        // As long as anybody asks for the first one.
        "StopPodSandbox" if begun.get_or_init(Instant::now).elapsed() < PATIENCE => {
            Answer::Refuse(2, "never")
        }
        other => ordinary(other),
    });
    let spec = PodSpec {
        timeout_ns: u64::try_from(PATIENCE.as_nanos()).unwrap(),
        ..spec(&directory)
    };
    let error = remove(&spec).unwrap_err().to_string();
    assert_eq!(error, "StopPodSandbox: UNKNOWN (2): never");
    let last = calls.into_iter().last().unwrap();
    assert_eq!(last, ("RemovePodSandbox".to_owned(), text(1, "two")));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn every_pod_with_the_label_is_removed() {
    let (directory, calls) = serve("remove", |method| match method {
        "ListPodSandbox" => {
            let mut list = Vec::new();
            append_bytes(1, &text(1, "one"), &mut list);
            append_bytes(1, &text(1, "two"), &mut list);
            Answer::Reply(list)
        }
        other => ordinary(other),
    });
    remove(&spec(&directory)).unwrap();
    let calls: Vec<_> = calls.into_iter().collect();
    let filter = bytes_of(&calls[0].1, 1).unwrap();
    let entry = bytes_of(filter, 3).unwrap();
    assert_eq!(
        (text_of(entry, 1), text_of(entry, 2)),
        ("key".into(), "value".into())
    );
    let removed = calls.iter().filter(|(name, _)| name == "RemovePodSandbox");
    let removed: Vec<_> = removed.map(|(_, message)| text_of(message, 1)).collect();
    assert_eq!(removed, ["one", "two"]);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn ends_are_told_from_other_events() {
    let event = task_exit("container", "container", 3);
    assert_eq!(exit_of_task_event(&event, "container"), Some(3));
    let exec = task_exit("container", "exec-1", 3);
    assert_eq!(exit_of_task_event(&exec, "container"), None);
    assert_eq!(exit_of_task_event(b"", "container"), None);
    let mut status = text(1, "container");
    status.extend([7 << 3, 9]);
    let mut stopped = text(1, "container");
    stopped.extend([2 << 3, 2]);
    append_bytes(5, &status, &mut stopped);
    assert_eq!(exit_of_container_event(&stopped, "container"), Some(9));
    assert_eq!(exit_of_container_event(&stopped, "another"), None);
    let mut started = text(1, "container");
    started.extend([2 << 3, 1]);
    assert_eq!(exit_of_container_event(&started, "container"), None);
}

#[test]
fn children_are_those_of_every_thread() {
    let sleep = || {
        std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap()
    };
    let mut here = sleep();
    let mut there = thread::spawn(sleep).join().unwrap();
    let found: Vec<u32> = children_of(std::process::id()).collect();
    for child in [&mut here, &mut there] {
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{} in {found:?}", child.id());
    }
    assert_eq!(children_of(u32::MAX).count(), 0);
}

#[test]
fn hexadecimal_digits_are_bytes() {
    assert_eq!(unhex("00ff7a").unwrap(), [0, 255, 0x7a]);
    for wrong in ["0", "0g", "000"] {
        assert!(unhex(wrong).is_err(), "{wrong}");
    }
}
