//! A target's bytes, and the little that moves payload in these tests.

use std::collections::HashMap;

use blockwire_wire::Step;

use super::super::{Command, Event, InitiatorSession, Outcome};
use crate::{ConnIndex, ConnectionParams, Destination, Endpoint, Fatal, Payload, SessionParams, Slot};

/// A session with its memory.
pub struct Rig {
    pub session: InitiatorSession,
    pub memory: HashMap<Slot, Vec<u8>>,
    control: Vec<u8>,
    destination: Destination,
    moved: usize,
    /// The time of deliveries.
    pub now: u64,
}

pub const STAT_SN: u32 = 0x100;

fn request(cdb: &[u8], write_len: u32, read_len: u32) -> Command<'_> {
    Command {
        lun: 0x0003_0000_0000_0000,
        cdb,
        attribute: 1,
        immediate: false,
        write_len,
        read_len,
        conn: None,
        context: 77,
    }
}

impl Rig {
    /// CmdSN starts at 0x10, MaxCmdSN is 0x1f, StatSN of the connection starts at 0x100.
    pub fn new(params: SessionParams, connection: ConnectionParams) -> Self {
        let mut session = InitiatorSession::new(params, 0x10, 0x10, 0x1f);
        session.add_connection(connection, STAT_SN, 0);
        Self::of(session)
    }

    pub fn of(session: InitiatorSession) -> Self {
        Self { session, memory: HashMap::new(), control: Vec::new(), destination: Destination::None, moved: 0, now: 5 }
    }

    pub fn plain() -> Self {
        Self::new(SessionParams::default(), ConnectionParams::default())
    }

    pub fn read(&mut self, len: u32) -> Slot {
        let slot = self.command(&[0x28, 0, 0, 0, 0, 9, 0, 0, (len / 512) as u8, 0], 0, len);
        self.memory.insert(slot, vec![0; len as usize]);
        slot
    }

    pub fn write(&mut self, data: &[u8]) -> Slot {
        let slot = self.command(&[0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0], data.len() as u32, 0);
        self.memory.insert(slot, data.to_vec());
        slot
    }

    pub fn command(&mut self, cdb: &[u8], write_len: u32, read_len: u32) -> Slot {
        self.session.submit(&request(cdb, write_len, read_len)).unwrap()
    }

    /// TEST UNIT READY as an immediate command.
    pub fn immediate(&mut self) -> Slot {
        self.session.submit(&Command { immediate: true, ..request(&[0; 6], 0, 0) }).unwrap()
    }

    /// Everything that connection sends now, as bytes.
    pub fn sent(&mut self, conn: ConnIndex) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let mut slots = Vec::new();
            let queue = self.session.send_queue(conn);
            if queue.is_empty() {
                return out;
            }
            for pdu in queue.iter() {
                out.extend_from_slice(pdu.header_bytes());
                out.extend_from_slice(pdu.ahs_bytes());
                match &pdu.payload {
                    Payload::None => {}
                    Payload::Inline(bytes) => out.extend_from_slice(bytes),
                    Payload::Task { slot, offset, len, .. } => {
                        out.extend_from_slice(&self.memory[slot][*offset as usize..(*offset + *len) as usize]);
                    }
                }
                out.extend_from_slice(pdu.trailer_bytes());
            }
            let unsent = queue.unsent_bytes();
            queue.sent(unsent, |pdu| {
                if let Payload::Task { slot, .. } = pdu.payload {
                    slots.push(slot);
                }
            });
            for slot in slots {
                self.session.payload_sent(slot);
            }
        }
    }

    /// What one look at the queue of a connection gives, before more is made.
    pub fn session_sends(&mut self, conn: ConnIndex) -> Vec<([u8; 48], Vec<u8>)> {
        let mut slots = Vec::new();
        let mut out = Vec::new();
        let queue = self.session.send_queue(conn);
        for pdu in queue.iter() {
            let data = match &pdu.payload {
                Payload::Task { slot, offset, len, .. } => {
                    self.memory[slot][*offset as usize..(*offset + *len) as usize].to_vec()
                }
                _ => Vec::new(),
            };
            out.push((pdu.header_bytes().try_into().unwrap(), data));
        }
        let unsent = queue.unsent_bytes();
        queue.sent(unsent, |pdu| {
            if let Payload::Task { slot, .. } = pdu.payload {
                slots.push(slot);
            }
        });
        for slot in slots {
            self.session.payload_sent(slot);
        }
        out
    }

    /// Bytes from the target, in any pieces.
    pub fn deliver(&mut self, conn: ConnIndex, bytes: &[u8]) -> Result<(), Fatal> {
        let mut at = 0;
        loop {
            let deframer = self.session.deframer(conn);
            let remaining = deframer.data_remaining() as usize;
            if remaining > 0 {
                if at == bytes.len() {
                    return Ok(());
                }
                let n = remaining.min(bytes.len() - at);
                let part = &bytes[at..at + n];
                match self.destination {
                    Destination::Task { slot, offset, .. } => {
                        let from = offset as usize + self.moved;
                        self.memory.get_mut(&slot).unwrap()[from..from + n].copy_from_slice(part);
                    }
                    Destination::Control => self.control.extend_from_slice(part),
                    _ => {}
                }
                at += n;
                self.moved += n;
                let deframer = self.session.deframer(conn);
                let crc = blockwire_wire::crc32c::append(deframer.data_crc(), part);
                if deframer.data_moved(n as u32, crc) {
                    self.complete(conn, true)?;
                }
                continue;
            }
            let (n, step) = deframer.push(&bytes[at..]);
            at += n;
            match step {
                Step::NeedMore => return Ok(()),
                Step::Header => {
                    self.destination = self.session.header(conn, self.now)?;
                    self.moved = 0;
                }
                Step::Pdu => self.complete(conn, true)?,
                Step::DataDigestError => self.complete(conn, false)?,
                Step::AhsError => return Err(Fatal::additional_headers()),
                Step::HeaderDigestError => panic!("header digest"),
            }
            if at == bytes.len() && self.session.deframer(conn).at_boundary() {
                return Ok(());
            }
        }
    }

    fn complete(&mut self, conn: ConnIndex, data_digest_ok: bool) -> Result<(), Fatal> {
        let control = std::mem::take(&mut self.control);
        self.session.pdu(conn, &control, data_digest_ok, self.now)
    }

    /// What the next event says of the task's end.
    pub fn ended(&mut self) -> Option<Outcome> {
        match self.session.poll_event()? {
            Event::TaskEnded { outcome, context: 77, .. } => Some(outcome),
            other => panic!("{other:?}"),
        }
    }
}

