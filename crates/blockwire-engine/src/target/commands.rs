//! The block commands that are served here: one row each, and what their CDBs say (SBC-4, SPC-5).

use super::sense::Sense;
use crate::calls::CommandClass;

/// A decoded block command. Addresses and counts are logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    TestUnitReady,
    Read {
        lba: u64,
        blocks: u32,
    },
    /// `compare`: WRITE AND VERIFY with BYTCHK 1.
    Write {
        lba: u64,
        blocks: u32,
        fua: bool,
        compare: bool,
    },
    Verify {
        lba: u64,
        blocks: u32,
        check: ByteCheck,
    },
    Flush,
    /// Zero `blocks` means up to the last one.
    WriteSame {
        lba: u64,
        blocks: u64,
        unmap: bool,
        no_data: bool,
    },
    Unmap {
        list_length: u32,
    },
    /// XDWRITEREAD: the blocks are written, and their XOR with what was there goes back (SBC-3 5.47).
    XdWriteRead {
        lba: u64,
        blocks: u32,
        fua: bool,
        disable_write: bool,
    },
}

/// BYTCHK of VERIFY (SBC-4 5.36).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// The medium is checked, nothing is compared.
    Medium,
    /// Compared with as many blocks of data.
    All,
    /// Every block is compared with one block of data.
    One,
}

type Decode = fn(&[u8]) -> Result<Block, Sense>;

struct Row {
    opcode: u8,
    class: CommandClass,
    /// Length of the CDB; its last byte is CONTROL.
    length: u8,
    decode: Decode,
}

const fn row(opcode: u8, class: CommandClass, length: u8, decode: Decode) -> Row {
    Row { opcode, class, length, decode }
}

#[rustfmt::skip]
const ROWS: [Row; 21] = [
    row(0x00, CommandClass::TestUnitReady, 6,  |_| Ok(Block::TestUnitReady)),
    row(0x08, CommandClass::Read,          6,  read_6),
    row(0x28, CommandClass::Read,          10, read),
    row(0xa8, CommandClass::Read,          12, read),
    row(0x88, CommandClass::Read,          16, read),
    row(0x0a, CommandClass::Write,         6,  write_6),
    row(0x2a, CommandClass::Write,         10, write),
    row(0xaa, CommandClass::Write,         12, write),
    row(0x8a, CommandClass::Write,         16, write),
    row(0x2e, CommandClass::Write,         10, write_and_verify),
    row(0xae, CommandClass::Write,         12, write_and_verify),
    row(0x8e, CommandClass::Write,         16, write_and_verify),
    row(0x41, CommandClass::Write,         10, write_same),
    row(0x93, CommandClass::Write,         16, write_same),
    row(0x2f, CommandClass::Verify,        10, verify),
    row(0xaf, CommandClass::Verify,        12, verify),
    row(0x8f, CommandClass::Verify,        16, verify),
    row(0x35, CommandClass::Flush,         10, |_| Ok(Block::Flush)),
    row(0x91, CommandClass::Flush,         16, |_| Ok(Block::Flush)),
    row(0x42, CommandClass::Unmap,         10, unmap),
    row(0x53, CommandClass::Write,         10, xd_write_read),
];

/// Operation code of CDBs of variable length: CONTROL is byte 1, byte 7 the length after byte 7, bytes 8 and 9 the service
/// action (SPC-4 4.2.3).
const VARIABLE_LENGTH: u8 = 0x7f;

/// Their rows by service action.
#[rustfmt::skip]
const LONG_ROWS: [(u16, Row); 4] = [
    (0x0009, row(VARIABLE_LENGTH, CommandClass::Read,   32, read_32)),
    (0x000a, row(VARIABLE_LENGTH, CommandClass::Verify, 32, verify_32)),
    (0x000b, row(VARIABLE_LENGTH, CommandClass::Write,  32, write_32)),
    (0x000c, row(VARIABLE_LENGTH, CommandClass::Write,  32, write_and_verify_32)),
];

