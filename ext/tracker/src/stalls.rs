//! Times at which this process, or what reads its heartbeats, stood still: SIGSTOP, a suspended machine, the GVL kept by C
//! code, a blocked event loop. Heartbeats that came meanwhile wait in a socket or a pipe, and are not missed ones (rule 14).
//!
//! [`Stalls`] says until when a claim is put off. [`StallDetector`] finds the stalls: the timer thread asks the reactor for a
//! sign of life now and then, and each claim is one.

use crate::time::Nanos;

/// How late an answer, or the timer thread, may be before that is a stall, in nanoseconds: more than steps of the clock and a
/// busy scheduler take.
const MAX_LATENESS: Nanos = 30_000_000;

/// How often the reactor is asked, in nanoseconds: eight times within the shortest timeout in use, within these limits.
const MIN_INTERVAL: Nanos = 10_000_000;
const MAX_INTERVAL: Nanos = 250_000_000;
const ASKED_PER_TIMEOUT: u64 = 8;

/// A time at which nothing was read, between two moments of the tracker's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The last moment at which everything was known to run.
    pub start: Nanos,
    /// The first moment at which it ran again.
    pub end: Nanos,
}

impl Stall {
    /// Returns until when the stall puts off the claim of a user who was seen at `seen` and is due at `due`: for as long as
    /// the user could not be heard, and no longer than the timeout. 0 if it does not.
    ///
    /// A stall that begins after `due` does not count. So only a few count for a user, each puts the claim off once, and a
    /// user who is gone is claimed.
    pub fn put_off(self, seen: Nanos, due: Nanos) -> Nanos {
        if self.start >= due || self.end <= seen {
            return 0;
        }
        let unheard = self.end.saturating_sub(self.start.max(seen));
        self.end.saturating_add(unheard.min(due.saturating_sub(seen)))
    }

    /// Whether it puts nobody's claim off any more.
    fn is_over(self, now: Nanos) -> bool {
        self.end.saturating_add(self.end.saturating_sub(self.start)) <= now
    }
}

/// The stalls that may still put a claim off. There are few: of those that do not overlap, each is at least as long as all
/// later ones together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalls(Vec<Stall>);

impl Stalls {
    pub(crate) fn add(&mut self, stall: Stall) {
        self.0.retain(|earlier| !earlier.is_over(stall.end));
        self.0.push(stall);
    }

    /// Returns until when the claim of a user is put off who was seen at `seen` and is due at `due`; 0 if it is not.
    #[inline]
    pub(crate) fn put_off(&self, seen: Nanos, due: Nanos) -> Nanos {
        self.0.iter().map(|stall| stall.put_off(seen, due)).max().unwrap_or(0)
    }
}

/// Finds stalls. Its owner calls it on the timer thread and on the reactor, with the time.
#[derive(Debug, Default)]
pub struct StallDetector {
    /// How often the reactor is asked; `None` while nobody is online, and no answer is expected.
    interval: Option<Nanos>,
    /// When the reactor is asked next, since when it is asked without an answer, and when it last answered.
    ask_at: Nanos,
    asked_at: Option<Nanos>,
    answered_at: Nanos,
    /// Whether the reactor is inside a callback that keeps no heartbeat from being read.
    is_calling: bool,
    /// When the timer thread was last awake, and when it is to wake up; `None` if it waits for a wakeup only.
    awake_at: Nanos,
    wake_at: Option<Nanos>,
}

impl StallDetector {
    /// The timer thread is awake. Returns the stall if it comes late: then the whole process stood still.
    pub fn timer_awake(&mut self, now: Nanos) -> Option<Stall> {
        let is_late = self.wake_at.take().is_some_and(|wake_at| now > wake_at.saturating_add(MAX_LATENESS));
        let start = std::mem::replace(&mut self.awake_at, now);
        is_late.then_some(Stall { start, end: now })
    }

