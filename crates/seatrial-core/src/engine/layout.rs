//! What the table of a thread's connections is made for.

use crate::arrival::Share;
use crate::transport::ReplyOrder;
use crate::units::Nanos;

/// How a table is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub connections: usize,
    /// Requests at once on each of them.
    pub depth: u32,
    /// Requests at once on all of them.
    pub outstanding_max: Option<usize>,
    pub request_timeout: Nanos,
    /// Which requests of the run are the thread's.
    pub share: Share,
    pub order: ReplyOrder,
    /// Whether places have users who think, each as long as it takes that one.
    pub is_thinking: bool,
}
