//! The receive half: which PDU may come, where its data goes, StatSN and the command window.

use blockwire_wire::bhs::STATUS_PRESENT;
use blockwire_wire::{Bhs, Deframer, Opcode, RESERVED_TAG, serial};

use super::session::InitiatorSession;
use super::status::Turn;
use super::task::State;
use crate::endpoint::{Destination, Endpoint, Fatal};
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
        self.now = now;
        let connection = self.connection(conn);
        connection.last_received = now;
        let bhs = *connection.deframer.bhs();
        let length = bhs.data_segment_length();
        if length > connection.params.max_recv_data_segment_length {
            return Err(Fatal::violation("a data segment longer than MaxRecvDataSegmentLength (RFC 7143 13.12)"));
        }
        match bhs.opcode() {
            Some(Opcode::DataIn) => return self.check_data_in(conn, &bhs),
            // above level 0 it may be a repetition, or ahead of what makes sense of it: its StatSN is looked at first
            Some(Opcode::ScsiResponse) if !self.recovers() => {
                self.check_response(conn, &bhs)?;
            }
            Some(Opcode::R2t | Opcode::TaskManagementResponse | Opcode::LogoutResponse) => {
                if length > 0 {
                    return Err(Fatal::violation("a data segment in a PDU that has none (RFC 7143 11.6, 11.8, 11.15)"));
                }
            }
            Some(
                Opcode::ScsiResponse | Opcode::NopIn | Opcode::TextResponse | Opcode::AsyncMessage | Opcode::Reject,
            ) => {}
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
        self.now = now;
        let connection = self.connection(conn);
        connection.last_received = now;
        let bhs = *connection.deframer.bhs();
        let Some(opcode) = bhs.opcode() else {
            return Err(Fatal::violation("an opcode that does not exist (RFC 7143 11.2.1.2)"));
        };
        if opcode != Opcode::NopIn {
            connection.last_data = now;
        }
        let current = connection.current.take();
        if let Some(slot) = current {
            self.release_hold(slot);
        }
        if !data_digest_ok {
            return self.discard(conn, opcode, &bhs); // nothing of the PDU was taken yet
        }
        let opened = self.update_window(&bhs)?;
        if !self.uncovered.is_empty() {
            self.cover_rest();
        }
        if opcode == Opcode::DataIn {
            // the data first: a DataACK must not follow the acknowledgement of the status (11.7.2)
            let slot = current.or_else(|| self.tasks.find(bhs.initiator_task_tag()));
            if let Some(slot) = slot
                && self.tasks[slot].state == State::Active
                && self.tasks[slot].conn == conn
            {
                self.take_data_in(slot, &bhs)?;
            }
            if bhs.flags() & STATUS_PRESENT == 0 {
                if opened && !self.waiting.is_empty() {
                    self.release_waiting();
                }
                return Ok(());
            }
        }
        if Self::consumes_stat_sn(opcode, &bhs) {
            match self.take_stat_sn(conn, &bhs, if opcode == Opcode::DataIn { &[] } else { control })? {
                Turn::Now => self.act(conn, &bhs, control)?,
                Turn::NowAndMore => {
                    self.act(conn, &bhs, control)?;
                    self.take_held(conn)?;
                }
                Turn::Later => {}
            }
        } else {
            self.act(conn, &bhs, control)?;
        }
        if !self.to_reassign.is_empty() {
            self.send_reassigns();
        }
        if opened && !self.waiting.is_empty() {
            self.release_waiting();
        }
        Ok(())
    }
}

impl InitiatorSession {
    /// Acts on a PDU whose turn it is; of a Data-In, on the status in it.
    #[inline]
    pub(super) fn act(&mut self, conn: ConnIndex, bhs: &Bhs, control: &[u8]) -> Result<(), Fatal> {
        match bhs.opcode() {
            Some(Opcode::DataIn) => {
                if let Some(slot) = self.tasks.find(bhs.initiator_task_tag())
                    && self.tasks[slot].state == State::Active
                    && self.tasks[slot].conn == conn
                {
                    self.on_status_in_data(slot, bhs)?;
                }
                Ok(())
            }
            Some(Opcode::ScsiResponse) => {
                let slot = self.check_response(conn, bhs)?;
                self.on_response(slot, bhs, control)
            }
            Some(Opcode::R2t) => self.on_r2t(conn, bhs),
            Some(Opcode::NopIn) => self.on_nop_in(conn, bhs, control),
            Some(Opcode::TextResponse) => self.on_text(conn, bhs, control),
            Some(Opcode::LogoutResponse) => self.on_logout(conn, bhs),
            Some(Opcode::TaskManagementResponse) => self.on_task_management(conn, bhs),
            Some(Opcode::Reject) => self.on_reject(conn, bhs, control),
            _ => self.on_async(conn, bhs, control),
        }
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
            self.room.note_window(exp, max);
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
