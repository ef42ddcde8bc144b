//! Conversion between Python and `seatrial-core`, and nothing else.
use pyo3::prelude::*;

#[pymodule]
mod _core {
    use super::{PyResult, pyfunction};

    /// Version and build profile of the core.
    #[pyfunction]
    fn build_info() -> PyResult<(String, String)> {
        Ok((env!("CARGO_PKG_VERSION").to_owned(), "release".to_owned()))
    }
}
