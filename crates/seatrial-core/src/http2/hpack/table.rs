//! The tables that fields are taken from (RFC 7541, 2.3).

use std::collections::VecDeque;

use super::{ENTRY_OVERHEAD_BYTES, FIRST_DYNAMIC_INDEX};

/// RFC 7541, appendix A; index 1 comes first.
#[rustfmt::skip] // one entry a line
pub const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    name_bytes: usize,
}

/// The fields that the peer had us remember; the newest in front.
#[derive(Debug)]
pub struct DynamicTable {
    entries: VecDeque<Entry>,
    size_bytes: usize,
    size_bytes_max: usize,
    changes: u64,
}

impl DynamicTable {
    /// An empty table of at most this size.
    pub const fn new(size_bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size_bytes: 0,
            size_bytes_max,
            changes: 0,
        }
    }

    /// The field with this index, static ones included.
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        if let Some(entry) = STATIC.get(index) {
            return Some(*entry);
        }
        let entry = self.entries.get(index + 1 - FIRST_DYNAMIC_INDEX)?;
        Some(entry.bytes.split_at(entry.name_bytes))
    }

    /// Puts a field in front and drops old ones until it fits; itself, if it never does.
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        self.changes += 1;
        let entry_bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.shrink_to(self.size_bytes_max.saturating_sub(entry_bytes));
        if entry_bytes <= self.size_bytes_max {
            self.size_bytes += entry_bytes;
            self.entries.push_front(Entry {
                bytes: [name, value].concat().into_boxed_slice(),
                name_bytes: name.len(),
            });
        }
    }

    /// Changes the size that it may have.
    pub fn resize(&mut self, size_bytes_max: usize) {
        self.changes += 1;
        self.size_bytes_max = size_bytes_max;
        self.shrink_to(size_bytes_max);
    }

    /// How often it was changed; as long as this stays, an index means the same.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    fn shrink_to(&mut self, size_bytes: usize) {
        while self.size_bytes > size_bytes {
            let Some(entry) = self.entries.pop_back() else {
                return;
            };
            self.size_bytes -= entry.bytes.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_entries_make_room() {
        let mut table = DynamicTable::new(80);
        table.insert(b"a", b"1234567");
        table.insert(b"b", b"1234567");
        assert_eq!(table.get(62), Some((&b"b"[..], &b"1234567"[..])));
        assert_eq!(table.get(63), Some((&b"a"[..], &b"1234567"[..])));
        table.insert(b"c", b"");
        assert_eq!(table.get(63), Some((&b"b"[..], &b"1234567"[..])));
        assert_eq!(table.get(64), None);
        table.insert(b"d", &[b'x'; 100]);
        assert_eq!(table.get(62), None);
        assert_eq!((table.get(0), table.size_bytes), (None, 0));
    }

    #[test]
    fn a_smaller_table_forgets() {
        let mut table = DynamicTable::new(200);
        table.insert(b"a", b"1");
        let before = table.changes();
        table.resize(33);
        assert_eq!(table.get(62), None);
        assert!(table.changes() > before);
    }

    #[test]
    fn static_entries_have_their_numbers() {
        let table = DynamicTable::new(0);
        assert_eq!(table.get(3), Some((&b":method"[..], &b"POST"[..])));
        assert_eq!(table.get(8), Some((&b":status"[..], &b"200"[..])));
        assert_eq!(table.get(31), Some((&b"content-type"[..], &b""[..])));
        assert_eq!(table.get(61), Some((&b"www-authenticate"[..], &b""[..])));
    }
}
