//! Waiting for one operation: for tests, tools and whoever has no event loop. Never use this on a reactor.
#![allow(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex};

use crate::iovecs::IoVecs;
use crate::op::{Op, Outcome, Submitted};
use crate::{CompletionSink, Store};

#[derive(Default)]
struct Waiter {
    outcome: Mutex<Option<Outcome>>,
    arrived: Condvar,
}

impl CompletionSink for Waiter {
    fn complete(&self, batch: &[(u64, Outcome)]) {
        let mut slot = self.outcome.lock().unwrap();
        for (_, outcome) in batch {
            assert!(slot.replace(outcome.clone()).is_none(), "one operation completed twice");
        }
        self.arrived.notify_all();
    }
}

/// Submits `op` and waits until it is over. Its token is made up, unique in this process, and above 2^63.
pub fn block_on(store: &dyn Store, op: Op) -> Outcome {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
    let waiter = Arc::new(Waiter::default());
    let sink: Arc<dyn CompletionSink> = waiter.clone();
    match store.submit(op, NEXT.fetch_add(1, Ordering::Relaxed), &sink) {
        Submitted::Done(outcome) => outcome,
        Submitted::Pending => {
            let mut slot = waiter.outcome.lock().unwrap();
            loop {
                match slot.take() {
                    Some(outcome) => return outcome,
                    None => slot = waiter.arrived.wait(slot).unwrap(),
                }
            }
        }
    }
}

/// Reads `buffer.len()` bytes at `offset`.
pub fn read(store: &dyn Store, offset: u64, buffer: &mut [u8]) -> Outcome {
    // SAFETY: `buffer` is borrowed exclusively until `block_on` returns, which is after the completion.
    let dst = unsafe { IoVecs::single(buffer.as_mut_ptr(), buffer.len()) };
    block_on(store, Op::Read { offset, dst })
}

/// Writes `data` at `offset`.
pub fn write(store: &dyn Store, offset: u64, data: &[u8], fua: bool) -> Outcome {
    // SAFETY: `data` is borrowed until `block_on` returns, which is after the completion; the source of a write is
    // only read.
    let src = unsafe { IoVecs::single(data.as_ptr().cast_mut(), data.len()) };
    block_on(store, Op::Write { offset, src, fua })
}
