//! The harness as a library for the fuzz targets.

#[path = "../harness/mod.rs"]
pub mod harness;
