//! A byte-level initiator, typed by hand, against a stepped worker over memory transports.

mod batches;
mod bidirectional;
mod breakdown;
mod commands;
mod durable;
mod endings;
mod exhausted;
mod flow;
mod gates;
mod hostile;
mod noise;
mod recovery;
mod retention;
mod sessions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use blockwire_proto::{ConnectionParams, SessionParams};
use blockwire_store::{OpenOptions, Store};
use blockwire_wire::bhs::padding;
use blockwire_wire::{BHS_LEN, Bhs};

use crate::calls::{
    AbortScope, AbortTarget, CommandClass, Gate, Handoff, LunMapping, Numbers, ReleaseMode, SessionSpec,
};
use crate::clock::Clock;
use crate::core::PlaneOptions;
use crate::events::{AbortReport, Event, EventQueue, SessionId};
use crate::mailbox::Mailbox;
use crate::memory_pair::{self, MemoryEnd};
use crate::stores::StoreHandle;
use crate::sys::socket::Part;
use crate::transport::TransportHandle;
use crate::worker::Worker;

pub(super) const BLOCK: usize = 512;
pub(super) const BLOCKS: u64 = 32_768;

pub(super) struct Rig {
    pub worker: Worker,
    pub clock: Clock,
    pub store: StoreHandle,
    pub peers: Vec<Peer>,
}

/// The initiator's end of one connection.
pub(super) struct Peer {
    pub end: MemoryEnd,
    pub bytes: Vec<u8>,
    pub cmd_sn: u32,
    pub next_tag: u32,
}

pub(super) fn ram() -> Arc<dyn Store> {
    let options = OpenOptions { create_size: Some(BLOCKS * BLOCK as u64), ..OpenOptions::default() };
    blockwire_store::open("ram", "", &options, &BTreeMap::new(), &[]).expect("memory")
}

pub(super) fn params() -> SessionParams {
    SessionParams { initial_r2t: false, max_outstanding_r2t: 2, ..SessionParams::default() }
}

pub(super) fn connection(cid: u16) -> ConnectionParams {
    ConnectionParams {
        cid,
        max_recv_data_segment_length: 65_536,
        max_send_data_segment_length: 8192,
        ..ConnectionParams::default()
    }
}

