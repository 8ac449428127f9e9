//! One stepped plane that plays both ends over in-memory links, under virtual time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockwire_engine::Plane;
use blockwire_engine::calls::{Answer, CommandClass, Effects, Gate, Handoff, SessionSpec};
use blockwire_engine::core::PlaneOptions;
use blockwire_engine::events::{Event, OpResult, TaskDone};
use blockwire_engine::initiator::{BlockRequest, IoKind, Memory};
use blockwire_engine::memory_pair::{MemoryEnd, publish};
use blockwire_engine::plane::{LunRequest, StoreCall, StoreRequest};
use blockwire_engine::transport::TransportHandle;
use blockwire_proto::{ConnectionParams, SessionParams};
use blockwire_store::OpenOptions;
use blockwire_wire::opcode::function;
use blockwire_wire::{Bhs, Opcode};

const MILLISECOND: u64 = 1_000_000;

pub struct Pair {
    pub plane: Arc<Plane>,
    pub initiator: u64,
    pub target: u64,
    store: u64,
    now: u64,
    cids: u16,
    /// The initiator's end of the newest link: faults are set there.
    pub end: Option<MemoryEnd>,
    buffers: HashMap<u64, Box<[u8]>>,
    pub done: Vec<(TaskDone, Box<[u8]>)>,
    /// Connections that were lost, each side for itself.
    pub lost: Vec<(u64, u16)>,
    pub other: Vec<Event>,
    /// Least bytes of a delivery, pipes' room.
    pub chunk: usize,
    pub capacity: usize,
}

fn spec(params: &SessionParams) -> SessionSpec {
    SessionSpec {
        params: params.clone(),
        initiator_name: "iqn.2026-01.example:i".to_owned(),
        target_name: "iqn.2026-01.example:t".to_owned(),
        isid: [2, 0, 0, 0, 0, 1],
        tsih: 1,
        max_connections: 4,
        cmd_sn: 1,
        exp_cmd_sn: 1,
        max_cmd_sn: 16,
    }
}

impl Pair {
    /// Both sessions without a connection, and a RAM disk of `size` bytes as LUN 0.
    pub fn new(params: &SessionParams, size: u64) -> Self {
        let options = PlaneOptions { stepped: true, arena_bytes: 64 << 20, ..PlaneOptions::default() };
        let plane = Arc::new(Plane::new(options).unwrap());
        let op = plane.open_store(StoreRequest {
            scheme: "ram".to_owned(),
            path: String::new(),
            options: OpenOptions { create_size: Some(size), ..OpenOptions::default() },
            extra: BTreeMap::new(),
            filters: Vec::new(),
        });
        let mut pair = Self {
            target: plane.create_target_session(spec(params)).unwrap(),
            initiator: plane.create_initiator_session(spec(params)).unwrap(),
            plane,
            store: 0,
            now: 0,
            cids: 0,
            end: None,
            buffers: HashMap::new(),
            done: Vec::new(),
            lost: Vec::new(),
            other: Vec::new(),
            chunk: usize::MAX,
            capacity: 256 * 1024,
        };
        let OpResult::Store(info) = pair.finish(op) else { panic!("not a store") };
        pair.store = info.store;
        let request = LunRequest {
            store: info.store,
            block_size: 512,
            blocks: size / 512,
            read_only: false,
            write_cache: true,
            descriptor_sense: false,
            can_unmap: true,
            max_transfer_blocks: 0,
            gates: [Gate::Pass; CommandClass::COUNT],
        };
        let op = pair.plane.map_lun(pair.target, 0, request);
        pair.finish(op);
        pair
    }

