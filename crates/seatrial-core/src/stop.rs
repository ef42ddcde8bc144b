//! How a running load is told to end early, from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::CoreError;

/// A flag that also wakes threads out of the kernel.
#[derive(Debug)]
pub struct StopSignal {
    is_raised: AtomicBool,
    wake: OwnedFd,
}

impl StopSignal {
    /// A signal that is not raised.
    ///
    /// # Errors
    /// [`CoreError::System`] when the kernel gives no event descriptor.
    pub fn new() -> Result<Self, CoreError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(CoreError::system("eventfd"))?;
        Ok(Self {
            is_raised: AtomicBool::new(false),
            wake,
        })
    }

    /// Raises it, for good. May be called from any thread and more than once.
    pub fn raise(&self) {
        self.is_raised.store(true, Ordering::Release);
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Whether it was raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::Relaxed)
    }
}

impl AsFd for StopSignal {
    /// Readable once the signal is raised.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
