//! The recipe of the `lean` sandbox, seen from inside: as root, and as somebody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use seatrial_core::launch::plan::{
    Bind, Isolation, Namespace, Outcome, Reply, Request, StartPlan, StartResult, StopHow, WaitFor,
};

use crate::support::{Client, LAUNCHER, LONG_NS, shell, undisturbed};

/// A root file system without files of its own: the host's programs are bound into it.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seatrial-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        for directory in ["bin", "lib", "lib64", "usr", "proc", "tmp", "dev", "data"] {
            fs::create_dir_all(path.join("root").join(directory)).unwrap();
        }
        fs::write(path.join("root/dev/null"), "").unwrap();
        fs::create_dir_all(path.join("data")).unwrap();
        Self(path)
    }

    fn text(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn isolation(&self) -> Isolation {
        let host = ["/bin", "/lib", "/lib64", "/usr"]
            .into_iter()
            .filter(|p| Path::new(p).exists());
        let mut binds: Vec<_> = host
            .map(|path| Bind {
                source: path.to_owned(),
                target: path.to_owned(),
                read_only: true,
            })
            .collect();
        let target = "/data".to_owned();
        binds.push(Bind {
            source: self.text("data"),
            target,
            read_only: false,
        });
        let is_root = rustix::process::geteuid().is_root();
        let mut namespaces = vec![
            Namespace::Mount,
            Namespace::Pid,
            Namespace::Uts,
            Namespace::Ipc,
            Namespace::Net,
        ];
        if !is_root {
            namespaces.push(Namespace::User);
        }
        let map = |id: u32| (!is_root).then(|| format!("0 {id} 1"));
        Isolation {
            namespaces,
            root: Some(self.text("root")),
            binds,
            proc: true,
            tmpfs: vec!["/tmp".to_owned()],
            hostname: Some("hull".to_owned()),
            uid_map: map(rustix::process::geteuid().as_raw()),
            gid_map: map(rustix::process::getegid().as_raw()),
            read_only_root: true,
            network_ahead: false,
        }
    }

    fn shell(&self, line: &str) -> StartPlan {
        let mut plan = shell("inside", line);
        plan.env = vec!["PATH=/usr/bin:/bin".to_owned()];
        plan.isolation = Some(self.isolation());
        plan
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A root and a launcher; says so where this user may make no name spaces at all.
fn isolated(name: &str) -> Option<(Root, Client)> {
    let (root, mut client) = (Root::new(name), Client::new());
    let result = started(&mut client, root.shell("true"));
    if result.outcome != Outcome::Ok {
        eprintln!(
            "skipped: no name spaces for this user here: {:?}",
            result.error
        );
        return None;
    }
    Some((root, client))
}

/// The same for what only root can do.
fn isolated_as_root(name: &str) -> Option<(Root, Client)> {
    rustix::process::geteuid()
        .is_root()
        .then(|| isolated(name))
        .flatten()
}

/// What became of one sandbox that says something and ends.
fn started(client: &mut Client, plan: StartPlan) -> StartResult {
    client
        .start(vec![plan], WaitFor::Hello, false)
        .results
        .remove(0)
}

fn said(client: &mut Client, plan: StartPlan) -> String {
    let result = started(client, plan);
    assert_eq!(result.outcome, Outcome::Ok, "{result:#?}");
    result.stderr_tail.unwrap()
}

#[test]
fn a_sandbox_sees_only_itself() {
    let Some((root, mut client)) = isolated("isolation") else {
        return;
    };
    let line = "hostname; echo $$; echo /proc/[0-9]*; id -u; grep -c : /proc/net/dev; ls /; \
                ls -A /tmp; grep -c . /proc/self/mountinfo";
    let text = said(&mut client, root.shell(line));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..5], ["hull", "1", "/proc/1", "0", "1"], "{text}");
    assert_eq!(
        lines[5..13],
        ["bin", "data", "dev", "lib", "lib64", "proc", "tmp", "usr"]
    );
    // Nothing of the host's mounts is left: root, null, proc, tmp and the binds.
    let mounts: usize = lines[13].parse().unwrap();
    assert!(mounts <= 4 + 5 + 8, "{mounts} mounts");
    // And the host sees nothing of the sandbox's.
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(&root.text("root"))
    );
}

