//! The iSCSI wire format as the data plane needs it: typed views of the 48-byte Basic Header Segment,
//! deframing of a byte stream, serial number arithmetic and CRC32C. No I/O.

#![deny(unsafe_code)] // crc32c.rs alone allows itself the CRC instruction

pub mod bhs;
pub mod crc32c;
pub mod deframe;
pub mod opcode;
pub mod serial;

pub use bhs::{BHS_LEN, Bhs, RESERVED_TAG};
pub use deframe::{Deframer, Step};
pub use opcode::Opcode;