    /// Returns whether to ask the reactor now, by raising its signal, and when the timer thread has to come next for that:
    /// `None` while nobody is online.
    ///
    /// `shortest_timeout` is that of the users online; `None` if there are none.
    pub fn ask(&mut self, now: Nanos, shortest_timeout: Option<Nanos>) -> (bool, Option<Nanos>) {
        let Some(timeout) = shortest_timeout else {
            (self.interval, self.asked_at) = (None, None);
            return (false, None);
        };
        let interval = (timeout / ASKED_PER_TIMEOUT).clamp(MIN_INTERVAL, MAX_INTERVAL);
        if self.interval.replace(interval).is_none() {
            // Nobody was online, so nobody waited for an answer.
            self.answered_at = now;
            self.ask_at = now.saturating_add(interval);
        }
        let is_due = now >= self.ask_at;
        if is_due {
            self.asked_at.get_or_insert(now);
        }
        if is_due || self.ask_at > now.saturating_add(interval) {
            self.ask_at = now.saturating_add(interval);
        }
        (is_due, Some(self.ask_at))
    }

    /// The timer thread sleeps until then, or until it is woken.
    pub fn timer_sleeps(&mut self, until: Option<Nanos>) {
        self.wake_at = until;
    }

    /// The reactor claims: it is alive. Returns the stall if it did not do so in time.
    pub fn answer(&mut self, now: Nanos) -> Option<Stall> {
        let start = self.stalled_since(now);
        (self.asked_at, self.answered_at, self.is_calling) = (None, now, false);
        start.map(|start| Stall { start, end: now })
    }

    /// The reactor calls a callback, and answers when that has returned. Not called if heartbeats are read on the same thread
    /// or event loop: then a long callback is a stall.
    pub fn calls(&mut self) {
        self.is_calling = true;
    }

    /// Returns until when everything is known to have run: a stall that is found later begins there or later.
    ///
    /// While nobody is online no stall is found, and a callback that keeps nothing from being read is none. Otherwise the
    /// stall of an unanswered question may have begun an interval before it.
    pub fn running_until(&self, now: Nanos) -> Nanos {
        if self.interval.is_none() || self.is_calling {
            return now;
        }
        self.answered_at.max(self.asked_at.unwrap_or(now).saturating_sub(MAX_INTERVAL))
    }

