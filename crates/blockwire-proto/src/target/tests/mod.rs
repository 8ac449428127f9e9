//! A byte-level initiator, typed by hand, against the target's session.

mod commands;
mod connections;
mod data;
mod fence;
mod fields;
mod hostile;
mod immediate;
mod late;
mod limits;
mod misbehaviour;
mod numbers;
mod recover;
mod recovery;
mod removed;
mod shuffle;
mod snack;
mod tag_reuse;

use std::collections::HashMap;

use blockwire_wire::bhs::padding;
use blockwire_wire::{BHS_LEN, Bhs, Step, crc32c};

use super::*;
use crate::{ConnIndex, ConnectionParams, Destination, Endpoint, Fatal, OutPdu, Payload, SessionParams, Slot};

pub(super) struct Rig {
    pub session: TargetSession,
    /// What was placed, by slot.
    pub memory: HashMap<u32, Vec<u8>>,
    pub events: Vec<TargetEvent>,
    state: HashMap<ConnIndex, (Destination, usize, Vec<u8>)>,
    digests: HashMap<ConnIndex, (bool, bool)>,
}

pub(super) fn params() -> SessionParams {
    SessionParams { initial_r2t: false, max_outstanding_r2t: 2, ..SessionParams::default() }
}

pub(super) fn connection(cid: u16, send: u32) -> ConnectionParams {
    ConnectionParams {
        cid,
        max_recv_data_segment_length: 8192,
        max_send_data_segment_length: send,
        ..Default::default()
    }
}

impl Rig {
    pub(super) fn new(params: SessionParams) -> Self {
        let limits = TargetLimits {
            command_window: 8,
            immediate_commands: 2,
            side_answers: 8,
            control_bytes: 65_536,
            data_timeout: 1000,
        };
        Self {
            session: TargetSession::new(params, limits, 1),
            memory: HashMap::new(),
            events: Vec::new(),
            state: HashMap::new(),
            digests: HashMap::new(),
        }
    }

    /// ERL 0, one connection, segments of 4 KiB to the initiator.
    pub(super) fn simple() -> Self {
        let mut rig = Self::new(params());
        rig.connect(connection(0, 4096));
        rig
    }

    pub(super) fn connect(&mut self, params: ConnectionParams) -> ConnIndex {
        let digests = (params.header_digest, params.data_digest);
        let conn = self.session.add_connection(params, 100, 0);
        self.adopt(conn, digests);
        conn
    }

    /// A connection that the session knows already.
    pub(super) fn adopt(&mut self, conn: ConnIndex, digests: (bool, bool)) {
        self.digests.insert(conn, digests);
        self.state.insert(conn, (Destination::None, 0, Vec::new()));
    }

