//! `blockwire._native.Plane`: the calls of `api.DataPlane`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blockwire_engine::core::PlaneOptions;
use blockwire_engine::events::Event;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::initiator::PinTable;
use crate::{api, arguments, events};

/// A data plane of its own: workers, stores and sessions.
#[pyclass(frozen, subclass, module = "blockwire._native")]
pub struct Plane {
    pub(crate) engine: Arc<blockwire_engine::Plane>,
    pub(crate) pins: PinTable,
}

#[pymethods]
impl Plane {
    #[new]
    #[pyo3(signature = (workers = 1, stepped = false, arena_bytes = 268_435_456, command_window = 256,
        pdus_per_send = 0))]
    fn new(
        workers: usize, stepped: bool, arena_bytes: usize, command_window: u32, pdus_per_send: usize,
    ) -> PyResult<Self> {
        let options = PlaneOptions {
            workers: workers.clamp(1, 64),
            stepped,
            arena_bytes,
            command_window: command_window.clamp(1, 65_536),
            pdus_per_send: if pdus_per_send == 0 { usize::MAX } else { pdus_per_send },
            ..PlaneOptions::default()
        };
        Ok(Self { engine: Arc::new(blockwire_engine::Plane::new(options)?), pins: PinTable::default() })
    }

    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let options = self.engine.options();
        let digest = api::module(py)?.getattr("Digest")?;
        let digests = (digest.getattr("NONE")?, digest.getattr("CRC32C")?);
        let keywords = PyDict::new(py);
        keywords.set_item("max_recv_data_segment_length", 262_144)?;
        keywords.set_item("max_burst_length", 16_776_192)?;
        keywords.set_item("first_burst_length", 262_144)?;
        keywords.set_item("max_outstanding_r2t", 64)?;
        keywords.set_item("max_connections", 16)?;
        keywords.set_item("error_recovery_level", 2)?;
        keywords.set_item("command_window", options.command_window)?;
        keywords.set_item("max_transfer", options.max_transfer)?;
        keywords.set_item("digests", digests)?;
        api::make_with(py, "Limits", pyo3::types::PyTuple::empty(py), &keywords)
    }

    fn event_fd(&self) -> i32 {
        if self.engine.options().stepped { -1 } else { self.engine.events().fd() }
    }

    #[pyo3(signature = (maximum = 256))]
    fn drain<'py>(&self, py: Python<'py>, maximum: usize) -> PyResult<Bound<'py, PyList>> {
        let out = PyList::empty(py);
        for event in self.engine.events().drain(maximum) {
            match event {
                Event::TaskDone(done) => out.append(self.task_done(py, done)?)?,
                other => out.append(events::object(py, &other)?)?,
            }
        }
        Ok(out)
    }

    // ------------------------------------------------------------------ stores

    fn open_store(&self, spec: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(self.engine.open_store(arguments::store_request(spec)?))
    }

    fn close_store(&self, store: u64) -> u64 {
        self.engine.close_store(store)
    }

    #[pyo3(signature = (store, kind, offset = 0, length = 0, data = Vec::new(), to = 0))]
    fn store_op(&self, store: u64, kind: u8, offset: u64, length: u64, data: Vec<u8>, to: u64) -> PyResult<u64> {
        Ok(self.engine.store_op(store, arguments::store_call(kind, offset, length, data, to)?))
    }

    // ------------------------------------------------------------------ sessions

    fn create_session(&self, py: Python<'_>, spec: &Bound<'_, PyAny>) -> PyResult<u64> {
        let (spec, target) = arguments::session_spec(spec)?;
        let result =
            if target { self.engine.create_target_session(spec) } else { self.engine.create_initiator_session(spec) };
        api::raised(py, result)
    }

    fn close_session(&self, py: Python<'_>, session: u64) -> u64 {
        py.detach(|| self.engine.close_session(session))
    }

    fn adopt(&self, py: Python<'_>, session: u64, handoff: &Bound<'_, PyAny>) -> PyResult<u64> {
        let handoff = arguments::handoff(handoff)?;
        Ok(py.detach(|| self.engine.adopt(session, handoff)))
    }

    fn release(&self, py: Python<'_>, session: u64, cid: u16, mode: &Bound<'_, PyAny>) -> PyResult<u64> {
        let mode = arguments::release_mode(mode)?;
        Ok(py.detach(|| self.engine.release(session, cid, mode)))
    }

    fn exp_stat_sn(&self, py: Python<'_>, session: u64, cid: u16) -> PyResult<u32> {
        api::raised(py, self.engine.exp_stat_sn(session, cid))
    }

    fn numbers<'py>(&self, py: Python<'py>, session: u64) -> PyResult<Bound<'py, PyAny>> {
        let numbers = api::raised(py, self.engine.numbers(session))?;
        api::make(py, "SessionNumbers", numbers)
    }

    fn configure(&self, py: Python<'_>, session: u64, cid: Option<u16>, changes: &Bound<'_, PyAny>) -> PyResult<u64> {
        let changes = arguments::changes(changes)?;
        Ok(py.detach(|| self.engine.configure(session, cid, changes)))
    }

    // ------------------------------------------------------------------ target

    fn map_lun(&self, session: u64, lun: u64, mapping: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(self.engine.map_lun(session, lun, arguments::lun_request(mapping)?))
    }

    fn unmap_lun(&self, session: u64, lun: u64) -> u64 {
        self.engine.unmap_lun(session, lun)
    }

    fn set_gate(&self, nexuses: Vec<(u64, u64)>, gates: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(self.engine.set_gate(&nexuses, &arguments::gates(gates)?))
    }

    #[pyo3(signature = (scope, semantics = None))]
    fn abort(&self, scope: &Bound<'_, PyAny>, semantics: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        let clarified = api::module(scope.py())?.getattr("AbortSemantics")?.getattr("CLARIFIED")?;
        Ok(self.engine.abort(arguments::abort_scope(scope, semantics.unwrap_or(&clarified))?))
    }

    fn query(&self, scope: &Bound<'_, PyAny>) -> PyResult<u64> {
        let clarified = api::module(scope.py())?.getattr("AbortSemantics")?.getattr("CLARIFIED")?;
        Ok(self.engine.query(arguments::abort_scope(scope, &clarified)?))
    }

    fn reassign(&self, py: Python<'_>, session: u64, from_cid: u16, to_cid: u16) -> u64 {
        py.detach(|| self.engine.reassign(session, from_cid, to_cid))
    }

    #[pyo3(signature = (session, tag, answer, effects = None))]
    fn reply(
        &self, py: Python<'_>, session: u64, tag: u64, answer: &Bound<'_, PyAny>, effects: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let effects = effects.map(arguments::effects).transpose()?.unwrap_or_default();
        api::raised(py, self.engine.reply(session, tag, arguments::answer(answer)?, effects))
    }

    #[pyo3(signature = (session, cid, pdu, effects = None))]
    fn send_unsolicited(
        &self, py: Python<'_>, session: u64, cid: u16, pdu: &Bound<'_, PyAny>, effects: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let header = arguments::header(&pdu.getattr("header")?.extract::<Vec<u8>>()?)?;
        let data = pdu.getattr("data")?.extract()?;
        let effects = effects.map(arguments::effects).transpose()?.unwrap_or_default();
        api::raised(py, self.engine.send_unsolicited(session, cid, header, data, effects))
    }

    // ------------------------------------------------------------------ everything

    /// Nested mappings of counters: the parts are `workers.N`, `sessions.ID`, `connections.ID.CID`.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let parts = py.detach(|| self.engine.statistics());
        let out = PyDict::new(py);
        for name in ["workers", "sessions", "connections", "stores"] {
            out.set_item(name, PyDict::new(py))?;
        }
        for (name, counters) in parts {
            let (group, key) = name.split_once('.').unwrap_or(("stores", &name));
            let values = PyDict::new(py);
            for (counter, value) in counters {
                values.set_item(counter, value)?;
            }
            if let Some(map) = out.get_item(group)? {
                map.set_item(key, values)?;
            }
        }
        Ok(out)
    }

    #[pyo3(signature = (session = None))]
    fn trace<'py>(&self, py: Python<'py>, session: Option<u64>) -> Bound<'py, PyBytes> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let file = py.detach(|| self.engine.trace(session, now));
        PyBytes::new(py, &file)
    }

    /// Stepped plane only: runs everything that can run at virtual time `now` (seconds); True when anything moved.
    fn step(&self, py: Python<'_>, now: f64) -> bool {
        py.detach(|| self.engine.step((now.max(0.0) * 1e9).round() as u64))
    }

    /// Stepped plane only: virtual time of the next timer, seconds.
    fn next_deadline(&self) -> Option<f64> {
        self.engine.next_deadline().map(|at| at as f64 / 1e9)
    }

    fn shutdown(&self, py: Python<'_>, deadline: f64) {
        py.detach(|| self.engine.shutdown(Duration::from_secs_f64(deadline.clamp(0.0, 3600.0))));
    }
}