#[test]
fn a_sandbox_can_write_where_it_may() {
    let Some((root, mut client)) = isolated("writing") else {
        return;
    };
    let line = "echo kept > /data/file; echo gone > /tmp/file; echo null > /dev/null; \
                for path in /file /usr/file /bin/file; do \
                  if (echo bad > $path) 2>/dev/null; then echo wrote $path; fi; done; echo done";
    assert_eq!(said(&mut client, root.shell(line)), "done\n");
    assert_eq!(
        fs::read_to_string(root.0.join("data/file")).unwrap(),
        "kept\n"
    );
    assert!(!root.0.join("root/tmp/file").exists());
}

#[test]
fn the_failed_step_is_named() {
    let Some((root, mut client)) = isolated("failing") else {
        return;
    };
    let failing = |change: fn(&mut Isolation)| {
        let mut plan = root.shell("true");
        plan.isolation.as_mut().map(change).unwrap();
        plan
    };
    let mut check = |plan: StartPlan, expected: &str| {
        let result = started(&mut client, plan);
        assert_eq!(result.outcome, Outcome::SpawnFailed);
        // What is prepared before the release fails without a child.
        assert_eq!(result.exit_code, result.pid.map(|_| 127));
        let error = result.error.unwrap();
        assert!(error.contains(expected), "{error}");
    };
    check(
        failing(|i| i.root = Some("/nonexistent".to_owned())),
        "/nonexistent: No such file or directory (2)",
    );
    check(
        failing(|i| i.tmpfs = vec!["/missing".to_owned()]),
        "mount of tmpfs on ",
    );
    check(
        failing(|i| i.hostname = Some("x".repeat(65))),
        "sethostname: Invalid argument (22)",
    );
    check(
        failing(|i| i.binds[0].source = "/nonexistent".to_owned()),
        "No such file or dir",
    );
    check(
        failing(|i| i.binds[0].target = "/missing".to_owned()),
        "/missing: No such file or directory (2)",
    );
    let mut no_group = root.shell("true");
    no_group.cgroup_procs = vec!["/sys/fs/cgroup/none/cgroup.procs".to_owned()];
    check(
        no_group,
        "joining the control group /sys/fs/cgroup/none/cgroup.procs: No such file",
    );
    let mut no_program = root.shell("true");
    no_program.argv[0] = "/data/none".to_owned();
    check(
        no_program,
        "execve /data/none: No such file or directory (2)",
    );
}

#[test]
fn a_recipe_that_contradicts_itself_is_refused() {
    let root = Root::new("contradiction");
    let mut client = Client::new();
    let mut check = |change: fn(&mut Isolation), expected: &str| {
        let mut plan = root.shell("true");
        plan.isolation.as_mut().map(change).unwrap();
        let request = Request::Start(seatrial_core::launch::plan::StartRequest {
            plans: vec![plan],
            wait_for: WaitFor::Hello,
            hold: false,
            timeout_ns: LONG_NS,
            stop_grace_ns: LONG_NS,
        });
        match client.ask(&request) {
            Reply::Failure { message, .. } => assert!(message.contains(expected), "{message}"),
            other => panic!("{other:?}"),
        }
    };
    check(
        |i| i.namespaces.retain(|one| *one != Namespace::Mount),
        "needs the name space Mount",
    );
    check(
        |i| i.namespaces.retain(|one| *one != Namespace::Uts),
        "needs the name space Uts",
    );
    check(|i| i.root = None, "read_only_root needs a root");
    check(|i| i.tmpfs = vec!["/a/../../b".to_owned()], "without '..'");
    check(
        |i| {
            i.network_ahead = true;
            i.namespaces.retain(|one| *one != Namespace::Net);
        },
        "network_ahead needs the name space Net",
    );
    check(
        |i| {
            i.network_ahead = true;
            i.namespaces.push(Namespace::User);
        },
        "network_ahead beside the name space User",
    );
}

