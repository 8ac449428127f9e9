//! The golden vectors of `tests/vectors`, typed from the RFCs' figures: field by field, and through the deframer.

mod vector_files;

use blockwire_wire::bhs::{
    BIDI_OVERFLOW, BIDI_UNDERFLOW, FINAL, OVERFLOW, READ, STATUS_PRESENT, UNDERFLOW, WRITE, padding,
};
use blockwire_wire::{BHS_LEN, Bhs, Deframer, Opcode, Step, crc32c};
use vector_files::{hex, number, pdus, vectors};

fn opcode(pdu: &str) -> Opcode {
    match pdu {
        "nop_out" => Opcode::NopOut,
        "scsi_command" => Opcode::ScsiCommand,
        "task_management_request" => Opcode::TaskManagementRequest,
        "login_request" => Opcode::LoginRequest,
        "text_request" => Opcode::TextRequest,
        "data_out" => Opcode::DataOut,
        "logout_request" => Opcode::LogoutRequest,
        "snack" => Opcode::Snack,
        "nop_in" => Opcode::NopIn,
        "scsi_response" => Opcode::ScsiResponse,
        "task_management_response" => Opcode::TaskManagementResponse,
        "login_response" => Opcode::LoginResponse,
        "text_response" => Opcode::TextResponse,
        "data_in" => Opcode::DataIn,
        "logout_response" => Opcode::LogoutResponse,
        "r2t" => Opcode::R2t,
        "async_message" => Opcode::AsyncMessage,
        "reject" => Opcode::Reject,
        other => panic!("no opcode for {other}"),
    }
}

/// The value of a field as the view gives it; None for fields that only the control plane reads.
fn field(bhs: &Bhs, pdu: &str, name: &str) -> Option<u64> {
    let flag = |bit: u8| u64::from(bhs.flags() & bit != 0);
    Some(match name {
        "initiator_task_tag" => bhs.initiator_task_tag().into(),
        "target_transfer_tag" => bhs.target_transfer_tag().into(),
        "expected_data_transfer_length" => bhs.expected_data_transfer_length().into(),
        "referenced_task_tag" => bhs.referenced_task_tag().into(),
        "snack_tag" if pdu == "scsi_response" => bhs.snack_tag().into(),
        "cmd_sn" => bhs.cmd_sn().into(),
        "stat_sn" => bhs.stat_sn().into(),
        "exp_stat_sn" => bhs.exp_stat_sn().into(),
        "exp_cmd_sn" => bhs.exp_cmd_sn().into(),
        "max_cmd_sn" => bhs.max_cmd_sn().into(),
        "ref_cmd_sn" => bhs.ref_cmd_sn().into(),
        "exp_data_sn" => bhs.exp_data_sn().into(),
        "data_sn" | "r2t_sn" if pdu != "reject" => bhs.data_sn().into(),
        "buffer_offset" => bhs.buffer_offset().into(),
        "beg_run" => bhs.beg_run().into(),
        "run_length" => bhs.run_length().into(),
        "residual_count" => bhs.residual_count().into(),
        "bidirectional_residual_count" | "bidirectional_read_residual_count" => {
            bhs.bidirectional_residual_count().into()
        }
        "desired_data_transfer_length" => bhs.desired_data_transfer_length().into(),
        "response" | "reason" if pdu != "logout_request" => bhs.response().into(),
        "status" => bhs.status().into(),
        "function" => bhs.function().into(),
        "attribute" => bhs.task_attribute().into(),
        "immediate" => bhs.is_immediate().into(),
        "final" => u64::from(bhs.is_final()),
        "read" => flag(READ),
        "write" => flag(WRITE),
        "overflow" => flag(OVERFLOW),
        "underflow" => flag(UNDERFLOW),
        "bidirectional_overflow" => flag(BIDI_OVERFLOW),
        "bidirectional_underflow" => flag(BIDI_UNDERFLOW),
        "has_status" => flag(STATUS_PRESENT),
        _ => return None,
    })
}

