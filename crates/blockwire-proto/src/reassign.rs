//! What a task needs to go on on another connection (RFC 7143 7.2.2, 11.5.6).
//!
//! Progress is in bytes: the initiator's ExpDataSN of the request is turned into ranges by the log. What follows on the
//! new connection uses that connection's segment length.

use crate::ranges::RangeSet;
use crate::sequence::DataSnLog;

/// Puts the log back to what the initiator acknowledges with `exp_data_sn`; gives the bytes to be sent again, with numbers
/// from `log.next()` on.
///
/// 11.5.6: 0 leaves the acknowledgement reference number as it is; a number that was never sent or is acknowledged
/// already MUST be ignored, which is the same.
pub fn resume_data_in(log: &mut DataSnLog, exp_data_sn: u32) -> RangeSet {
    if exp_data_sn > log.first() && exp_data_sn <= log.next() {
        log.acknowledge(exp_data_sn);
    }
    let first = log.first();
    log.rewind(first)
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
        log.push(0, 8192, false).unwrap();
        log.push(8192, 8192, false).unwrap();
        log.push(16384, 100, true).unwrap();
        let resumed = |exp_data_sn| {
            let mut log = log.clone();
            let again: Vec<_> = resume_data_in(&mut log, exp_data_sn).iter().collect();
            (again, log.next())
        };
        assert_eq!(resumed(1), (vec![(8192, 16_484)], 1));
        assert_eq!(resumed(3), (vec![], 3));
        assert_eq!(resumed(0), (vec![(0, 16_484)], 0));
        assert_eq!(resumed(4), (vec![(0, 16_484)], 0), "11.5.6: any other value MUST be ignored");
        log.acknowledge(2);
        let mut again = log.clone();
        assert_eq!(resume_data_in(&mut again, 1).iter().collect::<Vec<_>>(), [(16_384, 16_484)]);
        assert_eq!(again.next(), 2);
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
