//! What every fuzz target does with its bytes. No dependency but the crates under test: the same code runs under libFuzzer
//! (`fuzz_targets/`) and in `cargo test` (`crates/blockwire-proto/tests/fuzz_replay.rs`).
//!
//! A run is a pure function of its bytes. It ends quietly, or panics where a rule is broken.

pub mod carry;
pub mod deframer;
pub mod initiator;
pub mod input;
pub mod pair;
pub mod target;
pub mod target_peer;
pub mod target_watch;
