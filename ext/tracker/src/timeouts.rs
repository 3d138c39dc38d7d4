//! A number for each of the few timeouts in use, which an entry holds in its state.
//!
//! With the timeout known, one deadline gives both when a user is due and when the user was last seen.

use crate::entry::{HORIZON, MAX_TIMEOUTS, State};
use crate::invariant::violated;
use crate::time::{Nanos, tick_from};

/// No latest timeout: no user has this state.
const NONE: (Nanos, State) = (0, State::NONE);

/// The timeouts in use, by number, each with the count of its users. A number without users is free for another
/// timeout.
#[derive(Clone)]
pub(crate) struct Timeouts {
    interned: [InternedTimeout; MAX_TIMEOUTS as usize],
    /// The timeout last asked for that has a number, and its state: nearly every heartbeat asks for it again.
    latest: (Nanos, State),
}

/// A timeout with a number.
#[derive(Clone, Copy, Debug, Default)]
struct InternedTimeout {
    timeout: Nanos,
    /// How many users have it. Without any, the number is free.
    users: u64,
}

impl Timeouts {
    pub(crate) fn new() -> Timeouts {
        Timeouts { interned: [InternedTimeout::default(); MAX_TIMEOUTS as usize], latest: NONE }
    }

    /// Returns the state Online for `timeout`: one with a number, or [`State::OVERFLOW`] if the deadline would be
    /// beyond the horizon or all numbers are in use.
    #[inline]
    pub(crate) fn state_for(&mut self, timeout: Nanos) -> State {
        if self.latest.0 == timeout && self.latest != NONE {
            return self.latest.1;
        }
        let state = self.intern(timeout);
        if state != State::OVERFLOW {
            self.latest = (timeout, state);
        }
        state
    }

    /// Whether `timeout` is the one last asked for, and `state` is its state. If so, a heartbeat of a user in that
    /// state only moves the deadline on, and the wheel entry stays where it is: the timer finds the new deadline there.
    #[inline]
    pub(crate) fn is_latest(&self, timeout: Nanos, state: State) -> bool {
        self.latest == (timeout, state)
    }

    #[cold]
    fn intern(&mut self, timeout: Nanos) -> State {
        // Half the horizon leaves room for what is added to a deadline: rounding and the clock's jitter.
        if tick_from(timeout) > HORIZON / 2 {
            return State::OVERFLOW;
        }
        let same = self.interned.iter().position(|interned| interned.users > 0 && interned.timeout == timeout);
        let Some(index) = same.or_else(|| self.interned.iter().position(|interned| interned.users == 0)) else {
            return State::OVERFLOW;
        };
        match (self.interned.get_mut(index), u8::try_from(index)) {
            (Some(interned), Ok(index)) => {
                interned.timeout = timeout;
                State::online(index)
            }
            _ => State::OVERFLOW,
        }
    }

    /// Returns the timeout of a user in that state, or `None` in the states without a number.
    #[inline]
    pub(crate) fn timeout_of(&self, state: State) -> Option<Nanos> {
        self.interned.get(usize::from(state.timeout_index()?)).map(|interned| interned.timeout)
    }

    /// Returns the shortest timeout that has a number.
    pub(crate) fn shortest(&self) -> Option<Nanos> {
        self.interned.iter().filter(|interned| interned.users > 0).map(|interned| interned.timeout).min()
    }

    /// Counts a user who enters `state`.
    pub(crate) fn enter(&mut self, state: State) {
        if let Some(interned) = self.interned_mut(state) {
            interned.users += 1;
        }
    }

    /// Counts a user who leaves `state`.
    pub(crate) fn exit(&mut self, state: State) {
        if let Some(interned) = self.interned_mut(state) {
            if interned.users == 0 {
                return violated("a timeout that a user leaves has users");
            }
            interned.users -= 1;
            if interned.users == 0 {
                // The number may go to another timeout, so the next question must not be answered from memory.
                self.latest = NONE;
            }
        }
    }

    fn interned_mut(&mut self, state: State) -> Option<&mut InternedTimeout> {
        self.interned.get_mut(usize::from(state.timeout_index()?))
    }
}

/// Shows the numbers in use: what a free number was used for does not change the future.
impl std::fmt::Debug for Timeouts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = self.interned.iter().enumerate().filter(|(_, interned)| interned.users > 0);
        formatter.debug_map().entries(used).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_number_is_shared_and_then_free_again() {
        let mut timeouts = Timeouts::new();
        let five = timeouts.state_for(5 * SECOND);
        timeouts.enter(five);
        let six = timeouts.state_for(6 * SECOND);
        timeouts.enter(six);
        assert_ne!(five, six);
        assert_eq!(timeouts.state_for(5 * SECOND), five);
        assert_eq!(timeouts.timeout_of(six), Some(6 * SECOND));
        timeouts.exit(five);
        assert_eq!(timeouts.state_for(7 * SECOND), five);
        assert_eq!(timeouts.timeout_of(five), Some(7 * SECOND));
    }

    #[test]
    fn a_timeout_without_a_number_overflows() {
        let mut timeouts = Timeouts::new();
        for seconds in 1..=u64::from(MAX_TIMEOUTS) {
            let state = timeouts.state_for(seconds * SECOND);
            assert!(state.timeout_index().is_some());
            timeouts.enter(state);
        }
        assert_eq!(timeouts.state_for(SECOND / 2), State::OVERFLOW);
        let second = timeouts.state_for(SECOND);
        assert!(second.timeout_index().is_some());
        assert_eq!(timeouts.state_for(SECOND / 2), State::OVERFLOW);
        timeouts.exit(second);
        assert_eq!(timeouts.state_for(SECOND / 2), second);
        assert_eq!(Timeouts::new().state_for(365 * 86_400 * SECOND), State::OVERFLOW);
        assert_eq!(Timeouts::new().state_for(Nanos::MAX), State::OVERFLOW);
    }
}
