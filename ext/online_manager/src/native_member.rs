//! The class `OnlineManager::NativeMember`: one manager's part in a store that several processes share, for Ruby.
//!
//! It is private to the gem, as [`crate::native_tracker`] is. All methods may be called on any Ruby thread. Those that
//! need the store's answer are called `try_…` and return `:wait` until it is there;
//! `lib/online_manager/native_member.rb` waits. Only those of `report.rs` wait for the store themselves: they open a
//! connection of their own.

mod check;
mod deliver;
mod last_version;
mod report;

use std::io;
use std::sync::Mutex;

use magnus::typed_data::Obj;
use magnus::value::{LazyId, ReprValue};
use magnus::{
    DataTypeFunctions, Error, Object as _, RArray, RHash, Ruby, TypedData, Value, function, gc, method, prelude::*,
};
use online_manager_store::StoreUrl;
use online_manager_store::coalescer::Coalesced;
use online_manager_store::member::{Member, ReadResult};
use online_manager_store::store::{PartitionSummary, StoreSummary};
use online_manager_tracker::Nanos;
use online_manager_tracker::invariant::violations;

use self::check::Check;
use crate::clock::CoarseClock;
use crate::error::{gem_error, store_error, system_error};
use crate::handle::{Handle, NativeObject};
use crate::key;
use crate::pipe::SharedPipe;
use crate::store_id::{self, StoreId};

static START_MEMBER: LazyId = LazyId::new("start_member");

type CoarseMember = Member<CoarseClock, SharedPipe>;

/// One manager's part in a store, in this process and in those forked from it.
#[derive(TypedData)]
#[magnus(class = "OnlineManager::NativeMember", mark, free_immediately)]
pub(crate) struct NativeMember {
    handle: Handle<CoarseMember>,
    store_url: StoreUrl,
    namespace: String,
    /// The check of the store before `setup`, while it runs.
    check: Mutex<Option<Check>>,
}

impl crate::process_local::Inherited for CoarseMember {
    fn abandon(self) {
        if self.has_threads() {
            std::mem::forget(self); // it was not paused, so its threads may have had any lock
        }
    }
}

impl NativeObject for NativeMember {
    type Local = CoarseMember;

    #[inline]
    fn handle(&self) -> &Handle<CoarseMember> {
        &self.handle
    }

    #[inline]
    fn record_heartbeat(&self, ruby: &Ruby, id: Value, timeout: Option<Nanos>) -> Result<bool, Error> {
        if !self.ensure_ready(ruby)? {
            return Ok(false);
        }
        let (now, timeout) = self.handle.target.now_and_timeout(ruby, timeout)?;
        // SAFETY: the member uses the id, and no Ruby runs.
        if let Some(plain) = unsafe { key::plain_id(&id) }
            && let Some(member) = self.handle.current()
        {
            match member.heartbeat(plain, now, timeout) {
                Coalesced::Known => return Ok(true),
                Coalesced::WriteDue => {
                    member.set_timeout(self.handle.target.timeout());
                    return Ok(true);
                }
                Coalesced::Unknown => {}
            }
        }
        self.heartbeat_slow(ruby, id, now, timeout)
    }

    fn create(&self, _ruby: &Ruby, pipe: SharedPipe) -> io::Result<CoarseMember> {
        Member::new(self.store_url.clone(), self.namespace.clone(), CoarseClock, pipe)
    }

    fn wake_local(member: &CoarseMember) {
        member.wake_reactor();
    }

    /// Bars heartbeats. The member writes what is left and releases its leases.
    fn stop_local(&self, _ruby: &Ruby, member: &CoarseMember) {
        member.stop();
    }

    /// Fails in a process that was forked while its parent's member was running. Reads the config's timeout, which a
    /// member needs before it starts.
    fn prepare(&self, ruby: &Ruby) -> Result<(), Error> {
        self.check_parent(ruby)?;
        self.handle.target.read_timeout(ruby).map(|_| ())
    }
}

impl DataTypeFunctions for NativeMember {
    fn mark(&self, marker: &gc::Marker) {
        self.handle.mark(marker);
    }
}

