//! Random programs against an array, shrunk by proptest when one fails; RAM and file, each behind the check filter.

mod support;

use std::sync::Arc;

use blockwire_store::{Op, Store, block_on, open, read, write};
use proptest::prelude::*;
use support::{Directory, filter, map, sized};

const SIZE: u64 = 64 << 10;

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, len: u64, byte: u8, fua: bool },
    Zero { at: u64, len: u64, may_unmap: bool },
    Punch { at: u64, len: u64 },
    Copy { from: u64, to: u64, len: u64 },
    Flush,
    Read { at: u64, len: u64 },
    Shrink { to: u64 },
}

/// A range that mostly lies inside, and sometimes on block borders.
fn range() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![(0..=SIZE, 0..20_000u64), (0..SIZE / 512, 0..64u64).prop_map(|(at, len)| (at * 512, len * 512))]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (range(), any::<u8>(), any::<bool>()).prop_map(|((at, len), byte, fua)| Step::Write { at, len, byte, fua }),
        2 => (range(), any::<bool>()).prop_map(|((at, len), may_unmap)| Step::Zero { at, len, may_unmap }),
        1 => range().prop_map(|(at, len)| Step::Punch { at, len }),
        2 => (range(), 0..SIZE).prop_map(|((from, len), to)| Step::Copy { from, to, len }),
        1 => Just(Step::Flush),
        4 => range().prop_map(|(at, len)| Step::Read { at, len }),
        1 => (1..=SIZE / 512).prop_map(|blocks| Step::Shrink { to: blocks * 512 }),
    ]
}

/// Data that differ from byte to byte, so that a shift is seen.
fn pattern(byte: u8, len: u64) -> Vec<u8> {
    (0..len).map(|at| byte.wrapping_add((at / 3) as u8)).collect()
}

fn run(store: &dyn Store, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = vec![0u8; SIZE as usize];
    for step in steps {
        let size = model.len() as u64;
        let fits = |at: u64, len: u64| at + len <= size;
        let (accepted, outcome) = match *step {
            Step::Write { at, len, byte, fua } => {
                let data = pattern(byte, len);
                if fits(at, len) {
                    model[at as usize..(at + len) as usize].copy_from_slice(&data);
                }
                (fits(at, len), write(store, at, &data, fua))
            }
            Step::Zero { at, len, .. } | Step::Punch { at, len } => {
                if fits(at, len) {
                    model[at as usize..(at + len) as usize].fill(0);
                }
                let op = match *step {
                    Step::Zero { may_unmap, .. } => Op::Zero { offset: at, len, may_unmap, fua: false },
                    _ => Op::Punch { offset: at, len },
                };
                (fits(at, len), block_on(store, op))
            }
            Step::Copy { from, to, len } => {
                let fit = fits(from, len) && fits(to, len);
                if fit {
                    model.copy_within(from as usize..(from + len) as usize, to as usize);
                }
                (fit, block_on(store, Op::Copy { from, to, len }))
            }
            Step::Flush => (true, block_on(store, Op::Flush)),
            Step::Read { at, len } => {
                let mut buffer = vec![0xcc; len as usize];
                let outcome = read(store, at, &mut buffer);
                if fits(at, len) {
                    prop_assert!(buffer == model[at as usize..(at + len) as usize], "{step:?} differs");
                }
                (fits(at, len), outcome)
            }
            Step::Shrink { to } => {
                model.truncate(to as usize);
                model.resize(to as usize, 0);
                (true, block_on(store, Op::Resize { size: to }))
            }
        };
        prop_assert_eq!(outcome.is_ok(), accepted, "{:?}: {:?}", step, outcome);
    }
    let mut all = vec![0; model.len()];
    read(store, 0, &mut all).unwrap();
    prop_assert!(all == model, "the contents differ at the end");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ram_agrees(steps in prop::collection::vec(step(), 1..40)) {
        let store = open("ram", "", &sized(SIZE), &map(&[]), &[filter("check", &[])]).unwrap();
        run(&*store, &steps)?;
    }

    #[test]
    fn file_agrees(steps in prop::collection::vec(step(), 1..40)) {
        let directory = Directory::new();
        let store: Arc<dyn Store> =
            open("file", &directory.file("disk"), &sized(SIZE), &map(&[]), &[filter("check", &[])]).unwrap();
        run(&*store, &steps)?;
    }
}
