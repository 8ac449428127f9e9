//! The initiator's calls of `Plane`: requests, waiting, the load generator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blockwire_engine::events as engine;
use blockwire_engine::initiator::{BlockRequest, CommandRequest, IoKind, LoadSpec, Memory};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::buffers::{self, Pin, Pins};
use crate::events::TaskDone;
use crate::plane::Plane;
use crate::{api, arguments};

/// Pins by token.
#[derive(Default)]
pub struct PinTable(Mutex<HashMap<u64, Pins>>);

impl PinTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Pins>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self, token: u64) -> Option<Pins> {
        self.lock().remove(&token)
    }

    fn keep(&self, token: u64, pins: Pins) {
        self.lock().insert(token, pins);
    }
}

/// Waits come back to Python this way: a pending signal handler runs, and what it raises is remembered.
#[allow(clippy::redundant_closure_for_method_calls)] // the method itself is not general enough over the lifetime
fn signals(raised: &mut Option<PyErr>) -> bool {
    if raised.is_none() {
        *raised = Python::attach(|py| py.check_signals()).err();
    }
    raised.is_some()
}

fn timeout(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(1e9)))
}

fn block_request(kind: u8, lba: u64, blocks: u32, block_size: u32, fua: bool) -> PyResult<BlockRequest> {
    let kind = IoKind::from_number(kind).ok_or_else(|| PyValueError::new_err("unknown kind of block request"))?;
    Ok(BlockRequest { kind, lba, blocks, block_size, fua })
}

/// The buffers of a block request: READ without a buffer gets a new `bytes` object.
fn block_buffers(
    py: Python<'_>, io: &BlockRequest, buffer: Option<&Bound<'_, PyAny>>, borrow: bool,
) -> PyResult<(Memory, Pins)> {
    let buffer = buffer.filter(|b| !b.is_none());
    let ((memory, pin), read) = match (io.kind, buffer) {
        (IoKind::Read, None) => {
            let len = u64::from(io.blocks) * u64::from(io.block_size);
            let len = u32::try_from(len).map_err(|_| PyValueError::new_err("a request is shorter than 4 GiB"))?;
            (buffers::fresh(py, len)?, true)
        }
        (IoKind::Read, Some(buffer)) => (buffers::incoming(buffer)?, true),
        (_, buffer) => (buffers::outgoing(buffer, borrow)?, false),
    };
    let pins =
        if read { Pins { data_out: Pin::None, data_in: pin } } else { Pins { data_out: pin, data_in: Pin::None } };
    Ok((memory, pins))
}

struct Command {
    data_out: Memory,
    data_in: Memory,
    pins: Pins,
}

/// The buffers of any command: `data_in` is a length or a writable buffer.
fn command_buffers(
    py: Python<'_>, data_out: Option<&Bound<'_, PyAny>>, data_in: Option<&Bound<'_, PyAny>>, borrow: bool,
) -> PyResult<Command> {
    let (out_memory, out_pin) = buffers::outgoing(data_out, borrow)?;
    let (in_memory, in_pin) = match data_in.filter(|d| !d.is_none()) {
        None => (Memory::NONE, Pin::None),
        Some(value) => match value.extract::<u32>() {
            Ok(0) => (Memory::NONE, Pin::None),
            Ok(len) => buffers::fresh(py, len)?,
            Err(_) => buffers::incoming(value)?,
        },
    };
    Ok(Command { data_out: out_memory, data_in: in_memory, pins: Pins { data_out: out_pin, data_in: in_pin } })
}

impl Plane {
    /// Makes the Python object of an ended request and lets go of its buffers.
    pub fn task_done<'py>(&self, py: Python<'py>, done: engine::TaskDone) -> PyResult<Bound<'py, TaskDone>> {
        let pins = self.pins.take(done.token);
        Self::ended(py, done, pins)
    }

    fn ended<'py>(py: Python<'py>, done: engine::TaskDone, pins: Option<Pins>) -> PyResult<Bound<'py, TaskDone>> {
        let mut data = pins.and_then(Pins::into_result);
        if !done.code.is_empty() || done.status != 0 && done.short == 0 {
            data = None; // what was received, if anything, is not known to be whole
        } else if let Some(bytes) = &data
            && done.short > 0
        {
            // the rest of the object was never set
            let whole = bytes.bind(py).as_bytes();
            let len = whole.len().saturating_sub(usize::try_from(done.short).unwrap_or(usize::MAX));
            data = Some(PyBytes::new(py, &whole[..len]).unbind());
        }
        let sense = if done.sense.is_empty() { PyBytes::new(py, b"") } else { PyBytes::new(py, &done.sense) };
        Bound::new(
            py,
            TaskDone {
                token: done.token,
                status: done.status,
                sense: sense.unbind(),
                residual: done.residual,
                data,
                code: done.code,
            },
        )
    }
}

