//! The Huffman code of RFC 7541, appendix B.
//!
//! The code is canonical: symbols of equal length have consecutive codes in the order of
//! their values. So the lengths alone give it all, and a code of some length is known by
//! where it lies between the first and the last one of that length.

use crate::http2::{ErrorCode, Http2Error};

/// Bits of the code of each byte; the end-of-string symbol, which may not occur, has 30.
#[rustfmt::skip] // sixteen a line, as one reads a table of bytes
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const LENGTH_MIN: usize = 5;
const LENGTH_MAX: usize = 30;

/// The code, by length.
struct Code {
    /// The first code of each length.
    first: [u32; LENGTH_MAX + 1],
    /// How many there are.
    count: [u32; LENGTH_MAX + 1],
    /// Where the symbols of each length begin among all of them.
    offset: [usize; LENGTH_MAX + 1],
    /// The symbols in the order of their codes.
    symbols: [u8; 256],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut code = Code {
        first: [0; LENGTH_MAX + 1],
        count: [0; LENGTH_MAX + 1],
        offset: [0; LENGTH_MAX + 1],
        symbols: [0; 256],
    };
    let (mut next, mut filled, mut length) = (0, 0, LENGTH_MIN);
    while length <= LENGTH_MAX {
        (code.first[length], code.offset[length]) = (next, filled);
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                #[allow(clippy::cast_possible_truncation)] // below 256
                let byte = symbol as u8;
                code.symbols[filled] = byte;
                code.count[length] += 1;
                filled += 1;
            }
            symbol += 1;
        }
        next = (next + code.count[length]) << 1;
        length += 1;
    }
    code
}

/// Appends what the code stands for.
///
/// # Errors
/// The end-of-string symbol, or an end that is not a short run of ones (RFC 7541, 5.2).
pub fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Http2Error> {
    static TABLE: Code = CODE;
    let error = |text| Http2Error::new(ErrorCode::COMPRESSION_ERROR, text);
    let (mut bits, mut bits_count) = (0u64, 0);
    let mut rest = bytes.iter();
    loop {
        while bits_count <= 56 {
            let Some(byte) = rest.next() else { break };
            bits = (bits << 8) | u64::from(*byte);
            bits_count += 8;
        }
        let mut found = false;
        for length in LENGTH_MIN..=LENGTH_MAX.min(bits_count) {
            // At most 30 bits, so nothing is lost.
            #[allow(clippy::cast_possible_truncation)]
            let prefix = (bits >> (bits_count - length)) as u32 & ((1 << length) - 1);
            let place = prefix.wrapping_sub(TABLE.first[length]);
            if place < TABLE.count[length] {
                out.push(TABLE.symbols[TABLE.offset[length] + place as usize]);
                bits_count -= length;
                found = true;
                break;
            }
        }
        if found {
            continue;
        }
        if bits_count >= LENGTH_MAX {
            return Err(error("the end-of-string symbol inside a string"));
        }
        let is_padding = bits_count < 8 && (!bits).trailing_zeros() as usize >= bits_count;
        return if is_padding {
            Ok(())
        } else {
            Err(error("a string that ends within a symbol"))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The code of a symbol, found by what the table says about the others.
    fn encode(text: &[u8]) -> Vec<u8> {
        let (mut bits, mut bytes) = (String::new(), Vec::new());
        for symbol in text {
            let length = LENGTHS[usize::from(*symbol)] as usize;
            let before = LENGTHS[..usize::from(*symbol)].iter();
            let place = before.filter(|other| **other as usize == length).count();
            let code = CODE.first[length] as usize + place;
            bits.extend([format!("{code:0length$b}")]);
        }
        while bits.len() % 8 != 0 {
            bits.push('1');
        }
        for byte in bits.as_bytes().chunks(8) {
            let text = std::str::from_utf8(byte).unwrap();
            bytes.push(u8::from_str_radix(text, 2).unwrap());
        }
        bytes
    }

    #[test]
    fn codes_are_those_of_the_appendix() {
        // First and last code of some lengths, as printed in RFC 7541, appendix B.
        for (symbol, length, code) in [
            (b'0', 5, 0x0),
            (b't', 5, 0x9),
            (b' ', 6, 0x14),
            (b'u', 6, 0x2d),
            (b'X', 8, 0xfc),
            (b'\\', 19, 0x7_fff0),
            (0, 13, 0x1ff8),
            (1, 23, 0x7f_ffd8),
            (249, 28, 0xfff_fffe),
            (22, 30, 0x3fff_fffe),
        ] {
            let place = CODE.symbols[CODE.offset[length]..]
                .iter()
                .position(|other| *other == symbol)
                .unwrap();
            assert_eq!(CODE.first[length] as usize + place, code, "{symbol}");
        }
    }

    #[test]
    fn strings_of_the_appendix_are_read() {
        let rows: [(&[u8], &str); 4] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x64\x02", "302"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ];
        for (bytes, expected) in rows {
            let mut out = Vec::new();
            decode(bytes, &mut out).unwrap();
            assert_eq!(out, expected.as_bytes());
            assert_eq!(encode(expected.as_bytes()), bytes);
        }
    }

    #[test]
    fn bad_ends_are_refused() {
        let rows: [&[u8]; 4] = [
            &[0xff],                   // eight bits of padding
            &[0xff, 0xff, 0xff, 0xff], // the end-of-string symbol
            &[0x00, 0x00],             // three symbols and a zero as padding
            &[0xff, 0xff],
        ];
        for bytes in rows {
            let error = decode(bytes, &mut Vec::new()).unwrap_err();
            assert_eq!(error.code, ErrorCode::COMPRESSION_ERROR, "{bytes:?}");
        }
        decode(b"", &mut Vec::new()).unwrap();
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            decode(&encode(&text), &mut out).unwrap();
            prop_assert_eq!(out, text);
        }
    }
}