    /// Feeds bytes, `cut` at a time.
    pub(super) fn feed(&mut self, conn: ConnIndex, bytes: &[u8], cut: usize) -> Result<(), Fatal> {
        for chunk in bytes.chunks(cut.max(1)) {
            let mut at = 0;
            while at < chunk.len() {
                let remaining = self.session.deframer(conn).data_remaining() as usize;
                if remaining > 0 {
                    let n = remaining.min(chunk.len() - at);
                    let part = &chunk[at..at + n];
                    let crc = crc32c::append(self.session.deframer(conn).data_crc(), part);
                    let state = self.state.get_mut(&conn).expect("connected");
                    match state.0 {
                        Destination::Task { slot, offset, .. } => {
                            let memory = self.memory.entry(slot.0).or_default();
                            let start = offset as usize + state.1;
                            if memory.len() < start + n {
                                memory.resize(start + n, 0);
                            }
                            memory[start..start + n].copy_from_slice(part);
                        }
                        Destination::Control => state.2.extend_from_slice(part),
                        _ => {}
                    }
                    state.1 += n;
                    at += n;
                    if self.session.deframer(conn).data_moved(n as u32, crc) {
                        self.complete(conn, true)?;
                    }
                    continue;
                }
                let (n, step) = self.session.deframer(conn).push(&chunk[at..]);
                at += n;
                self.step(conn, step)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, conn: ConnIndex, step: Step) -> Result<(), Fatal> {
        match step {
            Step::NeedMore => Ok(()),
            Step::Header => {
                let destination = self.session.header(conn, 0)?;
                self.state.insert(conn, (destination, 0, Vec::new()));
                if self.session.deframer(conn).data_remaining() == 0 {
                    let (_, step) = self.session.deframer(conn).push(&[]);
                    return self.step(conn, step);
                }
                Ok(())
            }
            Step::Pdu => self.complete(conn, true),
            Step::DataDigestError => self.complete(conn, false),
            Step::AhsError => Err(Fatal::additional_headers()),
            Step::HeaderDigestError => Err(Fatal::violation("header digest")),
        }
    }

    fn complete(&mut self, conn: ConnIndex, ok: bool) -> Result<(), Fatal> {
        let control = std::mem::take(&mut self.state.get_mut(&conn).expect("connected").2);
        let result = self.session.pdu(conn, &control, ok, 0);
        self.drain();
        result
    }

    pub(super) fn drain(&mut self) {
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    pub(super) fn send(&mut self, pdu: &Pdu) -> Result<(), Fatal> {
        let digests = self.digests[&0];
        self.feed(0, &pdu.bytes(digests), usize::MAX)
    }

    pub(super) fn ok(&mut self, pdu: &Pdu) {
        self.send(pdu).expect("the connection goes on");
    }

    /// Everything queued, as sent; payload of tasks as (offset, length).
    pub(super) fn sent(&mut self, conn: ConnIndex) -> Vec<(Bhs, Payload)> {
        let mut out: Vec<OutPdu> = Vec::new();
        let n = self.session.send_queue(conn).unsent_bytes();
        self.session.send_queue(conn).sent(n, |pdu| out.push(pdu));
        for pdu in &out {
            self.session.pdu_sent(conn, pdu);
        }
        self.drain();
        out.into_iter().map(|pdu| (pdu.bhs(), pdu.payload)).collect()
    }

    pub(super) fn events(&mut self) -> Vec<TargetEvent> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn delivered(&mut self) -> Vec<Slot> {
        self.events()
            .into_iter()
            .filter_map(|e| if let TargetEvent::Command(slot) = e { Some(slot) } else { None })
            .collect()
    }
}

/// A PDU as an initiator types it.
#[derive(Clone, Debug)]
pub(super) struct Pdu {
    pub bhs: [u8; BHS_LEN],
    pub ahs: Vec<u8>,
    pub data: Vec<u8>,
}

impl Pdu {
    pub(super) fn new(opcode: u8, flags: u8) -> Self {
        let mut bhs = [0; BHS_LEN];
        bhs[0] = opcode;
        bhs[1] = flags;
        Self { bhs, ahs: Vec::new(), data: Vec::new() }
    }

    pub(super) fn u32(mut self, at: usize, value: u32) -> Self {
        self.bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn with(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    pub(super) fn bytes(&self, (header_digest, data_digest): (bool, bool)) -> Vec<u8> {
        let mut bhs = self.bhs;
        bhs[4] = (self.ahs.len() / 4) as u8;
        bhs[5..8].copy_from_slice(&(self.data.len() as u32).to_be_bytes()[1..]);
        let mut out = bhs.to_vec();
        out.extend(&self.ahs);
        if header_digest {
            out.extend(crc32c::append(0, &out).to_le_bytes());
        }
        if !self.data.is_empty() {
            let mut data = self.data.clone();
            data.resize(data.len() + padding(data.len() as u32) as usize, 0);
            out.extend(&data);
            if data_digest {
                out.extend(crc32c::append(0, &data).to_le_bytes());
            }
        }
        out
    }
}

/// SCSI Command (opcode 1): F 0x80, R 0x40, W 0x20, simple task 1 (RFC 7143 11.3.1).
pub(super) fn command(flags: u8, itt: u32, cmd_sn: u32, expected: u32) -> Pdu {
    Pdu::new(0x01, flags | 1).u32(16, itt).u32(20, expected).u32(24, cmd_sn).u32(28, 100)
}

/// Data-Out (opcode 5).
pub(super) fn data_out(last: bool, itt: u32, ttt: u32, sn: u32, offset: u32, data: &[u8]) -> Pdu {
    Pdu::new(0x05, if last { 0x80 } else { 0 })
        .u32(16, itt)
        .u32(20, ttt)
        .u32(28, 100)
        .u32(36, sn)
        .u32(40, offset)
        .with(data)
}

pub(super) const NO_TAG: u32 = 0xffff_ffff;