pub(super) const SESSION: SessionId = 7;

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(ram(), params(), PlaneOptions::default())
    }

    pub(super) fn with(store: Arc<dyn Store>, params: SessionParams, options: PlaneOptions) -> Self {
        let options = PlaneOptions { stepped: true, ..options };
        let clock = Clock::manual();
        let mailbox = Arc::new(Mailbox::new().expect("descriptor"));
        let events = Arc::new(EventQueue::new().expect("descriptor"));
        let worker = Worker::new(0, &options, clock.clone(), Arc::clone(&mailbox), events).expect("worker");
        let store = StoreHandle::new(3, store);
        store.serve_on(0, &mailbox);
        let mut rig = Self { worker, clock, store, peers: Vec::new() };
        rig.session(SESSION, params);
        rig.connect(SESSION, connection(1));
        rig
    }

    pub(super) fn session(&mut self, id: SessionId, params: SessionParams) {
        let spec = SessionSpec {
            params,
            initiator_name: "iqn.2026-01.example:a".to_owned(),
            target_name: "iqn.2026-01.example:b".to_owned(),
            isid: [0; 6],
            tsih: 1,
            max_connections: 1,
            cmd_sn: 1,
            exp_cmd_sn: 1,
            max_cmd_sn: 1,
        };
        self.worker.target.create_session(&mut self.worker.core, id, spec, Arc::new(Numbers::default()));
        let mapping = self.mapping();
        self.worker.target.map_lun(&mut self.worker.core, id, 0, mapping).expect("mapped");
    }

    pub(super) fn mapping(&self) -> LunMapping {
        LunMapping {
            store: self.store.clone(),
            block_size: BLOCK as u32,
            blocks: BLOCKS,
            read_only: false,
            write_cache: true,
            descriptor_sense: false,
            can_unmap: true,
            max_transfer_blocks: 0,
            gates: [Gate::Pass; CommandClass::COUNT],
        }
    }

    /// A further connection; returns the index of its peer.
    pub(super) fn connect(&mut self, session: SessionId, params: ConnectionParams) -> usize {
        let (here, there) = MemoryEnd::pair();
        let handoff = Handoff {
            transport: TransportHandle::Memory(memory_pair::publish(there)),
            params,
            stat_sn: 100,
            exp_stat_sn: 0,
            over_read: Vec::new(),
            peer: String::new(),
            reassigned_from: None,
        };
        self.worker.target.adopt(&mut self.worker.core, session, handoff).expect("adopted");
        self.peers.push(Peer { end: here, bytes: Vec::new(), cmd_sn: 1, next_tag: 0x100 });
        self.peers.len() - 1
    }

    /// Until nothing moves.
    pub(super) fn step(&mut self) {
        for _ in 0..10_000 {
            if !self.worker.step() {
                return;
            }
        }
        panic!("the worker never comes to rest");
    }

    pub(super) fn at(&mut self, now: u64) {
        self.clock.set(now);
        self.step();
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        self.worker.core.events.drain(1000)
    }

    pub(super) fn send(&mut self, peer: usize, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let part = Part::new(bytes[at..].as_ptr().cast_mut(), bytes.len() - at);
            // SAFETY: the part is a slice that outlives the call.
            match unsafe { self.peers[peer].end.send(&[part]) } {
                Ok(n) => at += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            self.step();
        }
    }

    pub(super) fn take(&mut self, peer: usize) {
        self.step();
        let mut buffer = vec![0; 1 << 20];
        let mut parts = [Part::new(buffer.as_mut_ptr(), buffer.len())];
        // SAFETY: the part is a vector that outlives the call.
        while let Ok(n) = unsafe { self.peers[peer].end.recv(&mut parts) } {
            if n == 0 {
                break;
            }
            self.peers[peer].bytes.extend_from_slice(&buffer[..n]);
            self.step();
        }
    }

    /// Every complete PDU that came.
    pub(super) fn pdus(&mut self, peer: usize) -> Vec<(Bhs, Vec<u8>)> {
        self.take(peer);
        let bytes = std::mem::take(&mut self.peers[peer].bytes);
        let mut out = Vec::new();
        let mut at = 0;
        while bytes.len() - at >= BHS_LEN {
            let bhs = Bhs(bytes[at..at + BHS_LEN].try_into().expect("48 bytes"));
            let len = bhs.data_segment_length() as usize;
            let end = at + BHS_LEN + len + padding(len as u32) as usize;
            if end > bytes.len() {
                break;
            }
            out.push((bhs, bytes[at + BHS_LEN..at + BHS_LEN + len].to_vec()));
            at = end;
        }
        self.peers[peer].bytes = bytes[at..].to_vec();
        out
    }

    /// Sends a command; returns its tag.
    pub(super) fn command(&mut self, flags: u8, cdb: &[u8], expected: u32, immediate_data: &[u8]) -> u32 {
        self.command_on(0, flags, cdb, expected, immediate_data)
    }

    pub(super) fn command_on(&mut self, peer: usize, flags: u8, cdb: &[u8], expected: u32, data: &[u8]) -> u32 {
        let (tag, cmd_sn) = (self.peers[peer].next_tag, self.peers[peer].cmd_sn);
        self.peers[peer].next_tag += 1;
        self.peers[peer].cmd_sn += 1;
        let bytes = scsi_command(flags, tag, cmd_sn, cdb, expected, data);
        self.send(peer, &bytes);
        tag
    }

    /// One command with all its data: what is unsolicited at once, the rest as it is asked for. Returns status, data and the last
    /// header.
    pub(super) fn run(&mut self, cdb: &[u8], data_out: &[u8], read: u32) -> Answer {
        let flags = 0x80 | if read > 0 { 0x40 } else { 0 } | if data_out.is_empty() { 0 } else { 0x20 };
        let expected = if data_out.is_empty() { read } else { data_out.len() as u32 };
        let immediate = data_out.len().min(8192);
        let tag = self.command(flags, cdb, expected, &data_out[..immediate]);
        self.answer(0, tag, data_out)
    }

    /// Answers R2Ts until the task ends.
    pub(super) fn answer(&mut self, peer: usize, tag: u32, data_out: &[u8]) -> Answer {
        let mut data = Vec::new();
        for _ in 0..10_000 {
            for (bhs, payload) in self.pdus(peer) {
                assert_eq!(bhs.initiator_task_tag(), tag, "{bhs:?}");
                match bhs.0[0] {
                    0x25 => {
                        assert_eq!(bhs.buffer_offset() as usize, data.len());
                        data.extend(payload);
                        if bhs.flags() & 1 != 0 {
                            return Answer { status: bhs.status(), data, sense: Vec::new(), bhs };
                        }
                    }
                    0x21 => {
                        let sense = payload.get(2..).unwrap_or_default().to_vec();
                        return Answer { status: bhs.status(), data, sense, bhs };
                    }
                    0x31 => {
                        let (from, len) = (bhs.buffer_offset() as usize, bhs.desired_data_transfer_length() as usize);
                        let ttt = bhs.target_transfer_tag();
                        let chunks: Vec<_> = data_out[from..from + len].chunks(60_000).collect();
                        for (sn, chunk) in chunks.iter().enumerate() {
                            let last = sn + 1 == chunks.len();
                            let offset = (from + sn * 60_000) as u32;
                            self.send(peer, &super::tests::data_out(last, tag, ttt, sn as u32, offset, chunk));
                        }
                    }
                    other => panic!("opcode {other:#x}"),
                }
            }
        }
        panic!("no answer");
    }

    pub(super) fn read_store(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blockwire_store::read(&*self.store.store, offset, &mut out).expect("read");
        out
    }

    pub(super) fn fill_store(&self) -> Vec<u8> {
        static DATA: OnceLock<Vec<u8>> = OnceLock::new();
        let data = DATA.get_or_init(|| (0..BLOCKS as usize * BLOCK).map(|i| (i / 7 * 31 + i) as u8).collect());
        blockwire_store::write(&*self.store.store, 0, data, false).expect("written");
        data.clone()
    }

    pub(super) fn set_gate(&mut self, gate: Gate) {
        let all: Vec<_> = (0..6).map(|n| (CommandClass::from_number(n).expect("class"), gate)).collect();
        self.worker.target.set_gate(&mut self.worker.core, &[(SESSION, 0)], &all);
        self.step();
    }

    /// Aborts; the report appears when it is there.
    pub(super) fn abort(&mut self, target: AbortTarget, before: Option<u32>) -> Arc<Mutex<Option<AbortReport>>> {
        let report = Arc::new(Mutex::new(None));
        let scope = AbortScope { before_cmd_sn: before, ..AbortScope::of(target) };
        let to = Arc::clone(&report);
        let done = Box::new(move |report| *to.lock().expect("lock") = Some(report));
        self.worker.target.abort(&mut self.worker.core, scope, done);
        self.step();
        report
    }

    pub(super) fn release(&mut self, cid: u16, mode: ReleaseMode) -> crate::events::Released {
        self.worker.target.release(&mut self.worker.core, SESSION, cid, mode).expect("released")
    }

    pub(super) fn in_use(&self) -> usize {
        // the segment that small payloads are cut from may stay open
        self.worker.core.arena.in_use().saturating_sub(1)
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub status: u8,
    pub data: Vec<u8>,
    pub sense: Vec<u8>,
    pub bhs: Bhs,
}

