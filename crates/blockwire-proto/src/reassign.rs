//! Moving a task from a connection that is gone to another one (RFC 7143 7.2.2, 11.5.1, 11.5.7).
//!
//! What a task has received and what its initiator has is kept in bytes; the DataSN of the request is turned into an
//! offset by the log. What follows on the new connection uses that connection's segment length.

use crate::ranges::RangeSet;
use crate::sequence::DataSnLog;

/// Where Data-In goes on after a reassignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeIn {
    /// Offset of the first byte to be sent (again).
    pub offset: u64,
    /// DataSN of the next PDU.
    pub data_sn: u32,
}

/// Finds where Data-In resumes. `sent_to` is how far data was queued, `exp_data_sn` what the initiator asks for: the
/// number of the first PDU it lacks, or 0 for everything. None: the number was never sent (the request is invalid).
pub fn resume_data_in(log: &mut DataSnLog, sent_to: u64, exp_data_sn: u32) -> Option<ResumeIn> {
    if exp_data_sn > log.next() {
        return None;
    }
    let offset = log.rewind(exp_data_sn).unwrap_or(sent_to);
    Some(ResumeIn { offset, data_sn: exp_data_sn })
}

/// The next stretch of a write that has to be asked for, at most `burst` bytes: received data is never asked for again.
#[must_use]
pub fn next_missing(received: &RangeSet, from: u64, expected: u64, burst: u64) -> Option<(u64, u64)> {
    let (start, end) = received.first_gap(from, expected)?;
    Some((start, (end - start).min(burst)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_at_a_byte_not_at_number_times_length() {
        let mut log = DataSnLog::default();
        log.push(0, 8192).unwrap();
        log.push(8192, 8192).unwrap();
        log.push(16384, 100).unwrap();
        assert_eq!(resume_data_in(&mut log.clone(), 16484, 1), Some(ResumeIn { offset: 8192, data_sn: 1 }));
        assert_eq!(resume_data_in(&mut log.clone(), 16484, 3), Some(ResumeIn { offset: 16484, data_sn: 3 }));
        assert_eq!(resume_data_in(&mut log, 16484, 4), None);
    }

    #[test]
    fn asks_only_for_what_is_missing() {
        let mut got = RangeSet::new();
        got.insert(0, 1000).unwrap();
        got.insert(3000, 1000).unwrap();
        assert_eq!(next_missing(&got, 0, 10_000, 4096), Some((1000, 2000)));
        assert_eq!(next_missing(&got, 3000, 10_000, 4096), Some((4000, 4096)));
    }
}
