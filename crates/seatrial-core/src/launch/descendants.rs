//! Finds and kills every process that descends from the launcher, also those whose parents have
//! gone: the launcher is a subreaper, so they come to it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;

use super::sys;

/// Most rounds of looking and killing: each round leaves at most what was born during it.
const ROUNDS_MAX: usize = 200;

/// How long a round waits for the news of a death before it looks again.
const ROUND_NS: i64 = 50_000_000;

/// The children of a process, by all of its threads; empty when it has gone.
fn children_of(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Every living process below a process, parents before children.
#[must_use]
pub fn descendants_of(pid: i32) -> Vec<i32> {
    let mut found = children_of(pid);
    let mut next = 0;
    while next < found.len() {
        let more = children_of(found[next]);
        found.extend(more);
        next += 1;
    }
    found
}

/// Kills and reaps all descendants of this process; gives the number that could not be killed.
///
/// `deaths` becomes readable when a child has ended.
pub fn kill_all(deaths: &OwnedFd) -> usize {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for _ in 0..ROUNDS_MAX {
        let found = descendants_of(own);
        for &pid in &found {
            kill(pid);
        }
        match reap_all() {
            Err(_) => return 0,
            Ok(()) => wait_for_news(deaths),
        }
    }
    descendants_of(own).len()
}

/// Kills one process through a descriptor, so that a number that is reused meanwhile is no risk:
/// it is looked up as our descendant again after the descriptor is open.
fn kill(pid: i32) {
    let Some(number) = Pid::from_raw(pid) else {
        return;
    };
    if let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
}

/// Reaps what has ended.
///
/// # Errors
/// There is no child left.
fn reap_all() -> io::Result<()> {
    while let Some(pid) = sys::peek_ended_child()? {
        let _ = sys::reap(pid);
    }
    Ok(())
}

fn wait_for_news(deaths: &OwnedFd) {
    let mut watched = [PollFd::new(deaths, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: ROUND_NS,
    };
    let _ = poll(&mut watched, Some(&timeout));
    while sys::read_signal(deaths).is_some() {}
}
