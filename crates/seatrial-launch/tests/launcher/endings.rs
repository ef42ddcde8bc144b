//! Nothing is left, whoever ends first.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use seatrial_core::launch::plan::{
    Outcome, Readiness, Reply, Request, StartRequest, StopHow, WaitFor,
};

use crate::support::{Client, LONG_NS, command, expect_end, guest, shell, watch};

#[test]
fn hanging_up_kills_every_descendant() {
    let directory = std::env::temp_dir().join(format!("seatrial-launch-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("orphan");
    let mut client = Client::new();
    let mode = format!("parent:{}", file.display());
    let reply = client.start(
        vec![guest("a", &mode), guest("b", "deaf")],
        WaitFor::Hello,
        true,
    );
    let orphan = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pids = [
        orphan,
        reply.results[0].pid.unwrap(),
        reply.results[1].pid.unwrap(),
    ];
    let watched = pids.map(watch);
    assert!(client.hang_up().success());
    for pidfd in watched {
        expect_end(pidfd);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn hanging_up_during_a_batch_kills_it() {
    let mut client = Client::new();
    client.start(vec![guest("held", "deaf")], WaitFor::Hello, true);
    let request = Request::Start(StartRequest {
        plans: vec![guest("a", "silent"), guest("b", "silent")],
        wait_for: WaitFor::Hello,
        hold: true,
        timeout_ns: LONG_NS,
        stop_grace_ns: LONG_NS,
    });
    client.send(&serde_json::to_vec(&request).unwrap());
    assert!(client.hang_up().success());
}

#[test]
fn children_die_with_a_launcher_that_is_killed() {
    let mut client = Client::new();
    let reply = client.start(vec![guest("a", "deaf")], WaitFor::Hello, true);
    let watched = watch(reply.results[0].pid.unwrap());
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    expect_end(watched);
}

#[test]
fn shutdown_is_answered_and_kills() {
    let mut client = Client::new();
    let reply = client.start(vec![guest("a", "deaf")], WaitFor::Hello, true);
    let watched = watch(reply.results[0].pid.unwrap());
    assert_eq!(client.ask(&Request::Shutdown), Reply::Done {});
    assert!(client.child.wait().unwrap().success());
    expect_end(watched);
}

#[test]
fn orphans_are_reaped_while_sandboxes_are_held() {
    let mut client = Client::new();
    let reply = client.start(vec![guest("a", "deaf")], WaitFor::Hello, true);
    // The shell leaves a child behind that ends when we close its pipe.
    let (reader, writer) = std::io::pipe().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd());
    let line = format!("setsid cat {path} > /dev/null & echo $!");
    let mut plan = shell("b", &line);
    plan.env = vec!["PATH=/usr/bin:/bin".to_owned()];
    let left = client
        .start(vec![plan], WaitFor::Hello, false)
        .results
        .remove(0);
    let orphan: i32 = left.stderr_tail.unwrap().trim().parse().unwrap();
    let watched = watch(orphan);
    drop((reader, writer));
    expect_end(watched);
    // It has ended; whether it was reaped shows when the launcher has no zombie child any more.
    client.start(vec![command("c", &["/bin/true"])], WaitFor::Hello, false);
    let launcher = client.child.id();
    let mut children = String::new();
    File::open(format!("/proc/{launcher}/task/{launcher}/children"))
        .unwrap()
        .read_to_string(&mut children)
        .unwrap();
    assert!(
        !children
            .split_whitespace()
            .any(|pid| pid == orphan.to_string()),
        "{children}"
    );
    assert!(reply.results[0].exit_seen_at_ns.is_none());
    client.stop(StopHow::Kill, LONG_NS);
}

#[test]
fn a_timed_out_start_is_cleaned_up_by_its_command() {
    let directory = std::env::temp_dir().join(format!("seatrial-clean-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mark = directory.join("mark");
    let mut plan = guest("a", "silent");
    plan.deadline_ns = 100_000_000;
    plan.ready = Readiness::Hello;
    let line = format!("echo clean > {}", mark.display());
    plan.kill_argv = Some(["/bin/sh", "-c", line.as_str()].map(str::to_owned).to_vec());
    let mut client = Client::new();
    let result = client
        .start(vec![plan], WaitFor::Hello, true)
        .results
        .remove(0);
    assert_eq!(
        (result.outcome, result.signal),
        (Outcome::TimedOut, Some(9))
    );
    // The reply comes when the command has ended.
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "clean\n");
    std::fs::remove_dir_all(directory).unwrap();
}
