//! No memory is left: commands end with a status, and nothing is done with data that is not there.

use super::*;

/// An arena of which every segment is taken.
fn full() -> Rig {
    let options = PlaneOptions { arena_bytes: 4 * 65_536, ..PlaneOptions::default() };
    let mut rig = Rig::with(ram(), params(), options);
    while rig.worker.core.arena.allocate(65_536).is_some() {}
    rig
}

#[test]
fn a_block_that_found_no_memory_is_not_repeated_as_zeros() {
    let mut rig = full();
    let before = rig.fill_store();
    // WRITE SAME(10), eight blocks
    let answer = rig.run(&cdb10(0x41, 0, 16, 8), &[0xee; BLOCK], 0);
    assert_eq!(answer.status, 0x28, "TASK SET FULL");
    assert!(rig.read_store(0, 64 * BLOCK) == before[..64 * BLOCK], "nothing was written");
}

#[test]
fn a_list_that_found_no_memory_is_not_taken_for_an_empty_one() {
    let mut rig = full();
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend([0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 8, 0, 0, 0, 0]);
    let answer = rig.run(&cdb10(0x42, 0, 0, 24), &list, 0);
    assert_eq!(answer.status, 0x28, "TASK SET FULL");
}
