//! Which bytes a numbered data PDU carried: DataSN to byte range and back, as runs (RFC 7143 11.7.5, 11.16).
//!
//! A retransmission and a reassignment name data by DataSN; the task's progress is kept in bytes, because the segment
//! length may differ on another connection. PDUs of equal length in a row are one run.

use crate::ranges::{MAX_RUNS, TooScattered};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first_sn: u32,
    count: u32,
    offset: u64,
    /// Length of each PDU of the run.
    each: u32,
    /// A number without data (an R2T of a bidirectional command shares the numbering, 4.2.2.4).
    data: bool,
}

/// The log of one task's numbered PDUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataSnLog {
    runs: Vec<Run>,
    next: u32,
}

impl DataSnLog {
    /// The number that the next PDU gets.
    #[inline]
    #[must_use]
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Notes that the PDU numbered `next()` carries `len` bytes from `offset` on.
    ///
    /// # Errors
    /// `TooScattered`: more runs than a task may keep; nothing is noted.
    pub fn push(&mut self, offset: u64, len: u32) -> Result<(), TooScattered> {
        self.note(offset, len, true)
    }

    /// Notes that the PDU numbered `next()` is an R2T.
    ///
    /// # Errors
    /// As `push`.
    pub fn push_r2t(&mut self) -> Result<(), TooScattered> {
        self.note(0, 0, false)
    }

    fn note(&mut self, offset: u64, len: u32, data: bool) -> Result<(), TooScattered> {
        if let Some(run) = self.runs.last_mut()
            && run.data == data
            && run.each == len
            && (!data || run.offset + u64::from(run.count) * u64::from(run.each) == offset)
        {
            run.count += 1;
        } else if self.runs.len() >= MAX_RUNS {
            return Err(TooScattered);
        } else {
            self.runs.push(Run { first_sn: self.next, count: 1, offset, each: len, data });
        }
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// The byte range (offset, length) of a PDU; None for an R2T or a number never used.
    #[must_use]
    pub fn range_of(&self, sn: u32) -> Option<(u64, u32)> {
        self.runs.iter().find_map(|run| {
            let index = sn.wrapping_sub(run.first_sn);
            (index < run.count && run.data).then(|| (run.offset + u64::from(index) * u64::from(run.each), run.each))
        })
    }

    /// Forgets `sn` and everything after it, so that `next()` is `sn` again; returns the offset at which data has to
    /// be sent again: that of the first forgotten data PDU. None when no data PDU was forgotten.
    pub fn rewind(&mut self, sn: u32) -> Option<u64> {
        if sn >= self.next {
            return None;
        }
        let mut again = None;
        for run in &mut self.runs {
            let keep = sn.wrapping_sub(run.first_sn).min(run.count);
            let keep = if run.first_sn >= sn { 0 } else { keep };
            if keep < run.count {
                if run.data && again.is_none() {
                    again = Some(run.offset + u64::from(keep) * u64::from(run.each));
                }
                run.count = keep;
            }
        }
        self.runs.retain(|run| run.count > 0);
        self.next = sn;
        again
    }

    pub fn clear(&mut self) {
        self.runs.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_segments_are_one_run() {
        let mut log = DataSnLog::default();
        for i in 0..1000 {
            log.push(i * 512, 512).unwrap();
        }
        log.push(512_000, 100).unwrap();
        assert_eq!(log.runs.len(), 2);
        assert_eq!(log.range_of(0), Some((0, 512)));
        assert_eq!(log.range_of(999), Some((999 * 512, 512)));
        assert_eq!(log.range_of(1000), Some((512_000, 100)));
        assert_eq!(log.range_of(1001), None);
        assert_eq!(log.next(), 1001);
        assert_eq!(log.rewind(10), Some(5120));
        assert_eq!(log.next(), 10);
        assert_eq!(log.range_of(10), None);
        assert_eq!(log.range_of(9), Some((9 * 512, 512)));
    }

    #[test]
    fn an_r2t_shares_the_numbers() {
        let mut log = DataSnLog::default();
        log.push(0, 8).unwrap();
        log.push_r2t().unwrap();
        log.push(8, 8).unwrap();
        assert_eq!(log.range_of(1), None);
        assert_eq!(log.range_of(2), Some((8, 8)));
        assert_eq!(log.rewind(1), Some(8));
        assert_eq!(log.rewind(1), None);
    }

    #[test]
    fn runs_are_bounded() {
        let mut log = DataSnLog::default();
        for i in 0..MAX_RUNS as u64 {
            log.push(i * 100, 10).unwrap();
        }
        assert_eq!(log.push(999_999, 10), Err(TooScattered));
    }
}
