//! `LoadPlan`: the settings of a load, as Python values, checked when it is made.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use seatrial_core::arrival::{ArrivalLaw, ArrivalSequence, DemandLaw};
use seatrial_core::engine::LoadPlan;
use seatrial_core::engine::plan::{Loop, ProtocolKind, parse_operation};
use seatrial_core::error::CoreError;
use seatrial_core::pacer::WaitMode;
use seatrial_core::transport::target::Target;
use seatrial_core::units::{Nanos, RatePerSecond};

use crate::error::to_python;

/// The settings as Python gives them; whole numbers wide enough that the core sees what is wrong.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Settings {
    target: String,
    protocol: String,
    operation: String,
    payload_bytes: i128,
    demand: String,
    arrival: String,
    #[pyo3(default)]
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
}

/// Names of the settings, and whether each has to be given.
const NAMES: [(&str, bool); 18] = [
    ("target", true),
    ("protocol", true),
    ("operation", true),
    ("payload_bytes", true),
    ("demand", true),
    ("arrival", true),
    ("rate_rps", false),
    ("connections", true),
    ("threads", true),
    ("depth", true),
    ("warm_up_ns", true),
    ("measure_ns", true),
    ("drain_ns", true),
    ("request_timeout_ns", true),
    ("requests_max", true),
    ("records_max", true),
    ("seed", true),
    ("wait", true),
];

impl Settings {
    fn to_core(&self) -> Result<LoadPlan, CoreError> {
        let plan = LoadPlan {
            target: Target::parse(&self.target)?,
            target_text: self.target.clone(),
            protocol: ProtocolKind::parse(&self.protocol)?,
            operation: parse_operation(&self.operation)?,
            payload_bytes: whole("payload_bytes", self.payload_bytes)?,
            demand: DemandLaw::parse(&self.demand)?,
            arrival: Loop::parse(&self.arrival, self.rate_rps)?,
            connections: whole("connections", self.connections)?,
            threads: whole("threads", self.threads)?,
            depth: whole("depth", self.depth)?,
            warm_up: Nanos::new(whole("warm_up_ns", self.warm_up_ns)?),
            measure: Nanos::new(whole("measure_ns", self.measure_ns)?),
            drain: Nanos::new(whole("drain_ns", self.drain_ns)?),
            request_timeout: Nanos::new(whole("request_timeout_ns", self.request_timeout_ns)?),
            requests_max: whole("requests_max", self.requests_max)?,
            records_max: whole("records_max", self.records_max)?,
            seed: whole("seed", self.seed)?,
            wait: WaitMode::parse(&self.wait)?,
        };
        plan.validate()?;
        Ok(plan)
    }
}

/// One load: where, what, how much, how long, and the bounds.
#[pyclass(frozen, name = "LoadPlan", module = "seatrial._core")]
pub struct PyLoadPlan {
    core: LoadPlan,
    written: Settings,
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
    #[pyo3(
        signature = (**settings),
        text_signature = "(*, target, protocol, operation, payload_bytes, demand, arrival, \
            rate_rps=None, connections, threads, depth, warm_up_ns, measure_ns, drain_ns, \
            request_timeout_ns, requests_max, records_max, seed, wait)"
    )]
    fn new(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let empty = PyDict::new(py);
        let settings = settings.unwrap_or(&empty);
        check_names(settings)?;
        let written: Settings = settings.extract()?;
        let core = written.to_core().map_err(to_python)?;
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

/// Fails like Python does for a keyword argument that is missing or not known.
fn check_names(settings: &Bound<'_, PyDict>) -> PyResult<()> {
    for key in settings.keys() {
        let key: String = key.extract()?;
        if !NAMES.iter().any(|(name, _)| *name == key) {
            let message = format!("LoadPlan() got an unexpected keyword argument '{key}'");
            return Err(PyTypeError::new_err(message));
        }
    }
    for (name, is_needed) in NAMES {
        if is_needed && !settings.contains(name)? {
            let message = format!("LoadPlan() missing required keyword argument '{name}'");
            return Err(PyTypeError::new_err(message));
        }
    }
    Ok(())
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
