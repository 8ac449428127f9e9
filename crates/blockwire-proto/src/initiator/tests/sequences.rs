//! Which Data-Out PDUs make a sequence, in which order sequences leave and on which connection (RFC 7143 4.2.2.4, 4.2.5).

use super::super::InitiatorSession;
use super::peer::*;
use crate::{ConnectionParams, Endpoint, SessionParams};

const TAGS: [u32; 3] = [0x0001_0000, 0x0001_0001, 0x0001_0002];

#[test]
fn a_sequence_has_fewer_pdus_than_there_are_numbers() {
    // 4.2.2.4: fewer than 2^32. A sequence has 2^24 - 1 bytes at the most; a PDU carries four at the least, even where the
    // target claims to take fewer, so that a sequence always ends.
    for claimed in [0, 1, 3] {
        let session = SessionParams { immediate_data: false, ..SessionParams::default() };
        let connection = ConnectionParams { max_send_data_segment_length: claimed, ..ConnectionParams::default() };
        let mut rig = Rig::new(session, connection);
        let data = pattern(18);
        rig.write(&data);
        rig.sent(0);
        rig.deliver(0, &r2t(TAGS[0], 7, 0, 0, 18)).unwrap();
        let queue = rig.session.send_queue(0);
        let seen: Vec<(u32, u32, u32)> = queue
            .iter()
            .take(6)
            .map(|pdu| (pdu.bhs().data_sn(), pdu.bhs().buffer_offset(), pdu.bhs().data_segment_length()))
            .collect();
        assert_eq!(seen, [(0, 0, 4), (1, 4, 4), (2, 8, 4), (3, 12, 4), (4, 16, 2)]);
    }
}

#[test]
fn unsolicited_data_leaves_in_the_order_of_the_commands() {
    // 4.2.5.2: the Data-Outs of command N before those of N + 1, whatever lies between them, on each connection
    let session = SessionParams { initial_r2t: false, immediate_data: false, ..SessionParams::default() };
    let mut rig = Rig::new(session, ConnectionParams { max_send_data_segment_length: 512, ..Default::default() });
    let writes: Vec<Vec<u8>> = (1..=3).map(|n| pattern(n * 1000)).collect();
    rig.write(&writes[0]);
    rig.read(512);
    rig.write(&writes[1]);
    rig.write(&writes[2]);
    let sent = split(&rig.sent(0));
    let commands: Vec<u32> =
        sent.iter().filter(|(h, _)| h[0] == 1 && h[1] & 0x20 != 0).map(|(h, _)| word(h, 16)).collect();
    let mut data: Vec<u32> = sent.iter().filter(|(h, _)| h[0] == 5).map(|(h, _)| word(h, 16)).collect();
    assert_eq!(data.len(), 2 + 4 + 6);
    data.dedup();
    assert_eq!(data, commands, "each in one run, in the order of the commands");
    let numbers: Vec<u32> = sent.iter().filter(|(h, _)| h[0] == 1).map(|(h, _)| word(h, 24)).collect();
    assert_eq!(numbers, [0x10, 0x11, 0x12, 0x13]);
}

#[test]
fn a_longer_queue_keeps_the_order_of_unsolicited_data() {
    // the commands come while data of the first still waits for its turn
    let session = SessionParams {
        initial_r2t: false,
        immediate_data: true,
        first_burst_length: 400_000,
        max_burst_length: 400_000,
        ..SessionParams::default()
    };
    let mut rig = Rig::new(session, ConnectionParams { max_send_data_segment_length: 4096, ..Default::default() });
    let data = pattern(400_000);
    rig.write(&data);
    // the queue is filled up to its mark, and no further
    assert!(rig.session.send_queue(0).unsent_bytes() < 300_000);
    rig.write(&data[..9000]);
    let sent = split(&rig.sent(0));
    let mut order: Vec<u32> = sent.iter().filter(|(h, _)| h[0] == 5).map(|(h, _)| word(h, 16)).collect();
    order.dedup();
    assert_eq!(order, [TAGS[0], TAGS[1]]);
    let second = sent.iter().position(|(h, _)| h[0] == 1 && word(h, 16) == TAGS[1]).unwrap();
    let last = sent.iter().rposition(|(h, _)| h[0] == 5 && word(h, 16) == TAGS[0]).unwrap();
    assert!(second < last, "the command itself need not wait (4.2.5.2: MAY)");
}

