//! Conversion between Python and `seatrial-core`, and nothing else.
//!
//! A frozen plan goes in, Arrow columns and histograms come out; the boundary is
//! crossed once a trial. Whatever computes belongs into the core.

mod arrival;
mod columns;
mod counts;
mod error;
mod gate;
mod hdr_log;
mod histogram;
mod interval;
mod plan;
mod result;
mod timestamps;

use pyo3::prelude::*;

/// The compiled core of Seatrial; see the stub `_core.pyi` for units and meanings.
#[pymodule]
mod _core {
    use pyo3::prelude::*;
    use pyo3::types::PyModule;

    use crate::error;

    #[pymodule_export]
    use super::{BuildInfo, build_info, run_load};
    #[pymodule_export]
    use crate::arrival::PyArrivalProcess;
    #[pymodule_export]
    use crate::counts::PyCounts;
    #[pymodule_export]
    use crate::error::CoreError;
    #[pymodule_export]
    use crate::hdr_log::hdr_log;
    #[pymodule_export]
    use crate::histogram::PyHistogram;
    #[pymodule_export]
    use crate::interval::{PyInterval, PySnapshot, PyTargetResult};
    #[pymodule_export]
    use crate::plan::PyLoadPlan;
    #[pymodule_export]
    use crate::result::PyLoadResult;
    #[pymodule_export]
    use crate::timestamps::PyTimestamps;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        error::add_code_attribute(module.py())
    }
}

/// Version and build profile of the core.
#[pyclass(frozen, get_all, module = "seatrial._core")]
pub struct BuildInfo {
    version: &'static str,
    profile: &'static str,
}

#[pymethods]
impl BuildInfo {
    fn __repr__(&self) -> String {
        format!(
            "BuildInfo(version={:?}, profile={:?})",
            self.version, self.profile
        )
    }
}

/// What this build of the core is.
#[pyfunction]
fn build_info() -> BuildInfo {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        profile,
    }
}

/// Offers a load and returns what became of it.
#[pyfunction]
#[pyo3(signature = (plan, observe=None))]
fn run_load(
    py: Python<'_>,
    plan: &plan::PyLoadPlan,
    observe: Option<&Bound<'_, PyAny>>,
) -> PyResult<result::PyLoadResult> {
    let found = gate::run_load(py, plan.core(), observe)?;
    result::PyLoadResult::new(py, found)
}
