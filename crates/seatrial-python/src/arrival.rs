//! `ArrivalProcess`: the schedule of an open loop without the load, for tests, plots and statistics.

use pyo3::prelude::*;
use seatrial_core::arrival::{ArrivalProcess, Share, Transformed};
use seatrial_core::engine::plan::AGENTS_MAX;
use seatrial_core::error::CoreError;
use seatrial_core::units::Nanos;

use crate::error::to_python;
use crate::plan::whole;

/// Most arrivals that one call returns.
const ARRIVALS_MAX: u64 = 10_000_000;

/// A law, a rate and a pattern: what an open loop offers.
#[pyclass(frozen, name = "ArrivalProcess", module = "seatrial._core")]
pub struct PyArrivalProcess {
    core: ArrivalProcess,
    law: String,
}

#[pymethods]
impl PyArrivalProcess {
    #[new]
    #[pyo3(signature = (law, *, rate_rps=None, pattern="fixed"))]
    fn new(law: String, rate_rps: Option<f64>, pattern: &str) -> PyResult<Self> {
        let core = ArrivalProcess::parse(&law, pattern, rate_rps).map_err(to_python)?;
        Ok(Self { core, law })
    }

    /// The first arrivals of one agent, in ns from the start.
    #[pyo3(signature = (*, seed, n, agent=0, agents=1))]
    fn offsets_ns(
        &self,
        py: Python<'_>,
        seed: i128,
        n: i128,
        agent: i128,
        agents: i128,
    ) -> PyResult<Vec<u64>> {
        let checked = || -> Result<_, CoreError> {
            let share = Share {
                member: whole("agent", agent)?,
                members: whole("agents", agents)?,
            };
            let n: u64 = whole("n", n)?;
            within(
                "agents",
                share.members.into(),
                1,
                AGENTS_MAX.into(),
                "1 to 1024",
            )?;
            let last = u64::from(share.members) - 1;
            within("agent", share.member.into(), 0, last, "below agents")?;
            within("n", n, 0, ARRIVALS_MAX, "at most 10000000")?;
            Ok((whole("seed", seed)?, n, share))
        };
        let (seed, n, share) = checked().map_err(to_python)?;
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(py.detach(|| {
            let all = self.core.sequence(seed).skip(size(share.member.into()));
            let own = all.step_by(size(share.members.into())).take(size(n));
            own.map(Nanos::get).collect()
        }))
    }

    /// Observed arrivals, seen through this process.
    #[pyo3(signature = (offsets_ns, /))]
    fn places(&self, py: Python<'_>, offsets_ns: Vec<i128>) -> PyResult<Vec<f64>> {
        let offsets = nanos(offsets_ns).map_err(to_python)?;
        if !offsets.is_sorted() {
            return Err(to_python(CoreError::InvalidPlan {
                field: "offsets_ns",
                value: "not in order".to_owned(),
                expected: "none earlier than the one before",
            }));
        }
        Ok(py.detach(|| match self.core.transform(&offsets) {
            Transformed::Probabilities(values) | Transformed::Deviations(values) => values,
        }))
    }

    /// The rate that is offered at each of these offsets.
    #[pyo3(signature = (offsets_ns, /))]
    fn rates_rps(&self, offsets_ns: Vec<i128>) -> PyResult<Vec<Option<f64>>> {
        let offsets = nanos(offsets_ns).map_err(to_python)?;
        Ok(offsets.iter().map(|at| self.core.rate_at(*at)).collect())
    }

    /// The number of arrivals that are expected until each of these offsets.
    #[pyo3(signature = (offsets_ns, /))]
    fn expected_counts(&self, offsets_ns: Vec<i128>) -> PyResult<Vec<f64>> {
        let offsets = nanos(offsets_ns).map_err(to_python)?;
        Ok(offsets
            .iter()
            .map(|at| self.core.expected_count(*at))
            .collect())
    }

    fn __repr__(&self) -> String {
        format!("ArrivalProcess({:?})", self.law)
    }
}

fn nanos(offsets_ns: Vec<i128>) -> Result<Vec<Nanos>, CoreError> {
    let offsets = offsets_ns.into_iter();
    offsets
        .map(|at| whole("offsets_ns", at).map(Nanos::new))
        .collect()
}

fn within(
    field: &'static str,
    value: u64,
    low: u64,
    high: u64,
    expected: &'static str,
) -> Result<(), CoreError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(CoreError::InvalidPlan {
        field,
        value: value.to_string(),
        expected,
    })
}
