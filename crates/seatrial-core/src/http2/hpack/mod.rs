//! Header compression (RFC 7541).
//!
//! The decoder is whole: static and dynamic table, all forms of a field, Huffman.
//! The encoder writes what a pre-rendered header block needs: indexed fields and literals
//! without Huffman, whose bytes the peer's parser copies rather than decodes.

mod decoder;
pub mod encoder;
mod huffman;
mod known;
mod table;

pub use decoder::Decoder;
pub use known::KnownBlocks;

/// Largest dynamic table that our decoder keeps: the default, which we never change.
pub const TABLE_BYTES: usize = 4096;

/// What each entry of a dynamic table counts beyond its bytes (RFC 7541, 4.1).
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Index of the first entry of a dynamic table: behind the static one.
pub const FIRST_DYNAMIC_INDEX: usize = table::STATIC.len() + 1;