    /// Steps until the operation ended. Opening a store takes a real thread, so this may nap.
    pub fn finish(&mut self, op: u64) -> OpResult {
        let started = Instant::now();
        loop {
            self.step();
            let ended = self.other.iter().position(|e| matches!(e, Event::OpDone { op: o, .. } if *o == op));
            if let Some(at) = ended {
                let Event::OpDone { result, .. } = self.other.remove(at) else { unreachable!() };
                return result.unwrap_or_else(|failure| panic!("{failure:?}"));
            }
            assert!(started.elapsed() < Duration::from_secs(120), "an operation never ended");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// A new link: what the initiator accepts, what the target accepts, digests, whose tasks go on.
    pub fn connect(&mut self, down: u32, up: u32, digests: (bool, bool), reassigned_from: Option<u16>) {
        self.cids += 1;
        let (a, b) = MemoryEnd::pair();
        for mut pipe in [a.incoming(), a.outgoing()] {
            pipe.chunk = self.chunk;
            pipe.capacity = self.capacity;
        }
        self.end = Some(a.clone());
        let params = ConnectionParams {
            cid: self.cids,
            max_recv_data_segment_length: down,
            max_send_data_segment_length: up,
            header_digest: digests.0,
            data_digest: digests.1,
            ..ConnectionParams::default()
        };
        let mirrored =
            ConnectionParams { max_recv_data_segment_length: up, max_send_data_segment_length: down, ..params.clone() };
        let handoff = |end, params| Handoff {
            transport: TransportHandle::Memory(publish(end)),
            params,
            stat_sn: 100,
            exp_stat_sn: 100,
            over_read: Vec::new(),
            peer: String::new(),
            reassigned_from,
        };
        let op = self.plane.adopt(self.target, handoff(b, mirrored));
        self.finish(op);
        let op = self.plane.adopt(self.initiator, handoff(a, params));
        self.finish(op);
    }

    /// One round of virtual time; true when something moved.
    pub fn step(&mut self) -> bool {
        self.now += MILLISECOND;
        let moved = self.plane.step(self.now);
        let mut events = false;
        loop {
            let batch = self.plane.events().drain(256);
            if batch.is_empty() {
                return moved || events;
            }
            events = true;
            for event in batch {
                self.take(event);
            }
        }
    }

    /// Steps until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::TaskDone(done) => {
                let buffer = self.buffers.remove(&done.token).expect("a buffer");
                self.done.push((done, buffer));
            }
            Event::ConnectionLost { session, cid, .. } => self.lost.push((session, cid)),
            Event::ControlPdu { session, cid, header, tag, .. } if session == self.target => {
                let request = Bhs(header);
                assert_eq!((request.opcode(), cid), (Some(Opcode::TaskManagementRequest), self.cids));
                assert_eq!(request.function(), function::TASK_REASSIGN);
                // what the control plane does: the task is there and its connection is gone
                let effects = Effects {
                    rebind: Some((request.referenced_task_tag(), Some(self.cids - 1))),
                    exp_data_sn: request.exp_data_sn(),
                    ..Effects::default()
                };
                let response = Bhs::new(Opcode::TaskManagementResponse, 0x80);
                let answer = Answer::Pdu { header: response.0, data: Vec::new() };
                self.plane.reply(session, tag, answer, effects).unwrap();
            }
            other => self.other.push(other),
        }
    }

    fn submit(&mut self, kind: IoKind, lba: u64, mut buffer: Box<[u8]>) -> u64 {
        let token = self.plane.token();
        let io = BlockRequest { kind, lba, blocks: (buffer.len() / 512) as u32, block_size: 512, fua: false };
        // SAFETY: the box's heap memory stays in `buffers` until the request ended.
        let memory = unsafe { Memory::new(buffer.as_mut_ptr(), buffer.len() as u32) };
        self.plane.submit_io(self.initiator, token, 0, 0, &io, memory).unwrap();
        self.buffers.insert(token, buffer);
        token
    }

    pub fn read(&mut self, lba: u64, len: usize) -> u64 {
        self.submit(IoKind::Read, lba, vec![0xee; len].into_boxed_slice())
    }

    pub fn write(&mut self, lba: u64, data: &[u8]) -> u64 {
        self.submit(IoKind::Write, lba, data.into())
    }

    /// What the store holds, asked for beside the protocol.
    pub fn stored(&mut self, offset: u64, length: u32) -> Vec<u8> {
        let op = self.plane.store_op(self.store, StoreCall::Read { offset, length });
        let OpResult::Bytes(bytes) = self.finish(op) else { panic!("no bytes") };
        bytes
    }

    /// The ended request, which must be GOOD.
    pub fn good(&mut self, token: u64) -> Box<[u8]> {
        let at = self.done.iter().position(|(d, _)| d.token == token).unwrap_or_else(|| panic!("{token} did not end"));
        let (done, buffer) = self.done.swap_remove(at);
        assert!(done.code.is_empty() && done.status == 0 && done.residual == 0, "{done:?}");
        buffer
    }
}
