//! The class `OnlineManager::Shared`: one manager's part in a store that several processes share, as Ruby sees it.
//!
//! Over 400 lines: one Ruby class, the counterpart of [`crate::native`], to be read beside it method by method.
//!
//! It is private to the gem, as [`crate::native`] is, and has the same methods. No method waits for the store but `look`
//! and `retry_dead_letters`, which open it for themselves; where an answer takes time, `:wait` says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use magnus::block::Proc;
use magnus::typed_data::Obj;
use magnus::value::{LazyId, Opaque, ReprValue};
use magnus::{
    DataTypeFunctions, Error, Object as _, RArray, RHash, RString, Ruby, TypedData, Value, function, gc, method,
    prelude::*,
};
use online_manager_store::beats::Heartbeat;
use online_manager_store::interrupt::Interrupt;
use online_manager_store::log::Delivered;
use online_manager_store::member::{Answer, Member};
use online_manager_store::store::Event;
use online_manager_store::{Location, Store, StoreError};
use online_manager_tracker::{Nanos, Transition};

use crate::clock::CoarseClock;
use crate::era::{Era, Eras, error_class, system_error};
use crate::heartbeat::{self, Beating};
use crate::host::Host;
use crate::key;
use crate::native::{detail, is_entered};
use crate::pipe::SharedPipe;
use crate::shared_key::{self, Named};

static JOIN: LazyId = LazyId::new("join");
static DELIVER_EVENTS: LazyId = LazyId::new("deliver_events");
static STORE_FAILED: LazyId = LazyId::new("store_failed");

type SharedMember = Member<CoarseClock, SharedPipe>;
type MemberEra = Era<SharedMember>;

/// One manager's part in a store, in this process and in those forked from it.
#[derive(TypedData)]
#[magnus(class = "OnlineManager::Shared", mark, free_immediately)]
pub(crate) struct Shared {
    host: Host,
    heartbeat: OnceLock<Opaque<Proc>>,
    location: Location,
    namespace: String,
    check: Mutex<Option<Check>>,
    eras: Eras<SharedMember>,
    is_stopped: AtomicBool,
}

/// The look at a store before `setup`. On a thread, since a server that does not answer must not keep Ruby from running.
struct Check {
    thread: JoinHandle<Result<Vec<String>, StoreError>>,
    interrupt: Interrupt,
}

impl DataTypeFunctions for Shared {
    fn mark(&self, marker: &gc::Marker) {
        self.host.mark(marker);
        if let Some(heartbeat) = self.heartbeat.get() {
            marker.mark(*heartbeat);
        }
    }
}

impl Beating for Shared {
    #[inline]
    fn beat(&self, ruby: &Ruby, id: Value) -> Result<bool, Error> {
        self.beat(ruby, id, None)
    }
}

