//! `seen_all`: heartbeats of many users in one call, for few takings of the lock.

use magnus::value::ReprValue;
use magnus::{Error, RArray, Ruby, Value};
use online_manager_tracker::presence::Presence;
use online_manager_tracker::{
    Announced, CallbackOutcome, Clock, HeartbeatBatch, HeartbeatOutcome, Id, Nanos, Signal, Transition, User,
};

use super::{LocalTracker, Native, ONLINE_ALL, outcome};
use crate::clock::CoarseClock;
use crate::key;
use crate::objects::Found;

/// How many heartbeats are taken before the lock is let go of.
const BATCH_SIZE: usize = 256;

/// A user who is new, and the place of its id.
type Arrival = (User, usize);

/// The ids as they came.
///
/// They are asked for by their place: whatever calls Ruby may bring a compaction, which moves ids and tells the Array,
/// but nothing that Rust has put on its heap. The Array's own memory may be another one afterwards, too.
struct Ids(RArray);

impl Ids {
    /// A copy, since Ruby code that runs later could change the original.
    fn new(ids: RArray) -> Ids {
        Ids(ids.dup())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// The id at a place, or nil beyond the end.
    fn at(&self, ruby: &Ruby, place: usize) -> Value {
        self.from(place).first().copied().unwrap_or_else(|| ruby.qnil().as_value())
    }

    /// Those from a place on. Ruby must not run while the answer is in use.
    fn from(&self, place: usize) -> &[Value] {
        // SAFETY: nobody else knows the copy, so it does not change. It does not die, since `self` is on the stack.
        unsafe { self.0.as_slice() }.get(place..).unwrap_or_default()
    }
}

/// The heartbeats of a group of `Presence::PREFETCH_BATCH` at the most, up to the first who is not plain. Answers how many those are,
/// and whether all were taken. `place` is that of the first.
fn heartbeat_plain<C: Clock, S: Signal>(
    heartbeats: &mut HeartbeatBatch<'_, C, S>,
    group: &[Value],
    place: usize,
    arrivals: &mut Vec<Arrival>,
) -> (usize, bool) {
    let mut keys = [Id::Key(0); Presence::PREFETCH_BATCH];
    let mut plain = 0;
    for (id_key, key) in group.iter().map_while(key::plain).zip(&mut keys) {
        heartbeats.prefetch(id_key);
        *key = id_key;
        plain += 1;
    }
    let mut taken = true;
    for (id_key, place) in keys.iter().take(plain).zip(place..) {
        match heartbeats.heartbeat(*id_key) {
            HeartbeatOutcome::Known => {}
            HeartbeatOutcome::Ignored => taken = false,
            HeartbeatOutcome::Announce(user) => arrivals.push((user, place)),
        }
    }
    (plain, taken)
}

impl Native {
    /// `seen_all(ids, together, nanoseconds or nil)`: with `together`, those who are new go into one `online_all`.
    pub(super) fn seen_all(
        ruby: &Ruby,
        this: &Native,
        ids: RArray,
        together: bool,
        timeout: Option<Nanos>,
    ) -> Result<bool, Error> {
        if !this.target.is_ready() && !this.become_ready(ruby)? {
            return Ok(false);
        }
        let ids = Ids::new(ids);
        let mut found = Vec::new();
        for place in 0..ids.len() {
            let id = ids.at(ruby, place);
            if key::plain(&id).is_none() {
                // Whatever an id's `hash` raises, it raises before anybody's state has changed.
                found.push((place, this.objects.find(ruby, id)?));
            }
        }
        let (_, timeout) = this.target.now_and_timeout(ruby, timeout)?;
        let Some(era) = this.eras.current() else {
            // Ruby code that ran above has forked, and this is the child.
            return Self::seen_all(ruby, this, ids.0, together, Some(timeout));
        };

        let mut arrivals = Vec::new();
        let mut taken = true;
        let mut result = Ok(());
        let mut place = 0;
        while place < ids.len() {
            let first = ids.at(ruby, place);
            if key::plain(&first).is_none() {
                // By its place: the `hash` of one may have changed which others are plain.
                let index = found.partition_point(|(before, _)| *before < place);
                let found = found.get(index).filter(|(same, _)| *same == place).and_then(|(_, found)| *found);
                result = this
                    .heartbeat_object(ruby, era, (first, found), place, timeout, &mut arrivals)
                    .map(|known| taken &= known);
                if !era.is_current() {
                    return Self::seen_all(ruby, this, ids.0, together, Some(timeout));
                }
                if result.is_err() {
                    break;
                }
                place += 1;
            } else {
                // Each time, since the `hash` of an id before these may have taken longer than the timeout.
                let mut heartbeats = era.tracker().heartbeat_batch(CoarseClock.now(), timeout);
                // No Ruby in here: the lock is held.
                for group in
                    ids.from(place).chunks(Presence::PREFETCH_BATCH).take(BATCH_SIZE / Presence::PREFETCH_BATCH)
                {
                    let (beaten, all_taken) = heartbeat_plain(&mut heartbeats, group, place, &mut arrivals);
                    place += beaten;
                    taken &= all_taken;
                    if beaten < group.len() {
                        break;
                    }
                }
            }
        }

        let mut arrivals = arrivals.into_iter();
        if result.is_ok() && arrivals.len() > 0 {
            result = if together {
                this.announce_together(ruby, era, &ids, &mut arrivals, timeout)
            } else {
                this.announce_in_turn(ruby, era, &ids, &mut arrivals, timeout)
            };
        }
        // Whoever has not been announced is offline, as if the error had been theirs.
        for (user, _) in arrivals {
            if era.is_current()
                && era.tracker().announced(user, timeout, CallbackOutcome::Aborted) == Announced::Offline
            {
                this.objects.release(ruby, user.key());
            }
        }
        result.map(|()| taken)
    }

