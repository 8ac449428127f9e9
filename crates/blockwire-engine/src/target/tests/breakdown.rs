//! A panic in the middle of a turn, with everything in flight.

use blockwire_store::filters::delay;
use blockwire_store::{Capabilities, CompletionSink, Geometry, Mapping, Op, StoreIdentity, Submitted};

use super::*;

/// Panics at a read of the first block; everything else is the store behind it.
struct Explosive(Arc<dyn Store>);

impl Store for Explosive {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn mapping(&self) -> Option<Mapping> {
        None
    }

    fn identity(&self) -> StoreIdentity {
        self.0.identity()
    }

    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        assert!(!matches!(op, Op::Read { offset: 0, .. }), "a bug in a store");
        self.0.submit(op, token, sink)
    }

    fn try_cancel(&self, token: u64) -> bool {
        self.0.try_cancel(token)
    }
}

#[test]
fn what_was_in_flight_is_let_go_and_the_worker_serves_new_sessions() {
    let disk = ram();
    let (slow, held) = delay::manual(Arc::clone(&disk));
    let mut rig = Rig::with(Arc::new(Explosive(slow)), params(), PlaneOptions::default());
    rig.session(8, params());
    let other = rig.connect(8, connection(1));
    // writes that the store has not done, and one that waits for data
    rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    rig.command_on(other, 0xa0, &cdb10(0x2a, 0, 16, 8), 4096, &[8; 4096]);
    rig.command_on(other, 0xa0, &cdb10(0x2a, 0, 32, 128), 65_536, &[9; 8192]);
    assert_eq!(rig.worker.target.operations_out(), 2);
    rig.events();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    rig.command(0xc0, &cdb10(0x28, 0, 0, 1), 512, &[]);
    std::panic::set_hook(hook);
    let mut lost: Vec<_> = rig
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::SessionLost { session, code, evidence } => Some((session, code, evidence)),
            _ => None,
        })
        .collect();
    lost.sort();
    let text = "worker 0 panicked: a bug in a store".to_owned();
    assert_eq!(lost, [(SESSION, "worker-panic", text.clone()), (8, "worker-panic", text)]);
    assert_eq!((rig.worker.target.session_count(), rig.in_use()), (0, 0));
    // what the store does late reaches nobody, not even a session in the same place
    rig.session(9, params());
    let new = rig.connect(9, connection(1));
    rig.command_on(new, 0xa0, &cdb10(0x2a, 0, 40, 8), 4096, &[1; 4096]);
    assert_eq!(held.release(2), 2);
    rig.step();
    assert!(rig.pdus(new).is_empty(), "its own write is still out");
    assert_eq!(held.release(1), 1);
    assert_eq!(rig.pdus(new)[0].0.status(), 0);
    // the one whose submission panicked may have begun: its memory is never taken back
    assert_eq!(rig.worker.target.operations_out(), 1);
    let mut found = [0; 4096];
    blockwire_store::read(&*disk, 16 * 512, &mut found).expect("read");
    assert_eq!(found, [8; 4096]);
}
