//! What a worker lends to the roles that run on it.

use std::io;
use std::sync::Arc;

use crate::buffers::Arena;
use crate::clock::{Clock, Nanos};
use crate::counters::Counters;
use crate::events::EventQueue;
use crate::mailbox::Mailbox;
use crate::sys::epoll::Epoll;
use crate::trace::TraceRing;
use crate::transmit::Scratch;

/// Bytes of a receive buffer: one call takes in many PDUs.
pub const RECEIVE_BUFFER: usize = 256 * 1024;

/// Sizes that a plane is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneOptions {
    pub workers: usize,
    /// No threads: `Plane::step` drives everything, under a virtual clock.
    pub stepped: bool,
    /// Bytes of payload memory per worker.
    pub arena_bytes: usize,
    /// Headers that a worker's trace ring holds.
    pub trace_entries: usize,
    /// Commands beyond ExpCmdSN that a target's session takes.
    pub command_window: u32,
    /// Longest transfer of one task, bytes.
    pub max_transfer: u32,
    /// PDUs of one send call of a target. 1 is what a target without batches does: to measure what they gain.
    pub pdus_per_send: usize,
}

impl Default for PlaneOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            stepped: false,
            arena_bytes: 256 << 20,
            trace_entries: 4096,
            command_window: 256,
            max_transfer: 16 << 20,
            pdus_per_send: usize::MAX,
        }
    }
}

/// Shared pieces of one worker. A role gets `&mut Core` with every call.
#[derive(Debug)]
pub struct Core {
    /// Index of the worker in its plane.
    pub index: usize,
    pub options: PlaneOptions,
    pub clock: Clock,
    /// Time at the start of this turn.
    pub now: Nanos,
    /// None in a stepped plane.
    pub epoll: Option<Epoll>,
    pub mailbox: Arc<Mailbox>,
    pub events: Arc<EventQueue>,
    pub arena: Arena,
    pub receive_buffer: Box<[u8]>,
    pub scratch: Scratch,
    pub trace: TraceRing,
    pub counters: Counters,
}

impl Core {
    /// # Errors
    /// The system's, when descriptors or address space are out.
    pub fn new(
        index: usize, options: &PlaneOptions, clock: Clock, mailbox: Arc<Mailbox>, events: Arc<EventQueue>,
    ) -> io::Result<Self> {
        let epoll = if options.stepped { None } else { Some(Epoll::new()?) };
        Ok(Self {
            index,
            options: options.clone(),
            now: clock.now(),
            clock,
            epoll,
            mailbox,
            events,
            arena: Arena::new(options.arena_bytes)?,
            receive_buffer: vec![0; RECEIVE_BUFFER].into_boxed_slice(),
            scratch: Scratch::new(options.pdus_per_send),
            trace: TraceRing::new(options.trace_entries),
            counters: Counters::default(),
        })
    }
}

/// What an epoll key stands for: the role in the upper half, its own number in the lower.
pub mod key {
    pub const MAILBOX: u64 = 0;
    pub const TARGET: u64 = 1 << 32;
    pub const INITIATOR: u64 = 2 << 32;

    /// The role bits.
    #[must_use]
    pub fn role(key: u64) -> u64 {
        key & !0xffff_ffff
    }

    /// The role's own number.
    #[must_use]
    pub fn number(key: u64) -> u32 {
        key as u32
    }
}
