//! What the engine keeps of one task beside its protocol record: the command, its memory, how far it is.

use std::sync::Arc;

use blockwire_proto::Slot;
use blockwire_proto::target::Residual;
use blockwire_wire::crc32c;

use super::commands::Block;
use crate::buffers::{Arena, Extent, SEGMENT};
use crate::calls::Answer;
use crate::events::StoreId;
use crate::range_locks::RangeLocks;
use crate::sys::socket::Part;

/// Most bytes of a READ that are taken from the store at a time.
pub(super) const PIECE: u32 = 256 * 1024;
/// Extents that a piece of a READ may consist of.
const PIECE_EXTENTS: usize = PIECE as usize / SEGMENT;

/// Why a task is where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The slot is free, or its command is not delivered.
    #[default]
    Idle,
    /// A gate holds it.
    Held,
    /// Sent up; `reply` goes on with it.
    Control,
    /// Data-Out is fetched for the control plane, up to this many bytes.
    Collect(u32),
    /// It goes up once all data that was announced is here; whether a gate sent it up.
    GoingUp(bool),
    /// A block command fetches data or runs.
    Run,
    /// A READ sends.
    Read,
    /// Answered.
    Done,
}

/// Bytes in a store's own memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreBytes(pub(super) *const u8);

// SAFETY: an address; whoever reads there knows that the piece it belongs to is still valid. A worker moves between threads only as a
// whole (before it starts, and in a stepped plane behind its mutex).
unsafe impl Send for StoreBytes {}

/// Where the bytes of a piece are.
#[derive(Debug)]
pub(super) enum PieceMemory {
    /// In the store's own memory.
    Direct(StoreBytes),
    /// In the store's own memory until their digest is taken: that copies them into `extent`, which is theirs already.
    Reserved {
        base: StoreBytes,
        extent: Extent,
    },
    Extents {
        list: [Option<Extent>; PIECE_EXTENTS],
    },
    /// Bytes of the control plane, or a copy made when the arena was full.
    Heap(Box<[u8]>),
}

/// Consecutive bytes of a task's Data-In that are queued.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) memory: PieceMemory,
}

impl Piece {
    /// Contiguous bytes from `offset` of the transfer on, which lies in this piece.
    #[inline]
    pub(super) fn part(&self, arena: &Arena, offset: u32, len: u32) -> Part {
        let skip = offset - self.offset;
        let len = len.min(self.len - skip);
        match &self.memory {
            PieceMemory::Direct(base) | PieceMemory::Reserved { base, .. } => {
                // SAFETY: the mapping holds `self.len` bytes from here, as was checked when the piece was made.
                Part::new(unsafe { base.0.add(skip as usize) }.cast_mut(), len as usize)
            }
            PieceMemory::Heap(bytes) => Part::new(bytes[skip as usize..].as_ptr().cast_mut(), len as usize),
            PieceMemory::Extents { list } => {
                let at = skip as usize / SEGMENT;
                let inside = skip as usize % SEGMENT;
                let extent = list[at].expect("a piece has all its extents");
                let n = (len as usize).min(extent.len as usize - inside);
                // SAFETY: `inside + n` is at most the extent's length.
                Part::new(unsafe { arena.pointer(extent).add(inside) }, n)
            }
        }
    }

    pub(super) fn free(self, arena: &mut Arena) {
        match self.memory {
            PieceMemory::Extents { list } => {
                for extent in list.into_iter().flatten() {
                    arena.release(extent);
                }
            }
            PieceMemory::Reserved { extent, .. } => arena.release(extent),
            PieceMemory::Direct(_) | PieceMemory::Heap(_) => {}
        }
    }

    /// Its bytes are those of a store, which are copied before they change.
    #[inline]
    pub(super) fn is_in_store(&self) -> bool {
        matches!(self.memory, PieceMemory::Direct(_) | PieceMemory::Reserved { .. })
    }

    /// Copies the bytes away from the store's memory. Returns the number of bytes for which no copy was foreseen.
    pub(super) fn copy_out(&mut self, arena: &mut Arena) -> u32 {
        match self.memory {
            PieceMemory::Direct(base) => {
                self.memory = copy_piece(arena, base, self.len);
                self.len
            }
            PieceMemory::Reserved { .. } => {
                self.copy_reserved(arena);
                0
            }
            PieceMemory::Extents { .. } | PieceMemory::Heap(_) => 0,
        }
    }

