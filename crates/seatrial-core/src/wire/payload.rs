//! Payloads that can be made again from a seed, and their sums.

/// XXH64 of the payload with this seed: the sum of the checksum operation.
///
/// Requests use seed 0, replies the seed in their header, so that damage to the
/// seed is seen as well. Of all damages one in 2^64 goes unseen; it does not
/// resist an adversary.
#[must_use]
pub fn checksum(payload: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh64::xxh64(payload, seed)
}

/// Appends `payload_bytes` of the payload that belongs to a seed: the outputs of
/// `SplitMix64`, little-endian, the last one cut.
pub fn append_payload(seed: u64, payload_bytes: usize, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + payload_bytes, 0);
    let mut counter = seed;
    let mut words = bytes[start..].chunks_exact_mut(8);
    for word in &mut words {
        counter = counter.wrapping_add(SPLIT_MIX_GAMMA);
        word.copy_from_slice(&mix(counter).to_le_bytes());
    }
    let rest = words.into_remainder();
    let last = mix(counter.wrapping_add(SPLIT_MIX_GAMMA)).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Where and how a payload first differs from the one that belongs to a seed.
#[must_use]
pub fn first_difference(seed: u64, payload: &[u8]) -> Option<Difference> {
    let mut expected = Vec::new();
    append_payload(seed, payload.len(), &mut expected);
    let pairs = payload.iter().zip(&expected);
    let offset = pairs.clone().position(|(found, right)| found != right)?;
    Some(Difference {
        offset,
        found: payload[offset],
        expected: expected[offset],
    })
}

/// The first byte of a payload that is not as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its place in the payload.
    pub offset: usize,
    /// The byte that came.
    pub found: u8,
    /// The byte that belongs there.
    pub expected: u8,
}

/// The seed of the `count`-th payload on a connection: new for each.
#[must_use]
pub const fn payload_seed(server_seed: u64, connection: u64, count: u64) -> u64 {
    let start = mix(server_seed.wrapping_add(mix(connection.wrapping_add(SPLIT_MIX_GAMMA))));
    mix(start.wrapping_add(count.wrapping_mul(SPLIT_MIX_GAMMA)))
}

/// The step of `SplitMix64`.
const SPLIT_MIX_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of `SplitMix64`; one to one.
const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