#[test]
fn a_sandbox_shares_no_mount_with_the_next() {
    let Some((root, mut client)) = isolated("mounts") else {
        return;
    };
    let mut keeper = root.shell("exec sleep 1000");
    keeper.id = "keeper".to_owned();
    let pid = client.start(vec![keeper], WaitFor::Hello, true).results[0]
        .pid
        .unwrap();
    let line = "echo mine > /tmp/mine; mount -t tmpfs none /data && echo mine > /data/mine; \
                ls /tmp /data; readlink /proc/self/ns/*";
    let text = said(&mut client, root.shell(line));
    assert!(text.starts_with("/data:\nmine\n\n/tmp:\nmine\n"), "{text}");
    for kind in ["mnt", "pid", "uts", "ipc", "net"] {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let theirs = theirs.to_str().unwrap();
        assert!(
            text.contains(&format!("{kind}:[")) && !text.contains(theirs),
            "{kind}: {text}"
        );
    }
    client.stop(StopHow::Kill, LONG_NS);
    // From the same prepared root and by the same thread.
    assert_eq!(
        said(&mut client, root.shell("ls /tmp /data")),
        "/data:\n\n/tmp:\n"
    );
    assert!(fs::read_dir(root.0.join("data")).unwrap().next().is_none());
}

#[test]
fn a_root_that_was_replaced_is_prepared_anew() {
    let Some((root, mut client)) = isolated("replaced") else {
        return;
    };
    fs::rename(root.0.join("root"), root.0.join("old")).unwrap();
    for directory in [
        "bin", "lib", "lib64", "usr", "proc", "tmp", "dev", "data", "new",
    ] {
        fs::create_dir_all(root.0.join("root").join(directory)).unwrap();
    }
    assert!(said(&mut client, root.shell("ls /")).contains("new\n"));
}

#[test]
fn what_is_kept_of_a_root_is_out_of_the_way_of_children() {
    let Some((_root, client)) = isolated_as_root("kept") else {
        return;
    };
    let files = fs::read_dir(format!("/proc/{}/fd", client.child.id())).unwrap();
    let kept: Vec<u64> = files
        .map(|file| file.unwrap().path())
        .filter(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("mnt:[")))
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    assert_eq!(kept.len(), 1);
    assert!(
        kept[0] >= most.unwrap_or(1 << 16).min(1 << 16) / 2,
        "{kept:?}"
    );
}

#[test]
fn a_network_made_ahead_is_the_sandboxs_own() {
    let Some((root, mut client)) = isolated_as_root("ahead") else {
        return;
    };
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let own = own.to_str().unwrap();
    let ahead = |line: &str| {
        let mut plan = root.shell(line);
        plan.isolation.as_mut().unwrap().network_ahead = true;
        plan
    };
    let plans = ["a", "b", "c"].map(|id| {
        let mut plan = ahead("exec sleep 1000");
        plan.id = id.to_owned();
        plan
    });
    let started = client.start(plans.to_vec(), WaitFor::Hello, true);
    let network = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let pids = started.results.iter().map(|one| one.pid.unwrap());
    let mut networks: Vec<_> = pids.map(network).collect();
    networks.sort();
    networks.dedup();
    assert_eq!(networks.len(), 3);
    assert!(networks.iter().all(|one| one.to_str() != Some(own)));
    // No thread of the launcher keeps any of them, and the next sandbox is where it should be.
    for task in fs::read_dir(format!("/proc/{}/task", client.child.id())).unwrap() {
        let there = fs::read_link(task.unwrap().path().join("ns/net")).unwrap();
        assert_eq!(there.to_str(), Some(own));
    }
    client.stop(StopHow::Kill, LONG_NS);
    // It has the loopback interface only.
    assert_eq!(said(&mut client, ahead("grep -c : /proc/net/dev")), "1\n");
    let mut host = root.shell("readlink /proc/self/ns/net");
    let isolation = host.isolation.as_mut().unwrap();
    isolation.namespaces.retain(|one| *one != Namespace::Net);
    assert_eq!(said(&mut client, host).trim(), own);
}