/// What verifying runs wrote where, from one run to the next.
#[pyclass(frozen, module = "blockwire._native")]
#[derive(Default)]
pub struct LoadTable(Arc<Mutex<blockwire_engine::initiator::LoadTable>>);

#[pymethods]
impl Plane {
    fn open_queue(&self, py: Python<'_>, session: u64) -> PyResult<u64> {
        api::raised(py, self.engine.open_queue(session))
    }

    fn close_queue(&self, py: Python<'_>, queue: u64) {
        py.detach(|| self.engine.close_queue(queue));
    }

    #[pyo3(signature = (session, lun, cdb, data_out = None, data_in = None, *, attribute = 1, immediate = false, cid = None, queue = 0, borrow = false))]
    fn submit(
        &self, py: Python<'_>, session: u64, lun: u64, cdb: &[u8], data_out: Option<&Bound<'_, PyAny>>,
        data_in: Option<&Bound<'_, PyAny>>, attribute: u8, immediate: bool, cid: Option<u16>, queue: u64, borrow: bool,
    ) -> PyResult<u64> {
        let Command { data_out, data_in, pins } = command_buffers(py, data_out, data_in, borrow)?;
        let request = CommandRequest { lun, cdb, attribute, immediate, data_out, data_in, cid };
        let token = self.engine.token();
        self.pins.keep(token, pins);
        let engine = &self.engine;
        let result = py.detach(move || engine.submit(session, token, queue, &request));
        if result.is_err() {
            self.pins.take(token);
        }
        api::raised(py, result).map(|()| token)
    }

    #[pyo3(signature = (session, lun, kind, lba, blocks, block_size, buffer = None, *, fua = false, queue = 0, borrow = false))]
    fn submit_io(
        &self, py: Python<'_>, session: u64, lun: u64, kind: u8, lba: u64, blocks: u32, block_size: u32,
        buffer: Option<&Bound<'_, PyAny>>, fua: bool, queue: u64, borrow: bool,
    ) -> PyResult<u64> {
        let io = block_request(kind, lba, blocks, block_size, fua)?;
        let (memory, pins) = block_buffers(py, &io, buffer, borrow)?;
        let token = self.engine.token();
        self.pins.keep(token, pins);
        let engine = &self.engine;
        let result = py.detach(move || engine.submit_io(session, token, queue, lun, &io, memory));
        if result.is_err() {
            self.pins.take(token);
        }
        api::raised(py, result).map(|()| token)
    }

