//! Turns an [`Isolation`] into the steps that a child runs: the whole recipe of the `lean`
//! sandbox, decided before the clock starts.

use std::ffi::CString;
use std::path::Path;

use rustix::mount::MountFlags;

use super::plan::{Isolation, Namespace};
use super::prepare::{PlanError, absolute, c_string};
use super::sys::{Step, detached_bind, errno_text};

/// Devices that a sandbox gets if its root has a file to bind them on.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// The flags for `clone` that make the name spaces.
///
/// A control group name space is missing: its root is where its maker stands, so the child makes
/// it itself after it has joined its groups. One that is made ahead is missing, too.
#[must_use]
pub fn clone_flags(isolation: &Isolation) -> i32 {
    let flag = |namespace: &Namespace| match namespace {
        Namespace::Mount => libc::CLONE_NEWNS,
        Namespace::Pid => libc::CLONE_NEWPID,
        Namespace::Uts => libc::CLONE_NEWUTS,
        Namespace::Ipc => libc::CLONE_NEWIPC,
        Namespace::Net if isolation.network_ahead => 0,
        Namespace::Net => libc::CLONE_NEWNET,
        Namespace::User => libc::CLONE_NEWUSER,
        Namespace::Cgroup => 0,
    };
    isolation
        .namespaces
        .iter()
        .map(flag)
        .fold(0, |all, one| all | one)
}

/// Says what is wrong with an isolation recipe.
///
/// # Errors
/// A part of it needs a name space that it does not ask for, or a path is not absolute.
pub fn validate(isolation: &Isolation) -> Result<(), PlanError> {
    let has = |namespace| isolation.namespaces.contains(&namespace);
    let mounts = isolation.root.is_some()
        || isolation.proc
        || isolation.read_only_root
        || !isolation.binds.is_empty()
        || !isolation.tmpfs.is_empty();
    let needs = [
        (
            mounts,
            Namespace::Mount,
            "root, binds, proc, tmpfs and read_only_root",
        ),
        (isolation.hostname.is_some(), Namespace::Uts, "hostname"),
        (
            isolation.uid_map.is_some() || isolation.gid_map.is_some(),
            Namespace::User,
            "uid_map",
        ),
        (isolation.network_ahead, Namespace::Net, "network_ahead"),
    ];
    for (is_used, namespace, what) in needs {
        if is_used && !has(namespace) {
            return Err(PlanError::invalid(format!(
                "isolation: {what} needs the name space {namespace:?}, which is not asked for"
            )));
        }
    }
    if isolation.read_only_root && isolation.root.is_none() {
        return Err(PlanError::invalid("isolation: read_only_root needs a root"));
    }
    if isolation.network_ahead && has(Namespace::User) {
        return Err(PlanError::invalid(
            "isolation: network_ahead beside the name space User, which must own the network",
        ));
    }
    let paths = isolation.root.iter().chain(&isolation.tmpfs);
    let bound = isolation
        .binds
        .iter()
        .flat_map(|bind| [&bind.source, &bind.target]);
    for path in paths.chain(bound) {
        absolute("isolation", path)?;
    }
    Ok(())
}

/// The steps of a recipe, in the order in which the child runs them.
///
/// # Errors
/// A text contains a null byte.
pub fn steps(isolation: &Isolation) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    user_maps(isolation, &mut steps)?;
    if isolation.namespaces.contains(&Namespace::Cgroup) {
        steps.push(Step::UnshareCgroup);
    }
    if let Some(name) = &isolation.hostname {
        steps.push(Step::HostName(name.clone().into_bytes()));
    }
    if prepared_root(isolation).is_some() {
        file_systems("", isolation, &mut steps)?;
        attachments(isolation, &mut steps)?;
    } else if isolation.namespaces.contains(&Namespace::Mount) {
        steps.push(Step::PrivateMounts);
        mounts(isolation, &mut steps)?;
    }
    Ok(steps)
}

/// The root that can be prepared once for many children.
///
/// A child with a user name space of its own cannot begin in it: what its mount name space is
/// copied from would have another owner, so its mounts would be locked together.
#[must_use]
pub fn prepared_root(isolation: &Isolation) -> Option<&str> {
    let has = |namespace| isolation.namespaces.contains(&namespace);
    let root = isolation.root.as_deref()?;
    (has(Namespace::Mount) && !has(Namespace::User)).then_some(root)
}

