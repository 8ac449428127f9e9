//! Cuts a byte stream into PDUs without looking at payload.
//!
//! The deframer takes header, AHS, padding and digests itself and says how many payload bytes come in between; whoever
//! drives it moves those to where they belong and reports the number (and, with a data digest, their CRC). Any number
//! of bytes may be given at a time.

use crate::bhs::{BHS_LEN, Bhs, padding};
use crate::crc32c;
use crate::opcode::Opcode;

/// Longest AHS (TotalAHSLength is one byte counting words, RFC 7143 11.2.1.5).
pub const AHS_MAX: usize = 1020;

/// Longest AHS that a SCSI Command makes sense with: the rest of a CDB of 260 bytes and a bidirectional read length, each with
/// its four bytes in front (11.2.2.3, 11.2.2.4).
pub const AHS_OF_COMMAND: usize = 4 + 244 + 4 + 4;

/// What `push` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All input was taken and the PDU goes on.
    NeedMore,
    /// Header and AHS are complete and their digest is right. `data_remaining()` payload bytes follow (maybe none): decide
    /// where they go, then report them by `data_moved`; then `push` on.
    Header,
    /// The BHS announces additional headers that no PDU has (`Deframer::bounded`). Said before they came: whoever sends noise
    /// need not send all of it.
    AhsError,
    /// The header digest is wrong: nothing after this point in the stream can be trusted (RFC 7143 7.7).
    HeaderDigestError,
    /// The PDU is complete.
    Pdu,
    /// The PDU is complete and its data digest is wrong.
    DataDigestError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Bhs,
    Ahs,
    HeaderDigest,
    Data,
    Pad,
    DataDigest,
}

/// State between two PDUs and inside one; a partial header is all it holds.
#[derive(Clone, Debug)]
pub struct Deframer {
    stage: Stage,
    filled: usize,
    bhs: Bhs,
    ahs: Vec<u8>,
    digest: [u8; 4],
    pad: [u8; 4],
    remaining: u32,
    crc: u32,
    header_digest: bool,
    data_digest: bool,
    /// Longest AHS of a SCSI Command, while no other PDU has any; None takes all that there can be.
    ahs_most: Option<usize>,
}

impl Deframer {
    /// A deframer at the start of a PDU, with the digests that were negotiated.
    #[must_use]
    pub fn new(header_digest: bool, data_digest: bool) -> Self {
        Self {
            stage: Stage::Bhs,
            filled: 0,
            bhs: Bhs::default(),
            ahs: Vec::new(),
            digest: [0; 4],
            pad: [0; 4],
            remaining: 0,
            crc: 0,
            header_digest,
            data_digest,
            ahs_most: None,
        }
    }

    /// Takes additional headers of at most `ahs` bytes, in SCSI Commands only (RFC 7143 11.2.1.5, 11.2.2); 0 for a receiver that
    /// gets no commands.
    #[must_use]
    pub fn bounded(mut self, ahs: usize) -> Self {
        self.ahs_most = Some(ahs);
        self
    }

    /// The header of the PDU at hand; complete after `Step::Header`, and until the next `push` after `Step::Pdu`.
    #[inline]
    #[must_use]
    pub fn bhs(&self) -> &Bhs {
        &self.bhs
    }

    /// The AHS bytes of the PDU at hand, empty for most.
    #[inline]
    #[must_use]
    pub fn ahs(&self) -> &[u8] {
        &self.ahs
    }

    /// Whether payload CRCs are wanted by `data_moved`.
    #[inline]
    #[must_use]
    pub fn data_digest(&self) -> bool {
        self.data_digest
    }

    /// Payload bytes of the PDU at hand that were not reported yet; 0 outside a data segment.
    #[inline]
    #[must_use]
    pub fn data_remaining(&self) -> u32 {
        if self.stage == Stage::Data { self.remaining } else { 0 }
    }

    /// CRC32C of the payload so far (only with a data digest); start value for the next part.
    #[inline]
    #[must_use]
    pub fn data_crc(&self) -> u32 {
        self.crc
    }

