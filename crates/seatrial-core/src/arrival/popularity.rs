//! Which of many keys a request is for.

use super::draws::{Key, Source};
use super::grammar::{Fields, name_and_rest};
use crate::error::CoreError;

const KNOWN: &str = "uniform, round-robin or zipf:skew=S with 0 < S <= 10";

/// How often each of `n` keys is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Popularity {
    keys: u64,
    law: Law,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    Uniform,
    RoundRobin,
    Zipf(Zipf),
}

impl Popularity {
    /// Reads `uniform`, `round-robin` or `zipf:skew=0.99`, over the keys 0 to `keys - 1`.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for another text, [`CoreError::InvalidPlan`] for no key at all.
    pub fn parse(text: &str, keys: u64) -> Result<Self, CoreError> {
        if keys == 0 || keys > Zipf::KEYS_MAX {
            return Err(CoreError::InvalidPlan {
                field: "keys",
                value: keys.to_string(),
                expected: "1 to 2^48",
            });
        }
        let (name, rest) = name_and_rest(text);
        let mut fields = Fields::new("popularity", text, rest, KNOWN)?;
        let law = match name {
            "uniform" => Law::Uniform,
            "round-robin" => Law::RoundRobin,
            "zipf" => {
                let skew = fields.needed("skew", |skew| skew > 0.0 && skew <= 10.0)?;
                Law::Zipf(Zipf::new(skew, keys))
            }
            _ => return Err(fields.invalid()),
        };
        fields.finish()?;
        Ok(Self { keys, law })
    }

    /// The key of this request: a pure function of `key` and `request_id`. Key 0 is the most popular one.
    #[must_use]
    pub fn key_of(&self, key: Key, request_id: u64) -> u64 {
        match self.law {
            Law::Uniform => key.item(request_id).below(self.keys),
            Law::RoundRobin => request_id % self.keys,
            Law::Zipf(zipf) => zipf.draw(&mut key.item(request_id)) - 1,
        }
    }
}

/// Ranks 1 to `n`, rank `k` with a probability in proportion to `k^-skew`.
///
/// Drawn by rejection-inversion (Hörmann and Derflinger 1996): no table, about 1.1 tries a draw at most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Zipf {
    skew: f64,
    keys: u64,
    /// The integral of the hat up to 1.5, less the probability of rank 1; where draws begin.
    first: f64,
    /// The integral of the hat up to the last rank and a half.
    last: f64,
    /// How much nearer than this to its rank a draw is taken at once.
    squeeze: f64,
}

impl Zipf {
    /// Most keys: below it a half can be added to every rank in an f64.
    const KEYS_MAX: u64 = 1 << 48;

    fn new(skew: f64, keys: u64) -> Self {
        let empty = Self {
            skew,
            keys,
            first: 0.0,
            last: 0.0,
            squeeze: 0.0,
        };
        Self {
            first: empty.area(1.5) - 1.0,
            last: empty.area(keys as f64 + 0.5),
            squeeze: 2.0 - empty.place(empty.area(2.5) - empty.height(2.0)),
            ..empty
        }
    }

    /// `x^-skew`.
    fn height(&self, x: f64) -> f64 {
        libm::exp(-self.skew * libm::log(x))
    }

    /// The integral of the height from 1 to `x`: `(x^(1 - skew) - 1) / (1 - skew)`, or the logarithm.
    fn area(&self, x: f64) -> f64 {
        let log = libm::log(x);
        log * expm1_ratio((1.0 - self.skew) * log)
    }

    /// The inverse of the area.
    fn place(&self, area: f64) -> f64 {
        // Not below -1, where rounding could take it for the smallest areas.
        let t = (area * (1.0 - self.skew)).max(-1.0);
        libm::exp(area * log1p_ratio(t))
    }

    fn draw(&self, source: &mut impl Source) -> u64 {
        loop {
            let area = self.last + source.unit() * (self.first - self.last);
            let place = self.place(area);
            // Clamped to 1..=keys.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = (place + 0.5).clamp(1.0, self.keys as f64) as u64;
            let at = rank as f64;
            let is_close = at - place <= self.squeeze;
            if is_close || area >= self.area(at + 0.5) - self.height(at) {
                return rank;
            }
        }
    }
}

/// `(exp(x) - 1) / x`, which is 1 at 0.
fn expm1_ratio(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        libm::expm1(x) / x
    } else {
        1.0 + 0.5 * x
    }
}

/// `ln(1 + x) / x`, which is 1 at 0.
fn log1p_ratio(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        libm::log1p(x) / x
    } else {
        1.0 - 0.5 * x
    }
}
