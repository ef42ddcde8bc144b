//! Settings of a connection (RFC 9113, 6.5).

use super::frames::{self, Flags, Kind};
use super::{ErrorCode, FRAME_BYTES_MAX, Http2Error, WINDOW_DEFAULT, WINDOW_MAX};

/// Numbers of the settings.
pub const HEADER_TABLE_SIZE: u16 = 0x1;
/// Whether the server may push; we never allow or do it.
pub const ENABLE_PUSH: u16 = 0x2;
/// Most streams of the peer at a time.
pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
/// Window of a stream at its start.
pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// Longest payload of a frame.
pub const MAX_FRAME_SIZE: u16 = 0x5;
/// Longest header list, advisory.
pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// Bytes of one setting in a frame.
const SETTING_BYTES: usize = 6;

/// Most settings in one frame; there are six, and a few of extensions.
const SETTINGS_MAX: usize = 64;

/// Largest payload of a frame that a peer may ask for (RFC 9113, 6.5.2).
const FRAME_BYTES_LIMIT: u32 = (1 << 24) - 1;

/// What the peer has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Largest dynamic table that its decoder keeps.
    pub header_table_bytes: u32,
    /// Most streams that we may have open at a time.
    pub streams_max: u32,
    /// Window of each of our streams at its start.
    pub window_bytes: u32,
    /// Longest payload of a frame that it accepts.
    pub frame_bytes_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_table_bytes: 4096,
            streams_max: u32::MAX,
            window_bytes: WINDOW_DEFAULT,
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX),
        }
    }
}

impl Settings {
    /// Takes over what a SETTINGS frame says; settings that are not known are ignored.
    ///
    /// # Errors
    /// A value that the setting cannot have, or more settings than there can be.
    pub fn apply(&mut self, payload: &[u8]) -> Result<(), Http2Error> {
        let count = payload.len() / SETTING_BYTES;
        if count > SETTINGS_MAX {
            let text = format!("{count} settings in one frame, expected at most {SETTINGS_MAX}");
            return Err(Http2Error::new(ErrorCode::ENHANCE_YOUR_CALM, text));
        }
        for setting in payload.chunks_exact(SETTING_BYTES) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            self.set(name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), Http2Error> {
        match name {
            HEADER_TABLE_SIZE => self.header_table_bytes = value,
            ENABLE_PUSH if value > 1 => {
                let text = format!("ENABLE_PUSH is {value}, expected 0 or 1");
                return Err(Http2Error::protocol(text));
            }
            MAX_CONCURRENT_STREAMS => self.streams_max = value,
            INITIAL_WINDOW_SIZE if value > WINDOW_MAX => {
                let text = format!("INITIAL_WINDOW_SIZE is {value}, expected at most {WINDOW_MAX}");
                return Err(Http2Error::new(ErrorCode::FLOW_CONTROL_ERROR, text));
            }
            INITIAL_WINDOW_SIZE => self.window_bytes = value,
            MAX_FRAME_SIZE => {
                let low = Self::default().frame_bytes_max;
                if !(low..=FRAME_BYTES_LIMIT).contains(&value) {
                    let text =
                        format!("MAX_FRAME_SIZE is {value}, expected {low} to {FRAME_BYTES_LIMIT}");
                    return Err(Http2Error::protocol(text));
                }
                self.frame_bytes_max = value;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Appends a SETTINGS frame with these names and values.
pub fn append(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    let length = settings.len() * SETTING_BYTES;
    frames::append_header(length, Kind::Settings, Flags(0), 0, out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(pairs: &[(u16, u32)]) -> Result<Settings, Http2Error> {
        let mut bytes = Vec::new();
        append(pairs, &mut bytes);
        let mut settings = Settings::default();
        settings
            .apply(&bytes[frames::HEADER_BYTES..])
            .map(|()| settings)
    }

    #[test]
    fn what_is_written_is_read() {
        let settings = applied(&[
            (HEADER_TABLE_SIZE, 0),
            (ENABLE_PUSH, 1),
            (MAX_CONCURRENT_STREAMS, 7),
            (INITIAL_WINDOW_SIZE, 9),
            (MAX_FRAME_SIZE, 20_000),
            (MAX_HEADER_LIST_SIZE, 5),
            (0x99, 1),
        ]);
        let expected = Settings {
            header_table_bytes: 0,
            streams_max: 7,
            window_bytes: 9,
            frame_bytes_max: 20_000,
        };
        assert_eq!(settings, Ok(expected));
    }

    #[test]
    fn values_out_of_bounds_have_their_codes() {
        let rows = [
            (ENABLE_PUSH, 2, ErrorCode::PROTOCOL_ERROR),
            (INITIAL_WINDOW_SIZE, 1 << 31, ErrorCode::FLOW_CONTROL_ERROR),
            (MAX_FRAME_SIZE, 16_383, ErrorCode::PROTOCOL_ERROR),
            (MAX_FRAME_SIZE, 1 << 24, ErrorCode::PROTOCOL_ERROR),
        ];
        for (name, value, code) in rows {
            assert_eq!(applied(&[(name, value)]).unwrap_err().code, code);
        }
        let flood = [(0x99, 1); 65];
        assert_eq!(
            applied(&flood).unwrap_err().code,
            ErrorCode::ENHANCE_YOUR_CALM
        );
    }
}
