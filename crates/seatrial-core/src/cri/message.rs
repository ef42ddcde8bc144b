//! Protocol buffers, as far as requests of CRI need them: fields by number, nothing generated.
//!
//! A message is a sequence of fields in any order, and a field that is not known is passed over;
//! therefore a prepared request can be completed by appending a field to it.

/// The kinds of fields on the wire that occur here.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a truth value or an enumeration.
    Number(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
}

/// Appends a text or a message as a field; an empty one as well.
pub fn append_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    append_number_raw(u64::from(field) << 3 | BYTES, out);
    append_number_raw(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn append_number_raw(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// The fields of a message with their numbers, until its end or the first byte that makes no sense.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        loop {
            let key = take_number(&mut bytes)?;
            let value = match key & 7 {
                VARINT => Value::Number(take_number(&mut bytes)?),
                BYTES => {
                    let length = usize::try_from(take_number(&mut bytes)?).ok()?;
                    Value::Bytes(take(&mut bytes, length)?)
                }
                FIXED64 => {
                    take(&mut bytes, 8)?;
                    continue;
                }
                FIXED32 => {
                    take(&mut bytes, 4)?;
                    continue;
                }
                _ => return None,
            };
            return Some((key >> 3, value));
        }
    })
}

/// The last text or message with this number, which is the one that counts.
#[must_use]
pub fn bytes_of(message: &[u8], field: u64) -> Option<&[u8]> {
    fields(message)
        .filter_map(|found| match found {
            (number, Value::Bytes(bytes)) if number == field => Some(bytes),
            _ => None,
        })
        .last()
}

/// The text with this number; empty when there is none.
#[must_use]
pub fn text_of(message: &[u8], field: u64) -> String {
    let bytes = bytes_of(message, field).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number with this number; 0 when there is none, which is how a zero is sent.
#[must_use]
pub fn number_of(message: &[u8], field: u64) -> u64 {
    fields(message)
        .filter_map(|found| match found {
            (number, Value::Number(value)) if number == field => Some(value),
            _ => None,
        })
        .last()
        .unwrap_or(0)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_the_bytes_of_the_encoding() {
        // The example of the encoding's own description: field 2 is the text "testing".
        let mut out = Vec::new();
        append_bytes(2, b"testing", &mut out);
        assert_eq!(out, b"\x12\x07testing");
        assert_eq!(text_of(&out, 2), "testing");
        // And field 1 is the number 150.
        assert_eq!(number_of(b"\x08\x96\x01", 1), 150);
        assert_eq!(number_of(b"\x08\x96\x01", 2), 0);
        assert_eq!(bytes_of(b"\x08\x96\x01", 1), None);
    }

    #[test]
    fn unknown_kinds_are_passed_over_and_the_last_one_counts() {
        let mut out = b"\x09AAAAAAAA\x0dAAAA".to_vec();
        append_bytes(300, b"one", &mut out);
        append_bytes(300, b"two", &mut out);
        assert_eq!(text_of(&out, 300), "two");
        assert_eq!(fields(&out).count(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(fields(&bytes).count() <= bytes.len());
        }
    }
}