#[test]
fn a_snack_uses_the_connection_of_its_task() {
    // 4.2.5.1: SNACKs, and what they bring, on the same connection
    const SECOND: u32 = 0x500;
    let params = SessionParams { error_recovery_level: 1, ..SessionParams::default() };
    for conn in [0, 1] {
        let mut session = InitiatorSession::new(params.clone(), 0x10, 0x10, 0x1f);
        session.add_connection(ConnectionParams { cid: 1, ..Default::default() }, STAT_SN, 0);
        session.add_connection(ConnectionParams { cid: 2, ..Default::default() }, SECOND, 0);
        let mut rig = Rig::of(session);
        let slot = rig
            .session
            .submit(&super::super::Command {
                lun: 0x0003_0000_0000_0000,
                cdb: &[0x28; 10],
                attribute: 1,
                immediate: false,
                write_len: 0,
                read_len: 1024,
                conn: Some(conn),
                context: 77,
            })
            .unwrap();
        rig.memory.insert(slot, vec![0; 1024]);
        rig.sent(conn);
        let data = pattern(1024);
        // DataSN 0 is missing
        rig.deliver(conn, &data_in(TAGS[0], 0x80, 0, 1, 512, 0, &data[512..])).unwrap();
        assert!(rig.sent(1 - conn).is_empty());
        let snack = split(&rig.sent(conn));
        assert_eq!((snack.len(), snack[0].0[0], word(&snack[0].0, 16)), (1, 0x10, TAGS[0]));
        // on the other connection the missing PDU is a protocol error
        let other = rig.deliver(1 - conn, &data_in(TAGS[0], 0, 0, 0, 0, 0, &data[..512]));
        assert!(other.unwrap_err().what.contains("4.2.2"));
        rig.deliver(conn, &data_in(TAGS[0], 0, 0, 0, 0, 0, &data[..512])).unwrap();
        let own = if conn == 0 { STAT_SN } else { SECOND };
        rig.deliver(conn, &response(TAGS[0], 0x80, 0, own, 0, 0, &[])).unwrap();
        assert_eq!(rig.ended(), good(0));
        assert_eq!(rig.memory[&slot], data);
    }
}

#[test]
fn r2t_and_data_in_name_the_unit_of_their_command() {
    // 4.2.5.3: MUST be the same as in the command. The commands of this rig go to LUN 3.
    let unit = |mut pdu: Vec<u8>, lun: [u8; 2]| {
        pdu[8..10].copy_from_slice(&lun);
        pdu
    };
    for (lun, agrees) in [([0, 3], true), ([0x40, 3], true), ([0, 0], false), ([0, 4], false), ([0, 0x43], false)] {
        let mut rig = Rig::new(SessionParams { immediate_data: false, ..Default::default() }, Default::default());
        rig.write(&pattern(512));
        rig.sent(0);
        let result = rig.deliver(0, &unit(r2t(TAGS[0], 7, 0, 0, 512), lun));
        assert_eq!(result.is_ok(), agrees, "{lun:?}");
        assert_eq!(split(&rig.sent(0)).len(), usize::from(agrees));
        if let Err(fatal) = result {
            assert!(fatal.what.contains("4.2.5.3"));
        }
        // Data-In: where the A bit makes the field valid (11.7.4)
        for level in [0, 1] {
            let session = SessionParams { error_recovery_level: level, ..SessionParams::default() };
            let mut rig = Rig::new(session, ConnectionParams::default());
            rig.read(512);
            rig.sent(0);
            let mut data = unit(data_in(TAGS[0], 0xc0, 0, 0, 0, 0, &pattern(512)), lun);
            data[20..24].copy_from_slice(&[0, 0, 0, 9]);
            assert_eq!(rig.deliver(0, &data).is_ok(), agrees || level == 0, "{lun:?} {level}");
        }
    }
}
