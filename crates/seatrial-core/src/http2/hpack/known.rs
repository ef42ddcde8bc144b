//! Header blocks whose meaning is known are compared instead of decoded.

use std::sync::Arc;

use super::{Decoder, TABLE_BYTES};
use crate::http2::Http2Error;

/// A block whose meaning is known.
#[derive(Debug)]
struct Known<T> {
    block: Vec<u8>,
    table_state: u64,
    meaning: Arc<T>,
}

/// Decodes the header blocks of one connection; of each of `N` kinds, the last one is known.
///
/// The meaning of a block depends on the table. So a block is only known as long as no
/// block changed the table since, itself included.
#[derive(Debug)]
pub struct KnownBlocks<T, const N: usize> {
    decoder: Decoder,
    known: [Option<Known<T>>; N],
}

impl<T, const N: usize> Default for KnownBlocks<T, N> {
    fn default() -> Self {
        Self {
            decoder: Decoder::default(),
            known: [const { None }; N],
        }
    }
}

impl<T: Default, const N: usize> KnownBlocks<T, N> {
    /// What a block of this kind, below `N`, means; `note` adds a field to it. Every block
    /// of a connection has to come by here, in order.
    ///
    /// # Errors
    /// The block cannot be decoded.
    pub fn read(
        &mut self,
        kind: usize,
        block: &[u8],
        note: impl Fn(&mut T, &[u8], &[u8]),
    ) -> Result<Arc<T>, Http2Error> {
        let table_state = self.decoder.state();
        let known = &mut self.known[kind];
        let is_same =
            |known: &&mut Known<T>| known.table_state == table_state && known.block == block;
        if let Some(known) = known.as_mut().filter(is_same) {
            return Ok(Arc::clone(&known.meaning));
        }
        let mut meaning = T::default();
        self.decoder
            .decode(block, |name, value| note(&mut meaning, name, value))?;
        let meaning = Arc::new(meaning);
        if self.decoder.state() == table_state && block.len() <= TABLE_BYTES {
            *known = Some(Known {
                block: block.to_vec(),
                table_state,
                meaning: Arc::clone(&meaning),
            });
        }
        Ok(meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::encoder;
    use proptest::prelude::*;

    fn note(fields: &mut Vec<Vec<u8>>, name: &[u8], value: &[u8]) {
        fields.push([name, b": ", value].concat());
    }

    fn field(is_remembered: bool, value: &[u8]) -> Vec<u8> {
        let mut block = Vec::new();
        if is_remembered {
            encoder::append_remembered(b"grpc-status", value, &mut block);
        } else {
            encoder::append_literal(b"grpc-status", value, &mut block);
        }
        block
    }

    #[test]
    fn a_known_block_is_not_believed_after_the_table_changed() {
        let mut blocks = KnownBlocks::<Vec<Vec<u8>>, 1>::default();
        let mut value = |block: &[u8]| blocks.read(0, block, note).unwrap()[0].clone();
        assert_eq!(value(&field(true, b"0")), b"grpc-status: 0");
        for _ in 0..3 {
            assert_eq!(value(b"\xbe"), b"grpc-status: 0");
        }
        assert_eq!(value(&field(true, b"5")), b"grpc-status: 5");
        assert_eq!(value(b"\xbe"), b"grpc-status: 5");
        assert_eq!(value(b"\xbf"), b"grpc-status: 0");
    }

    proptest! {
        /// With and without what is known, every sequence of blocks means the same.
        #[test]
        fn knowing_changes_nothing(picks in prop::collection::vec(0..8usize, 0..60)) {
            let mut table_size = Vec::new();
            encoder::append_table_size(100, &mut table_size);
            let blocks = [
                vec![0x88], vec![0xbe], vec![0xbf], table_size,
                field(false, b"0"), field(true, b"1"), field(true, b"7"), field(false, b"9"),
            ];
            let (mut known, mut plain) = (KnownBlocks::<Vec<_>, 2>::default(), Decoder::default());
            for pick in picks {
                let mut expected = Vec::new();
                let add = |name: &[u8], value: &[u8]| note(&mut expected, name, value);
                let decoded = plain.decode(&blocks[pick], add);
                let read = known.read(pick % 2, &blocks[pick], note);
                prop_assert_eq!(decoded.is_ok(), read.is_ok());
                let Ok(meaning) = read else { break };
                prop_assert_eq!(&*meaning, &expected);
            }
        }
    }
}
