//! How a running load is told to end, from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::CoreError;

/// What a load was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    /// Go on.
    Run = 0,
    /// Offer nothing more, and wait for the replies like at the planned end.
    Finish = 1,
    /// End at once.
    Stop = 2,
}

/// An order that also wakes threads out of the kernel.
#[derive(Debug)]
pub struct StopSignal {
    order: AtomicU8,
    wake: OwnedFd,
}

impl StopSignal {
    /// A signal that says to go on.
    ///
    /// # Errors
    /// [`CoreError::System`] when the kernel gives no event descriptor.
    pub fn new() -> Result<Self, CoreError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(CoreError::system("eventfd"))?;
        Ok(Self {
            order: AtomicU8::new(Order::Run as u8),
            wake,
        })
    }

    /// Orders to end at once, for good. May be called from any thread and more than once.
    pub fn raise(&self) {
        self.give(Order::Stop);
    }

    /// Orders to finish, unless it was ordered to stop.
    pub fn finish(&self) {
        self.give(Order::Finish);
    }

    fn give(&self, order: Order) {
        let _ = self.order.fetch_max(order as u8, Ordering::Release);
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The strongest order that was given.
    #[must_use]
    pub fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            0 => Order::Run,
            1 => Order::Finish,
            _ => Order::Stop,
        }
    }

    /// Whether it was ordered to end at once.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.order() == Order::Stop
    }
}

impl AsFd for StopSignal {
    /// Readable once an order was given; every order is an edge of its own.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_order_stands() {
        let signal = StopSignal::new().unwrap();
        assert_eq!(signal.order(), Order::Run);
        signal.finish();
        assert_eq!((signal.order(), signal.is_raised()), (Order::Finish, false));
        signal.raise();
        signal.finish();
        assert_eq!((signal.order(), signal.is_raised()), (Order::Stop, true));
    }
}
