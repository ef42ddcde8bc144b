//! `Counts`: how many requests ended how.

use pyo3::prelude::*;
use seatrial_core::engine::Counters;

/// Requests by how they ended; `intended_count` is the sum of all outcomes.
#[pyclass(frozen, eq, get_all, name = "Counts", module = "seatrial._core")]
#[derive(PartialEq)]
#[allow(clippy::struct_field_names)] // the names that Python sees
pub struct PyCounts {
    intended_count: u64,
    sent_count: u64,
    ok_count: u64,
    timeout_count: u64,
    refused_count: u64,
    reset_count: u64,
    protocol_error_count: u64,
    application_error_count: u64,
    unsent_count: u64,
    failed_count: u64,
}

impl From<Counters> for PyCounts {
    fn from(counters: Counters) -> Self {
        Self {
            intended_count: counters.intended_count,
            sent_count: counters.sent_count,
            ok_count: counters.ok_count,
            timeout_count: counters.timeout_count,
            refused_count: counters.refused_count,
            reset_count: counters.reset_count,
            protocol_error_count: counters.protocol_error_count,
            application_error_count: counters.application_error_count,
            unsent_count: counters.unsent_count,
            failed_count: counters.failed_count(),
        }
    }
}

#[pymethods]
impl PyCounts {
    fn __repr__(&self) -> String {
        format!(
            "Counts(intended_count={}, ok_count={})",
            self.intended_count, self.ok_count
        )
    }
}
