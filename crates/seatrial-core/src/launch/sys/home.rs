//! Mount name spaces that are made once, for the threads in which many children begin.
//!
//! A child's own mount name space is a copy of that of the thread which makes it, and what a copy
//! costs grows with the number of mounts. In one that holds a sandbox's root and nothing else the
//! copy is small, and there is no old root to be dropped, for which the kernel waits until no
//! processor can be looking at it any more.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::step::Step;
use super::{Host, errno_text, unshare};

/// A mount name space for threads to be in.
#[derive(Debug)]
pub struct Home {
    /// Which of the launcher's it is.
    pub number: usize,
    mounts: OwnedFd,
}

impl Home {
    /// Makes one: in a copy of the caller's mount name space, the steps are run. Its descriptor is
    /// kept where no child gets a copy of it.
    ///
    /// # Errors
    /// What could not be done, and the system's reason.
    pub fn make(number: usize, steps: Vec<Step>, host: &Host) -> Result<Self, String> {
        // In a thread that ends with it: no other can be taken out of the caller's name space.
        let maker = thread::Builder::new().spawn(move || make_mounts(&steps));
        let maker = maker.map_err(|error| format!("no thread: {error}"))?;
        let mounts = maker
            .join()
            .unwrap_or_else(|_| Err("the thread that made it panicked".to_owned()))?;
        let mounts = rustix::io::fcntl_dupfd_cloexec(&mounts, host.high_fd_base)
            .map_err(|errno| format!("moving its descriptor: {}", text_of(errno)))?;
        Ok(Self { number, mounts })
    }

    /// Moves the calling thread there, for good.
    ///
    /// # Errors
    /// The system refused, for want of rights as a rule.
    pub fn enter(&self) -> Result<(), Errno> {
        // The root and the working directory belong to the name space.
        unshare(libc::CLONE_FS)?;
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))
    }
}

fn make_mounts(steps: &[Step]) -> Result<OwnedFd, String> {
    let because = |what: String| move |errno: Errno| format!("{what}: {}", text_of(errno));
    unshare(libc::CLONE_NEWNS).map_err(because("unshare of the mount name space".to_owned()))?;
    // Before the steps, after which there may be no /proc.
    let mounts = own_name_space(c"/proc/thread-self/ns/mnt");
    let mounts = mounts.map_err(because("open of /proc/thread-self/ns/mnt".to_owned()))?;
    for step in steps {
        step.run().map_err(because(step.describe()))?;
    }
    Ok(mounts)
}

fn text_of(errno: Errno) -> String {
    errno_text(errno.raw_os_error())
}

/// Opens a name space of the calling thread.
pub(super) fn own_name_space(path: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
