//! What may be wrong with the bytes of the control channel.

use thiserror::Error;

use super::{BUFFER_BYTES_MAX, FRAME_BYTES_MAX, HEAD_BYTES, VERSION};

/// Why bytes are not a frame of the control channel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The length field is outside of what a frame may have.
    #[error("control frame length {length}, expected {HEAD_BYTES} to {FRAME_BYTES_MAX}")]
    Length {
        /// The length that was read, or that a frame to be sent would have.
        length: u64,
    },
    /// The version byte is not [`VERSION`].
    #[error("control protocol version {found}, expected {VERSION}")]
    Version {
        /// The version byte that was read.
        found: u8,
    },
    /// No frame of this direction has this type.
    #[error("unknown control frame type {found:#04x} from the {sender}")]
    Type {
        /// The type byte that was read.
        found: u8,
        /// Who sent it: `guest` or `host`.
        sender: &'static str,
    },
    /// The payload is shorter or longer than this type of frame allows.
    #[error("{frame} frame with {found_bytes} payload bytes, expected {min_bytes} to {max_bytes}")]
    PayloadLength {
        /// The name of the frame type.
        frame: &'static str,
        /// Payload length that was announced.
        found_bytes: usize,
        /// Shortest payload allowed.
        min_bytes: usize,
        /// Longest payload allowed.
        max_bytes: usize,
    },
    /// The payload has the right length but not the right content.
    #[error("{frame} frame with a payload that is not {expected}: {reason}")]
    Payload {
        /// The name of the frame type.
        frame: &'static str,
        /// What the payload should have been.
        expected: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// More bytes were pushed into a decoder than it may hold.
    #[error(
        "{found_bytes} unread bytes on the control channel, expected at most {BUFFER_BYTES_MAX}"
    )]
    Overflow {
        /// Bytes that the decoder would have had to hold.
        found_bytes: usize,
    },
    /// The stream ended inside a frame.
    #[error("control channel closed after {held_bytes} bytes of an unfinished frame")]
    Truncated {
        /// Bytes of the unfinished frame that had come.
        held_bytes: usize,
    },
}
