//! The callback target of a native object: the `OnlineManager::Delivery` whose `ready`, `timeout` and callback methods
//! are called.

use std::sync::atomic::{AtomicU64, Ordering};

use magnus::value::{LazyId, Opaque};
use magnus::{ArgList, Error, Ruby, TryConvert, Value, gc};
use online_manager_tracker::{Clock, Nanos};

use crate::clock::CoarseClock;
use crate::process_local::generation;
use crate::protect::funcall;

/// Nanoseconds for which the value of `config.timeout` is cached: reading it on every heartbeat would double the cost
/// of one.
const TIMEOUT_TTL: Nanos = 10_000_000;

static READY: LazyId = LazyId::new("ready");
static TIMEOUT: LazyId = LazyId::new("timeout");

/// The target, and the timeout that it returned last.
pub(crate) struct CallbackTarget {
    object: Opaque<Value>,
    /// The fork generation in which the target's `ready` has returned; 0 in none.
    ready_in: AtomicU64,
    /// The fork generation in which the target's `ready` was called; 0 in none.
    notified_in: AtomicU64,
    /// Nanoseconds.
    timeout: AtomicU64,
    /// When the timeout was read, in nanoseconds of [`CoarseClock`].
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

    /// Marks the target, for the garbage collector.
    pub(crate) fn mark(&self, marker: &gc::Marker) {
        marker.mark(self.object);
    }

    /// Returns whether the target has started its reactor in this process.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_in.load(Ordering::Relaxed) == generation()
    }

    /// Has the next heartbeat check again whether the target may become ready. After a stop it may not.
    pub(crate) fn reset_ready(&self) {
        self.ready_in.store(0, Ordering::Relaxed);
    }

    /// Calls `create`, then the target's `ready`, once in each process. Fails with the error of either; the next
    /// heartbeat tries again.
    pub(crate) fn become_ready(&self, ruby: &Ruby, create: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let generation = generation();
        if self.notified_in.swap(generation, Ordering::Relaxed) == generation {
            // Another thread is in `ready`. Its reactor will find this heartbeat.
            return create();
        }
        let result = create().and_then(|()| self.call(ruby, &READY, || Ok(())));
        match result {
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

    /// Returns the timeout that was read last, in nanoseconds.
    pub(crate) fn timeout(&self) -> Nanos {
        self.timeout.load(Ordering::Relaxed)
    }

    /// Returns the time and the timeout of a heartbeat, both in nanoseconds. Without a `timeout` that is the config's,
    /// which may call Ruby.
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

    /// Calls the target's `timeout`. Returns the time after that, and the timeout, both in nanoseconds.
    #[cold]
    pub(crate) fn read_timeout(&self, ruby: &Ruby) -> Result<(Nanos, Nanos), Error> {
        let timeout = Nanos::try_convert(self.call(ruby, &TIMEOUT, || Ok(()))?)?;
        let now = CoarseClock.now();
        self.timeout.store(timeout, Ordering::Relaxed);
        self.timeout_read_at.store(now, Ordering::Relaxed);
        Ok((now, timeout))
    }

    /// Calls a method of the target. `args` makes the arguments, within [`crate::protect`]: there may be no memory for
    /// them.
    pub(crate) fn call<A: ArgList>(
        &self,
        ruby: &Ruby,
        name: &'static LazyId,
        args: impl FnOnce() -> Result<A, Error>,
    ) -> Result<Value, Error> {
        funcall(ruby.get_inner(self.object), LazyId::get_inner_with(name, ruby), || {
            #[cfg(feature = "faults")]
            crate::faults::allocate();
            args()
        })
    }
}
