//! Forks: each process has a tracker, or a member of a store, of its own.
//!
//! A child of `fork` gets a copy of its parent's memory, but only the thread that forked. The copied tracker may be
//! locked for ever or half changed, and its pipe is the parent's. So the child does not use that copy. It creates a
//! value of its own, with nobody online; then it closes its copies of the pipe's descriptors, and frees what no thread
//! had locked.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

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

/// A tracker or a member.
pub(crate) trait Inherited {
    /// Frees the parent's value in a child, as far as no thread had it locked at the fork: the threads are gone, and
    /// their locks stay taken.
    fn abandon(self);
}

/// A tracker or a member, which only the process that created it may touch, and its wakeup pipe.
pub(crate) struct ProcessValue<T: Inherited> {
    generation: u64,
    value: ManuallyDrop<T>,
    pipe: ManuallyDrop<Arc<Pipe>>,
    /// What is left of the parent's: a call that was running at the fork may still ask it [`ProcessValue::is_current`].
    /// About a hundred bytes for each generation. Null in the first process.
    parent: *mut ProcessValue<T>,
}

/// One manager's value for each process: that of this process, or of the latest ancestor that had one.
pub(crate) struct ProcessLocal<T: Inherited>(AtomicPtr<ProcessValue<T>>);

impl<T: Inherited> Default for ProcessLocal<T> {
    fn default() -> ProcessLocal<T> {
        ProcessLocal(AtomicPtr::new(ptr::null_mut()))
    }
}

impl<T: Inherited> ProcessLocal<T> {
    /// Returns this process' value, if it has been created.
    #[inline]
    pub(crate) fn current(&self) -> Option<&ProcessValue<T>> {
        self.latest().filter(|value| value.is_current())
    }

    /// Returns the value that was created last, which may be an ancestor's.
    #[inline]
    pub(crate) fn latest(&self) -> Option<&ProcessValue<T>> {
        // SAFETY: the pointer is null or that of a box that lives as long as this value does: see `get_or_init`.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Returns this process' value; creates it if need be, and frees the parent's. Fails when the operating system has
    /// no pipe or thread to give.
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
        let mut value = ProcessValue::new(create)
            .map_err(|error| system_error(ruby, "starting the manager in this process", &error))?;
        let parent = self.0.load(Ordering::Acquire);
        if !parent.is_null() {
            // SAFETY: the pointer came out of `Box::into_raw`, below. The box keeps its place, so references to it stay
            // valid. Code that has one asks `is_current` first, and the parent's value is not current.
            unsafe { (*parent).abandon() };
            value.parent = parent;
        }
        let value = Box::into_raw(Box::new(value));
        self.0.store(value, Ordering::Release);
        // SAFETY: as in `latest`.
        Ok(unsafe { &*value })
    }
}

impl<T: Inherited> Drop for ProcessLocal<T> {
    fn drop(&mut self) {
        let mut next = *self.0.get_mut();
        while !next.is_null() {
            // SAFETY: the pointer came out of `Box::into_raw`, and nobody has a reference any more.
            let value = unsafe { Box::from_raw(next) };
            next = value.parent;
        }
    }
}

impl<T: Inherited> ProcessValue<T> {
    fn new(create: impl FnOnce(SharedPipe) -> std::io::Result<T>) -> std::io::Result<ProcessValue<T>> {
        let pipe = Arc::new(Pipe::new()?);
        let value = create(SharedPipe(Arc::clone(&pipe)))?;
        Ok(ProcessValue {
            generation: generation(),
            value: ManuallyDrop::new(value),
            pipe: ManuallyDrop::new(pipe),
            parent: ptr::null_mut(),
        })
    }

    /// Closes the parent's pipe, and frees the parent's value as far as that is possible.
    ///
    /// # Safety
    ///
    /// Only once, in a child; nothing but [`ProcessValue::is_current`] may be called afterwards.
    unsafe fn abandon(&self) {
        // SAFETY: neither field is used again: the destructor leaves the values of an ancestor alone.
        let (value, pipe) = unsafe { (ptr::read(&self.value), ptr::read(&self.pipe)) };
        pipe.silence();
        ManuallyDrop::into_inner(value).abandon();
        // SAFETY: `abandon` has dropped or leaked the value, which had the only other reference.
        unsafe { ManuallyDrop::into_inner(pipe).close_in_child() };
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

impl<T: Inherited> Deref for ProcessValue<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Inherited> Drop for ProcessValue<T> {
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
