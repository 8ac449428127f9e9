//! The short table of sense data that the fast path can answer with (SPC-5 4.4, SBC-4).

use blockwire_proto::target::Condition;
use blockwire_store::{ErrorKind, StoreError};

/// What a command is answered with when it is not GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE, with the address.
    LbaOutOfRange(u64),
    /// ILLEGAL REQUEST, INVALID FIELD IN CDB: byte and, where one is to blame, bit.
    InvalidFieldInCdb { byte: u16, bit: Option<u8> },
    /// ILLEGAL REQUEST, PARAMETER LIST LENGTH ERROR.
    ParameterListLength,
    /// DATA PROTECT, WRITE PROTECTED.
    WriteProtected,
    /// DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
    NoSpace,
    /// MEDIUM ERROR, UNRECOVERED READ ERROR, with the address.
    ReadError(u64),
    /// MEDIUM ERROR, WRITE ERROR, with the address.
    WriteError(u64),
    /// MISCOMPARE DURING VERIFY OPERATION, with the byte offset (BYTCHK 1) of the first difference.
    Miscompare(u64),
    /// NOT READY, LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE.
    NotReady,
    /// HARDWARE ERROR, INTERNAL TARGET FAILURE.
    InternalFailure,
    /// ABORTED COMMAND with an iSCSI condition (RFC 7143 11.4.7.2).
    Condition(Condition),
}

impl Sense {
    /// Of a store's failure; `lba` is where the command was.
    #[must_use]
    pub fn of_store(error: &StoreError, write: bool, lba: u64) -> Self {
        match error.kind {
            ErrorKind::OutOfRange => Self::LbaOutOfRange(lba),
            ErrorKind::ReadOnly | ErrorKind::Permission => Self::WriteProtected,
            ErrorKind::NoSpace => Self::NoSpace,
            ErrorKind::Medium | ErrorKind::Changed | ErrorKind::Corrupt if write => Self::WriteError(lba),
            ErrorKind::Medium | ErrorKind::Changed | ErrorKind::Corrupt => Self::ReadError(lba),
            ErrorKind::Offline => Self::NotReady,
            _ => Self::InternalFailure,
        }
    }

    /// Sense key, ASC, ASCQ.
    #[must_use]
    pub fn codes(self) -> (u8, u8, u8) {
        match self {
            Self::LbaOutOfRange(_) => (0x05, 0x21, 0x00),
            Self::InvalidFieldInCdb { .. } => (0x05, 0x24, 0x00),
            Self::ParameterListLength => (0x05, 0x1a, 0x00),
            Self::WriteProtected => (0x07, 0x27, 0x00),
            Self::NoSpace => (0x07, 0x27, 0x07),
            Self::ReadError(_) => (0x03, 0x11, 0x00),
            Self::WriteError(_) => (0x03, 0x0c, 0x00),
            Self::Miscompare(_) => (0x0e, 0x1d, 0x00),
            Self::NotReady => (0x02, 0x04, 0x00),
            Self::InternalFailure => (0x04, 0x44, 0x00),
            Self::Condition(condition) => condition.sense(),
        }
    }

    fn information(self) -> Option<u64> {
        match self {
            Self::LbaOutOfRange(value) | Self::ReadError(value) | Self::WriteError(value) | Self::Miscompare(value) => {
                Some(value)
            }
            _ => None,
        }
    }

    /// The sense-key specific bytes of ILLEGAL REQUEST: SKSV, C/D, BPV and bit, field pointer (SPC-5 4.4.2.4.2).
    fn field_pointer(self) -> Option<[u8; 3]> {
        let Self::InvalidFieldInCdb { byte, bit } = self else { return None };
        let mut first = 0x80 | 0x40; // in the CDB, not in a parameter list
        if let Some(bit) = bit {
            first |= 0x08 | bit;
        }
        let [high, low] = byte.to_be_bytes();
        Some([first, high, low])
    }

    /// Sense data in fixed (18 bytes) or descriptor format.
    #[must_use]
    pub fn encode(self, descriptor: bool) -> Vec<u8> {
        let (key, asc, ascq) = self.codes();
        if descriptor {
            let mut out = vec![0x72, key, asc, ascq, 0, 0, 0, 0];
            if let Some(information) = self.information() {
                out.extend([0x00, 0x0a, 0x80, 0x00]);
                out.extend(information.to_be_bytes());
            }
            if let Some([a, b, c]) = self.field_pointer() {
                out.extend([0x02, 0x06, 0x00, 0x00, a, b, c, 0x00]);
            }
            out[7] = (out.len() - 8) as u8;
            return out;
        }
        let mut out = vec![0; 18];
        out[0] = 0x70;
        out[2] = key;
        out[7] = 10;
        out[12] = asc;
        out[13] = ascq;
        if let Some(information) = self.information()
            && let Ok(information) = u32::try_from(information)
        {
            out[0] |= 0x80; // VALID: the field is 32 bits in this format
            out[3..7].copy_from_slice(&information.to_be_bytes());
        }
        if let Some(pointer) = self.field_pointer() {
            out[15..18].copy_from_slice(&pointer);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_an_invalid_field() {
        let sense = Sense::InvalidFieldInCdb { byte: 1, bit: Some(7) };
        assert_eq!(sense.encode(false), [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcf, 0, 1]);
        assert_eq!(sense.encode(true), [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xcf, 0, 1, 0]);
    }

    #[test]
    fn the_address_is_in_the_information_field() {
        let fixed = Sense::LbaOutOfRange(0x0102_0304).encode(false);
        assert_eq!((fixed[0], &fixed[3..7]), (0xf0, &[1, 2, 3, 4][..]));
        let wide = Sense::LbaOutOfRange(0x01_0000_0000);
        assert_eq!(wide.encode(false)[0], 0x70);
        assert_eq!(wide.encode(true)[8..20], [0, 10, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    }
}
