//! What both roles look like to whoever moves bytes for them.

use blockwire_wire::Deframer;

use crate::params::ConnIndex;
use crate::send_queue::{Direction, SendQueue};
use crate::slab::Slot;

/// Where the data segment of a PDU goes. Decided from its header, after the header was checked against its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// There is no data segment.
    None,
    /// Into a task's transfer, at `offset`.
    Task { slot: Slot, direction: Direction, offset: u32 },
    /// Collected for `Endpoint::pdu`; the segment is no longer than the MaxRecvDataSegmentLength declared.
    Control,
    /// Read and thrown away.
    Discard,
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalCode {
    /// RFC 7143 7.7: a header digest was wrong.
    HeaderDigest,
    /// A data digest was wrong and the error recovery level has no answer to that (7.8).
    DataDigest,
    /// The peer broke a rule after which the stream means nothing (7.9, 7.10).
    ProtocolViolation,
    /// The peer did not answer a keep-alive NOP in time.
    KeepAliveTimeout,
    /// A status or data PDU is missing and cannot be asked for again at this error recovery level (7.5).
    SequenceGap,
}

/// The connection has to be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    pub code: FatalCode,
    /// What was seen, with the rule's section.
    pub what: &'static str,
}

impl Fatal {
    #[must_use]
    pub fn violation(what: &'static str) -> Self {
        Self { code: FatalCode::ProtocolViolation, what }
    }

    /// What `Step::AhsError` comes to.
    #[must_use]
    pub fn additional_headers() -> Self {
        Self::violation("an AHS where none may be, or longer than any (RFC 7143 7.7, 11.2.1.5, 11.2.2)")
    }
}

/// The moving parts of a session of either role. `now` is in nanoseconds of the engine's clock.
pub trait Endpoint {
    /// The deframer of a connection.
    fn deframer(&mut self, conn: ConnIndex) -> &mut Deframer;

    /// A header is complete (the deframer's `bhs()` and `ahs()`): check it and say where its data segment goes.
    ///
    /// # Errors
    /// The connection has to be dropped.
    fn header(&mut self, conn: ConnIndex, now: u64) -> Result<Destination, Fatal>;

    /// The PDU whose header was seen last is complete. `control` holds its data segment when it went to `Control`.
    ///
    /// # Errors
    /// The connection has to be dropped.
    fn pdu(&mut self, conn: ConnIndex, control: &[u8], data_digest_ok: bool, now: u64) -> Result<(), Fatal>;

    /// What is to be sent on a connection.
    fn send_queue(&mut self, conn: ConnIndex) -> &mut SendQueue;
}
