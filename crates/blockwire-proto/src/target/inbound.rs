//! What arrives: each header is checked and gets a destination; each complete PDU takes effect.

use blockwire_wire::opcode::reject;
use blockwire_wire::{Bhs, Opcode};

use super::connection::Inbound;
use super::session::{TargetEvent, TargetSession};
use crate::endpoint::{Destination, Fatal, FatalCode};
use crate::params::ConnIndex;
use crate::send_queue::Direction;

impl TargetSession {
    pub(super) fn inbound_header(&mut self, conn: ConnIndex, now: u64) -> Result<Destination, Fatal> {
        self.now = now;
        let c = self.conn(conn);
        c.last_heard = now;
        let bhs = c.bhs();
        let length = bhs.data_segment_length();
        if length > c.params.max_recv_data_segment_length {
            return Err(Fatal::violation(
                "DataSegmentLength above the declared MaxRecvDataSegmentLength (RFC 7143 7.7, 13.12)",
            ));
        }
        let (inbound, destination) = match bhs.opcode() {
            Some(Opcode::ScsiCommand) => self.scsi_command_header(conn, &bhs)?,
            Some(Opcode::DataOut) => self.data_out_header(conn, &bhs),
            Some(Opcode::NopOut) => self.nop_header(conn, &bhs),
            Some(Opcode::TaskManagementRequest | Opcode::TextRequest | Opcode::LogoutRequest) => {
                self.control_header(conn, &bhs)
            }
            Some(Opcode::Snack) => self.snack_header(&bhs),
            Some(Opcode::LoginRequest) => {
                let what = "a Login Request in the full feature phase (RFC 7143 6.3)";
                (Inbound::Reject(reject::PROTOCOL_ERROR, what), Destination::Discard)
            }
            Some(_) => {
                return Err(Fatal::violation("a target's opcode from an initiator (RFC 7143 11.2.1.2)"));
            }
            None => {
                let what = "an opcode that RFC 7143 does not define (11.2.1.2)";
                (Inbound::Reject(reject::COMMAND_NOT_SUPPORTED, what), Destination::Discard)
            }
        };
        self.conn(conn).inbound = inbound;
        Ok(if length == 0 { Destination::None } else { destination })
    }

    pub(super) fn inbound_pdu(&mut self, conn: ConnIndex, control: &[u8], digest_ok: bool) -> Result<(), Fatal> {
        let c = self.conn(conn);
        let bhs = c.bhs();
        let inbound = std::mem::replace(&mut c.inbound, Inbound::Ignore);
        if inbound == Inbound::Snack && Self::is_data_ack(&bhs) {
            // its own ExpStatSN may release the task whose data it acknowledges
            self.snack(conn, &bhs)?;
            self.acknowledged(conn, bhs.exp_stat_sn());
            return Ok(());
        }
        match self.acknowledges(conn, &bhs) {
            Ok(conn) => self.acknowledged(conn, bhs.exp_stat_sn()),
            Err(cid) => self.acknowledged_frozen(cid, bhs.exp_stat_sn()),
        }
        if !digest_ok {
            return self.bad_data_digest(conn, &bhs, inbound);
        }
        match inbound {
            Inbound::Ignore => {}
            Inbound::Abandoned(slot) => self.bury(slot),
            Inbound::Request(slot) => self.request_complete(slot, control),
            Inbound::DataOut { slot, ttt, offset, length, last } => {
                self.data_out_complete(slot, ttt, offset, length, last);
            }
            Inbound::BadDataOut { slot, ttt, last, reason } => {
                self.reject(conn, &bhs, reason)?;
                self.data_out_closed(slot, ttt, last);
            }
            Inbound::Nop => self.nop_complete(conn, &bhs, control)?,
            Inbound::Snack => self.snack(conn, &bhs)?,
            Inbound::Reject(reason, what) => {
                self.events.push_back(TargetEvent::Violation { conn, what, header: bhs });
                self.reject(conn, &bhs, reason)?;
            }
        }
        Ok(())
    }

    /// The connection whose statuses the ExpStatSN of a PDU acknowledges: its own, but that of a Logout Request is of the
    /// connection to be closed (RFC 7143 11.14.4). Err: the CID of one that is gone.
    fn acknowledges(&self, conn: ConnIndex, bhs: &Bhs) -> Result<ConnIndex, u16> {
        let closes_one = bhs.opcode() == Some(Opcode::LogoutRequest) && bhs.flags() & 0x7f != 0;
        if !closes_one {
            return Ok(conn);
        }
        let cid = (bhs.target_transfer_tag() >> 16) as u16;
        self.connection_by_cid(cid).ok_or(cid)
    }

    /// RFC 7143 7.8: the PDU is rejected and discarded.
    fn bad_data_digest(&mut self, conn: ConnIndex, bhs: &Bhs, inbound: Inbound) -> Result<(), Fatal> {
        self.events.push_back(TargetEvent::DigestFailure { conn, header: *bhs });
        match inbound {
            Inbound::Request(slot) => {
                // its CmdSN was not received (7.3); above level 0 the initiator retries the command with all its data (7.2.1)
                self.forget_request(slot);
                self.reject(conn, bhs, reject::DATA_DIGEST_ERROR)?;
                if self.params.error_recovery_level == 0 {
                    // 7.3 has the initiator fill the gap in CmdSN. One whose only recovery is that of the session (7.1.5) does
                    // not, as open-iscsi: it waits for the command until its timers end. 7.8 lets either side escalate.
                    let what = "a wrong data digest in a command at ErrorRecoveryLevel 0 (RFC 7143 7.8)";
                    return Err(Fatal { code: FatalCode::DataDigest, what });
                }
                Ok(())
            }
            Inbound::DataOut { slot, ttt, last, .. } | Inbound::BadDataOut { slot, ttt, last, .. } => {
                // 7.8: MUST be answered with a Reject. Then either a recovery R2T follows once the sequence is over (a), or the
                // task ends with CHECK CONDITION once all data came (b). 7.3: ExpDataSN was advanced with the header.
                self.reject(conn, bhs, reject::DATA_DIGEST_ERROR)?;
                if self.params.error_recovery_level == 0 {
                    self.set_condition(slot, super::Condition::ProtocolServiceCrcError);
                }
                self.data_out_closed(slot, ttt, last);
                Ok(())
            }
            Inbound::Abandoned(slot) => {
                self.bury(slot);
                Ok(())
            }
            Inbound::Ignore => Ok(()),
            Inbound::Nop | Inbound::Snack | Inbound::Reject(..) => self.reject(conn, bhs, reject::DATA_DIGEST_ERROR),
        }
    }

    /// Where the data of a request or Data-Out goes.
    pub(super) fn task_destination(slot: crate::Slot, offset: u32) -> Destination {
        Destination::Task { slot, direction: Direction::Out, offset }
    }
}
