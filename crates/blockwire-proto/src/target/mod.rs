//! The target's role in the full feature phase (RFC 7143 sections 4.2, 4.6, 7 and 11).
//!
//! A file per duty: `session` (what there is), `inbound` (headers and PDUs that arrive), `request` (new tasks), `data_out`
//! (data from the initiator and R2T), `data_in` (data to the initiator), `respond` (answers, fence), `lifecycle` (abort,
//! lost connections, reassignment), `late` (data of tasks that ended), `keep_alive`; above error recovery level 0 `snack` (what is asked for), `resend` (what is
//! sent again), `recover` (Data-Out that is missing). `shuffle` is for testing initiators.

mod connection;
mod data_in;
mod data_out;
mod inbound;
mod keep_alive;
mod late;
mod lifecycle;
mod recover;
mod request;
mod resend;
mod respond;
mod session;
mod shuffle;
mod snack;
mod tags;
mod task;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use lifecycle::{RebindError, Rebound};
pub use respond::SendMark;
pub use session::{SessionNumbers, TargetEvent, TargetLimits, TargetSession};
pub use task::{Cdb, Condition, Finish, InProgress, OutProgress, R2t, Residual, Task, TaskKind, TaskState};
