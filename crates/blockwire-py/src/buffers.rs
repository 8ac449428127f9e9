//! Python buffers as raw memory, pinned until their request ends.

use std::ffi::c_char;

use blockwire_engine::initiator::Memory;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView};

/// What keeps a request's memory alive and in place. Dropped with the GIL held, in `drain`, `wait` and `execute` only.
pub enum Pin {
    /// Nothing to keep.
    None,
    /// A `bytes` object of the caller, which nobody can change.
    Bytes(#[allow(dead_code, reason = "held, not read")] Py<PyBytes>),
    /// An exporter of the buffer protocol.
    Buffer(#[allow(dead_code, reason = "held, not read")] PyUntypedBuffer),
    /// A copy of a writable buffer.
    Copy(#[allow(dead_code, reason = "held, not read")] Box<[u8]>),
    /// A `bytes` object made here, not shown to Python before it is filled.
    Result(Py<PyBytes>),
}

/// The pins of one request.
pub struct Pins {
    #[allow(dead_code, reason = "held, not read")]
    pub data_out: Pin,
    pub data_in: Pin,
}

impl Pins {
    /// The object read into, for a request that brought no buffer.
    pub fn into_result(self) -> Option<Py<PyBytes>> {
        match self.data_in {
            Pin::Result(bytes) => Some(bytes),
            _ => None,
        }
    }
}

fn length(len: usize) -> PyResult<u32> {
    u32::try_from(len).map_err(|_| PyValueError::new_err("a buffer is shorter than 4 GiB"))
}

/// The caller's mistake, as `blockwire.errors` names it.
fn unusable(py: Python<'_>, why: &str) -> PyErr {
    let build = || -> PyResult<Bound<'_, PyAny>> {
        let details = PyDict::new(py);
        details.set_item("code", "usage.buffer")?;
        py.import("blockwire.errors")?.getattr("UsageError")?.call((why,), Some(&details))
    };
    build().map_or_else(|error| error, PyErr::from_value)
}

/// The memory of an exporter, whatever its items are: what goes over the wire is bytes.
fn exported(object: &Bound<'_, PyAny>) -> PyResult<PyUntypedBuffer> {
    // Some exporters (ctypes) leave the strides out, which a memory view fills in.
    let buffer = match PyUntypedBuffer::get(object) {
        Ok(buffer) => buffer,
        Err(_) => PyUntypedBuffer::get(PyMemoryView::from(object)?.as_any())?,
    };
    if buffer.is_c_contiguous() { Ok(buffer) } else { Err(unusable(object.py(), "the buffer is not contiguous")) }
}

/// Data for the target: `bytes` and read-only exporters in place, a writable exporter copied unless `borrow`.
pub fn outgoing(object: Option<&Bound<'_, PyAny>>, borrow: bool) -> PyResult<(Memory, Pin)> {
    let Some(object) = object.filter(|o| !o.is_none()) else {
        return Ok((Memory::NONE, Pin::None));
    };
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        let data = bytes.as_bytes();
        if data.is_empty() {
            return Ok((Memory::NONE, Pin::None));
        }
        // SAFETY: a bytes object neither moves nor changes, and the pin keeps it alive.
        let memory = unsafe { Memory::new(data.as_ptr().cast_mut(), length(data.len())?) };
        return Ok((memory, Pin::Bytes(bytes.clone().unbind())));
    }
    let buffer = exported(object)?;
    let len = length(buffer.len_bytes())?;
    if len == 0 {
        return Ok((Memory::NONE, Pin::None));
    }
    if buffer.readonly() || borrow {
        // SAFETY: the export holds the memory in place until the pin is dropped; with `borrow` the caller promised not to
        // change it.
        let memory = unsafe { Memory::new(buffer.buf_ptr().cast(), len) };
        return Ok((memory, Pin::Buffer(buffer)));
    }
    // SAFETY: the export holds `len` contiguous bytes in place, and the GIL is held while they are copied.
    let mut copy: Box<[u8]> = unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), len as usize) }.into();
    // SAFETY: the boxed memory stays in place until the pin is dropped.
    let memory = unsafe { Memory::new(copy.as_mut_ptr(), len) };
    Ok((memory, Pin::Copy(copy)))
}

/// Room for data from the target: a writable buffer of the caller.
pub fn incoming(object: &Bound<'_, PyAny>) -> PyResult<(Memory, Pin)> {
    let buffer = exported(object)?;
    if buffer.readonly() {
        return Err(unusable(object.py(), "read: the buffer is read-only"));
    }
    let len = length(buffer.len_bytes())?;
    // SAFETY: the export holds the memory in place until the pin is dropped; the caller leaves it alone until then, as documented.
    let memory = unsafe { Memory::new(buffer.buf_ptr().cast(), len) };
    Ok((memory, Pin::Buffer(buffer)))
}

/// Room for `len` bytes in a new `bytes` object.
pub fn fresh(py: Python<'_>, len: u32) -> PyResult<(Memory, Pin)> {
    if len == 0 {
        return Ok((Memory::NONE, Pin::Result(PyBytes::new(py, b"").unbind())));
    }
    // SAFETY: a null source makes an object of `len` bytes that are not set yet. Nobody else has it until `into_result`, and whoever
    // hands it out first sets or cuts what was not received.
    let object = unsafe {
        let pointer = ffi::PyBytes_FromStringAndSize(std::ptr::null::<c_char>(), len as isize);
        Bound::from_owned_ptr_or_err(py, pointer)?.cast_into_unchecked::<PyBytes>()
    };
    // SAFETY: as above.
    let memory = unsafe { Memory::new(ffi::PyBytes_AsString(object.as_ptr()).cast(), len) };
    Ok((memory, Pin::Result(object.unbind())))
}
