//! The initiator's side: sessions that any thread may use, and their background on a worker.
//!
//! A session has one state lock, never held across a system call that waits, and a reader baton. A caller that waits
//! takes the baton, waits in `recv` on its own thread and processes what comes for everybody; other callers send under the
//! lock and park; who is done hands the baton on. While callers are at it the sockets are disarmed in the worker's
//! epoll; the worker takes them back when nobody used the session for a few milliseconds, so that NOP-In, asynchronous
//! messages and completions of the plane's event queue need no thread of the program.
//!
//! | file | duty |
//! |---|---|
//! | `cdb` | CDBs of block requests |
//! | `request` | requests, completions, where a task's memory is |
//! | `side` | the protocol session with memory, queues and events: what the receive and send loops work on |
//! | `session` | the lock, connections: adopt, release, configure, loss |
//! | `live` | looking at and changing a live session: query, reassign, configure, statistics |
//! | `patience` | how much a reader lets arrive before it is woken |
//! | `drive` | the baton: waiting on the caller's thread |
//! | `calls` | submit, wait, execute, cancel, queues |
//! | `background` | what the worker does for sessions |
//! | `load`, `histogram` | the load generator |

mod background;
mod calls;
mod cdb;
mod drive;
mod histogram;
mod live;
mod load;
mod patience;
mod request;
mod session;
mod side;

pub use background::Background;
pub use calls::Check;
pub use cdb::{BlockRequest, IoKind};
pub use histogram::Histogram;
pub use load::{LoadReport, LoadSpec, LoadTable};
pub use request::{CommandRequest, Executed, Memory};
pub use session::InitiatorSession;
