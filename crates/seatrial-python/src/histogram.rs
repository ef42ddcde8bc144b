//! `Histogram`: durations as mergeable counts.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use seatrial_core::histogram::{Histogram, SparseHistogram};
use seatrial_core::units::Nanos;

use crate::error::to_python;

/// Durations in ns, kept as counts of buckets; it never changes.
#[pyclass(frozen, eq, name = "Histogram", module = "seatrial._core")]
#[derive(PartialEq)]
pub struct PyHistogram {
    inner: SparseHistogram,
}

impl PyHistogram {
    /// The histogram as the core knows it.
    pub fn inner(&self) -> &SparseHistogram {
        &self.inner
    }
}

impl From<SparseHistogram> for PyHistogram {
    fn from(inner: SparseHistogram) -> Self {
        Self { inner }
    }
}

impl From<Histogram> for PyHistogram {
    fn from(inner: Histogram) -> Self {
        inner.to_sparse().into()
    }
}

#[pymethods]
impl PyHistogram {
    /// An empty histogram.
    #[new]
    fn new() -> Self {
        SparseHistogram::default().into()
    }

    /// Reads what `to_bytes` wrote.
    #[staticmethod]
    #[pyo3(signature = (data, /))]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Histogram::from_bytes(data)
            .map(Self::from)
            .map_err(to_python)
    }

    /// The histogram as bytes.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.to_histogram().to_bytes())
    }

    /// A histogram of everything that either of the two recorded.
    #[pyo3(signature = (other, /))]
    fn merge(&self, other: &Self) -> Self {
        let mut merged = self.inner.clone();
        merged.merge(&other.inner);
        merged.into()
    }

    /// The duration that the share `q` of all does not exceed.
    #[pyo3(signature = (q, /))]
    fn quantile(&self, q: f64) -> Option<u64> {
        self.inner.quantile(q).map(Nanos::get)
    }

    /// The largest value of each bucket in ns, ascending, and how many are in it.
    fn buckets(&self) -> (Vec<u64>, Vec<u64>) {
        self.inner
            .pairs()
            .map(|(value, count)| (value.get(), count))
            .unzip()
    }

    #[getter]
    fn count(&self) -> u64 {
        self.inner.count()
    }

    #[getter]
    fn min_ns(&self) -> Option<u64> {
        self.inner.min().map(Nanos::get)
    }

    #[getter]
    fn max_ns(&self) -> Option<u64> {
        self.inner.max().map(Nanos::get)
    }

    #[getter]
    fn mean_ns(&self) -> Option<f64> {
        self.inner.mean_ns()
    }

    fn __repr__(&self) -> String {
        format!("Histogram(count={})", self.inner.count())
    }
}