/// Defines the class.
pub(crate) fn init(ruby: &Ruby) -> Result<(), Error> {
    let manager = ruby.define_class("OnlineManager", ruby.class_object())?;
    let class = manager.define_class("Shared", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("new", function!(Shared::new, 3))?;
    class.define_singleton_method("describe", function!(Shared::describe, 1))?;
    class.define_singleton_method("look", function!(Shared::look, 2))?;
    class.define_singleton_method("retry_dead_letters", function!(Shared::retry_dead_letters, 2))?;
    class.define_method("begin_check", method!(Shared::begin_check, 0))?;
    class.define_method("poll_check", method!(Shared::poll_check, 0))?;
    class.define_method("end_check", method!(Shared::end_check, 0))?;
    class.define_method("heartbeat", method!(Shared::heartbeat, 0))?;
    class.define_method("seen", method!(Shared::seen, 1))?;
    class.define_method("seen_for", method!(Shared::seen_for, 2))?;
    class.define_method("seen_all", method!(Shared::seen_all, 3))?;
    class.define_method("start", method!(Shared::start, 0))?;
    class.define_method("take_part", method!(Shared::take_part, 0))?;
    class.define_method("poll_leave", method!(Shared::leave, 2))?;
    class.define_method("poll_online?", method!(Shared::is_online, 1))?;
    class.define_method("poll_online_users", method!(Shared::online_users, 0))?;
    class.define_method("poll_last_seen", method!(Shared::last_seen, 1))?;
    class.define_method("poll_counts", method!(Shared::counts, 0))?;
    class.define_method("status", method!(Shared::status, 0))?;
    class.define_method("deliver", method!(Shared::deliver, 2))?;
    class.define_method("pipe", method!(Shared::pipe, 0))?;
    class.define_method("rouse", method!(Shared::rouse, 0))?;
    class.define_method("stop", method!(Shared::stop, 0))?;
    class.define_method("ended?", method!(Shared::has_ended, 0))?;
    class.define_method("pause", method!(Shared::pause, 0))?;
    class.define_method("paused?", method!(Shared::is_paused, 0))?;
    class.define_method("resume", method!(Shared::resume, 0))?;
    Ok(())
}

impl Shared {
    /// `Shared.new(host, store, namespace)`: the store is a URL, or an Array of those of a cluster
    fn new(ruby: &Ruby, host: Value, store: Value, namespace: String) -> Result<Obj<Shared>, Error> {
        let shared = ruby.obj_wrap(Shared {
            host: Host::new(host),
            heartbeat: OnceLock::new(),
            location: locate(ruby, store)?,
            namespace,
            check: Mutex::default(),
            eras: Eras::default(),
            is_stopped: AtomicBool::new(false),
        });
        let heartbeat = heartbeat::new(shared)?;
        // Set once, here: nobody else has seen the object yet.
        let _first = shared.heartbeat.set(heartbeat.into());
        Ok(shared)
    }

    /// Held for a moment only, and never while anything is waited for.
    fn check(&self) -> MutexGuard<'_, Option<Check>> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `begin_check`: opens the store once, on a thread, and closes it again. `end_check` must follow.
    fn begin_check(ruby: &Ruby, this: &Shared) -> Result<(), Error> {
        let (location, namespace) = (this.location.clone(), this.namespace.clone());
        let interrupt = Interrupt::default();
        let waits = interrupt.clone();
        let thread = std::thread::Builder::new()
            .name("online_manager".into())
            .spawn(move || location.open(&namespace, &waits).map(|store| store.warnings()))
            .map_err(|error| system_error(ruby, "starting a thread", &error))?;
        *this.check() = Some(Check { thread, interrupt });
        Ok(())
    }

    /// `poll_check -> Array of what an operator should know`, what keeps the store from being reached now for one, or `:wait`.
    /// Raises if it is misconfigured.
    fn poll_check(ruby: &Ruby, this: &Shared) -> Result<Value, Error> {
        let Some(check) = this.check().take_if(|check| check.thread.is_finished()) else {
            return Ok(ruby.to_symbol("wait").as_value());
        };
        let warnings = match check.thread.join() {
            Ok(Ok(warnings)) => warnings,
            Ok(Err(StoreError::Misconfigured(message))) => {
                return Err(Error::new(error_class(ruby, "StoreError"), message));
            }
            Ok(Err(error)) => vec![format!("the store cannot be reached and will be tried again: {error}")],
            // A bug, and told of on standard error.
            Err(_) => return Err(Error::new(error_class(ruby, "StoreError"), "the store could not be opened")),
        };
        Ok(ruby.into_value(warnings))
    }

    /// `end_check`: does not wait any longer, and lets nothing of it run on.
    fn end_check(this: &Shared) {
        let check = this.check().take();
        if let Some(check) = check {
            check.interrupt.raise();
            // Its answer is nobody's any more.
            drop(check.thread.join());
        }
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
        this.beat(ruby, id, None)
    }

    /// `seen_for(id, nanoseconds)`
    fn seen_for(ruby: &Ruby, this: &Shared, id: Value, timeout: Nanos) -> Result<bool, Error> {
        this.beat(ruby, id, Some(timeout))
    }

    /// `seen_all(ids, _, nanoseconds or nil)`
    fn seen_all(ruby: &Ruby, this: &Shared, ids: RArray, _: bool, timeout: Option<Nanos>) -> Result<bool, Error> {
        let ids = ids.dup();
        // Whatever is wrong with an id is told before anybody has beaten.
        for id in ids.into_iter() {
            shared_key::user_id(ruby, id)?;
        }
        let mut taken = true;
        for id in ids.into_iter() {
            taken &= this.beat(ruby, id, timeout)?;
        }
        Ok(taken)
    }

    #[inline]
    fn beat(&self, ruby: &Ruby, id: Value, timeout: Option<Nanos>) -> Result<bool, Error> {
        if !self.host.is_ready() && !self.become_ready(ruby)? {
            return Ok(false);
        }
        let (now, timeout) = self.host.now_and_timeout(ruby, timeout)?;
        if let Some(plain) = key::plain(&id)
            && let Some(era) = self.eras.current()
        {
            match era.inner().heartbeat(plain, now, timeout) {
                Heartbeat::Known => return Ok(true),
                Heartbeat::ToTell => {
                    era.inner().set_timeout(self.host.timeout());
                    return Ok(true);
                }
                Heartbeat::Unknown => {}
            }
        }
        self.beat_otherwise(ruby, id, now, timeout)
    }

    /// A heartbeat of somebody new, or whose id has to be made into bytes.
    #[cold]
    fn beat_otherwise(&self, ruby: &Ruby, id: Value, now: Nanos, timeout: Nanos) -> Result<bool, Error> {
        let named = Named::new(ruby, id)?;
        let Some(era) = self.eras.current() else { return Ok(false) };
        let member = era.inner();
        member.set_timeout(self.host.timeout());
        if member.heartbeat(named.as_id(), now, timeout) == Heartbeat::Unknown {
            member.arrive(named.as_id(), named.user_id.clone(), now, timeout);
        }
        if member.is_out() {
            // It stood down at a fork, or one is going on.
            self.host.call(ruby, &JOIN, ())?;
        }
        Ok(true)
    }

    /// `start`: takes part without a heartbeat. Answers false after a stop.
    fn start(ruby: &Ruby, this: &Shared) -> Result<bool, Error> {
        if this.host.is_ready() {
            return Self::take_part(ruby, this).map(|()| true);
        }
        this.become_ready(ruby)
    }

    /// Has the host start its reactor, in this process for the first time. Answers false after a stop.
    #[cold]
    fn become_ready(&self, ruby: &Ruby) -> Result<bool, Error> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.check_parent(ruby)?;
        self.host.ask_timeout(ruby)?;
        self.host.become_ready(ruby, || self.era(ruby).map(|_| ()))?;
        Ok(true)
    }

    /// No connection to a store may cross a fork, and no thread does. The gem's hook sees to that before each fork, but
    /// `Process.daemon` does not come by it.
    fn check_parent(&self, ruby: &Ruby) -> Result<(), Error> {
        match self.eras.latest() {
            Some(era) if !era.is_current() && era.inner().has_threads() => {
                let message = "this process was forked behind our back, by Process.daemon for example, while the manager \
                               was using its store: daemonize first, before the first heartbeat";
                Err(Error::new(error_class(ruby, "Error"), message))
            }
            _ => Ok(()),
        }
    }

    /// `take_part`: starts this process' member. The host calls it when it is ready, and when it is asked to `join`.
    fn take_part(ruby: &Ruby, this: &Shared) -> Result<(), Error> {
        let member = this.era(ruby)?.inner();
        member.set_timeout(this.host.timeout());
        member.start().map_err(|error| system_error(ruby, "starting a thread", &error))
    }

    /// This process' era, begun if need be.
    fn era(&self, ruby: &Ruby) -> Result<&MemberEra, Error> {
        let era = self
            .eras
            .begin(ruby, |pipe| Member::new(self.location.clone(), self.namespace.clone(), CoarseClock, pipe))?;
        if self.is_stopped.load(Ordering::Relaxed) {
            // The stop came before there was anything to be stopped.
            era.inner().stop();
        }
        Ok(era)
    }

    /// `poll_leave(id, nanoseconds) -> whether the user was online`, or `:wait`
    fn leave(ruby: &Ruby, this: &Shared, id: Value, after: Nanos) -> Result<Value, Error> {
        let named = Named::new(ruby, id)?;
        let member = this.era(ruby)?.inner();
        let is_here = member.last_seen_here(named.as_id()).is_some();
        let was_online = match member.snapshot() {
            _ if is_here => true,
            Answer::Snapshot(taken) => taken.snapshot.users.contains_key(&named.user_id),
            answer => return this.no_answer(ruby, answer),
        };
        if was_online && !this.is_stopped.load(Ordering::Relaxed) {
            member.leave(named.as_id(), named.user_id.clone(), after);
        }
        Ok(ruby.into_value(was_online))
    }

    /// `poll_online?(id) -> true, false or :wait`
    fn is_online(ruby: &Ruby, this: &Shared, id: Value) -> Result<Value, Error> {
        let named = Named::new(ruby, id)?;
        let member = this.era(ruby)?.inner();
        if member.last_seen_here(named.as_id()).is_some() {
            return Ok(ruby.qtrue().as_value());
        }
        match member.snapshot() {
            Answer::Snapshot(taken) => Ok(ruby.into_value(taken.snapshot.users.contains_key(&named.user_id))),
            answer => this.no_answer(ruby, answer),
        }
    }

    /// `poll_last_seen(id) -> seconds since then, nil for who is offline, or :wait`
    fn last_seen(ruby: &Ruby, this: &Shared, id: Value) -> Result<Value, Error> {
        let named = Named::new(ruby, id)?;
        let member = this.era(ruby)?.inner();
        let here = member.last_seen_here(named.as_id());
        let now = member.now();
        let here = here.map(|seen| now.saturating_sub(seen));
        match member.snapshot() {
            Answer::Snapshot(taken) => {
                let there = taken.snapshot.users.get(&named.user_id);
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
            Answer::Snapshot(taken) => {
                let users = ruby.ary_new_capa(taken.snapshot.users.len());
                for user_id in taken.snapshot.users.keys() {
                    users.push(shared_key::to_value(ruby, user_id)?)?;
                }
                Ok(users.as_value())
            }
            answer => this.no_answer(ruby, answer),
        }
    }

    /// `poll_counts -> Hash`, or `:wait`
    fn counts(ruby: &Ruby, this: &Shared) -> Result<Value, Error> {
        match this.era(ruby)?.inner().snapshot() {
            Answer::Snapshot(taken) => {
                let hash = ruby.hash_new();
                hash.aset(ruby.to_symbol("online"), taken.snapshot.users.len())?;
                hash.aset(ruby.to_symbol("waiting"), taken.snapshot.waiting)?;
                hash.aset(ruby.to_symbol("dead_letters"), taken.snapshot.dead_letters)?;
                Ok(hash.as_value())
            }
            answer => this.no_answer(ruby, answer),
        }
    }

    fn no_answer(&self, ruby: &Ruby, answer: Answer) -> Result<Value, Error> {
        match answer {
            Answer::Failed(message) => Err(Error::new(error_class(ruby, "StoreError"), message)),
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

    /// `deliver(online_together, offline_together) -> whether there was anything`: takes events, calls the host, reports.
    /// One thread at a time.
    fn deliver(ruby: &Ruby, this: &Shared, online_together: bool, offline_together: bool) -> Result<bool, Error> {
        let Some(era) = this.eras.current() else { return Ok(false) };
        let member = era.inner();
        if let Some(message) = member.news() {
            this.host.call(ruby, &STORE_FAILED, (message,))?;
            return Ok(true);
        }
        // See `Native::deliver`.
        let entered = ruby.ary_new();
        let (transition, events) = member.take(|transition| match transition {
            Transition::Online => online_together,
            Transition::Offline => offline_together,
        });
        let Some(transition) = transition else { return Ok(false) };
        let called = this.call(ruby, transition, &events, entered);
        if !era.is_current() {
            // The callback has forked, and this is the child, which delivers nothing of its parent's.
            return called.map(|_| true);
        }
        let how = match &called {
            Ok(answer) => match RString::from_value(*answer) {
                Some(message) => Delivered::Failed(message.to_string().unwrap_or_else(|_| "an error".into())),
                None => Delivered::Returned,
            },
            Err(_) if is_entered(entered, &called) => Delivered::Cut,
            Err(_) => Delivered::NotCalled,
        };
        member.delivered(&how);
        called.map(|_| true)
    }

    fn call(&self, ruby: &Ruby, transition: Transition, events: &[Event], entered: RArray) -> Result<Value, Error> {
        let ids = ruby.ary_new_capa(events.len());
        let versions = ruby.ary_new_capa(events.len());
        let details = ruby.ary_new_capa(events.len());
        for event in events {
            details.push(detail(ruby, event.reason, event.lateness)?)?;
            ids.push(shared_key::to_value(ruby, &event.id)?)?;
            versions.push(event.version)?;
        }
        self.host.call(ruby, &DELIVER_EVENTS, (name(ruby, transition), ids, versions, entered, details))
    }

    /// `pipe -> Integer`: a descriptor, readable while `deliver` has something to do. The caller closes it.
    fn pipe(ruby: &Ruby, this: &Shared) -> Result<i32, Error> {
        this.era(ruby)?.duplicate_reader(ruby)
    }

    /// Makes the pipe readable until the next `deliver`.
    fn rouse(this: &Shared) {
        if let Some(era) = this.eras.current() {
            era.inner().rouse();
        }
    }

    /// Bars heartbeats, in this process and those forked from it; writes what is left and gives the leases back.
    fn stop(this: &Shared) {
        this.is_stopped.store(true, Ordering::Relaxed);
        this.host.is_not_ready();
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

    /// `Shared.look(store, namespace) -> Hash`: everything in the store, for an operator
    fn look(ruby: &Ruby, store: Value, namespace: String) -> Result<RHash, Error> {
        let mut store = open(ruby, store, &namespace)?;
        let failed = |error| failed(ruby, &error);
        let snapshot = store.snapshot().map_err(failed)?;
        let online = ruby.hash_new();
        for (user_id, ago) in &snapshot.users {
            online.aset(shared_key::to_value(ruby, user_id)?, *ago as f64 / 1e9)?;
        }
        let events = ruby.ary_new();
        for event in store.waiting().map_err(failed)? {
            events.push(describe(ruby, &event)?)?;
        }
        let dead_letters = ruby.ary_new();
        for letter in store.dead_letters().map_err(failed)? {
            let hash = describe(ruby, &letter.event)?;
            hash.aset(ruby.to_symbol("error"), letter.error)?;
            hash.aset(ruby.to_symbol("overtaken"), letter.is_overtaken)?;
            dead_letters.push(hash)?;
        }
        let hash = ruby.hash_new();
        hash.aset(ruby.to_symbol("online"), online)?;
        hash.aset(ruby.to_symbol("waiting"), events)?;
        hash.aset(ruby.to_symbol("dead_letters"), dead_letters)?;
        Ok(hash)
    }

    /// `Shared.retry_dead_letters(store, namespace) -> [how many are delivered again, how many are dropped]`
    fn retry_dead_letters(ruby: &Ruby, store: Value, namespace: String) -> Result<(usize, usize), Error> {
        open(ruby, store, &namespace)?.retry_dead_letters().map_err(|error| failed(ruby, &error))
    }
}

fn name(ruby: &Ruby, transition: Transition) -> Value {
    let name = match transition {
        Transition::Online => "online",
        Transition::Offline => "offline",
    };
    ruby.to_symbol(name).as_value()
}

fn describe(ruby: &Ruby, event: &Event) -> Result<RHash, Error> {
    let hash = ruby.hash_new();
    hash.aset(ruby.to_symbol("user_id"), shared_key::to_value(ruby, &event.id)?)?;
    hash.aset(ruby.to_symbol("transition"), name(ruby, event.transition))?;
    let detail = detail(ruby, event.reason, event.lateness)?;
    hash.aset(ruby.to_symbol("reason"), detail.entry::<Value>(0)?)?;
    hash.aset(ruby.to_symbol("lateness"), detail.entry::<Value>(1)?)?;
    hash.aset(ruby.to_symbol("version"), event.version)?;
    hash.aset(ruby.to_symbol("failures"), event.failures)?;
    Ok(hash)
}

fn locate(ruby: &Ruby, store: Value) -> Result<Location, Error> {
    let location = match RArray::from_value(store) {
        Some(urls) => Location::parse_cluster(&urls.to_vec::<String>()?),
        None => Location::parse(&String::try_convert(store)?),
    };
    location.map_err(|message| Error::new(ruby.exception_arg_error(), message))
}

/// Opens a store that must be there already: whoever mistypes a path shall not be told that nobody is online.
fn open(ruby: &Ruby, store: Value, namespace: &str) -> Result<Box<dyn Store>, Error> {
    let location = locate(ruby, store)?;
    if let Location::Sqlite(path) = &location
        && !path.exists()
    {
        let message = format!("{}: there is no such file", path.display());
        return Err(Error::new(error_class(ruby, "StoreError"), message));
    }
    location.open(namespace, &Interrupt::default()).map_err(|error| failed(ruby, &error))
}

fn failed(ruby: &Ruby, error: &StoreError) -> Error {
    Error::new(error_class(ruby, "StoreError"), error.to_string())
}