/// Opcode to row + 1; 0 for commands that go up.
const INDEX: [u8; 256] = {
    let mut index = [0; 256];
    let mut at = 0;
    while at < ROWS.len() {
        index[ROWS[at].opcode as usize] = at as u8 + 1;
        at += 1;
    }
    index
};

/// A command of the table, not yet decoded.
#[derive(Clone, Copy)]
pub struct Known(&'static Row);

impl Known {
    #[must_use]
    pub fn class(self) -> CommandClass {
        self.0.class
    }

    /// Length of the CDB in bytes.
    #[must_use]
    pub fn length(self) -> u8 {
        self.0.length
    }

    /// # Errors
    /// The sense data that the command is answered with.
    pub fn decode(self, cdb: &[u8]) -> Result<Block, Sense> {
        (self.0.decode)(&cdb[..usize::from(self.0.length)])
    }
}

/// The row of a CDB, if it is in the table and its CONTROL byte is 0.
#[must_use]
pub fn known(cdb: &[u8]) -> Option<Known> {
    let at = INDEX[usize::from(*cdb.first()?)];
    if at == 0 {
        return if cdb[0] == VARIABLE_LENGTH { known_long(cdb) } else { None };
    }
    let row = &ROWS[usize::from(at) - 1];
    let control = *cdb.get(usize::from(row.length) - 1)?;
    (control == 0).then_some(Known(row))
}

#[cold]
fn known_long(cdb: &[u8]) -> Option<Known> {
    let action = u16::from_be_bytes([*cdb.get(8)?, *cdb.get(9)?]);
    let (_, row) = LONG_ROWS.iter().find(|(number, _)| *number == action)?;
    let whole = cdb.len() >= usize::from(row.length) && usize::from(cdb[7]) + 8 == usize::from(row.length);
    (whole && cdb[1] == 0).then_some(Known(row))
}

fn u16_at(cdb: &[u8], at: usize) -> u32 {
    u32::from(u16::from_be_bytes([cdb[at], cdb[at + 1]]))
}

fn u32_at(cdb: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

/// LOGICAL BLOCK ADDRESS and count of the 10, 12 and 16 byte forms.
fn range(cdb: &[u8]) -> (u64, u32) {
    match cdb.len() {
        10 => (u64::from(u32_at(cdb, 2)), u16_at(cdb, 7)),
        12 => (u64::from(u32_at(cdb, 2)), u32_at(cdb, 6)),
        _ => ((u64::from(u32_at(cdb, 2)) << 32) | u64::from(u32_at(cdb, 6)), u32_at(cdb, 10)),
    }
}

fn invalid(byte: u16, bit: u8) -> Sense {
    Sense::InvalidFieldInCdb { byte, bit: Some(bit) }
}

/// RDPROTECT, WRPROTECT, VRPROTECT: there is no protection information here.
fn no_protection(cdb: &[u8]) -> Result<(), Sense> {
    if cdb[1] & 0xe0 != 0 { Err(invalid(1, 7)) } else { Ok(()) }
}

fn fua(cdb: &[u8]) -> bool {
    cdb[1] & 0x08 != 0
}

fn range_6(cdb: &[u8]) -> (u64, u32) {
    let lba = u64::from(u32_at(cdb, 0) & 0x001f_ffff);
    (lba, if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) })
}

fn read_6(cdb: &[u8]) -> Result<Block, Sense> {
    let (lba, blocks) = range_6(cdb);
    Ok(Block::Read { lba, blocks })
}

fn write_6(cdb: &[u8]) -> Result<Block, Sense> {
    let (lba, blocks) = range_6(cdb);
    Ok(Block::Write { lba, blocks, fua: false, compare: false })
}

fn read(cdb: &[u8]) -> Result<Block, Sense> {
    no_protection(cdb)?;
    let (lba, blocks) = range(cdb);
    Ok(Block::Read { lba, blocks })
}

fn write(cdb: &[u8]) -> Result<Block, Sense> {
    no_protection(cdb)?;
    let (lba, blocks) = range(cdb);
    Ok(Block::Write { lba, blocks, fua: fua(cdb), compare: false })
}

