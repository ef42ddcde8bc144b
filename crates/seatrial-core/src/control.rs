//! The control channel between a guest and its host: what crosses the stream
//! socket that every sandbox inherits.
//!
//! ```text
//! u32 length   bytes after this field, 2 ..= FRAME_BYTES_MAX, little-endian
//! u8  version  2
//! u8  type
//! ...          payload, by type
//! ```
//!
//! | type | direction | payload |
//! | --- | --- | --- |
//! | `HELLO` 0x01 | guest to host | first instruction u64, hello u64, pid u32, build text |
//! | `READY` 0x02 | guest to host | ready u64, then nothing or JSON `{"endpoints": [...]}` |
//! | `PONG` 0x03 | guest to host | the payload of the `PING` |
//! | `RESULT` 0x04 | guest to host | JSON text |
//! | `ERROR` 0x05 | guest to host | JSON `{"code", "message"}` |
//! | `STATS` 0x06 | guest to host | JSON text, see [`HostFrame::Stats`] |
//! | `PING` 0x11 | host to guest | at most [`PING_BYTES_MAX`] |
//! | `RUN` 0x12 | host to guest | JSON text |
//! | `STOP` 0x13 | host to guest | nothing |
//! | `STATS` 0x14 | host to guest | nothing |
//!
//! The functions here only convert bytes. They never panic, hold at most
//! [`BUFFER_BYTES_MAX`] and refuse a bad frame as soon as the byte that makes it
//! bad has come, so that garbage never leaves a reader waiting for more of it.
//!
//! A guest that calls by TCP says [`TOKEN_BYTES`] of a secret token first, ahead of its `HELLO` and
//! outside of any frame: it is how the host tells its guest from whoever else has called.

mod decoder;
mod error;
mod frame;
mod payload;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use error::ControlError;
pub use frame::{Frame, GuestFrame, HostFrame, Limits};
pub use payload::{ErrorReport, Hello, Ready};

/// The version of this protocol; a peer with another one is refused.
pub const VERSION: u8 = 2;

/// The file descriptor that carries the channel into a sandbox unless told otherwise.
pub const CHANNEL_FD_DEFAULT: i32 = 3;

/// Length of the token that a guest says when it calls by TCP: 256 bits in hexadecimal digits.
pub const TOKEN_BYTES: usize = 64;

/// The variable of its environment from which a guest takes its token.
pub const TOKEN_VARIABLE: &str = "SEATRIAL_CHANNEL_TOKEN";

/// Whether a byte can be in a token: a digit, or a letter from `a` to `f`.
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Whether bytes have the form of a token.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    bytes.len() == TOKEN_BYTES && bytes.iter().copied().all(is_token_byte)
}

/// Largest value of the length field: version, type and payload.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Longest payload of any frame.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - HEAD_BYTES;

/// Longest payload of a `PING`.
pub const PING_BYTES_MAX: usize = 64 << 10;

/// Longest build text in a `HELLO`.
pub const BUILD_BYTES_MAX: usize = 64;

/// Most bytes a [`Decoder`] holds: one whole frame and what came behind it.
pub const BUFFER_BYTES_MAX: usize = 2 * (FRAME_BYTES_MAX + LENGTH_FIELD_BYTES);

/// The exit status of a guest that refused what its host sent.
pub const EXIT_PROTOCOL: i32 = 70;

/// Bytes of the length field, which the length does not count.
const LENGTH_FIELD_BYTES: usize = 4;

/// Version and type.
const HEAD_BYTES: usize = 2;
