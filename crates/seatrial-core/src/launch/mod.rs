//! Starts sandboxes from plans that are data, and keeps the instants of what happened.
//!
//! `plan` is what is asked and answered; `prepare` and `isolate` turn a plan into a
//! program of system calls; `homes` keeps what is prepared once for many; `pool` holds the threads that run such programs when one
//! barrier releases them; `sys` makes the calls; `sandbox` follows one sandbox to its end;
//! `server` is the loop around it all, fed by `reactor`, and `descendants` sees to it that
//! nothing is left. `callers` tells guests that call by TCP from others.
//!
//! What the instants mean:
//!
//! - all are `CLOCK_MONOTONIC`, read in this process;
//! - *invoked* and *accepted* are read in the thread that makes the child, immediately around
//!   `clone`, which returns when the child has called `execve`;
//! - what comes through the loop (first byte, ready, reply, exit) has the instant of the wake-up
//!   of `epoll_wait` that brought it, read before anything is handled. Events of one wake-up share
//!   its instant;
//! - nothing here polls: a deadline is a timer, an end is a pidfd.

pub mod plan;

mod callers;
mod channel;
mod control_socket;
mod descendants;
mod homes;
mod isolate;
mod pool;
mod prepare;
mod reactor;
mod sandbox;
mod server;
// clone, execve, wait4 and signalfd have no safe form.
#[allow(unsafe_code)]
mod sys;

pub use descendants::descendants_of;
pub use server::Server;
pub use sys::{adopt_descriptor, now_ns};
