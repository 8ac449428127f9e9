//! Data of tasks that a function over several of them is about to end, in a session with TaskReporting=FastAbort (RFC 7143
//! 4.2.3.4 a): from the moment the function is sent none of it leaves on the function's connection.
//!
//! It is put by, not dropped: a target that refuses the function still waits for it.

use blockwire_wire::opcode::function;
use blockwire_wire::{Bhs, RESERVED_TAG, serial};

use super::connection::Connection;
use super::data_out::Burst;
use super::session::InitiatorSession;
use super::task::{Kind, Purpose, State, Task};
use crate::params::ConnIndex;

/// Whether a task is one that a function over several tasks ends (RFC 7143 4.2.3.2): of its logical unit, and before it in
/// command order.
pub(super) fn covers(request: &Bhs, task: &Task) -> bool {
    let function = request.function();
    let one_unit =
        matches!(function, function::ABORT_TASK_SET | function::CLEAR_TASK_SET | function::LOGICAL_UNIT_RESET);
    let all_units = matches!(function, function::TARGET_WARM_RESET | function::TARGET_COLD_RESET);
    task.kind == Kind::Scsi
        && (all_units || (one_unit && task.bhs.lun() == request.lun()))
        && serial::less_than(task.bhs.cmd_sn(), request.cmd_sn())
}

impl Connection {
    /// Notes a run of Data-Out PDUs to be sent, or puts it by. Unsolicited data keeps the order of its commands
    /// (RFC 7143 4.2.5.2): it waits behind what was put by before it.
    pub(super) fn add_burst(&mut self, burst: Burst, is_held: bool) {
        let is_unsolicited = |burst: &Burst| burst.target_transfer_tag == RESERVED_TAG;
        if is_held || (is_unsolicited(&burst) && self.held.iter().any(is_unsolicited)) {
            self.held.push(burst);
        } else {
            self.bursts.push_back(burst);
        }
    }
}

impl InitiatorSession {
    /// A task management function was queued, or one ended: what it covers on its connection sends no data, the rest does.
    pub(super) fn sort_data_out(&mut self, conn: ConnIndex) {
        if !self.params.fast_abort || !matches!(self.connections.get(conn), Some(Some(_))) {
            return;
        }
        let on_its_way = |t: &Task| {
            t.conn == conn && t.state == State::Active && t.kind == Kind::TaskManagement && t.purpose == Purpose::Caller
        };
        let requests: Vec<Bhs> = self.tasks.slots(on_its_way).into_iter().map(|slot| self.tasks[slot].bhs).collect();
        for slot in self.tasks.slots(|t| t.kind == Kind::Scsi && t.conn == conn && t.state == State::Active) {
            let task = &mut self.tasks[slot];
            task.is_quiet = requests.iter().any(|request| covers(request, task));
        }
        let connection = self.connections[conn].as_mut().expect("looked at above");
        let mut all = std::mem::take(&mut connection.held);
        all.extend(connection.bursts.drain(..));
        for burst in all {
            let is_quiet = self.tasks[burst.slot].is_quiet;
            connection.add_burst(burst, is_quiet);
        }
    }
}
