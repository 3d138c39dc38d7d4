//! The *target* of a native object, an `OnlineManager::Delivery`: it is notified `ready`, asked for the `timeout`, and called
//! for each transition.

use std::sync::atomic::{AtomicU64, Ordering};

use magnus::value::{LazyId, Opaque};
use magnus::{Error, Ruby, Value, gc, prelude::*};
use online_manager_tracker::{Clock, Nanos};

use crate::clock::CoarseClock;
use crate::process_local::generation;

/// How long the answer of `config.timeout` is good for: asking on every heartbeat would double the cost of one.
const TIMEOUT_TTL: Nanos = 10_000_000;

static READY: LazyId = LazyId::new("ready");
static TIMEOUT: LazyId = LazyId::new("timeout");

/// The target, what it has been notified, and what it has answered.
pub(crate) struct CallbackTarget {
    object: Opaque<Value>,
    /// The generation in which the target is ready, and the one in which it has been notified to become so.
    ready_in: AtomicU64,
    notified_in: AtomicU64,
    timeout: AtomicU64,
    timeout_read_at: AtomicU64,
}

impl CallbackTarget {
    pub(crate) fn new(object: Value) -> CallbackTarget {
        CallbackTarget {
            object: object.into(),
            ready_in: AtomicU64::new(0),
            notified_in: AtomicU64::new(0),
            timeout: AtomicU64::new(0),
            timeout_read_at: AtomicU64::new(0),
        }
    }

    pub(crate) fn mark(&self, marker: &gc::Marker) {
        marker.mark(self.object);
    }

    /// Whether it has started its reactor in this process.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_in.load(Ordering::Relaxed) == generation()
    }

    /// Has every heartbeat ask again whether there is a target.
    pub(crate) fn reset_ready(&self) {
        self.ready_in.store(0, Ordering::Relaxed);
    }

    /// Has the target start its reactor, in this process for the first time. `begin` comes first.
    pub(crate) fn become_ready(&self, ruby: &Ruby, begin: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let generation = generation();
        if self.notified_in.swap(generation, Ordering::Relaxed) == generation {
            // Another thread is telling the target. Its reactor will find this heartbeat.
            return begin();
        }
        let notified = begin().and_then(|()| self.call(ruby, &READY, ()));
        match notified {
            Ok(_) => {
                self.ready_in.store(generation, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.notified_in.store(0, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// The timeout that was answered last.
    pub(crate) fn timeout(&self) -> Nanos {
        self.timeout.load(Ordering::Relaxed)
    }

    /// The time, and the timeout of a heartbeat at that time.
    #[inline]
    pub(crate) fn now_and_timeout(&self, ruby: &Ruby, timeout: Option<Nanos>) -> Result<(Nanos, Nanos), Error> {
        let now = CoarseClock.now();
        match timeout {
            Some(timeout) => Ok((now, timeout)),
            None if now.wrapping_sub(self.timeout_read_at.load(Ordering::Relaxed)) < TIMEOUT_TTL => {
                Ok((now, self.timeout.load(Ordering::Relaxed)))
            }
            None => self.read_timeout(ruby),
        }
    }

    #[cold]
    pub(crate) fn read_timeout(&self, ruby: &Ruby) -> Result<(Nanos, Nanos), Error> {
        let timeout = Nanos::try_convert(self.call(ruby, &TIMEOUT, ())?)?;
        let now = CoarseClock.now();
        self.timeout.store(timeout, Ordering::Relaxed);
        self.timeout_read_at.store(now, Ordering::Relaxed);
        Ok((now, timeout))
    }

    pub(crate) fn call(&self, ruby: &Ruby, name: &'static LazyId, args: impl magnus::ArgList) -> Result<Value, Error> {
        ruby.get_inner(self.object).funcall(LazyId::get_inner_with(name, ruby), args)
    }
}
