//! Whether this process is a forked child of the one that made a handle.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(0);
static REGISTER: Once = Once::new();

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Counts forks between the first process and this one. A handle remembers the value at its creation; another value later
/// means that its threads do not exist here.
#[must_use]
pub fn generation() -> u32 {
    REGISTER.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is allowed in a child after fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}