fn write_and_verify(cdb: &[u8]) -> Result<Block, Sense> {
    no_protection(cdb)?;
    let (lba, blocks) = range(cdb);
    match (cdb[1] >> 1) & 3 {
        // what is verified is on the medium
        0 => Ok(Block::Write { lba, blocks, fua: true, compare: false }),
        1 => Ok(Block::Write { lba, blocks, fua: true, compare: true }),
        _ => Err(invalid(1, 2)),
    }
}

fn verify(cdb: &[u8]) -> Result<Block, Sense> {
    no_protection(cdb)?;
    let (lba, blocks) = range(cdb);
    let check = match (cdb[1] >> 1) & 3 {
        0 => ByteCheck::Medium,
        1 => ByteCheck::All,
        3 => ByteCheck::One,
        _ => return Err(invalid(1, 2)),
    };
    Ok(Block::Verify { lba, blocks, check })
}

/// The fields of a 32-byte CDB where those of a 16-byte one are.
fn of_32(cdb: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short[1] = cdb[10];
    short[2..10].copy_from_slice(&cdb[12..20]);
    short[10..14].copy_from_slice(&cdb[28..32]);
    short
}

/// A complaint about byte 1 of a 16-byte CDB is one about byte 10 of a 32-byte one.
fn in_32(decoded: Result<Block, Sense>) -> Result<Block, Sense> {
    decoded.map_err(|sense| match sense {
        Sense::InvalidFieldInCdb { byte: 1, bit } => Sense::InvalidFieldInCdb { byte: 10, bit },
        other => other,
    })
}

fn read_32(cdb: &[u8]) -> Result<Block, Sense> {
    in_32(read(&of_32(cdb)))
}

fn write_32(cdb: &[u8]) -> Result<Block, Sense> {
    in_32(write(&of_32(cdb)))
}

fn write_and_verify_32(cdb: &[u8]) -> Result<Block, Sense> {
    in_32(write_and_verify(&of_32(cdb)))
}

fn verify_32(cdb: &[u8]) -> Result<Block, Sense> {
    in_32(verify(&of_32(cdb)))
}

fn xd_write_read(cdb: &[u8]) -> Result<Block, Sense> {
    no_protection(cdb)?;
    let (lba, blocks) = range(cdb);
    Ok(Block::XdWriteRead { lba, blocks, fua: fua(cdb), disable_write: cdb[1] & 0x04 != 0 })
}

fn write_same(cdb: &[u8]) -> Result<Block, Sense> {
    no_protection(cdb)?;
    if cdb[1] & 0x10 != 0 {
        return Err(invalid(1, 4)); // ANCHOR: nothing can be anchored here
    }
    if cdb[1] & 0x06 != 0 {
        return Err(invalid(1, 2)); // PBDATA, LBDATA: obsolete
    }
    let (lba, blocks) = range(cdb);
    let no_data = cdb.len() == 16 && cdb[1] & 0x01 != 0;
    Ok(Block::WriteSame { lba, blocks: u64::from(blocks), unmap: cdb[1] & 0x08 != 0, no_data })
}

fn unmap(cdb: &[u8]) -> Result<Block, Sense> {
    if cdb[1] & 0x01 != 0 {
        return Err(invalid(1, 0)); // ANCHOR
    }
    Ok(Block::Unmap { list_length: u16_at(cdb, 7) })
}

