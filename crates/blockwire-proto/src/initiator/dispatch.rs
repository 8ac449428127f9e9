//! The receive half: which PDU may come, where its data goes, StatSN and the command window.

use blockwire_wire::bhs::STATUS_PRESENT;
use blockwire_wire::{Bhs, Deframer, Opcode, RESERVED_TAG, serial};

use super::session::InitiatorSession;
use crate::endpoint::{Destination, Endpoint, Fatal, FatalCode};
use crate::params::ConnIndex;
use crate::send_queue::SendQueue;

impl Endpoint for InitiatorSession {
    #[inline]
    fn deframer(&mut self, conn: ConnIndex) -> &mut Deframer {
        &mut self.connection(conn).deframer
    }

    /// The send queue, filled up with Data-Out as far as it goes.
    #[inline]
    fn send_queue(&mut self, conn: ConnIndex) -> &mut SendQueue {
        self.pump(conn);
        &mut self.connection(conn).queue
    }

    #[inline]
    fn header(&mut self, conn: ConnIndex, now: u64) -> Result<Destination, Fatal> {
        let connection = self.connection(conn);
        connection.last_received = now;
        let bhs = *connection.deframer.bhs();
        let length = bhs.data_segment_length();
        if length > connection.params.max_recv_data_segment_length {
            return Err(Fatal::violation("a data segment longer than MaxRecvDataSegmentLength (RFC 7143 13.12)"));
        }
        if bhs.ahs_len() > 0 {
            return Err(Fatal::violation("an AHS in a PDU of the target (RFC 7143 11.2.2)"));
        }
        match bhs.opcode() {
            Some(Opcode::DataIn) => return self.check_data_in(conn, &bhs),
            Some(Opcode::ScsiResponse) => {
                self.check_response(conn, &bhs)?;
            }
            Some(Opcode::R2t | Opcode::TaskManagementResponse | Opcode::LogoutResponse) => {
                if length > 0 {
                    return Err(Fatal::violation("a data segment in a PDU that has none (RFC 7143 11.6, 11.8, 11.15)"));
                }
            }
            Some(Opcode::NopIn | Opcode::TextResponse | Opcode::AsyncMessage | Opcode::Reject) => {}
            Some(Opcode::LoginResponse) => {
                return Err(Fatal::violation("a Login Response in the full feature phase (RFC 7143 6.3)"));
            }
            Some(_) => return Err(Fatal::violation("a PDU that only an initiator sends (RFC 7143 11.2.1.2)")),
            None => return Err(Fatal::violation("an opcode that does not exist (RFC 7143 11.2.1.2)")),
        }
        Ok(if length == 0 { Destination::None } else { Destination::Control })
    }

    #[inline]
    fn pdu(&mut self, conn: ConnIndex, control: &[u8], data_digest_ok: bool, now: u64) -> Result<(), Fatal> {
        let connection = self.connection(conn);
        connection.last_received = now;
        let bhs = *connection.deframer.bhs();
        let current = connection.current.take();
        if let Some(slot) = current {
            self.release_hold(slot);
        }
        if !data_digest_ok {
            // recovery level 0 has no other answer (7.8); level 1 would ask again by SNACK, which the task's ranges
            // and number allow: nothing of the PDU was taken yet
            return Err(Fatal { code: FatalCode::DataDigest, what: "a wrong data digest (RFC 7143 7.8)" });
        }
        let Some(opcode) = bhs.opcode() else {
            return Err(Fatal::violation("an opcode that does not exist (RFC 7143 11.2.1.2)"));
        };
        self.take_stat_sn(conn, opcode, &bhs)?;
        let opened = self.update_window(&bhs)?;
        match opcode {
            Opcode::DataIn => {
                let slot = current.or_else(|| self.tasks.find(bhs.initiator_task_tag()));
                if let Some(slot) = slot
                    && self.tasks[slot].state != super::task::State::Ended
                {
                    self.take_data_in(conn, slot, &bhs)?;
                    if bhs.flags() & STATUS_PRESENT != 0 {
                        self.on_status_in_data(slot, &bhs)?;
                    }
                }
            }
            Opcode::ScsiResponse => {
                let slot = self.check_response(conn, &bhs)?;
                self.on_response(slot, &bhs, control)?;
            }
            Opcode::R2t => self.on_r2t(conn, &bhs)?,
            Opcode::NopIn => self.on_nop_in(conn, &bhs, control)?,
            Opcode::TextResponse => self.on_text(conn, &bhs, control)?,
            Opcode::LogoutResponse => self.on_logout(conn, &bhs)?,
            Opcode::TaskManagementResponse => self.on_task_management(conn, &bhs)?,
            Opcode::Reject => self.on_reject(conn, &bhs, control)?,
            _ => self.on_async(conn, &bhs, control),
        }
        if opened && !self.waiting.is_empty() {
            self.release_waiting();
        }
        Ok(())
    }
}

impl InitiatorSession {
    /// StatSN of a PDU against ExpStatSN (RFC 7143 4.2.2.2).
    #[inline]
    fn take_stat_sn(&mut self, conn: ConnIndex, opcode: Opcode, bhs: &Bhs) -> Result<(), Fatal> {
        if !Self::consumes_stat_sn(opcode, bhs) {
            return Ok(());
        }
        let connection = self.connection(conn);
        if bhs.stat_sn() != connection.exp_stat_sn {
            let what = if serial::less_than(connection.exp_stat_sn, bhs.stat_sn()) {
                "a StatSN ahead of ExpStatSN: a status is missing (RFC 7143 4.2.2.2, 7.5)"
            } else {
                "a StatSN that was used already (RFC 7143 4.2.2.2)"
            };
            return Err(Fatal { code: FatalCode::SequenceGap, what });
        }
        connection.exp_stat_sn = connection.exp_stat_sn.wrapping_add(1);
        Ok(())
    }

    /// ExpCmdSN and MaxCmdSN of any PDU of the target (RFC 7143 4.2.2.1). True when the window grew.
    #[inline]
    fn update_window(&mut self, bhs: &Bhs) -> Result<bool, Fatal> {
        let (exp, max) = (bhs.exp_cmd_sn(), bhs.max_cmd_sn());
        if serial::less_than(max, exp.wrapping_sub(1)) {
            return Ok(false); // both are ignored then
        }
        if serial::less_than(self.exp_cmd_sn, exp) {
            if serial::less_than(self.cmd_sn, exp) {
                return Err(Fatal::violation("ExpCmdSN acknowledges a command that was not sent (RFC 7143 4.2.2.1)"));
            }
            self.exp_cmd_sn = exp;
        }
        if serial::less_than(self.max_cmd_sn, max) {
            self.max_cmd_sn = max;
            return Ok(true);
        }
        Ok(false)
    }

    /// A header of the plane's own, for this connection: I bit, current CmdSN, ExpStatSN.
    pub(super) fn immediate_header(&mut self, conn: ConnIndex, opcode: Opcode, flags: u8) -> Bhs {
        let mut bhs = Bhs::new(opcode, flags);
        bhs.set_immediate();
        bhs.set_cmd_sn(self.cmd_sn);
        bhs.set_exp_stat_sn(self.connection(conn).exp_stat_sn);
        bhs.set_target_transfer_tag(RESERVED_TAG);
        bhs
    }
}
