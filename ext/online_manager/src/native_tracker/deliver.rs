//! `deliver`, which the reactor calls whenever the pipe is readable: it claims users, calls the target, reports the
//! outcome.

use magnus::value::{LazyId, ReprValue};
use magnus::{Error, RArray, Ruby, Value};
use online_manager_tracker::{CallbackOutcome, Claimed, Departed, Nanos, Reason, Transition, User};

use super::{LocalTracker, NativeTracker, OFFLINE};
use crate::key;

/// The most users in one `offline_all`. A reactor does nothing else during that call.
const BATCH_SIZE: usize = 1_000;

static REJOIN: LazyId = LazyId::new("rejoin");
static OFFLINE_ALL: LazyId = LazyId::new("offline_all");

impl NativeTracker {
    /// `deliver(together, detailed, dated, reads_heartbeats) -> whether a user was claimed`: makes one call of the target
    ///
    /// With `together`, up to `BATCH_SIZE` users go into one `offline_all`. With `detailed`, the target gets each
    /// user's reason and lateness, else nil. With `dated` it gets how many seconds ago each was last seen, else nil.
    /// `reads_heartbeats`: see [`Tracker::claim`]. Only one thread at a time may call it.
    ///
    /// [`Tracker::claim`]: online_manager_tracker::Tracker::claim
    pub(super) fn deliver(
        ruby: &Ruby,
        this: &NativeTracker,
        together: bool,
        detailed: bool,
        dated: bool,
        reads_heartbeats: bool,
    ) -> Result<bool, Error> {
        let Some(tracker) = this.handle.current() else { return Ok(false) };
        this.release_sessions(ruby, tracker);
        // The target adds an element just before it enters the config's method. If the call ends earlier (because the
        // thread is killed, say), the claim is undone, so that no user is lost.
        let entered = ruby.ary_new();
        let mut claimed = Vec::new();
        // The last claim was not reported if a continuation (`callcc`) has left its callback.
        for user in tracker.end_claim(false) {
            this.release(ruby, tracker, user.key());
        }
        let max = if together { BATCH_SIZE } else { 1 };
        let Some(transition) = tracker.claim(max, reads_heartbeats, &mut claimed) else { return Ok(false) };
        let Some(first) = claimed.first() else { return Ok(true) };

        let (name, is_batch) = match transition {
            Transition::Online => (&REJOIN, false),
            Transition::Offline if together => (&OFFLINE_ALL, true),
            Transition::Offline => (&OFFLINE, false),
        };
        // Until the outcome is reported, only the target's call makes objects: for them there may be no memory.
        let called = this.handle.target.call(ruby, name, || {
            let details = if detailed { Some(details(ruby, &claimed)?) } else { None };
            let seen_ago = if dated { Some(seen_ago(ruby, &claimed)?) } else { None };
            let ids = if is_batch {
                this.ids_of(ruby, &claimed)?.as_value()
            } else {
                key::to_value(ruby, &first.id, &this.objects)
            };
            Ok((ids, entered, details, seen_ago))
        });
        let is_entered = is_entered(Some(entered), &called);
        // The target returns false when the config's method has raised: it has handled the exception.
        let returned = called.as_ref().is_ok_and(|returned| returned.to_bool());
        if tracker.is_current() {
            tracker.end_claim(true);
        }
        match transition {
            Transition::Offline => this.departed(ruby, tracker, claimed.iter().map(|claimed| claimed.user), is_entered),
            Transition::Online if is_entered => {
                let id = || key::to_value(ruby, &first.id, &this.objects);
                let timeout = this.handle.target.timeout();
                let outcome = if returned { CallbackOutcome::Returned } else { CallbackOutcome::Aborted };
                this.announced(ruby, tracker, first.user, id, timeout, outcome)?;
            }
            Transition::Online => this.unclaim(ruby, tracker, first.user, transition),
        }
        called.map(|_| true)
    }

    /// Returns the ids of the claimed users as an Array.
    fn ids_of(&self, ruby: &Ruby, claimed: &[Claimed]) -> Result<RArray, Error> {
        let ids = ruby.ary_new_capa(claimed.len());
        for user in claimed {
            ids.push(key::to_value(ruby, &user.id, &self.objects))?;
        }
        Ok(ids)
    }

    /// Reports the end of an `offline`. Undoes the claim if the config's method was not entered.
    pub(super) fn departed(
        &self,
        ruby: &Ruby,
        tracker: &LocalTracker,
        users: impl IntoIterator<Item = User, IntoIter: DoubleEndedIterator>,
        is_entered: bool,
    ) {
        let users = users.into_iter();
        if !tracker.is_current() {
            // `offline` has forked, and this is the child, which knows nobody.
        } else if is_entered {
            for user in tracker.departed_all(users) {
                self.release(ruby, tracker, user.key());
            }
        } else {
            // Each goes to the front of the due queue, so the last user comes first, to keep the order.
            users.rev().for_each(|user| self.unclaim(ruby, tracker, user, Transition::Offline));
        }
    }

    /// Undoes the claim of a user; the next `deliver` claims the user again.
    pub(super) fn unclaim(&self, ruby: &Ruby, tracker: &LocalTracker, user: User, transition: Transition) {
        if tracker.is_current() && tracker.unclaim(user, transition) == Departed::Offline {
            self.release(ruby, tracker, user.key());
        }
    }
}

/// Returns the [`detail`] of each claimed user.
fn details(ruby: &Ruby, claimed: &[Claimed]) -> Result<RArray, Error> {
    let details = ruby.ary_new_capa(claimed.len());
    for user in claimed {
        details.push(detail(ruby, user.reason, user.lateness)?)?;
    }
    Ok(details)
}

/// Returns how many seconds ago each claimed user was last seen.
fn seen_ago(ruby: &Ruby, claimed: &[Claimed]) -> Result<RArray, Error> {
    let seen_ago = ruby.ary_new_capa(claimed.len());
    for user in claimed {
        seen_ago.push(seconds(user.seen_ago))?;
    }
    Ok(seen_ago)
}

/// Converts nanoseconds to seconds.
pub(crate) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

/// Returns a callback's reason and its lateness in seconds: `[:timeout, 0.004]`. `lateness` is in nanoseconds.
pub(crate) fn detail(ruby: &Ruby, reason: Reason, lateness: Nanos) -> Result<RArray, Error> {
    let name = match reason {
        Reason::Heartbeat => "heartbeat",
        Reason::Timeout => "timeout",
        Reason::Leave => "leave",
        Reason::Stop => "stop",
    };
    #[cfg(feature = "faults")]
    crate::faults::allocate();
    let detail = ruby.ary_new_capa(2);
    detail.push(ruby.to_symbol(name))?;
    detail.push(seconds(lateness))?;
    Ok(detail)
}

/// Returns whether the config's method was entered. A call that returned counts as entered, even if the config has no
/// such method. `entered` is `None` if there was no memory for the Array.
pub(crate) fn is_entered(entered: Option<RArray>, result: &Result<Value, Error>) -> bool {
    result.is_ok() || entered.is_some_and(|entered| !entered.is_empty())
}
