//! Random operations, compared with an array of bytes.

use super::{Case, Context, Random, Verdict, applicable, put, read_back, same};
use crate::{Op, block_on};

pub(super) const CASES: &[Case] = &[("model: random operations agree with an array", random_operations)];

/// Both ends of the store, each with its model.
const WINDOW: u64 = 1 << 20;

fn random_operations(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    let can_punch = store.capabilities().can_punch;
    let end = store.geometry().size - WINDOW;
    let mut random = Random::new(context.expect.seed);
    let mut models = [random.bytes(WINDOW as usize), random.bytes(WINDOW as usize)];
    put(&*store, 0, &models[0])?;
    put(&*store, end, &models[1])?;
    for step in 0..context.expect.steps {
        let which = random.below(2) as usize;
        let base = [0, end][which];
        // Mostly small, sometimes aligned, now and then large.
        let most = [16, 700, 9000, 200_000][random.below(4) as usize];
        let mut len = 1 + random.below(most);
        let mut at = random.below(WINDOW - len);
        if random.below(2) == 0 {
            len = len.next_multiple_of(512).min(WINDOW / 2);
            at = at / 512 * 512;
            len = len.min(WINDOW - at);
        }
        let range = at as usize..(at + len) as usize;
        let model = &mut models[which];
        let offset = base + at;
        let kind = random.below(10);
        let fua = random.below(16) == 0;
        let outcome = match kind {
            0..=3 => {
                let data = random.bytes(len as usize);
                model[range.clone()].copy_from_slice(&data);
                crate::write(&*store, offset, &data, fua)
            }
            4 | 5 => {
                model[range.clone()].fill(0);
                block_on(&*store, Op::Zero { offset, len, may_unmap: kind == 5, fua })
            }
            6 if can_punch => {
                model[range.clone()].fill(0);
                block_on(&*store, Op::Punch { offset, len })
            }
            7 => {
                let to = random.below(WINDOW - len);
                model.copy_within(range.clone(), to as usize);
                block_on(&*store, Op::Copy { from: offset, to: base + to, len })
            }
            8 if random.below(8) == 0 => block_on(&*store, Op::Flush),
            _ => Ok(()),
        };
        outcome.map_err(|error| format!("step {step}, operation {kind}, {len} at {offset}: {error}"))?;
        let what = format!("step {step}, operation {kind}");
        same(&read_back(&*store, offset, len as usize)?, &models[which][range], offset, &what)?;
    }
    same(&read_back(&*store, 0, WINDOW as usize)?, &models[0], 0, "at the end")?;
    same(&read_back(&*store, end, WINDOW as usize)?, &models[1], end, "at the end")?;
    Ok(None)
}
