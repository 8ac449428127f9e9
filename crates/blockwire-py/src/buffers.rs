//! Python buffers as raw memory, pinned until their request ends.

use std::ffi::c_char;

use blockwire_engine::initiator::Memory;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// What keeps a request's memory alive and in place. Dropped with the GIL held, in `drain`, `wait` and `execute` only.
pub enum Pin {
    /// Nothing to keep.
    None,
    /// A `bytes` object of the caller, which nobody can change.
    Bytes(#[allow(dead_code, reason = "held, not read")] Py<PyBytes>),
    /// An exporter of the buffer protocol.
    Buffer(#[allow(dead_code, reason = "held, not read")] PyBuffer<u8>),
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

fn contiguous(buffer: &PyBuffer<u8>) -> PyResult<()> {
    if buffer.is_c_contiguous() { Ok(()) } else { Err(PyBufferError::new_err("the buffer must be contiguous")) }
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
    let buffer = PyBuffer::<u8>::get(object)?;
    contiguous(&buffer)?;
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
    let mut copy = buffer.to_vec(object.py())?.into_boxed_slice();
    // SAFETY: the boxed memory stays in place until the pin is dropped.
    let memory = unsafe { Memory::new(copy.as_mut_ptr(), len) };
    Ok((memory, Pin::Copy(copy)))
}

/// Room for data from the target: a writable buffer of the caller.
pub fn incoming(object: &Bound<'_, PyAny>) -> PyResult<(Memory, Pin)> {
    let buffer = PyBuffer::<u8>::get(object)?;
    contiguous(&buffer)?;
    if buffer.readonly() {
        return Err(PyTypeError::new_err("the buffer to read into must be writable"));
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