/// The steps that make a root out of a directory, in a mount name space of their own.
///
/// # Errors
/// A text contains a null byte.
pub fn root_steps(root: &str, is_read_only: bool) -> Result<Vec<Step>, PlanError> {
    let mut steps = vec![Step::PrivateMounts];
    own_root(root, &mut steps)?;
    if is_read_only {
        steps.push(read_only(root)?);
    }
    steps.push(Step::PivotRoot(c_string(root)?));
    Ok(steps)
}

/// The child maps itself: `setgroups` first, without which an unprivileged `gid_map` is refused.
fn user_maps(isolation: &Isolation, steps: &mut Vec<Step>) -> Result<(), PlanError> {
    let mut write = |what, path, text: &str| {
        let path = c_string(path)?;
        steps.push(Step::Write {
            what,
            path,
            bytes: text.as_bytes().to_vec(),
        });
        Ok::<(), PlanError>(())
    };
    if let Some(map) = &isolation.uid_map {
        write("write of the user map", "/proc/self/uid_map", map)?;
    }
    if let Some(map) = &isolation.gid_map {
        write("write of the group policy", "/proc/self/setgroups", "deny")?;
        write("write of the group map", "/proc/self/gid_map", map)?;
    }
    Ok(())
}

fn mounts(isolation: &Isolation, steps: &mut Vec<Step>) -> Result<(), PlanError> {
    let root = isolation.root.as_deref().unwrap_or("");
    let inside = |path: &str| c_string(&format!("{root}{path}"));
    if isolation.root.is_some() {
        own_root(root, steps)?;
    }
    file_systems(root, isolation, steps)?;
    for bind in &isolation.binds {
        let target = inside(&bind.target)?;
        steps.push(Step::Bind {
            source: c_string(&bind.source)?,
            target: target.clone(),
        });
        if bind.read_only {
            steps.push(Step::ReadOnly {
                target,
                is_recursive: true,
            });
        }
    }
    if isolation.read_only_root {
        steps.push(read_only(root)?);
    }
    if isolation.root.is_some() {
        steps.push(Step::PivotRoot(c_string(root)?));
    }
    Ok(())
}

/// The directory as a mount point, which `pivot_root` wants, with devices.
fn own_root(root: &str, steps: &mut Vec<Step>) -> Result<(), PlanError> {
    steps.push(Step::Bind {
        source: c_string(root)?,
        target: c_string(root)?,
    });
    devices(root, steps)
}

fn read_only(root: &str) -> Result<Step, PlanError> {
    Ok(Step::ReadOnly {
        target: c_string(root)?,
        is_recursive: false,
    })
}

/// The file systems that are new, below a root or in the one that the child has.
fn file_systems(root: &str, isolation: &Isolation, steps: &mut Vec<Step>) -> Result<(), PlanError> {
    if isolation.proc {
        steps.push(Step::Mount {
            kind: c"proc",
            target: c_string(&format!("{root}/proc"))?,
            flags: MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            data: c"",
        });
    }
    for path in &isolation.tmpfs {
        steps.push(Step::Mount {
            kind: c"tmpfs",
            target: c_string(&format!("{root}{path}"))?,
            flags: MountFlags::NOSUID | MountFlags::NODEV,
            data: c"mode=1777",
        });
    }
    Ok(())
}

/// The binds of a child that does not see the host's files: copied here, attached there.
fn attachments(isolation: &Isolation, steps: &mut Vec<Step>) -> Result<(), PlanError> {
    for bind in &isolation.binds {
        let tree = detached_bind(&c_string(&bind.source)?, bind.read_only);
        let tree = tree.map_err(|errno| {
            let why = errno_text(errno.raw_os_error());
            PlanError::invalid(format!("copy of the mounts at {}: {why}", bind.source))
        })?;
        let target = c_string(&bind.target)?;
        steps.push(Step::Attach { tree, target });
    }
    Ok(())
}

