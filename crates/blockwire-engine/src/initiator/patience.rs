//! How much a reader lets arrive before it is woken.
//!
//! Being woken costs both ends: the sender of the bytes does it, and on a virtual machine it takes about 4 µs of the
//! target's time. Two things are worth waiting for:
//!
//! * the rest of a large data segment that has begun: it is certain to come;
//! * several answers, while many requests are in flight at a target whose time goes into them one by one. That is a guess,
//!   so it is made from a sample of waits without it, held only as long as it comes true, and bounded by a time.
//!
//! Both are the socket's low-water mark (SO_RCVLOWAT) and a `ppoll` with a limit. One request at a time, or a slow target,
//! is never kept waiting.

use std::time::Duration;

use blockwire_proto::initiator::InitiatorSession;
use blockwire_proto::{ConnIndex, Endpoint};

use super::session::{Link, SLICE};
use crate::clock::Nanos;
use crate::sys::socket;
use crate::transport::Transport;

/// The rest of a data segment is waited for as a whole from this length on.
const REST: u32 = 16 * 1024;
/// Most bytes to wait for: what is not fetched in time leaves the processor's cache, and the target sends no more.
const MOST: u32 = 128 * 1024;
/// A target that takes this long for an answer is the bottleneck, and being woken costs it much less than it saves.
const SLOW: Nanos = 10_000;
/// How long to wait for how many.
struct Bounds {
    /// This part of the requests in flight, so that the target is not left without work.
    share: u32,
    most: u64,
    /// Answers are expected within this time, or not waited for.
    longest: Nanos,
}
/// Also where the target asks for data (R2T): until it has that, it may have nothing else to do.
const USUAL: Bounds = Bounds { share: 4, most: u64::MAX, longest: 100_000 };
/// A wake for eight answers costs little enough for each.
const AT_SLOW: Bounds = Bounds { share: 2, most: 8, longest: 400_000 };
/// Waits of a sample, which tells what comes by itself.
const SAMPLE: u32 = 8;
/// Waits until the next sample.
const PHASE: u32 = 128;
/// Guesses that may fail in one phase.
const MISSES: u32 = 4;

/// Several answers to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Goal {
    bytes: u32,
    /// Requests that have to be in flight.
    least: u32,
    limit: Duration,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Any byte, as long as the socket's own timeout says.
    Any,
    /// This many bytes, which will come.
    Rest(u32),
    /// This many bytes, but no longer than so.
    Answers(u32, Duration),
}

impl Wait {
    /// The low-water mark that it needs.
    pub fn mark(self) -> u32 {
        match self {
            Self::Any => 1,
            Self::Rest(bytes) | Self::Answers(bytes, _) => bytes,
        }
    }

    /// Waits for it, unless `recv` does. False: the answers did not come in time.
    #[inline]
    pub fn keep(self, transport: &Transport) -> bool {
        let (Some(fd), Self::Rest(_) | Self::Answers(..)) = (transport.fd(), self) else { return true };
        let limit = if let Self::Answers(_, limit) = self { limit } else { SLICE };
        // an error is found by the `recv` that follows; a signal ends the wait
        let late = matches!(socket::wait_readable(fd, limit), Ok(false));
        !late || matches!(self, Self::Rest(_))
    }
}

/// What one connection's answers were like lately.
#[derive(Debug, Default)]
pub(super) struct Patience {
    goal: Option<Goal>,
    sampling: bool,
    /// Waits that this phase still has.
    left: u32,
    missed: bool,
    misses: u32,
    /// The sample: when it began, requests that ended, R2Ts and bytes that came.
    began: Nanos,
    ended: u64,
    asked: u64,
    bytes: u64,
}

