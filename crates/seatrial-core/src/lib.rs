//! The part of Seatrial that must be fast and exact: it offers load, starts
//! sandboxes and keeps raw instants. It knows nothing of Python.
#![deny(unsafe_code)]

pub mod arrival;
pub mod clock;
pub mod control;
pub mod cri;
pub mod engine;
pub mod error;
pub mod grpc;
pub mod histogram;
pub mod http2;
pub mod launch;
pub mod pacer;
pub mod record;
pub mod stop;
mod sys;
pub mod transport;
pub mod units;
pub mod wire;
