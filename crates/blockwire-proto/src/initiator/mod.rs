//! The initiator's full feature phase (RFC 7143 sections 4, 7 and 11), a file per duty.
//!
//! | file | duty |
//! |---|---|
//! | `task` | the task record and its table, initiator task tags |
//! | `session` | commands and the command window, ends of tasks |
//! | `connection` | connections, keep-alive |
//! | `acknowledge` | acknowledging where no commands go |
//! | `dispatch` | which PDU may come when: the receive half of `Endpoint`, StatSN |
//! | `status` | StatSN and ExpStatSN: what waits for what |
//! | `data_in` | placement of Data-In |
//! | `late_data` | Data-In out of the order of its numbers |
//! | `data_out` | unsolicited data, R2T, Data-Out |
//! | `response` | SCSI Response, status in Data-In, residuals |
//! | `control` | NOP, text, logout, reject, asynchronous messages |
//! | `logout` | what a logout stops and ends |
//! | `fast_abort` | data that stops when a function over several tasks is sent |
//! | `manage` | task management and what it does to tasks here |
//! | `retry_cover` | the numbered request that follows a command retry |
//! | `recovery` | what is remembered of losses |
//! | `snack` | asking for what was lost |
//! | `plug` | gaps in CmdSN, the ping that finds losses |
//! | `reassign` | tasks of a lost connection: freeze, TASK REASSIGN, command retry |

mod acknowledge;
mod connection;
mod control;
mod data_in;
mod data_out;
mod dispatch;
mod distribution;
mod fast_abort;
mod late_data;
mod logout;
mod manage;
mod plug;
mod reassign;
mod recovery;
mod response;
mod retry_cover;
mod session;
mod snack;
mod status;
mod task;
#[cfg(test)]
mod tests;

pub use distribution::Distribution;
pub use reassign::TaskLook;
pub use recovery::RecoveryCounters;
pub use session::{Command, Event, InitiatorSession, SubmitError};
pub use task::Outcome;
