//! `Interval`, `TargetResult` and `Snapshot`: what happened when, where, and so far.

use pyo3::prelude::*;
use seatrial_core::engine::{Interval, Snapshot, TargetResult};
use seatrial_core::units::Nanos;

use crate::counts::PyCounts;
use crate::histogram::PyHistogram;

/// What happened in one interval of a run.
#[pyclass(frozen, name = "Interval", module = "seatrial._core")]
pub struct PyInterval {
    inner: Interval,
}

impl From<Interval> for PyInterval {
    fn from(inner: Interval) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl PyInterval {
    #[getter]
    fn start_ns(&self) -> u64 {
        self.inner.start.get()
    }

    #[getter]
    fn end_ns(&self) -> u64 {
        self.inner.end.get()
    }

    #[getter]
    fn intended_count(&self) -> u64 {
        self.inner.intended_count
    }

    #[getter]
    fn sent_count(&self) -> u64 {
        self.inner.sent_count
    }

    #[getter]
    fn ok_count(&self) -> u64 {
        self.inner.ok_count
    }

    #[getter]
    fn failed_count(&self) -> u64 {
        self.inner.failed_count
    }

    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.inner.sent_bytes
    }

    #[getter]
    fn received_bytes(&self) -> u64 {
        self.inner.received_bytes
    }

    #[getter]
    fn response_histogram(&self) -> PyHistogram {
        self.inner.response.clone().into()
    }

    fn __repr__(&self) -> String {
        format!(
            "Interval(start_ns={}, end_ns={}, ok_count={})",
            self.inner.start.get(),
            self.inner.end.get(),
            self.inner.ok_count
        )
    }
}

/// How the requests to one target fared in the measure phase.
#[pyclass(frozen, get_all, name = "TargetResult", module = "seatrial._core")]
pub struct PyTargetResult {
    target: String,
    counts: Py<PyCounts>,
    achieved_count: u64,
    response_histogram: Py<PyHistogram>,
}

impl PyTargetResult {
    /// Takes the result of the core over.
    pub fn new(py: Python<'_>, found: TargetResult) -> PyResult<Self> {
        Ok(Self {
            target: found.target,
            counts: Py::new(py, PyCounts::from(found.counters))?,
            achieved_count: found.achieved_count,
            response_histogram: Py::new(py, PyHistogram::from(found.response))?,
        })
    }
}

#[pymethods]
impl PyTargetResult {
    fn __repr__(&self) -> String {
        format!("TargetResult(target={:?})", self.target)
    }
}

/// What a load looks like while it runs.
#[pyclass(frozen, get_all, name = "Snapshot", module = "seatrial._core")]
pub struct PySnapshot {
    elapsed_ns: u64,
    measured: Py<PyCounts>,
    response_histogram: Py<PyHistogram>,
    intervals: Vec<Py<PyInterval>>,
}

impl PySnapshot {
    /// Takes what the core tells over.
    pub fn new(py: Python<'_>, seen: Snapshot) -> PyResult<Self> {
        Ok(Self {
            elapsed_ns: Nanos::get(seen.elapsed),
            measured: Py::new(py, PyCounts::from(seen.measured))?,
            response_histogram: Py::new(py, PyHistogram::from(seen.response))?,
            intervals: all(py, seen.intervals)?,
        })
    }
}

#[pymethods]
impl PySnapshot {
    fn __repr__(&self) -> String {
        format!("Snapshot(elapsed_ns={})", self.elapsed_ns)
    }
}

/// Intervals as Python objects.
pub fn all(py: Python<'_>, intervals: Vec<Interval>) -> PyResult<Vec<Py<PyInterval>>> {
    let intervals = intervals.into_iter().map(PyInterval::from);
    intervals.map(|interval| Py::new(py, interval)).collect()
}