fn devices(root: &str, steps: &mut Vec<Step>) -> Result<(), PlanError> {
    for device in DEVICES {
        let target: CString = c_string(&format!("{root}/dev/{device}"))?;
        if Path::new(&format!("{root}/dev/{device}")).exists() {
            steps.push(Step::Bind {
                source: c_string(&format!("/dev/{device}"))?,
                target,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::plan::Bind;

    fn full() -> Isolation {
        Isolation {
            namespaces: vec![
                Namespace::Mount,
                Namespace::User,
                Namespace::Cgroup,
                Namespace::Uts,
            ],
            root: Some("/srv/hull".to_owned()),
            binds: vec![Bind {
                source: "/srv/data".to_owned(),
                target: "/data".to_owned(),
                read_only: true,
            }],
            proc: true,
            tmpfs: vec!["/tmp".to_owned()],
            hostname: Some("hull".to_owned()),
            uid_map: Some("0 1 1".to_owned()),
            gid_map: Some("0 1 1".to_owned()),
            read_only_root: true,
            network_ahead: false,
        }
    }

    #[test]
    fn steps_come_in_the_order_in_which_each_is_allowed() {
        let described: Vec<_> = steps(&full()).unwrap().iter().map(Step::describe).collect();
        assert_eq!(
            described,
            [
                "write of the user map /proc/self/uid_map",
                "write of the group policy /proc/self/setgroups",
                "write of the group map /proc/self/gid_map",
                "unshare of the cgroup name space",
                "sethostname",
                "making mounts private",
                "bind of /srv/hull on /srv/hull",
                "mount of proc on /srv/hull/proc",
                "mount of tmpfs on /srv/hull/tmp",
                "bind of /srv/data on /srv/hull/data",
                "making /srv/hull/data read-only",
                "making /srv/hull read-only",
                "pivot_root",
            ]
        );
    }

    #[test]
    fn the_cgroup_name_space_is_not_made_by_clone() {
        let expected = libc::CLONE_NEWNS | libc::CLONE_NEWUSER | libc::CLONE_NEWUTS;
        assert_eq!(clone_flags(&full()), expected);
    }

    #[test]
    fn a_prepared_root_leaves_little_to_its_children() {
        let mut prepared = full();
        prepared.namespaces.retain(|one| *one != Namespace::User);
        (prepared.uid_map, prepared.gid_map) = (None, None);
        prepared.binds.clear();
        validate(&prepared).unwrap();
        let describe = |steps: Vec<Step>| -> Vec<_> { steps.iter().map(Step::describe).collect() };
        assert_eq!(
            describe(root_steps(prepared_root(&prepared).unwrap(), true).unwrap()),
            [
                "making mounts private",
                "bind of /srv/hull on /srv/hull",
                "making /srv/hull read-only",
                "pivot_root",
            ]
        );
        assert_eq!(
            describe(steps(&prepared).unwrap()),
            [
                "unshare of the cgroup name space",
                "sethostname",
                "mount of proc on /proc",
                "mount of tmpfs on /tmp",
            ]
        );
        assert_eq!(prepared_root(&full()), None);
    }

    #[test]
    fn a_network_made_ahead_is_not_made_by_clone() {
        let mut ahead = full();
        ahead.namespaces = vec![Namespace::Mount, Namespace::Net];
        assert_eq!(clone_flags(&ahead), libc::CLONE_NEWNS | libc::CLONE_NEWNET);
        ahead.network_ahead = true;
        assert_eq!(clone_flags(&ahead), libc::CLONE_NEWNS);
    }

    #[test]
    fn nothing_asked_for_is_nothing_done() {
        let mut nothing = full();
        nothing.namespaces.clear();
        nothing.binds.clear();
        nothing.tmpfs.clear();
        (
            nothing.root,
            nothing.hostname,
            nothing.uid_map,
            nothing.gid_map,
        ) = Default::default();
        (nothing.proc, nothing.read_only_root) = (false, false);
        validate(&nothing).unwrap();
        assert_eq!(clone_flags(&nothing), 0);
        assert!(steps(&nothing).unwrap().is_empty());
    }

    #[test]
    fn a_null_byte_is_refused() {
        let mut bad = full();
        bad.tmpfs = vec!["/tm\0p".to_owned()];
        assert!(steps(&bad).unwrap_err().to_string().contains("null byte"));
    }
}
