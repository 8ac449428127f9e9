//! `readonly`: refuses every change. The store behind it keeps its mapping: reading it changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::StoreError;
use crate::op::{Op, Submitted};
use crate::options::Params;
use crate::{Capabilities, CompletionSink, Geometry, Mapping, Store, StoreIdentity, check_op};

struct ReadOnly {
    inner: Arc<dyn Store>,
}

pub(crate) fn parse(params: &BTreeMap<String, String>) -> Result<(), StoreError> {
    Params::new("filter readonly", params, &[]).map(|_| ())
}

pub(crate) fn apply(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(ReadOnly { inner })
}

impl Store for ReadOnly {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        Capabilities { read_only: true, can_punch: false, can_resize: false, ..inner }
    }

    fn mapping(&self) -> Option<Mapping> {
        self.inner.mapping()
    }

    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }

    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        if op.changes()
            && let Err(error) = check_op(&op, self.geometry().size, &self.capabilities())
        {
            return Submitted::Done(Err(error));
        }
        self.inner.submit(op, token, sink)
    }

    fn try_cancel(&self, token: u64) -> bool {
        self.inner.try_cancel(token)
    }
}
