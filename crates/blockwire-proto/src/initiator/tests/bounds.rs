//! Recovery that leads nowhere ends, and what is believed of a peer has bounds (RFC 7143 7.8, 7.9, 11.16), byte by byte.

use super::peer::*;
use crate::{ConnectionParams, FatalCode, SessionParams};
use blockwire_wire::crc32c;

const TAG: u32 = 0x0001_0000;
const TIMEOUT: u64 = 1000;

fn params(level: u8) -> SessionParams {
    SessionParams {
        error_recovery_level: level,
        immediate_data: false,
        data_sequence_in_order: false,
        max_outstanding_r2t: 4,
        ..SessionParams::default()
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new(params(1), ConnectionParams::default());
    rig.session.set_recovery_timeout(TIMEOUT);
    rig
}

/// NOP-In that wants no answer: a sign of life, with the next StatSN (11.19).
fn nop_in(stat_sn: u32) -> Vec<u8> {
    pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, stat_sn, EXP, MAX, 0, 0, 0], &[])
}

/// SNACKs of what was sent: header, type, BegRun, RunLength.
fn snacks(bytes: &[u8]) -> Vec<(Vec<u8>, u8, u32, u32)> {
    let list = split(bytes).into_iter().filter(|(h, _)| h[0] == 0x10);
    list.map(|(h, _)| (h.to_vec(), h[1] & 0x0f, word(&h, 40), word(&h, 44))).collect()
}

#[test]
fn a_status_is_not_asked_for_without_end_of_a_target_that_lives() {
    let mut rig = rig();
    rig.command(&[0; 6], 0, 0);
    rig.sent(0);
    rig.deliver(0, &nop_in(STAT_SN + 1)).unwrap();
    let mut asked = snacks(&rig.sent(0)).len();
    for i in 1..10 {
        rig.now = 5 + i * TIMEOUT;
        rig.deliver(0, &nop_in(STAT_SN + 1)).unwrap();
        if let Err(fatal) = rig.session.on_timer(0, rig.now) {
            assert_eq!((fatal.code, asked), (FatalCode::SequenceGap, 4));
            return;
        }
        asked += snacks(&rig.sent(0)).iter().filter(|s| (s.1, s.2, s.3) == (1, STAT_SN, 1)).count();
    }
    panic!("asked for {asked} times");
}

#[test]
fn a_connection_that_answers_no_ping_is_given_up() {
    // keep-alive is off: it is the open request that makes the silence one (7.1.4.2)
    let mut rig = rig();
    rig.command(&[0; 6], 0, 0);
    rig.sent(0);
    let mut pings = 0;
    for i in 1..10 {
        if let Err(fatal) = rig.session.on_timer(0, 5 + i * TIMEOUT) {
            assert_eq!((fatal.code, pings), (FatalCode::KeepAliveTimeout, 3));
            return;
        }
        pings += split(&rig.sent(0)).iter().filter(|(h, _)| h[0] == 0x40).count();
    }
    panic!("{pings} pings");
}

