//! Which bytes a numbered data PDU carried: DataSN to byte range and back, as runs (RFC 7143 11.7.5, 11.16).
//!
//! A retransmission and a reassignment name data by DataSN; the task's progress is kept in bytes, because the segment
//! length may differ on another connection. PDUs of equal length in a row, with the F bit at equal distances, are one run.

use crate::ranges::{MAX_RUNS, RangeSet, TooScattered};

/// What a number was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// A Data-In.
    Data { offset: u64, len: u32, is_final: bool },
    /// An R2T: a bidirectional command's R2Ts share the numbers (4.2.2.4).
    R2t,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    first_sn: u32,
    count: u32,
    offset: u64,
    /// Length of each PDU of the run.
    each: u32,
    /// A number without data (an R2T).
    is_r2t: bool,
    /// Distance of the PDUs with the F bit; 0 while there is none.
    final_every: u32,
    /// PDUs between the last F bit and the start of the run.
    phase: u32,
}

impl Run {
    fn is_final(&self, index: u32) -> bool {
        self.final_every > 0 && (self.phase + index + 1).is_multiple_of(self.final_every)
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.count) * u64::from(self.each)
    }

    /// Takes one more PDU if it goes on as the run does.
    fn extend(&mut self, offset: u64, each: u32, is_r2t: bool, is_final: bool) -> bool {
        if self.is_r2t != is_r2t || self.each != each || (!is_r2t && self.end() != offset) {
            return false;
        }
        if self.is_final(self.count) != is_final {
            if self.final_every > 0 || !is_final {
                return false;
            }
            self.final_every = self.phase + self.count + 1;
        }
        self.count += 1;
        true
    }

    /// Without its first `n` PDUs.
    fn without_first(mut self, n: u32) -> Self {
        self.first_sn = self.first_sn.wrapping_add(n);
        self.count -= n;
        self.offset += u64::from(n) * u64::from(self.each);
        self.phase += n;
        if self.final_every > 0 {
            self.phase %= self.final_every;
        }
        self
    }
}

/// The log of one task's numbered PDUs that may be asked for again. A log of one run (data in order) allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataSnLog {
    /// The first run; of no PDUs while the log is empty.
    head: Run,
    more: Vec<Run>,
    /// Lowest number that is kept: what is below is acknowledged.
    first: u32,
    next: u32,
}

impl DataSnLog {
    /// The number that the next PDU gets.
    #[inline]
    #[must_use]
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The lowest number that is not acknowledged.
    #[inline]
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Runs that it holds.
    #[inline]
    #[must_use]
    pub fn runs(&self) -> usize {
        usize::from(self.head.count > 0) + self.more.len()
    }

    fn iter(&self) -> impl Iterator<Item = &Run> {
        (self.head.count > 0).then_some(&self.head).into_iter().chain(&self.more)
    }

    /// Notes that the PDU numbered `next()` carries `len` bytes from `offset` on.
    ///
    /// # Errors
    /// `TooScattered`: more runs than a task may keep; nothing is noted.
    #[inline]
    pub fn push(&mut self, offset: u64, len: u32, is_final: bool) -> Result<(), TooScattered> {
        self.note(offset, len, false, is_final)
    }

    /// Notes that the PDU numbered `next()` is an R2T.
    ///
    /// # Errors
    /// As `push`.
    pub fn push_r2t(&mut self) -> Result<(), TooScattered> {
        self.note(0, 0, true, false)
    }