    /// Copies reserved bytes to where they belong; the CRC32C of the copy, taken in the same pass: it is right whatever
    /// happens to the store's memory.
    #[inline]
    pub(super) fn copy_reserved(&mut self, arena: &Arena) -> Option<u32> {
        let PieceMemory::Reserved { base, extent } = self.memory else { return None };
        // SAFETY: the mapping holds `len` bytes from `base`, as was checked when the piece was made; the extent has as many and is
        // this piece's alone.
        let crc = unsafe { crc32c::copy(0, base.0, arena.pointer(extent), self.len as usize) };
        let mut list = [None; PIECE_EXTENTS];
        list[0] = Some(extent);
        self.memory = PieceMemory::Extents { list };
        Some(crc)
    }
}

/// No exclusive range.
pub(super) const NO_LOCK: u64 = 0;

/// No place in the registry of direct READs.
pub(super) const NOT_DIRECT: u32 = u32::MAX;

/// One task's work. Places are reused with their vectors, so that steady traffic allocates nothing.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) phase: Phase,
    /// The protocol record's generation while the place is in use.
    pub(super) generation: u32,
    /// Index of the logical unit in the session; meaningful while `uses_lun`.
    pub(super) lun: usize,
    pub(super) uses_lun: bool,
    pub(super) block: Block,
    /// Bytes the command moves (after cutting to the expected length), and its residual.
    pub(super) total: u32,
    pub(super) residual: Residual,
    /// Byte offset in the store.
    pub(super) start: u64,
    /// How far it is: bytes of a READ queued, bytes of a WRITE in the store, bytes of a range done, or descriptors.
    pub(super) done: u64,
    /// End of what the running operation does.
    pub(super) running_to: u64,
    /// Length of the range of WRITE SAME and VERIFY, in bytes.
    pub(super) range: u64,
    /// How far a comparison is, bytes.
    pub(super) compared: u64,
    /// What the running operation is for.
    pub(super) stage: Stage,
    /// The running store operation, as index + 1.
    pub(super) operation: u32,
    /// Data-Out memory: entry i holds bytes from i * SEGMENT on.
    pub(super) out: Vec<Option<Extent>>,
    /// Bytes of the arena in `out`.
    pub(super) out_bytes: u64,
    /// Data was thrown away for want of memory.
    pub(super) no_room: bool,
    /// Bytes below are received or asked for.
    pub(super) solicited_to: u32,
    /// It waits for memory.
    pub(super) hungry: bool,
    /// Bytes of Data-In that left, where they are not kept.
    pub(super) sent: u32,
    /// Bytes of Data-In that count against the budget of what is kept.
    pub(super) retained: u64,
    /// Data-In that is queued and not all sent (or kept for retransmission).
    pub(super) pieces: Vec<Piece>,
    /// Memory of the running operation that is not Data-Out.
    pub(super) scratch: Vec<Extent>,
    pub(super) ranges: Vec<(u64, u64)>,
    /// Place in the registry of direct READs.
    pub(super) direct: u32,
    /// It stands in its connection's list of READs to be pulled.
    pub(super) pulling: bool,
    /// The abort that ends it once its data came (4.2.3.3 a).
    pub(super) abort: Option<u64>,
    /// An answer with data that came while the task waited for its reassignment.
    pub(super) deferred: Option<Box<Answer>>,
    /// What the control plane collected: the rest is an underflow.
    pub(super) collected: Option<u32>,
    /// DIVERT_ONE picked it, and it has not gone up yet.
    pub(super) picked: bool,
    /// Its exclusive range, or `NO_LOCK`.
    pub(super) lock: u64,
    /// It has its last status while a store operation of it may still run.
    pub(super) told: bool,
}

