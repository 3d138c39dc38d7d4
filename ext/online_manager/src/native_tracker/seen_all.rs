//! `seen_all`: heartbeats of many users in one call. It takes the tracker's lock once for a few hundred users.

use std::vec;

use magnus::value::ReprValue;
use magnus::{Error, RArray, Ruby, Value};
use online_manager_tracker::invariant::violated;
use online_manager_tracker::presence::Presence;
use online_manager_tracker::{
    Announced, CallbackOutcome, Clock, HeartbeatBatch, HeartbeatOutcome, Id, Nanos, Signal, Transition, User,
};

use super::{LocalTracker, NativeTracker, ONLINE_ALL, outcome, seconds};
use crate::clock::CoarseClock;
use crate::handle::NativeObject;
use crate::key;
use crate::objects::{Found, Slot};

/// The most heartbeats that are recorded before the lock is released: other threads wait for it meanwhile.
const BATCH_SIZE: usize = 256;

/// A user who is new, and the place of its id.
type Arrival = (User, usize);

impl NativeTracker {
    /// `seen_all(ids, together, nanoseconds or nil) -> true`, or false after a stop. With `together`, all users who are
    /// new go into one `online_all`.
    pub(super) fn seen_all(
        ruby: &Ruby,
        this: &NativeTracker,
        ids: RArray,
        together: bool,
        timeout: Option<Nanos>,
    ) -> Result<bool, Error> {
        if !this.ensure_ready(ruby)? {
            return Ok(false);
        }
        let ids = Ids::new(ids);
        let found = this.find_objects(ruby, &ids)?;
        let (seen_at, timeout) = this.handle.target.now_and_timeout(ruby, timeout)?;
        let Some(tracker) = this.handle.current() else {
            // Ruby code that ran above has forked, and this is the child.
            return Self::seen_all(ruby, this, ids.0, together, Some(timeout));
        };
        let mut call = SeenAll {
            ruby,
            native: this,
            tracker,
            ids,
            seen_at,
            timeout,
            place: 0,
            arrivals: Vec::new(),
            all_recorded: true,
        };
        let recorded = call.record(&found);
        if !tracker.is_current() {
            // The `hash` of an id has forked, and this is the child.
            return Self::seen_all(ruby, this, call.ids.0, together, Some(timeout));
        }
        let mut arrivals = std::mem::take(&mut call.arrivals).into_iter();
        let announced = recorded.and_then(|()| call.announce(&mut arrivals, together));
        call.abort(arrivals);
        announced.map(|()| call.all_recorded)
    }

    /// Finds the slots of the ids that are not plain, by their places. Comes before any heartbeat is recorded: what an
    /// id's `hash` raises, it raises here, before anybody's state has changed.
    fn find_objects(&self, ruby: &Ruby, ids: &Ids) -> Result<Vec<(usize, Option<Found>)>, Error> {
        let mut found = Vec::new();
        for place in 0..ids.len() {
            let id = ids.at(ruby, place);
            if !key::is_plain(id) {
                found.push((place, self.objects.find(ruby, id)?));
            }
        }
        Ok(found)
    }
}

/// The ids of one call, addressed by their places.
///
/// Whatever calls Ruby may bring a compaction, which moves ids and updates the Array, but nothing on Rust's heap. The
/// Array may have other memory afterwards, too.
struct Ids(RArray);

impl Ids {
    /// Copies the Array, since Ruby code that runs later could change the original.
    fn new(ids: RArray) -> Ids {
        Ids(ids.dup())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the id at a place, or nil beyond the end.
    fn at(&self, ruby: &Ruby, place: usize) -> Value {
        // SAFETY: the id is copied out before Ruby runs again.
        let id = unsafe { self.from(place) }.first().copied();
        id.unwrap_or_else(|| {
            violated("each place is one of the Array of ids");
            ruby.qnil().as_value()
        })
    }

    /// Returns the ids from a place on.
    ///
    /// # Safety
    ///
    /// Ruby must not run while the slice is in use.
    unsafe fn from(&self, place: usize) -> &[Value] {
        // SAFETY: nobody else knows the copy, so it does not change while Ruby does not run, which the caller promises.
        // It is not collected, since `self` is on the stack.
        unsafe { self.0.as_slice() }.get(place..).unwrap_or_default()
    }
}

/// One call of `seen_all`, in the process that created `tracker`.
struct SeenAll<'a> {
    ruby: &'a Ruby,
    native: &'a NativeTracker,
    tracker: &'a LocalTracker,
    ids: Ids,
    /// When the heartbeats came, for `online`.
    seen_at: Nanos,
    timeout: Nanos,
    /// The place of the next id to be recorded.
    place: usize,
    arrivals: Vec<Arrival>,
    /// False once the tracker has ignored a heartbeat: there was a stop.
    all_recorded: bool,
}

