//! Logout (RFC 7143 11.14, 11.15): what stops before it, and what its answer means for the tasks.

use blockwire_wire::Bhs;

use super::session::InitiatorSession;
use crate::params::ConnIndex;
use crate::slab::Slot;

/// Reason codes (RFC 7143 11.14.1).
const CLOSE_SESSION: u8 = 0;
const RECOVERY: u8 = 2;
const DONE: u8 = 0;
/// CID of a Logout Request (11.14.2): bytes 20 and 21.
fn logged_out_cid(request: &Bhs) -> u16 {
    (request.target_transfer_tag() >> 16) as u16
}

impl InitiatorSession {
    /// A Logout Request is on its way: no new request follows it on a connection that it closes (11.14 MUST NOT). One for
    /// another CID does not close the connection that carries it.
    pub(super) fn begin_logout(&mut self, request: &Bhs) {
        let everything = request.flags() & 0x7f == CLOSE_SESSION;
        let cid = logged_out_cid(request);
        for connection in self.connections.iter_mut().flatten() {
            if everything || connection.params.cid == cid {
                connection.logging_out = true;
            }
        }
    }

    /// ExpStatSN of a Logout Request is that of the connection to be closed (11.14.4), which need not be the one that
    /// carries it: what the initiator has of the statuses there is over at the target.
    pub(super) fn number_logout(&mut self, slot: Slot) {
        let request = &self.tasks[slot].bhs;
        if request.flags() & 0x7f == CLOSE_SESSION {
            return;
        }
        let cid = logged_out_cid(request);
        if let Some(number) = self.last_exp_stat_sn(cid) {
            self.tasks[slot].bhs.set_exp_stat_sn(number);
        }
    }

    /// ExpStatSN of the connection with this CID, or of the last one of it that there was: what a login in its place tells
    /// (RFC 7143 11.12.9).
    #[must_use]
    pub fn last_exp_stat_sn(&self, cid: u16) -> Option<u32> {
        let live = self.connections.iter().flatten().find(|c| c.params.cid == cid).map(|c| c.exp_stat_sn);
        live.or_else(|| self.gone.iter().find(|(of, _)| *of == cid).map(|(_, number)| *number))
    }

    /// Keeps what `number_logout` tells of a connection that is lost.
    pub(super) fn note_gone(&mut self, cid: u16, exp_stat_sn: u32) {
        self.gone.retain(|(of, _)| *of != cid);
        self.gone.push((cid, exp_stat_sn));
    }

    /// The Logout Response (11.15): tasks of a connection that was closed are over at the target; those of one that was
    /// removed for recovery wait there. Which it was decides when the connection goes.
    pub(super) fn end_logout(&mut self, conn: ConnIndex, request: &Bhs, response: u8) {
        let reason = request.flags() & 0x7f;
        let cid = logged_out_cid(request);
        for connection in self.connections.iter_mut().flatten() {
            if reason == CLOSE_SESSION || connection.params.cid == cid {
                if response == DONE {
                    connection.logged_out = Some(reason == RECOVERY);
                } else {
                    connection.logging_out = false;
                }
            }
        }
        if response != DONE {
            self.release_waiting(); // the connection takes requests again
        }
        // the target has discarded what it had not acknowledged (11.14), and ExpCmdSN of this answer says so
        self.plug(conn);
    }
}
