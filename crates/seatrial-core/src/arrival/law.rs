//! Which law the gaps between arrivals follow, as a user writes it.

use super::grammar::{Fields, name_and_rest};
use super::mmpp::{self, MmppText};
use super::shape::{self, Pareto, Shape};
use super::trace::Trace;
use crate::error::CoreError;

/// All laws, for who names none of them.
const KNOWN: &str = "fixed, poisson, uniform, lognormal:cv=, gamma:cv=, weibull:shape=, pareto:shape=, gev:shape=,scale=, bimodal:ratio=,share=, mmpp:factor=,burst=,calm=, fb_ia or trace:PATH";

/// The law of the times between arrivals of an open loop; the rate gives their mean.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrivalLaw {
    /// The same gap always; the first arrival is at the very start.
    Fixed,
    /// Independent gaps of one law: `poisson` and most others.
    Renewal(Shape),
    /// Poisson arrivals whose rate switches between two values.
    Mmpp(MmppText),
    /// Arrivals from a file.
    Trace(Trace),
}

impl ArrivalLaw {
    /// Exponential gaps: a Poisson process.
    pub const POISSON: Self = Self::Renewal(Shape::Exponential);

    /// Reads a law such as `poisson`, `lognormal:cv=2` or `trace:/data/arrivals.csv`; a trace's file is read, too.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] that says which laws there are, or what this one wants.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        let (name, rest) = name_and_rest(text);
        if name == "trace" {
            return Trace::read(text, rest).map(Self::Trace);
        }
        let usage = match name {
            "mmpp" => mmpp::USAGE,
            "fb_ia" => "fb_ia, without parameters",
            _ => shape::usage_of(name).unwrap_or(KNOWN),
        };
        let mut fields = Fields::new("arrival law", text, rest, usage)?;
        let law = match name {
            "fixed" => Self::Fixed,
            "mmpp" => Self::Mmpp(MmppText::read(&mut fields)?),
            // Gaps in us at Facebook's key-value stores: Atikoglu et al., SIGMETRICS 2012, as fitted in table 5 there.
            "fb_ia" => Pareto::with_scale(0.0, 16.0292, 0.154_971)
                .map(|(pareto, _)| Self::Renewal(Shape::Pareto(pareto)))
                .ok_or_else(|| fields.invalid())?,
            _ if shape::usage_of(name).is_some() => Self::Renewal(Shape::read(name, &mut fields)?),
            _ => return Err(fields.invalid()),
        };
        fields.finish()?;
        Ok(law)
    }
}
