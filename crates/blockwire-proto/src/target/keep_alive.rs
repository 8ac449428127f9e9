//! NOP both ways (RFC 7143 11.18, 11.19): pings answered, and pings of our own with their timers.

use blockwire_wire::bhs::FINAL;
use blockwire_wire::opcode::reject;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::connection::Ping;
use super::respond::SendMark;
use super::session::{TargetEvent, TargetSession};
use crate::endpoint::{Fatal, FatalCode};
use crate::params::ConnIndex;
use crate::send_queue::Payload;
use crate::slab::Slot;

impl TargetSession {
    /// Does what is due on a connection.
    ///
    /// # Errors
    /// The peer gave no sign of life in time.
    pub fn tick(&mut self, conn: ConnIndex, now: u64) -> Result<(), Fatal> {
        self.now = now;
        self.check_data(conn, now);
        let c = self.conn(conn);
        let interval = c.params.keep_alive_interval;
        if let Some(ping) = c.ping {
            if now >= ping.deadline {
                let what = "no answer to a NOP-In within the keep-alive timeout (RFC 7143 7.14)";
                return Err(Fatal { code: FatalCode::KeepAliveTimeout, what });
            }
        } else if interval > 0 && now >= c.last_heard.saturating_add(interval) {
            let deadline = now.saturating_add(c.params.keep_alive_timeout.max(1));
            let target_transfer_tag = self.unused_ttt();
            self.send_nop_in(conn, target_transfer_tag);
            let c = self.conn(conn);
            c.ping = Some(Ping { target_transfer_tag, deadline, stat_sn: c.stat_sn });
        }
        Ok(())
    }

    /// When `tick` has something to do on a connection.
    #[must_use]
    pub fn deadline(&self, conn: ConnIndex) -> Option<u64> {
        let c = self.conns.get(conn)?.as_deref()?;
        let alive = match c.ping {
            Some(ping) => Some(ping.deadline),
            None if c.params.keep_alive_interval > 0 => Some(c.last_heard.saturating_add(c.params.keep_alive_interval)),
            None => None,
        };
        let data = (c.data_check > 0).then_some(c.data_check);
        alive.into_iter().chain(data).filter(|at| *at < u64::MAX).min()
    }

    /// A NOP-In of ours: a ping with a Target Transfer Tag, or only current numbers without one.
    pub(super) fn send_nop_in(&mut self, conn: ConnIndex, target_transfer_tag: u32) {
        let (exp, max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let c = self.conn(conn);
        let mut bhs = Bhs::new(Opcode::NopIn, FINAL);
        bhs.set_initiator_task_tag(RESERVED_TAG);
        bhs.set_target_transfer_tag(target_transfer_tag);
        // 11.19.2: the next StatSN, not advanced
        bhs.set_stat_sn(c.stat_sn);
        bhs.set_exp_cmd_sn(exp);
        bhs.set_max_cmd_sn(max);
        c.queue.push(bhs, Payload::None, None, SendMark::PING);
    }

    /// Asks the peer to acknowledge what was sent (4.2.2.3.3).
    pub(super) fn solicit_acknowledgement(&mut self, conn: ConnIndex) {
        if self.conn(conn).ping.is_none() {
            let ttt = self.unused_ttt();
            self.send_nop_in(conn, ttt);
            let now = self.now;
            let c = self.conn(conn);
            // it stands in for a ping of the keep-alive, where there is one
            let patience = c.params.keep_alive_interval.saturating_add(c.params.keep_alive_timeout);
            let deadline = if c.params.keep_alive_interval > 0 {
                now.max(c.last_heard).saturating_add(patience)
            } else {
                u64::MAX
            };
            c.ping = Some(Ping { target_transfer_tag: ttt, deadline, stat_sn: c.stat_sn });
        }
    }

    /// An immediate NOP-Out is complete.
    pub(super) fn nop_complete(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        if bhs.initiator_task_tag() == RESERVED_TAG {
            self.free_told(conn, bhs);
            let c = self.conn(conn);
            if let Some(ping) = c.ping
                && ping.target_transfer_tag == bhs.target_transfer_tag()
            {
                c.ping = None;
                let stat_sn = c.stat_sn;
                if self.fence.waits_for(conn) && ping.stat_sn != stat_sn {
                    // it was asked before the answers that are waited for were sent
                    self.solicit_acknowledgement(conn);
                }
            } else if bhs.target_transfer_tag() != RESERVED_TAG {
                let what = "a NOP-Out that answers no ping of ours (RFC 7143 11.18.2)";
                self.events.push_back(TargetEvent::Violation { conn, what, header: *bhs });
                return self.reject(conn, bhs, reject::INVALID_PDU_FIELD);
            }
            return Ok(());
        }
        self.conn(conn).side_answers += 1;
        self.echo(conn, bhs, data, None, SendMark::SIDE)
    }

    /// A NOP-Out in command order has its turn.
    pub(super) fn answer_nop_in_order(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot];
        let (conn, header) = (task.conn, task.header);
        let data = std::mem::take(&mut task.control_data);
        self.control_bytes -= data.len() as u32;
        let congested = self.is_congested(conn);
        self.uncount(slot, congested);
        self.tasks[slot].state = super::TaskState::Responded;
        // never too many: they are bounded by the command window
        let _ = self.echo(conn, &header, &data, Some(slot), SendMark::STATUS);
    }

    fn echo(
        &mut self, conn: ConnIndex, request: &Bhs, data: &[u8], slot: Option<Slot>, mark: u32,
    ) -> Result<(), Fatal> {
        let (exp, max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let c = self.conn(conn);
        let mut bhs = Bhs::new(Opcode::NopIn, FINAL);
        bhs.set_lun(request.lun());
        bhs.set_initiator_task_tag(request.initiator_task_tag());
        bhs.set_target_transfer_tag(RESERVED_TAG);
        bhs.set_stat_sn(c.stat_sn);
        c.stat_sn = c.stat_sn.wrapping_add(1);
        bhs.set_exp_cmd_sn(exp);
        bhs.set_max_cmd_sn(max);
        // 11.19: the ping data, as much of it as the initiator takes in one PDU
        let keep = data.len().min(c.params.max_send_data_segment_length as usize);
        let payload = if keep == 0 { Payload::None } else { Payload::Inline(data[..keep].to_vec()) };
        self.keep_side(conn, &bhs, &data[..keep])?;
        self.push_side(conn, bhs, payload, slot, mark);
        Ok(())
    }
}
