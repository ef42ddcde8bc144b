//! `LoadPlan`: the settings of a load, as Python values, checked when it is made.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyDictMethods};
use seatrial_core::arrival::DemandLaw;
use seatrial_core::engine::LoadPlan;
use seatrial_core::engine::plan::{Loop, ProtocolKind, parse_operation};
use seatrial_core::error::CoreError;
use seatrial_core::pacer::WaitMode;
use seatrial_core::transport::options::Options;
use seatrial_core::transport::stamps::{StampSource, Stamping};
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;

use crate::error::to_python;

/// The settings as Python gives them; whole numbers wide enough that the core sees what is wrong.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Settings {
    targets: Vec<String>,
    protocol: String,
    #[pyo3(default)]
    options: Options,
    operation: String,
    payload_bytes: i128,
    demand: String,
    arrival: String,
    #[pyo3(default)]
    rate_rps: Option<f64>,
    #[pyo3(default = "fixed".to_owned())]
    pattern: String,
    #[pyo3(default = "none".to_owned())]
    think: String,
    #[pyo3(default = 0)]
    agent: i128,
    #[pyo3(default = 1)]
    agents: i128,
    #[pyo3(default)]
    start_at_ns: Option<i128>,
    connections: i128,
    threads: i128,
    depth: i128,
    #[pyo3(default)]
    outstanding_max: Option<i128>,
    warm_up_ns: i128,
    measure_ns: i128,
    #[pyo3(default = 0)]
    cool_down_ns: i128,
    #[pyo3(default = 100_000_000)]
    interval_ns: i128,
    drain_ns: i128,
    request_timeout_ns: i128,
    requests_max: i128,
    records_max: i128,
    seed: i128,
    wait: String,
    #[pyo3(default)]
    cpus: Vec<i128>,
    #[pyo3(default = "user".to_owned())]
    timestamps: String,
    #[pyo3(default = 1)]
    timestamps_every: i128,
}

/// Names of the settings, and whether each has to be given.
const NAMES: [(&str, bool); 30] = [
    ("targets", true),
    ("protocol", true),
    ("options", false),
    ("operation", true),
    ("payload_bytes", true),
    ("demand", true),
    ("arrival", true),
    ("rate_rps", false),
    ("pattern", false),
    ("think", false),
    ("agent", false),
    ("agents", false),
    ("start_at_ns", false),
    ("connections", true),
    ("threads", true),
    ("depth", true),
    ("outstanding_max", false),
    ("warm_up_ns", true),
    ("measure_ns", true),
    ("cool_down_ns", false),
    ("interval_ns", false),
    ("drain_ns", true),
    ("request_timeout_ns", true),
    ("requests_max", true),
    ("records_max", true),
    ("seed", true),
    ("wait", true),
    ("cpus", false),
    ("timestamps", false),
    ("timestamps_every", false),
];

impl Settings {
    fn to_core(&self) -> Result<LoadPlan, CoreError> {
        let targets = self
            .targets
            .iter()
            .map(|text| Target::parse(text))
            .collect::<Result<_, _>>();
        let start_at = self
            .start_at_ns
            .map(|at| whole("start_at_ns", at))
            .transpose()?;
        let plan = LoadPlan {
            targets: targets?,
            targets_text: self.targets.clone(),
            protocol: ProtocolKind::parse(&self.protocol)?,
            options: self.options.clone(),
            operation: parse_operation(&self.operation)?,
            payload_bytes: whole("payload_bytes", self.payload_bytes)?,
            demand: DemandLaw::parse(&self.demand)?,
            arrival: Loop::parse(&self.arrival, &self.pattern, self.rate_rps)?,
            think: DemandLaw::parse(&self.think)?,
            agent: whole("agent", self.agent)?,
            agents: whole("agents", self.agents)?,
            start_at: start_at.map(Nanos::new),
            connections: whole("connections", self.connections)?,
            threads: whole("threads", self.threads)?,
            depth: whole("depth", self.depth)?,
            outstanding_max: self
                .outstanding_max
                .map(|bound| whole("outstanding_max", bound))
                .transpose()?,
            warm_up: Nanos::new(whole("warm_up_ns", self.warm_up_ns)?),
            measure: Nanos::new(whole("measure_ns", self.measure_ns)?),
            cool_down: Nanos::new(whole("cool_down_ns", self.cool_down_ns)?),
            interval: Nanos::new(whole("interval_ns", self.interval_ns)?),
            drain: Nanos::new(whole("drain_ns", self.drain_ns)?),
            request_timeout: Nanos::new(whole("request_timeout_ns", self.request_timeout_ns)?),
            requests_max: whole("requests_max", self.requests_max)?,
            records_max: whole("records_max", self.records_max)?,
            seed: whole("seed", self.seed)?,
            wait: WaitMode::parse(&self.wait)?,
            cpus: self
                .cpus
                .iter()
                .map(|cpu| whole("cpus", *cpu))
                .collect::<Result<_, _>>()?,
            stamping: Stamping {
                source: StampSource::parse(&self.timestamps)?,
                every: whole("timestamps_every", self.timestamps_every)?,
            },
        };
        plan.validate()?;
        Ok(plan)
    }
}

/// One load: where, what, how much, how long, and the bounds.
#[pyclass(frozen, name = "LoadPlan", module = "seatrial._core")]
pub struct PyLoadPlan {
    core: LoadPlan,
    written: Py<PyDict>,
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
        text_signature = "(*, targets, protocol, options={}, operation, payload_bytes, demand, arrival, \
            rate_rps=None, pattern='fixed', think='none', agent=0, agents=1, start_at_ns=None, connections, threads, depth, \
            outstanding_max=None, warm_up_ns, measure_ns, cool_down_ns=0, interval_ns=100000000, drain_ns, request_timeout_ns, requests_max, \
            records_max, seed, wait, cpus=(), timestamps='user', timestamps_every=1)"
    )]
    fn new(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let empty = PyDict::new(py);
        let settings = settings.unwrap_or(&empty);
        check_names(settings)?;
        let core = settings
            .extract::<Settings>()?
            .to_core()
            .map_err(to_python)?;
        Ok(Self {
            core,
            written: settings.copy()?.unbind(),
        })
    }

    /// The settings as they were given.
    #[getter]
    fn settings<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.written.bind(py).clone()
    }

    fn __repr__(&self) -> String {
        format!(
            "LoadPlan(targets={:?}, connections={})",
            self.core.targets_text, self.core.connections
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
pub fn whole<T: TryFrom<i128>>(field: &'static str, value: i128) -> Result<T, CoreError> {
    T::try_from(value).map_err(|_| CoreError::InvalidPlan {
        field,
        value: value.to_string(),
        expected: "a whole number from 0 within the documented bounds",
    })
}
