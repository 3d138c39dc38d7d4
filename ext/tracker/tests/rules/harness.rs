//! What the tests of the rules share: three users, and a presence whose clock the tests move.

use online_manager_tracker::presence::{Next, Presence};
use online_manager_tracker::{
    Announced, CallbackOutcome, Departed, HeartbeatOutcome, Id, Nanos, StringId, TICK, Transition, User,
};

pub(crate) const ADA: Id<'_> = Id::Key(1);
pub(crate) const BOB: Id<'_> = Id::String(StringId { bytes: b"bob", class: 0, label: 0 });
pub(crate) const CY: Id<'_> = Id::Key(5);

/// So long that ticks of 1.05 ms do not matter.
pub(crate) const SECOND: Nanos = 1_000_000_000;
pub(crate) const TIMEOUT: Nanos = 5 * SECOND;

/// A presence, and its clock, which the tests move.
pub(crate) struct Harness {
    pub(crate) presence: Presence,
    pub(crate) now: Nanos,
}

impl Harness {
    pub(crate) fn new() -> Harness {
        Harness::with_jitter(0)
    }

    pub(crate) fn with_jitter(jitter: Nanos) -> Harness {
        // In the middle of a tick, and of a slot of the wheel.
        let now = 77 * SECOND + 77;
        Harness { presence: Presence::new(now, jitter), now }
    }

    /// Sends a heartbeat with [`TIMEOUT`].
    pub(crate) fn heartbeat(&mut self, id: Id<'_>) -> HeartbeatOutcome {
        self.presence.heartbeat(id, self.now, TIMEOUT)
    }

    /// Sends a heartbeat that announces the user: `online` is running now.
    pub(crate) fn announce(&mut self, id: Id<'_>) -> User {
        match self.heartbeat(id) {
            HeartbeatOutcome::Announce(user) => user,
            outcome => panic!("{id:?} is not new: {outcome:?}"),
        }
    }

    /// Ends `online`.
    pub(crate) fn announced(&mut self, user: User, outcome: CallbackOutcome) -> Announced {
        self.presence.announced(user, self.now, TIMEOUT, outcome)
    }

    /// Brings a user online, with [`TIMEOUT`].
    pub(crate) fn come_online(&mut self, id: Id<'_>) -> User {
        self.come_online_for(id, TIMEOUT)
    }

    /// Brings a user online, with `timeout`.
    pub(crate) fn come_online_for(&mut self, id: Id<'_>, timeout: Nanos) -> User {
        let HeartbeatOutcome::Announce(user) = self.presence.heartbeat(id, self.now, timeout) else {
            panic!("{id:?} is known")
        };
        assert_eq!(self.presence.announced(user, self.now, timeout, CallbackOutcome::Returned), Announced::Online);
        user
    }

    /// Brings a user online, waits for the timeout and claims: `offline` is running now.
    pub(crate) fn begin_offline(&mut self, id: Id<'_>) -> User {
        let user = self.come_online(id);
        self.wait(TIMEOUT + TICK);
        self.claim();
        user
    }

    /// Takes a claim back, and asserts that the user was still last seen at `seen`.
    pub(crate) fn assert_claim_taken_back(&mut self, user: User, id: Id<'_>, seen: Nanos) {
        assert_eq!(self.presence.unclaim(user, Transition::Offline, self.now), Departed::Rejoining);
        let last_seen = self.presence.last_seen(id, self.now).unwrap();
        assert!(last_seen.abs_diff(seen) <= TICK, "seen {} days later", last_seen.abs_diff(seen) / (86_400 * SECOND));
    }

    /// Runs a step of the timer that checks everyone.
    pub(crate) fn step(&mut self) -> Next {
        self.presence.advance(self.now, usize::MAX)
    }

    /// Moves the clock by `time`, and runs a step of the timer.
    pub(crate) fn wait(&mut self, time: Nanos) {
        self.now += time;
        self.step();
    }

    /// Claims until nobody can be claimed.
    pub(crate) fn claim(&mut self) -> Vec<(Transition, User)> {
        let mut claims = Vec::new();
        loop {
            let mut claimed = Vec::new();
            match self.presence.claim(self.now, 1, &mut claimed) {
                Some(transition) => claims.extend(claimed.into_iter().map(|claimed| (transition, claimed.user))),
                None => return claims,
            }
        }
    }

    /// Returns whether the user was online.
    pub(crate) fn leave(&mut self, id: Id<'_>, after: Nanos) -> bool {
        self.presence.leave(id, self.now, after).was_online
    }

    pub(crate) fn is_online(&self, id: Id<'_>) -> bool {
        self.presence.is_online(id)
    }

    /// Moves the clock tick by tick until a user can be claimed for `offline`, and asserts that it is `user`, at the
    /// tick of `deadline`.
    #[track_caller]
    pub(crate) fn assert_offline_at(&mut self, deadline: Nanos, user: User) {
        loop {
            match self.claim()[..] {
                [] => self.wait((self.now + 1).next_multiple_of(TICK) - self.now),
                [(Transition::Offline, claimed)] if claimed == user => break,
                ref claimed => panic!("{claimed:?}"),
            }
            assert!(self.now < deadline + 2 * TICK, "nobody can be claimed");
        }
        assert!(self.now >= deadline, "too early by {}", deadline - self.now);
    }
}
