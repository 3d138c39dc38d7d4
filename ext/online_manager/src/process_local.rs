//! Forks: each process has a tracker, or a member of a store, of its own.
//!
//! A child of `fork` gets a copy of its parent's memory, but only the thread that forked. The copied tracker may be
//! locked for ever or half changed, and its pipe is the parent's. So the child never touches that copy, not even to
//! free it. It creates a value of its own, with nobody online.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use magnus::{Error, Ruby};

use crate::error::system_error;
use crate::pipe::{Pipe, SharedPipe};

/// One more than the number of forks between the process that loaded the extension and this one.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Returns this process' generation. A value of another generation belongs to an ancestor: its lock may never be taken.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Has each fork from now on count up the child's generation.
pub(crate) fn count_forks(ruby: &Ruby) -> Result<(), Error> {
    // `system` and backticks may really fork too, with other threads' locks in any state. So the child does nothing
    // here but an addition.
    extern "C" fn count() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: `count` lives as long as the process (Ruby unloads no extension), and does nothing that is forbidden
    // between fork and exec.
    match unsafe { libc::pthread_atfork(None, None, Some(count)) } {
        0 => Ok(()),
        code => Err(system_error(ruby, "pthread_atfork", &std::io::Error::from_raw_os_error(code))),
    }
}

/// A tracker or a member, which only the process that created it may touch, and its wakeup pipe.
pub(crate) struct ProcessValue<T> {
    generation: u64,
    value: ManuallyDrop<T>,
    pipe: ManuallyDrop<Arc<Pipe>>,
    /// The value of a child process.
    next: ProcessLocal<T>,
}

/// One manager's value for each process: a list that begins with the value of the process that created the manager, and
/// goes on with those of its child, its grandchild and so on.
pub(crate) struct ProcessLocal<T>(OnceLock<Box<ProcessValue<T>>>);

impl<T> Default for ProcessLocal<T> {
    fn default() -> ProcessLocal<T> {
        ProcessLocal(OnceLock::new())
    }
}

impl<T> ProcessLocal<T> {
    /// Returns this process' value, if it has been created.
    #[inline]
    pub(crate) fn current(&self) -> Option<&ProcessValue<T>> {
        let generation = generation();
        let mut list = self;
        loop {
            let value = list.0.get()?;
            if value.generation == generation {
                return Some(value);
            }
            list = &value.next;
        }
    }

    /// Returns the value that was created last, which may be an ancestor's.
    pub(crate) fn latest(&self) -> Option<&ProcessValue<T>> {
        let mut latest = self.0.get()?;
        while let Some(later) = latest.next.0.get() {
            latest = later;
        }
        Some(latest)
    }

    /// Returns this process' value; creates it if need be. Fails when the operating system has no pipe or thread to
    /// give.
    ///
    /// The caller holds the GVL, which is not released here. So no fork can interrupt another thread that is in here.
    pub(crate) fn get_or_init(
        &self,
        ruby: &Ruby,
        create: impl FnOnce(SharedPipe) -> std::io::Result<T>,
    ) -> Result<&ProcessValue<T>, Error> {
        if let Some(value) = self.current() {
            return Ok(value);
        }
        let value = ProcessValue::new(create)
            .map_err(|error| system_error(ruby, "starting the manager in this process", &error))?;
        let mut list = self;
        while let Some(earlier) = list.0.get() {
            list = &earlier.next;
        }
        Ok(list.0.get_or_init(|| Box::new(value)))
    }
}

impl<T> ProcessValue<T> {
    fn new(create: impl FnOnce(SharedPipe) -> std::io::Result<T>) -> std::io::Result<ProcessValue<T>> {
        let pipe = Arc::new(Pipe::new()?);
        let value = create(SharedPipe(Arc::clone(&pipe)))?;
        Ok(ProcessValue {
            generation: generation(),
            value: ManuallyDrop::new(value),
            pipe: ManuallyDrop::new(pipe),
            next: ProcessLocal::default(),
        })
    }

    /// Returns whether this process created the value. False in a child, after a callback has forked.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.generation == generation()
    }

    /// Returns a duplicate of the wakeup pipe's read end. The caller closes it.
    pub(crate) fn duplicate_reader(&self, ruby: &Ruby) -> Result<RawFd, Error> {
        self.pipe.duplicate_reader().map_err(|error| system_error(ruby, "duplicating the wakeup pipe", &error))
    }
}

impl<T> Deref for ProcessValue<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for ProcessValue<T> {
    fn drop(&mut self) {
        if self.is_current() {
            // SAFETY: this is the destructor, so neither field is used again.
            unsafe {
                ManuallyDrop::drop(&mut self.value);
                ManuallyDrop::drop(&mut self.pipe);
            }
        }
    }
}