#[test]
fn r2ts_that_do_not_come_are_let_go() {
    // 7.1.4.1: the target asks for the data itself, by a recovery R2T
    let mut rig = rig();
    let data = pattern(2048);
    rig.write(&data);
    rig.sent(0);
    rig.deliver(0, &r2t(TAG, 0xbb, 1, 1024, 1024)).unwrap();
    let mut asked = snacks(&rig.sent(0)).len();
    for i in 1..10 {
        rig.now = 5 + i * TIMEOUT;
        rig.deliver(0, &nop_in(STAT_SN)).unwrap();
        rig.session.on_timer(0, rig.now).unwrap();
        asked += snacks(&rig.sent(0)).iter().filter(|s| (s.1, s.2, s.3) == (0, 0, 1)).count();
    }
    assert_eq!(asked, 4);
    rig.deliver(0, &r2t(TAG, 0xcc, 2, 0, 1024)).unwrap();
    assert_eq!(split(&rig.sent(0))[0].1, data[..1024]);
    rig.deliver(0, &response(TAG, 0x80, 0, STAT_SN, 0, 0, &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
}

#[test]
fn a_rejected_status_snack_ends_the_connection_when_something_is_missing() {
    let mut rig = rig();
    rig.command(&[0; 6], 0, 0);
    rig.sent(0);
    rig.deliver(0, &nop_in(STAT_SN + 3)).unwrap();
    let asked = snacks(&rig.sent(0));
    assert_eq!((asked[0].1, asked[0].2, asked[0].3), (1, STAT_SN, 3));
    // the Reject is the first of the three; the others are still missing
    let reject = pdu(0x3f, 0x80, [4, 0], 0xffff_ffff, [0, STAT_SN, EXP, MAX, 0, 0, 0], &asked[0].0);
    assert_eq!(rig.deliver(0, &reject).unwrap_err().code, FatalCode::SequenceGap);
    // with nothing missing behind it, it is no matter
    let mut rig = super::bounds::rig();
    rig.command(&[0; 6], 0, 0);
    rig.sent(0);
    rig.deliver(0, &nop_in(STAT_SN + 1)).unwrap();
    rig.sent(0);
    rig.deliver(0, &reject).unwrap();
}

#[test]
fn a_number_from_a_damaged_pdu_is_not_believed_when_it_is_absurd() {
    let connection = ConnectionParams { data_digest: true, ..ConnectionParams::default() };
    let mut rig = Rig::new(params(1), connection);
    rig.read(1024);
    rig.sent(0);
    let damaged = |number: u32| {
        let mut bytes = data_in(TAG, 0, 0, number, 0, 0, &pattern(512));
        bytes.extend((crc32c::append(0, &bytes[48..]) ^ 1).to_le_bytes());
        bytes
    };
    rig.deliver(0, &damaged(0x0100_0000)).unwrap();
    assert!(snacks(&rig.sent(0)).is_empty());
    rig.deliver(0, &damaged(1)).unwrap();
    let asked = snacks(&rig.sent(0));
    assert_eq!((asked.len(), asked[0].2, asked[0].3), (1, 0, 2), "one that may be");
}

#[test]
fn r_data_begins_behind_what_was_acknowledged() {
    // 11.16.3: all unacknowledged data again; what a DataACK told stays
    let mut rig = rig();
    let slot = rig.read(4096);
    rig.sent(0);
    let data = pattern(4096);
    let mut asking = data_in(TAG, 0xc0, 0, 0, 0, 0, &data[..512]);
    asking[9] = 3;
    asking[20..24].copy_from_slice(&[0, 0, 0x77, 0]);
    rig.deliver(0, &asking).unwrap();
    assert_eq!(snacks(&rig.sent(0))[0].1, 2, "DataACK");
    rig.session.set_max_recv_data_segment_length(0, 2048);
    rig.deliver(0, &data_in(TAG, 0, 0, 2, 1024, 0, &data[1024..1536])).unwrap();
    assert_eq!(snacks(&rig.sent(0))[0].1, 3, "R-Data");
    rig.deliver(0, &data_in(TAG, 0, 0, 1, 512, 0, &data[512..2560])).unwrap();
    rig.deliver(0, &data_in(TAG, 0x80, 0, 2, 2560, 0, &data[2560..])).unwrap();
    rig.deliver(0, &pdu(0x21, 0x80, [0, 0], TAG, [1, STAT_SN, EXP, MAX, 3, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn a_reassigned_write_has_no_more_r2ts_than_any_other() {
    let mut rig = Rig::new(
        SessionParams { max_outstanding_r2t: 1, ..params(2) },
        ConnectionParams { cid: 1, ..ConnectionParams::default() },
    );
    let slot = rig.write(&pattern(2048));
    rig.sent(0);
    rig.deliver(0, &r2t(TAG, 0x70, 0, 0, 2048)).unwrap();
    rig.sent(0);
    rig.session.lose_connection(0, true);
    rig.session.add_connection(ConnectionParams { cid: 2, ..ConnectionParams::default() }, 0x500, 0);
    rig.session.rebind(slot, 0);
    let request = word(&split(&rig.sent(0))[0].0, 16);
    rig.deliver(0, &pdu(0x22, 0x80, [0, 0], request, [0, 0x500, EXP, MAX, 0, 0, 0], &[])).unwrap();
    // all of it was asked for before; that is forgotten with the connection (7.2.2)
    rig.deliver(0, &r2t(TAG, 0x71, 1, 0, 1024)).unwrap();
    let fatal = rig.deliver(0, &r2t(TAG, 0x72, 2, 1024, 1024)).unwrap_err();
    assert!(fatal.what.contains("13.17"), "{}", fatal.what);
}
