//! The classes of `blockwire.dataplane.api`, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use blockwire_engine::events::Failure;

static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// The module that defines the boundary.
pub fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    Ok(MODULE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("blockwire.dataplane.api")?.unbind()))?.bind(py))
}

/// Makes an object of one of its classes.
pub fn make<'py>(
    py: Python<'py>, class: &str, arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    module(py)?.getattr(class)?.call1(arguments)
}

/// The same with keywords.
pub fn make_with<'py>(
    py: Python<'py>, class: &str, arguments: Bound<'py, PyTuple>, keywords: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    module(py)?.getattr(class)?.call(arguments, Some(keywords))
}

/// Raises what `blockwire.dataplane.dispatch.failure_error` makes of a failure.
pub fn raise(py: Python<'_>, failure: &Failure) -> PyErr {
    let build = || -> PyResult<Bound<'_, PyAny>> {
        let value = make(py, "Failure", (failure.code.as_str(), failure.message.as_str(), failure.errno))?;
        py.import("blockwire.dataplane.dispatch")?.getattr("failure_error")?.call1((value,))
    };
    match build() {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Result with the failure as a Python exception.
pub fn raised<T>(py: Python<'_>, result: Result<T, Failure>) -> PyResult<T> {
    result.map_err(|failure| raise(py, &failure))
}
