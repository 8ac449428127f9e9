//! CDBs of block requests (SBC-4). The shortest form that holds address and length is used, as old targets know no other.

/// `api.IoKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IoKind {
    Read = 0,
    Write = 1,
    Flush = 2,
    Unmap = 3,
    WriteSameZero = 4,
}

impl IoKind {
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Read, Self::Write, Self::Flush, Self::Unmap, Self::WriteSameZero].get(usize::from(number)).copied()
    }
}

/// A block request, before it is a CDB.
#[derive(Clone, Copy, Debug)]
pub struct BlockRequest {
    pub kind: IoKind,
    pub lba: u64,
    pub blocks: u32,
    pub block_size: u32,
    pub fua: bool,
}

const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;
const UNMAP: u8 = 0x42;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
const WRITE_SAME_16: u8 = 0x93;
const FUA: u8 = 0x08;

/// Length of an UNMAP parameter list with one descriptor (SBC-4 5.35.2).
pub(super) const UNMAP_LIST: usize = 24;

fn ten(cdb: &mut [u8; 16], opcode: u8, flags: u8, lba: u32, blocks: u16) -> usize {
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    10
}

fn sixteen(cdb: &mut [u8; 16], opcode: u8, flags: u8, lba: u64, blocks: u32) -> usize {
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    16
}

impl BlockRequest {
    /// Writes the CDB and gives its length.
    #[must_use]
    pub fn cdb(&self, cdb: &mut [u8; 16]) -> usize {
        *cdb = [0; 16];
        let flags = if self.fua { FUA } else { 0 };
        let short = match (u32::try_from(self.lba), u16::try_from(self.blocks)) {
            // a last block beyond 32 bits needs the long form too
            (Ok(lba), Ok(blocks)) if self.lba + u64::from(blocks) <= 1 << 32 => Some((lba, blocks)),
            _ => None,
        };
        match (self.kind, short) {
            (IoKind::Read, Some((lba, blocks))) => ten(cdb, READ_10, flags, lba, blocks),
            (IoKind::Read, None) => sixteen(cdb, READ_16, flags, self.lba, self.blocks),
            (IoKind::Write, Some((lba, blocks))) => ten(cdb, WRITE_10, flags, lba, blocks),
            (IoKind::Write, None) => sixteen(cdb, WRITE_16, flags, self.lba, self.blocks),
            (IoKind::Flush, Some((lba, blocks))) => ten(cdb, SYNCHRONIZE_CACHE_10, 0, lba, blocks),
            (IoKind::Flush, None) => sixteen(cdb, SYNCHRONIZE_CACHE_16, 0, self.lba, self.blocks),
            (IoKind::Unmap, _) => ten(cdb, UNMAP, 0, 0, UNMAP_LIST as u16),
            (IoKind::WriteSameZero, _) => sixteen(cdb, WRITE_SAME_16, 0, self.lba, self.blocks),
        }
    }

    /// Bytes to the target and bytes from it.
    #[must_use]
    pub fn lengths(&self) -> (u64, u64) {
        let data = u64::from(self.blocks) * u64::from(self.block_size);
        match self.kind {
            IoKind::Read => (0, data),
            IoKind::Write => (data, 0),
            IoKind::Flush => (0, 0),
            IoKind::Unmap => (UNMAP_LIST as u64, 0),
            IoKind::WriteSameZero => (u64::from(self.block_size), 0),
        }
    }

    /// Parameter list of UNMAP with one descriptor.
    pub(super) fn unmap_list(&self) -> [u8; UNMAP_LIST] {
        let mut list = [0; UNMAP_LIST];
        list[0..2].copy_from_slice(&22u16.to_be_bytes()); // UNMAP DATA LENGTH: what follows it
        list[2..4].copy_from_slice(&16u16.to_be_bytes()); // UNMAP BLOCK DESCRIPTOR DATA LENGTH
        list[8..16].copy_from_slice(&self.lba.to_be_bytes());
        list[16..20].copy_from_slice(&self.blocks.to_be_bytes());
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(kind: IoKind, lba: u64, blocks: u32) -> Vec<u8> {
        let mut cdb = [0xff; 16];
        let length = BlockRequest { kind, lba, blocks, block_size: 512, fua: kind == IoKind::Write }.cdb(&mut cdb);
        assert!(cdb[length..].iter().all(|b| *b == 0));
        cdb[..length].to_vec()
    }

    /// By hand from SBC-4 tables 52, 54, 67, 68, 99, 103, 131.
    #[test]
    fn forms() {
        assert_eq!(built(IoKind::Read, 0x1020_3040, 0x0506), [0x28, 0, 0x10, 0x20, 0x30, 0x40, 0, 5, 6, 0]);
        assert_eq!(built(IoKind::Write, 1, 8), [0x2a, 8, 0, 0, 0, 1, 0, 0, 8, 0]);
        assert_eq!(built(IoKind::Read, 0x1_0000_0000, 1), [0x88, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(built(IoKind::Read, 0xffff_ffff, 2)[0], 0x88);
        assert_eq!(built(IoKind::Read, 0xffff_ffff, 1)[0], 0x28);
        assert_eq!(built(IoKind::Write, 0, 65536)[..2], [0x8a, 8]);
        assert_eq!(built(IoKind::Flush, 0, 0), [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(built(IoKind::Unmap, 7, 9), [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
        assert_eq!(built(IoKind::WriteSameZero, 7, 9), [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0]);
        let unmap = BlockRequest { kind: IoKind::Unmap, lba: 7, blocks: 9, block_size: 512, fua: false };
        assert_eq!(unmap.unmap_list(), [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0]);
    }
}
