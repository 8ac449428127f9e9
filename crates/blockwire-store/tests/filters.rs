//! What each filter adds to the store behind it.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blockwire_store::filters::{delay, stack};
use blockwire_store::{CompletionSink, ErrorKind, Op, OpenOptions, Outcome, Submitted, block_on, open, read, write};
use support::{Directory, SIZE, filter, map, ram, ram_with, sized};

const EIO: (ErrorKind, i32) = (ErrorKind::Medium, libc::EIO);

fn kind(outcome: Outcome) -> (ErrorKind, i32) {
    let error = outcome.expect_err("this was to fail");
    (error.kind, error.errno)
}

#[test]
fn fault_by_kind_and_range() {
    let store = ram_with(&[filter("fault", &[("op", "read+flush"), ("offset", "4096"), ("len", "4096")])]);
    let mut buffer = [0; 512];
    write(&*store, 4096, &buffer, false).unwrap();
    read(&*store, 3584, &mut buffer).unwrap();
    read(&*store, 8192, &mut buffer).unwrap();
    assert_eq!(kind(read(&*store, 3585, &mut buffer)), EIO);
    assert_eq!(kind(read(&*store, 8191, &mut buffer[..1])), EIO);
    assert_eq!(kind(block_on(&*store, Op::Flush)), EIO);
    let copied = ram_with(&[filter("fault", &[("op", "copy"), ("offset", "4096"), ("len", "1")])]);
    assert_eq!(kind(block_on(&*copied, Op::Copy { from: 4096, to: 0, len: 10 })), EIO);
    assert_eq!(kind(block_on(&*copied, Op::Copy { from: 0, to: 4000, len: 97 })), EIO);
    block_on(&*copied, Op::Copy { from: 0, to: 4000, len: 96 }).unwrap();
}

#[test]
fn fault_after_and_count() {
    let store = ram_with(&[filter("fault", &[("op", "write"), ("after", "2"), ("count", "3"), ("errno", "ENOSPC")])]);
    let results: Vec<bool> = (0..8).map(|_| write(&*store, 0, &[1], false).is_ok()).collect();
    assert_eq!(results, [true, true, false, false, false, true, true, true]);
    let full = ram_with(&[filter("fault", &[("op", "write"), ("errno", "28")])]);
    assert_eq!(kind(write(&*full, 512, &[1; 512], false)), (ErrorKind::NoSpace, libc::ENOSPC));
    let mut byte = [9];
    read(&*full, 512, &mut byte).unwrap();
    assert_eq!(byte, [0], "a failed write must not have happened");
}

#[test]
fn fault_probability_repeats_with_its_seed() {
    let draw = |seed: &str| -> Vec<bool> {
        let store = ram_with(&[filter("fault", &[("probability", "0.25"), ("seed", seed)])]);
        (0..2000).map(|_| write(&*store, 0, &[1], false).is_err()).collect()
    };
    let first = draw("5");
    assert_eq!(first, draw("5"));
    assert_ne!(first, draw("6"));
    let failures = first.iter().filter(|failed| **failed).count();
    // Four standard deviations (19.4) around the mean.
    assert!((422..=578).contains(&failures), "{failures} of 2000 at 0.25");
}

#[test]
fn readonly_refuses_and_says_so_in_its_capabilities() {
    let store = ram_with(&[filter("readonly", &[])]);
    let capabilities = store.capabilities();
    assert!(capabilities.read_only && !capabilities.can_punch && !capabilities.can_resize);
    assert_eq!(kind(write(&*store, 0, &[1], false)).0, ErrorKind::ReadOnly);
    assert!(store.mapping().is_some());
}

