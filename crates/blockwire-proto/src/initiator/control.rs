//! PDUs that are no SCSI traffic: NOP, text, logout, reject, asynchronous messages.

use blockwire_wire::bhs::{FINAL, IMMEDIATE};
use blockwire_wire::opcode::reject;
use blockwire_wire::{BHS_LEN, Bhs, Opcode, RESERVED_TAG};

use super::session::{Event, InitiatorSession};
use super::task::{Kind, Purpose, State, Task};
use crate::endpoint::Fatal;
use crate::params::ConnIndex;
use crate::send_queue::Payload;
use crate::slab::Slot;

/// PDUs that belong to no task (answers to pings, SNACKs) and wait to be sent on one connection: a target that pings and
/// does not read cannot make them pile up.
const MOST_ANSWERS: usize = 256;

/// The last Response of a Logout Response that is defined (RFC 7143 11.15.1).
const CLEANUP_FAILED: u8 = 3;

/// Place of AsyncEvent in an Asynchronous Message (RFC 7143 11.9).
const ASYNC_EVENT_FIELD: usize = 36;
/// AsyncEvent 5 (11.9.1).
const TASKS_TERMINATED: u8 = 5;

impl InitiatorSession {
    /// Queues a keep-alive NOP-Out that asks for an answer (RFC 7143 11.18).
    pub(super) fn ping(&mut self, conn: ConnIndex) {
        let mut bhs = self.immediate_header(conn, Opcode::NopOut, FINAL);
        // without a free tag there is traffic enough; the timeout tells if there is not
        if let Some(slot) = self.own_request(conn, &mut bhs, Kind::Nop, Purpose::KeepAlive) {
            self.connection(conn).queue.push(bhs, Payload::None, Some(slot), 0);
        }
    }

    /// A task record for a request of the plane's own; puts its tag into `bhs`.
    pub(super) fn own_request(&mut self, conn: ConnIndex, bhs: &mut Bhs, kind: Kind, purpose: Purpose) -> Option<Slot> {
        let slot = self.tasks.take()?;
        let task = &mut self.tasks[slot];
        bhs.set_initiator_task_tag(task.tag());
        task.bhs = *bhs;
        task.kind = kind;
        task.purpose = purpose;
        task.state = State::Active;
        task.conn = conn;
        task.context = 0;
        self.connection(conn).tasks += 1;
        Some(slot)
    }

    /// The control task that a response answers.
    pub(super) fn answered(&self, conn: ConnIndex, bhs: &Bhs, kind: Kind, what: &'static str) -> Result<Slot, Fatal> {
        let slot = self.tasks.find(bhs.initiator_task_tag()).ok_or(Fatal::violation(what))?;
        let task = &self.tasks[slot];
        if task.kind != kind || task.conn != conn || task.state != State::Active {
            return Err(Fatal::violation(what));
        }
        Ok(slot)
    }

    fn hand_up(&mut self, conn: ConnIndex, context: u64, bhs: &Bhs, data: &[u8]) {
        self.events.push_back(Event::Control { conn, context, bhs: *bhs, data: data.to_vec() });
    }

    /// Queues a PDU that belongs to no task and that the target asked for.
    ///
    /// # Errors
    /// Too many wait: the target asks and does not read.
    pub(super) fn queue_answer(&mut self, conn: ConnIndex, bhs: Bhs, payload: Payload) -> Result<(), Fatal> {
        let queue = &mut self.connection(conn).queue;
        if queue.len() >= MOST_ANSWERS && queue.iter().filter(|pdu| pdu.slot.is_none()).count() >= MOST_ANSWERS {
            return Err(Fatal::violation(
                "more requests for an answer than answers that are read (RFC 7143 7.7, 11.18)",
            ));
        }
        queue.push(bhs, payload, None, 0);
        Ok(())
    }

    /// NOP-In (RFC 7143 11.19): the answer to a ping, or a ping of the target.
    pub(super) fn on_nop_in(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        if bhs.initiator_task_tag() == RESERVED_TAG {
            if self.recovers() {
                // it carries the next StatSN (11.19.2): statuses below it were sent (7.1.4.2)
                self.note_statuses(conn, bhs.stat_sn(), true);
            }
            if bhs.target_transfer_tag() == RESERVED_TAG {
                return Ok(()); // tells its sequence numbers, wants no answer
            }
            let mut answer = self.immediate_header(conn, Opcode::NopOut, FINAL);
            answer.set_initiator_task_tag(RESERVED_TAG);
            answer.set_target_transfer_tag(bhs.target_transfer_tag());
            answer.set_lun(bhs.lun());
            let connection = self.connection(conn);
            let most = connection.params.max_send_data_segment_length as usize;
            let echo = &data[..data.len().min(most)];
            let payload = if echo.is_empty() { Payload::None } else { Payload::Inline(echo.to_vec()) };
            return self.queue_answer(conn, answer, payload);
        }
        if bhs.target_transfer_tag() != RESERVED_TAG {
            return Err(Fatal::violation("an answer to a ping that is a ping itself (RFC 7143 7.7, 11.19)"));
        }
        if self.connection(conn).probed && self.tasks.find(bhs.initiator_task_tag()).is_none() {
            self.recovered.duplicates += 1;
            return Ok(()); // an answer to one that was given up for a later one
        }
        let slot = self.answered(conn, bhs, Kind::Nop, "NOP-In for a ping that was not sent (RFC 7143 11.19.1)")?;
        let task = &self.tasks[slot];
        let (context, purpose, told) = (task.context, task.purpose, task.bhs.exp_stat_sn());
        self.free(slot);
        self.connection(conn).settle(told);
        match purpose {
            Purpose::KeepAlive => self.connection(conn).ping_sent = None,
            Purpose::Acknowledge => self.connection(conn).acknowledging = false,
            Purpose::Probe => return self.on_probe(conn, bhs.initiator_task_tag()),
            Purpose::Plug => self.plug(conn),
            _ => self.hand_up(conn, context, bhs, data),
        }
        Ok(())
    }

