//! The class `OnlineManager::NativeTracker`: one manager's tracker, for Ruby.
//!
//! It is private to the gem; `lib/online_manager.rb` documents the public methods. All methods may be called on any
//! Ruby thread and in a trap handler: they take no lock that Ruby code could hold.
//!
//! A callback takes three steps: the tracker hands out a user, the callback target is called with no lock held, and the
//! outcome is reported to the tracker. An exception comes back as an `Err`, and is raised again once the Rust method is
//! done.

mod deliver;
mod seen_all;
mod sessions;

use std::io;

use magnus::rb_sys::AsRawValue;
use magnus::typed_data::Obj;
use magnus::value::LazyId;
use magnus::{DataTypeFunctions, Error, Object as _, RArray, RHash, Ruby, TypedData, Value, gc, method, prelude::*};
use online_manager_tracker::invariant::violations;
use online_manager_tracker::{Announced, CallbackOutcome, Clock, HeartbeatOutcome, Id, Nanos, Reason, Tracker, User};

pub(crate) use self::deliver::{detail, is_entered, seconds};
use crate::clock::CoarseClock;
use crate::handle::{Handle, NativeObject};
use crate::key;
use crate::objects::{Objects, Slot};
use crate::pipe::SharedPipe;
use crate::process_local::{Inherited, ProcessValue};

static ONLINE: LazyId = LazyId::new("online");
static ONLINE_ALL: LazyId = LazyId::new("online_all");
static OFFLINE: LazyId = LazyId::new("offline");

type CoarseTracker = Tracker<CoarseClock, SharedPipe>;
type LocalTracker = ProcessValue<CoarseTracker>;

/// One manager's tracker, in this process and in those forked from it.
#[derive(TypedData)]
#[magnus(class = "OnlineManager::NativeTracker", mark, free_immediately)]
pub(crate) struct NativeTracker {
    handle: Handle<CoarseTracker>,
    /// The objects that are user ids, and those that are session ids.
    objects: Objects,
    session_objects: Objects,
    max_sessions: usize,
}

impl Inherited for CoarseTracker {
    fn abandon(self) {
        self.abandon_in_child();
    }
}

impl NativeObject for NativeTracker {
    type Local = CoarseTracker;

    #[inline]
    fn handle(&self) -> &Handle<CoarseTracker> {
        &self.handle
    }

    /// First does everything that may call Ruby, then calls the tracker. No Ruby runs between the two,
    /// so no other thread can change the string or release the slot.
    #[inline]
    fn record_heartbeat(&self, ruby: &Ruby, id: Value, timeout: Option<Nanos>) -> Result<bool, Error> {
        if !self.ensure_ready(ruby)? {
            return Ok(false);
        }
        let (mut now, timeout) = self.handle.target.now_and_timeout(ruby, timeout)?;
        // SAFETY: from here to the tracker's call, Ruby runs only if there is no plain id.
        let id_key = match unsafe { key::plain_id(&id) } {
            Some(id_key) => id_key,
            None => {
                let id_key = Id::Key(self.objects.intern(ruby, id)?.key());
                // The id's `hash` may have taken longer than the timeout.
                now = CoarseClock.now();
                id_key
            }
        };
        let Some(tracker) = self.handle.current() else {
            // Ruby code that ran above has forked, and this is the child.
            return self.record_heartbeat(ruby, id, Some(timeout));
        };
        match tracker.heartbeat(id_key, now, timeout) {
            HeartbeatOutcome::Known => Ok(true),
            HeartbeatOutcome::Ignored => {
                if let Id::Key(key) = id_key {
                    self.release_unless_known(ruby, tracker, key);
                }
                Ok(false)
            }
            HeartbeatOutcome::Announce(user) => self.announce(ruby, tracker, user, id, (now, timeout)).map(|()| true),
        }
    }

    fn create(&self, ruby: &Ruby, pipe: SharedPipe) -> io::Result<CoarseTracker> {
        // The ids are those of the process that this one was forked from.
        self.objects.clear(ruby);
        self.session_objects.clear(ruby);
        let tracker = Tracker::start(CoarseClock, pipe)?;
        tracker.set_max_sessions(self.max_sessions);
        tracker.count_session_keys(|key| Slot::of_key(key).is_some());
        Ok(tracker)
    }

    fn wake_local(tracker: &CoarseTracker) {
        tracker.wake_reactor();
    }

    /// Bars new users, and makes all users due.
    fn stop_local(&self, ruby: &Ruby, tracker: &CoarseTracker) {
        for user in tracker.stop() {
            self.release(ruby, tracker, user.key());
        }
    }
}