    #[pyo3(signature = (session, lun, cdb, data_out = None, data_in = None, *, attribute = 1, timeout = 0.0))]
    fn execute<'py>(
        &self, py: Python<'py>, session: u64, lun: u64, cdb: &[u8], data_out: Option<&Bound<'_, PyAny>>,
        data_in: Option<&Bound<'_, PyAny>>, attribute: u8, timeout: f64,
    ) -> PyResult<Bound<'py, TaskDone>> {
        let Command { data_out, data_in, pins } = command_buffers(py, data_out, data_in, false)?;
        let request = CommandRequest { lun, cdb, attribute, immediate: false, data_out, data_in, cid: None };
        let token = self.engine.token();
        let limit = self::timeout(timeout);
        let mut raised = None;
        let (engine, raise) = (&self.engine, &mut raised);
        let result = py.detach(move || engine.execute(session, token, &request, limit, &mut || signals(raise)));
        self.executed(py, session, token, result, pins, raised)
    }

    #[pyo3(signature = (session, lun, kind, lba, blocks, block_size, buffer = None, *, fua = false, timeout = 0.0))]
    fn execute_io<'py>(
        &self, py: Python<'py>, session: u64, lun: u64, kind: u8, lba: u64, blocks: u32, block_size: u32,
        buffer: Option<&Bound<'_, PyAny>>, fua: bool, timeout: f64,
    ) -> PyResult<Bound<'py, TaskDone>> {
        let io = block_request(kind, lba, blocks, block_size, fua)?;
        // The caller waits here and cannot touch its buffer meanwhile: a writable one is used in place.
        let (memory, pins) = block_buffers(py, &io, buffer, true)?;
        let token = self.engine.token();
        let limit = self::timeout(timeout);
        let mut raised = None;
        let (engine, raise) = (&self.engine, &mut raised);
        let result =
            py.detach(move || engine.execute_io(session, token, lun, &io, memory, limit, &mut || signals(raise)));
        self.executed(py, session, token, result, pins, raised)
    }

    #[pyo3(signature = (queue, minimum, timeout = -1.0))]
    fn wait<'py>(&self, py: Python<'py>, queue: u64, minimum: usize, timeout: f64) -> PyResult<Bound<'py, PyList>> {
        let mut done = Vec::new();
        let mut raised = None;
        let limit = (timeout >= 0.0).then(|| Duration::from_secs_f64(timeout.min(1e9)));
        let result = py.detach(|| self.engine.wait(queue, minimum, limit, &mut || signals(&mut raised), &mut done));
        api::raised(py, result)?;
        if let Some(error) = raised {
            // Nothing that ended may be lost: it comes as events instead.
            for one in done {
                self.engine.events().push(engine::Event::TaskDone(one));
            }
            return Err(error);
        }
        let list = PyList::empty(py);
        for one in done {
            list.append(self.task_done(py, one)?)?;
        }
        Ok(list)
    }

    fn cancel(&self, py: Python<'_>, token: u64) -> bool {
        py.detach(|| self.engine.cancel(token))
    }

    #[pyo3(signature = (session, cid, header, data = Vec::new()))]
    fn send_pdu(&self, py: Python<'_>, session: u64, cid: Option<u16>, header: &[u8], data: Vec<u8>) -> PyResult<u64> {
        let header = arguments::header(header)?;
        api::raised(py, py.detach(|| self.engine.send_pdu(session, cid, &header, &data)))
    }

    #[expect(clippy::unused_self, reason = "a method of the plane at the boundary")]
    fn load_table(&self) -> LoadTable {
        LoadTable::default()
    }

    #[pyo3(signature = (session, spec, table = None))]
    fn run_load<'py>(
        &self, py: Python<'py>, session: u64, spec: &Bound<'py, PyAny>, table: Option<&Bound<'py, LoadTable>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let seconds: f64 = spec.getattr("seconds")?.extract()?;
        let spec = LoadSpec {
            lun: spec.getattr("lun")?.extract()?,
            block_size: spec.getattr("block_size")?.extract()?,
            size: spec.getattr("size")?.extract()?,
            transfer: spec.getattr("transfer")?.extract()?,
            depth: spec.getattr("depth")?.extract()?,
            read_percent: spec.getattr("read_percent")?.extract()?,
            random: spec.getattr("random")?.extract()?,
            duration: (seconds.max(0.0) * 1e9) as u64,
            requests: spec.getattr("requests")?.extract()?,
            verify: spec.getattr("verify")?.extract()?,
            seed: spec.getattr("seed")?.extract()?,
            fua: spec.getattr("fua")?.extract()?,
        };
        let mut raised = None;
        let shared = table.map(|table| Arc::clone(&table.get().0)).unwrap_or_default();
        let result = py.detach(|| {
            let mut table = shared.lock().unwrap_or_else(PoisonError::into_inner);
            self.engine.run_load(session, &spec, &mut table, &mut || signals(&mut raised))
        });
        let report = api::raised(py, result)?;
        if let Some(error) = raised {
            return Err(error);
        }
        let arguments = (
            report.reads,
            report.writes,
            report.bytes,
            report.errors,
            report.miscompares,
            report.seconds,
            PyTuple::new(py, report.histogram_ns)?,
            report.mean_ns,
            report.max_ns,
            report.first_error,
        );
        api::make(py, "LoadReport", arguments)
    }
}

impl Plane {
    fn executed<'py>(
        &self, py: Python<'py>, session: u64, token: u64,
        result: Result<blockwire_engine::initiator::Executed, engine::Failure>, pins: Pins, raised: Option<PyErr>,
    ) -> PyResult<Bound<'py, TaskDone>> {
        let executed = api::raised(py, result)?;
        let done = if executed.pinned {
            // The peer may still send into these buffers: they stay until the task's end comes as an event.
            self.pins.keep(token, pins);
            if !self.engine.is_in_flight(session, token) {
                // it ended before they were here, and another thread may have taken the event
                drop(self.pins.take(token));
            }
            Self::ended(py, executed.done, None)?
        } else {
            Self::ended(py, executed.done, Some(pins))?
        };
        match raised {
            Some(error) => Err(error),
            None => Ok(done),
        }
    }
}
