//! The echo protocol: bytes go back as they came.

use super::service::{Next, Refusal, Service, Step, Tools};

/// A stream of bytes has no requests; a datagram is one.
pub const OPERATIONS: &[&str] = &["echo"];

/// An echo remembers nothing.
#[derive(Debug)]
pub struct Echo;

impl Service for Echo {
    fn serve(&mut self, input: &[u8], _output: &mut Vec<u8>, _tools: &mut Tools) -> Step {
        let next = if input.is_empty() {
            Next::READ
        } else {
            Next::Mirror
        };
        Step {
            used_bytes: input.len(),
            next,
        }
    }

    fn refuse(&mut self, _input: &[u8], _why: Refusal, _output: &mut Vec<u8>) {}

    fn is_one_request(&self, _datagram: &[u8]) -> bool {
        true
    }

    fn is_timed(&self) -> bool {
        false // a stream of bytes has no requests
    }
}
