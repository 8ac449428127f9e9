//! Response Fence (RFC 7143 4.2.2.3.3): a state of a nexus.
//!
//! A fenced response waits until every response sent before it is acknowledged on every connection; later responses wait
//! until it is acknowledged itself. On a session of one connection the order of the stream does all that.

use blockwire_wire::serial;

use crate::params::ConnIndex;

/// State of the fence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// Responses go out at once.
    #[default]
    Clear,
    /// The fenced response waits for these acknowledgements: (connection, StatSN after the last one sent there).
    Raised { marks: Vec<(ConnIndex, u32)> },
    /// The fenced response is sent; everything else waits for its acknowledgement.
    Sent { conn: ConnIndex, stat_sn: u32 },
}

/// What an acknowledgement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleared {
    Nothing,
    /// The fenced response may be sent now.
    SendFenced,
    /// The responses that waited may be sent now.
    SendParked,
}

impl Fence {
    #[inline]
    #[must_use]
    pub fn is_clear(&self) -> bool {
        matches!(self, Self::Clear)
    }

    /// Whether an acknowledgement on this connection is waited for.
    #[must_use]
    pub fn waits_for(&self, conn: ConnIndex) -> bool {
        match self {
            Self::Clear => false,
            Self::Raised { marks } => marks.iter().any(|mark| mark.0 == conn),
            Self::Sent { conn: c, .. } => *c == conn,
        }
    }

    /// Raises the fence over the unacknowledged numbers of the connections given. True when the fenced response may be
    /// sent at once because nothing is outstanding.
    pub fn raise(&mut self, unacknowledged: impl Iterator<Item = (ConnIndex, u32)>) -> bool {
        let marks: Vec<_> = unacknowledged.collect();
        let ready = marks.is_empty();
        *self = Self::Raised { marks };
        ready
    }

    /// One more acknowledgement to wait for before the fenced response is sent.
    pub fn wait_for(&mut self, conn: ConnIndex, next: u32) {
        if let Self::Raised { marks } = self {
            marks.retain(|mark| mark.0 != conn);
            marks.push((conn, next));
        }
    }

    /// Nothing is left to be acknowledged before the fenced response.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Raised { marks } if marks.is_empty())
    }

    /// The fenced response went out with this StatSN.
    pub fn sent(&mut self, conn: ConnIndex, stat_sn: u32) {
        *self = Self::Sent { conn, stat_sn };
    }

    /// The peer acknowledged everything below `exp_stat_sn` on a connection.
    pub fn acknowledged(&mut self, conn: ConnIndex, exp_stat_sn: u32) -> Cleared {
        match self {
            Self::Clear => Cleared::Nothing,
            Self::Raised { marks } => {
                if marks.is_empty() {
                    return Cleared::Nothing;
                }
                marks.retain(|&(c, next)| c != conn || !serial::less_or_equal(next, exp_stat_sn));
                if marks.is_empty() { Cleared::SendFenced } else { Cleared::Nothing }
            }
            Self::Sent { conn: c, stat_sn } => {
                if *c == conn && serial::less_than(*stat_sn, exp_stat_sn) {
                    *self = Self::Clear;
                    Cleared::SendParked
                } else {
                    Cleared::Nothing
                }
            }
        }
    }

    /// A connection is gone: nothing will be acknowledged on it any more.
    pub fn connection_gone(&mut self, conn: ConnIndex) -> Cleared {
        match self {
            Self::Raised { marks } if !marks.is_empty() => {
                marks.retain(|&(c, _)| c != conn);
                if marks.is_empty() { Cleared::SendFenced } else { Cleared::Nothing }
            }
            Self::Sent { conn: c, .. } if *c == conn => {
                *self = Self::Clear;
                Cleared::SendParked
            }
            _ => Cleared::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_every_connection_and_then_for_itself() {
        let mut fence = Fence::default();
        assert!(!fence.raise([(0, 10), (1, 5)].into_iter()));
        assert_eq!(fence.acknowledged(0, 9), Cleared::Nothing);
        assert_eq!(fence.acknowledged(0, 10), Cleared::Nothing);
        assert_eq!(fence.acknowledged(1, 6), Cleared::SendFenced);
        fence.sent(0, 10);
        assert_eq!(fence.acknowledged(1, 99), Cleared::Nothing);
        assert_eq!(fence.acknowledged(0, 10), Cleared::Nothing);
        assert_eq!(fence.acknowledged(0, 11), Cleared::SendParked);
        assert!(fence.is_clear());
    }

    #[test]
    fn a_lost_connection_does_not_hold_it() {
        let mut fence = Fence::default();
        assert!(!fence.raise([(1, 5)].into_iter()));
        assert_eq!(fence.connection_gone(1), Cleared::SendFenced);
        fence.sent(0, 3);
        assert_eq!(fence.connection_gone(0), Cleared::SendParked);
    }
}
