//! Named sessions: their heartbeats, their ends, and which are there.
//!
//! A session id becomes a key as a user id does. Its objects have an index of their own, from which they go when the tracker
//! says that no session has them any more: the same object may name sessions of several users.

use magnus::{Error, RArray, Ruby, Value};
use online_manager_tracker::{Clock, HeartbeatOutcome, Id, Nanos};

use super::{LocalTracker, NativeTracker};
use crate::clock::CoarseClock;
use crate::handle::NativeObject;
use crate::key;
use crate::objects::{Found, Slot};

/// The slots of a user id and of a session id, for those that are objects.
type Slots = (Option<Slot>, Option<Slot>);

impl NativeTracker {
    /// `seen_session(id, session, nanoseconds or nil) -> true`, or false after a stop. The session is not nil.
    pub(super) fn seen_session(
        ruby: &Ruby,
        this: &NativeTracker,
        id: Value,
        session: Value,
        timeout: Option<Nanos>,
    ) -> Result<bool, Error> {
        if !this.ensure_ready(ruby)? {
            return Ok(false);
        }
        let (mut now, timeout) = this.handle.target.now_and_timeout(ruby, timeout)?;
        if let Some(tracker) = this.handle.current() {
            this.release_sessions(ruby, tracker);
        }
        let (user_slot, session_slot) = if key::is_plain(id) && key::is_plain(session) {
            (None, None)
        } else {
            let slots = this.intern_session(ruby, id, session)?;
            // The `hash` of an id may have taken longer than the timeout.
            now = CoarseClock.now();
            slots
        };
        let Some(tracker) = this.handle.current() else {
            // Ruby code that ran above has forked, and this is the child.
            return Self::seen_session(ruby, this, id, session, Some(timeout));
        };
        // SAFETY: no Ruby runs from here to the tracker's call.
        let keys = unsafe { (key_of(user_slot, &id), key_of(session_slot, &session)) };
        let (Some(id_key), Some(session_key)) = keys else {
            // Ruby code that ran above has changed the class or the encoding of a String.
            return Self::seen_session(ruby, this, id, session, Some(timeout));
        };
        let outcome = tracker.session_heartbeat(id_key, session_key, now, timeout);
        if let Some(slot) = session_slot {
            this.release_unless_used(ruby, tracker, slot);
        }
        match outcome {
            HeartbeatOutcome::Known => Ok(true),
            HeartbeatOutcome::Ignored => {
                if let Some(slot) = user_slot {
                    this.release_unless_known(ruby, tracker, slot.key());
                }
                Ok(false)
            }
            HeartbeatOutcome::Announce(user) => this.announce(ruby, tracker, user, id, (now, timeout)).map(|()| true),
        }
    }

    /// `leave_session(id, session or nil, nanoseconds) -> whether that session was there`
    pub(super) fn leave_session(
        ruby: &Ruby,
        this: &NativeTracker,
        id: Value,
        session: Option<Value>,
        after: Nanos,
    ) -> Result<bool, Error> {
        loop {
            let found = match session.filter(|session| !key::is_plain(*session)) {
                Some(session) => match this.session_objects.find(ruby, session)? {
                    Some(found) => Some(found),
                    None => return Ok(false),
                },
                None => None,
            };
            // The user comes last: what it runs may release the session's slot, and that shows.
            let user_slot = match key::is_plain(id) {
                true => None,
                false => match this.objects.find(ruby, id)? {
                    Some(found) => Some(found.slot()),
                    None => return Ok(false),
                },
            };
            if !this.is_current(found) {
                continue;
            }
            let Some(tracker) = this.handle.current() else { return Ok(false) };
            // SAFETY: no Ruby runs from here to the tracker's call.
            let Some(id_key) = (unsafe { key_of(user_slot, &id) }) else { return Ok(false) };
            // SAFETY: as above.
            let session_key = session.as_ref().and_then(|session| unsafe { key_of(found.map(Found::slot), session) });
            if session_key.is_none() && session.is_some() {
                return Ok(false);
            }
            let left = tracker.leave_session(id_key, session_key, after);
            if let Some(user) = left.forgotten {
                this.release(ruby, tracker, user.key());
            }
            return Ok(left.was_there);
        }
    }

    /// `session_ids(id) -> Array`: the sessions that are there, nil for the unnamed one
    pub(super) fn session_ids(ruby: &Ruby, this: &NativeTracker, id: Value) -> Result<RArray, Error> {
        // SAFETY: no Ruby runs until the tracker has used the id.
        let id_key = unsafe { key::find(ruby, &id, &this.objects)? };
        let sessions = match (id_key, this.handle.current()) {
            (Some(id_key), Some(tracker)) => tracker.session_ids(id_key),
            _ => Vec::new(),
        };
        let ids = ruby.ary_new_capa(sessions.len());
        for session in &sessions {
            let id = session.as_ref().map(|session| key::to_value(ruby, session, &this.session_objects));
            ids.push(id)?;
        }
        Ok(ids)
    }
}

impl NativeTracker {
    /// Finds or makes the slots of a user id and of a session id, as far as they are objects. Both are taken when it returns,
    /// and no Ruby has run since. Fails with what the `hash` or `eql?` of an id raises; then neither has a new slot.
    fn intern_session(&self, ruby: &Ruby, id: Value, session: Value) -> Result<Slots, Error> {
        loop {
            let found = match key::is_plain(session) {
                true => None,
                false => Some(self.session_objects.intern(ruby, session).map(|slot| self.session_objects.found(slot))?),
            };
            let user_slot = match key::is_plain(id) {
                true => Ok(None),
                // The user comes last: what it runs may release the session's slot, and that shows.
                false => self.objects.intern(ruby, id).map(Some),
            };
            match user_slot {
                Ok(user_slot) if self.is_current(found) => return Ok((user_slot, found.map(Found::slot))),
                // Another thread has released the session's slot during an `eql?`.
                Ok(Some(slot)) => {
                    if let Some(tracker) = self.handle.current() {
                        self.release_unless_known(ruby, tracker, slot.key());
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    if let (Some(found), Some(tracker)) =
                        (found.filter(|found| self.is_current(Some(*found))), self.handle.current())
                    {
                        self.release_unless_used(ruby, tracker, found.slot());
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Whether a session's slot is still that of the object it was found for.
    fn is_current(&self, found: Option<Found>) -> bool {
        found.is_none_or(|found| self.session_objects.resolve(found).is_some())
    }

    /// Releases the slots of the session ids that no session has any more. Must be called where no id has just been found.
    pub(super) fn release_sessions(&self, ruby: &Ruby, tracker: &LocalTracker) {
        if self.session_objects.is_empty() {
            return;
        }
        for key in tracker.take_released_sessions() {
            self.session_objects.release(ruby, key, |_, _| false);
        }
    }

    /// Releases the slot of a session id unless the tracker knows it.
    fn release_unless_used(&self, ruby: &Ruby, tracker: &LocalTracker, slot: Slot) {
        if !tracker.is_session_key_known(slot.key()) {
            self.session_objects.release(ruby, slot.key(), |_, _| false);
        }
    }
}

/// Returns the id of a value that has a slot, or is plain.
///
/// # Safety
///
/// As for [`key::plain_id`].
unsafe fn key_of<'a>(slot: Option<Slot>, value: &'a Value) -> Option<Id<'a>> {
    match slot {
        Some(slot) => Some(Id::Key(slot.key())),
        // SAFETY: as the caller promises.
        None => unsafe { key::plain_id(value) },
    }
}
