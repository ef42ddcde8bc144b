//! The launcher as its client sees it.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod callers;
mod endings;
mod guest;
mod isolation;
mod starts;
mod support;