    /// Returns since when the reactor has perhaps stood still, if it should have answered by `now`: at most since an interval
    /// before it was asked.
    pub fn stalled_since(&self, now: Nanos) -> Option<Nanos> {
        let asked_at = self.asked_at.filter(|asked_at| now > asked_at.saturating_add(MAX_LATENESS))?;
        let start = self.answered_at.max(asked_at.saturating_sub(self.interval?));
        (!self.is_calling).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Nanos = 1_000_000;
    const SECOND: Nanos = 1_000 * MILLISECOND;

    fn stalls(stalls: &[(Nanos, Nanos)]) -> Stalls {
        let mut all = Stalls::default();
        stalls.iter().for_each(|(start, end)| all.add(Stall { start: start * SECOND, end: end * SECOND }));
        all
    }

    #[test]
    fn a_claim_is_put_off_for_as_long_as_the_user_could_not_be_heard_but_no_longer_than_the_timeout() {
        let stalls = stalls(&[(10, 13)]);
        assert_eq!(stalls.put_off(9 * SECOND, 14 * SECOND), 16 * SECOND, "for the three seconds of the stall");
        assert_eq!(stalls.put_off(9 * SECOND, 11 * SECOND), 15 * SECOND, "for the timeout of two seconds");
        assert_eq!(stalls.put_off(12 * SECOND, 17 * SECOND), 14 * SECOND, "for the second since the heartbeat");
    }

    #[test]
    fn a_stall_that_was_over_before_the_heartbeat_or_began_after_the_deadline_does_not_count() {
        let stalls = stalls(&[(10, 13)]);
        assert_eq!(stalls.put_off(13 * SECOND, 14 * SECOND), 0);
        assert_eq!(stalls.put_off(5 * SECOND, 10 * SECOND), 0);
        assert_eq!(stalls.put_off(12 * SECOND, 12 * SECOND), 13 * SECOND, "a leave is due at once");
    }

    #[test]
    fn stalls_one_after_the_other_are_forgotten() {
        let mut stalls = Stalls::default();
        for number in 0..1_000 {
            stalls.add(Stall { start: number * SECOND, end: (number + 1) * SECOND });
            assert!(stalls.0.len() <= 2);
        }
    }

    #[test]
    fn a_reactor_that_answers_in_time_has_no_stall() {
        let mut detector = StallDetector::default();
        let mut now = 100 * SECOND;
        for _ in 0..100 {
            assert_eq!(detector.timer_awake(now), None);
            let (is_due, next) = detector.ask(now, Some(SECOND));
            detector.timer_sleeps(next);
            if is_due {
                assert_eq!(detector.answer(now + 10 * MILLISECOND), None);
            }
            now = next.unwrap() + 15 * MILLISECOND;
        }
    }

    #[test]
    fn a_reactor_that_answers_late_has_stood_still_since_its_last_answer() {
        let mut detector = StallDetector::default();
        assert_eq!(detector.ask(SECOND, Some(SECOND)), (false, Some(SECOND + 125 * MILLISECOND)));
        assert!(detector.ask(SECOND + 125 * MILLISECOND, Some(SECOND)).0);
        assert_eq!(detector.stalled_since(SECOND + 155 * MILLISECOND), None);
        assert_eq!(detector.stalled_since(2 * SECOND), Some(SECOND));
        assert_eq!(detector.answer(3 * SECOND), Some(Stall { start: SECOND, end: 3 * SECOND }));
        assert_eq!(detector.answer(3 * SECOND), None);
    }

    #[test]
    fn a_timer_thread_that_comes_late_has_stood_still() {
        let mut detector = StallDetector::default();
        detector.timer_awake(SECOND);
        detector.timer_sleeps(Some(2 * SECOND));
        assert_eq!(detector.timer_awake(3 * SECOND), Some(Stall { start: SECOND, end: 3 * SECOND }));
        detector.timer_sleeps(None);
        assert_eq!(detector.timer_awake(9 * SECOND), None, "it waited for a wakeup");
    }

    #[test]
    fn a_callback_that_takes_long_is_no_stall_unless_heartbeats_are_read_on_its_thread() {
        for reads_heartbeats in [false, true] {
            let mut detector = StallDetector::default();
            detector.ask(SECOND, Some(SECOND));
            detector.answer(SECOND);
            detector.ask(SECOND + 125 * MILLISECOND, Some(SECOND));
            if !reads_heartbeats {
                detector.calls();
            }
            assert_eq!(detector.stalled_since(3 * SECOND).is_some(), reads_heartbeats);
            assert_eq!(detector.answer(3 * SECOND).is_some(), reads_heartbeats);
        }
    }

    #[test]
    fn while_nobody_is_online_nobody_is_asked() {
        let mut detector = StallDetector::default();
        assert_eq!(detector.ask(SECOND, None), (false, None));
        assert_eq!(detector.answer(9 * SECOND), None);
        detector.ask(10 * SECOND, Some(SECOND));
        assert_eq!(detector.answer(10 * SECOND + 100 * MILLISECOND), None, "the wait for the first user is no stall");
    }

    #[test]
    fn the_shorter_the_timeout_the_more_often_the_reactor_is_asked() {
        let mut detector = StallDetector::default();
        assert_eq!(detector.ask(0, Some(3_600 * SECOND)).1, Some(250 * MILLISECOND));
        assert_eq!(detector.ask(0, Some(MILLISECOND)).1, Some(10 * MILLISECOND), "a shorter timeout counts at once");
    }
}
