//! The golden vectors of `tests/vectors`, typed from the RFCs' figures: field by field, and through the deframer.

use std::collections::BTreeMap;

use blockwire_wire::bhs::{
    BIDI_OVERFLOW, BIDI_UNDERFLOW, FINAL, OVERFLOW, READ, STATUS_PRESENT, UNDERFLOW, WRITE, padding,
};
use blockwire_wire::{BHS_LEN, Bhs, Deframer, Opcode, Step, crc32c};

/// One vector: plain keys, `'''` blocks as bytes, and the fields.
#[derive(Default)]
struct Vector {
    text: BTreeMap<String, String>,
    blocks: BTreeMap<String, Vec<u8>>,
    fields: BTreeMap<String, String>,
}

impl Vector {
    fn name(&self) -> &str {
        &self.text["name"]
    }

    fn block(&self, key: &str) -> Vec<u8> {
        self.blocks.get(key).cloned().unwrap_or_default()
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn number(text: &str) -> u64 {
    text.strip_prefix("0x").map_or_else(|| text.parse().unwrap(), |digits| u64::from_str_radix(digits, 16).unwrap())
}

/// Reads the plain form that the directory's README describes.
fn vectors(file: &str) -> Vec<Vector> {
    let path = format!("{}/../../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut all: Vec<Vector> = Vec::new();
    let mut fields = false;
    let mut block: Option<(String, Vec<u8>)> = None;
    for line in text.lines() {
        let line = line.split('#').next().unwrap().trim();
        if let Some((key, mut bytes)) = block.take() {
            if line == "'''" {
                all.last_mut().unwrap().blocks.insert(key, bytes);
            } else {
                bytes.extend(hex(line));
                block = Some((key, bytes));
            }
            continue;
        }
        match line {
            "" => {}
            "[[vector]]" => {
                all.push(Vector::default());
                fields = false;
            }
            "[vector.fields]" => fields = true,
            _ => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{file}: {line}"));
                let (key, value) = (key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
                let vector = all.last_mut().unwrap();
                if value == "'''" {
                    block = Some((key, Vec::new()));
                } else if fields {
                    vector.fields.insert(key, value);
                } else {
                    vector.text.insert(key, value);
                }
            }
        }
    }
    assert!(!all.is_empty(), "{file} has no vector");
    all
}

fn pdus() -> Vec<Vector> {
    let mut all = vectors("pdu_requests.toml");
    all.extend(vectors("pdu_responses.toml"));
    all
}

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
            } else {
                continue;
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} fields were known");
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
        for size in [1, 2, 3, 5, 47, 48, 49, 1000, stream.len()] {
            let mut deframer = Deframer::new(header_digest, data_digest);
            let mut seen = Vec::new();
            let mut data = Vec::new();
            for piece in stream.chunks(size) {
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
                        other => panic!("{other:?} in pieces of {size}"),
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
