//! The class `OnlineManager::Shared`: one manager's part in a store that several processes share, as Ruby sees it.
//!
//! It is private to the gem, as [`crate::native`] is, and has the same methods. No method waits for the store but `look`
//! and `requeue_dead_letters`, which open it for themselves; where an answer takes time, `:wait` says so.

mod check;
mod deliver;
mod report;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use magnus::block::Proc;
use magnus::typed_data::Obj;
use magnus::value::{LazyId, Opaque, ReprValue};
use magnus::{
    DataTypeFunctions, Error, Object as _, RArray, RHash, Ruby, TypedData, Value, function, gc, method, prelude::*,
};
use online_manager_store::StoreUrl;
use online_manager_store::coalescer::Coalesced;
use online_manager_store::member::{Member, SnapshotResult};
use online_manager_tracker::Nanos;

use self::check::Check;
use crate::callback_target::CallbackTarget;
use crate::clock::CoarseClock;
use crate::heartbeat::{self, TakesHeartbeats};
use crate::key;
use crate::pipe::SharedPipe;
use crate::process_local::{ProcessLocal, ProcessValue, error_class, system_error};
use crate::store_id::{self, StoreId};

static START_MEMBER: LazyId = LazyId::new("start_member");

type SharedMember = Member<CoarseClock, SharedPipe>;
type LocalMember = ProcessValue<SharedMember>;

/// One manager's part in a store, in this process and in those forked from it.
#[derive(TypedData)]
#[magnus(class = "OnlineManager::Shared", mark, free_immediately)]
pub(crate) struct Shared {
    target: CallbackTarget,
    heartbeat: OnceLock<Opaque<Proc>>,
    store_url: StoreUrl,
    namespace: String,
    check: Mutex<Option<Check>>,
    eras: ProcessLocal<SharedMember>,
    is_stopped: AtomicBool,
}

impl DataTypeFunctions for Shared {
    fn mark(&self, marker: &gc::Marker) {
        self.target.mark(marker);
        if let Some(heartbeat) = self.heartbeat.get() {
            marker.mark(*heartbeat);
        }
    }
}

impl TakesHeartbeats for Shared {
    #[inline]
    fn heartbeat(&self, ruby: &Ruby, id: Value) -> Result<bool, Error> {
        self.record_heartbeat(ruby, id, None)
    }
}

