//! What frames carry, and how it becomes bytes.

use serde::{Deserialize, Serialize};

use super::{ControlError, PAYLOAD_BYTES_MAX};

/// The fixed part of a `HELLO`.
pub(super) const HELLO_FIXED_BYTES: usize = 20;

/// The fixed part of a `READY`.
pub(super) const READY_FIXED_BYTES: usize = 8;

/// What the guest says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// `CLOCK_MONOTONIC` of the guest at the first statement of its `main`.
    pub first_instruction_mono_ns: u64,
    /// `CLOCK_MONOTONIC` of the guest when this frame was made.
    pub hello_mono_ns: u64,
    /// The guest's own process id, as it sees it.
    pub pid: u32,
    /// Name and version of the guest, at most [`BUILD_BYTES_MAX`](super::BUILD_BYTES_MAX).
    pub build: String,
}

/// What the guest says when its role is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// `CLOCK_MONOTONIC` of the guest when it was ready.
    pub ready_mono_ns: u64,
    /// Where it listens, such as `tcp:0.0.0.0:7000`; empty for a role that does not.
    pub endpoints: Vec<String>,
}

/// A failure that the guest reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// A short stable word, such as `bad-request`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
}

/// The endpoints as they stand in a `READY`.
#[derive(Serialize, Deserialize)]
struct Endpoints {
    endpoints: Vec<String>,
}

impl Hello {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, ControlError> {
        let Some((fixed, build)) = payload.split_first_chunk::<HELLO_FIXED_BYTES>() else {
            return Err(short("HELLO", payload.len(), HELLO_FIXED_BYTES));
        };
        let mut pid = [0; 4];
        pid.copy_from_slice(&fixed[16..20]);
        Ok(Self {
            first_instruction_mono_ns: u64_at(fixed, 0),
            hello_mono_ns: u64_at(fixed, 8),
            pid: u32::from_le_bytes(pid),
            build: text_of("HELLO", build)?,
        })
    }
}

impl Ready {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, ControlError> {
        let Some((fixed, rest)) = payload.split_first_chunk::<READY_FIXED_BYTES>() else {
            return Err(short("READY", payload.len(), READY_FIXED_BYTES));
        };
        let endpoints = if rest.is_empty() {
            Vec::new()
        } else {
            json_of::<Endpoints>("READY", rest)?.endpoints
        };
        Ok(Self {
            ready_mono_ns: u64::from_le_bytes(*fixed),
            endpoints,
        })
    }

    /// What stands behind the fixed part: nothing for a role that does not listen.
    pub(super) fn endpoints_bytes(&self) -> Result<Vec<u8>, ControlError> {
        if self.endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let endpoints = self.endpoints.clone();
        json_bytes("READY", &Endpoints { endpoints })
    }
}

const fn short(frame: &'static str, found_bytes: usize, min_bytes: usize) -> ControlError {
    ControlError::PayloadLength {
        frame,
        found_bytes,
        min_bytes,
        max_bytes: PAYLOAD_BYTES_MAX,
    }
}

fn u64_at(bytes: &[u8; HELLO_FIXED_BYTES], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

pub(super) fn text_of(frame: &'static str, payload: &[u8]) -> Result<String, ControlError> {
    std::str::from_utf8(payload)
        .map(str::to_owned)
        .map_err(|error| ControlError::Payload {
            frame,
            expected: "UTF-8 text",
            reason: error.to_string(),
        })
}

pub(super) fn json_of<T: serde::de::DeserializeOwned>(
    frame: &'static str,
    payload: &[u8],
) -> Result<T, ControlError> {
    serde_json::from_slice(payload).map_err(|error| not_json(frame, &error))
}

pub(super) fn json_bytes<T: Serialize>(
    frame: &'static str,
    value: &T,
) -> Result<Vec<u8>, ControlError> {
    serde_json::to_vec(value).map_err(|error| not_json(frame, &error))
}

fn not_json(frame: &'static str, error: &serde_json::Error) -> ControlError {
    ControlError::Payload {
        frame,
        expected: "the JSON of its type",
        reason: error.to_string(),
    }
}