impl Patience {
    /// Before a wait, with `rest` bytes of a data segment still to come and `outstanding` requests in flight.
    #[inline]
    pub fn plan(&mut self, rest: u32, outstanding: u32, now: Nanos) -> Wait {
        if self.left == 0 {
            self.turn(outstanding, now);
        }
        self.left -= 1;
        let missed = std::mem::take(&mut self.missed);
        match self.goal {
            Some(goal) if !missed && outstanding >= goal.least => {
                Wait::Answers(goal.bytes.max(rest).min(MOST), goal.limit)
            }
            _ if rest >= REST => Wait::Rest(rest.min(MOST)),
            _ => Wait::Any,
        }
    }

    /// After a receive call.
    #[inline]
    pub fn received(&mut self, bytes: usize, ended: u64, asked: u64) {
        self.bytes += bytes as u64;
        self.ended += ended;
        self.asked += asked;
    }

    /// The answers that were waited for did not come in time: the next wait is for any byte.
    pub fn miss(&mut self) {
        self.missed = true;
        self.misses += 1;
        if self.misses >= MISSES {
            self.goal = None;
        }
    }

    fn turn(&mut self, outstanding: u32, now: Nanos) {
        self.goal = if self.sampling { self.guess(outstanding, now) } else { None };
        self.sampling = !self.sampling;
        self.left = if self.sampling { SAMPLE } else { PHASE };
        (self.began, self.ended, self.asked, self.bytes, self.misses) = (now, 0, 0, 0, 0);
    }

    /// What the sample makes worth waiting for.
    fn guess(&self, outstanding: u32, now: Nanos) -> Option<Goal> {
        let elapsed = now.saturating_sub(self.began);
        if self.ended == 0 || elapsed == 0 {
            return None;
        }
        let each = (elapsed / self.ended).max(1);
        let Bounds { share, most, longest } = if each >= SLOW && self.asked == 0 { AT_SLOW } else { USUAL };
        let answers = (longest / each).min(u64::from(outstanding / share)).min(most);
        // as many come together anyway: waiting would only be in the way
        if answers < 2 || self.ended >= answers * u64::from(SAMPLE) {
            return None;
        }
        let bytes = (self.bytes * answers / self.ended).min(u64::from(MOST)) as u32;
        let limit = Duration::from_nanos(2 * answers * elapsed / self.ended);
        Some(Goal { bytes, least: outstanding / 2, limit })
    }
}

impl Link {
    /// What to wait for next; the socket's low-water mark says so already.
    #[inline]
    pub fn plan(&mut self, proto: &mut InitiatorSession, conn: ConnIndex, now: Nanos) -> Wait {
        let rest = proto.deframer(conn).data_remaining();
        let wait = self.patience.plan(rest, proto.tasks_on(conn), now);
        self.set_mark(wait.mark());
        wait
    }

    /// Sets the low-water mark; one that cannot be set stays as it is.
    #[inline]
    pub fn set_mark(&mut self, bytes: u32) {
        if bytes != self.mark
            && let Some(fd) = self.transport.fd()
            && socket::set_receive_mark(fd, bytes).is_ok()
        {
            self.mark = bytes;
        }
    }

