//! The few forms of a field that we write (RFC 7541, 6). Strings are written as they are.

use super::{FIRST_DYNAMIC_INDEX, table};

/// Appends a number whose first byte has `prefix_bits` bits for it; the others are `pattern`.
pub fn append_number(mut value: usize, prefix_bits: u32, pattern: u8, out: &mut Vec<u8>) {
    let limit = (1usize << prefix_bits) - 1;
    let low = |value: usize| value.to_le_bytes()[0];
    if value < limit {
        out.push(pattern | low(value));
        return;
    }
    out.push(pattern | low(limit));
    value -= limit;
    while value >= 0x80 {
        out.push(low(value) | 0x80);
        value >>= 7;
    }
    out.push(low(value));
}

/// Appends a field that a table has under this index.
pub fn append_indexed(index: usize, out: &mut Vec<u8>) {
    append_number(index, 7, 0x80, out);
}

/// Appends the announcement of a new size of the dynamic table.
pub fn append_table_size(bytes: usize, out: &mut Vec<u8>) {
    append_number(bytes, 5, 0x20, out);
}

/// Appends a field as text, which neither side remembers.
pub fn append_literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    append_named(name, value, 4, 0x00, out);
}

/// Appends a field as text, which both sides remember under the next dynamic index.
pub fn append_remembered(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    append_named(name, value, 6, 0x40, out);
}

/// Appends a field in the shortest form that remembers nothing.
pub fn append_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    match static_index_of(name, value) {
        Some(index) => append_indexed(index, out),
        None => append_literal(name, value, out),
    }
}

/// The static index of a whole field.
#[must_use]
pub fn static_index_of(name: &[u8], value: &[u8]) -> Option<usize> {
    let entries = table::STATIC[..].iter();
    let place = entries.clone().position(|entry| *entry == (name, value));
    place.map(|place| place + 1)
}

/// The index of the `nth` field, from 0, among `count` that were remembered in this order.
#[must_use]
pub const fn remembered_index(nth: usize, count: usize) -> usize {
    FIRST_DYNAMIC_INDEX + count - 1 - nth
}

/// The few fields of which the peer's table is to have a copy, in whatever order they come.
#[derive(Clone, Copy, Debug)]
pub struct FieldMemory<const N: usize> {
    /// How many were remembered before each one.
    places: [Option<usize>; N],
    count: usize,
    is_allowed: bool,
    owes_size: bool,
}

impl<const N: usize> Default for FieldMemory<N> {
    fn default() -> Self {
        Self {
            places: [None; N],
            count: 0,
            is_allowed: true,
            owes_size: false,
        }
    }
}

impl<const N: usize> FieldMemory<N> {
    /// The peer's table holds this much; less than we rely on ends all remembering.
    pub const fn limit(&mut self, table_bytes: u32) {
        if self.is_allowed && (table_bytes as usize) < super::TABLE_BYTES {
            self.is_allowed = false;
            self.owes_size = true;
        }
    }

    /// Appends what has to be at the start of a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.owes_size) {
            append_table_size(0, out);
        }
    }

    /// Appends the field with this number, below `N`; it is always the same.
    pub fn append(&mut self, number: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if !self.is_allowed {
            append_field(name, value, out);
        } else if let Some(place) = self.places[number] {
            append_indexed(remembered_index(place, self.count), out);
        } else {
            append_remembered(name, value, out);
            self.places[number] = Some(self.count);
            self.count += 1;
        }
    }
}

fn append_named(name: &[u8], value: &[u8], prefix_bits: u32, pattern: u8, out: &mut Vec<u8>) {
    let place = table::STATIC.iter().position(|entry| entry.0 == name);
    append_number(
        place.map_or(0, |place| place + 1),
        prefix_bits,
        pattern,
        out,
    );
    if place.is_none() {
        append_text(name, out);
    }
    append_text(value, out);
}

fn append_text(text: &[u8], out: &mut Vec<u8>) {
    append_number(text.len(), 7, 0x00, out);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::Decoder;

    #[test]
    fn numbers_are_those_of_the_appendix() {
        // RFC 7541, C.1.1 to C.1.3.
        for (value, bits, expected) in [
            (10, 5, &[0x0a][..]),
            (1337, 5, &[0x1f, 0x9a, 0x0a]),
            (42, 8, &[0x2a]),
            (31, 5, &[0x1f, 0x00]),
        ] {
            let mut out = Vec::new();
            append_number(value, bits, 0, &mut out);
            assert_eq!(out, expected, "{value}");
        }
    }

    #[test]
    fn fields_are_those_of_the_appendix() {
        // RFC 7541, C.2.1, C.2.2 and C.2.4.
        let mut out = Vec::new();
        append_remembered(b"custom-key", b"custom-header", &mut out);
        assert_eq!(out, b"\x40\x0acustom-key\x0dcustom-header");
        out.clear();
        append_field(b":path", b"/sample/path", &mut out);
        assert_eq!(out, b"\x04\x0c/sample/path");
        out.clear();
        append_field(b":method", b"GET", &mut out);
        append_table_size(0, &mut out);
        assert_eq!(out, b"\x82\x20");
        assert_eq!((remembered_index(0, 3), remembered_index(2, 3)), (64, 62));
    }

    #[test]
    fn fields_are_remembered_in_any_order_until_the_table_is_too_small() {
        let fields = [(&b"a"[..], &b"1"[..]), (b"b", b"2"), (b"c", b"3")];
        let (mut memory, mut decoder) = (FieldMemory::<3>::default(), Decoder::default());
        let mut sizes = Vec::new();
        for (turn, number) in [2, 0, 2, 1, 0, 1, 2, 0].into_iter().enumerate() {
            if turn == 6 {
                memory.limit(4095);
            }
            let mut block = Vec::new();
            memory.begin(&mut block);
            memory.append(number, fields[number].0, fields[number].1, &mut block);
            let mut read = Vec::new();
            decoder
                .decode(&block, |name, value| {
                    read.push((name.to_vec(), value.to_vec()));
                })
                .unwrap();
            let (name, value) = fields[number];
            assert_eq!(read, [(name.to_vec(), value.to_vec())]);
            sizes.push(block.len());
        }
        assert_eq!(sizes, [5, 5, 1, 5, 1, 1, 6, 5]);
    }
}
