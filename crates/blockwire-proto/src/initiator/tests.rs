//! The initiator against a target written by hand, byte for byte from RFC 7143 section 11's figures.

mod acknowledge;
mod bounds;
mod connections;
mod digests;
mod distribution;
mod fast_abort;
mod fields;
mod hostile;
mod losses;
mod misbehaviour;
mod numbers;
mod orders;
mod peer;
mod recovery;
mod retries;
mod sequences;
mod traffic;
