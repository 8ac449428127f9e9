//! The native module: conversion between `blockwire.dataplane.api` and `blockwire-engine`, and pins of Python buffers. No logic.

mod allocations;
mod api;
mod arguments;
mod buffers;
mod events;
mod initiator;
mod memory;
mod plane;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<plane::Plane>()?;
    module.add_class::<memory::MemoryPair>()?;
    module.add_class::<events::TaskDone>()?;
    module.add_class::<initiator::LoadTable>()?;
    module.add_function(wrap_pyfunction!(allocations::allocations, module)?)?;
    module.add_function(wrap_pyfunction!(crc32c, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}

/// CRC32C (RFC 7143 13.1) of `data`, continuing `crc`.
#[pyfunction]
#[pyo3(signature = (data, crc = 0))]
fn crc32c(data: &[u8], crc: u32) -> u32 {
    blockwire_engine::crc32c(crc, data)
}