pub fn good(residual: i64) -> Option<Outcome> {
    Some(Outcome::Status { status: 0, residual, read_residual: 0, sense: Vec::new() })
}

/// A PDU of a target: opcode, flags, ITT and the words at 20, 24, 28, 32, 36, 40, 44, then data and padding.
pub fn pdu(opcode: u8, flags: u8, bytes_2_3: [u8; 2], tag: u32, words: [u32; 7], data: &[u8]) -> Vec<u8> {
    let mut out = vec![opcode, flags, bytes_2_3[0], bytes_2_3[1]];
    out.extend((data.len() as u32).to_be_bytes());
    out.extend([0; 8]);
    out.extend(tag.to_be_bytes());
    for word in words {
        out.extend(word.to_be_bytes());
    }
    out.extend(data);
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
    out
}

/// The PDU with the LUN of this rig's commands.
pub fn at_unit(mut pdu: Vec<u8>) -> Vec<u8> {
    pdu[8..16].copy_from_slice(&[0, 3, 0, 0, 0, 0, 0, 0]);
    pdu
}

/// The window as these tests leave it: ExpCmdSN 0x11, MaxCmdSN 0x20.
pub const EXP: u32 = 0x11;
pub const MAX: u32 = 0x20;

/// Data-In (11.7): figure's words are TTT, StatSN, ExpCmdSN, MaxCmdSN, DataSN, Buffer Offset, Residual Count.
pub fn data_in(tag: u32, flags: u8, stat_sn: u32, data_sn: u32, offset: u32, residual: u32, data: &[u8]) -> Vec<u8> {
    pdu(0x25, flags, [0, 0], tag, [0xffff_ffff, stat_sn, EXP, MAX, data_sn, offset, residual], data)
}

/// R2T (11.8), with the LUN of this rig's commands: TTT, StatSN, ExpCmdSN, MaxCmdSN, R2TSN, Buffer Offset, Desired Data Transfer Length.
pub fn r2t(tag: u32, transfer_tag: u32, number: u32, offset: u32, length: u32) -> Vec<u8> {
    at_unit(pdu(0x31, 0x80, [0, 0], tag, [transfer_tag, STAT_SN, EXP, MAX, number, offset, length], &[]))
}

/// SCSI Response (11.4): SNACK Tag, StatSN, ExpCmdSN, MaxCmdSN, ExpDataSN, bidi residual, residual.
pub fn response(tag: u32, flags: u8, status: u8, stat_sn: u32, bidi: u32, residual: u32, data: &[u8]) -> Vec<u8> {
    pdu(0x21, flags, [0, status], tag, [0, stat_sn, EXP, MAX, 0, bidi, residual], data)
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Splits what was sent into (header, data).
pub fn split(bytes: &[u8]) -> Vec<([u8; 48], Vec<u8>)> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let header: [u8; 48] = bytes[at..at + 48].try_into().unwrap();
        let ahs = usize::from(header[4]) * 4;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let from = at + 48 + ahs;
        out.push((header, bytes[from..from + length].to_vec()));
        at = from + length.next_multiple_of(4);
    }
    out
}

pub fn word(header: &[u8; 48], at: usize) -> u32 {
    u32::from_be_bytes(header[at..at + 4].try_into().unwrap())
}
