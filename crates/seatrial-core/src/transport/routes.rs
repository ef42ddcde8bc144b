//! Which connections one thread has, and where each goes.

use super::target::SocketTarget;
use crate::arrival::Share;

/// Which connections one thread has, and where each goes.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Where the connections of the run go, in turn; at least one.
    pub targets: Vec<SocketTarget>,
    /// The thread, among those that the connections are dealt to.
    pub thread: Share,
    /// Connections of this thread.
    pub connections: usize,
}

impl Routes {
    /// The number in the run of connection `own` of this thread, and its target.
    pub(super) fn of(&self, own: usize) -> (u32, &SocketTarget) {
        let number = self.thread.number_of(own);
        (number, &self.targets[number as usize % self.targets.len()])
    }
}