impl DataTypeFunctions for NativeTracker {
    fn mark(&self, marker: &gc::Marker) {
        self.handle.mark(marker);
        marker.mark(self.objects.array());
        marker.mark(self.session_objects.array());
    }
}

/// Defines the class.
pub(crate) fn init(ruby: &Ruby) -> Result<(), Error> {
    let manager = ruby.define_class("OnlineManager", ruby.class_object())?;
    let class = manager.define_class("NativeTracker", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("new", magnus::function!(NativeTracker::new, 2))?;
    class.define_method("heartbeat", method!(NativeTracker::heartbeat, 0))?;
    class.define_method("seen", method!(NativeTracker::seen, 1))?;
    class.define_method("seen_for", method!(NativeTracker::seen_for, 2))?;
    class.define_method("seen_all", method!(NativeTracker::seen_all, 3))?;
    class.define_method("seen_session", method!(NativeTracker::seen_session, 3))?;
    class.define_method("leave", method!(NativeTracker::leave, 2))?;
    class.define_method("leave_session", method!(NativeTracker::leave_session, 3))?;
    class.define_method("session_ids", method!(NativeTracker::session_ids, 1))?;
    class.define_method("online?", method!(NativeTracker::is_online, 1))?;
    class.define_method("online_users", method!(NativeTracker::online_users, 0))?;
    class.define_method("size", method!(NativeTracker::size, 0))?;
    class.define_method("last_seen", method!(NativeTracker::last_seen, 1))?;
    class.define_method("counts", method!(NativeTracker::counts, 0))?;
    class.define_method("deliver", method!(NativeTracker::deliver, 4))?;
    class.define_method("pipe", method!(NativeTracker::pipe, 0))?;
    class.define_method("wake", method!(NativeTracker::wake, 0))?;
    class.define_method("stop", method!(NativeTracker::stop, 0))?;
    Ok(())
}

impl NativeTracker {
    /// `NativeTracker.new(target, max_sessions)`: the target is an `OnlineManager::Delivery`
    fn new(ruby: &Ruby, target: Value, max_sessions: usize) -> Result<Obj<NativeTracker>, Error> {
        let (ids, session_ids) = (ruby.ary_new(), ruby.ary_new());
        let native = NativeTracker {
            handle: Handle::new(target),
            objects: Objects::new(ids),
            session_objects: Objects::new(session_ids),
            max_sessions,
        };
        let native = native.wrap(ruby);
        // Until the object is made, the garbage collector finds the Arrays only on the stack.
        let (ids, session_ids) = (ids.as_raw(), session_ids.as_raw());
        rb_sys::rb_gc_guard!(ids);
        rb_sys::rb_gc_guard!(session_ids);
        native
    }

    /// Calls `online` for a new user, whose heartbeat came at `seen_at`, and reports the outcome.
    #[cold]
    fn announce(
        &self,
        ruby: &Ruby,
        tracker: &LocalTracker,
        user: User,
        id: Value,
        (seen_at, timeout): (Nanos, Nanos),
    ) -> Result<(), Error> {
        let seen_ago = seconds(tracker.now().saturating_sub(seen_at));
        let online = self.handle.target.call(ruby, &ONLINE, || Ok((id, seen_ago)));
        self.announced(ruby, tracker, user, || id, timeout, outcome(&online))?;
        online.map(|_| ())
    }

    /// Reports the outcome of an `online` of the user whose id `id` returns. Calls `offline` if the manager was stopped during `online` (rule 12).
    fn announced(
        &self,
        ruby: &Ruby,
        tracker: &LocalTracker,
        user: User,
        id: impl FnOnce() -> Value,
        timeout: Nanos,
        outcome: CallbackOutcome,
    ) -> Result<(), Error> {
        if !tracker.is_current() {
            // `online` has forked, and this is the child, which knows nobody.
            return Ok(());
        }
        match tracker.announced(user, timeout, outcome) {
            Announced::Online => Ok(()),
            Announced::Offline => {
                self.release(ruby, tracker, user.key());
                Ok(())
            }
            Announced::Depart => {
                let seen_at = tracker.last_seen_in_callback(user);
                let seen_ago = seconds(seen_at.map_or(0, |seen_at| tracker.now().saturating_sub(seen_at)));
                let mut entered = None;
                let offline = self.handle.target.call(ruby, &OFFLINE, || {
                    let entered = *entered.insert(ruby.ary_new());
                    let details = ruby.ary_new_from_values(&[detail(ruby, Reason::Stop, 0)?]);
                    let seen_ago = ruby.ary_new_from_values(&[ruby.into_value(seen_ago)]);
                    Ok((id(), entered, details, seen_ago))
                });
                self.departed(ruby, tracker, [user], is_entered(entered, &offline));
                offline.map(|_| ())
            }
        }
    }

    /// `leave(id, nanoseconds) -> whether the user was online`
    fn leave(ruby: &Ruby, this: &NativeTracker, id: Value, after: Nanos) -> Result<bool, Error> {
        // SAFETY: no Ruby runs until the tracker has used the id.
        let Some(id_key) = (unsafe { key::find(ruby, &id, &this.objects)? }) else { return Ok(false) };
        let Some(tracker) = this.handle.current() else { return Ok(false) };
        let left = tracker.leave(id_key, after);
        if let Some(user) = left.forgotten {
            this.release(ruby, tracker, user.key());
        }
        Ok(left.was_online)
    }

    /// `online?(id) -> true or false`
    fn is_online(ruby: &Ruby, this: &NativeTracker, id: Value) -> Result<bool, Error> {
        // SAFETY: no Ruby runs until the tracker has used the id.
        let Some(id_key) = (unsafe { key::find(ruby, &id, &this.objects)? }) else { return Ok(false) };
        Ok(this.handle.current().is_some_and(|tracker| tracker.is_online(id_key)))
    }

    /// `last_seen(id) -> Float`: seconds since the user's latest heartbeat, or nil if the user is offline
    fn last_seen(ruby: &Ruby, this: &NativeTracker, id: Value) -> Result<Option<f64>, Error> {
        // SAFETY: no Ruby runs until the tracker has used the id.
        let Some(id_key) = (unsafe { key::find(ruby, &id, &this.objects)? }) else { return Ok(None) };
        let Some(tracker) = this.handle.current() else { return Ok(None) };
        let seen = tracker.last_seen(id_key);
        Ok(seen.map(|seen| tracker.now().saturating_sub(seen) as f64 / 1e9))
    }

    /// `online_users -> Array`: the ids, in no order
    fn online_users(ruby: &Ruby, this: &NativeTracker) -> Result<RArray, Error> {
        let ids = this.handle.current().map(|tracker| tracker.online_users()).unwrap_or_default();
        let users = ruby.ary_new_capa(ids.len());
        for id in &ids {
            users.push(key::to_value(ruby, id, &this.objects))?;
        }
        Ok(users)
    }

    /// `size -> Integer`: how many users are online
    fn size(this: &NativeTracker) -> usize {
        this.handle.current().map_or(0, |tracker| tracker.counts().present)
    }

    /// `counts -> Hash`: how many users are `:online`, how many are in an `online` (`:announcing`) or in an `offline`
    /// (`:departing`), and how many are `:due`. How many `:sessions` the users online have. And `:internal_errors`: how many
    /// bugs of the gem this process has noticed
    fn counts(ruby: &Ruby, this: &NativeTracker) -> Result<RHash, Error> {
        let counts = this.handle.current().map(|tracker| tracker.counts()).unwrap_or_default();
        let hash = ruby.hash_new();
        hash.aset(ruby.to_symbol("online"), counts.present)?;
        hash.aset(ruby.to_symbol("announcing"), counts.announcing)?;
        hash.aset(ruby.to_symbol("departing"), counts.departing)?;
        hash.aset(ruby.to_symbol("due"), counts.due)?;
        hash.aset(ruby.to_symbol("sessions"), counts.sessions)?;
        let panics = this.handle.current().map_or(0, |tracker| tracker.timer_panics());
        hash.aset(ruby.to_symbol("internal_errors"), violations() + panics)?;
        Ok(hash)
    }

    /// Releases the slot of an id, if it has one, because the user is forgotten. Must be called before Ruby runs again.
    fn release(&self, ruby: &Ruby, tracker: &CoarseTracker, key: u64) {
        self.objects.release(ruby, key, |old, new| tracker.rekey(old, new));
    }

    /// Releases the slot of an id whose heartbeat was ignored, unless the tracker knows the user from before.
    #[cold]
    fn release_unless_known(&self, ruby: &Ruby, tracker: &LocalTracker, key: u64) {
        if !tracker.is_known(Id::Key(key)) {
            self.release(ruby, tracker, key);
        }
    }
}

fn outcome(result: &Result<Value, Error>) -> CallbackOutcome {
    if result.is_ok() { CallbackOutcome::Returned } else { CallbackOutcome::Aborted }
}