impl Answer {
    pub(super) fn good(&self) {
        assert_eq!((self.status, &self.sense[..]), (0, &[][..]), "{:?}", self.bhs);
    }

    /// Sense key, ASC, ASCQ of fixed format.
    pub(super) fn key(&self) -> (u8, u8, u8) {
        assert_eq!(self.status, 2);
        (self.sense[2], self.sense[12], self.sense[13])
    }
}

pub(super) fn scsi_command(flags: u8, tag: u32, cmd_sn: u32, cdb: &[u8], expected: u32, data: &[u8]) -> Vec<u8> {
    let mut bhs = [0; BHS_LEN];
    bhs[0] = 0x01;
    bhs[1] = flags | if flags & 7 == 0 { 1 } else { 0 };
    bhs[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    bhs[16..20].copy_from_slice(&tag.to_be_bytes());
    bhs[20..24].copy_from_slice(&expected.to_be_bytes());
    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    bhs[28..32].copy_from_slice(&100_u32.to_be_bytes());
    bhs[32..32 + cdb.len()].copy_from_slice(cdb);
    padded(&bhs, data)
}

pub(super) fn data_out(last: bool, tag: u32, ttt: u32, sn: u32, offset: u32, data: &[u8]) -> Vec<u8> {
    let mut bhs = [0; BHS_LEN];
    bhs[0] = 0x05;
    bhs[1] = if last { 0x80 } else { 0 };
    bhs[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    bhs[16..20].copy_from_slice(&tag.to_be_bytes());
    bhs[20..24].copy_from_slice(&ttt.to_be_bytes());
    bhs[36..40].copy_from_slice(&sn.to_be_bytes());
    bhs[40..44].copy_from_slice(&offset.to_be_bytes());
    padded(&bhs, data)
}

pub(super) fn padded(bhs: &[u8; BHS_LEN], data: &[u8]) -> Vec<u8> {
    let mut out = bhs.to_vec();
    out.extend_from_slice(data);
    out.resize(out.len() + padding(data.len() as u32) as usize, 0);
    out
}

pub(super) fn cdb10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let l = lba.to_be_bytes();
    let b = blocks.to_be_bytes();
    [opcode, flags, l[0], l[1], l[2], l[3], 0, b[0], b[1], 0]
}

pub(super) fn cdb16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

pub(super) struct Seen {
    pub unsent: usize,
}

impl super::TargetSide {
    pub(super) fn shared_for_tests(&mut self) -> Seen {
        use blockwire_proto::Endpoint;
        let session = self.shared.sessions[0].as_deref_mut().expect("there");
        Seen { unsent: session.proto.send_queue(0).unsent_bytes() }
    }
}
