//! The initiator's full feature phase (RFC 7143 sections 4, 7 and 11), a file per duty.
//!
//! | file | duty |
//! |---|---|
//! | `task` | the task record and its table, initiator task tags |
//! | `session` | commands and the command window, ends of tasks |
//! | `connection` | connections, keep-alive |
//! | `dispatch` | which PDU may come when: the receive half of `Endpoint`, StatSN |
//! | `data_in` | placement of Data-In |
//! | `data_out` | unsolicited data, R2T, Data-Out |
//! | `response` | SCSI Response, status in Data-In, residuals |
//! | `control` | NOP, text, logout, reject, asynchronous messages |
//! | `manage` | task management and what it does to tasks here |
//! | `reassign` | tasks of a lost connection: freeze, TASK REASSIGN, command retry |

mod connection;
mod control;
mod data_in;
mod data_out;
mod dispatch;
mod manage;
mod reassign;
mod response;
mod session;
mod task;
#[cfg(test)]
mod tests;

pub use reassign::TaskLook;
pub use session::{Command, Event, InitiatorSession, SubmitError};
pub use task::Outcome;
