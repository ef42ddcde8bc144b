//! Header blocks become fields (RFC 7541, 3 and 6).

use super::huffman;
use super::table::DynamicTable;
use super::{ENTRY_OVERHEAD_BYTES, TABLE_BYTES};
use crate::http2::{ErrorCode, HEADER_BLOCK_BYTES_MAX, Http2Error};

/// Most bytes of the numbers of a block; five hold 32 bits.
const NUMBER_BYTES_MAX: usize = 5;

/// The decoding side of one connection: what the peer had it remember.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: DynamicTable::new(TABLE_BYTES),
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

fn error(text: &'static str) -> Http2Error {
    Http2Error::new(ErrorCode::COMPRESSION_ERROR, text)
}

impl Decoder {
    /// Gives each field of a block, in order, to `note`.
    ///
    /// # Errors
    /// The block is not valid, or its fields together, each counted as in a dynamic
    /// table, exceed [`HEADER_BLOCK_BYTES_MAX`].
    pub fn decode(
        &mut self,
        mut block: &[u8],
        mut note: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Http2Error> {
        let mut list_bytes = 0;
        while let Some(first) = block.first().copied() {
            if first & 0xe0 == 0x20 {
                if list_bytes > 0 {
                    return Err(error("a size of the table behind a field"));
                }
                let size_bytes = number(&mut block, 5)?;
                if size_bytes > TABLE_BYTES {
                    return Err(error("a table larger than we allow"));
                }
                self.table.resize(size_bytes);
                continue;
            }
            if first & 0x80 != 0 {
                let index = number(&mut block, 7)?;
                let field = self.table.get(index);
                let (name, value) = field.ok_or_else(|| error("an index without a field"))?;
                list_bytes += field_bytes(name, value)?;
                note(name, value);
            } else {
                let is_remembered = first & 0x40 != 0;
                self.literal(&mut block, if is_remembered { 6 } else { 4 })?;
                list_bytes += field_bytes(&self.name, &self.value)?;
                note(&self.name, &self.value);
                if is_remembered {
                    self.table.insert(&self.name, &self.value);
                }
            }
            if list_bytes > HEADER_BLOCK_BYTES_MAX {
                let text = format!("headers of more than {HEADER_BLOCK_BYTES_MAX} bytes");
                return Err(Http2Error::new(ErrorCode::ENHANCE_YOUR_CALM, text));
            }
        }
        Ok(())
    }

    /// Changes whenever the meaning of some index may have changed. A block whose decoding
    /// left it as it was has the same fields as long as it stays so.
    #[must_use]
    pub const fn state(&self) -> u64 {
        self.table.changes()
    }

    /// Reads a field that is not in a table, though its name may be.
    fn literal(&mut self, block: &mut &[u8], prefix_bits: u32) -> Result<(), Http2Error> {
        let index = number(block, prefix_bits)?;
        if index == 0 {
            text(block, &mut self.name)?;
        } else {
            let field = self.table.get(index);
            let (name, _) = field.ok_or_else(|| error("an index without a name"))?;
            self.name.clear();
            self.name.extend_from_slice(name);
        }
        text(block, &mut self.value)
    }
}

fn field_bytes(name: &[u8], value: &[u8]) -> Result<usize, Http2Error> {
    // A block that only repeats an index of a long field grows a thousandfold; hence the limit.
    let bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
    (bytes <= HEADER_BLOCK_BYTES_MAX)
        .then_some(bytes)
        .ok_or_else(|| error("a field longer than a whole block may be"))
}

/// Takes a number whose first byte has `prefix_bits` bits of it.
fn number(block: &mut &[u8], prefix_bits: u32) -> Result<usize, Http2Error> {
    let cut = || error("a block that ends within a number");
    let (first, mut rest) = block.split_first().ok_or_else(cut)?;
    let limit = (1usize << prefix_bits) - 1;
    let mut value = usize::from(*first) & limit;
    if value == limit {
        for place in 0.. {
            if place == NUMBER_BYTES_MAX {
                return Err(error("a number of more than 32 bits"));
            }
            let byte;
            (byte, rest) = rest
                .split_first()
                .map(|(byte, rest)| (*byte, rest))
                .ok_or_else(cut)?;
            value += usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Takes a text, plain or in the Huffman code.
fn text(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Http2Error> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = number(block, 7)?;
    let bytes = block
        .get(..length)
        .ok_or_else(|| error("a block that ends within a text"))?;
    *block = &block[length..];
    out.clear();
    if is_coded {
        huffman::decode(bytes, out)
    } else {
        out.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::encoder;
    use proptest::prelude::*;

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Http2Error> {
        let mut told = Vec::new();
        decoder.decode(block, |name, value| {
            told.push(format!("{}: {}", name.escape_ascii(), value.escape_ascii()));
        })?;
        Ok(told)
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    /// RFC 7541, C.3 and C.4: three requests on one connection, plain and with Huffman.
    #[test]
    fn requests_of_the_appendix_are_read() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        let start = [
            ":method: GET",
            ":scheme: http",
            ":path: /",
            ":authority: www.example.com",
        ];
        let expected = [
            start.to_vec(),
            [&start[..], &["cache-control: no-cache"]].concat(),
            vec![
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                ":authority: www.example.com",
                "custom-key: custom-value",
            ],
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::default();
            for (block, expected) in blocks.iter().zip(&expected) {
                assert_eq!(&fields(&mut decoder, &unhex(block)).unwrap(), expected);
            }
        }
    }

    /// RFC 7541, C.6: three replies with Huffman and a table of 256 bytes, which evicts.
    #[test]
    fn replies_of_the_appendix_are_read() {
        let blocks = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let (date, location) = (
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        );
        let expected = [
            vec![":status: 302", "cache-control: private", date, location],
            vec![":status: 307", "cache-control: private", date, location],
            vec![
                ":status: 200",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:22 GMT",
                location,
                "content-encoding: gzip",
                "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ],
        ];
        let mut decoder = Decoder::default();
        let mut size = Vec::new();
        encoder::append_table_size(256, &mut size);
        decoder.decode(&size, |_, _| {}).unwrap();
        for (block, expected) in blocks.iter().zip(expected) {
            assert_eq!(
                fields(&mut decoder, &unhex(&block.replace('\n', ""))).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn the_state_tells_whether_a_block_means_the_same_again() {
        let mut decoder = Decoder::default();
        let mut block = Vec::new();
        encoder::append_field(b":status", b"200", &mut block);
        encoder::append_literal(b"a", b"b", &mut block);
        let before = decoder.state();
        fields(&mut decoder, &block).unwrap();
        assert_eq!(decoder.state(), before);
        encoder::append_remembered(b"a", b"b", &mut block);
        fields(&mut decoder, &block).unwrap();
        assert_ne!(decoder.state(), before);
    }

    #[test]
    fn broken_blocks_are_refused() {
        let mut large = Vec::new();
        encoder::append_remembered(b"a", &[b'x'; 3000], &mut large);
        large.extend([0xbe; 30]);
        let rows: [(&[u8], ErrorCode); 10] = [
            (b"\x80", ErrorCode::COMPRESSION_ERROR),
            (b"\xbe", ErrorCode::COMPRESSION_ERROR),
            (b"\x7f", ErrorCode::COMPRESSION_ERROR),
            (b"\x7e\x01a", ErrorCode::COMPRESSION_ERROR),
            (
                b"\xff\xff\xff\xff\xff\xff\x01",
                ErrorCode::COMPRESSION_ERROR,
            ),
            (b"\x00\x05abc", ErrorCode::COMPRESSION_ERROR),
            (b"\x00\x01a", ErrorCode::COMPRESSION_ERROR),
            (b"\x3f\xe2\x1f", ErrorCode::COMPRESSION_ERROR),
            (b"\x82\x20", ErrorCode::COMPRESSION_ERROR),
            (&large, ErrorCode::ENHANCE_YOUR_CALM),
        ];
        for (block, code) in rows {
            let error = fields(&mut Decoder::default(), block).unwrap_err();
            assert_eq!(error.code, code, "{block:?}");
        }
    }

    /// Blocks that are nearly right: fields in every form, then some bytes changed.
    fn damaged_block() -> impl Strategy<Value = Vec<u8>> {
        let text = || prop::collection::vec(any::<u8>(), 0..40);
        let field = (0..4usize, text(), text(), 0..80usize);
        let fields = prop::collection::vec(field, 0..8);
        let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        (fields, damage).prop_map(|(fields, damage)| {
            let mut block = Vec::new();
            for (form, name, value, index) in fields {
                match form {
                    0 => encoder::append_indexed(index, &mut block),
                    1 => encoder::append_literal(&name, &value, &mut block),
                    2 => encoder::append_remembered(&name, &value, &mut block),
                    _ => encoder::append_table_size(index, &mut block),
                }
            }
            for (place, byte) in damage {
                if !block.is_empty() {
                    let place = place.index(block.len());
                    block[place] = byte;
                }
            }
            block
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Blocks on one connection are read or refused, and what is held stays bounded.
        #[test]
        fn any_blocks_are_read_or_refused(
            blocks in prop::collection::vec(damaged_block(), 1..4),
        ) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let mut bytes = 0;
                let outcome = decoder.decode(&block, |name, value| {
                    bytes += name.len() + value.len();
                });
                prop_assert!(bytes <= 2 * HEADER_BLOCK_BYTES_MAX);
                if outcome.is_err() {
                    break;
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&mut Decoder::default(), &block);
        }

        /// What our encoder writes comes back.
        #[test]
        fn what_is_written_is_read(
            name in prop::collection::vec(any::<u8>(), 0..300),
            value in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut block = Vec::new();
            encoder::append_field(&name, &value, &mut block);
            encoder::append_remembered(&name, &value, &mut block);
            encoder::append_indexed(encoder::remembered_index(0, 1), &mut block);
            let mut decoder = Decoder::default();
            let mut count = 0;
            decoder.decode(&block, |found, text| {
                count += usize::from(found == name && text == value);
            }).unwrap();
            prop_assert_eq!(count, 3);
        }
    }
}
