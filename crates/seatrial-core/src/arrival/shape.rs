//! Laws of what is never negative, each scaled to the mean 1; the user of one sets the mean.
//!
//! METHODOLOGY 5.1 has the formulas. Whatever has an inverse distribution function in closed form is drawn by it.

use super::draws::Source;
use super::grammar::Fields;
use super::math;
use crate::error::CoreError;

/// A law with mean 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Always 1.
    Constant,
    /// Exponential.
    Exponential,
    /// Even between `low` and `2 - low`.
    Uniform {
        /// The lower end, 0 to below 1.
        low: f64,
    },
    /// The logarithm is normal.
    Lognormal {
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Gamma.
    Gamma {
        /// Its shape: 1 over the square of the coefficient of variation.
        shape: f64,
    },
    /// Weibull.
    Weibull {
        /// Its shape.
        shape: f64,
        /// Its scale, such that the mean is 1.
        scale: f64,
    },
    /// Generalised Pareto.
    Pareto(Pareto),
    /// Generalised extreme values, given that they are not negative.
    Gev(Gev),
    /// One of two values.
    Bimodal {
        /// The smaller value.
        low: f64,
        /// The larger value.
        high: f64,
        /// Probability of the larger one.
        share: f64,
    },
}

/// What a law that is known by one of these names wants to be told.
pub const LAWS: [(&str, &str); 9] = [
    ("fixed", "fixed"),
    ("poisson", "poisson"),
    (
        "uniform",
        "uniform[:low=L,high=H], shares of the mean with 0 <= L < 1 and H = 2 - L; 0 and 2 when not given",
    ),
    (
        "lognormal",
        "lognormal:cv=CV, the coefficient of variation, above 0 and at most 100",
    ),
    (
        "gamma",
        "gamma:cv=CV (0.01 to 30) or gamma:shape=K (K = 1/CV^2, 0.001 to 10000)",
    ),
    ("weibull", "weibull:shape=K, 0.1 to 100"),
    (
        "pareto",
        "pareto:shape=XI[,location=L], generalised, -10 <= XI < 1 (the mean is infinite from 1 on), 0 <= L < 1 a share of the mean; or pareto:alpha=A, classical, 1 < A <= 1000",
    ),
    (
        "gev",
        "gev:shape=XI,scale=S[,location=M], -10 <= XI < 1 (the mean is infinite from 1 on), 0 < S <= 1000 M, M above 0 and 1 when not given; what is negative is left out",
    ),
    (
        "bimodal",
        "bimodal:ratio=R,share=P, the larger value over the smaller one (1 < R <= 1e6) and its probability (0 < P < 1)",
    ),
];

/// The usage of a law.
pub fn usage_of(name: &str) -> Option<&'static str> {
    let row = LAWS.iter().find(|(known, _)| *known == name)?;
    Some(row.1)
}

impl Shape {
    /// Reads the shape of the law called `name` from its parameters.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for a parameter that is missing, unknown or out of its range.
    pub fn read(name: &str, fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        match name {
            "poisson" | "exponential" => Ok(Self::Exponential),
            "uniform" => Self::read_uniform(fields),
            "lognormal" => {
                let cv = fields.needed("cv", |cv| cv > 0.0 && cv <= 100.0)?;
                Ok(Self::lognormal(cv))
            }
            "gamma" => Self::read_gamma(fields),
            "weibull" => {
                let shape = fields.needed("shape", |shape| (0.1..=100.0).contains(&shape))?;
                let scale = 1.0 / math::gamma(1.0 + 1.0 / shape);
                Ok(Self::Weibull { shape, scale })
            }
            "pareto" => Pareto::read(fields).map(Self::Pareto),
            "gev" => Self::read_gev(fields),
            "bimodal" => {
                let ratio = fields.needed("ratio", |ratio| ratio > 1.0 && ratio <= 1e6)?;
                let share = fields.needed("share", |share| share > 0.0 && share < 1.0)?;
                Ok(Self::bimodal(1.0, ratio, share))
            }
            _ => Err(fields.invalid()),
        }
    }

    /// Lognormal with this coefficient of variation.
    fn lognormal(cv: f64) -> Self {
        let sigma = libm::sqrt(libm::log1p(cv * cv));
        Self::Lognormal { sigma }
    }

    /// These two values, the larger with probability `share`, divided by their mean.
    #[must_use]
    pub fn bimodal(low: f64, high: f64, share: f64) -> Self {
        let mean = low * (1.0 - share) + high * share;
        Self::Bimodal {
            low: low / mean,
            high: high / mean,
            share,
        }
    }

    fn read_uniform(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        let (low, high) = (fields.number("low")?, fields.number("high")?);
        let low = low.or(high.map(|high| 2.0 - high)).unwrap_or(0.0);
        let is_right =
            (0.0..1.0).contains(&low) && high.is_none_or(|high| (low + high - 2.0).abs() < 1e-9);
        is_right
            .then_some(Self::Uniform { low })
            .ok_or_else(|| fields.invalid())
    }