    /// Nothing of a next PDU has been taken: a safe point to hand the stream over.
    #[inline]
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.stage == Stage::Bhs && self.filled == 0
    }

    /// Reports that `n` payload bytes were moved; `crc` is the CRC32C of all payload of this PDU so far
    /// (`crc32c::append(data_crc(), part)`), ignored without a data digest. Returns true when the data segment is complete and
    /// no padding or digest follows, so that the PDU is complete.
    #[inline]
    pub fn data_moved(&mut self, n: u32, crc: u32) -> bool {
        debug_assert!(self.stage == Stage::Data && n <= self.remaining);
        self.remaining -= n;
        self.crc = crc;
        if self.remaining > 0 {
            return false;
        }
        self.after_data()
    }

    fn after_data(&mut self) -> bool {
        let length = self.bhs.data_segment_length();
        self.filled = 0;
        self.stage = if padding(length) > 0 {
            Stage::Pad
        } else if self.data_digest && length > 0 {
            Stage::DataDigest
        } else {
            Stage::Bhs
        };
        self.stage == Stage::Bhs
    }

    /// Takes bytes that are not payload. Returns how many were taken and what that came to. It stops at `Header` with
    /// payload following: give payload to its destination and `data_moved` before the next `push`.
    ///
    /// A PDU without a data segment answers `Step::Header` first and `Step::Pdu` at the next `push` (which takes nothing),
    /// so that every PDU passes both.
    pub fn push(&mut self, input: &[u8]) -> (usize, Step) {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            match self.stage {
                Stage::Bhs => {
                    let n = rest.len().min(BHS_LEN - self.filled);
                    self.bhs.0[self.filled..self.filled + n].copy_from_slice(&rest[..n]);
                    self.filled += n;
                    taken += n;
                    if self.filled < BHS_LEN {
                        return (taken, Step::NeedMore);
                    }
                    self.filled = 0;
                    self.ahs.clear();
                    let ahs = self.bhs.ahs_len();
                    if ahs > 0 {
                        let command = self.bhs.opcode() == Some(Opcode::ScsiCommand);
                        if self.ahs_most.is_some_and(|most| ahs > most || !command) {
                            return (taken, Step::AhsError);
                        }
                        self.stage = Stage::Ahs;
                    } else if self.header_digest {
                        self.stage = Stage::HeaderDigest;
                    } else {
                        return (taken, self.header_done());
                    }
                }
                Stage::Ahs => {
                    let length = self.bhs.ahs_len();
                    let n = rest.len().min(length - self.ahs.len());
                    self.ahs.extend_from_slice(&rest[..n]);
                    taken += n;
                    if self.ahs.len() < length {
                        return (taken, Step::NeedMore);
                    }
                    if self.header_digest {
                        self.stage = Stage::HeaderDigest;
                    } else {
                        return (taken, self.header_done());
                    }
                }
                Stage::HeaderDigest => {
                    if !fill(&mut self.digest, &mut self.filled, 4, rest, &mut taken) {
                        return (taken, Step::NeedMore);
                    }
                    let crc = crc32c::append(crc32c::append(0, &self.bhs.0), &self.ahs);
                    if crc.to_le_bytes() != self.digest {
                        return (taken, Step::HeaderDigestError);
                    }
                    return (taken, self.header_done());
                }
                Stage::Data => {
                    debug_assert!(self.remaining == 0, "payload goes to its destination first");
                    if self.remaining > 0 {
                        return (taken, Step::Header);
                    }
                    // no data segment at all: the PDU is complete
                    self.stage = Stage::Bhs;
                    self.filled = 0;
                    return (taken, Step::Pdu);
                }
                Stage::Pad => {
                    let need = padding(self.bhs.data_segment_length()) as usize;
                    if !fill(&mut self.pad, &mut self.filled, need, rest, &mut taken) {
                        return (taken, Step::NeedMore);
                    }
                    if self.data_digest {
                        self.crc = crc32c::append(self.crc, &self.pad[..need]);
                        self.stage = Stage::DataDigest;
                        self.filled = 0;
                    } else {
                        self.stage = Stage::Bhs;
                        self.filled = 0;
                        return (taken, Step::Pdu);
                    }
                }
                Stage::DataDigest => {
                    if !fill(&mut self.digest, &mut self.filled, 4, rest, &mut taken) {
                        return (taken, Step::NeedMore);
                    }
                    self.stage = Stage::Bhs;
                    self.filled = 0;
                    let right = self.crc.to_le_bytes() == self.digest;
                    return (taken, if right { Step::Pdu } else { Step::DataDigestError });
                }
            }
        }
    }

    fn header_done(&mut self) -> Step {
        self.stage = Stage::Data;
        self.remaining = self.bhs.data_segment_length();
        self.crc = 0;
        Step::Header
    }
}

/// Fills `field[..need]` from `rest`; true when it is full.
fn fill(field: &mut [u8; 4], filled: &mut usize, need: usize, rest: &[u8], taken: &mut usize) -> bool {
    let n = rest.len().min(need - *filled);
    field[*filled..*filled + n].copy_from_slice(&rest[..n]);
    *filled += n;
    *taken += n;
    *filled == need
}
