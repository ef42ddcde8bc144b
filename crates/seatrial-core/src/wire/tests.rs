use super::header::{to_u32, word_at};
use super::*;
use proptest::prelude::*;

fn any_operation() -> impl Strategy<Value = Operation> {
    (0..6u8).prop_map(|value| Operation::from_u8(value).unwrap())
}

fn any_status() -> impl Strategy<Value = Status> {
    (0..4u8).prop_map(|value| Status::from_u8(value).unwrap())
}

fn request(operation: Operation, payload_bytes: u32) -> RequestHeader {
    RequestHeader {
        operation,
        request_id: 7,
        argument: 0,
        reply_bytes: 0,
        payload_bytes,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn request_round_trip(
        operation in any_operation(),
        request_id: u64,
        argument: u64,
        reply_bytes: u32,
        payload_bytes in 0..=to_u32(PAYLOAD_BYTES_MAX),
    ) {
        let reply_bytes = if operation == Operation::Checksum { reply_bytes } else { 0 };
        let header = RequestHeader {
            operation, request_id, argument, reply_bytes, payload_bytes,
        };
        prop_assert_eq!(RequestHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn reply_round_trip(
        status in any_status(),
        words: [u64; 5],
        payload_bytes in 0..=to_u32(PAYLOAD_BYTES_MAX),
    ) {
        let [request_id, value, service_ns, queue_ns, seed] = words;
        let reply = Reply {
            status, request_id, value, service_ns, queue_ns, seed, payload_bytes,
        };
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }

    /// Whatever the bytes are, decoding gives a value that encodes back to
    /// the same bytes, or a typed error; it never panics.
    #[test]
    fn garbage_is_refused_or_canonical(
        bytes: [u8; HEADER_BYTES], reply_bytes: [u8; REPLY_HEADER_BYTES], plausible: bool,
    ) {
        let (mut bytes, mut reply_bytes) = (bytes, reply_bytes);
        if plausible {
            // Past the first checks, which a random header seldom passes.
            for head in [&mut bytes[..8], &mut reply_bytes[..8]] {
                let kind = head[5] % 8;
                head[2..].copy_from_slice(&[0, 0, VERSION, kind, 0, 0]);
            }
        }
        if let Ok(header) = RequestHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
        if let Ok(reply) = Reply::decode(&reply_bytes) {
            prop_assert_eq!(reply.encode(), reply_bytes);
        }
    }

    /// One damaged byte of a header that has no free field is seen.
    #[test]
    fn damaged_fixed_fields_are_seen(offset in 4..8usize, value: u8) {
        let mut bytes = request(Operation::Empty, 0).encode();
        prop_assume!(bytes[offset] != value && !(offset == 5 && value < 6));
        bytes[offset] = value;
        prop_assert!(RequestHeader::decode(&bytes).is_err());
    }

    /// A flipped bit changes the sum, and where it is can be told from the seed.
    #[test]
    fn a_flipped_bit_is_found(
        seed: u64, payload_bytes in 1..3000usize, place: prop::sample::Index, bit in 0..8u8,
    ) {
        let mut payload = Vec::new();
        append_payload(seed, payload_bytes, &mut payload);
        let sum = checksum(&payload, seed);
        prop_assert_eq!(first_difference(seed, &payload), None);
        let offset = place.index(payload_bytes);
        let expected = payload[offset];
        payload[offset] ^= 1 << bit;
        prop_assert_ne!(checksum(&payload, seed), sum);
        let found = payload[offset];
        let difference = Difference { offset, found, expected };
        prop_assert_eq!(first_difference(seed, &payload), Some(difference));
    }
}

#[test]
fn layout_is_the_documented_one() {
    let header = RequestHeader {
        operation: Operation::Checksum,
        request_id: 0x0102_0304_0506_0708,
        argument: 9,
        reply_bytes: 0x0a0b,
        payload_bytes: 4,
    };
    let bytes = header.encode();
    assert_eq!(bytes[0..8], [32, 0, 0, 0, 2, 1, 0, 0]);
    assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bytes[16], 9);
    assert_eq!(bytes[24..32], [0x0b, 0x0a, 0, 0, 0, 0, 0, 0]);
    assert_eq!(header.frame_bytes(), 36);
    let reply = Reply {
        value: 1,
        service_ns: 2,
        queue_ns: 3,
        seed: 4,
        payload_bytes: 5,
        ..Reply::plain(Status::TooLarge, 6)
    };
    let bytes = reply.encode();
    assert_eq!(bytes[0..8], [49, 0, 0, 0, 2, 3, 0, 0]);
    let words = [8, 16, 24, 32, 40].map(|offset| word_at(&bytes, offset));
    assert_eq!(words, [6, 1, 2, 3, 4]);
    assert_eq!(reply.frame_bytes(), 53);
}

#[test]
fn lengths_out_of_bounds_are_typed() {
    let header = request(Operation::Empty, to_u32(PAYLOAD_BYTES_MAX) + 1);
    let error = RequestHeader::decode(&header.encode()).unwrap_err();
    assert!(matches!(error, WireError::TooLong { .. }));
    assert_eq!(error.status(), Status::TooLarge);
    let mut bytes = header.encode();
    bytes[0..4].copy_from_slice(&27u32.to_le_bytes());
    let error = RequestHeader::decode(&bytes).unwrap_err();
    let (length, length_min) = (27, 28);
    assert_eq!(error, WireError::TooShort { length, length_min });
    assert_eq!(request_id_of(&bytes), 7);
}

#[test]
fn only_checksum_may_ask_for_a_payload() {
    let header = RequestHeader {
        reply_bytes: 1,
        ..request(Operation::Spin, 0)
    };
    let decoded = RequestHeader::decode(&header.encode());
    assert_eq!(decoded, Err(WireError::Reserved { found: 1 }));
}

#[test]
fn sums_and_payloads_match_published_vectors() {
    assert_eq!(checksum(b"", 0), 0xef46_db37_51d8_e999);
    assert_eq!(checksum(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(checksum(b"abc", 0), 0x44bc_2cf5_ad77_0999);
    let mut payload = vec![9];
    append_payload(1_234_567, 20, &mut payload);
    let words = [1, 9].map(|offset| word_at(&payload, offset));
    assert_eq!(
        words,
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
    );
    assert_eq!(payload.len(), 21);
}

#[test]
fn payload_seeds_do_not_repeat() {
    let mut seeds = (0..100)
        .flat_map(|connection| (0..100).map(move |count| payload_seed(1, connection, count)))
        .collect::<Vec<_>>();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 10_000);
}