    fn read_gamma(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        let shape = match (fields.number("cv")?, fields.number("shape")?) {
            (Some(cv), None) if cv > 0.0 => 1.0 / (cv * cv),
            (None, Some(shape)) => shape,
            _ => return Err(fields.invalid()),
        };
        // A little wider than documented, so that a bound given as the other parameter is not lost to rounding.
        (9.9e-4..=10_001.0)
            .contains(&shape)
            .then_some(Self::Gamma { shape })
            .ok_or_else(|| fields.invalid())
    }

    fn read_gev(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        let shape = fields.needed("shape", |shape| (-10.0..1.0).contains(&shape))?;
        let scale = fields.needed("scale", |scale| scale > 0.0)?;
        let location = fields.number("location")?.unwrap_or(1.0);
        Gev::new(location, scale, shape)
            .map(|(gev, _)| Self::Gev(gev))
            .ok_or_else(|| fields.invalid())
    }

    /// Draws one value.
    pub fn draw(&self, source: &mut impl Source) -> f64 {
        match *self {
            Self::Constant => 1.0,
            Self::Exponential => source.exponential(),
            Self::Uniform { low } => low + 2.0 * (1.0 - low) * source.unit(),
            Self::Lognormal { sigma } => libm::exp(sigma * (source.normal() - 0.5 * sigma)),
            Self::Gamma { shape } => gamma_draw(shape, source) / shape,
            Self::Weibull { shape, scale } => scale * libm::pow(source.exponential(), 1.0 / shape),
            Self::Pareto(pareto) => pareto.quantile(source.exponential()),
            Self::Gev(gev) => gev.draw(source.unit()),
            Self::Bimodal { low, high, share } => {
                if source.unit() <= share {
                    high
                } else {
                    low
                }
            }
        }
    }

    /// The probability of a value of at most `x`.
    #[must_use]
    pub fn cdf(&self, x: f64) -> f64 {
        if x < 0.0 {
            return 0.0;
        }
        let step = |at: f64| f64::from(u8::from(x >= at));
        match *self {
            Self::Constant => step(1.0),
            Self::Exponential => -libm::expm1(-x),
            Self::Uniform { low } => ((x - low) / (2.0 * (1.0 - low))).clamp(0.0, 1.0),
            Self::Lognormal { sigma } => math::normal_cdf(libm::log(x) / sigma + 0.5 * sigma),
            Self::Gamma { shape } => math::gamma_p(shape, shape * x),
            Self::Weibull { shape, scale } => -libm::expm1(-libm::pow(x / scale, shape)),
            Self::Pareto(pareto) => pareto.cdf(x),
            Self::Gev(gev) => gev.cdf(x),
            Self::Bimodal { low, high, share } => (1.0 - share) * step(low) + share * step(high),
        }
    }

    /// Of a law of single values: the probability of those below the one nearest to `x`, and its own.
    ///
    /// A value that was measured lies beside the one that it stands for.
    pub(super) fn nearest_atom(&self, x: f64) -> Option<(f64, f64)> {
        match *self {
            Self::Constant => Some((0.0, 1.0)),
            Self::Bimodal { low, high, share } if x - low < high - x => Some((0.0, 1.0 - share)),
            Self::Bimodal { share, .. } => Some((1.0 - share, share)),
            _ => None,
        }
    }
}

/// The generalised Pareto law with mean 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pareto {
    shape: f64,
    scale: f64,
    location: f64,
}

/// Shapes nearer to 0 than this are 0: the limit is exact to the last digits that count.
const NO_SHAPE: f64 = 1e-8;

impl Pareto {
    /// Mean 1, this shape (below 1), nothing below `location` (below 1).
    fn new(shape: f64, location: f64) -> Self {
        Self {
            shape,
            scale: (1.0 - location) * (1.0 - shape),
            location,
        }
    }

    /// The shape of this law with any scale, and its mean.
    pub(super) fn with_scale(location: f64, scale: f64, shape: f64) -> Option<(Self, f64)> {
        let is_right = location >= 0.0 && scale > 0.0 && (-10.0..1.0).contains(&shape);
        let mean = location + scale / (1.0 - shape);
        is_right.then(|| (Self::new(shape, location / mean), mean))
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, CoreError> {
        if let Some(alpha) = fields.number("alpha")? {
            // Pareto's own law is the generalised one whose scale is its shape times its location.
            let is_right = alpha > 1.0 && alpha <= 1_000.0;
            return is_right
                .then(|| Self::new(1.0 / alpha, (alpha - 1.0) / alpha))
                .ok_or_else(|| fields.invalid());
        }
        let shape = fields.needed("shape", |shape| (-10.0..1.0).contains(&shape))?;
        let location = fields.number("location")?.unwrap_or(0.0);
        (0.0..1.0)
            .contains(&location)
            .then(|| Self::new(shape, location))
            .ok_or_else(|| fields.invalid())
    }

    /// The value that is exceeded with probability `exp(-hazard)`.
    fn quantile(&self, hazard: f64) -> f64 {
        let excess = if self.shape.abs() < NO_SHAPE {
            hazard
        } else {
            libm::expm1(self.shape * hazard) / self.shape
        };
        self.location + self.scale * excess
    }

    fn cdf(&self, x: f64) -> f64 {
        let z = (x - self.location) / self.scale;
        if z <= 0.0 {
            0.0
        } else if self.shape.abs() < NO_SHAPE {
            -libm::expm1(-z)
        } else if self.shape * z <= -1.0 {
            1.0
        } else {
            -libm::expm1(-libm::log1p(self.shape * z) / self.shape)
        }
    }
}

/// The law of generalised extreme values, given that the value is not negative, scaled to mean 1.
///
/// With `s` exponential of mean 1 the value is `location + scale * (s^-shape - 1) / shape`;
/// it is negative for `s` above some bound, and such `s` are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gev {
    location: f64,
    scale: f64,
    shape: f64,
    /// Above it values are negative.
    hazard_max: f64,
    /// Probability that is left out.
    excluded: f64,
}

