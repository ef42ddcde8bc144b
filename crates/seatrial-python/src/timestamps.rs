//! `Timestamps`: who stamped packets, and how often it worked.

use pyo3::prelude::*;
use seatrial_core::transport::stamps::StampReport;

/// What became of the time stamps of a load.
#[pyclass(frozen, eq, get_all, name = "Timestamps", module = "seatrial._core")]
#[derive(PartialEq)]
pub struct PyTimestamps {
    requested: &'static str,
    used: &'static str,
    reason: Option<String>,
    matched_count: u64,
    missing_count: u64,
    clock_uncertainty_ns: u64,
}

impl From<StampReport> for PyTimestamps {
    fn from(report: StampReport) -> Self {
        Self {
            requested: report.requested.name(),
            used: report.used.name(),
            reason: report.reason,
            matched_count: report.matched_count,
            missing_count: report.missing_count,
            clock_uncertainty_ns: report.clock_uncertainty.get(),
        }
    }
}

#[pymethods]
impl PyTimestamps {
    fn __repr__(&self) -> String {
        format!(
            "Timestamps(requested={:?}, used={:?}, matched_count={}, missing_count={})",
            self.requested, self.used, self.matched_count, self.missing_count
        )
    }
}
