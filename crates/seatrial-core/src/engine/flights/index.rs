//! Where a flight is, by the id of its request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Spreads request ids, which come in steps of the number of threads.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // Fibonacci hashing; the fold brings the well mixed high bits to where tables look first.
        let mixed = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Nodes by request id.
pub(super) type Index = HashMap<u64, u32, BuildHasherDefault<IdHasher>>;