#[test]
fn check_catches_data_that_changed_behind_its_back() {
    let directory = Directory::new();
    let path = directory.file("disk");
    let store = open("file", &path, &sized(SIZE), &map(&[]), &[filter("check", &[])]).unwrap();
    let behind = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let spoil = |offset| std::os::unix::fs::FileExt::write_all_at(&behind, b"?", offset).unwrap();
    let mut buffer = vec![0; 8192];

    write(&*store, 4096, &[7; 4096], false).unwrap();
    read(&*store, 0, &mut buffer).unwrap();
    spoil(5000);
    let error = read(&*store, 4096, &mut buffer[..4096]).unwrap_err();
    assert_eq!((error.kind, error.offset), (ErrorKind::Corrupt, Some(4608)), "5000 lies in the block from 4608");
    read(&*store, 0, &mut buffer[..4096]).unwrap();

    // Rewritten, it is right again; learnt by reading, a change is noticed as well.
    write(&*store, 4608, &[8; 512], false).unwrap();
    read(&*store, 4096, &mut buffer[..4096]).unwrap();
    spoil(100);
    assert_eq!(kind(read(&*store, 0, &mut buffer[..512])).0, ErrorKind::Corrupt);

    // Zeros are known too, and a block of which a part was written is not.
    block_on(&*store, Op::Zero { offset: 0, len: 65_536, may_unmap: true, fua: false }).unwrap();
    spoil(30_000);
    assert_eq!(kind(read(&*store, 29_696, &mut buffer[..512])).0, ErrorKind::Corrupt);
    write(&*store, 29_700, b"part", false).unwrap();
    read(&*store, 29_696, &mut buffer[..512]).unwrap();
}

#[test]
fn check_does_not_judge_what_overlapped() {
    // By hand: a read that starts before and ends after a write may see either.
    let (held, handle) = delay::manual(ram());
    let store = stack(held, &[filter("check", &[])]).unwrap();
    let sink = Arc::new(Collect::default());
    let dynamic: Arc<dyn CompletionSink> = sink.clone();
    let mut buffers = [vec![1u8; 512], vec![2; 512], vec![0; 512], vec![0; 512]];
    let ops: Vec<Op> = buffers
        .iter_mut()
        .enumerate()
        .map(|(index, buffer)| {
            // SAFETY: the buffers outlive `store`'s operations, all of which are waited for below.
            let list = unsafe { blockwire_store::IoVecs::single(buffer.as_mut_ptr(), 512) };
            if index < 2 { Op::Write { offset: 0, src: list, fua: false } } else { Op::Read { offset: 0, dst: list } }
        })
        .collect();
    for (token, op) in ops.into_iter().enumerate() {
        assert!(matches!(store.submit(op, token as u64, &dynamic), Submitted::Pending));
    }
    assert_eq!(handle.held(), 4);
    assert_eq!(handle.release(100), 4);
    let seen = sink.0.lock().unwrap();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|(_, outcome)| outcome.is_ok()), "{seen:?}");
}

#[derive(Default)]
struct Collect(Mutex<Vec<(u64, Outcome)>>);

impl CompletionSink for Collect {
    fn complete(&self, batch: &[(u64, Outcome)]) {
        self.0.lock().unwrap().extend_from_slice(batch);
    }
}

#[test]
fn delay_delays_what_it_names() {
    let store = ram_with(&[filter("delay", &[("write", "40ms")])]);
    let started = Instant::now();
    let mut byte = [0];
    for _ in 0..50 {
        read(&*store, 0, &mut byte).unwrap();
    }
    write(&*store, 0, &[1], false).unwrap();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(40), "{took:?}");
    read(&*store, 0, &mut byte).unwrap();
    assert_eq!(byte, [1]);
}

#[test]
fn delay_by_hand_releases_in_order_and_can_be_cancelled() {
    let (store, handle) = delay::manual(ram());
    let sink = Arc::new(Collect::default());
    let dynamic: Arc<dyn CompletionSink> = sink.clone();
    for token in 0..5 {
        let op = Op::Zero { offset: 0, len: 512, may_unmap: false, fua: false };
        assert!(matches!(store.submit(op, token, &dynamic), Submitted::Pending));
    }
    assert!(store.try_cancel(1));
    assert!(!store.try_cancel(1));
    assert_eq!((handle.held(), handle.release(2)), (4, 2));
    let tokens = || sink.0.lock().unwrap().iter().map(|(token, _)| *token).collect::<Vec<_>>();
    assert_eq!(tokens(), [0, 2]);
    drop(store);
    assert_eq!(tokens(), [0, 2, 3, 4], "closing ends what was held");
}

/// Whoever closes a disk may open it again at once: no thread of a filter keeps it open.
#[test]
fn delay_lets_go_of_its_store_when_it_is_closed() {
    let directory = Directory::new();
    let path = directory.file("disk");
    for round in 0..300 {
        let options = if round == 0 { sized(SIZE) } else { OpenOptions::default() };
        let slow = [filter("delay", &[("write", "50us")])];
        let store = open("file", &path, &options, &map(&[]), &slow).unwrap_or_else(|e| panic!("round {round}: {e}"));
        write(&*store, 0, &[1; 4096], false).unwrap();
    }
}