    /// The heartbeat of one whose id has to be asked for its `hash`, and may have been found. Answers whether it was taken.
    fn heartbeat_object(
        &self,
        ruby: &Ruby,
        era: &LocalTracker,
        (id, found): (Value, Option<Found>),
        place: usize,
        timeout: Nanos,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<bool, Error> {
        let slot = match found.and_then(|found| self.objects.still(found)) {
            Some(slot) => slot,
            // It is new, or another thread has given its slot back meanwhile.
            None => self.objects.intern(ruby, id)?,
        };
        if !era.is_current() {
            return Ok(false);
        }
        match era.tracker().heartbeat(Id::Key(slot.key()), CoarseClock.now(), timeout) {
            HeartbeatOutcome::Known => Ok(true),
            HeartbeatOutcome::Ignored => {
                self.release_unless_known(ruby, era, slot.key());
                Ok(false)
            }
            HeartbeatOutcome::Announce(user) => {
                arrivals.push((user, place));
                Ok(true)
            }
        }
    }

    fn announce_in_turn(
        &self,
        ruby: &Ruby,
        era: &LocalTracker,
        ids: &Ids,
        arrivals: &mut std::vec::IntoIter<Arrival>,
        timeout: Nanos,
    ) -> Result<(), Error> {
        arrivals.try_for_each(|(user, place)| self.announce(ruby, era, user, ids.at(ruby, place), timeout))
    }

    fn announce_together(
        &self,
        ruby: &Ruby,
        era: &LocalTracker,
        ids: &Ids,
        arrivals: &mut std::vec::IntoIter<Arrival>,
        timeout: Nanos,
    ) -> Result<(), Error> {
        let new = ruby.ary_new_capa(arrivals.len());
        for (_, place) in arrivals.as_slice() {
            new.push(ids.at(ruby, *place))?;
        }
        let online = self.target.call(ruby, &ONLINE_ALL, (new,));
        let outcome = outcome(&online);
        let mut result = online.map(|_| ());
        for (user, place) in arrivals {
            if result.is_ok() {
                result = self.announced(ruby, era, user, ids.at(ruby, place), timeout, outcome);
            } else if era.is_current() {
                // With an error on its way no Ruby may run: who has to be set offline is left to the reactor.
                match era.tracker().announced(user, timeout, outcome) {
                    Announced::Online => {}
                    Announced::Offline => self.objects.release(ruby, user.key()),
                    Announced::Depart => self.unclaim(ruby, era, user, Transition::Offline),
                }
            }
        }
        result
    }
}
