//! `LoadPlan`: the settings of a load, as Python values, checked when it is made.

use pyo3::prelude::*;
use seatrial_core::arrival::{ArrivalLaw, ArrivalSequence, DemandLaw};
use seatrial_core::engine::LoadPlan;
use seatrial_core::engine::plan::{Loop, ProtocolKind, parse_operation};
use seatrial_core::error::CoreError;
use seatrial_core::pacer::WaitMode;
use seatrial_core::transport::target::Target;
use seatrial_core::units::{Nanos, RatePerSecond};

use crate::error::to_python;

/// One load: where, what, how much, how long, and the bounds.
#[pyclass(frozen, name = "LoadPlan", module = "seatrial._core")]
pub struct PyLoadPlan {
    core: LoadPlan,
    written: Written,
}

/// What the user wrote where the core keeps something else.
struct Written {
    protocol: String,
    operation: String,
    demand: String,
    arrival: String,
    rate_rps: Option<f64>,
    wait: String,
}

impl PyLoadPlan {
    /// The plan as the core knows it.
    pub fn core(&self) -> &LoadPlan {
        &self.core
    }
}

#[pymethods]
impl PyLoadPlan {
    #[new]
    #[pyo3(signature = (*, target, protocol, operation, payload_bytes, demand, arrival,
        rate_rps=None, connections, threads, depth, warm_up_ns, measure_ns, drain_ns,
        request_timeout_ns, requests_max, records_max, seed, wait))]
    #[allow(clippy::too_many_arguments)] // keyword-only in Python, one for each setting
    #[allow(clippy::similar_names)] // requests_max and records_max are the names of the contract
    fn new(
        target: &str,
        protocol: String,
        operation: String,
        payload_bytes: i128,
        demand: String,
        arrival: String,
        rate_rps: Option<f64>,
        connections: i128,
        threads: i128,
        depth: i128,
        warm_up_ns: i128,
        measure_ns: i128,
        drain_ns: i128,
        request_timeout_ns: i128,
        requests_max: i128,
        records_max: i128,
        seed: i128,
        wait: String,
    ) -> PyResult<Self> {
        let build = || -> Result<LoadPlan, CoreError> {
            let plan = LoadPlan {
                target: Target::parse(target)?,
                target_text: target.to_owned(),
                protocol: ProtocolKind::parse(&protocol)?,
                operation: parse_operation(&operation)?,
                payload_bytes: whole("payload_bytes", payload_bytes)?,
                demand: DemandLaw::parse(&demand)?,
                arrival: Loop::parse(&arrival, rate_rps)?,
                connections: whole("connections", connections)?,
                threads: whole("threads", threads)?,
                depth: whole("depth", depth)?,
                warm_up: Nanos::new(whole("warm_up_ns", warm_up_ns)?),
                measure: Nanos::new(whole("measure_ns", measure_ns)?),
                drain: Nanos::new(whole("drain_ns", drain_ns)?),
                request_timeout: Nanos::new(whole("request_timeout_ns", request_timeout_ns)?),
                requests_max: whole("requests_max", requests_max)?,
                records_max: whole("records_max", records_max)?,
                seed: whole("seed", seed)?,
                wait: WaitMode::parse(&wait)?,
            };
            plan.validate()?;
            Ok(plan)
        };
        let core = build().map_err(to_python)?;
        let written = Written {
            protocol,
            operation,
            demand,
            arrival,
            rate_rps,
            wait,
        };
        Ok(Self { core, written })
    }

    #[getter]
    fn target(&self) -> &str {
        &self.core.target_text
    }

    #[getter]
    fn protocol(&self) -> &str {
        &self.written.protocol
    }

    #[getter]
    fn operation(&self) -> &str {
        &self.written.operation
    }

    #[getter]
    fn payload_bytes(&self) -> u32 {
        self.core.payload_bytes
    }

    #[getter]
    fn demand(&self) -> &str {
        &self.written.demand
    }

    #[getter]
    fn arrival(&self) -> &str {
        &self.written.arrival
    }

    #[getter]
    fn rate_rps(&self) -> Option<f64> {
        self.written.rate_rps
    }

    #[getter]
    fn connections(&self) -> u32 {
        self.core.connections
    }

    #[getter]
    fn threads(&self) -> u32 {
        self.core.threads
    }

    #[getter]
    fn depth(&self) -> u32 {
        self.core.depth
    }

    #[getter]
    fn warm_up_ns(&self) -> u64 {
        self.core.warm_up.get()
    }

    #[getter]
    fn measure_ns(&self) -> u64 {
        self.core.measure.get()
    }

    #[getter]
    fn drain_ns(&self) -> u64 {
        self.core.drain.get()
    }

    #[getter]
    fn request_timeout_ns(&self) -> u64 {
        self.core.request_timeout.get()
    }

    #[getter]
    fn requests_max(&self) -> u64 {
        self.core.requests_max
    }

    #[getter]
    fn records_max(&self) -> u64 {
        self.core.records_max
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.core.seed
    }

    #[getter]
    fn wait(&self) -> &str {
        &self.written.wait
    }

    fn __repr__(&self) -> String {
        format!(
            "LoadPlan(target={:?}, arrival={:?}, connections={})",
            self.core.target_text, self.written.arrival, self.core.connections
        )
    }
}

/// A setting as the type that the core wants.
fn whole<T: TryFrom<i128>>(field: &'static str, value: i128) -> Result<T, CoreError> {
    T::try_from(value).map_err(|_| CoreError::InvalidPlan {
        field,
        value: value.to_string(),
        expected: "a whole number from 0 within the documented bounds",
    })
}

/// The value, unless it is above `limit`.
pub fn at_most(field: &'static str, value: usize, limit: usize) -> Result<usize, CoreError> {
    if value <= limit {
        return Ok(value);
    }
    let expected = "at most 10000000";
    Err(CoreError::InvalidPlan {
        field,
        value: value.to_string(),
        expected,
    })
}

/// The arrivals of a law given as text.
pub fn arrival_sequence(law: &str, rate_rps: f64, seed: u64) -> Result<ArrivalSequence, CoreError> {
    let law = ArrivalLaw::parse(law)?;
    let rate = RatePerSecond::new(rate_rps).ok_or_else(|| CoreError::InvalidPlan {
        field: "rate_rps",
        value: rate_rps.to_string(),
        expected: "above 0 and at most 1e9",
    })?;
    Ok(ArrivalSequence::new(law, rate, seed))
}
