//! Flow-control windows (RFC 9113, 5.2 and 6.9).

use super::{ErrorCode, Http2Error, WINDOW_MAX};

/// Bytes that may be sent; below zero after the peer made it smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow(i64);

impl SendWindow {
    /// A window of this size.
    #[must_use]
    pub const fn new(bytes: u32) -> Self {
        Self(bytes as i64)
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// These bytes, at most [`Self::available`], are sent.
    #[allow(clippy::cast_possible_wrap)] // a window holds less than 2^31
    pub const fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }

    /// The peer allows more, or less when it changed the size at the start of streams.
    ///
    /// # Errors
    /// The window would exceed the largest.
    pub fn change(&mut self, bytes: i64) -> Result<(), Http2Error> {
        let changed = self.0.saturating_add(bytes);
        if changed > i64::from(WINDOW_MAX) {
            let text = format!("a window of {changed} bytes, expected at most {WINDOW_MAX}");
            return Err(Http2Error::new(ErrorCode::FLOW_CONTROL_ERROR, text));
        }
        self.0 = changed;
        Ok(())
    }
}

/// Bytes that the peer may send; refilled when half of them are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveWindow {
    size: u32,
    left: u32,
}

impl ReceiveWindow {
    /// A window that was announced with this size.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        Self { size, left: size }
    }

    /// The peer has sent these bytes, which are used at once; what to allow it again, if anything.
    ///
    /// # Errors
    /// It was not allowed to send so many.
    pub fn receive(&mut self, bytes: usize) -> Result<Option<u32>, Http2Error> {
        let left = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.left.checked_sub(bytes));
        let Some(left) = left else {
            let text = format!("{bytes} bytes came, the window allows {}", self.left);
            return Err(Http2Error::new(ErrorCode::FLOW_CONTROL_ERROR, text));
        };
        self.left = left;
        if left > self.size / 2 {
            return Ok(None);
        }
        self.left = self.size;
        Ok(Some(self.size - left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_may_go_below_zero_but_not_beyond_the_largest() {
        let mut window = SendWindow::new(100);
        window.take(60);
        assert_eq!(window.available(), 40);
        window.change(-90).unwrap();
        assert_eq!(window.available(), 0);
        window.change(51).unwrap();
        assert_eq!(window.available(), 1);
        let error = window.change(i64::from(WINDOW_MAX)).unwrap_err();
        assert_eq!(error.code, ErrorCode::FLOW_CONTROL_ERROR);
        window.change(i64::from(WINDOW_MAX) - 1).unwrap();
    }

    #[test]
    fn a_receive_window_is_refilled_at_half() {
        let mut window = ReceiveWindow::new(1000);
        assert_eq!(window.receive(499), Ok(None));
        assert_eq!(window.receive(1), Ok(Some(500)));
        assert_eq!(window.receive(1000), Ok(Some(1000)));
        let error = window.receive(1001).unwrap_err();
        assert_eq!(error.code, ErrorCode::FLOW_CONTROL_ERROR);
        assert!(error.text.contains("1001"), "{error}");
    }
}
