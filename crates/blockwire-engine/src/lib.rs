//! The data plane: reactors, sockets, buffers and clocks around `blockwire-proto` and `blockwire-store`.
//!
//! This is the only crate with system calls of the network and the only one, with the buffer code, that uses `unsafe`.

pub mod bucket;
pub mod buffers;
pub mod calls;
pub mod clock;
pub mod core;
pub mod counters;
pub mod ending;
pub mod events;
pub mod initiator;
pub mod mailbox;
pub mod memory_pair;
pub mod plane;
pub mod range_locks;
pub mod receive;
pub mod stores;
pub mod sys;
pub mod target;
pub mod trace;
pub mod transmit;
pub mod transport;
pub mod worker;

pub use plane::Plane;

// What the boundary's arguments are made of, so that the binding needs no other crate.
pub use blockwire_proto::{ConnectionParams, Quirks, SessionParams};
pub use blockwire_store::{FilterSpec, OpenOptions};
pub use blockwire_wire::crc32c::append as crc32c;