#[test]
fn a_sandbox_joins_the_network_of_another() {
    let Some((root, mut client)) = isolated_as_root("network") else {
        return;
    };
    let mut owner = shell("owner", "exec sleep 1000");
    owner.env = vec!["PATH=/usr/bin:/bin".to_owned()];
    let mut isolation = root.isolation();
    isolation.namespaces = vec![Namespace::Net];
    isolation.root = None;
    isolation.binds.clear();
    isolation.tmpfs.clear();
    (isolation.proc, isolation.read_only_root, isolation.hostname) = (false, false, None);
    owner.isolation = Some(isolation);
    let pid = client.start(vec![owner], WaitFor::Hello, true).results[0]
        .pid
        .unwrap();
    let namespace = format!("/proc/{pid}/ns/net");
    let mut guest = shell("guest", "readlink /proc/self/ns/net");
    guest.env = vec!["PATH=/usr/bin:/bin".to_owned()];
    guest.network_namespace = Some(namespace.clone());
    let inside = said(&mut client, guest);
    assert_eq!(
        inside.trim(),
        fs::read_link(&namespace).unwrap().to_str().unwrap()
    );
    assert_ne!(
        inside.trim(),
        fs::read_link("/proc/self/ns/net")
            .unwrap()
            .to_str()
            .unwrap()
    );
    client.stop(StopHow::Kill, LONG_NS);
}

#[test]
fn a_sandbox_is_in_its_control_group_from_the_start() {
    let group =
        Path::new("/sys/fs/cgroup/cpuacct").join(format!("seatrial-{}", std::process::id()));
    if fs::create_dir(&group).is_err() {
        eprintln!("skipped: no writable version 1 hierarchy here");
        return;
    }
    let mut client = Client::new();
    let mut plan = shell("a", "cat /proc/self/cgroup");
    plan.env = vec!["PATH=/usr/bin:/bin".to_owned()];
    plan.cgroup_procs = vec![group.join("cgroup.procs").to_str().unwrap().to_owned()];
    let text = said(&mut client, plan);
    let usage = fs::read_to_string(group.join("cpuacct.usage")).unwrap();
    fs::remove_dir(&group).unwrap();
    assert!(
        text.contains(&format!("/seatrial-{}\n", std::process::id())),
        "{text}"
    );
    assert!(usage.trim().parse::<u64>().unwrap() > 0);
}

#[test]
fn a_context_hides_mounts_from_sandboxes_only() {
    let hidden = "/dev/shm";
    let count = |text: &str| {
        text.lines()
            .filter(|l| l.contains(&format!(" {hidden} ")))
            .count()
    };
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut client = Client::new();
    if !rustix::process::geteuid().is_root() || count(&own) == 0 {
        eprintln!("skipped: not root, or no {hidden} here");
        return;
    }
    let request = Request::Context {
        unmount: vec![hidden.to_owned()],
    };
    assert_eq!(client.ask(&request), Reply::Done {});
    let mut plan = shell(
        "a",
        &format!("grep -c ' {hidden} ' /proc/self/mountinfo; true"),
    );
    plan.env = vec!["PATH=/usr/bin:/bin".to_owned()];
    // Mounts may be stacked; the top one goes.
    assert_eq!(
        said(&mut client, plan).trim(),
        (count(&own) - 1).to_string()
    );
    assert_eq!(
        count(&fs::read_to_string("/proc/self/mountinfo").unwrap()),
        count(&own)
    );
    match client.ask(&request) {
        Reply::Failure { code, .. } => assert_eq!(code, "too-late"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_recipe_works_without_root() {
    if !rustix::process::geteuid().is_root() {
        return; // then the other tests have shown it
    }
    let root = Root::new("rootless");
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let copy = |from: &Path, name: &str| {
        let to = root.0.join(name);
        fs::copy(from, &to).unwrap();
        open(&to, 0o755).unwrap();
        to
    };
    let (tests, launcher) = undisturbed(|| {
        (
            copy(&std::env::current_exe().unwrap(), "tests"),
            copy(Path::new(env!("CARGO_BIN_EXE_seatrial-launch")), "launcher"),
        )
    });
    open(&root.0, 0o777).unwrap();
    let status = Command::new(tests)
        .args(["isolation::a_sandbox", "isolation::the_failed_step", "-q"])
        .env(LAUNCHER, launcher)
        .env("TMPDIR", &root.0)
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .status();
    match status {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => panic!("{error}"),
    }
}
