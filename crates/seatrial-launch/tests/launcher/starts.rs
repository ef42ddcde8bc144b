//! The launcher as its client sees it: timelines, failures, and that nothing is left.

use std::io::{Read, Write};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use seatrial_core::control::{Decoder, Frame, GuestFrame, HostFrame};
use seatrial_core::launch::now_ns;
use seatrial_core::launch::plan::{
    Outcome, Reply, Request, StartPlan, StartRequest, StartResult, Stdio, StopHow, StopRequest,
    WaitFor,
};

use crate::support::{Client, LONG_NS, command, guest, shell};

fn assert_ordered(result: &StartResult, instants: &[Option<u64>]) {
    let known: Vec<u64> = instants
        .iter()
        .map(|instant| instant.expect("an instant"))
        .collect();
    assert!(known.is_sorted(), "{known:?} of {result:#?}");
}

#[test]
fn a_start_has_a_timeline_in_causal_order() {
    let mut client = Client::new();
    let before_ns = now_ns();
    let reply = client.start(vec![guest("a", "obedient")], WaitFor::Reply, false);
    let after_ns = now_ns();
    let result = &reply.results[0];
    assert_eq!(
        (result.outcome, result.error.as_deref()),
        (Outcome::Ok, None)
    );
    assert_eq!(result.due_at_ns, reply.released_at_ns);
    let first = [
        Some(before_ns),
        Some(result.due_at_ns),
        result.invoked_at_ns,
    ];
    assert_ordered(
        result,
        &[&first[..], &[result.accepted_at_ns, Some(after_ns)]].concat(),
    );
    let rest = [
        result.invoked_at_ns,
        result.first_byte_at_ns,
        result.ready_at_ns,
        result.ping_sent_at_ns,
        result.first_reply_at_ns,
        result.stop_requested_at_ns,
        result.exit_seen_at_ns,
        Some(after_ns),
    ];
    assert_ordered(result, &rest);
    assert_eq!(
        (result.exit_code, result.signal, result.censored),
        (Some(0), None, false)
    );
    assert_eq!(result.guest_first_instruction_mono_ns, Some(1));
    assert_eq!(
        (result.guest_hello_mono_ns, result.guest_ready_mono_ns),
        (Some(2), Some(3))
    );
    assert!(result.user_ns.unwrap() + result.system_ns.unwrap() > 0);
    assert!(result.max_rss_bytes.unwrap() > 100_000);
    assert!(client.hang_up().success());
}

#[test]
fn a_guest_that_ends_after_hello_is_a_success() {
    let mut client = Client::new();
    let reply = client.start(vec![guest("a", "null")], WaitFor::Hello, false);
    let result = &reply.results[0];
    assert_eq!((result.outcome, result.exit_code), (Outcome::Ok, Some(0)));
    assert!(result.first_byte_at_ns.is_some() && result.ready_at_ns.is_none());
}

