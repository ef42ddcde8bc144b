//! Laws of amounts: how much work a request asks for, how long a user thinks, how large a value is.

use super::draws::{Key, Source, Stream};
use super::grammar::{Fields, Unit, name_and_rest};
use super::shape::{Gev, Pareto, Shape};
use crate::error::CoreError;
use crate::units::Nanos;

const CONSTANT: &str = "constant:VALUE";
const EXPONENTIAL: &str = "exponential:MEAN";
const UNIFORM: &str = "uniform:low=VALUE,high=VALUE, LOW below HIGH";
const LOGNORMAL: &str =
    "lognormal:mean=VALUE,cv=CV, the coefficient of variation, above 0 and at most 100";
const GAMMA: &str = "gamma:mean=VALUE and cv=CV (0.01 to 30) or shape=K (K = 1/CV^2)";
const WEIBULL: &str = "weibull:mean=VALUE,shape=K, 0.1 to 100";
const PARETO: &str = "pareto:mean=VALUE and shape=XI (generalised, -10 <= XI < 1) or alpha=A (classical, 1 < A <= 1000); or pareto:location=VALUE,scale=VALUE,shape=XI";
const GEV: &str = "gev:location=VALUE,scale=VALUE,shape=XI, -10 <= XI < 1, 0 < SCALE <= 1000 LOCATION; what is negative is left out";
const BIMODAL: &str = "bimodal:low=VALUE,high=VALUE,share=P, LOW below HIGH, P the probability of HIGH, above 0 and below 1";

/// Largest mean: below it every whole number has its own f64.
const MEAN_MAX: f64 = 9_007_199_254_740_992.0;

/// A law of amounts in some unit: a law with mean 1, and the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scaled {
    mean: f64,
    shape: Shape,
}

impl Scaled {
    fn parse(
        what: &'static str,
        text: &str,
        unit: Unit,
        known: &'static str,
    ) -> Result<Self, CoreError> {
        let (name, rest) = name_and_rest(text);
        let usage = match name {
            "constant" => CONSTANT,
            "exponential" => EXPONENTIAL,
            "uniform" => UNIFORM,
            "lognormal" => LOGNORMAL,
            "gamma" => GAMMA,
            "weibull" => WEIBULL,
            "pareto" => PARETO,
            "gev" => GEV,
            "bimodal" => BIMODAL,
            _ => known,
        };
        let mut fields = Fields::new(what, text, rest, usage)?;
        let scaled = Self::read(name, &mut fields, unit)?;
        fields.finish()?;
        let is_right = scaled.mean <= MEAN_MAX && (scaled.mean > 0.0 || name == "constant");
        is_right.then_some(scaled).ok_or_else(|| fields.invalid())
    }

    fn read(name: &str, fields: &mut Fields<'_>, unit: Unit) -> Result<Self, CoreError> {
        let of = |mean: Option<f64>, shape| mean.map(|mean| Self { mean, shape });
        let found = match name {
            "constant" => of(fields.bare(unit)?, Shape::Constant),
            "exponential" => of(fields.bare(unit)?, Shape::Exponential),
            "uniform" => {
                let ends = fields.value("low", unit)?.zip(fields.value("high", unit)?);
                ends.filter(|(low, high)| low < high).map(|(low, high)| {
                    let mean = 0.5 * (low + high);
                    let shape = Shape::Uniform { low: low / mean };
                    Self { mean, shape }
                })
            }
            "bimodal" => {
                let ends = fields.value("low", unit)?.zip(fields.value("high", unit)?);
                let high_ratio = fields.needed("share", |share| share > 0.0 && share < 1.0)?;
                ends.filter(|(low, high)| low < high)
                    .map(|(low, high)| Self {
                        mean: low * (1.0 - high_ratio) + high * high_ratio,
                        shape: Shape::bimodal(low, high, high_ratio),
                    })
            }
            "gev" => {
                let ends = fields
                    .value("location", unit)?
                    .zip(fields.value("scale", unit)?);
                let shape = fields.needed("shape", f64::is_finite)?;
                ends.and_then(|(location, scale)| Gev::new(location, scale, shape))
                    .map(|(gev, mean)| Self {
                        mean,
                        shape: Shape::Gev(gev),
                    })
            }
            "lognormal" | "gamma" | "weibull" | "pareto" => Self::read_shaped(name, fields, unit)?,
            _ => None,
        };
        found.ok_or_else(|| fields.invalid())
    }

    /// A mean and a shape; for Pareto's law also a location and a scale that give the mean.
    fn read_shaped(
        name: &str,
        fields: &mut Fields<'_>,
        unit: Unit,
    ) -> Result<Option<Self>, CoreError> {
        if let Some(mean) = fields.value("mean", unit)? {
            let shape = Shape::read(name, fields)?;
            return Ok(Some(Self { mean, shape }));
        }
        if name != "pareto" {
            return Ok(None);
        }
        let location = fields.value("location", unit)?.unwrap_or(0.0);
        let Some(scale) = fields.value("scale", unit)? else {
            return Ok(None);
        };
        let shape = fields.needed("shape", f64::is_finite)?;
        let found = Pareto::with_scale(location, scale, shape);
        Ok(found.map(|(pareto, mean)| Self {
            mean,
            shape: Shape::Pareto(pareto),
        }))
    }