    /// Text Response (RFC 7143 11.11). With a Target Transfer Tag the exchange goes on under the same task tag.
    pub(super) fn on_text(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        let slot = self.answered(conn, bhs, Kind::Text, "Text Response to no Text Request (RFC 7143 11.11)")?;
        let context = self.tasks[slot].context;
        // 11.10.4: with the F bit the tag MUST be ignored
        if bhs.is_final() || bhs.target_transfer_tag() == RESERVED_TAG {
            self.free(slot);
        } else {
            self.tasks[slot].state = State::Paused;
            if let Some(old) = self.connection(conn).text.replace(slot) {
                self.free(old);
            }
        }
        self.hand_up(conn, context, bhs, data);
        Ok(())
    }

    /// Logout Response (RFC 7143 11.15).
    pub(super) fn on_logout(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        let slot = self.answered(conn, bhs, Kind::Logout, "Logout Response to no Logout Request (RFC 7143 11.15)")?;
        if bhs.response() > CLEANUP_FAILED {
            return Err(Fatal::violation("a reserved Response in a Logout Response (RFC 7143 11, 11.15.1)"));
        }
        let task = &self.tasks[slot];
        let (context, request) = (task.context, task.bhs);
        self.free(slot);
        self.end_logout(conn, &request, bhs.response());
        self.hand_up(conn, context, bhs, &[]);
        Ok(())
    }

    /// Asynchronous Message (RFC 7143 11.9): what to do about it is decided above.
    pub(super) fn on_async(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        if bhs.0[ASYNC_EVENT_FIELD] == TASKS_TERMINATED && self.params.fast_abort {
            self.on_tasks_terminated(conn, bhs.lun())?;
        }
        self.hand_up(conn, 0, bhs, data);
        Ok(())
    }

    /// The target terminates all tasks of a logical unit under FastAbort (RFC 7143 11.9.1, event 5): first their data stops,
    /// then the message is acknowledged with a NOP-Out that asks for no answer and carries the LUN.
    fn on_tasks_terminated(&mut self, conn: ConnIndex, lun: u64) -> Result<(), Fatal> {
        let here = |task: &Task| task.is_active_on(conn) && task.kind == Kind::Scsi && task.bhs.lun() == lun;
        for slot in self.tasks.slots(here) {
            self.drop_data_out(slot);
        }
        let mut acknowledgement = self.immediate_header(conn, Opcode::NopOut, FINAL);
        acknowledgement.set_initiator_task_tag(RESERVED_TAG);
        acknowledgement.set_lun(lun);
        self.queue_answer(conn, acknowledgement, Payload::None)
    }

    /// Reject (RFC 7143 11.17). It ends a request only when it is about the request PDU itself (7.3).
    pub(super) fn on_reject(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        match bhs.response() {
            reject::NEGOTIATION_RESET => {
                // MUST be treated as a negotiation failure that ends the connection (11.17.1, note 3)
                return Err(Fatal::violation(
                    "a negotiation was reset by the deprecated Reject reason (RFC 7143 11.17.1)",
                ));
            }
            reject::DATA_DIGEST_ERROR..=reject::WAITING_FOR_LOGOUT => {}
            _ => return Err(Fatal::violation("a Reject with a reason that is not defined (RFC 7143 11, 11.17.1)")),
        }
        let mut context = 0;
        if let Some(header) = data.first_chunk::<BHS_LEN>() {
            let rejected = Bhs(*header);
            let slot = self.tasks.find(rejected.initiator_task_tag());
            let same = slot.filter(|s| {
                let task = &self.tasks[*s];
                let opcode = |b: &Bhs| b.0[0] & !IMMEDIATE;
                task.conn == conn && task.state == State::Active && opcode(&task.bhs) == opcode(&rejected)
            });
            if let Some(slot) = same {
                let task = &self.tasks[slot];
                if task.kind == Kind::Scsi {
                    self.command_rejected(conn, slot, bhs.response())?;
                } else {
                    let purpose = task.purpose;
                    context = task.context;
                    self.note_hole(slot);
                    self.free(slot);
                    match purpose {
                        Purpose::KeepAlive => self.connection(conn).ping_sent = None,
                        Purpose::Acknowledge => self.connection(conn).acknowledging = false,
                        _ => {}
                    }
                    self.own_lost(purpose);
                    self.plug(conn);
                }
            } else if Self::is_snack_reject(bhs.response(), &rejected) {
                self.snack_rejected(conn, &rejected)?;
            }
        }
        self.hand_up(conn, context, bhs, data);
        Ok(())
    }
}
