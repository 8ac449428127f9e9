//! A session as a worker holds it: protocol state, connections, logical units, and the work of its tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use blockwire_proto::Slot;
use blockwire_proto::retain::RetentionBudget;
use blockwire_proto::target::TargetSession;
use blockwire_store::Store;

use super::work::Work;
use crate::bucket::Bucket;
use crate::calls::{CommandClass, Gate, LunMapping, Numbers};
use crate::clock::Nanos;
use crate::events::{SessionId, TaskTag};
use crate::receive::ReceiveState;
use crate::stores::StoreHandle;
use crate::sys::epoll::Interest;
use crate::transport::Transport;

/// A logical unit of a nexus.
#[derive(Debug)]
pub(super) struct Lun {
    pub(super) lun: u64,
    /// Commands find it; a unit that was unmapped stays until its tasks are over.
    pub(super) mapped: bool,
    pub(super) mapping: LunMapping,
    /// The store is being closed: nothing may reach it any more.
    pub(super) closed: bool,
    /// Tasks that use it.
    pub(super) users: u32,
    /// A command was diverted since the last `set_gate` (DIVERT_ONE).
    pub(super) diverted: bool,
    /// Parked commands, in order.
    pub(super) held: VecDeque<Slot>,
    pub(super) can_flush: bool,
    pub(super) can_punch: bool,
}

impl Lun {
    pub(super) fn new(lun: u64, mapping: LunMapping) -> Self {
        let capabilities = mapping.store.store.capabilities();
        Self {
            lun,
            mapped: true,
            mapping,
            closed: false,
            users: 0,
            diverted: false,
            held: VecDeque::new(),
            can_flush: capabilities.can_flush,
            can_punch: capabilities.can_punch,
        }
    }

    /// What the gate says to a command of a class, now.
    #[inline]
    pub(super) fn gate(&self, class: CommandClass) -> Gate {
        match self.mapping.gates[class as usize] {
            Gate::DivertOne if self.diverted => Gate::Hold,
            gate => gate,
        }
    }

    #[inline]
    pub(super) fn handle(&self) -> &StoreHandle {
        &self.mapping.store
    }

    #[inline]
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.mapping.store.store
    }
}

/// A connection's transport; taken out of its session while it is served.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) transport: Transport,
    pub(super) receive: ReceiveState,
    pub(super) interest: Interest,
    pub(super) readable: bool,
    /// The last send did not take everything.
    pub(super) blocked: bool,
}

/// What a session knows of a connection besides its protocol state.
#[derive(Debug, Default)]
pub(super) struct Port {
    /// Its number among the worker's connections (epoll key).
    pub(super) number: u32,
    pub(super) cid: u16,
    /// It stands in the worker's list of ready connections.
    pub(super) queued: bool,
    /// READs that go on when the socket has taken enough, in order.
    pub(super) pulls: VecDeque<Slot>,
    /// It is over: what is queued was the last.
    pub(super) closing: bool,
    pub(super) data_digest: bool,
    /// When it last sent while there was a rate; who waits longest comes first.
    pub(super) sent_at: Nanos,
    /// About how many requests the initiator keeps in flight here: the most of late.
    pub(super) in_flight: u32,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) index: u32,
    pub(super) proto: TargetSession,
    pub(super) numbers: Arc<Numbers>,
    pub(super) links: Vec<Option<Box<Link>>>,
    /// Beside `links`; stays while a link is taken out.
    pub(super) ports: Vec<Port>,
    pub(super) luns: Vec<Lun>,
    pub(super) work: Vec<Work>,
    /// Bytes of the arena that Data-Out of its tasks holds.
    pub(super) reserved: u64,
    /// When Data-Out last came, or memory for it was first held.
    pub(super) data_at: Nanos,
    /// Data-In is kept until it is acknowledged (error recovery levels above 0).
    pub(super) retains: bool,
    /// Data-Out that is missing is asked for again (the same levels).
    pub(super) recovers: bool,
    /// Bytes of Data-In that are kept, and how many may be.
    pub(super) retention: RetentionBudget,
    /// When its tasks froze last.
    pub(super) frozen_at: Nanos,
    /// The rate of the session.
    pub(super) bucket: Option<Bucket>,
}

impl Session {
    /// The tag that names a task to the control plane.
    pub(super) fn tag(&self, slot: Slot) -> TaskTag {
        let generation = self.proto.task(slot).map_or(0, |t| t.generation);
        (u64::from(generation) << 32) | (u64::from(slot.0) + 1)
    }

    /// The slot of a tag, while that task lives.
    pub(super) fn slot_of(&self, tag: TaskTag) -> Option<Slot> {
        let slot = Slot(((tag & 0xffff_ffff) as u32).checked_sub(1)?);
        let task = self.proto.task(slot)?;
        (u64::from(task.generation) == tag >> 32).then_some(slot)
    }

    #[inline]
    pub(super) fn find_lun(&self, lun: u64) -> Option<usize> {
        self.luns.iter().position(|l| l.lun == lun && l.mapped)
    }

    /// The work of a slot; made on first use.
    #[inline]
    pub(super) fn work_mut(&mut self, slot: Slot) -> &mut Work {
        let at = slot.0 as usize;
        if self.work.len() <= at {
            self.work.resize_with(at + 1, Work::default);
        }
        &mut self.work[at]
    }

    #[inline]
    pub(super) fn work_of(&self, slot: Slot) -> Option<&Work> {
        self.work.get(slot.0 as usize)
    }

    pub(super) fn publish_numbers(&self) {
        let numbers = self.proto.numbers();
        self.numbers.set(numbers.exp_cmd_sn, numbers.exp_cmd_sn, numbers.max_cmd_sn);
    }
}
