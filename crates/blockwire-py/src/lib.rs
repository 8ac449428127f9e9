//! The native module of Blockwire: PyO3 conversion and pins, no logic.

use pyo3::prelude::*;

/// The data plane's native module.
#[pymodule]
fn _native(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