/// Defines the class.
pub(crate) fn init(ruby: &Ruby) -> Result<(), Error> {
    let manager = ruby.define_class("OnlineManager", ruby.class_object())?;
    let class = manager.define_class("NativeMember", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("new", function!(NativeMember::new, 3))?;
    class.define_singleton_method("describe", function!(NativeMember::describe, 1))?;
    class.define_singleton_method("min_timeout", function!(NativeMember::min_timeout, 1))?;
    class.define_singleton_method("report", function!(NativeMember::report, 5))?;
    class.define_singleton_method("requeue_dead_letters", function!(NativeMember::requeue_dead_letters, 2))?;
    class.define_singleton_method("purge", function!(NativeMember::purge, 3))?;
    class.define_method("begin_check", method!(NativeMember::begin_check, 0))?;
    class.define_method("check_result", method!(NativeMember::check_result, 0))?;
    class.define_method("end_check", method!(NativeMember::end_check, 0))?;
    class.define_method("heartbeat", method!(NativeMember::heartbeat, 0))?;
    class.define_method("seen", method!(NativeMember::seen, 1))?;
    class.define_method("seen_for", method!(NativeMember::seen_for, 2))?;
    class.define_method("seen_all", method!(NativeMember::seen_all, 3))?;
    class.define_method("start", method!(NativeMember::start, 0))?;
    class.define_method("start_member", method!(NativeMember::start_member, 0))?;
    class.define_method("await_last_version", method!(NativeMember::await_last_version, 0))?;
    class.define_method("last_version=", method!(NativeMember::set_last_version, 1))?;
    class.define_method("now", method!(NativeMember::now, 0))?;
    class.define_method("record_leave", method!(NativeMember::record_leave, 3))?;
    class.define_method("try_online?", method!(NativeMember::is_online, 1))?;
    class.define_method("try_online_users", method!(NativeMember::online_users, 0))?;
    class.define_method("try_last_seen", method!(NativeMember::last_seen, 1))?;
    class.define_method("try_size", method!(NativeMember::size, 0))?;
    class.define_method("try_counts", method!(NativeMember::counts, 0))?;
    class.define_method("status", method!(NativeMember::status, 0))?;
    class.define_method("deliver", method!(NativeMember::deliver, 3))?;
    class.define_method("pipe", method!(NativeMember::pipe, 0))?;
    class.define_method("wake", method!(NativeMember::wake, 0))?;
    class.define_method("stop", method!(NativeMember::stop, 0))?;
    class.define_method("ended?", method!(NativeMember::has_ended, 0))?;
    class.define_method("pause", method!(NativeMember::pause, 0))?;
    class.define_method("paused?", method!(NativeMember::is_paused, 0))?;
    class.define_method("resume", method!(NativeMember::resume, 0))?;
    Ok(())
}

impl NativeMember {
    /// `NativeMember.new(target, store, namespace)`: the target is an `OnlineManager::SharedDelivery`, the store a URL
    /// or an Array of the URLs of a cluster
    ///
    /// Raises an ArgumentError if there is no such store.
    fn new(ruby: &Ruby, target: Value, store: Value, namespace: String) -> Result<Obj<NativeMember>, Error> {
        let store_url = parse_store_url(ruby, store)?;
        NativeMember { handle: Handle::new(target), store_url, namespace, check: Mutex::default() }.wrap(ruby)
    }

    /// `seen_all(ids, _, nanoseconds or nil) -> true`, or false after a stop. The second argument is there for the sake
    /// of `NativeTracker#seen_all`: here `online` is called when the event is delivered.
    fn seen_all(ruby: &Ruby, this: &NativeMember, ids: RArray, _: bool, timeout: Option<Nanos>) -> Result<bool, Error> {
        let ids = ids.dup();
        // All ids are checked before the first heartbeat is recorded, so that a wrong id leaves nothing half done.
        for id in ids.into_iter() {
            store_id::to_user_id(ruby, id)?;
        }
        let mut all_recorded = true;
        for id in ids.into_iter() {
            all_recorded &= this.record_heartbeat(ruby, id, timeout)?;
        }
        Ok(all_recorded)
    }

    /// Records a heartbeat of a new user, or one whose id has no plain form and must be converted to bytes.
    #[cold]
    fn heartbeat_slow(&self, ruby: &Ruby, id: Value, now: Nanos, timeout: Nanos) -> Result<bool, Error> {
        let store_id = StoreId::new(ruby, id)?;
        let Some(member) = self.handle.current() else {
            // Ruby code that ran above has forked, and this is the child.
            return self.record_heartbeat(ruby, id, Some(timeout));
        };
        member.set_timeout(self.handle.target.timeout());
        if member.heartbeat(store_id.as_id(), now, timeout) == Coalesced::Unknown {
            member.add_user(store_id.as_id(), store_id.user_id.clone(), now, timeout);
        }
        if member.is_inactive() {
            // The member became inactive at a fork. While a fork is in progress, the target does nothing here.
            self.handle.target.call(ruby, &START_MEMBER, || Ok(()))?;
        }
        Ok(true)
    }

    /// `start -> true`, or false after a stop: starts the member without a heartbeat
    fn start(ruby: &Ruby, this: &NativeMember) -> Result<bool, Error> {
        if this.handle.target.is_ready() {
            // While a fork is in progress, the target does nothing here.
            return this.handle.target.call(ruby, &START_MEMBER, || Ok(())).map(|_| true);
        }
        this.become_ready(ruby)
    }

    /// Fails in a process that was forked while its parent's member was running: a connection to a store must not cross
    /// a fork. The gem hooks into `fork` and pauses the member first, but `Process.daemon` does not run that hook.
    fn check_parent(&self, ruby: &Ruby) -> Result<(), Error> {
        match self.handle.latest() {
            Some(member) if !member.is_current() && member.has_threads() => {
                let message = "this process was forked without Process._fork, by Process.daemon for example, while the \
                               manager was using its store: daemonize before the first heartbeat";
                Err(gem_error(ruby, message))
            }
            _ => Ok(()),
        }
    }

    /// `start_member`: starts this process' member, unless it is running
    ///
    /// The target calls it in its own `start_member`. Raises an Error when the operating system has no thread to give.
    fn start_member(ruby: &Ruby, this: &NativeMember) -> Result<(), Error> {
        let member = this.local(ruby)?;
        member.set_timeout(this.handle.target.timeout());
        member.start().map_err(|error| system_error(ruby, "starting a thread", &error))
    }

    /// `now -> Integer`: nanoseconds of the clock that heartbeats and leaves go by
    fn now(ruby: &Ruby, this: &NativeMember) -> Result<Nanos, Error> {
        Ok(this.local(ruby)?.now())
    }

    /// `record_leave(id, at, nanoseconds)`: the user left at that time, and is due so long after it. Does nothing after a
    /// stop.
    fn record_leave(ruby: &Ruby, this: &NativeMember, id: Value, at: Nanos, after: Nanos) -> Result<(), Error> {
        let store_id = StoreId::new(ruby, id)?;
        let member = this.local(ruby)?;
        if !this.handle.is_stopped() {
            member.leave(store_id.as_id(), store_id.user_id.clone(), at, after);
        }
        Ok(())
    }

    /// `try_online?(id) -> true, false or :wait`
    fn is_online(ruby: &Ruby, this: &NativeMember, id: Value) -> Result<Value, Error> {
        let store_id = StoreId::new(ruby, id)?;
        let member = this.local(ruby)?;
        if member.last_seen_here(store_id.as_id()).is_some() {
            return Ok(ruby.qtrue().as_value());
        }
        match member.snapshot() {
            ReadResult::Ready(timed) => Ok(ruby.into_value(timed.value.users.contains_key(&store_id.user_id))),
            unavailable => this.not_ready(ruby, unavailable),
        }
    }

    /// `try_last_seen(id) -> Float`: seconds since the user's latest heartbeat, nil if the user is offline, or `:wait`
    fn last_seen(ruby: &Ruby, this: &NativeMember, id: Value) -> Result<Value, Error> {
        let store_id = StoreId::new(ruby, id)?;
        let member = this.local(ruby)?;
        let here = member.last_seen_here(store_id.as_id());
        let now = member.now();
        let here = here.map(|seen| now.saturating_sub(seen));
        match member.snapshot() {
            ReadResult::Ready(timed) => {
                let there = timed.value.users.get(&store_id.user_id);
                let there = there.map(|ago| ago.saturating_add(now.saturating_sub(timed.at)));
                let ago = here.into_iter().chain(there).min();
                Ok(ruby.into_value(ago.map(|ago| ago as f64 / 1e9)))
            }
            unavailable => this.not_ready(ruby, unavailable),
        }
    }

    /// `try_online_users -> Array`: the ids, in no order, or `:wait`
    fn online_users(ruby: &Ruby, this: &NativeMember) -> Result<Value, Error> {
        match this.local(ruby)?.snapshot() {
            ReadResult::Ready(timed) => {
                let users = ruby.ary_new_capa(timed.value.users.len());
                for user_id in timed.value.users.keys() {
                    users.push(store_id::to_value(ruby, user_id)?)?;
                }
                Ok(users.as_value())
            }
            unavailable => this.not_ready(ruby, unavailable),
        }
    }

    /// `try_size -> Integer`: how many users are online, or `:wait`
    fn size(ruby: &Ruby, this: &NativeMember) -> Result<Value, Error> {
        match this.local(ruby)?.snapshot() {
            ReadResult::Ready(timed) => Ok(ruby.into_value(timed.value.users.len())),
            unavailable => this.not_ready(ruby, unavailable),
        }
    }

    /// `try_counts -> Hash`: the figures of all processes, or `:wait`. They are how many users are `:online`; how many
    /// events are `:waiting` or `:dead_letters`; `:oldest_waiting`, the age of the oldest waiting event in seconds, 0 if
    /// none waits; how many `:members` there are; and `:partitions_without_owner`, how many partitions have no lease
    /// holder; and the `:partitions`, as in `report`
    fn counts(ruby: &Ruby, this: &NativeMember) -> Result<Value, Error> {
        let member = this.local(ruby)?;
        match member.summary() {
            ReadResult::Ready(timed) => {
                let age = member.now().saturating_sub(timed.at);
                Ok(counts_to_hash(ruby, &timed.value, age)?.as_value())
            }
            unavailable => this.not_ready(ruby, unavailable),
        }
    }

    /// Returns `:wait`, or the StoreError when the store cannot be read.
    fn not_ready<T>(&self, ruby: &Ruby, result: ReadResult<T>) -> Result<Value, Error> {
        match result {
            ReadResult::Failed(message) => Err(store_error(ruby, message)),
            _ => Ok(ruby.to_symbol("wait").as_value()),
        }
    }

    /// `status -> Hash`: what this process knows without asking the store. Lags are in seconds.
    fn status(ruby: &Ruby, this: &NativeMember) -> Result<RHash, Error> {
        let status = this.handle.current().map(|member| member.status()).unwrap_or_default();
        let hash = ruby.hash_new();
        hash.aset(ruby.to_symbol("owner"), status.leases > 0)?;
        hash.aset(ruby.to_symbol("leases"), status.leases)?;
        hash.aset(ruby.to_symbol("unwritten"), status.unwritten)?;
        hash.aset(ruby.to_symbol("flush_lag"), status.flush_lag as f64 / 1e9)?;
        hash.aset(ruby.to_symbol("sweep_lag"), status.sweep_lag as f64 / 1e9)?;
        hash.aset(ruby.to_symbol("retries"), status.retries)?;
        hash.aset(ruby.to_symbol("store_errors"), status.store_errors)?;
        hash.aset(ruby.to_symbol("calls_per_second"), status.calls_per_second)?;
        hash.aset(ruby.to_symbol("internal_errors"), violations())?;
        Ok(hash)
    }

    /// `ended?`: whether the member has stopped, after `stop`
    fn has_ended(this: &NativeMember) -> bool {
        this.handle.current().is_none_or(|member| member.has_ended())
    }

    /// `pause`: ends the threads and their connections before a fork. Returns at once.
    fn pause(this: &NativeMember) {
        if let Some(member) = this.handle.current() {
            member.pause();
        }
    }

    /// `paused?`: whether all threads have ended
    fn is_paused(this: &NativeMember) -> bool {
        this.handle.current().is_none_or(|member| member.is_paused())
    }

    /// `resume`: goes on after a fork, in the parent
    ///
    /// Raises an Error when the operating system has no thread to give.
    fn resume(ruby: &Ruby, this: &NativeMember) -> Result<(), Error> {
        let Some(member) = this.handle.current() else { return Ok(()) };
        member.resume().map_err(|error| system_error(ruby, "starting a thread", &error))
    }
}

/// Returns the sums over all partitions, and the partitions, see `try_counts`. `age` is that of the summary, in nanoseconds.
fn counts_to_hash(ruby: &Ruby, summary: &StoreSummary, age: Nanos) -> Result<RHash, Error> {
    let partitions = &summary.partitions;
    let sum = |count: fn(&PartitionSummary) -> u64| partitions.iter().map(count).sum::<u64>();
    let oldest = partitions.iter().filter_map(|partition| partition.oldest).max();
    let oldest = oldest.map_or(0, |oldest| oldest.saturating_add(age));
    let hash = ruby.hash_new();
    hash.aset(ruby.to_symbol("online"), sum(|partition| partition.online))?;
    hash.aset(ruby.to_symbol("waiting"), sum(|partition| partition.undelivered))?;
    hash.aset(ruby.to_symbol("dead_letters"), sum(|partition| partition.dead_letters))?;
    hash.aset(ruby.to_symbol("oldest_waiting"), oldest as f64 / 1e9)?;
    hash.aset(ruby.to_symbol("members"), summary.members.len())?;
    hash.aset(
        ruby.to_symbol("partitions_without_owner"),
        sum(|partition| u64::from(partition.lease_holder.is_none())),
    )?;
    hash.aset(ruby.to_symbol("partitions"), report::partitions(ruby, partitions, age)?)?;
    Ok(hash)
}

/// Parses a URL, or an Array of the URLs of a cluster. Fails with an ArgumentError.
fn parse_store_url(ruby: &Ruby, store: Value) -> Result<StoreUrl, Error> {
    let store_url = match RArray::from_value(store) {
        Some(urls) => StoreUrl::parse_cluster(&urls.to_vec::<String>()?),
        None => StoreUrl::parse(&String::try_convert(store)?),
    };
    store_url.map_err(|message| Error::new(ruby.exception_arg_error(), message))
}
