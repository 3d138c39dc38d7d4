//! `seen_all`: heartbeats of many users in one call, for few takings of the lock.

use std::sync::atomic::Ordering;

use magnus::{Error, RArray, Ruby, Value};
use online_manager_tracker::{Announced, Beat, Clock, Nanos, Outcome, Transition, User};

use super::{Native, ONLINE_ALL, outcome};
use crate::clock::CoarseClock;
use crate::era::{Era, generation};
use crate::key;

/// How many heartbeats are taken before the lock is let go of.
const AT_ONCE: usize = 256;

/// A user who is new, and its id.
type Arrival = (User, Value);

impl Native {
    /// `seen_all(ids, together, nanoseconds or nil)`: with `together`, those who are new go into one `online_all`.
    pub(super) fn seen_all(
        ruby: &Ruby,
        this: &Native,
        ids: RArray,
        together: bool,
        timeout: Option<Nanos>,
    ) -> Result<bool, Error> {
        if this.ready.load(Ordering::Relaxed) != generation() && !this.become_ready(ruby)? {
            return Ok(false);
        }
        // A copy, since Ruby code that runs below could change the original.
        let copy = ids.dup();
        // SAFETY: nobody else knows the copy, so it does not change, and it is on the stack, so it does not die.
        let ids = unsafe { copy.as_slice() };
        for id in ids.iter().filter(|id| key::plain(id).is_none()) {
            // Whatever an id's `hash` raises, it raises before anybody's state has changed.
            key::find(ruby, id, &this.objects)?;
        }
        let (_, timeout) = this.now_and_timeout(ruby, timeout)?;
        let Some(era) = this.eras.current() else {
            // Ruby code that ran above has forked, and this is the child.
            return Self::seen_all(ruby, this, copy, together, Some(timeout));
        };

        let mut arrivals = Vec::new();
        let mut taken = true;
        let mut result = Ok(());
        let mut rest = ids;
        while let Some(first) = rest.first() {
            if key::plain(first).is_none() {
                result = this.beat_object(ruby, era, *first, timeout, &mut arrivals).map(|known| taken &= known);
                if !era.is_current() {
                    return Self::seen_all(ruby, this, copy, together, Some(timeout));
                }
                if result.is_err() {
                    break;
                }
                rest = rest.get(1..).unwrap_or_default();
            } else {
                // Each time, since the `hash` of an id before these may have taken longer than the timeout.
                let mut heartbeats = era.tracker().heartbeats(CoarseClock.now(), timeout);
                let mut count = 0;
                // No Ruby in here: the lock is held.
                for (id, id_key) in rest.iter().take(AT_ONCE).map_while(|id| Some((id, key::plain(id)?))) {
                    match heartbeats.heartbeat(id_key) {
                        Beat::Known => {}
                        Beat::Ignored => taken = false,
                        Beat::Announce(user) => arrivals.push((user, *id)),
                    }
                    count += 1;
                }
                rest = rest.get(count..).unwrap_or_default();
            }
        }

        let mut arrivals = arrivals.into_iter();
        if result.is_ok() && arrivals.len() > 0 {
            result = if together {
                this.announce_together(ruby, era, &mut arrivals, timeout)
            } else {
                this.announce_in_turn(ruby, era, &mut arrivals, timeout)
            };
        }
        // Whoever has not been announced is offline, as if the error had been theirs.
        for (user, _) in arrivals {
            if era.is_current() && era.tracker().announced(user, timeout, Outcome::Cut) == Announced::Offline {
                this.objects.release(ruby, user.word());
            }
        }
        result.map(|()| taken)
    }

    /// The heartbeat of one whose id has to be asked for its `hash`. Answers whether it was taken.
    fn beat_object(
        &self,
        ruby: &Ruby,
        era: &Era,
        id: Value,
        timeout: Nanos,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<bool, Error> {
        // Interned again, and not kept from before: another thread may have given the slot back meanwhile.
        let id_key = key::intern(ruby, &id, &self.objects)?;
        if !era.is_current() {
            return Ok(false);
        }
        match era.tracker().heartbeat(id_key, CoarseClock.now(), timeout) {
            Beat::Known => Ok(true),
            Beat::Ignored => {
                self.release_unless_known(ruby, era, id_key);
                Ok(false)
            }
            Beat::Announce(user) => {
                arrivals.push((user, id));
                Ok(true)
            }
        }
    }

    fn announce_in_turn(
        &self,
        ruby: &Ruby,
        era: &Era,
        arrivals: &mut std::vec::IntoIter<Arrival>,
        timeout: Nanos,
    ) -> Result<(), Error> {
        arrivals.try_for_each(|(user, id)| self.announce(ruby, era, user, id, timeout))
    }

    fn announce_together(
        &self,
        ruby: &Ruby,
        era: &Era,
        arrivals: &mut std::vec::IntoIter<Arrival>,
        timeout: Nanos,
    ) -> Result<(), Error> {
        let ids = ruby.ary_new_capa(arrivals.len());
        for (_, id) in arrivals.as_slice() {
            ids.push(*id)?;
        }
        let online = self.call(ruby, &ONLINE_ALL, (ids,));
        let outcome = outcome(&online);
        let mut result = online.map(|_| ());
        for (user, id) in arrivals {
            if result.is_ok() {
                result = self.announced(ruby, era, user, id, timeout, outcome);
            } else if era.is_current() {
                // With an error on its way no Ruby may run: who has to be set offline is left to the reactor.
                match era.tracker().announced(user, timeout, outcome) {
                    Announced::Online => {}
                    Announced::Offline => self.objects.release(ruby, user.word()),
                    Announced::Depart => self.unclaim(ruby, era, user, Transition::Offline),
                }
            }
        }
        result
    }
}
