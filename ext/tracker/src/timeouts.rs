//! The few timeouts that users have, numbered so that an entry can name one in its state.
//!
//! With the timeout known, one deadline tells both when a user is due and when it was last seen.

use crate::entry::{CLASSES, HORIZON, State};
use crate::time::{Nanos, tick_from};

/// No user is in that state.
const NONE: (Nanos, State) = (0, State::NEVER);

/// Numbers for timeouts, counted: a number whose last user has gone is free for another timeout.
#[derive(Clone)]
pub(crate) struct Timeouts {
    classes: [Class; CLASSES as usize],
    /// The timeout that was asked for last and has a number, and its state: nearly always it is asked for again.
    latest: (Nanos, State),
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    timeout: Nanos,
    users: u64,
}

impl Timeouts {
    pub(crate) fn new() -> Timeouts {
        Timeouts { classes: [Class::default(); CLASSES as usize], latest: NONE }
    }

    /// The state of a user who beats with `timeout`: a number, or [`State::OVERFLOW`] when the deadline
    /// would be beyond the horizon or all numbers are taken.
    #[inline]
    pub(crate) fn state_for(&mut self, timeout: Nanos) -> State {
        if self.latest.0 == timeout && self.latest != NONE {
            return self.latest.1;
        }
        let state = self.find(timeout);
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
    fn find(&mut self, timeout: Nanos) -> State {
        // Far enough inside the horizon for what is added to a deadline: rounding and the clock's jitter.
        if tick_from(timeout) > HORIZON / 2 {
            return State::OVERFLOW;
        }
        let same = self.classes.iter().position(|class| class.users > 0 && class.timeout == timeout);
        let Some(number) = same.or_else(|| self.classes.iter().position(|class| class.users == 0)) else {
            return State::OVERFLOW;
        };
        match (self.classes.get_mut(number), u8::try_from(number)) {
            (Some(class), Ok(number)) => {
                class.timeout = timeout;
                State::online(number)
            }
            _ => State::OVERFLOW,
        }
    }

    /// The timeout of a user in that state, unless it is noted.
    #[inline]
    pub(crate) fn timeout_of(&self, state: State) -> Option<Nanos> {
        self.classes.get(usize::from(state.class()?)).map(|class| class.timeout)
    }

    /// A user came into `state`.
    pub(crate) fn enter(&mut self, state: State) {
        if let Some(class) = self.class(state) {
            class.users += 1;
        }
    }

    /// A user left `state`.
    pub(crate) fn exit(&mut self, state: State) {
        if let Some(class) = self.class(state) {
            debug_assert!(class.users > 0);
            class.users -= 1;
            if class.users == 0 {
                // A number is free: whoever asks next is not answered from memory.
                self.latest = NONE;
            }
        }
    }

    fn class(&mut self, state: State) -> Option<&mut Class> {
        self.classes.get_mut(usize::from(state.class()?))
    }
}

/// The timeouts in use, and by how many: what another number is left with changes nothing.
impl std::fmt::Debug for Timeouts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = self.classes.iter().enumerate().filter(|(_, class)| class.users > 0);
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
    fn what_has_no_number_is_noted() {
        let mut timeouts = Timeouts::new();
        for seconds in 1..=u64::from(CLASSES) {
            let state = timeouts.state_for(seconds * SECOND);
            assert!(state.class().is_some());
            timeouts.enter(state);
        }
        assert_eq!(timeouts.state_for(SECOND / 2), State::OVERFLOW);
        let second = timeouts.state_for(SECOND);
        assert!(second.class().is_some());
        assert_eq!(timeouts.state_for(SECOND / 2), State::OVERFLOW);
        timeouts.exit(second);
        assert_eq!(timeouts.state_for(SECOND / 2), second);
        assert_eq!(Timeouts::new().state_for(365 * 86_400 * SECOND), State::OVERFLOW);
        assert_eq!(Timeouts::new().state_for(Nanos::MAX), State::OVERFLOW);
    }
}
