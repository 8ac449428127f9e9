//! In-memory connections for the stepped driver, with faults to set.

use blockwire_engine::memory_pair::{self, MemoryEnd, Pipe};
use blockwire_engine::sys::socket::Part;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::api;

/// Two connected ends, 0 and 1. Python may use an end directly (for login) until it gives it away as a handle.
#[pyclass(frozen, module = "blockwire._native")]
pub struct MemoryPair {
    ends: [MemoryEnd; 2],
}

impl MemoryPair {
    fn end(&self, end: usize) -> PyResult<&MemoryEnd> {
        self.ends.get(end).ok_or_else(|| pyo3::exceptions::PyIndexError::new_err("an end is 0 or 1"))
    }

    /// The pipe that carries what `end` sends.
    fn pipe(&self, end: usize) -> PyResult<std::sync::MutexGuard<'_, Pipe>> {
        Ok(self.end(end)?.outgoing())
    }
}

#[pymethods]
impl MemoryPair {
    #[new]
    fn new() -> Self {
        let (a, b) = MemoryEnd::pair();
        Self { ends: [a, b] }
    }

    /// Sends from `end`; gives the number of bytes taken, which may be fewer than offered.
    fn send(&self, end: usize, data: &[u8]) -> PyResult<usize> {
        let part = Part::new(data.as_ptr().cast_mut(), data.len());
        // SAFETY: `data` is borrowed for the call and only read.
        match unsafe { self.end(end)?.send(&[part]) } {
            Ok(n) => Ok(n),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives at `end` up to `most` bytes: None when nothing is there, empty at the end of the stream.
    fn recv<'py>(&self, py: Python<'py>, end: usize, most: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut buffer = vec![0u8; most];
        let part = Part::new(buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the buffer lives through the call.
        match unsafe { self.end(end)?.recv(&mut [part]) } {
            Ok(n) => Ok(Some(PyBytes::new(py, &buffer[..n]))),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The end as a `TransportHandle`, to be adopted by a plane.
    fn handle<'py>(&self, py: Python<'py>, end: usize) -> PyResult<Bound<'py, PyAny>> {
        let id = memory_pair::publish(self.end(end)?.clone());
        let kind = api::module(py)?.getattr("TransportKind")?.getattr("MEMORY")?;
        api::make(py, "TransportHandle", (kind, id))
    }

    fn close(&self, end: usize) -> PyResult<()> {
        self.end(end)?.close();
        Ok(())
    }

    /// Bytes that `end` sent, and how many of them were delivered.
    fn progress(&self, end: usize) -> PyResult<(u64, u64)> {
        let pipe = self.pipe(end)?;
        Ok((pipe.sent, pipe.delivered))
    }

    /// The link from `end` is lost after `at` delivered bytes (None: never).
    #[pyo3(signature = (end, at))]
    fn cut_after(&self, end: usize, at: Option<u64>) -> PyResult<()> {
        self.pipe(end)?.cut_after = at;
        Ok(())
    }

    /// Flips the bits of `mask` in byte `at` of what `end` sends.
    fn damage(&self, end: usize, at: u64, mask: u8) -> PyResult<()> {
        self.pipe(end)?.damage.push((at, mask));
        Ok(())
    }

    /// Delivers nothing of what `end` sends while `on`.
    fn stall(&self, end: usize, on: bool) -> PyResult<()> {
        self.pipe(end)?.stalled = on;
        Ok(())
    }

    /// Most bytes of one delivery, and most bytes under way, from `end`.
    #[pyo3(signature = (end, chunk = None, capacity = None))]
    fn shape(&self, end: usize, chunk: Option<usize>, capacity: Option<usize>) -> PyResult<()> {
        let mut pipe = self.pipe(end)?;
        if let Some(chunk) = chunk {
            pipe.chunk = chunk.max(1);
        }
        if let Some(capacity) = capacity {
            pipe.capacity = capacity.max(1);
        }
        Ok(())
    }
}
