//! Python arguments to the engine's types.

use std::collections::BTreeMap;

use blockwire_engine::calls::{
    AbortScope, AbortTarget, Answer, Change, CommandClass, Effects, Gate, Handoff, ReleaseMode, SessionSpec,
};
use blockwire_engine::plane::{LunRequest, StoreCall, StoreRequest};
use blockwire_engine::transport::TransportHandle;
use blockwire_engine::{ConnectionParams, FilterSpec, OpenOptions, Quirks, SessionParams};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyMapping};

use crate::api;

fn attribute<'py, T>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    object.getattr(name)?.extract().map_err(Into::into)
}

fn text_map(object: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for item in object.cast::<PyMapping>()?.items()?.iter() {
        let (key, value): (String, String) = item.extract()?;
        out.insert(key, value);
    }
    Ok(out)
}

fn seconds(value: f64) -> u64 {
    (value.max(0.0) * 1e9) as u64
}

pub fn store_request(spec: &Bound<'_, PyAny>) -> PyResult<StoreRequest> {
    let mut extra = text_map(&spec.getattr("options")?)?;
    let serial = extra.remove("serial");
    let direct = extra.remove("direct").is_some_and(|v| !matches!(v.as_str(), "0" | "no" | "false"));
    let filters: Vec<(String, Bound<'_, PyAny>)> = attribute(spec, "filters")?;
    let mut list = Vec::new();
    // Python names them from the store upwards; the store crate wants the outermost first.
    for (name, options) in filters.iter().rev() {
        list.push(FilterSpec { name: name.clone(), params: text_map(options)? });
    }
    let scheme: String = attribute(spec, "scheme")?;
    Ok(StoreRequest {
        scheme: if scheme == "block" { "file".to_owned() } else { scheme },
        path: attribute(spec, "path")?,
        options: OpenOptions {
            read_only: attribute(spec, "read_only")?,
            create_size: attribute(spec, "size")?,
            block_size: attribute(spec, "block_size")?,
            direct,
            serial,
        },
        extra,
        filters: list,
    })
}

pub fn store_call(kind: u8, offset: u64, length: u64, data: Vec<u8>, to: u64) -> PyResult<StoreCall> {
    Ok(match kind {
        0 => StoreCall::Geometry,
        1 => StoreCall::Read {
            offset,
            length: u32::try_from(length).map_err(|_| PyValueError::new_err("a store read is at most 4 GiB long"))?,
        },
        2 => StoreCall::Write { offset, data },
        3 => StoreCall::Copy { from: offset, to, length },
        4 => StoreCall::Zero { offset, length },
        5 => StoreCall::Punch { offset, length },
        6 => StoreCall::Flush,
        7 => StoreCall::Resize { size: length },
        _ => return Err(PyValueError::new_err("unknown store operation")),
    })
}

/// The specification and whether it is a target's.
pub fn session_spec(spec: &Bound<'_, PyAny>) -> PyResult<(SessionSpec, bool)> {
    let isid: Vec<u8> = attribute(spec, "isid")?;
    let role: u8 = attribute(spec, "role")?;
    let mut quirks = Quirks::default();
    for name in attribute::<Vec<String>>(spec, "quirks")? {
        if !quirks.set(&name) {
            return Err(PyValueError::new_err(format!("no quirk is called {name:?}")));
        }
    }
    let spec = SessionSpec {
        params: SessionParams {
            initial_r2t: attribute(spec, "initial_r2t")?,
            immediate_data: attribute(spec, "immediate_data")?,
            max_burst_length: attribute(spec, "max_burst_length")?,
            first_burst_length: attribute(spec, "first_burst_length")?,
            max_outstanding_r2t: attribute(spec, "max_outstanding_r2t")?,
            data_pdu_in_order: attribute(spec, "data_pdu_in_order")?,
            data_sequence_in_order: attribute(spec, "data_sequence_in_order")?,
            error_recovery_level: attribute(spec, "error_recovery_level")?,
            fast_abort: attribute(spec, "fast_abort")?,
            protocol_level: attribute(spec, "iscsi_protocol_level")?,
            quirks,
        },
        initiator_name: attribute(spec, "initiator_name")?,
        target_name: attribute(spec, "target_name")?,
        isid: isid.try_into().map_err(|_| PyValueError::new_err("an ISID has 6 bytes"))?,
        tsih: attribute(spec, "tsih")?,
        max_connections: attribute(spec, "max_connections")?,
        cmd_sn: attribute(spec, "cmd_sn")?,
        exp_cmd_sn: attribute(spec, "exp_cmd_sn")?,
        max_cmd_sn: attribute(spec, "max_cmd_sn")?,
    };
    Ok((spec, role == 1))
}

pub fn handoff(value: &Bound<'_, PyAny>) -> PyResult<Handoff> {
    let transport = value.getattr("transport")?;
    let kind: String = attribute(&transport.getattr("kind")?, "value")?;
    let descriptor: i64 = attribute(&transport, "descriptor")?;
    let transport = match kind.as_str() {
        "tcp" => TransportHandle::Tcp(
            i32::try_from(descriptor).map_err(|_| PyValueError::new_err("a descriptor fits in 31 bits"))?,
        ),
        "memory" => TransportHandle::Memory(descriptor),
        other => {
            return Err(PyValueError::new_err(format!("the plane carries no {other} transport")));
        }
    };
    Ok(Handoff {
        transport,
        params: ConnectionParams {
            cid: attribute(value, "cid")?,
            max_recv_data_segment_length: attribute(value, "max_recv_data_segment_length")?,
            max_send_data_segment_length: attribute(value, "max_send_data_segment_length")?,
            header_digest: attribute::<u8>(value, "header_digest")? == 1,
            data_digest: attribute::<u8>(value, "data_digest")? == 1,
            keep_alive_interval: seconds(attribute(value, "keep_alive_interval")?),
            keep_alive_timeout: seconds(attribute(value, "keep_alive_timeout")?),
        },
        stat_sn: attribute(value, "stat_sn")?,
        exp_stat_sn: attribute(value, "exp_stat_sn")?,
        over_read: attribute(value, "over_read")?,
        peer: attribute(value, "peer")?,
        reassigned_from: attribute(value, "reassigned_from")?,
    })
}

pub fn release_mode(value: &Bound<'_, PyAny>) -> PyResult<ReleaseMode> {
    match attribute::<String>(value, "value")?.as_str() {
        "detach" => Ok(ReleaseMode::Detach),
        "freeze" => Ok(ReleaseMode::Freeze),
        _ => Ok(ReleaseMode::Terminate),
    }
}

fn gate(value: &Bound<'_, PyAny>) -> PyResult<Gate> {
    Ok(match value.extract::<u8>()? {
        0 => Gate::Pass,
        1 => Gate::Hold,
        2 => Gate::Divert,
        3 => Gate::DivertOne,
        _ => return Err(PyValueError::new_err("unknown gate")),
    })
}

pub fn gates(value: &Bound<'_, PyAny>) -> PyResult<Vec<(CommandClass, Gate)>> {
    let mut out = Vec::new();
    for item in value.cast::<PyMapping>()?.items()?.iter() {
        let (class, value): (u8, Bound<'_, PyAny>) = item.extract()?;
        let class = CommandClass::from_number(class).ok_or_else(|| PyValueError::new_err("unknown command class"))?;
        out.push((class, gate(&value)?));
    }
    Ok(out)
}

pub fn lun_request(value: &Bound<'_, PyAny>) -> PyResult<LunRequest> {
    let mut first = [Gate::Pass; CommandClass::COUNT];
    for (class, gate) in gates(&value.getattr("gates")?)? {
        first[class as usize] = gate;
    }
    Ok(LunRequest {
        store: attribute(value, "store")?,
        block_size: attribute(value, "block_size")?,
        blocks: attribute(value, "blocks")?,
        read_only: attribute(value, "read_only")?,
        write_cache: attribute(value, "write_cache")?,
        descriptor_sense: attribute(value, "descriptor_sense")?,
        can_unmap: attribute(value, "can_unmap")?,
        max_transfer_blocks: attribute(value, "max_transfer_blocks")?,
        gates: first,
    })
}

/// `lun` of an abort is the LUN field as a number.
pub fn abort_scope(scope: &Bound<'_, PyAny>, semantics: &Bound<'_, PyAny>) -> PyResult<AbortScope> {
    let session = attribute(scope, "session")?;
    let target = match attribute::<String>(&scope.getattr("kind")?, "value")?.as_str() {
        "task" => AbortTarget::Task {
            session,
            initiator_task_tag: attribute(scope, "initiator_task_tag")?,
            ref_cmd_sn: attribute(scope, "ref_cmd_sn")?,
        },
        "task-set" => AbortTarget::TaskSet { session, lun: attribute(scope, "lun")? },
        "logical-unit" => AbortTarget::LogicalUnit { store: attribute(scope, "store")? },
        _ => AbortTarget::Nexus { session },
    };
    Ok(AbortScope {
        target,
        before_cmd_sn: attribute(scope, "before_cmd_sn")?,
        keep: attribute(scope, "keep")?,
        fast: attribute::<String>(semantics, "value")? == "4.2.3.4",
        issuer: session,
        plug: attribute(scope, "plug")?,
        task_aborted: attribute(scope, "task_aborted")?,
    })
}

pub fn header(bytes: &[u8]) -> PyResult<[u8; 48]> {
    bytes.try_into().map_err(|_| PyValueError::new_err("a basic header segment has 48 bytes"))
}

pub fn answer(value: &Bound<'_, PyAny>) -> PyResult<Answer> {
    let module = api::module(value.py())?;
    if value.is_instance(&module.getattr("Status")?)? {
        Ok(Answer::Status {
            status: attribute(value, "status")?,
            response: attribute(value, "response")?,
            sense: attribute(value, "sense")?,
            data: attribute(value, "data")?,
        })
    } else if value.is_instance(&module.getattr("ResponsePdu")?)? {
        Ok(Answer::Pdu { header: header(&attribute::<Vec<u8>>(value, "header")?)?, data: attribute(value, "data")? })
    } else if value.is_instance(&module.getattr("Collect")?)? {
        Ok(Answer::Collect { length: attribute(value, "length")? })
    } else if value.is_instance(&module.getattr("Resume")?)? {
        Ok(Answer::Resume)
    } else {
        Err(PyValueError::new_err("an answer is Collect, Resume, Status or ResponsePdu"))
    }
}

pub fn effects(value: &Bound<'_, PyAny>) -> PyResult<Effects> {
    let mut out = Effects {
        fence: attribute(value, "fence")?,
        rebind: attribute(value, "rebind")?,
        exp_data_sn: attribute(value, "exp_data_sn")?,
        close: attribute(value, "close")?,
        ..Effects::default()
    };
    for item in value.getattr("apply")?.cast::<PyMapping>()?.items()?.iter() {
        let (name, number): (String, u32) = item.extract()?;
        match name.as_str() {
            "max_recv_data_segment_length" => out.max_recv_data_segment_length = Some(number),
            "max_send_data_segment_length" => out.max_send_data_segment_length = Some(number),
            other => {
                return Err(PyValueError::new_err(format!("{other} does not change with a response")));
            }
        }
    }
    Ok(out)
}

pub fn changes(value: &Bound<'_, PyAny>) -> PyResult<Vec<Change>> {
    let mut out = Vec::new();
    for item in value.cast::<PyMapping>()?.items()?.iter() {
        let (name, number): (String, f64) = item.extract()?;
        out.push(match name.as_str() {
            "max_recv_data_segment_length" => Change::MaxRecvDataSegmentLength(number as u32),
            "max_send_data_segment_length" => Change::MaxSendDataSegmentLength(number as u32),
            "keep_alive_interval" => Change::KeepAliveInterval(seconds(number)),
            "keep_alive_timeout" => Change::KeepAliveTimeout(seconds(number)),
            "rate" => Change::Rate(number as u64),
            "exp_stat_sn" => Change::ExpStatSn(number as u32),
            "recovery_timeout" => Change::RecoveryTimeout(seconds(number)),
            "round_robin" => Change::RoundRobin(number != 0.0),
            "shuffle_seed" => Change::Shuffle(number as u64),
            other => {
                return Err(PyValueError::new_err(format!("{other} cannot be changed on a live connection")));
            }
        });
    }
    Ok(out)
}
