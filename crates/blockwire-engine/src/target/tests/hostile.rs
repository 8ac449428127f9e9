//! Random streams: no panic, memory given back, other sessions unharmed.

use proptest::prelude::*;

use super::*;
use crate::calls::{Answer as Reply, Effects};
use crate::clock::SECOND;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn random_commands_and_data_are_survived(
        steps in prop::collection::vec((any::<u8>(), 0..6_u32, 0..4_u32, 0..20_000_u32, 0..9000_usize, any::<u32>()), 1..40),
        level in 0..3_u8,
    ) {
        let session = SessionParams { error_recovery_level: level, data_sequence_in_order: level == 0, ..params() };
        let mut rig = Rig::with(ram(), session, PlaneOptions::default());
        rig.session(8, params());
        let other = rig.connect(8, connection(1));
        let mut cmd_sn = 1;
        for (kind, tag, ttt, word, len, lba) in steps {
            let data = vec![0x5a; len];
            let opcodes = [0x28, 0x2a, 0x2f, 0x41, 0x42, 0x35, 0x00, 0x12, 0x88, 0x2e];
            let bytes = match kind % 5 {
                0 | 1 => {
                    cmd_sn += 1;
                    let opcode = opcodes[(word % 10) as usize];
                    let cdb = cdb10(opcode, (lba >> 16) as u8 & 0x0e, lba % 40_000, (word % 300) as u16);
                    let flags = [0x80, 0xc0, 0xa0, 0x20, 0xe0][(lba % 5) as usize];
                    scsi_command(flags, tag, cmd_sn - 1, &cdb, word, if lba % 3 == 0 { &data } else { &[] })
                }
                4 => {
                    let mut bhs = [0; BHS_LEN];
                    bhs[..2].copy_from_slice(&[0x10, 0x80 | (word % 5) as u8]);
                    let second = if lba % 2 == 0 { u32::MAX } else { tag };
                    for (at, value) in [(16, if word % 3 == 0 { u32::MAX } else { tag }), (20, second), (28, 100 + lba % 9), (40, ttt), (44, lba % 3)] {
                        bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
                    }
                    bhs.to_vec()
                }
                2 => data_out(lba % 2 == 0, tag, if ttt == 3 { u32::MAX } else { ttt }, lba % 3, word / 4 * 4, &data),
                _ => {
                    let mut bhs = [0; BHS_LEN];
                    bhs[0] = word as u8;
                    bhs[1] = kind;
                    bhs[16..20].copy_from_slice(&tag.to_be_bytes());
                    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
                    bhs.to_vec()
                }
            };
            rig.send(0, &bytes);
            if lba % 7 == 0 {
                let target = AbortTarget::Task { session: SESSION, initiator_task_tag: tag, ref_cmd_sn: None };
                rig.abort(target, None);
            }
            if lba % 4 == 0 {
                rig.take(0);
            }
            if lba % 31 == 0 {
                // the connection goes; what froze moves to the next one, of the same CID
                let _ = rig.worker.target.release(&mut rig.worker.core, SESSION, 1, ReleaseMode::Freeze);
                let peer = rig.connect(SESSION, connection(1));
                rig.peers.swap(0, peer);
                let mut bhs = [0; BHS_LEN];
                bhs[..2].copy_from_slice(&[0x42, 0x88]);
                bhs[16..20].copy_from_slice(&0x5555_u32.to_be_bytes());
                bhs[20..24].copy_from_slice(&tag.to_be_bytes());
                rig.events();
                rig.send(0, &bhs);
                if let Some(Event::ControlPdu { tag: request, .. }) = rig.events().pop() {
                    let effects = Effects { rebind: Some((tag, None)), exp_data_sn: ttt, ..Effects::default() };
                    let mut header = [0; BHS_LEN];
                    header[..2].copy_from_slice(&[0x22, 0x80]);
                    let answer = Reply::Pdu { header, data: Vec::new() };
                    rig.worker.target.reply(&mut rig.worker.core, SESSION, request, answer, effects);
                }
            }
            if lba % 13 == 0 {
                let now = rig.clock.now() + 20 * SECOND;
                rig.at(now);
            }
            rig.events();
        }
        let tag = rig.command_on(other, 0xc0, &cdb10(0x28, 0, 0, 8), 4096, &[]);
        prop_assert_eq!(rig.answer(other, tag, &[]).status, 0);
        rig.worker.target.close_session(&mut rig.worker.core, SESSION).expect("closed");
        rig.worker.target.close_session(&mut rig.worker.core, 8).expect("closed");
        prop_assert_eq!(rig.in_use(), 0);
    }
}