#[test]
fn each_failure_has_its_own_outcome_and_leaves_the_others_alone() {
    let mut client = Client::new();
    let mut silent = guest("silent", "silent");
    silent.deadline_ns = 300_000_000;
    let reply = client.start(
        vec![
            guest("good", "obedient"),
            silent,
            guest("early", "early"),
            guest("half", "half"),
            guest("garbage", "garbage"),
            guest("wrong-version", "wrong-version"),
            guest("twice", "twice"),
            guest("liar", "liar"),
            guest("refusing", "refusing"),
            command("missing", &["/nonexistent/program"]),
            guest("good-too", "obedient"),
        ],
        WaitFor::Reply,
        false,
    );
    let expected = [
        (Outcome::Ok, Some(0), ""),
        (Outcome::TimedOut, None, "no PONG within"),
        (
            Outcome::ExitedEarly,
            Some(3),
            "exited with status 3 before PONG",
        ),
        (
            Outcome::ExitedEarly,
            Some(0),
            "closed 10 bytes into a frame; exited",
        ),
        (Outcome::ProtocolError, None, "length"),
        (Outcome::ProtocolError, None, "version 9, expected 2"),
        (Outcome::ProtocolError, None, "HELLO frame out of turn"),
        (Outcome::ProtocolError, None, "another payload"),
        (Outcome::ExitedEarly, Some(70), "guest: bad-role: no"),
        (
            Outcome::SpawnFailed,
            Some(127),
            "execve /nonexistent/program: No such file or dir",
        ),
        (Outcome::Ok, Some(0), ""),
    ];
    for (result, (outcome, exit_code, text)) in reply.results.iter().zip(expected) {
        assert_eq!(result.outcome, outcome, "{result:#?}");
        assert!(
            result.error.as_deref().unwrap_or_default().contains(text),
            "{result:#?}"
        );
        if exit_code.is_some() {
            assert_eq!(result.exit_code, exit_code, "{result:#?}");
        }
    }
    let (silent, early) = (&reply.results[1], &reply.results[2]);
    assert!(silent.censored && silent.signal == Some(9) && silent.first_byte_at_ns.is_none());
    assert!(silent.exit_seen_at_ns.unwrap() >= silent.due_at_ns + 300_000_000);
    assert!(early.stderr_tail.as_ref().unwrap().contains("out of luck"));
    // None of them is held.
    assert!(client.stop(StopHow::Request, LONG_NS).results.is_empty());
    assert!(client.hang_up().success());
}

#[test]
fn held_sandboxes_stay_until_they_are_stopped() {
    let mut client = Client::new();
    let plans = (0..5)
        .map(|number| guest(&format!("box-{number}"), "obedient"))
        .collect();
    let started = client.start(plans, WaitFor::Ready, true);
    assert!(started.results.iter().all(|one| one.outcome == Outcome::Ok));
    assert!(
        started
            .results
            .iter()
            .all(|one| one.exit_seen_at_ns.is_none())
    );
    let used = client.ask(&Request::Start(StartRequest {
        plans: vec![guest("box-3", "obedient")],
        wait_for: WaitFor::Hello,
        hold: false,
        timeout_ns: LONG_NS,
        stop_grace_ns: LONG_NS,
    }));
    assert!(matches!(used, Reply::Failure { code, .. } if code == "bad-request"));
    let one = StopRequest {
        ids: Some(vec!["box-3".to_owned()]),
        how: StopHow::Request,
        grace_ns: LONG_NS,
    };
    let Reply::Stop(one_reply) = client.ask(&Request::Stop(one.clone())) else {
        panic!()
    };
    assert_eq!(
        (one_reply.results.len(), one_reply.results[0].exit_code),
        (1, Some(0))
    );
    let again = client.ask(&Request::Stop(one));
    assert!(matches!(again, Reply::Failure { code, .. } if code == "unknown-id"));
    let rest = client.stop(StopHow::Request, LONG_NS).results;
    assert_eq!(rest.len(), 4);
    for end in rest {
        assert_eq!((end.exit_code, end.signal), (Some(0), None));
        assert!(end.exit_seen_at_ns >= end.stop_requested_at_ns);
    }
}

#[test]
fn a_guest_that_does_not_obey_is_killed_after_its_grace() {
    let mut client = Client::new();
    let mut deaf = guest("deaf", "deaf");
    deaf.kill_argv = Some(vec![
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        "exit 4".to_owned(),
    ]);
    client.start(vec![deaf], WaitFor::Hello, true);
    let end = client.stop(StopHow::Request, 50_000_000).results.remove(0);
    assert_eq!((end.exit_code, end.signal), (None, Some(9)));
    assert!(end.exit_seen_at_ns.unwrap() >= end.stop_requested_at_ns.unwrap() + 50_000_000);
    let error = end.error.unwrap();
    assert!(error.contains("did not obey STOP"), "{error}");
    assert!(error.contains("kill_argv exited with status 4"), "{error}");
}

