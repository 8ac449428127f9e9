//! The 48-byte Basic Header Segment (RFC 7143 11.2.1) with the fields of every PDU type by name.
//!
//! One type serves all PDU families: the families share the position of most fields, and a header is looked at
//! once. Which field means something in which PDU is said at each accessor.

use crate::opcode::Opcode;

/// Length of the Basic Header Segment in bytes.
pub const BHS_LEN: usize = 48;

/// The reserved value of Initiator Task Tag, Target Transfer Tag and Referenced Task Tag (RFC 7143 11.2.1.8).
pub const RESERVED_TAG: u32 = 0xffff_ffff;

/// A Basic Header Segment as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bhs(pub [u8; BHS_LEN]);

impl Default for Bhs {
    fn default() -> Self {
        Self([0; BHS_LEN])
    }
}

impl std::fmt::Debug for Bhs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bhs({:?} ", self.opcode())?;
        for chunk in self.0.chunks(4) {
            for byte in chunk {
                write!(f, "{byte:02x}")?;
            }
            write!(f, " ")?;
        }
        write!(f, ")")
    }
}

macro_rules! field_u32 {
    ($(#[$doc:meta])* $get:ident, $set:ident, $at:expr) => {
        $(#[$doc])*
        #[inline]
        #[must_use]
        pub fn $get(&self) -> u32 {
            self.u32_at($at)
        }
        $(#[$doc])*
        #[inline]
        pub fn $set(&mut self, value: u32) {
            self.0[$at..$at + 4].copy_from_slice(&value.to_be_bytes());
        }
    };
}

macro_rules! field_u8 {
    ($(#[$doc:meta])* $get:ident, $set:ident, $at:expr) => {
        $(#[$doc])*
        #[inline]
        #[must_use]
        pub fn $get(&self) -> u8 {
            self.0[$at]
        }
        $(#[$doc])*
        #[inline]
        pub fn $set(&mut self, value: u8) {
            self.0[$at] = value;
        }
    };
}

/// F bit: final PDU of a sequence (byte 1).
pub const FINAL: u8 = 0x80;
/// SCSI Command R bit (11.3.1): data is expected from the target.
pub const READ: u8 = 0x40;
/// SCSI Command W bit (11.3.1): data goes to the target.
pub const WRITE: u8 = 0x20;
/// Text C bit (11.10.2): the text continues in the next PDU.
pub const CONTINUE: u8 = 0x40;
/// Data-In A bit (11.7.2): acknowledgement by SNACK is asked for.
pub const ACKNOWLEDGE: u8 = 0x40;
/// Data-In S bit (11.7.3): status is in this PDU.
pub const STATUS_PRESENT: u8 = 0x01;
/// SCSI Response and Data-In O bit (11.4.1): residual overflow.
pub const OVERFLOW: u8 = 0x04;
/// SCSI Response and Data-In U bit (11.4.1): residual underflow.
pub const UNDERFLOW: u8 = 0x02;
/// SCSI Response o bit (11.4.1): bidirectional read residual overflow.
pub const BIDI_OVERFLOW: u8 = 0x10;
/// SCSI Response u bit (11.4.1): bidirectional read residual underflow.
pub const BIDI_UNDERFLOW: u8 = 0x08;
/// I bit (byte 0): immediate delivery.
pub const IMMEDIATE: u8 = 0x40;

impl Bhs {
    /// A zeroed header with the opcode and, in byte 1, `flags`.
    #[inline]
    #[must_use]
    pub fn new(opcode: Opcode, flags: u8) -> Self {
        let mut bhs = Self::default();
        bhs.0[0] = opcode as u8;
        bhs.0[1] = flags;
        bhs
    }

    #[inline]
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// The opcode, or None when it is not one of RFC 7143's.
    #[inline]
    #[must_use]
    pub fn opcode(&self) -> Option<Opcode> {
        Opcode::from_bits(self.0[0])
    }

    /// I bit (11.2.1.1).
    #[inline]
    #[must_use]
    pub fn is_immediate(&self) -> bool {
        self.0[0] & IMMEDIATE != 0
    }

    #[inline]
    pub fn set_immediate(&mut self) {
        self.0[0] |= IMMEDIATE;
    }

    field_u8!(
        /// Byte 1: F bit and the opcode-specific flags.
        flags, set_flags, 1
    );

    /// F bit.
    #[inline]
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.0[1] & FINAL != 0
    }

    /// TotalAHSLength in bytes (the field counts four-byte words, 11.2.1.5).
    #[inline]
    #[must_use]
    pub fn ahs_len(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    #[inline]
    pub fn set_ahs_len(&mut self, bytes: usize) {
        debug_assert!(bytes.is_multiple_of(4) && bytes <= 1020);
        self.0[4] = (bytes / 4) as u8;
    }

    /// DataSegmentLength in bytes, without padding (11.2.1.6).
    #[inline]
    #[must_use]
    pub fn data_segment_length(&self) -> u32 {
        self.u32_at(4) & 0x00ff_ffff
    }

    #[inline]
    pub fn set_data_segment_length(&mut self, bytes: u32) {
        debug_assert!(bytes <= 0x00ff_ffff);
        let ahs = self.0[4];
        self.0[4..8].copy_from_slice(&bytes.to_be_bytes());
        self.0[4] = ahs;
    }

    /// LUN field as a big-endian number (11.2.1.7).
    #[inline]
    #[must_use]
    pub fn lun(&self) -> u64 {
        (u64::from(self.u32_at(8)) << 32) | u64::from(self.u32_at(12))
    }

    #[inline]
    pub fn set_lun(&mut self, lun: u64) {
        self.0[8..16].copy_from_slice(&lun.to_be_bytes());
    }

    field_u32!(
        /// Initiator Task Tag (11.2.1.8).
        initiator_task_tag, set_initiator_task_tag, 16
    );
    field_u32!(
        /// Target Transfer Tag of Data-Out, Data-In, R2T, NOP, Text, SNACK.
        target_transfer_tag, set_target_transfer_tag, 20
    );
    field_u32!(
        /// Expected Data Transfer Length of a SCSI Command (11.3.4).
        expected_data_transfer_length, set_expected_data_transfer_length, 20
    );
    field_u32!(
        /// Referenced Task Tag of task management (11.5.5).
        referenced_task_tag, set_referenced_task_tag, 20
    );
    field_u32!(
        /// SNACK Tag of a SCSI Response (11.4.6).
        snack_tag, set_snack_tag, 20
    );
    field_u32!(
        /// CmdSN of a request.
        cmd_sn, set_cmd_sn, 24
    );
    field_u32!(
        /// StatSN of a response.
        stat_sn, set_stat_sn, 24
    );
    field_u32!(
        /// ExpStatSN of a request.
        exp_stat_sn, set_exp_stat_sn, 28
    );
    field_u32!(
        /// ExpCmdSN of a response.
        exp_cmd_sn, set_exp_cmd_sn, 28
    );
    field_u32!(
        /// MaxCmdSN of a response.
        max_cmd_sn, set_max_cmd_sn, 32
    );
    field_u32!(
        /// RefCmdSN of a task management request (11.5.6).
        ref_cmd_sn, set_ref_cmd_sn, 32
    );
    field_u32!(
        /// ExpDataSN of a SCSI Response (11.4.8) or a task management request (11.5.7).
        exp_data_sn, set_exp_data_sn, 36
    );
    field_u32!(
        /// DataSN of Data-In and Data-Out (11.7.5), R2TSN of R2T (11.8.3).
        data_sn, set_data_sn, 36
    );
    field_u32!(
        /// Buffer Offset of Data-In, Data-Out and R2T (11.7.6).
        buffer_offset, set_buffer_offset, 40
    );
    field_u32!(
        /// BegRun of SNACK (11.16.4).
        beg_run, set_beg_run, 40
    );
    field_u32!(
        /// RunLength of SNACK (11.16.5).
        run_length, set_run_length, 44
    );
    field_u32!(
        /// Residual Count of a SCSI Response or a Data-In with status (11.4.5).
        residual_count, set_residual_count, 44
    );
    field_u32!(
        /// Bidirectional Read Residual Count of a SCSI Response (11.4.5.1).
        bidirectional_residual_count, set_bidirectional_residual_count, 40
    );
    field_u32!(
        /// Desired Data Transfer Length of R2T (11.8.4).
        desired_data_transfer_length, set_desired_data_transfer_length, 44
    );
    field_u8!(
        /// Response of SCSI Response (11.4.3), TMF (11.6.1) and Logout; Reject reason (11.17.1).
        response, set_response, 2
    );
    field_u8!(
        /// SCSI status of a SCSI Response or a Data-In with status (11.4.2).
        status, set_status, 3
    );

    /// The 16 CDB bytes of a SCSI Command (11.3.5).
    #[inline]
    #[must_use]
    pub fn cdb(&self) -> &[u8; 16] {
        self.0[32..48].try_into().expect("16 bytes of a 48-byte array")
    }

    /// Fills the CDB field; a longer CDB continues in an AHS (11.2.2.3).
    #[inline]
    pub fn set_cdb(&mut self, cdb: &[u8]) {
        let n = cdb.len().min(16);
        self.0[32..32 + n].copy_from_slice(&cdb[..n]);
    }

    /// Task attribute of a SCSI Command (11.3.1.2): low three bits of byte 1.
    #[inline]
    #[must_use]
    pub fn task_attribute(&self) -> u8 {
        self.0[1] & 0x07
    }

    /// Task management function (11.5.1): low seven bits of byte 1.
    #[inline]
    #[must_use]
    pub fn function(&self) -> u8 {
        self.0[1] & 0x7f
    }
}

/// Bytes of padding after a data segment of `len` bytes (11.2.3: up to a multiple of four).
#[inline]
#[must_use]
pub fn padding(len: u32) -> u32 {
    len.wrapping_neg() & 3
}
