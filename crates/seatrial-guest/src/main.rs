//! The one program that Seatrial puts inside a sandbox.
//!
//! It is static, needs no file, no `/proc`, no `/dev` and no open standard
//! stream, and may be process 1 of its namespace. Its first statement reads the
//! clock, its first act is the `HELLO` on the control channel; whatever can wait
//! comes later. When the channel closes it exits, so nothing outlives its owner.
//!
//! `std`'s own start-up is left out (`no_main`): it polls and may reopen the
//! standard streams (and aborts without `/dev/null`), and reads `/proc` for the
//! stack's bounds, all of which would stand between `exec` and `HELLO`.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))] // the test harness brings its own `main`
#![deny(unsafe_code)]

mod arguments;
mod busy;
mod channel;
mod entry;
mod error;
mod machine;
mod probe;
mod server;
mod spin;
mod sys;
