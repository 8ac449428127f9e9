//! What a target sends, byte for byte, held against RFC 7143: numbers, tags, lengths.

use std::collections::{HashMap, HashSet};

use blockwire_wire::bhs::STATUS_PRESENT;
use blockwire_wire::{BHS_LEN, Bhs, Opcode, RESERVED_TAG, crc32c, serial};

/// One connection's stream of bytes out of the target.
pub struct Watch {
    bytes: Vec<u8>,
    digests: (bool, bool),
    stat_sn: u32,
    segment: u32,
    /// DataSN or R2TSN expected next, by task tag; forgotten when the task is answered.
    numbers: HashMap<u32, u32>,
    /// Tags of tasks that ended without an answer: the next task of that name begins at 0.
    ended: HashSet<u32>,
    /// Those of them that ended while a PDU was on its way in pieces: it may be theirs, and has their numbers.
    begun: HashSet<u32>,
    /// Numbered PDUs by StatSN, without the numbers of the command window: what comes again MUST be the same (11.16).
    answers: HashMap<u32, Vec<u8>>,
    /// PDUs seen, for tests of the harness itself.
    pub pdus: usize,
}

/// The session's window as the PDUs tell it.
#[derive(Default)]
pub struct Window {
    seen: Option<(u32, u32)>,
}

impl Watch {
    pub fn new(digests: (bool, bool), stat_sn: u32, segment: u32) -> Self {
        Self {
            bytes: Vec::new(),
            digests,
            stat_sn,
            segment,
            numbers: HashMap::new(),
            ended: HashSet::new(),
            begun: HashSet::new(),
            answers: HashMap::new(),
            pdus: 0,
        }
    }

    /// The peer declared another length: PDUs queued before may still be longer.
    pub fn declare(&mut self, segment: u32) {
        self.segment = self.segment.max(segment);
    }

    /// A task was moved here: its numbers go on where the request said.
    pub fn forget(&mut self, tag: u32) {
        self.numbers.remove(&tag);
    }

    /// The task was aborted: nothing more comes of it but a PDU already begun.
    pub fn aborted(&mut self, tag: u32) {
        self.ended.insert(tag);
        if !self.bytes.is_empty() {
            self.begun.insert(tag);
        }
    }

    pub fn take(&mut self, bytes: &[u8], window: &mut Window, size: u32, one: bool, again: bool) {
        self.bytes.extend_from_slice(bytes);
        while let Some(length) = self.complete() {
            let pdu: Vec<u8> = self.bytes.drain(..length).collect();
            self.check(&pdu, window, size, one, again);
            self.begun.clear();
            self.pdus += 1;
        }
    }

    /// Length of the first PDU if all of it is there.
    fn complete(&self) -> Option<usize> {
        let header = self.bytes.first_chunk::<BHS_LEN>()?;
        let bhs = Bhs(*header);
        let data = bhs.data_segment_length() as usize;
        let total = BHS_LEN
            + bhs.ahs_len()
            + if self.digests.0 { 4 } else { 0 }
            + data.div_ceil(4) * 4
            + if self.digests.1 && data > 0 { 4 } else { 0 };
        (self.bytes.len() >= total).then_some(total)
    }