/// What a running operation of a multi-step command is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Main,
    /// Reading back for a comparison.
    Compare,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            generation: 0,
            lun: 0,
            uses_lun: false,
            block: Block::TestUnitReady,
            total: 0,
            residual: Residual::None,
            start: 0,
            done: 0,
            running_to: 0,
            range: 0,
            compared: 0,
            stage: Stage::Main,
            operation: 0,
            out: Vec::new(),
            out_bytes: 0,
            no_room: false,
            solicited_to: 0,
            hungry: false,
            sent: 0,
            retained: 0,
            pieces: Vec::new(),
            scratch: Vec::new(),
            ranges: Vec::new(),
            direct: NOT_DIRECT,
            pulling: false,
            abort: None,
            deferred: None,
            collected: None,
            picked: false,
            lock: NO_LOCK,
            told: false,
        }
    }
}

impl Work {
    /// Ready for a new task; vectors keep their room.
    pub(super) fn begin(&mut self, generation: u32) {
        debug_assert!(self.out.is_empty() && self.pieces.is_empty() && self.scratch.is_empty());
        self.phase = Phase::Idle;
        self.generation = generation;
        self.uses_lun = false;
        self.block = Block::TestUnitReady;
        self.total = 0;
        self.residual = Residual::None;
        self.done = 0;
        self.running_to = 0;
        self.range = 0;
        self.compared = 0;
        self.picked = false;
        debug_assert!(self.lock == NO_LOCK);
        self.told = false;
        self.stage = Stage::Main;
        self.operation = 0;
        self.no_room = false;
        self.solicited_to = 0;
        self.hungry = false;
        self.sent = 0;
        debug_assert!(self.retained == 0);
        self.ranges.clear();
        self.direct = NOT_DIRECT;
        self.pulling = false;
        self.abort = None;
        self.collected = None;
        self.deferred = None;
    }

    /// Memory for Data-Out at `offset`, as far as it is contiguous; taken from the arena on first use. `limit` is the length of
    /// the whole transfer.
    pub(super) fn out_part(&mut self, arena: &mut Arena, offset: u32, len: u32, limit: u32) -> Option<Part> {
        let at = offset as usize / SEGMENT;
        let inside = offset as usize % SEGMENT;
        if self.out.len() <= at {
            self.out.resize(at + 1, None);
        }
        let extent = match self.out[at] {
            Some(extent) => extent,
            None => {
                let size = (limit as usize - at * SEGMENT).min(SEGMENT);
                let extent = arena.allocate(size as u32)?;
                self.out[at] = Some(extent);
                self.out_bytes += u64::from(extent.len);
                extent
            }
        };
        let n = (len as usize).min(extent.len as usize - inside);
        // SAFETY: inside the extent.
        Some(Part::new(unsafe { arena.pointer(extent).add(inside) }, n))
    }

    /// Bytes of memory that a range needs and does not have.
    pub(super) fn lacking(&self, offset: u32, len: u32, limit: u32) -> u64 {
        let first = offset as usize / SEGMENT;
        let last = (offset + len - 1) as usize / SEGMENT;
        (first..=last)
            .filter(|at| self.out.get(*at).is_none_or(Option::is_none))
            .map(|at| (limit as usize - at * SEGMENT).min(SEGMENT) as u64)
            .sum()
    }

    /// Takes all segments of a range at once, or none.
    pub(super) fn reserve(&mut self, arena: &mut Arena, offset: u32, len: u32, limit: u32) -> bool {
        let first = offset as usize / SEGMENT;
        let last = (offset + len - 1) as usize / SEGMENT;
        if self.out.len() <= last {
            self.out.resize(last + 1, None);
        }
        let lacking = self.out[first..=last].iter().filter(|e| e.is_none()).count();
        if lacking > arena.available() / SEGMENT {
            return false;
        }
        for at in first..=last {
            if self.out[at].is_none() {
                let size = (limit as usize - at * SEGMENT).min(SEGMENT);
                // one free segment for each was just counted
                let Some(extent) = arena.allocate(size as u32) else { return false };
                self.out[at] = Some(extent);
                self.out_bytes += u64::from(extent.len);
            }
        }
        true
    }

