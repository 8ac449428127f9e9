//! Every block command, its checks and its residuals.

use super::*;

#[test]
fn reads_and_writes_of_every_form_move_the_right_bytes() {
    let mut rig = Rig::new();
    let data: Vec<u8> = (0..5000 * BLOCK).map(|i| (i * 13 / 5) as u8).collect();
    for (lba, cdb) in [
        (5, vec![0x0a, 0, 0, 5, 8, 0]),
        (100, cdb10(0x2a, 0, 100, 8).to_vec()),
        (200, vec![0xaa, 0, 0, 0, 0, 200, 0, 0, 0, 8, 0, 0]),
        (300, cdb16(0x8a, 0x08, 300, 8).to_vec()),
        (400, cdb10(0x2e, 0x02, 400, 8).to_vec()),
    ] {
        rig.run(&cdb, &data[lba * BLOCK..(lba + 8) * BLOCK], 0).good();
        assert_eq!(rig.read_store(lba as u64 * 512, 4096), &data[lba * BLOCK..(lba + 8) * BLOCK]);
    }
    for (lba, cdb) in [
        (5, vec![0x08, 0, 0, 5, 8, 0]),
        (100, cdb10(0x28, 0, 100, 8).to_vec()),
        (200, vec![0xa8, 0, 0, 0, 0, 200, 0, 0, 0, 8, 0, 0]),
        (300, cdb16(0x88, 0x18, 300, 8).to_vec()),
    ] {
        let answer = rig.run(&cdb, &[], 4096);
        answer.good();
        assert_eq!(answer.data, &data[lba * BLOCK..(lba + 8) * BLOCK]);
    }
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn large_writes_use_r2t_and_large_reads_come_in_pieces() {
    let mut rig = Rig::new();
    let data: Vec<u8> = (0..3_000_000_usize / BLOCK * BLOCK).map(|i| (i / 3 * 7) as u8).collect();
    let blocks = (data.len() / BLOCK) as u32;
    rig.run(&cdb16(0x8a, 0, 1000, blocks), &data, 0).good();
    assert_eq!(rig.read_store(1000 * 512, data.len()), data);
    let answer = rig.run(&cdb16(0x88, 0, 1000, blocks), &[], data.len() as u32);
    answer.good();
    assert!(answer.data == data);
    assert_eq!(rig.in_use(), 0);
    // and with a digest, through the arena
    let (counters, direct) = (rig.worker.core.counters, data.len() as u64);
    assert_eq!((counters.bytes_sent_from_store, counters.bytes_sent_by_copy), (direct, 0));
}

#[test]
fn verify_compares() {
    let mut rig = Rig::new();
    let data = rig.fill_store();
    let part = &data[10 * BLOCK..18 * BLOCK];
    rig.run(&cdb10(0x2f, 0x02, 10, 8), part, 0).good();
    rig.run(&cdb10(0x2f, 0x00, 10, 8), &[], 0).good();
    let mut wrong = part.to_vec();
    wrong[1234] ^= 1;
    let answer = rig.run(&cdb16(0x8f, 0x02, 10, 8), &wrong, 0);
    assert_eq!(answer.key(), (0x0e, 0x1d, 0));
    assert_eq!(answer.sense[3..7], 1234_u32.to_be_bytes());
    // BYTCHK 3: every block against one
    let answer = rig.run(&cdb10(0x2f, 0x06, 10, 2), &part[..BLOCK], 0);
    assert_eq!(answer.key(), (0x0e, 0x1d, 0));
    rig.run(&cdb10(0x41, 0, 10, 2000), &part[..BLOCK], 0).good();
    rig.run(&cdb10(0x2f, 0x06, 10, 2000), &part[..BLOCK], 0).good();
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn write_same_and_unmap() {
    let mut rig = Rig::new();
    let data = rig.fill_store();
    let pattern: Vec<u8> = (0..BLOCK).map(|i| i as u8 ^ 0x55).collect();
    rig.run(&cdb16(0x93, 0, 100, 3000), &pattern, 0).good();
    let got = rig.read_store(100 * 512, 3000 * BLOCK);
    assert!(got.chunks(BLOCK).all(|b| b == pattern));
    assert_eq!(rig.read_store(99 * 512, BLOCK), &data[99 * BLOCK..100 * BLOCK]);
    assert_eq!(rig.read_store(3100 * 512, BLOCK), &data[3100 * BLOCK..3101 * BLOCK]);
    // NDOB
    rig.run(&cdb16(0x93, 0x09, 200, 10), &[], 0).good();
    assert!(rig.read_store(200 * 512, 5120).iter().all(|b| *b == 0));
    // up to the last block
    rig.run(&cdb10(0x41, 0x08, BLOCKS as u32 - 5, 0), &[0; BLOCK], 0).good();
    assert!(rig.read_store((BLOCKS - 5) * 512, 5 * BLOCK).iter().all(|b| *b == 0));
    // with UNMAP the range reads as zeros whatever the data
    rig.run(&cdb10(0x41, 0x08, 700, 3), &pattern, 0).good();
    assert!(rig.read_store(700 * 512, 3 * BLOCK).iter().all(|b| *b == 0));
    assert_eq!(rig.run(&cdb10(0x41, 0, 700, 3), &[1; 2 * BLOCK], 0).key(), (5, 0x24, 0), "one block of data");
    // UNMAP of two ranges
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for (lba, blocks) in [(4000_u64, 8_u32), (5000, 16)] {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    rig.run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], &list, 0).good();
    assert!(rig.read_store(4000 * 512, 8 * BLOCK).iter().all(|b| *b == 0));
    assert!(rig.read_store(5000 * 512, 16 * BLOCK).iter().all(|b| *b == 0));
    assert_eq!(rig.read_store(4008 * 512, BLOCK), &data[4008 * BLOCK..4009 * BLOCK]);
    // one range out of bounds: nothing is done
    let before = rig.read_store(6000 * 512, BLOCK);
    list[8..16].copy_from_slice(&6000_u64.to_be_bytes());
    list[24..32].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
    assert_eq!(rig.run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], &list, 0).key(), (5, 0x21, 0));
    assert_eq!(rig.read_store(6000 * 512, BLOCK), before);
    assert_eq!(rig.run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 4, 0], &[0; 4], 0).key(), (5, 0x1a, 0));
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn bad_requests_have_their_sense_data() {
    let mut rig = Rig::new();
    rig.run(&[0; 6], &[], 0).good();
    rig.run(&cdb10(0x35, 0, 0, 0), &[], 0).good();
    let answer = rig.run(&cdb10(0x28, 0, BLOCKS as u32, 1), &[], 512);
    assert_eq!(answer.key(), (5, 0x21, 0));
    assert_eq!(answer.bhs.flags() & 0x02, 0x02, "nothing was read: underflow");
    assert_eq!(answer.bhs.residual_count(), 512);
    assert_eq!(rig.run(&cdb16(0x88, 0, u64::MAX, 2), &[], 1024).key(), (5, 0x21, 0));
    assert_eq!(rig.run(&cdb10(0x28, 0, BLOCKS as u32 + 1, 0), &[], 0).key(), (5, 0x21, 0));
    let answer = rig.run(&cdb10(0x28, 0x20, 0, 1), &[], 512);
    assert_eq!((answer.key(), &answer.sense[15..18]), ((5, 0x24, 0), &[0xcf, 0, 1][..]));
    let mut mapping = rig.mapping();
    mapping.read_only = true;
    mapping.descriptor_sense = true;
    rig.worker.target.map_lun(&mut rig.worker.core, SESSION, 0, mapping).expect("mapped");
    let answer = rig.run(&cdb10(0x2a, 0, 0, 1), &[0; 512], 0);
    assert_eq!(answer.sense[..4], [0x72, 7, 0x27, 0]);
    let mut mapping = rig.mapping();
    mapping.max_transfer_blocks = 16;
    rig.worker.target.map_lun(&mut rig.worker.core, SESSION, 0, mapping).expect("mapped");
    assert_eq!(rig.run(&cdb10(0x28, 0, 0, 17), &[], 17 * 512).key(), (5, 0x24, 0));
    assert_eq!(rig.run(&cdb10(0x41, 0, 0, 17), &[0; 512], 0).key(), (5, 0x24, 0));
    rig.run(&cdb10(0x41, 0, 0, 16), &[0; 512], 0).good();
}

