//! With the write cache off, what changes the medium asks the store for stable storage before GOOD is sent (SBC-4 4.15).

use std::sync::Mutex;

use blockwire_store::{Capabilities, CompletionSink, Geometry, Mapping, Op, StoreIdentity, Submitted};

use super::*;

/// A RAM store that says it can flush, and notes which writing operations were to be durable.
struct Noting {
    inner: Arc<dyn Store>,
    seen: Mutex<Vec<(&'static str, bool)>>,
}

impl Store for Noting {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { can_flush: true, ..self.inner.capabilities() }
    }

    fn mapping(&self) -> Option<Mapping> {
        None
    }

    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }

    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        let noted = match &op {
            Op::Write { fua, .. } => Some(("write", *fua)),
            Op::Zero { fua, .. } => Some(("zero", *fua)),
            Op::Punch { .. } => Some(("punch", false)),
            _ => None,
        };
        self.seen.lock().expect("lock").extend(noted);
        self.inner.submit(op, token, sink)
    }

    fn try_cancel(&self, token: u64) -> bool {
        self.inner.try_cancel(token)
    }
}

#[test]
fn without_a_write_cache_every_change_is_durable_when_it_is_answered() {
    for write_cache in [true, false] {
        let noting = Arc::new(Noting { inner: ram(), seen: Mutex::default() });
        let mut rig = Rig::with(noting.clone(), params(), PlaneOptions::default());
        rig.worker.target.unmap_lun(&mut rig.worker.core, SESSION, 0).expect("unmapped");
        let mapping = LunMapping { write_cache, ..rig.mapping() };
        rig.worker.target.map_lun(&mut rig.worker.core, SESSION, 0, mapping).expect("mapped");
        rig.run(&cdb10(0x2a, 0, 8, 8), &[7; 4096], 0).good();
        rig.run(&cdb10(0x41, 0, 8, 8), &[7; BLOCK], 0).good();
        let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
        list.extend(8_u64.to_be_bytes());
        list.extend(8_u32.to_be_bytes());
        list.extend([0; 4]);
        rig.run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list, 0).good();
        let seen = std::mem::take(&mut *noting.seen.lock().expect("lock"));
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.iter().all(|(_, durable)| *durable != write_cache), "{seen:?}");
        assert!(rig.read_store(8 * 512, 4096).iter().all(|b| *b == 0));
    }
}