    /// Contiguous received bytes at `offset`, at most `len`; None where there is no memory.
    pub(super) fn received_part(&self, arena: &Arena, offset: u32, len: u32) -> Option<Part> {
        let at = offset as usize / SEGMENT;
        let inside = offset as usize % SEGMENT;
        let extent = (*self.out.get(at)?)?;
        if inside >= extent.len as usize {
            return None;
        }
        let n = (len as usize).min(extent.len as usize - inside);
        // SAFETY: inside the extent.
        Some(Part::new(unsafe { arena.pointer(extent).add(inside) }, n))
    }

    /// Copies received bytes out; they are all there.
    pub(super) fn copy_received(&self, arena: &Arena, len: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(len as usize);
        while (out.len() as u32) < len {
            let at = out.len() as u32;
            let Some(part) = self.received_part(arena, at, len - at) else { break };
            // SAFETY: received memory of this task, and nothing writes into it meanwhile.
            out.extend_from_slice(unsafe { std::slice::from_raw_parts(part.base(), part.len()) });
        }
        out
    }

    /// Frees Data-Out segments that lie wholly below `offset`.
    pub(super) fn free_out_below(&mut self, arena: &mut Arena, offset: u64) {
        let end = usize::try_from(offset).unwrap_or(usize::MAX) / SEGMENT;
        for place in self.out.iter_mut().take(end) {
            if let Some(extent) = place.take() {
                self.out_bytes -= u64::from(extent.len);
                arena.release(extent);
            }
        }
    }

    /// Frees everything but what a running store operation uses, which is left in `scratch` and `out` for the caller.
    pub(super) fn free_pieces(&mut self, arena: &mut Arena) {
        for piece in self.pieces.drain(..) {
            piece.free(arena);
        }
    }

    pub(super) fn free_scratch(&mut self, arena: &mut Arena) {
        for extent in self.scratch.drain(..) {
            arena.release(extent);
        }
    }

    pub(super) fn free_out(&mut self, arena: &mut Arena) {
        for extent in self.out.drain(..).flatten() {
            arena.release(extent);
        }
        self.out_bytes = 0;
    }

    /// The first bytes of `scratch` as a piece of Data-In.
    pub(super) fn scratch_into_piece(&mut self, offset: u32, len: u32) {
        let mut list = [None; PIECE_EXTENTS];
        for (place, extent) in list.iter_mut().zip(self.scratch.drain(..)) {
            *place = Some(extent);
        }
        self.pieces.push(Piece { offset, len, memory: PieceMemory::Extents { list } });
    }
}

/// Copies bytes of a piece away from the store's memory.
fn copy_piece(arena: &mut Arena, base: StoreBytes, len: u32) -> PieceMemory {
    let base = base.0;
    let mut list = [None; PIECE_EXTENTS];
    let mut extents = Vec::new();
    if len as usize <= PIECE_EXTENTS * SEGMENT && arena.allocate_list(len as usize, &mut extents) {
        let mut at = 0;
        for (place, extent) in list.iter_mut().zip(extents) {
            // SAFETY: the source lies in the mapping, the destination is a fresh extent of the arena.
            unsafe { std::ptr::copy_nonoverlapping(base.add(at), arena.pointer(extent), extent.len as usize) };
            at += extent.len as usize;
            *place = Some(extent);
        }
        return PieceMemory::Extents { list };
    }
    // The arena is full: a change of the store must not wait for a slow reader.
    // SAFETY: the mapping holds `len` bytes from here.
    PieceMemory::Heap(unsafe { std::slice::from_raw_parts(base, len as usize) }.into())
}

/// A running store operation: who waits for it, and memory that outlives its task.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) session: u32,
    pub(super) slot: Slot,
    /// Generation of the task; another one in the slot means that the task is gone.
    pub(super) generation: u32,
    /// It can change the medium.
    pub(super) changes: bool,
    pub(super) store: StoreId,
    /// Bytes `[start, end)` that it is about; none of a flush.
    pub(super) range: (u64, u64),
    /// The lock of a task that ended meanwhile.
    pub(super) lock: Option<(u64, Arc<RangeLocks>)>,
    /// Memory of a task that ended meanwhile.
    pub(super) held: Vec<Extent>,
    /// Aborts that wait for its end.
    pub(super) aborts: Vec<u64>,
}
