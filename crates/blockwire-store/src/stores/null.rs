//! `null:`: reads are zeros, writes vanish. For measuring everything but the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;
use crate::op::{Op, Outcome, Submitted};
use crate::options::{OpenOptions, Params};
use crate::stores::backing::size_from_options;
use crate::{Capabilities, CompletionSink, Geometry, Mapping, Store, StoreIdentity, check_op};

struct NullStore {
    size: AtomicU64,
    capabilities: Capabilities,
    identity: StoreIdentity,
}

pub(crate) fn open(
    name: &str, options: &OpenOptions, extra: &BTreeMap<String, String>,
) -> Result<Arc<dyn Store>, StoreError> {
    Params::new("null:", extra, &[])?;
    let size = size_from_options("null:", options)?;
    Ok(Arc::new(NullStore {
        size: AtomicU64::new(size),
        capabilities: Capabilities {
            read_only: options.read_only,
            can_zero: true,
            can_punch: true,
            can_flush: false,
            stable_memory: false,
            can_resize: true,
        },
        identity: StoreIdentity { kind: "null", key: name.into(), serial: options.serial.clone() },
    }))
}

impl Store for NullStore {
    fn geometry(&self) -> Geometry {
        Geometry { size: self.size.load(Ordering::Acquire), physical_block: 4096, optimal_io: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn mapping(&self) -> Option<Mapping> {
        None
    }

    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }

    fn submit(&self, op: Op, _token: u64, _sink: &Arc<dyn CompletionSink>) -> Submitted {
        let run = || -> Outcome {
            check_op(&op, self.size.load(Ordering::Acquire), &self.capabilities)?;
            match &op {
                Op::Read { dst, .. } => dst.fill_zero(),
                Op::Resize { size } => self.size.store(*size, Ordering::Release),
                _ => {}
            }
            Ok(())
        };
        Submitted::Done(run())
    }

    fn try_cancel(&self, _token: u64) -> bool {
        false
    }
}