impl SeenAll<'_> {
    /// Records all heartbeats. Returns early at an error, or when an id's `hash` has forked and this is the child.
    fn record(&mut self, found: &[(usize, Option<Found>)]) -> Result<(), Error> {
        while self.place < self.ids.len() {
            let id = self.ids.at(self.ruby, self.place);
            if key::is_plain(id) {
                self.record_plain();
                continue;
            }
            // By its place: the `hash` of one id may have changed which others are plain.
            let index = found.partition_point(|(place, _)| *place < self.place);
            let found = found.get(index).filter(|(place, _)| *place == self.place).and_then(|(_, found)| *found);
            let recorded = self.record_object(id, found);
            if !self.tracker.is_current() {
                return Ok(());
            }
            recorded?;
        }
        Ok(())
    }

    /// Records up to `BATCH_SIZE` heartbeats under one lock, up to the first id that is not plain.
    fn record_plain(&mut self) {
        // The clock is read for each batch: the `hash` of an earlier id may have taken longer than the timeout.
        let mut heartbeats = self.tracker.heartbeat_batch(CoarseClock.now(), self.timeout);
        // SAFETY: no Ruby runs until the end, since the lock is held.
        let ids = unsafe { self.ids.from(self.place) };
        for group in ids.chunks(Presence::PREFETCH_BATCH).take(BATCH_SIZE / Presence::PREFETCH_BATCH) {
            // SAFETY: as above.
            let recorded = unsafe { record_group(&mut heartbeats, group, self.place, &mut self.arrivals) };
            let (plain, all_recorded) = recorded;
            self.place += plain;
            self.all_recorded &= all_recorded;
            if plain < group.len() {
                break;
            }
        }
    }

    /// Records the heartbeat of the id at `place`, which is not plain. `found` is its slot, if it had one.
    fn record_object(&mut self, id: Value, found: Option<Found>) -> Result<(), Error> {
        let slot = self.slot(id, found)?;
        if !self.tracker.is_current() {
            return Ok(());
        }
        match self.tracker.heartbeat(Id::Key(slot.key()), CoarseClock.now(), self.timeout) {
            HeartbeatOutcome::Known => {}
            HeartbeatOutcome::Ignored => {
                self.native.release_unless_known(self.ruby, self.tracker, slot.key());
                self.all_recorded = false;
            }
            HeartbeatOutcome::Announce(user) => self.arrivals.push((user, self.place)),
        }
        self.place += 1;
        Ok(())
    }

    /// Returns the slot that was found, or a new one if there was none, or if another thread has released it meanwhile.
    fn slot(&self, id: Value, found: Option<Found>) -> Result<Slot, Error> {
        match found.and_then(|found| self.native.objects.resolve(found)) {
            Some(slot) => Ok(slot),
            None => self.native.objects.intern(self.ruby, id),
        }
    }

    /// Calls `online_all` or each `online`. Leaves in `arrivals` those whose end is still to be reported.
    fn announce(&self, arrivals: &mut vec::IntoIter<Arrival>, together: bool) -> Result<(), Error> {
        if together && arrivals.len() > 0 {
            return self.announce_together(arrivals);
        }
        arrivals.try_for_each(|(user, place)| {
            let id = self.ids.at(self.ruby, place);
            self.native.announce(self.ruby, self.tracker, user, id, (self.seen_at, self.timeout))
        })
    }

    fn announce_together(&self, arrivals: &mut vec::IntoIter<Arrival>) -> Result<(), Error> {
        let seen_ago = seconds(self.tracker.now().saturating_sub(self.seen_at));
        let online = self.native.handle.target.call(self.ruby, &ONLINE_ALL, || {
            let ids = self.ruby.ary_new_capa(arrivals.len());
            for (_, place) in arrivals.as_slice() {
                ids.push(self.ids.at(self.ruby, *place))?;
            }
            Ok((ids, seen_ago))
        });
        let outcome = outcome(&online);
        let mut result = online.map(|_| ());
        for (user, place) in arrivals {
            if result.is_ok() {
                let id = self.ids.at(self.ruby, place);
                result = self.native.announced(self.ruby, self.tracker, user, || id, self.timeout, outcome);
            } else {
                self.announced_quietly(user, outcome);
            }
        }
        result
    }

    /// Has users who were not announced be offline, as if `online` had raised for each of them.
    fn abort(&self, arrivals: vec::IntoIter<Arrival>) {
        arrivals.for_each(|(user, _)| self.announced_quietly(user, CallbackOutcome::Aborted));
    }

    /// Reports the end of an `online` while an error is on its way, when no Ruby may run: the reactor calls the
    /// `offline` that is due after a stop.
    fn announced_quietly(&self, user: User, outcome: CallbackOutcome) {
        if !self.tracker.is_current() {
            return;
        }
        match self.tracker.announced(user, self.timeout, outcome) {
            Announced::Online => {}
            Announced::Offline => self.native.release(self.ruby, self.tracker, user.key()),
            Announced::Depart => self.native.unclaim(self.ruby, self.tracker, user, Transition::Offline),
        }
    }
}

/// Records the heartbeats of a group of ids, `Presence::PREFETCH_BATCH` at most, up to the first that is not plain.
/// `place` is that of the first. Returns how many are plain, and whether all of those were recorded.
///
/// # Safety
///
/// The ids must be live objects. (No Ruby runs in this function.)
unsafe fn record_group<C: Clock, S: Signal>(
    heartbeats: &mut HeartbeatBatch<'_, C, S>,
    group: &[Value],
    place: usize,
    arrivals: &mut Vec<Arrival>,
) -> (usize, bool) {
    let mut ids = [Id::Key(0); Presence::PREFETCH_BATCH];
    let mut plain = 0;
    // SAFETY: no Ruby runs until the last use of `ids`.
    let plain_ids = group.iter().map_while(|id| unsafe { key::plain_id(id) });
    for (id, prefetched) in plain_ids.zip(&mut ids) {
        heartbeats.prefetch(id);
        *prefetched = id;
        plain += 1;
    }
    let mut all_recorded = true;
    for (id, place) in ids.iter().take(plain).zip(place..) {
        match heartbeats.heartbeat(*id) {
            HeartbeatOutcome::Known => {}
            HeartbeatOutcome::Ignored => all_recorded = false,
            HeartbeatOutcome::Announce(user) => arrivals.push((user, place)),
        }
    }
    (plain, all_recorded)
}