    /// Sets how long a `recv` that waits for any byte does; what cannot be set stays as it is.
    #[inline]
    pub fn set_slice(&mut self, slice: Duration) {
        if slice != self.slice
            && let Some(fd) = self.transport.fd()
            && socket::set_receive_timeout(fd, slice).is_ok()
        {
            self.slice = slice;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample in which each wait brings `each` answers of 4 KiB, `gap` nanoseconds apart, with 32 in flight.
    fn sampled(each: u64, gap: Nanos) -> (Patience, Nanos) {
        sampled_with(each, gap, 0)
    }

    /// With so many R2Ts in each wait.
    fn sampled_with(each: u64, gap: Nanos, asked: u64) -> (Patience, Nanos) {
        let mut patience = Patience::default();
        let mut now = 1000;
        for _ in 0..SAMPLE {
            assert_eq!(patience.plan(0, 32, now), Wait::Any);
            now += each * gap;
            patience.received(each as usize * 4144, each, asked);
        }
        (patience, now)
    }

    #[test]
    fn a_fast_target_that_answers_one_at_a_time_is_worth_waiting_for() {
        let (mut patience, now) = sampled(1, 20_000);
        // twenty come in 400 µs; half of those in flight would be sixteen
        let expected = Wait::Answers(8 * 4144, Duration::from_micros(320));
        assert_eq!(patience.plan(0, 32, now), expected);
        assert_eq!(patience.plan(0, 16, now), expected);
        assert_eq!(patience.plan(0, 15, now), Wait::Any, "half of them are not in flight any more");
        assert_eq!(patience.plan(100_000, 32, now), Wait::Answers(100_000, Duration::from_micros(320)));
        let (mut patience, now) = sampled(1, 10_000);
        assert_eq!(patience.plan(0, 32, now), Wait::Answers(8 * 4144, Duration::from_micros(160)));
        // never more than half of those in flight, so that the target is not left without work
        let (mut patience, now) = sampled(1, 50_000);
        assert_eq!(patience.plan(0, 8, now), Wait::Answers(4 * 4144, Duration::from_micros(400)));
        let (mut patience, now) = sampled(3, 50_000);
        assert_eq!(
            patience.plan(0, 8, now),
            Wait::Answers(4 * 4144, Duration::from_micros(400)),
            "three come by themselves"
        );
    }

    #[test]
    fn a_target_that_is_itself_fast_and_one_that_asks_for_data_get_a_quarter() {
        let (mut patience, now) = sampled(1, 5_000);
        assert_eq!(patience.plan(0, 16, now), Wait::Answers(4 * 4144, Duration::from_micros(40)));
        let (mut patience, now) = sampled(4, 5_000);
        assert_eq!(patience.plan(0, 16, now), Wait::Any, "it answers in batches of a quarter");
        let (mut patience, now) = sampled_with(1, 20_000, 1);
        assert_eq!(patience.plan(0, 32, now), Wait::Answers(5 * 4144, Duration::from_micros(200)));
        let (mut patience, now) = sampled_with(1, 60_000, 1);
        assert_eq!(patience.plan(0, 32, now), Wait::Any);
    }

    #[test]
    fn a_slow_target_one_request_and_natural_batches_are_not() {
        let (mut patience, now) = sampled(1, 210_000);
        assert_eq!(patience.plan(0, 32, now), Wait::Any);
        let (mut patience, now) = sampled(8, 10_000);
        assert_eq!(patience.plan(0, 32, now), Wait::Any);
        let (mut patience, now) = sampled(1, 10_000);
        assert_eq!(patience.plan(0, 3, now), Wait::Any);
        let (mut patience, now) = sampled(0, 10_000);
        assert_eq!(patience.plan(0, 32, now), Wait::Any);
    }

    #[test]
    fn a_guess_that_fails_is_given_up() {
        let (mut patience, now) = sampled(1, 20_000);
        for _ in 0..MISSES {
            assert!(matches!(patience.plan(0, 32, now), Wait::Answers(..)));
            patience.miss();
            assert_eq!(patience.plan(0, 32, now), Wait::Any);
        }
        assert_eq!(patience.plan(0, 32, now), Wait::Any);
        // and no guess is for ever
        let (mut patience, now) = sampled(1, 20_000);
        for _ in 0..PHASE {
            assert!(matches!(patience.plan(0, 32, now), Wait::Answers(..)));
        }
        assert_eq!(patience.plan(0, 32, now), Wait::Any);
    }

    #[test]
    fn the_rest_of_a_large_segment_is_certain() {
        let mut patience = Patience::default();
        assert_eq!(patience.plan(REST - 1, 1, 0), Wait::Any);
        assert_eq!(patience.plan(REST, 1, 0), Wait::Rest(REST));
        assert_eq!(patience.plan(1 << 20, 1, 0), Wait::Rest(MOST));
        let (mut patience, now) = sampled(1, 20_000);
        assert!(matches!(patience.plan(0, 32, now), Wait::Answers(..)));
        patience.miss();
        assert_eq!(patience.plan(REST, 32, now), Wait::Rest(REST), "that one cannot have failed");
    }
}