impl Gev {
    /// The scaled law and the mean it had.
    ///
    /// The location is exceeded with probability `1 - 1/e`, so with one above 0 little enough is left out.
    pub(super) fn new(location: f64, scale: f64, shape: f64) -> Option<(Self, f64)> {
        let is_right = location > 0.0 && location < 1e15 && scale > 0.0;
        if !is_right || scale > 1_000.0 * location || !(-10.0..1.0).contains(&shape) {
            return None;
        }
        let shape = if shape.abs() < NO_SHAPE { 0.0 } else { shape };
        let hazard_max = if shape == 0.0 {
            libm::exp(location / scale)
        } else {
            let base = 1.0 - shape * location / scale;
            if base <= 0.0 && shape > 0.0 {
                f64::INFINITY
            } else {
                libm::exp(-libm::log(base) / shape)
            }
        };
        let excluded = libm::exp(-hazard_max);
        let raw = Self {
            location,
            scale,
            shape,
            hazard_max,
            excluded,
        };
        let mean = raw.mean();
        let is_right = mean.is_finite() && mean > 0.0;
        let scaled = Self {
            location: location / mean,
            scale: scale / mean,
            ..raw
        };
        is_right.then_some((scaled, mean))
    }

    /// The integral of the value over the `s` that are kept, divided by their probability.
    fn mean(&self) -> f64 {
        let kept = 1.0 - self.excluded;
        let (location, scale, end) = (self.location, self.scale, self.hazard_max);
        let sum = if self.shape == 0.0 {
            let log_end = if self.excluded > 0.0 {
                libm::log(end) * self.excluded
            } else {
                0.0
            };
            // The integral of -ln(s) exp(-s) from 0 to `end` is Ein(end) - ln(end) (1 - exp(-end)).
            let ein = if end > 40.0 {
                EULER
            } else {
                math::ein(end) - libm::log(end)
            };
            location * kept + scale * (ein + log_end)
        } else {
            let order = 1.0 - self.shape;
            let part = math::gamma(order) * math::gamma_p(order, end);
            location * kept + scale / self.shape * (part - kept)
        };
        sum / kept
    }

    /// The value for `unit` in (0, 1]; larger for smaller ones.
    fn draw(&self, unit: f64) -> f64 {
        let hazard = -libm::log1p(-unit * (1.0 - self.excluded));
        self.value(hazard.min(self.hazard_max))
    }

    fn value(&self, hazard: f64) -> f64 {
        let log = -libm::log(hazard);
        let z = if self.shape == 0.0 {
            log
        } else {
            libm::expm1(self.shape * log) / self.shape
        };
        // At the bound the value is 0 but for rounding.
        (self.location + self.scale * z).max(0.0)
    }

    fn cdf(&self, x: f64) -> f64 {
        let z = (x - self.location) / self.scale;
        let hazard = if self.shape == 0.0 {
            libm::exp(-z)
        } else if self.shape * z <= -1.0 {
            // Beyond the end of the law: above all of it, or below.
            if self.shape < 0.0 { 0.0 } else { f64::INFINITY }
        } else {
            libm::exp(-libm::log1p(self.shape * z) / self.shape)
        };
        ((libm::exp(-hazard) - self.excluded) / (1.0 - self.excluded)).clamp(0.0, 1.0)
    }
}

/// Euler's constant: the mean of Gumbel's law.
const EULER: f64 = 0.577_215_664_901_532_9;

/// A draw of the gamma law with this shape and scale 1 (Marsaglia and Tsang 2000).
fn gamma_draw(shape: f64, source: &mut impl Source) -> f64 {
    if shape < 1.0 {
        // Their own remark for small shapes: raise the shape by one and multiply.
        let root = libm::exp(-source.exponential() / shape);
        return root * gamma_draw(shape + 1.0, source);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let x = source.normal();
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let v = v * v * v;
        if libm::log(source.unit()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
            return d * v;
        }
    }
}
