//! Lines of text protocols, out of whatever bytes have come.

use super::{DecodeError, take_front};

/// Collects a line that may come in several reads.
#[derive(Clone, Debug, Default)]
pub(super) struct LineReader {
    partial: Vec<u8>,
    is_done: bool,
}

impl LineReader {
    /// Takes a line from the front, without its end; `None` when it is not whole, and then all
    /// bytes are taken. The line is good until the next call.
    ///
    /// # Errors
    /// [`DecodeError::Broken`] for a line of more than `bytes_max` bytes.
    #[inline]
    pub fn take<'a, 'bytes: 'a>(
        &'a mut self,
        bytes: &mut &'bytes [u8],
        bytes_max: usize,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        if self.is_done {
            self.partial.clear();
            self.is_done = false;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = take_front(bytes, end.map_or(bytes.len(), |end| end + 1));
        if self.partial.len() + part.len() > bytes_max + 2 {
            return Err(DecodeError::Broken(
                format!("a line of more than {bytes_max} bytes").into(),
            ));
        }
        if end.is_some() && self.partial.is_empty() {
            return Ok(Some(without_end(part)));
        }
        self.partial.extend_from_slice(part);
        if end.is_none() {
            return Ok(None);
        }
        self.is_done = true;
        Ok(Some(without_end(&self.partial)))
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let text = b"one\r\n\ntwo\nthree\r\nrest";
        for cut in 1..text.len() {
            let mut lines = LineReader::default();
            let mut found = Vec::new();
            for mut piece in text.chunks(cut) {
                while let Some(line) = lines.take(&mut piece, 5).unwrap() {
                    found.push(line.to_vec());
                }
            }
            assert_eq!(found, [&b"one"[..], b"", b"two", b"three"], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = LineReader::default();
        assert_eq!(lines.take(&mut &b"12345"[..], 5), Ok(None));
        assert!(lines.take(&mut &b"678"[..], 5).is_err());
    }
}