/// The rest of the header fields, which only the control plane reads: (PDU or "" for any, field, first byte, bytes, mask). They are
/// checked at their place, so that a vector with a mistake is found in both languages.
const CONTROL_FIELDS: [(&str, &str, usize, usize, u64); 25] = [
    ("data_in", "acknowledge", 1, 1, 0x40),
    ("", "continued", 1, 1, 0x40),
    ("", "transit", 1, 1, 0x80),
    ("", "csg", 1, 1, 0x0c),
    ("", "nsg", 1, 1, 0x03),
    ("", "isid", 8, 6, u64::MAX),
    ("", "tsih", 14, 2, u64::MAX),
    ("", "cid", 20, 2, u64::MAX),
    ("", "status_class", 36, 1, u64::MAX),
    ("", "status_detail", 37, 1, u64::MAX),
    ("", "async_event", 36, 1, u64::MAX),
    ("", "parameter1", 38, 2, u64::MAX),
    ("", "parameter2", 40, 2, u64::MAX),
    ("", "parameter3", 42, 2, u64::MAX),
    ("logout_request", "reason", 1, 1, 0x7f),
    ("logout_response", "time2wait", 40, 2, u64::MAX),
    ("logout_response", "time2retain", 42, 2, u64::MAX),
    ("snack", "type", 1, 1, 0x0f),
    ("snack", "snack_tag", 20, 4, u64::MAX),
    ("reject", "data_sn", 36, 4, u64::MAX),
    // RFC 7144 5.1, 5.2, 6.4
    ("scsi_command", "priority", 2, 1, 0xf0),
    ("scsi_response", "status_qualifier", 8, 2, u64::MAX),
    ("task_management_response", "additional_information", 8, 3, u64::MAX),
    // in an AHS or across the CDB field: readers of their own
    ("scsi_command", "cdb", 32, 0, u64::MAX),
    ("scsi_command", "bidirectional_read_length", 48, 0, u64::MAX),
];

/// A field of `CONTROL_FIELDS` at its place; None where no number of the header says it.
fn control_field(bhs: &Bhs, pdu: &str, name: &str) -> Option<u64> {
    let row = CONTROL_FIELDS.iter().find(|row| row.1 == name && (row.0.is_empty() || row.0 == pdu));
    let &(_, _, at, len, mask) = row.unwrap_or_else(|| panic!("nobody reads {name} of {pdu}"));
    let value = bhs.0[at..].iter().take(len).fold(0, |value, byte| value << 8 | u64::from(*byte));
    (len > 0).then(|| (value & mask) >> if mask == u64::MAX { 0 } else { mask.trailing_zeros() })
}

