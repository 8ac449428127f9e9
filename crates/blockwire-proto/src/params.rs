//! What login negotiated, as the full feature phase needs it.

/// Index of a connection within its session, small and reused; the CID is a field of the connection.
pub type ConnIndex = usize;

/// Whether two LUN fields name one logical unit. The address method (SAM-5 4.7.4, the two highest bits) is left out: targets in
/// use answer a LUN above 255 that came in flat space form with its number alone.
#[inline]
#[must_use]
pub fn same_unit(one: u64, other: u64) -> bool {
    (one ^ other) & !(0b11 << 62) == 0
}

/// Departures of a peer from RFC 7143 that the initiator goes along with. Never the default: each is asked for by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// `reassign-lun`: TASK REASSIGN carries the LUN of its task. Linux's target compares it, although it is reserved
    /// there (11.5.4).
    pub reassign_lun: bool,
    /// `reassign-answer`: to TASK REASSIGN 0 means that there is no such task, and 255 that the task goes on. Linux's
    /// target takes the codes of 11.6.1 for those of its SCSI layer, and so tells others than it means. A read of which only
    /// the status is missing is not moved but ends with its connection: that target has no answer to it (7.2.2).
    pub reassign_answer: bool,
}

impl Quirks {
    /// Switches one on; false when there is none of that name.
    pub fn set(&mut self, name: &str) -> bool {
        match name {
            "reassign-lun" => self.reassign_lun = true,
            "reassign-answer" => self.reassign_answer = true,
            _ => return false,
        }
        true
    }
}

/// Session-wide parameters (RFC 7143 section 13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionParams {
    /// InitialR2T (13.10).
    pub initial_r2t: bool,
    /// ImmediateData (13.11).
    pub immediate_data: bool,
    /// MaxBurstLength (13.13), bytes.
    pub max_burst_length: u32,
    /// FirstBurstLength (13.14), bytes.
    pub first_burst_length: u32,
    /// MaxOutstandingR2T (13.17), per task.
    pub max_outstanding_r2t: u32,
    /// DataPDUInOrder (13.18).
    pub data_pdu_in_order: bool,
    /// DataSequenceInOrder (13.19).
    pub data_sequence_in_order: bool,
    /// ErrorRecoveryLevel (13.20).
    pub error_recovery_level: u8,
    /// TaskReporting=FastAbort (13.23).
    pub fast_abort: bool,
    /// iSCSIProtocolLevel (13.24).
    pub protocol_level: u8,
    /// Of the peer; the target role has none.
    pub quirks: Quirks,
}

impl Default for SessionParams {
    /// The defaults of RFC 7143 section 13.
    fn default() -> Self {
        Self {
            initial_r2t: true,
            immediate_data: true,
            max_burst_length: 262_144,
            first_burst_length: 65_536,
            max_outstanding_r2t: 1,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            error_recovery_level: 0,
            fast_abort: false,
            protocol_level: 1,
            quirks: Quirks::default(),
        }
    }
}

/// Parameters of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionParams {
    /// CID (11.12.7).
    pub cid: u16,
    /// MaxRecvDataSegmentLength that this side declared (13.12), bytes.
    pub max_recv_data_segment_length: u32,
    /// MaxRecvDataSegmentLength that the peer declared, bytes.
    pub max_send_data_segment_length: u32,
    /// HeaderDigest=CRC32C (13.1).
    pub header_digest: bool,
    /// DataDigest=CRC32C (13.1).
    pub data_digest: bool,
    /// Nanoseconds without traffic before a NOP asks for a sign of life; 0 is off.
    pub keep_alive_interval: u64,
    /// Nanoseconds to wait for its answer.
    pub keep_alive_timeout: u64,
}

impl Default for ConnectionParams {
    fn default() -> Self {
        Self {
            cid: 0,
            max_recv_data_segment_length: 8192,
            max_send_data_segment_length: 8192,
            header_digest: false,
            data_digest: false,
            keep_alive_interval: 0,
            keep_alive_timeout: 0,
        }
    }
}