#[test]
fn a_held_sandbox_that_dies_is_reported_when_it_is_stopped() {
    let mut client = Client::new();
    let started = client.start(vec![guest("a", "deaf")], WaitFor::Hello, true);
    let pid = Pid::from_raw(started.results[0].pid.unwrap()).unwrap();
    kill_process(pid, Signal::USR1).unwrap();
    // Another start makes the launcher notice before we ask.
    client.start(vec![command("b", &["/bin/true"])], WaitFor::Hello, false);
    let end = client.stop(StopHow::Request, LONG_NS).results.remove(0);
    assert_eq!((end.id.as_str(), end.signal), ("a", Some(10)));
}

#[test]
fn a_channel_is_handed_over_between_two_frames() {
    let mut client = Client::new();
    client.start(
        vec![guest("a", "obedient"), guest("b", "deaf")],
        WaitFor::Hello,
        true,
    );
    let mut channel = client.borrow("a");
    channel
        .write_all(&HostFrame::Ping(b"hello".to_vec()).encode().unwrap())
        .unwrap();
    let mut decoder = Decoder::<GuestFrame>::new();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let mut buffer = [0; 4096];
        let length = channel.read(&mut buffer).unwrap();
        decoder.push(&buffer[..length]).unwrap();
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    // The READY that nobody had waited for is still ours to read.
    assert!(matches!(frames[0], GuestFrame::Ready(_)));
    assert_eq!(frames[1], GuestFrame::Pong(b"hello".to_vec()));
    let unknown = client.ask(&Request::Channel { id: "c".to_owned() });
    assert!(matches!(unknown, Reply::Failure { code, .. } if code == "unknown-id"));
    client.stop(StopHow::Kill, LONG_NS);
}

#[test]
fn commands_without_a_channel_wait_for_their_exit() {
    let mut client = Client::new();
    let mut plans = vec![shell("good", "exit 0"), shell("bad", "echo no >&2; exit 9")];
    plans[0].stdio = Stdio::Null;
    let results = client.start(plans, WaitFor::Hello, false).results;
    assert_eq!(
        (results[0].outcome, results[0].stderr_tail.as_deref()),
        (Outcome::Ok, None)
    );
    assert_eq!(
        (results[1].outcome, results[1].exit_code),
        (Outcome::ExitedEarly, Some(9))
    );
    assert_eq!(results[1].stderr_tail.as_deref(), Some("no\n"));
}

#[test]
fn children_get_a_clean_process() {
    let mut client = Client::new();
    let check = "ls /proc/self/fd | tr '\\n' ' '; grep -E '^Sig(Blk|Ign)' /proc/self/status | \
                 cut -f2; echo $PWD $LEFT; ulimit -Sn; cut -d' ' -f5,6 /proc/self/stat; echo $$";
    let mut plan = shell("a", check);
    plan.cwd = Some("/usr".to_owned());
    plan.env = vec!["LEFT=right".to_owned(), "PATH=/usr/bin:/bin".to_owned()];
    let result = client
        .start(vec![plan], WaitFor::Hello, false)
        .results
        .remove(0);
    let own_limit = getrlimit(Resource::Nofile).current.unwrap();
    let pid = result.pid.unwrap();
    let said = result.stderr_tail.unwrap();
    let lines: Vec<_> = said.lines().collect();
    let [blocked, ignored, rest @ ..] = lines.as_slice() else {
        panic!("{said}")
    };
    // Descriptor 3 is the directory that ls reads.
    assert_eq!(*blocked, "0 1 2 3 0000000000000000");
    // The C library keeps 32 and 33 to itself: how we were started with them is out of reach.
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x7fff_ffff, 0);
    let expected = [
        "/usr right".to_owned(),
        own_limit.to_string(),
        format!("{pid} {pid}"),
        pid.to_string(),
    ];
    assert_eq!(rest, expected);
}

#[test]
fn a_chatterer_is_bounded() {
    let mut client = Client::new();
    let mut plan = shell(
        "a",
        "yes 0123456789 | head -c 3000000; echo; echo end; exit 5",
    );
    plan.env = vec!["PATH=/usr/bin:/bin".to_owned()];
    let result = client
        .start(vec![plan], WaitFor::Hello, false)
        .results
        .remove(0);
    let tail = result.stderr_tail.unwrap();
    assert!(
        tail.len() <= 4096 && tail.ends_with("\nend\n"),
        "{}",
        tail.len()
    );
}

