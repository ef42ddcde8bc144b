//! Request bytes made once, with places that each request fills.

/// Most digits of a `u64`.
const DIGITS_MAX: usize = 20;

/// Bytes with marks in them; `M` says what a mark stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<M> {
    pieces: Vec<Piece<M>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<M> {
    Fixed(Vec<u8>),
    Mark(M),
}

impl<M: Copy> Template<M> {
    /// Finds the marks, which stand in braces: `{id}`. Other braces are left as they are.
    #[must_use]
    pub fn parse(text: &[u8], marks: &[(&str, M)]) -> Self {
        let mut pieces = Vec::new();
        let (mut fixed, mut rest) = (Vec::new(), text);
        while let Some((first, after)) = rest.split_first() {
            let found = (*first == b'{')
                .then(|| {
                    marks
                        .iter()
                        .find_map(|(name, mark)| strip(after, name).zip(Some(*mark)))
                })
                .flatten();
            if let Some((behind, mark)) = found {
                if !fixed.is_empty() {
                    pieces.push(Piece::Fixed(std::mem::take(&mut fixed)));
                }
                pieces.push(Piece::Mark(mark));
                rest = behind;
            } else {
                fixed.push(*first);
                rest = after;
            }
        }
        if !fixed.is_empty() {
            pieces.push(Piece::Fixed(fixed));
        }
        Self { pieces }
    }

    /// The same with these bytes behind it, whatever braces they have.
    #[must_use]
    pub fn followed_by(mut self, bytes: &[u8]) -> Self {
        if let Some(Piece::Fixed(fixed)) = self.pieces.last_mut() {
            fixed.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            self.pieces.push(Piece::Fixed(bytes.to_vec()));
        }
        self
    }

    /// Whether it has no mark.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.marks().next().is_none()
    }

    /// The marks, in order.
    pub fn marks(&self) -> impl Iterator<Item = M> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Mark(mark) => Some(*mark),
            Piece::Fixed(_) => None,
        })
    }

    /// Appends it, with what `fill` appends for each mark.
    pub fn append(&self, out: &mut Vec<u8>, mut fill: impl FnMut(M, &mut Vec<u8>)) {
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(bytes) => out.extend_from_slice(bytes),
                Piece::Mark(mark) => fill(*mark, out),
            }
        }
    }
}

/// What follows `name}`, if the text begins so.
fn strip<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    text.strip_prefix(name.as_bytes())?.strip_prefix(b"}")
}

/// Appends a number in decimal digits.
pub fn append_number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Reads decimal digits and nothing else; `None` for anything else and beyond 64 bits.
#[must_use]
pub fn read_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_are_found_and_other_braces_stay() {
        let template = Template::parse(
            b"/spin/{demand}/{id}?x={y}{",
            &[("demand", 'd'), ("id", 'i')],
        );
        assert_eq!(template.marks().collect::<String>(), "di");
        assert!(!template.is_fixed());
        let mut out = Vec::new();
        template.append(&mut out, |mark, out| {
            out.extend_from_slice(mark.to_string().as_bytes());
        });
        assert_eq!(out, b"/spin/d/i?x={y}{");
        assert!(Template::<char>::parse(b"{id}", &[]).is_fixed());
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_they_are_read(number in any::<u64>()) {
            let mut out = Vec::new();
            append_number(number, &mut out);
            prop_assert_eq!(out.as_slice(), number.to_string().into_bytes());
            prop_assert_eq!(read_number(&out), Some(number));
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-1", "+1", "1 ", "0x1", "18446744073709551616"] {
            assert_eq!(read_number(text.as_bytes()), None, "{text}");
        }
    }
}