    fn check(&mut self, pdu: &[u8], window: &mut Window, size: u32, one: bool, again: bool) {
        let bhs = Bhs(pdu[..BHS_LEN].try_into().expect("48 bytes"));
        let opcode = bhs.opcode().expect("an opcode of RFC 7143");
        assert!(opcode as u8 >= 0x20, "{opcode:?} is an initiator's");
        assert_eq!(bhs.ahs_len(), 0, "targets send no AHS");
        let length = bhs.data_segment_length();
        assert!(length <= self.segment, "{length} bytes in {opcode:?}, {} declared", self.segment);
        let mut at = BHS_LEN;
        if self.digests.0 {
            assert_eq!(crc32c::append(0, &pdu[..at]).to_le_bytes(), pdu[at..at + 4]);
            at += 4;
        }
        let segment = &pdu[at..at + length.next_multiple_of(4) as usize];
        assert!(segment[length as usize..].iter().all(|b| *b == 0), "padding SHOULD be zero (11.2.3)");
        if self.digests.1 && length > 0 {
            let end = at + segment.len();
            assert_eq!(crc32c::append(0, segment).to_le_bytes(), pdu[end..end + 4]);
        }

        let takes = match opcode {
            Opcode::DataIn => bhs.flags() & STATUS_PRESENT != 0,
            Opcode::NopIn => bhs.initiator_task_tag() != RESERVED_TAG,
            Opcode::R2t => false,
            _ => true,
        };
        // above level 0 a SNACK may have asked for it
        let replica = again && takes && serial::less_than(bhs.stat_sn(), self.stat_sn);
        if !replica && (takes || opcode != Opcode::DataIn) {
            assert_eq!(bhs.stat_sn(), self.stat_sn, "StatSN of {opcode:?} (4.2.2.2)");
        }
        if takes {
            let mut kept = pdu[..BHS_LEN].to_vec();
            kept[28..36].fill(0);
            if opcode == Opcode::ScsiResponse {
                // ExpDataSN is current, and the SNACK Tag tells of an R-Data SNACK (11.16.3)
                kept[36..40].fill(0);
                kept[20..24].fill(0);
            }
            kept.extend_from_slice(segment);
            if replica && opcode == Opcode::ScsiResponse && bhs.snack_tag() != 0 {
                // the answer to an R-Data SNACK, whatever form it had before (11.16.3)
                self.answers.insert(bhs.stat_sn(), kept);
            } else if replica {
                let first = self.answers.get(&bhs.stat_sn());
                assert_eq!(first, Some(&kept), "StatSN {} again, and other bytes (11.16)", bhs.stat_sn());
            } else {
                self.answers.insert(bhs.stat_sn(), kept);
                self.stat_sn = self.stat_sn.wrapping_add(1);
            }
        }

        let (exp, max) = (bhs.exp_cmd_sn(), bhs.max_cmd_sn());
        assert!(serial::less_or_equal(exp.wrapping_sub(1), max), "MaxCmdSN {max} below ExpCmdSN {exp} - 1 (4.2.2.1)");
        assert!(max.wrapping_sub(exp).wrapping_add(1) <= size, "a window of {exp}..={max}, {size} wanted");
        if let Some((e, m)) = window.seen.filter(|_| one) {
            assert!(serial::less_or_equal(e, exp), "ExpCmdSN went back");
            assert!(serial::less_or_equal(m, max), "MaxCmdSN went back");
        }
        window.seen = Some((exp, max));

        match opcode {
            Opcode::DataIn | Opcode::R2t => {
                assert_ne!(bhs.initiator_task_tag(), RESERVED_TAG);
                if opcode == Opcode::R2t {
                    assert_ne!(bhs.target_transfer_tag(), RESERVED_TAG, "11.8.5");
                    assert!(bhs.desired_data_transfer_length() > 0, "11.8.4");
                }
                if again || self.begun.contains(&bhs.initiator_task_tag()) {
                    return;
                }
                let next = self.numbers.entry(bhs.initiator_task_tag()).or_insert(bhs.data_sn());
                if bhs.data_sn() == 0 && self.ended.remove(&bhs.initiator_task_tag()) {
                    *next = 0;
                }
                assert_eq!(bhs.data_sn(), *next, "DataSN, R2TSN of one task (4.2.2.4)");
                *next += 1;
                if takes {
                    assert!(bhs.is_final(), "status without F (11.7.3)");
                    self.numbers.remove(&bhs.initiator_task_tag());
                }
            }
            Opcode::Reject => assert!(length >= BHS_LEN as u32, "a Reject names the header (11.17.2)"),
            _ => {
                self.numbers.remove(&bhs.initiator_task_tag());
            }
        }
    }
}
