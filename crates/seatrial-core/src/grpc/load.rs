//! Our own service `seatrial.v1.Load`, described in `proto/seatrial/v1/load.proto`.
//!
//! Its two messages have few fields and one that changes with each request, so they are
//! written and read by hand: a request is a template in which eight bytes are replaced.

use std::ops::Range;

use thiserror::Error;

use crate::wire::Operation;

/// The method that does all operations.
pub const METHOD: &str = "/seatrial.v1.Load/Call";

/// Longest message of either direction beside its payload.
pub const OVERHEAD_BYTES_MAX: usize = 128;

/// Where the argument lies in an encoded request: behind the tag of the first field.
pub const ARGUMENT: Range<usize> = 1..9;

/// Tags: number of the field, and the kind of its value.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

/// Why bytes are not such a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// They end within a field.
    #[error("the message ends within a field")]
    Cut,
    /// A number of more than 64 bits, or a kind of field that is not in use any more.
    #[error("the message holds what is no field")]
    NoField,
    /// A known field with another kind of value.
    #[error("field {0} has the wrong type")]
    WrongType(u32),
    /// A number beyond what the field may be.
    #[error("field {field} is {found}, expected at most {max}")]
    TooLarge {
        /// Its number.
        field: u32,
        /// What it is.
        found: u64,
        /// What it may be.
        max: u64,
    },
}

/// `seatrial.v1.LoadRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadRequest<'a> {
    /// Nanoseconds, bytes or a sum, as the operation has it.
    pub argument: u64,
    /// The number of an operation.
    pub operation: u8,
    /// What is summed, or only carried.
    pub payload: &'a [u8],
    /// Payload of a checksum reply.
    pub reply_bytes: u32,
}

impl<'a> LoadRequest<'a> {
    /// Appends the message; the argument is always there, at [`ARGUMENT`].
    pub fn append(&self, out: &mut Vec<u8>) {
        append_tag(1, FIXED64, out);
        out.extend_from_slice(&self.argument.to_le_bytes());
        append_number(2, u64::from(self.operation), out);
        append_bytes(3, self.payload, out);
        append_number(4, u64::from(self.reply_bytes), out);
    }

