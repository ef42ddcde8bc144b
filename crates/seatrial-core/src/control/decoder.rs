//! From a byte stream to frames, one piece at a time.

use std::marker::PhantomData;

use super::{
    BUFFER_BYTES_MAX, ControlError, FRAME_BYTES_MAX, Frame, HEAD_BYTES, LENGTH_FIELD_BYTES, VERSION,
};

/// Makes frames of one direction out of a byte stream, however it is cut.
///
/// Push what was read, then call [`Decoder::next_frame`] until it gives `None`.
/// The first error is final: a stream that lost its framing cannot be trusted again.
#[derive(Debug)]
pub struct Decoder<F> {
    buffer: Vec<u8>,
    start: usize,
    failure: Option<ControlError>,
    direction: PhantomData<F>,
}

impl<F: Frame> Decoder<F> {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            failure: None,
            direction: PhantomData,
        }
    }

    /// Takes bytes that were read from the stream.
    ///
    /// # Errors
    /// More than [`BUFFER_BYTES_MAX`] would be held, or an earlier error.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ControlError> {
        self.check()?;
        let found_bytes = self.held_bytes().saturating_add(bytes.len());
        if found_bytes > BUFFER_BYTES_MAX {
            return self.fail(ControlError::Overflow { found_bytes });
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole frame, or `None` when more bytes have to come.
    ///
    /// # Errors
    /// The bytes are not a frame of this direction, now or earlier.
    pub fn next_frame(&mut self) -> Result<Option<F>, ControlError> {
        self.check()?;
        match split_frame::<F>(&self.buffer[self.start..]) {
            Ok(None) => Ok(None),
            Ok(Some((frame, used_bytes))) => {
                self.start += used_bytes;
                Ok(Some(frame))
            }
            Err(error) => self.fail(error),
        }
    }

    /// Bytes of an unfinished frame that are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// It ended inside a frame, or there was an earlier error.
    pub fn finish(&self) -> Result<(), ControlError> {
        self.check()?;
        match self.held_bytes() {
            0 => Ok(()),
            held_bytes => Err(ControlError::Truncated { held_bytes }),
        }
    }

    fn check(&self) -> Result<(), ControlError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn fail<T>(&mut self, error: ControlError) -> Result<T, ControlError> {
        self.failure = Some(error.clone());
        self.buffer = Vec::new();
        self.start = 0;
        Err(error)
    }
}

impl<F: Frame> Default for Decoder<F> {
    fn default() -> Self {
        Self::new()
    }
}

/// The first frame of `bytes` and its length; checks each field as soon as it is there.
fn split_frame<F: Frame>(bytes: &[u8]) -> Result<Option<(F, usize)>, ControlError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_FIELD_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length);
    let length_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if !(HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length_bytes) {
        return Err(ControlError::Length {
            length: u64::from(length),
        });
    }
    let payload_bytes = length_bytes - HEAD_BYTES;
    let Some((&version, rest)) = rest.split_first() else {
        return Ok(None);
    };
    if version != VERSION {
        return Err(ControlError::Version { found: version });
    }
    let Some((&kind, rest)) = rest.split_first() else {
        return Ok(None);
    };
    F::limits(kind)
        .ok_or(ControlError::Type {
            found: kind,
            sender: F::SENDER,
        })?
        .check(payload_bytes)?;
    let Some(payload) = rest.get(..payload_bytes) else {
        return Ok(None);
    };
    let frame = F::parse(kind, payload)?;
    Ok(Some((frame, LENGTH_FIELD_BYTES + length_bytes)))
}
