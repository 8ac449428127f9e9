//! Payload memory of a worker.

pub mod arena;

pub use arena::{Arena, Extent, SEGMENT};
