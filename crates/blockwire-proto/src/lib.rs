//! The full feature phase of RFC 7143, both roles, without I/O, clock, threads or payload.
//!
//! Bytes of headers and the time come in; headers to send, places of payload and events come out. Payload is named by
//! the task it belongs to and its offset in the task's transfer; whoever drives this crate moves it.

#![forbid(unsafe_code)]

pub mod endpoint;
pub mod fence;
pub mod initiator;
pub mod order;
pub mod params;
pub mod ranges;
pub mod reassign;
pub mod retain;
pub mod send_queue;
pub mod sequence;
pub mod slab;
pub mod target;
pub mod window;

pub use endpoint::{Destination, Endpoint, Fatal, FatalCode};
pub use params::{ConnIndex, ConnectionParams, Quirks, SessionParams};
pub use send_queue::{Direction, OutPdu, Payload, SendQueue};
pub use slab::{Slab, Slot};
