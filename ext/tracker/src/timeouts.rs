//! The few timeouts that users have, numbered so that an entry can name one in its state.
//!
//! With the timeout known, one deadline tells both when a user is due and when it was last seen.

use crate::entry::{HORIZON, MAX_TIMEOUTS, State};
use crate::time::{Nanos, tick_from};

/// No user is in that state.
const NONE: (Nanos, State) = (0, State::NONE);

/// Numbers for timeouts, counted: a number whose last user has gone is free for another timeout.
#[derive(Clone)]
pub(crate) struct Timeouts {
    interned: [InternedTimeout; MAX_TIMEOUTS as usize],
    /// The timeout that was asked for last and has a number, and its state: nearly always it is asked for again.
    latest: (Nanos, State),
}

#[derive(Clone, Copy, Debug, Default)]
struct InternedTimeout {
    timeout: Nanos,
    users: u64,
}

impl Timeouts {
    pub(crate) fn new() -> Timeouts {
        Timeouts { interned: [InternedTimeout::default(); MAX_TIMEOUTS as usize], latest: NONE }
    }

    /// The state of a user who beats with `timeout`: a number, or [`State::OVERFLOW`] when the deadline
    /// would be beyond the horizon or all numbers are taken.
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

    /// Whether `state` is that of `timeout`, being the one that was asked for last: if so, a heartbeat with that timeout of
    /// a user in that state can only move the deadline on, and the wheel entry stays where it is. When it comes up, the
    /// timer finds the new deadline.
    #[inline]
    pub(crate) fn is_latest(&self, timeout: Nanos, state: State) -> bool {
        self.latest == (timeout, state)
    }

    #[cold]
    fn intern(&mut self, timeout: Nanos) -> State {
        // Far enough inside the horizon for what is added to a deadline: rounding and the clock's jitter.
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

    /// The timeout of a user in that state, unless it is noted.
    #[inline]
    pub(crate) fn timeout_of(&self, state: State) -> Option<Nanos> {
        self.interned.get(usize::from(state.timeout_index()?)).map(|interned| interned.timeout)
    }

    /// A user came into `state`.
    pub(crate) fn enter(&mut self, state: State) {
        if let Some(interned) = self.interned_mut(state) {
            interned.users += 1;
        }
    }

    /// A user left `state`.
    pub(crate) fn exit(&mut self, state: State) {
        if let Some(interned) = self.interned_mut(state) {
            debug_assert!(interned.users > 0);
            interned.users -= 1;
            if interned.users == 0 {
                // A number is free: whoever asks next is not answered from memory.
                self.latest = NONE;
            }
        }
    }

    fn interned_mut(&mut self, state: State) -> Option<&mut InternedTimeout> {
        self.interned.get_mut(usize::from(state.timeout_index()?))
    }
}

/// The timeouts in use, and by how many: what another number is left with changes nothing.
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
