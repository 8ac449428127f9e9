//! A link that loses, repeats and spoils single PDUs, and that answers SNACK from its own log of what the target sent, as
//! exact replicas (RFC 7143 11.16): so the initiator is tried before, and beside, the target's own retransmission.

use std::collections::HashMap;

use blockwire_wire::{Bhs, Opcode};

/// What happens to a PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    Lose,
    Twice,
    /// A bit of the data segment is turned over.
    SpoilData,
    /// A bit of the header is turned over.
    SpoilHeader,
}

type Judge = Box<dyn FnMut(bool, &Bhs) -> Fate>;

pub struct Faults {
    /// Asked about every PDU: true for the way down, and its header.
    judge: Judge,
    /// By CID, what the target sent. None: SNACKs go on to the target.
    log: Option<HashMap<u16, Vec<Vec<u8>>>>,
    pub hit: u32,
}

fn header(pdu: &[u8]) -> Bhs {
    let mut bhs = Bhs::default();
    bhs.0.copy_from_slice(&pdu[..48]);
    bhs
}

fn numbered(bhs: &Bhs) -> bool {
    match bhs.opcode() {
        Some(Opcode::DataIn) => bhs.flags() & 1 != 0,
        Some(Opcode::R2t) => false,
        Some(Opcode::NopIn) => bhs.initiator_task_tag() != u32::MAX,
        _ => true,
    }
}

impl Faults {
    pub fn new(answers_snack: bool, judge: impl FnMut(bool, &Bhs) -> Fate + 'static) -> Self {
        Self { judge: Box::new(judge), log: answers_snack.then(HashMap::new), hit: 0 }
    }

    /// Whole PDUs.
    pub fn cut(&self, bytes: &[u8], digests: (bool, bool)) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let bhs = header(&bytes[at..]);
            let data = bhs.data_segment_length() as usize;
            let mut length = 48 + bhs.ahs_len() + if digests.0 { 4 } else { 0 };
            length += data.next_multiple_of(4) + if digests.1 && data > 0 { 4 } else { 0 };
            out.push(bytes[at..at + length].to_vec());
            at += length;
        }
        out
    }

    fn suffer(&mut self, down: bool, pdu: &[u8]) -> Vec<u8> {
        let bhs = header(pdu);
        let fate = (self.judge)(down, &bhs);
        if fate != Fate::Pass {
            self.hit += 1;
        }
        let mut out = pdu.to_vec();
        match fate {
            Fate::Pass => {}
            Fate::Lose => out.clear(),
            Fate::Twice => out.extend_from_slice(pdu),
            Fate::SpoilData => {
                let last = out.len() - 5;
                if bhs.data_segment_length() > 0 {
                    out[last] ^= 4;
                }
            }
            Fate::SpoilHeader => out[37] ^= 0x10,
        }
        out
    }

    /// A PDU on its way to the target: what goes up, and what the link sends down for it.
    pub fn up(&mut self, cid: u16, pdu: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        let bytes = self.suffer(false, &pdu);
        let bhs = header(&pdu);
        let Some(log) = self.log.as_ref().filter(|_| bhs.opcode() == Some(Opcode::Snack)) else {
            return (bytes, Vec::new());
        };
        let (from, count) = (bhs.beg_run(), bhs.run_length());
        let in_run = |number: u32| {
            let index = number.wrapping_sub(from);
            if count == 0 { index < 0x8000_0000 } else { index < count }
        };
        let wanted = |sent: &Bhs| match bhs.flags() & 0x0f {
            0 => {
                matches!(sent.opcode(), Some(Opcode::DataIn | Opcode::R2t))
                    && sent.initiator_task_tag() == bhs.initiator_task_tag()
                    && in_run(sent.data_sn())
            }
            1 => numbered(sent) && in_run(sent.stat_sn()),
            2 => false,
            other => panic!("SNACK type {other}"),
        };
        let mut again: Vec<Vec<u8>> = Vec::new();
        if !bytes.is_empty() {
            again = log.get(&cid).into_iter().flatten().filter(|p| wanted(&header(p))).cloned().collect();
            assert!(!again.is_empty() || count == 0 || bhs.flags() & 0x0f == 2, "asked for what was never sent");
        }
        // replicas are as likely to be lost as anything
        let down = again.iter().flat_map(|p| self.suffer(true, p)).collect();
        (Vec::new(), down)
    }

    /// A PDU on its way to the initiator.
    pub fn down(&mut self, cid: u16, pdu: Vec<u8>) -> Vec<u8> {
        if let Some(log) = &mut self.log {
            log.entry(cid).or_default().push(pdu.clone());
        }
        self.suffer(true, &pdu)
    }
}