/// Defines the class.
pub(crate) fn init(ruby: &Ruby) -> Result<(), Error> {
    let manager = ruby.define_class("OnlineManager", ruby.class_object())?;
    let class = manager.define_class("Shared", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("new", function!(Shared::new, 3))?;
    class.define_singleton_method("describe", function!(Shared::describe, 1))?;
    class.define_singleton_method("report", function!(Shared::report, 2))?;
    class.define_singleton_method("requeue_dead_letters", function!(Shared::requeue_dead_letters, 2))?;
    class.define_method("begin_check", method!(Shared::begin_check, 0))?;
    class.define_method("poll_check", method!(Shared::poll_check, 0))?;
    class.define_method("end_check", method!(Shared::end_check, 0))?;
    class.define_method("heartbeat", method!(Shared::heartbeat, 0))?;
    class.define_method("seen", method!(Shared::seen, 1))?;
    class.define_method("seen_for", method!(Shared::seen_for, 2))?;
    class.define_method("seen_all", method!(Shared::seen_all, 3))?;
    class.define_method("start", method!(Shared::start, 0))?;
    class.define_method("start_member", method!(Shared::start_member, 0))?;
    class.define_method("poll_leave", method!(Shared::leave, 2))?;
    class.define_method("poll_online?", method!(Shared::is_online, 1))?;
    class.define_method("poll_online_users", method!(Shared::online_users, 0))?;
    class.define_method("poll_last_seen", method!(Shared::last_seen, 1))?;
    class.define_method("poll_counts", method!(Shared::counts, 0))?;
    class.define_method("status", method!(Shared::status, 0))?;
    class.define_method("deliver", method!(Shared::deliver, 2))?;
    class.define_method("pipe", method!(Shared::pipe, 0))?;
    class.define_method("wake", method!(Shared::wake, 0))?;
    class.define_method("stop", method!(Shared::stop, 0))?;
    class.define_method("ended?", method!(Shared::has_ended, 0))?;
    class.define_method("pause", method!(Shared::pause, 0))?;
    class.define_method("paused?", method!(Shared::is_paused, 0))?;
    class.define_method("resume", method!(Shared::resume, 0))?;
    Ok(())
}

impl Shared {
    /// `Shared.new(target, store, namespace)`: the store is a URL, or an Array of those of a cluster
    fn new(ruby: &Ruby, target: Value, store: Value, namespace: String) -> Result<Obj<Shared>, Error> {
        let shared = ruby.obj_wrap(Shared {
            target: CallbackTarget::new(target),
            heartbeat: OnceLock::new(),
            store_url: locate(ruby, store)?,
            namespace,
            check: Mutex::default(),
            eras: ProcessLocal::default(),
            is_stopped: AtomicBool::new(false),
        });
        let heartbeat = heartbeat::new(shared)?;
        // Set once, here: nobody else has seen the object yet.
        let _first = shared.heartbeat.set(heartbeat.into());
        Ok(shared)
    }

    /// `Shared.describe(store) -> String`, without a password. Raises if there is no such store.
    fn describe(ruby: &Ruby, store: Value) -> Result<String, Error> {
        Ok(locate(ruby, store)?.to_string())
    }

    /// `heartbeat -> Proc`, always the same: takes one id, answers what `seen` does.
    fn heartbeat(ruby: &Ruby, this: &Shared) -> Option<Proc> {
        this.heartbeat.get().map(|heartbeat| ruby.get_inner(*heartbeat))
    }

    /// `seen(id) -> true, or false after a stop`
    fn seen(ruby: &Ruby, this: &Shared, id: Value) -> Result<bool, Error> {
        this.record_heartbeat(ruby, id, None)
    }

    /// `seen_for(id, nanoseconds)`
    fn seen_for(ruby: &Ruby, this: &Shared, id: Value, timeout: Nanos) -> Result<bool, Error> {
        this.record_heartbeat(ruby, id, Some(timeout))
    }

    /// `seen_all(ids, _, nanoseconds or nil)`
    fn seen_all(ruby: &Ruby, this: &Shared, ids: RArray, _: bool, timeout: Option<Nanos>) -> Result<bool, Error> {
        let ids = ids.dup();
        // Whatever is wrong with an id is notified before anybody has beaten.
        for id in ids.into_iter() {
            store_id::user_id(ruby, id)?;
        }
        let mut taken = true;
        for id in ids.into_iter() {
            taken &= this.record_heartbeat(ruby, id, timeout)?;
        }
        Ok(taken)
    }

    #[inline]
    fn record_heartbeat(&self, ruby: &Ruby, id: Value, timeout: Option<Nanos>) -> Result<bool, Error> {
        if !self.target.is_ready() && !self.become_ready(ruby)? {
            return Ok(false);
        }
        let (now, timeout) = self.target.now_and_timeout(ruby, timeout)?;
        if let Some(plain) = key::plain(&id)
            && let Some(era) = self.eras.current()
        {
            match era.inner().heartbeat(plain, now, timeout) {
                Coalesced::Known => return Ok(true),
                Coalesced::WriteDue => {
                    era.inner().set_timeout(self.target.timeout());
                    return Ok(true);
                }
                Coalesced::Unknown => {}
            }
        }
        self.heartbeat_slow(ruby, id, now, timeout)
    }

    /// A heartbeat of somebody new, or whose id has to be made into bytes.
    #[cold]
    fn heartbeat_slow(&self, ruby: &Ruby, id: Value, now: Nanos, timeout: Nanos) -> Result<bool, Error> {
        let store_id = StoreId::new(ruby, id)?;
        let Some(era) = self.eras.current() else {
            // Ruby code that ran above has forked, and this is the child.
            return self.record_heartbeat(ruby, id, Some(timeout));
        };
        let member = era.inner();
        member.set_timeout(self.target.timeout());
        if member.heartbeat(store_id.as_id(), now, timeout) == Coalesced::Unknown {
            member.add_user(store_id.as_id(), store_id.user_id.clone(), now, timeout);
        }
        if member.is_inactive() {
            // It stood down at a fork, or one is going on.
            self.target.call(ruby, &START_MEMBER, ())?;
        }
        Ok(true)
    }

    /// `start`: takes part without a heartbeat. Answers false after a stop.
    fn start(ruby: &Ruby, this: &Shared) -> Result<bool, Error> {
        if this.target.is_ready() {
            return Self::start_member(ruby, this).map(|()| true);
        }
        this.become_ready(ruby)
    }

    /// Has the target start its reactor, in this process for the first time. Answers false after a stop.
    #[cold]
    fn become_ready(&self, ruby: &Ruby) -> Result<bool, Error> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.check_parent(ruby)?;
        self.target.ask_timeout(ruby)?;
        self.target.become_ready(ruby, || self.era(ruby).map(|_| ()))?;
        Ok(true)
    }

    /// No connection to a store may cross a fork, and no thread does. The gem's hook sees to that before each fork, but
    /// `Process.daemon` does not come by it.
    fn check_parent(&self, ruby: &Ruby) -> Result<(), Error> {
        match self.eras.latest() {
            Some(era) if !era.is_current() && era.inner().has_threads() => {
                let message = "this process was forked without Process._fork, by Process.daemon for example, while the \
                               manager was using its store: daemonize before the first heartbeat";
                Err(Error::new(error_class(ruby, "Error"), message))
            }
            _ => Ok(()),
        }
    }

    /// `start_member`: starts this process' member. The target calls it when it is ready, and when it is asked to `start_member`.
    fn start_member(ruby: &Ruby, this: &Shared) -> Result<(), Error> {
        let member = this.era(ruby)?.inner();
        member.set_timeout(this.target.timeout());
        member.start().map_err(|error| system_error(ruby, "starting a thread", &error))
    }

    /// This process' era, begun if need be.
    fn era(&self, ruby: &Ruby) -> Result<&LocalMember, Error> {
        let era = self
            .eras
            .begin(ruby, |pipe| Member::new(self.store_url.clone(), self.namespace.clone(), CoarseClock, pipe))?;
        if self.is_stopped.load(Ordering::Relaxed) {
            // The stop came before there was anything to be stopped.
            era.inner().stop();
        }
        Ok(era)
    }

    /// `poll_leave(id, nanoseconds) -> whether the user was online`, or `:wait`
    fn leave(ruby: &Ruby, this: &Shared, id: Value, after: Nanos) -> Result<Value, Error> {
        let store_id = StoreId::new(ruby, id)?;
        let member = this.era(ruby)?.inner();
        let is_here = member.last_seen_here(store_id.as_id()).is_some();
        let was_online = match member.snapshot() {
            _ if is_here => true,
            SnapshotResult::Ready(taken) => taken.snapshot.users.contains_key(&store_id.user_id),
            answer => return this.no_answer(ruby, answer),
        };
        if was_online && !this.is_stopped.load(Ordering::Relaxed) {
            member.leave(store_id.as_id(), store_id.user_id.clone(), after);
        }
        Ok(ruby.into_value(was_online))
    }

    /// `poll_online?(id) -> true, false or :wait`
    fn is_online(ruby: &Ruby, this: &Shared, id: Value) -> Result<Value, Error> {
        let store_id = StoreId::new(ruby, id)?;
        let member = this.era(ruby)?.inner();
        if member.last_seen_here(store_id.as_id()).is_some() {
            return Ok(ruby.qtrue().as_value());
        }
        match member.snapshot() {
            SnapshotResult::Ready(taken) => Ok(ruby.into_value(taken.snapshot.users.contains_key(&store_id.user_id))),
            answer => this.no_answer(ruby, answer),
        }
    }

    /// `poll_last_seen(id) -> seconds since then, nil for who is offline, or :wait`
    fn last_seen(ruby: &Ruby, this: &Shared, id: Value) -> Result<Value, Error> {
        let store_id = StoreId::new(ruby, id)?;
        let member = this.era(ruby)?.inner();
        let here = member.last_seen_here(store_id.as_id());
        let now = member.now();
        let here = here.map(|seen| now.saturating_sub(seen));
        match member.snapshot() {
            SnapshotResult::Ready(taken) => {
                let there = taken.snapshot.users.get(&store_id.user_id);
                let there = there.map(|ago| ago.saturating_add(now.saturating_sub(taken.at)));
                let ago = here.into_iter().chain(there).min();
                Ok(ruby.into_value(ago.map(|ago| ago as f64 / 1e9)))
            }
            answer => this.no_answer(ruby, answer),
        }
    }

    /// `poll_online_users -> Array`, in no order, or `:wait`
    fn online_users(ruby: &Ruby, this: &Shared) -> Result<Value, Error> {
        match this.era(ruby)?.inner().snapshot() {
            SnapshotResult::Ready(taken) => {
                let users = ruby.ary_new_capa(taken.snapshot.users.len());
                for user_id in taken.snapshot.users.keys() {
                    users.push(store_id::to_value(ruby, user_id)?)?;
                }
                Ok(users.as_value())
            }
            answer => this.no_answer(ruby, answer),
        }
    }

    /// `poll_counts -> Hash`, or `:wait`
    fn counts(ruby: &Ruby, this: &Shared) -> Result<Value, Error> {
        match this.era(ruby)?.inner().snapshot() {
            SnapshotResult::Ready(taken) => {
                let hash = ruby.hash_new();
                hash.aset(ruby.to_symbol("online"), taken.snapshot.users.len())?;
                hash.aset(ruby.to_symbol("waiting"), taken.snapshot.waiting)?;
                hash.aset(ruby.to_symbol("dead_letters"), taken.snapshot.dead_letters)?;
                Ok(hash.as_value())
            }
            answer => this.no_answer(ruby, answer),
        }
    }

    fn no_answer(&self, ruby: &Ruby, answer: SnapshotResult) -> Result<Value, Error> {
        match answer {
            SnapshotResult::Failed(message) => Err(Error::new(error_class(ruby, "StoreError"), message)),
            _ => Ok(ruby.to_symbol("wait").as_value()),
        }
    }

    /// `status -> Hash`: what this process knows without asking the store
    fn status(ruby: &Ruby, this: &Shared) -> Result<RHash, Error> {
        let status = this.eras.current().map(|era| era.inner().status()).unwrap_or_default();
        let hash = ruby.hash_new();
        hash.aset(ruby.to_symbol("owner"), status.leases > 0)?;
        hash.aset(ruby.to_symbol("leases"), status.leases)?;
        hash.aset(ruby.to_symbol("unwritten"), status.unwritten)?;
        hash.aset(ruby.to_symbol("flush_lag"), status.flush_lag as f64 / 1e9)?;
        hash.aset(ruby.to_symbol("sweep_lag"), status.sweep_lag as f64 / 1e9)?;
        hash.aset(ruby.to_symbol("retries"), status.retries)?;
        hash.aset(ruby.to_symbol("store_errors"), status.store_errors)?;
        Ok(hash)
    }

    /// `pipe -> Integer`: a descriptor, readable while `deliver` has something to do. The caller closes it.
    fn pipe(ruby: &Ruby, this: &Shared) -> Result<i32, Error> {
        this.era(ruby)?.duplicate_reader(ruby)
    }

    /// Makes the pipe readable until the next `deliver`.
    fn wake(this: &Shared) {
        if let Some(era) = this.eras.current() {
            era.inner().wake_reactor();
        }
    }

    /// Bars heartbeats, in this process and those forked from it; writes what is left and gives the leases back.
    fn stop(this: &Shared) {
        this.is_stopped.store(true, Ordering::Relaxed);
        this.target.reset_ready();
        if let Some(era) = this.eras.current() {
            era.inner().stop();
        }
    }

    /// `ended? -> whether the stop is done`
    fn has_ended(this: &Shared) -> bool {
        this.eras.current().is_none_or(|era| era.inner().has_ended())
    }

    /// `pause`: ends the threads, for a fork
    fn pause(this: &Shared) {
        if let Some(era) = this.eras.current() {
            era.inner().pause();
        }
    }

    /// `paused? -> whether they have ended`
    fn is_paused(this: &Shared) -> bool {
        this.eras.current().is_none_or(|era| era.inner().is_paused())
    }

    /// `resume`: after the fork, in the parent
    fn resume(ruby: &Ruby, this: &Shared) -> Result<(), Error> {
        let Some(era) = this.eras.current() else { return Ok(()) };
        era.inner().resume().map_err(|error| system_error(ruby, "starting a thread", &error))
    }
}

fn locate(ruby: &Ruby, store: Value) -> Result<StoreUrl, Error> {
    let store_url = match RArray::from_value(store) {
        Some(urls) => StoreUrl::parse_cluster(&urls.to_vec::<String>()?),
        None => StoreUrl::parse(&String::try_convert(store)?),
    };
    store_url.map_err(|message| Error::new(ruby.exception_arg_error(), message))
}