    fn note(&mut self, offset: u64, each: u32, is_r2t: bool, is_final: bool) -> Result<(), TooScattered> {
        let run =
            Run { first_sn: self.next, count: 1, offset, each, is_r2t, final_every: u32::from(is_final), phase: 0 };
        if self.head.count == 0 {
            self.head = run;
        } else {
            let last = self.more.last_mut().unwrap_or(&mut self.head);
            if !last.extend(offset, each, is_r2t, is_final) {
                if self.runs() >= MAX_RUNS {
                    return Err(TooScattered);
                }
                self.more.push(run);
            }
        }
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// What a number was used for; None for one that is acknowledged or was never used.
    #[must_use]
    pub fn get(&self, sn: u32) -> Option<Numbered> {
        self.iter().find_map(|run| {
            let index = sn.wrapping_sub(run.first_sn);
            (index < run.count).then(|| {
                if run.is_r2t {
                    return Numbered::R2t;
                }
                let offset = run.offset + u64::from(index) * u64::from(run.each);
                Numbered::Data { offset, len: run.each, is_final: run.is_final(index) }
            })
        })
    }

    /// Forgets everything below `sn`, which the peer acknowledged: it MUST NOT be asked for again (11.16.2).
    pub fn acknowledge(&mut self, sn: u32) {
        if sn <= self.first || sn > self.next {
            return;
        }
        self.first = sn;
        let mut kept = Vec::new();
        for run in std::iter::once(self.head).chain(self.more.drain(..)) {
            let gone = sn.saturating_sub(run.first_sn).min(run.count);
            if gone < run.count {
                kept.push(run.without_first(gone));
            }
        }
        let mut kept = kept.into_iter();
        self.head = kept.next().unwrap_or_default();
        self.more.extend(kept);
    }

    /// The lowest offset of the data that is kept.
    #[must_use]
    pub fn lowest_offset(&self) -> Option<u64> {
        self.iter().filter(|run| !run.is_r2t).map(|run| run.offset).min()
    }

    /// R2Ts numbered `sn` or above.
    #[must_use]
    pub fn r2ts_from(&self, sn: u32) -> u32 {
        let above = |run: &Run| run.count - sn.saturating_sub(run.first_sn).min(run.count);
        self.iter().filter(|run| run.is_r2t).map(above).sum()
    }

    /// Forgets `sn` and everything after it, so that `next()` is `sn` again; returns the bytes that its data PDUs
    /// carried.
    pub fn rewind(&mut self, sn: u32) -> RangeSet {
        let mut again = RangeSet::new();
        if sn >= self.next {
            return again;
        }
        let mut forget = |run: &mut Run| {
            let keep = sn.saturating_sub(run.first_sn).min(run.count);
            if !run.is_r2t && keep < run.count {
                let from = run.offset + u64::from(keep) * u64::from(run.each);
                // one range for each run at the most
                let _ = again.insert(from, run.end() - from);
            }
            run.count = keep;
            keep > 0
        };
        if !forget(&mut self.head) {
            self.head = Run::default();
        }
        self.more.retain_mut(forget);
        self.next = sn;
        self.first = self.first.min(sn);
        again
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(offset: u64, len: u32, is_final: bool) -> Option<Numbered> {
        Some(Numbered::Data { offset, len, is_final })
    }

    #[test]
    fn equal_segments_are_one_run() {
        let mut log = DataSnLog::default();
        for i in 0..1000 {
            log.push(i * 512, 512, false).unwrap();
        }
        log.push(512_000, 100, true).unwrap();
        assert_eq!(log.runs(), 2);
        assert_eq!(log.get(0), data(0, 512, false));
        assert_eq!(log.get(999), data(999 * 512, 512, false));
        assert_eq!(log.get(1000), data(512_000, 100, true));
        assert_eq!(log.get(1001), None);
        assert_eq!(log.next(), 1001);
        assert_eq!(log.rewind(10).iter().collect::<Vec<_>>(), [(5120, 512_100)]);
        assert_eq!(log.next(), 10);
        assert_eq!(log.get(10), None);
        assert_eq!(log.get(9), data(9 * 512, 512, false));
    }

    #[test]
    fn bursts_of_equal_length_are_one_run() {
        let mut log = DataSnLog::default();
        for i in 0..4000 {
            log.push(i * 512, 512, i % 4 == 3).unwrap();
        }
        log.push(2_048_000, 512, true).unwrap();
        assert_eq!(log.runs(), 2);
        for i in 0..4000 {
            assert_eq!(log.get(i), data(u64::from(i) * 512, 512, i % 4 == 3));
        }
        assert_eq!(log.get(4000), data(2_048_000, 512, true));
        log.acknowledge(6);
        assert_eq!((log.first(), log.get(5)), (6, None));
        for i in 6..4000 {
            assert_eq!(log.get(i), data(u64::from(i) * 512, 512, i % 4 == 3));
        }
        assert_eq!(log.lowest_offset(), Some(6 * 512));
        log.acknowledge(4000);
        assert_eq!((log.runs(), log.lowest_offset()), (1, Some(2_048_000)));
        log.acknowledge(4001);
        assert_eq!((log.runs(), log.lowest_offset(), log.next()), (0, None, 4001));
        log.push(0, 1, true).unwrap();
        assert_eq!(log.get(4001), data(0, 1, true));
    }

    #[test]
    fn a_run_without_a_final_pdu_so_far_finds_its_distance() {
        let mut log = DataSnLog::default();
        for i in 0..5 {
            log.push(i * 10, 10, false).unwrap();
        }
        log.acknowledge(2);
        log.push(50, 10, true).unwrap();
        log.push(60, 10, false).unwrap();
        assert_eq!(log.runs(), 1);
        assert_eq!(log.get(5), data(50, 10, true));
        assert_eq!(log.get(6), data(60, 10, false));
        assert_eq!(log.get(4), data(40, 10, false));
    }

    #[test]
    fn an_r2t_shares_the_numbers() {
        let mut log = DataSnLog::default();
        log.push(0, 8, true).unwrap();
        log.push_r2t().unwrap();
        log.push(8, 8, true).unwrap();
        assert_eq!(log.get(1), Some(Numbered::R2t));
        assert_eq!(log.get(2), data(8, 8, true));
        assert_eq!(log.rewind(1).iter().collect::<Vec<_>>(), [(8, 16)]);
        assert!(log.rewind(1).is_empty());
    }

    #[test]
    fn data_out_of_order_comes_back_as_the_ranges_it_was() {
        let mut log = DataSnLog::default();
        for offset in [3000, 0, 1000, 2000] {
            log.push(offset, 1000, offset == 2000).unwrap();
        }
        assert_eq!(log.lowest_offset(), Some(0));
        log.acknowledge(1);
        assert_eq!(log.lowest_offset(), Some(0));
        log.acknowledge(2);
        assert_eq!(log.lowest_offset(), Some(1000));
        assert_eq!(log.rewind(2).iter().collect::<Vec<_>>(), [(1000, 3000)]);
    }

    #[test]
    fn runs_are_bounded() {
        let mut log = DataSnLog::default();
        for i in 0..MAX_RUNS as u64 {
            log.push(i * 100, 10, false).unwrap();
        }
        assert_eq!(log.push(999_999, 10, false), Err(TooScattered));
    }
}
