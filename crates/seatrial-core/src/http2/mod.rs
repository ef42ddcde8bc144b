//! HTTP/2 (RFC 9113) and its header compression (RFC 7541), as far as unary calls need them.
//!
//! Client and server share this: frames in and out, settings, header blocks, flow
//! control. It does no input or output. Everything that a peer can make it hold is
//! bounded: a frame ([`FRAME_BYTES_MAX`]), a header block ([`HEADER_BLOCK_BYTES_MAX`]), and
//! the dynamic table of the decoder ([`hpack::TABLE_BYTES`]).

pub mod flow;
pub mod frames;
pub mod hpack;
pub mod reader;
pub mod settings;

pub use reader::{Event, Reader};

use std::borrow::Cow;

use thiserror::Error;

/// What a client says before its first frame (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest payload of a frame that we accept; the default of the protocol, which we keep.
pub const FRAME_BYTES_MAX: usize = 16_384;

/// Longest header block that we accept, with its continuations.
pub const HEADER_BLOCK_BYTES_MAX: usize = 64 << 10;

/// Highest stream number; a connection that has used it can carry no further stream.
pub const STREAM_MAX: u32 = (1 << 31) - 1;

/// Largest flow-control window (RFC 9113, 6.9.1).
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// Window of a connection, and of a stream unless settings say otherwise, at the start.
pub const WINDOW_DEFAULT: u32 = 65_535;

/// Why a stream or a connection ends (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// An orderly end.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol in a way that no other code tells.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// Our own fault.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// More bytes than the window allows, or a window beyond the largest.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// A frame on a stream that was closed.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of a size that its kind does not have.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was not begun to be worked on.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is not wanted any more.
    pub const CANCEL: Self = Self(0x8);
    /// A header block that cannot be decoded.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The peer makes more work than it may.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);

    /// The name in RFC 9113.
    #[must_use]
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        if (self.0 as usize) < NAMES.len() {
            NAMES[self.0 as usize]
        } else {
            "an unknown error code"
        }
    }
}

/// The peer broke HTTP/2; the connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("HTTP/2 {}: {text}", .code.name())]
pub struct Http2Error {
    /// What the peer is told.
    pub code: ErrorCode,
    /// What people are told.
    pub text: Cow<'static, str>,
}

impl Http2Error {
    /// An error with this code and text.
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// A breach of the protocol that no other code tells.
    pub fn protocol(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::PROTOCOL_ERROR, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_with_the_name_of_their_code() {
        let error = Http2Error::new(ErrorCode::FLOW_CONTROL_ERROR, "9 bytes too many");
        assert_eq!(
            error.to_string(),
            "HTTP/2 FLOW_CONTROL_ERROR: 9 bytes too many"
        );
        assert_eq!(ErrorCode(0xd).name(), "HTTP_1_1_REQUIRED");
        assert_eq!(ErrorCode(0xe).name(), "an unknown error code");
    }
}