    /// Reads a message; fields that are not known are skipped.
    ///
    /// # Errors
    /// The bytes are not such a message.
    pub fn read(message: &'a [u8]) -> Result<Self, LoadError> {
        let mut read = Self::default();
        let operation_max = u64::from(u8::MAX);
        each_field(message, |field, value| {
            match (field, value) {
                (1, Value::Fixed64(argument)) => read.argument = argument,
                (2, Value::Number(number)) => {
                    read.operation =
                        u8::try_from(number).map_err(|_| too_large(2, number, operation_max))?;
                }
                (3, Value::Bytes(payload)) => read.payload = payload,
                (4, Value::Number(number)) => {
                    read.reply_bytes = u32::try_from(number)
                        .map_err(|_| too_large(4, number, u64::from(u32::MAX)))?;
                }
                (1..=4, _) => return Err(LoadError::WrongType(field)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(read)
    }

    /// The operation, if there is one with this number.
    #[must_use]
    pub const fn known_operation(&self) -> Option<Operation> {
        Operation::from_u8(self.operation)
    }
}

/// `seatrial.v1.LoadReply`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReply<'a> {
    /// The server's time for the request.
    pub service_ns: u64,
    /// The request's time in the server's queue.
    pub queue_ns: u64,
    /// A checksum reply's payload.
    pub payload: &'a [u8],
    /// Which server process answers.
    pub instance: u64,
    /// The payload's sum.
    pub value: u64,
    /// What the payload was made from.
    pub seed: u64,
}

impl<'a> LoadReply<'a> {
    /// Appends the message; fields that are zero are left out.
    pub fn append(&self, out: &mut Vec<u8>) {
        append_fixed(1, self.service_ns, out);
        append_fixed(2, self.queue_ns, out);
        append_bytes(3, self.payload, out);
        append_fixed(4, self.instance, out);
        append_fixed(5, self.value, out);
        append_fixed(6, self.seed, out);
    }

    /// Reads a message; fields that are not known are skipped.
    ///
    /// # Errors
    /// The bytes are not such a message.
    pub fn read(message: &'a [u8]) -> Result<Self, LoadError> {
        let mut read = Self::default();
        each_field(message, |field, value| {
            match (field, value) {
                (1, Value::Fixed64(number)) => read.service_ns = number,
                (2, Value::Fixed64(number)) => read.queue_ns = number,
                (3, Value::Bytes(payload)) => read.payload = payload,
                (4, Value::Fixed64(number)) => read.instance = number,
                (5, Value::Fixed64(number)) => read.value = number,
                (6, Value::Fixed64(number)) => read.seed = number,
                (1..=6, _) => return Err(LoadError::WrongType(field)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(read)
    }
}

const fn too_large(field: u32, found: u64, max: u64) -> LoadError {
    LoadError::TooLarge { field, found, max }
}

fn append_tag(field: u32, kind: u32, out: &mut Vec<u8>) {
    append_varint(u64::from(field << 3 | kind), out);
}

fn append_fixed(field: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        append_tag(field, FIXED64, out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn append_number(field: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        append_tag(field, VARINT, out);
        append_varint(value, out);
    }
}

fn append_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        append_tag(field, LENGTH, out);
        append_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn append_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Gives each field in turn to `note`.
fn each_field<'a>(
    mut message: &'a [u8],
    mut note: impl FnMut(u32, Value<'a>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    while !message.is_empty() {
        let tag = u32::try_from(varint(&mut message)?).map_err(|_| LoadError::NoField)?;
        let value = match tag & 7 {
            VARINT => Value::Number(varint(&mut message)?),
            FIXED64 => {
                let word = front(&mut message, 8)?;
                Value::Fixed64(u64::from_le_bytes(word.try_into().unwrap_or_default()))
            }
            LENGTH => {
                let length = varint(&mut message)?;
                let length = usize::try_from(length).map_err(|_| LoadError::Cut)?;
                Value::Bytes(front(&mut message, length)?)
            }
            FIXED32 => {
                front(&mut message, 4)?;
                Value::Fixed32
            }
            _ => return Err(LoadError::NoField),
        };
        note(tag >> 3, value)?;
    }
    Ok(())
}

fn front<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], LoadError> {
    let (taken, rest) = message.split_at_checked(length).ok_or(LoadError::Cut)?;
    *message = rest;
    Ok(taken)
}

fn varint(message: &mut &[u8]) -> Result<u64, LoadError> {
    let mut value = 0;
    for place in 0..10 {
        let byte = front(message, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if place == 9 && bits > 1 {
            return Err(LoadError::NoField);
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(LoadError::NoField)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn requests_survive_the_way(
            argument: u64, operation: u8, reply_bytes: u32,
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let sent = LoadRequest { argument, operation, payload: &payload, reply_bytes };
            let mut bytes = Vec::new();
            sent.append(&mut bytes);
            prop_assert_eq!(&bytes[ARGUMENT], &argument.to_le_bytes()[..]);
            prop_assert!(bytes.len() <= payload.len() + OVERHEAD_BYTES_MAX);
            prop_assert_eq!(LoadRequest::read(&bytes), Ok(sent));
        }

        #[test]
        fn replies_survive_the_way(
            words: [u64; 5], payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let [service_ns, queue_ns, instance, value, seed] = words;
            let payload = &payload;
            let sent = LoadReply { service_ns, queue_ns, payload, instance, value, seed };
            let mut bytes = Vec::new();
            sent.append(&mut bytes);
            prop_assert!(bytes.len() <= payload.len() + OVERHEAD_BYTES_MAX);
            prop_assert_eq!(LoadReply::read(&bytes), Ok(sent));
        }

        /// Any bytes are read or refused.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = LoadRequest::read(&bytes);
            let _ = LoadReply::read(&bytes);
        }
    }

    #[test]
    fn messages_are_those_of_the_description() {
        let mut bytes = Vec::new();
        let request = LoadRequest {
            argument: 0x0102,
            operation: 3,
            payload: b"ab",
            reply_bytes: 300,
        };
        request.append(&mut bytes);
        assert_eq!(
            bytes,
            b"\x09\x02\x01\0\0\0\0\0\0\x10\x03\x1a\x02ab\x20\xac\x02"
        );
        assert_eq!(request.known_operation(), Some(Operation::Sleep));
    }

    #[test]
    fn unknown_fields_are_skipped_and_wrong_ones_refused() {
        let unknown = b"\x50\x01\x5a\x01x\x65\0\0\0\0\x10\x02";
        assert_eq!(LoadRequest::read(unknown).unwrap().operation, 2);
        let rows: [(&[u8], LoadError); 7] = [
            (b"\x08\x01", LoadError::WrongType(1)),
            (b"\x09\x01", LoadError::Cut),
            (b"\x1a\x05abc", LoadError::Cut),
            (b"\x0b", LoadError::NoField),
            (
                b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                LoadError::NoField,
            ),
            (b"\x10\x80\x02", too_large(2, 256, 255)),
            (
                b"\x20\x80\x80\x80\x80\x10",
                too_large(4, 1 << 32, (1 << 32) - 1),
            ),
        ];
        for (bytes, error) in rows {
            assert_eq!(LoadRequest::read(bytes), Err(error), "{bytes:?}");
        }
    }
}
