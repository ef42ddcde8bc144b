//! The things that a child does to itself before `execve`, one by one.

use std::ffi::{CStr, CString, c_int};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::{check, unshare};

/// One thing that a child does to itself before `execve`.
#[derive(Debug)]
pub enum Step {
    /// Opens a file, writes to it and closes it.
    Write {
        /// For error texts: what the writing is for.
        what: &'static str,
        /// The file.
        path: CString,
        /// What is written, in one call.
        bytes: Vec<u8>,
    },
    /// Joins a control group by a file of it that is open.
    Join {
        /// The file.
        file: OwnedFd,
        /// For error texts: where it is.
        path: CString,
    },
    /// Joins the network name space behind a descriptor.
    EnterNetwork(OwnedFd),
    /// Makes the current control groups the roots of what is seen of them.
    UnshareCgroup,
    /// Sets the host name.
    HostName(Vec<u8>),
    /// Keeps mounts from travelling to the name space of the launcher and back.
    PrivateMounts,
    /// Shows a file or a directory, with all that is mounted below it, at another place.
    Bind {
        /// What is shown.
        source: CString,
        /// Where.
        target: CString,
    },
    /// Puts mounts that were copied before at a place; see [`detached_bind`].
    Attach {
        /// The mounts.
        tree: OwnedFd,
        /// Where.
        target: CString,
    },
    /// Makes a mount read-only.
    ReadOnly {
        /// The mount point.
        target: CString,
        /// Whether the mounts below it are made read-only as well.
        is_recursive: bool,
    },
    /// Mounts a new file system.
    Mount {
        /// Its type, which also serves as its source.
        kind: &'static CStr,
        /// Where.
        target: CString,
        /// Its flags.
        flags: MountFlags,
        /// Its options.
        data: &'static CStr,
    },
    /// Makes a mount point the root and drops the old one.
    PivotRoot(CString),
    /// Changes the working directory.
    ChangeDirectory(CString),
}

impl Step {
    /// The step as it stands in an error text.
    pub(in crate::launch) fn describe(&self) -> String {
        let text = |path: &CStr| path.to_string_lossy().into_owned();
        match self {
            Self::Write { what, path, .. } => format!("{what} {}", text(path)),
            Self::Join { path, .. } => format!("joining the control group {}", text(path)),
            Self::EnterNetwork(_) => "setns to the network name space".to_owned(),
            Self::UnshareCgroup => "unshare of the cgroup name space".to_owned(),
            Self::HostName(_) => "sethostname".to_owned(),
            Self::PrivateMounts => "making mounts private".to_owned(),
            Self::Bind { source, target } => {
                format!("bind of {} on {}", text(source), text(target))
            }
            Self::Attach { target, .. } => format!("attaching mounts at {}", text(target)),
            Self::ReadOnly { target, .. } => format!("making {} read-only", text(target)),
            Self::Mount { kind, target, .. } => {
                format!("mount of {} on {}", text(kind), text(target))
            }
            Self::PivotRoot(_) => "pivot_root".to_owned(),
            Self::ChangeDirectory(path) => format!("chdir to {}", text(path)),
        }
    }

    /// Runs in the child, or in a thread that makes a mount name space for children.
    pub(super) fn run(&self) -> Result<(), Errno> {
        match self {
            Self::Write { path, bytes, .. } => write_file(path, bytes),
            Self::Join { file, .. } => rustix::io::write(file, b"0").map(drop),
            Self::EnterNetwork(fd) => rustix::thread::move_into_link_name_space(
                fd.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            ),
            Self::UnshareCgroup => unshare(libc::CLONE_NEWCGROUP),
            Self::HostName(name) => rustix::system::sethostname(name),
            Self::PrivateMounts => rustix::mount::mount_change(
                c"/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            ),
            Self::Bind { source, target } => {
                rustix::mount::mount_bind_recursive(source.as_c_str(), target.as_c_str())
            }
            Self::Attach { tree, target } => rustix::mount::move_mount(
                tree,
                c"",
                CWD,
                target.as_c_str(),
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            ),
            Self::ReadOnly {
                target,
                is_recursive,
            } => make_read_only(target, *is_recursive),
            Self::Mount {
                kind,
                target,
                flags,
                data,
            } => rustix::mount::mount(*kind, target.as_c_str(), *kind, *flags, *data),
            Self::PivotRoot(root) => {
                rustix::process::chdir(root.as_c_str())?;
                rustix::process::pivot_root(c".", c".")?;
                // Both roots are now stacked on the same point, the old one on top.
                rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
                rustix::process::chdir(c"/")
            }
            Self::ChangeDirectory(path) => rustix::process::chdir(path.as_c_str()),
        }
    }
}

fn write_file(path: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}

/// Only adds the flag, so that flags that a user name space has locked stay as they are.
fn make_read_only(target: &CStr, is_recursive: bool) -> Result<(), Errno> {
    let flags = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    set_attributes(libc::AT_FDCWD, target, flags, libc::MOUNT_ATTR_RDONLY, 0)
}

/// A copy of what is mounted at a path and below it that is mounted nowhere yet. Mounts that are
/// made in it do not travel to where it was copied from.
///
/// # Errors
/// There is no such path, or the caller may not.
pub fn detached_bind(source: &CStr, is_read_only: bool) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, source, flags)?;
    let attributes = if is_read_only {
        libc::MOUNT_ATTR_RDONLY
    } else {
        0
    };
    let flags = libc::AT_RECURSIVE | libc::AT_EMPTY_PATH;
    set_attributes(tree.as_raw_fd(), c"", flags, attributes, libc::MS_PRIVATE)?;
    Ok(tree)
}

fn set_attributes(
    directory: RawFd,
    path: &CStr,
    flags: c_int,
    added: u64,
    propagation: u64,
) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: added,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: both pointers lead to live, correctly sized memory that the call only reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}
