//! The text form of laws and patterns: `name`, `name:value` or `name:key=value,key=value`.

use crate::error::CoreError;
use crate::units::{Nanos, parse_duration};

/// What the bare value after the colon is called in the rows of [`Fields`].
const BARE: &str = "";

/// The parts of one text; each is taken once, and what is left over is an error.
#[derive(Debug)]
pub struct Fields<'a> {
    what: &'static str,
    text: &'a str,
    usage: &'static str,
    rows: Vec<(&'a str, &'a str)>,
}

/// Divides a text at its first colon.
pub fn name_and_rest(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

/// Reads a number that is neither infinite nor NaN.
pub fn parse_number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Reads a number of bytes: digits alone, or with `B`, `KiB`, `MiB`, `kB` or `MB`.
fn parse_bytes(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 6] = [
        ("", 1.0),
        ("B", 1.0),
        ("KiB", 1_024.0),
        ("MiB", 1_048_576.0),
        ("kB", 1e3),
        ("MB", 1e6),
    ];
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(parse_number(number)? * scale)
}

/// What the values of a law are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Times, such as `100us`; in nanoseconds once read.
    Time,
    /// Sizes, such as `4KiB`.
    Bytes,
}

impl Unit {
    fn parse(self, text: &str) -> Option<f64> {
        match self {
            Self::Time => parse_duration(text).ok().map(|time| time.get() as f64),
            Self::Bytes => parse_bytes(text),
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Time => {
                "a duration with its unit (ns, us, ms, s, min), such as 250ms, as each value"
            }
            Self::Bytes => {
                "a number of bytes (or kB, KiB, MB, MiB), such as 100 or 4KiB, as each value"
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// Divides `rest` of `text` at its commas. `usage` says what would have been accepted.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when a key is given twice.
    pub fn new(
        what: &'static str,
        text: &'a str,
        rest: &'a str,
        usage: &'static str,
    ) -> Result<Self, CoreError> {
        let parts = rest.split(',').filter(|_| !rest.is_empty());
        let rows: Vec<_> = parts
            .map(|part| part.split_once('=').unwrap_or((BARE, part)))
            .collect();
        let fields = Self {
            what,
            text,
            usage,
            rows,
        };
        let is_double = |row: usize| {
            let (name, _) = fields.rows[row];
            fields.rows[..row].iter().any(|(other, _)| *other == name)
        };
        if (0..fields.rows.len()).any(is_double) {
            return Err(fields.invalid());
        }
        Ok(fields)
    }

    /// The error of this text.
    pub fn invalid(&self) -> CoreError {
        self.expecting(self.usage)
    }

    fn expecting(&self, expected: &'static str) -> CoreError {
        CoreError::InvalidValue {
            what: self.what,
            value: self.text.to_owned(),
            expected,
        }
    }

    /// The number under this name, if it is given.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when it is no finite number.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, CoreError> {
        let Some(text) = self.word(name) else {
            return Ok(None);
        };
        parse_number(text).map(Some).ok_or_else(|| self.invalid())
    }

    /// The number under this name, which has to be given and right.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when it is missing or `is_right` does not hold for it.
    pub fn needed(&mut self, name: &str, is_right: impl Fn(f64) -> bool) -> Result<f64, CoreError> {
        let number = self.number(name)?.filter(|number| is_right(*number));
        number.ok_or_else(|| self.invalid())
    }

    /// The time under this name, which has to be given.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when it is missing or no time.
    pub fn time(&mut self, name: &str) -> Result<Nanos, CoreError> {
        let text = self.word(name).ok_or_else(|| self.invalid())?;
        parse_duration(text).map_err(|_| self.expecting(Unit::Time.expected()))
    }

    /// The value in this unit under this name, if it is given.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when it is no value in this unit.
    pub fn value(&mut self, name: &str, unit: Unit) -> Result<Option<f64>, CoreError> {
        let Some(text) = self.word(name) else {
            return Ok(None);
        };
        let value = unit.parse(text).map(Some);
        value.ok_or_else(|| self.expecting(unit.expected()))
    }

    /// The value that stands alone after the colon, if there is one.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when it is no value in this unit.
    pub fn bare(&mut self, unit: Unit) -> Result<Option<f64>, CoreError> {
        self.value(BARE, unit)
    }

    /// The text under this name, if it is given.
    pub fn word(&mut self, name: &str) -> Option<&'a str> {
        let row = self.rows.iter().position(|(other, _)| *other == name)?;
        Some(self.rows.remove(row).1)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] when something was not taken: a name that is not known.
    pub fn finish(&self) -> Result<(), CoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        Err(self.invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_once_and_nothing_is_left() {
        let text = "gamma:cv=2,mean=1.5ms";
        let (name, rest) = name_and_rest(text);
        let mut fields = Fields::new("law", text, rest, "gamma:cv=CV").unwrap();
        assert_eq!(name, "gamma");
        assert_eq!(fields.number("cv").unwrap(), Some(2.0));
        assert_eq!(fields.number("cv").unwrap(), None);
        assert_eq!(fields.value("mean", Unit::Time).unwrap(), Some(1.5e6));
        fields.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_is_told_with_the_usage() {
        for rest in ["cv=inf", "cv=", "cv", "cv=2,cv=3", "cv=2,other=1", ",cv=2"] {
            let read = || -> Result<(), CoreError> {
                let mut fields = Fields::new("law", rest, rest, "gamma:cv=CV")?;
                let _ = fields.needed("cv", |cv| cv > 0.0)?;
                fields.finish()
            };
            let told = read().unwrap_err().to_string();
            assert_eq!(told, format!("law {rest:?}, expected gamma:cv=CV"));
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        let rows = [
            ("7", 7.0),
            ("7B", 7.0),
            ("4KiB", 4_096.0),
            ("1.5kB", 1_500.0),
        ];
        for (text, bytes) in rows {
            assert_eq!(Unit::Bytes.parse(text), Some(bytes), "{text}");
        }
        for bad in ["", "KiB", "-1", "1 B", "1e3"] {
            assert_eq!(Unit::Bytes.parse(bad), None, "{bad}");
        }
    }
}
