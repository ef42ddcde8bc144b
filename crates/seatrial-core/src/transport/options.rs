//! Settings of one protocol as they were written: names and texts.
//!
//! A protocol asks for the names that it knows, each with a default, and ends with
//! [`OptionReader::finish`], which refuses what nobody asked for.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::CoreError;

/// Names and values of a protocol's settings.
pub type Options = BTreeMap<String, String>;

/// Reads the options of one protocol.
#[derive(Debug)]
pub struct OptionReader<'a> {
    protocol: &'static str,
    options: &'a Options,
    known: Vec<&'static str>,
}

impl<'a> OptionReader<'a> {
    /// A reader for the options of this protocol.
    #[must_use]
    pub const fn new(protocol: &'static str, options: &'a Options) -> Self {
        Self {
            protocol,
            options,
            known: Vec::new(),
        }
    }

    /// The value of an option, if it was given.
    pub fn text(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.push(name);
        self.options.get(name).map(String::as_str)
    }

    /// The value of an option, read by `parse`, or the default.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] when `parse` gives nothing.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        default: T,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, CoreError> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        parse(text).ok_or_else(|| self.invalid(name, text, expected.to_owned()))
    }

    /// A number within bounds, both included.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] when it is no number or beyond the bounds.
    pub fn number<T: FromStr + PartialOrd + Copy>(
        &mut self,
        name: &'static str,
        default: T,
        bounds: (T, T),
        expected: &'static str,
    ) -> Result<T, CoreError> {
        self.parsed(name, default, expected, |text| {
            let value: T = text.parse().ok()?;
            (value >= bounds.0 && value <= bounds.1).then_some(value)
        })
    }

    /// A choice between `true` and `false`.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for another text.
    pub fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, CoreError> {
        self.parsed(name, default, "true or false", |text| text.parse().ok())
    }

    /// Refuses options that nobody asked for.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] that names the first one and lists the known ones.
    pub fn finish(self) -> Result<(), CoreError> {
        let is_unknown = |name: &&String| !self.known.contains(&name.as_str());
        let Some(name) = self.options.keys().find(is_unknown) else {
            return Ok(());
        };
        let expected = if self.known.is_empty() {
            "no option".to_owned()
        } else {
            format!("one of {}", self.known.join(", "))
        };
        Err(CoreError::InvalidOption {
            protocol: self.protocol,
            name: name.clone(),
            value: self.options[name].clone(),
            expected,
        })
    }

    /// The error for an option whose value was looked at outside.
    #[must_use]
    pub fn invalid_text(&self, name: &str, expected: String) -> CoreError {
        let value = self.options.get(name).map_or("", String::as_str);
        self.invalid(name, value, expected)
    }

    fn invalid(&self, name: &str, value: &str, expected: String) -> CoreError {
        CoreError::InvalidOption {
            protocol: self.protocol,
            name: name.to_owned(),
            value: value.to_owned(),
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn options_are_read_with_defaults_and_bounds() {
        let options = options(&[("size", "7"), ("on", "true"), ("bad", "9")]);
        let mut reader = OptionReader::new("test", &options);
        assert_eq!(reader.number("size", 1, (1, 10), "1 to 10").unwrap(), 7);
        assert_eq!(reader.number("depth", 3, (1, 10), "1 to 10").unwrap(), 3);
        assert!(reader.flag("on", false).unwrap());
        let error = reader.number("bad", 1, (1, 8), "1 to 8").unwrap_err();
        assert_eq!(error.code(), "invalid-option");
        assert!(error.to_string().contains("bad"), "{error}");
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn what_nobody_asked_for_is_refused_with_what_is_known() {
        let options = options(&[("pth", "/")]);
        let mut reader = OptionReader::new("http", &options);
        assert_eq!(reader.text("path"), None);
        let told = reader.finish().unwrap_err().to_string();
        assert!(told.contains("pth") && told.contains("path"), "{told}");
    }
}