#[test]
fn residuals_of_short_and_long_expectations() {
    let mut rig = Rig::new();
    let data = rig.fill_store();
    // one block wanted, 256 bytes expected: overflow, and only what is expected
    let answer = rig.run(&cdb10(0x28, 0, 3, 1), &[], 256);
    assert_eq!((answer.status, answer.bhs.flags() & 6, answer.bhs.residual_count()), (0, 4, 256));
    assert_eq!(answer.data, &data[3 * BLOCK..3 * BLOCK + 256]);
    // two blocks expected, one wanted: underflow
    let answer = rig.run(&cdb10(0x28, 0, 3, 1), &[], 1024);
    assert_eq!((answer.status, answer.bhs.flags() & 6, answer.bhs.residual_count()), (0, 2, 512));
    assert_eq!(answer.data.len(), 512);
    // the same for writes: only so many bytes are written
    let answer = rig.run(&cdb10(0x2a, 0, 50, 1), &[9; 256], 0);
    assert_eq!((answer.status, answer.bhs.flags() & 6, answer.bhs.residual_count()), (0, 4, 256));
    assert_eq!(rig.read_store(50 * 512, 256), [9; 256]);
    assert_eq!(rig.read_store(50 * 512 + 256, 256), &data[50 * BLOCK + 256..51 * BLOCK]);
    let answer = rig.run(&cdb10(0x2a, 0, 60, 1), &[8; 1024], 0);
    assert_eq!((answer.status, answer.bhs.flags() & 6, answer.bhs.residual_count()), (0, 2, 512));
    assert_eq!(rig.read_store(61 * 512, BLOCK), &data[61 * BLOCK..62 * BLOCK]);
    // a READ that was announced as a write moves nothing
    let tag = rig.command(0xa0, &cdb10(0x28, 0, 3, 1), 512, &[0; 512]);
    let answer = rig.answer(0, tag, &[]);
    assert_eq!((answer.status, answer.bhs.flags() & 6, answer.bhs.residual_count()), (0, 4, 512));
}

#[test]
fn what_is_not_served_goes_up() {
    let mut rig = Rig::new();
    rig.command(0xc0, &[0x12, 0, 0, 0, 36, 0], 36, &[]);
    rig.command(0xc2, &cdb10(0x28, 0, 0, 1), 512, &[]); // ORDERED
    let mut naca = cdb10(0x28, 0, 0, 1);
    naca[9] = 4;
    rig.command(0xc0, &naca, 512, &[]);
    let events = rig.events();
    assert_eq!(events.len(), 3);
    for (event, opcode) in events.iter().zip([0x12, 0x28, 0x28]) {
        let Event::CommandForControl { cdb, diverted: false, .. } = event else { panic!("{event:?}") };
        assert_eq!(cdb[0], opcode);
    }
    rig.worker.target.unmap_lun(&mut rig.worker.core, SESSION, 0).expect("unmapped");
    rig.command(0xc0, &cdb10(0x28, 0, 0, 1), 512, &[]);
    assert!(matches!(rig.events()[..], [Event::CommandForControl { diverted: false, .. }]));
}
