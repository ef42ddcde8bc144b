//! Finds and kills every process that descends from the launcher, also those whose parents have
//! gone: the launcher is a subreaper, so they come to it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;

use super::sys;

/// Most rounds of looking and killing: each round leaves at most what was born during it.
const ROUNDS_MAX: usize = 200;

/// Deepest family that is looked at; real ones have a handful of generations.
const DEPTH_MAX: usize = 1024;

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

/// The parent of a process; `None` when it has gone.
fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// Whether a process descends from another.
fn is_descendant(pid: i32, ancestor: i32) -> bool {
    std::iter::successors(parent_of(pid), |&parent| parent_of(parent))
        .take(DEPTH_MAX)
        .any(|parent| parent == ancestor)
}

/// Every process of the system, where the kernel keeps no lists of children
/// (`CONFIG_PROC_CHILDREN`); those that are no descendants are left out later.
fn everybody() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Every living process below a process, parents before children.
#[must_use]
pub fn descendants_of(pid: i32) -> Vec<i32> {
    if !Path::new(&format!("/proc/{pid}/task/{pid}/children")).exists() {
        return everybody()
            .into_iter()
            .filter(|&one| is_descendant(one, pid))
            .collect();
    }
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
            kill(pid, own);
        }
        match reap_all() {
            Err(_) => return 0,
            Ok(()) => wait_for_news(deaths),
        }
    }
    descendants_of(own).len()
}

/// Kills a descendant through a descriptor: a number that was reused between the look-up and the
/// opening is recognised, and one that is reused later does not matter.
fn kill(pid: i32, ancestor: i32) {
    let Some(number) = Pid::from_raw(pid) else {
        return;
    };
    if let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty())
        && is_descendant(pid, ancestor)
    {
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn grandchildren_are_found_either_way() {
        let line = "sleep 1000 & echo; wait";
        let mut shell = Command::new("/bin/sh")
            .args(["-c", line])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The line break comes when the grandchild exists.
        io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let child = i32::try_from(shell.id()).unwrap();
        let found = descendants_of(own);
        let grandchild = descendants_of(child)[0];
        assert!(found.contains(&child) && found.contains(&grandchild));
        assert!(is_descendant(grandchild, own) && !is_descendant(own, grandchild));
        assert!(everybody().contains(&grandchild));
        kill(grandchild, own);
        shell.wait().unwrap();
        assert!(descendants_of(child).is_empty());
    }
}
