//! The one place where errors of the core become Python exceptions.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

pyo3::create_exception!(
    seatrial._core,
    CoreError,
    PyException,
    "The core could not do its work; `code` says which kind of trouble."
);

/// The code that the class itself carries; every raised error has a more telling one.
const CODE_OF_CLASS: &str = "core-error";

/// Gives the class its `code`, so that the attribute exists on every instance.
pub fn add_code_attribute(py: Python<'_>) -> PyResult<()> {
    py.get_type::<CoreError>().setattr("code", CODE_OF_CLASS)
}

/// The Python exception for an error of the core.
#[allow(clippy::needless_pass_by_value)] // the shape that `map_err` wants
pub fn to_python(error: seatrial_core::error::CoreError) -> PyErr {
    let raised = CoreError::new_err(error.to_string());
    Python::attach(|py| match raised.value(py).setattr("code", error.code()) {
        Ok(()) => raised,
        Err(failure) => failure,
    })
}