    fn draw(&self, source: &mut impl Source) -> f64 {
        self.mean * self.shape.draw(source)
    }
}

/// The law of a time that a request carries: the work that it asks for, or a time to think.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum DemandLaw {
    /// Nothing is asked for.
    #[default]
    None,
    /// The same always.
    Constant(Nanos),
    /// Exponential with this mean.
    Exponential(Nanos),
    /// Another law.
    Other(OtherDemand),
}

/// A law of times beyond the two simplest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OtherDemand(Scaled);

impl DemandLaw {
    const KNOWN: &str = "none, constant:100us, exponential:1ms, uniform:low=,high=, lognormal:mean=,cv=, gamma:mean=,cv=, weibull:mean=,shape=, pareto:mean=,shape=, gev:location=,scale=,shape= or bimodal:low=,high=,share=";

    /// Reads `none`, `constant:100us`, `exponential:1ms`, `lognormal:mean=1ms,cv=2` and so on.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] that says which laws there are, or what this one wants.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        if text == "none" {
            return Ok(Self::None);
        }
        let scaled = Scaled::parse("demand law", text, Unit::Time, Self::KNOWN)?;
        let whole = Nanos::from_f64(scaled.mean).unwrap_or(Nanos::MAX);
        Ok(match scaled.shape {
            Shape::Constant => Self::Constant(whole),
            Shape::Exponential => Self::Exponential(whole),
            _ => Self::Other(OtherDemand(scaled)),
        })
    }

    /// Draws one value.
    pub fn draw(&self, source: &mut impl Source) -> Nanos {
        let drawn = match self {
            Self::None => return Nanos::ZERO,
            Self::Constant(value) => return *value,
            Self::Exponential(mean) => source.exponential() * mean.get() as f64,
            Self::Other(OtherDemand(scaled)) => scaled.draw(source),
        };
        Nanos::from_f64(drawn).unwrap_or(Nanos::MAX)
    }
}

/// The law of sizes in bytes, none of them above a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeLaw {
    scaled: Scaled,
    max: u64,
}

impl SizeLaw {
    const KNOWN: &str = "a number of bytes, constant:BYTES, exponential:BYTES, uniform:low=,high=, lognormal:mean=,cv=, gamma:mean=,cv=, weibull:mean=,shape=, pareto:mean=,shape=, gev:location=,scale=,shape=, bimodal:low=,high=,share=, fb_key or fb_val; at least half of it within the limit";

    /// Reads a number of bytes, a law such as `lognormal:mean=1KiB,cv=2`, `fb_key` or `fb_val`.
    ///
    /// Sizes above `max` are left out: they are drawn again.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for a text that is no law, or a law of which more than half is above `max`.
    pub fn parse(text: &str, max: u64) -> Result<Self, CoreError> {
        // Sizes at Facebook's key-value stores: Atikoglu et al., SIGMETRICS 2012, as fitted there.
        let written = match text {
            "fb_key" => "gev:location=30.7984,scale=8.20449,shape=0.078688".to_owned(),
            "fb_val" => "pareto:location=15,scale=214.476,shape=0.348238".to_owned(),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => format!("constant:{text}"),
            _ => text.to_owned(),
        };
        let invalid = || CoreError::InvalidValue {
            what: "size law",
            value: text.to_owned(),
            expected: Self::KNOWN,
        };
        let scaled = Scaled::parse("size law", &written, Unit::Bytes, Self::KNOWN);
        let scaled = if written == text {
            scaled?
        } else {
            scaled.map_err(|_| invalid())?
        };
        let within = scaled
            .shape
            .cdf((max as f64 + 0.5) / scaled.mean.max(f64::MIN_POSITIVE));
        if within < 0.5 {
            return Err(invalid());
        }
        Ok(Self { scaled, max })
    }

    /// The size of every item, where they do not differ.
    #[must_use]
    pub fn constant(&self) -> Option<u64> {
        let is_constant = self.scaled.shape == Shape::Constant;
        is_constant.then(|| self.size_of(Key::new(0, Stream::ValueSize), 0))
    }

    /// The size of the item with this number, in bytes: a pure function of `key` and `id`.
    #[must_use]
    pub fn size_of(&self, key: Key, id: u64) -> u64 {
        let mut source = key.item(id);
        // Each draw is within the limit with probability 1/2 or more, so 64 all above it never happen.
        for _ in 0..64 {
            let size = Nanos::from_f64(self.scaled.draw(&mut source)).map(Nanos::get);
            if let Some(size) = size.filter(|size| *size <= self.max) {
                return size;
            }
        }
        self.max
    }
}