/// The block ranges (address, count) of an UNMAP parameter list (SBC-4 5.35.2). Incomplete descriptors are left out.
///
/// # Errors
/// The sense data that the command is answered with.
pub fn unmap_ranges(list: &[u8]) -> Result<Vec<(u64, u64)>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    if list.len() < 8 {
        return Err(Sense::ParameterListLength);
    }
    let described = u16_at(list, 2) as usize;
    let body = &list[8..];
    let body = &body[..described.min(body.len())];
    Ok(body
        .chunks_exact(16)
        .map(|d| {
            let lba = (u64::from(u32_at(d, 0)) << 32) | u64::from(u32_at(d, 4));
            (lba, u64::from(u32_at(d, 8)))
        })
        .filter(|range| range.1 > 0)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(cdb: &[u8]) -> Result<Block, Sense> {
        known(cdb).expect("in the table").decode(cdb)
    }

    #[test]
    fn ranges_of_every_length() {
        // READ(6): 21-bit address, count 0 is 256
        assert_eq!(decode(&[0x08, 0x1f, 0xff, 0xfe, 0, 0]), Ok(Block::Read { lba: 0x1f_fffe, blocks: 256 }));
        assert_eq!(decode(&[0x08, 0xe1, 0, 2, 7, 0]), Ok(Block::Read { lba: 0x1_0002, blocks: 7 }));
        assert_eq!(decode(&[0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]), Ok(Block::Read { lba: 0x0102_0304, blocks: 0x506 }));
        assert_eq!(
            decode(&[0xa8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]),
            Ok(Block::Read { lba: 0x0102_0304, blocks: 0x0506_0708 })
        );
        assert_eq!(
            decode(&[0x8a, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0]),
            Ok(Block::Write { lba: 0x0102_0304_0506_0708, blocks: 9, fua: true, compare: false })
        );
    }

    #[test]
    fn protection_and_reserved_values_name_their_field() {
        assert_eq!(decode(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0]), Err(invalid(1, 7)));
        assert_eq!(decode(&[0x2f, 0x04, 0, 0, 0, 0, 0, 0, 1, 0]), Err(invalid(1, 2)));
        assert_eq!(decode(&[0x41, 0x10, 0, 0, 0, 0, 0, 0, 1, 0]), Err(invalid(1, 4)));
        assert_eq!(decode(&[0x42, 0x01, 0, 0, 0, 0, 0, 0, 24, 0]), Err(invalid(1, 0)));
    }

    #[test]
    fn cdbs_of_32_bytes() {
        let mut cdb = [0; 32];
        cdb[0] = 0x7f;
        cdb[7] = 0x18;
        cdb[9] = 0x09;
        cdb[12..20].copy_from_slice(&0x0102_0304_0506_0708_u64.to_be_bytes());
        cdb[28..32].copy_from_slice(&[0, 0, 1, 2]);
        assert_eq!(decode(&cdb), Ok(Block::Read { lba: 0x0102_0304_0506_0708, blocks: 0x102 }));
        cdb[9] = 0x0b;
        cdb[10] = 0x08;
        assert_eq!(
            decode(&cdb),
            Ok(Block::Write { lba: 0x0102_0304_0506_0708, blocks: 0x102, fua: true, compare: false })
        );
        cdb[10] = 0x20;
        assert_eq!(decode(&cdb), Err(invalid(10, 7)));
        assert!(known(&cdb[..31]).is_none() && known(&cdb[..16]).is_none() && known(&cdb[..8]).is_none());
        for (at, value) in [(1, 4), (7, 0x17), (7, 0xff), (9, 0x77)] {
            let mut other = cdb;
            other[at] = value;
            assert!(known(&other).is_none(), "goes up");
        }
        assert_eq!(
            decode(&[0x53, 0x0c, 0, 0, 0, 9, 0, 0, 3, 0]),
            Ok(Block::XdWriteRead { lba: 9, blocks: 3, fua: true, disable_write: true })
        );
    }

    #[test]
    fn control_bytes_and_other_opcodes_go_up() {
        assert!(known(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 4]).is_none());
        assert!(known(&[0x12, 0, 0, 0, 36, 0]).is_none());
        assert!(known(&[0xff; 16]).is_none());
        assert!(known(&[0x88, 0]).is_none());
    }

    #[test]
    fn unmap_lists() {
        let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
        list.extend([0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0]);
        list.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(unmap_ranges(&list), Ok(vec![(5, 2)]));
        assert_eq!(unmap_ranges(&list[..20]), Ok(vec![]));
        assert_eq!(unmap_ranges(&list[..7]), Err(Sense::ParameterListLength));
        assert_eq!(unmap_ranges(&[]), Ok(vec![]));
    }
}