#[test]
fn a_thousand_plans_are_one_batch() {
    let mut client = Client::new();
    let plans = (0..1000)
        .map(|number| command(&format!("n{number:04}"), &["/bin/true"]))
        .collect();
    let reply = client.start(plans, WaitFor::Hello, false);
    assert_eq!(reply.results.len(), 1000);
    for (number, result) in reply.results.iter().enumerate() {
        assert_eq!(
            (result.id.as_str(), result.outcome),
            (&*format!("n{number:04}"), Outcome::Ok)
        );
        assert!(result.invoked_at_ns.unwrap() >= reply.released_at_ns);
    }
}

#[test]
fn bad_requests_are_refused_whole() {
    let mut client = Client::new();
    let mut check = |request: &[u8], expected: &str| {
        client.send(request);
        let text = String::from_utf8(client.receive()).unwrap();
        assert!(
            text.contains("\"ok\":false") && text.contains(expected),
            "{text}"
        );
    };
    check(b"", "not a request");
    check(b"{\"op\":\"dance\"}", "not a request");
    check(
        b"{\"op\":\"start\",\"plans\":[],\"wait_for\":\"hello\",\"timeout_ns\":1}",
        "0 plans",
    );
    let mut refuse = |change: fn(&mut StartPlan), text: &str| {
        let mut plan = command("a", &["/bin/true"]);
        change(&mut plan);
        let request = Request::Start(StartRequest {
            plans: vec![command("z", &["/bin/true"]), plan],
            wait_for: WaitFor::Hello,
            hold: false,
            timeout_ns: LONG_NS,
            stop_grace_ns: LONG_NS,
        });
        check(&serde_json::to_vec(&request).unwrap(), text);
    };
    refuse(|plan| plan.argv.clear(), "argv is empty");
    refuse(
        |plan| plan.argv[0] = "true".to_owned(),
        "expected an absolute path",
    );
    refuse(|plan| plan.id.clear(), "1 to 255 bytes");
    refuse(|plan| plan.id = "z".to_owned(), "the id is in use");
    refuse(
        |plan| plan.channel_fd = Some(2),
        "channel_fd 2, expected 3 to 15",
    );
    refuse(
        |plan| plan.kill_argv = Some(Vec::new()),
        "kill_argv is empty",
    );
    // A refused batch leaves no name behind.
    let reply = client.start(vec![command("z", &["/bin/true"])], WaitFor::Hello, false);
    assert_eq!(reply.results[0].outcome, Outcome::Ok);
}

#[test]
fn what_only_one_plan_lacks_fails_only_that_plan() {
    let mut client = Client::new();
    let mut no_network = command("network", &["/bin/true"]);
    no_network.network_namespace = Some("/run/netns/there-is-none".to_owned());
    let mut no_group = command("group", &["/bin/true"]);
    no_group.cgroup_procs = vec!["/sys/fs/cgroup/there-is-none/cgroup.procs".to_owned()];
    let mut no_directory = command("directory", &["/bin/true"]);
    no_directory.cwd = Some("/there-is-none".to_owned());
    let plans = vec![
        no_network,
        no_group,
        no_directory,
        command("good", &["/bin/true"]),
    ];
    let results = client.start(plans, WaitFor::Hello, false).results;
    let said: Vec<_> = results
        .iter()
        .map(|one| one.error.as_deref().unwrap_or(""))
        .collect();
    assert_eq!(
        said,
        [
            "open of the network name space /run/netns/there-is-none: No such file or directory \
             (2)",
            "joining the control group /sys/fs/cgroup/there-is-none/cgroup.procs: No such file or \
             directory (2)",
            "chdir to /there-is-none: No such file or directory (2)",
            "",
        ]
    );
    assert_eq!(results[3].outcome, Outcome::Ok);
}
