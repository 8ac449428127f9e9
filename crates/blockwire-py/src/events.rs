//! Events of the plane as the objects of `api`.

use blockwire_engine::events::{AbortReport, Event, Failure, OpResult, Released, StoreInfo, TaskView};
use blockwire_engine::transport::TransportHandle;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::api;

/// `api.TaskDone` as a native object, because one is made per I/O.
#[pyclass(frozen, module = "blockwire._native", get_all)]
pub struct TaskDone {
    pub token: u64,
    pub status: u8,
    pub sense: Py<PyBytes>,
    pub residual: i64,
    pub data: Option<Py<PyBytes>>,
    pub code: &'static str,
}

#[pymethods]
impl TaskDone {
    fn __repr__(&self) -> String {
        format!(
            "TaskDone(token={}, status={:#04x}, residual={}, code={:?})",
            self.token, self.status, self.residual, self.code
        )
    }
}

fn failure<'py>(py: Python<'py>, failure: &Failure) -> PyResult<Bound<'py, PyAny>> {
    api::make(py, "Failure", (failure.code.as_str(), failure.message.as_str(), failure.errno))
}

fn store_info<'py>(py: Python<'py>, info: &StoreInfo) -> PyResult<Bound<'py, PyAny>> {
    let arguments = (
        info.store,
        info.size,
        info.physical_block,
        info.optimal_io,
        info.read_only,
        info.can_punch,
        info.can_zero,
        info.can_flush,
        info.identity.as_str(),
    );
    api::make(py, "StoreInfo", arguments)
}

fn transport<'py>(py: Python<'py>, handle: TransportHandle) -> PyResult<Bound<'py, PyAny>> {
    let kinds = api::module(py)?.getattr("TransportKind")?;
    match handle {
        TransportHandle::Tcp(fd) => api::make(py, "TransportHandle", (kinds.getattr("TCP")?, fd)),
        TransportHandle::Memory(id) => api::make(py, "TransportHandle", (kinds.getattr("MEMORY")?, id)),
    }
}

fn released<'py>(py: Python<'py>, value: &Released) -> PyResult<Bound<'py, PyAny>> {
    let handle = value.transport.map(|handle| transport(py, handle)).transpose()?;
    let over_read = PyBytes::new(py, &value.over_read);
    api::make(py, "ReleasedConnection", (handle, over_read, value.stat_sn, value.exp_stat_sn, value.frozen_tasks))
}

fn aborted<'py>(py: Python<'py>, report: &AbortReport) -> PyResult<Bound<'py, PyAny>> {
    let affected = PyTuple::new(py, &report.affected)?;
    api::make(py, "AbortReport", (affected, report.found, report.complete, report.already_responded))
}

fn views<'py>(py: Python<'py>, tasks: &[TaskView]) -> PyResult<Bound<'py, PyAny>> {
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        let arguments = (
            task.session,
            task.initiator_task_tag,
            task.cid,
            task.lun,
            task.cmd_sn,
            task.frozen,
            task.control,
            task.responded,
            task.token,
        );
        all.push(api::make(py, "TaskView", arguments)?);
    }
    Ok(PyTuple::new(py, all)?.into_any())
}

fn op_done<'py>(py: Python<'py>, op: u64, result: &Result<OpResult, Failure>) -> PyResult<Bound<'py, PyAny>> {
    let value = match result {
        Ok(OpResult::None) => py.None().into_bound(py),
        Ok(OpResult::Bytes(bytes)) => PyBytes::new(py, bytes).into_any(),
        Ok(OpResult::Store(info)) => store_info(py, info)?,
        Ok(OpResult::Released(value)) => released(py, value)?,
        Ok(OpResult::Aborted(report)) => aborted(py, report)?,
        Ok(OpResult::Tasks(tasks)) => views(py, tasks)?,
        Ok(OpResult::Count(count)) => count.into_pyobject(py)?.into_any(),
        Err(error) => return api::make(py, "OpDone", (op, py.None(), failure(py, error)?)),
    };
    api::make(py, "OpDone", (op, value))
}

/// The Python object of any event but `TaskDone`.
pub fn object<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyAny>> {
    match event {
        Event::OpDone { op, result } => op_done(py, *op, result),
        Event::CommandForControl {
            session,
            cid,
            tag,
            lun,
            cdb,
            attribute,
            initiator_task_tag,
            cmd_sn,
            expected_length,
            read,
            write,
            data,
            diverted,
            bidirectional_read_length,
            immediate,
        } => {
            let keywords = PyDict::new(py);
            keywords.set_item("session", session)?;
            keywords.set_item("cid", cid)?;
            keywords.set_item("tag", tag)?;
            keywords.set_item("lun", lun)?;
            keywords.set_item("cdb", PyBytes::new(py, cdb))?;
            keywords.set_item("attribute", attribute)?;
            keywords.set_item("initiator_task_tag", initiator_task_tag)?;
            keywords.set_item("cmd_sn", cmd_sn)?;
            keywords.set_item("expected_length", expected_length)?;
            keywords.set_item("read", read)?;
            keywords.set_item("write", write)?;
            keywords.set_item("data", PyBytes::new(py, data))?;
            keywords.set_item("diverted", diverted)?;
            keywords.set_item("bidirectional_read_length", bidirectional_read_length)?;
            keywords.set_item("immediate", immediate)?;
            api::make_with(py, "CommandForControl", PyTuple::empty(py), &keywords)
        }
        Event::ControlPdu { session, cid, header, data, tag, token } => {
            let (header, data) = (PyBytes::new(py, header), PyBytes::new(py, data));
            api::make(py, "ControlPdu", (*session, *cid, header, data, *tag, *token))
        }
        Event::TaskDone(done) => {
            let sense = PyBytes::new(py, &done.sense).unbind();
            let (token, status, residual, code) = (done.token, done.status, done.residual, done.code);
            Ok(Bound::new(py, TaskDone { token, status, sense, residual, data: None, code })?.into_any())
        }
        Event::ConnectionLost { session, cid, code, evidence, errno, frozen_tasks } => {
            api::make(py, "ConnectionLost", (*session, *cid, *code, evidence.as_str(), *errno, *frozen_tasks))
        }
        Event::ConnectionClosed { session, cid } => api::make(py, "ConnectionClosed", (*session, *cid)),
        Event::SessionLost { session, code, evidence } => {
            api::make(py, "SessionLost", (*session, *code, evidence.as_str()))
        }
        Event::DigestFailure { session, cid, header_digest, header } => {
            let kind = if *header_digest { "header" } else { "data" };
            api::make(py, "DigestFailure", (*session, *cid, kind, PyBytes::new(py, header)))
        }
        Event::ProtocolViolation { session, cid, what, header } => {
            api::make(py, "ProtocolViolation", (*session, *cid, what.as_str(), PyBytes::new(py, header)))
        }
        Event::StoreFault { store, failure: error } => api::make(py, "StoreFault", (*store, failure(py, error)?)),
        Event::StoreChanged { store, size } => api::make(py, "StoreChanged", (*store, *size)),
    }
}