#[test]
fn fields_are_where_the_figures_have_them() {
    let mut checked = 0;
    for vector in pdus() {
        let bhs = Bhs(vector.block("bhs").try_into().expect("48 bytes"));
        let pdu = vector.text["pdu"].as_str();
        assert_eq!(bhs.opcode(), Some(opcode(pdu)), "{}", vector.name());
        assert_eq!(bhs.ahs_len(), vector.block("ahs").len(), "{}", vector.name());
        assert_eq!(bhs.data_segment_length() as usize, vector.block("data").len(), "{}", vector.name());
        for (name, value) in &vector.fields {
            if name == "lun" {
                assert_eq!(bhs.lun().to_be_bytes()[..], hex(value), "{}", vector.name());
            } else if let Some(found) = field(&bhs, pdu, name) {
                let expected = match value.as_str() {
                    "true" => 1,
                    "false" => 0,
                    digits => number(digits),
                };
                assert_eq!(found, expected, "{} of {}", name, vector.name());
            } else if let Some(found) = control_field(&bhs, pdu, name) {
                let expected = match value.as_str() {
                    "true" => 1,
                    "false" => 0,
                    digits if name == "isid" => u64::from_str_radix(digits, 16).unwrap(),
                    digits => number(digits),
                };
                assert_eq!(found, expected, "{} of {}", name, vector.name());
            } else if name == "cdb" {
                let cdb = [&bhs.cdb()[..], &extended_cdb(&vector.block("ahs"))].concat();
                assert_eq!(cdb[..hex(value).len()], hex(value), "{}", vector.name());
            } else {
                continue;
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} fields were known");
}

/// What an Extended CDB AHS adds (11.2.2.3): AHSLength counts the reserved byte and the CDB bytes.
fn extended_cdb(ahs: &[u8]) -> Vec<u8> {
    match ahs {
        [high, low, 1, _, rest @ ..] => rest[..usize::from(u16::from_be_bytes([*high, *low])) - 1].to_vec(),
        _ => Vec::new(),
    }
}

/// FINAL is bit 7 of byte 1 in every PDU that has it.
#[test]
fn the_f_bit() {
    for vector in pdus() {
        let bhs = Bhs(vector.block("bhs").try_into().expect("48 bytes"));
        assert_eq!(bhs.is_final(), vector.block("bhs")[1] & FINAL != 0);
    }
}

#[test]
fn digests() {
    for vector in vectors("crc32c.toml") {
        let data = match vector.text.get("fill") {
            Some(fill) => vec![number(fill) as u8; number(&vector.text["length"]) as usize],
            None => vector.block("data"),
        };
        assert_eq!(crc32c::append(0, &data).to_le_bytes()[..], hex(&vector.text["digest"]), "{}", vector.name());
    }
}

/// All vectors in one stream, with every combination of digests, in pieces of every small size.
#[test]
fn a_stream_of_all_in_any_pieces() {
    let all = pdus();
    for (header_digest, data_digest) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut stream = Vec::new();
        for vector in &all {
            let header = [vector.block("bhs"), vector.block("ahs")].concat();
            let mut data = vector.block("data");
            let length = data.len();
            data.resize(length + padding(length as u32) as usize, 0);
            stream.extend(&header);
            if header_digest {
                stream.extend(crc32c::append(0, &header).to_le_bytes());
            }
            stream.extend(&data);
            if data_digest && length > 0 {
                stream.extend(crc32c::append(0, &data).to_le_bytes());
            }
        }
        let sizes = [1, 2, 3, 5, 47, 48, 49, 1000, stream.len()];
        let chunks = sizes.iter().map(|size| stream.chunks(*size).collect::<Vec<_>>());
        let halves = (0..=stream.len()).map(|cut| vec![&stream[..cut], &stream[cut..]]);
        for pieces in chunks.chain(halves) {
            let mut deframer = Deframer::new(header_digest, data_digest);
            let mut seen = Vec::new();
            let mut data = Vec::new();
            for piece in pieces {
                let mut at = 0;
                loop {
                    let left = deframer.data_remaining() as usize;
                    if left > 0 {
                        let part = &piece[at..(at + left).min(piece.len())];
                        if part.is_empty() {
                            break;
                        }
                        data.extend(part);
                        at += part.len();
                        let crc = crc32c::append(deframer.data_crc(), part);
                        if deframer.data_moved(part.len() as u32, crc) {
                            seen.push((deframer.bhs().0.to_vec(), deframer.ahs().to_vec(), std::mem::take(&mut data)));
                        }
                        continue;
                    }
                    let (n, step) = deframer.push(&piece[at..]);
                    at += n;
                    match step {
                        Step::NeedMore => break,
                        Step::Header => {}
                        Step::Pdu => {
                            seen.push((deframer.bhs().0.to_vec(), deframer.ahs().to_vec(), std::mem::take(&mut data)));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert!(deframer.at_boundary());
            assert_eq!(seen.len(), all.len());
            for ((bhs, ahs, data), vector) in seen.iter().zip(&all) {
                assert_eq!(bhs.len(), BHS_LEN);
                let expected = (vector.block("bhs"), vector.block("ahs"), vector.block("data"));
                assert_eq!((bhs.clone(), ahs.clone(), data.clone()), expected, "{}", vector.name());
            }
        }
    }
}
