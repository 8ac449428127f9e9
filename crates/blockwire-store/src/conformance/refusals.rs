//! What must be refused is refused, with the right kind of error, and changes nothing.
#![allow(unsafe_code)]

use super::{Case, Context, Random, Skip, Verdict, applicable, ensure, put, read_back, same};
use crate::{ErrorKind, IoVecs, Op, Store, block_on};

pub(super) const CASES: &[Case] = &[
    ("refusal: ranges outside the store", out_of_range),
    ("refusal: changes of a read-only store", read_only),
    ("refusal: what the capabilities exclude", unsupported),
    ("refusal: cancelling what is unknown", unknown_token),
];

fn single(buffer: &mut [u8]) -> IoVecs {
    // SAFETY: every operation below is waited for while the buffer is kept and left alone.
    unsafe { IoVecs::single(buffer.as_mut_ptr(), buffer.len()) }
}

fn expect_kind(store: &dyn Store, op: Op, kind: ErrorKind) -> Result<(), String> {
    let shown = format!("{op:?}");
    match block_on(store, op) {
        Ok(()) => Err(format!("{shown} was accepted")),
        Err(error) if error.kind == kind => Ok(()),
        Err(error) => Err(format!("{shown} failed with {:?} ({error}), not {kind:?}", error.kind)),
    }
}

fn out_of_range(context: &Context<'_>) -> Verdict {
    let store = (context.make)();
    let size = store.geometry().size;
    let capabilities = store.capabilities();
    let writable = !capabilities.read_only;
    let marks = Random::new(context.expect.seed).bytes(4096);
    if writable {
        put(&*store, size - 4096, &marks)?;
        put(&*store, 0, &marks)?;
    }
    let mut buffer = vec![0xee; 1024];
    for offset in [size, size - 512, size - 1023, u64::MAX, u64::MAX - 1023, 1 << 63] {
        let len = buffer.len() as u64;
        let mut ops = vec![Op::Read { offset, dst: single(&mut buffer) }];
        if writable {
            ops.push(Op::Write { offset, src: single(&mut buffer), fua: false });
            ops.push(Op::Zero { offset, len, may_unmap: true, fua: false });
            ops.push(Op::Copy { from: offset, to: 0, len });
            ops.push(Op::Copy { from: 0, to: offset, len });
            if capabilities.can_punch {
                ops.push(Op::Punch { offset, len });
            }
        }
        for op in ops {
            expect_kind(&*store, op, ErrorKind::OutOfRange)?;
        }
    }
    if writable {
        expect_kind(
            &*store,
            Op::Zero { offset: 1, len: u64::MAX, may_unmap: true, fua: false },
            ErrorKind::OutOfRange,
        )?;
        if context.expect.retains {
            same(&read_back(&*store, size - 4096, 4096)?, &marks, size - 4096, "after refused writes")?;
            same(&read_back(&*store, 0, 4096)?, &marks, 0, "after refused copies")?;
        }
    }
    ensure!(store.geometry().size == size, "the size changed");
    Ok(None)
}

fn read_only(context: &Context<'_>) -> Verdict {
    let store = (context.make)();
    if !store.capabilities().read_only {
        return Ok(Some(Skip("the store may be written")));
    }
    let before = read_back(&*store, 0, 8192)?;
    let mut buffer = vec![0xee; 512];
    let ops = [
        Op::Write { offset: 0, src: single(&mut buffer), fua: false },
        Op::Zero { offset: 0, len: 512, may_unmap: false, fua: true },
        Op::Punch { offset: 0, len: 4096 },
        Op::Copy { from: 0, to: 4096, len: 512 },
        Op::Resize { size: 4096 },
    ];
    for op in ops {
        expect_kind(&*store, op, ErrorKind::ReadOnly)?;
    }
    same(&read_back(&*store, 0, 8192)?, &before, 0, "after refused changes")?;
    Ok(None)
}

fn unsupported(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.writable());
    let capabilities = store.capabilities();
    if capabilities.can_punch && capabilities.can_resize {
        return Ok(Some(Skip("the store can do everything")));
    }
    if !capabilities.can_punch {
        expect_kind(&*store, Op::Punch { offset: 0, len: 4096 }, ErrorKind::Unsupported)?;
    }
    if !capabilities.can_resize {
        let size = store.geometry().size + 4096;
        expect_kind(&*store, Op::Resize { size }, ErrorKind::Unsupported)?;
    }
    Ok(None)
}

fn unknown_token(context: &Context<'_>) -> Verdict {
    let store = (context.make)();
    ensure!(!store.try_cancel(4711), "a token nobody used was cancelled");
    Ok(None)
}
