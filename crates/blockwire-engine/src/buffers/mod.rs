//! Payload memory of a worker.

pub mod arena;
mod prefetch;

pub use arena::{Arena, Extent, SEGMENT};
pub use prefetch::prefetch;
