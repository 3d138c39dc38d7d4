//! Forks: every process has a tracker of its own, or with a store a member of it.
//!
//! A child of `fork` gets a copy of its parent's memory, but of its threads only the one that forked.
//! The copied tracker may be locked for ever or half changed, and its pipe is the parent's. So it is
//! never touched again, not even to free it: the child starts an era of its own, with nobody online.

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use magnus::{Error, Ruby, exception::ExceptionClass};

use crate::pipe::{Pipe, SharedPipe};

/// How many forks lie between this process and the one that loaded the extension, plus one.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// The present generation. Whoever is about to take a tracker's lock compares it first.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Counts this process' forks from now on, in the child.
pub(crate) fn count_forks(ruby: &Ruby) -> Result<(), Error> {
    // `system` and backticks may really fork too, and other threads' locks are as they were: an
    // addition is all that may be done here.
    extern "C" fn count() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: `count` is a function for the life of the process (Ruby unloads no extension), and does
    // nothing that is not allowed between fork and exec.
    match unsafe { libc::pthread_atfork(None, None, Some(count)) } {
        0 => Ok(()),
        code => Err(system_error(ruby, "pthread_atfork", &std::io::Error::from_raw_os_error(code))),
    }
}

/// A tracker, or whatever else only the process that made it may touch, and its pipe.
pub(crate) struct ProcessValue<T> {
    generation: u64,
    inner: ManuallyDrop<T>,
    pipe: ManuallyDrop<Arc<Pipe>>,
    next: ProcessLocal<T>,
}

/// The eras of one manager: the one of the process that made it, then those of its children,
/// grandchildren and so on.
pub(crate) struct ProcessLocal<T>(OnceLock<Box<ProcessValue<T>>>);

impl<T> Default for ProcessLocal<T> {
    fn default() -> ProcessLocal<T> {
        ProcessLocal(OnceLock::new())
    }
}

impl<T> ProcessLocal<T> {
    /// This process' era, if it has begun.
    #[inline]
    pub(crate) fn current(&self) -> Option<&ProcessValue<T>> {
        let generation = generation();
        let mut eras = self;
        loop {
            let era = eras.0.get()?;
            if era.generation == generation {
                return Some(era);
            }
            eras = &era.next;
        }
    }

    /// The era that began last, perhaps in a process that this one was forked from.
    pub(crate) fn latest(&self) -> Option<&ProcessValue<T>> {
        let mut latest = self.0.get()?;
        while let Some(later) = latest.next.0.get() {
            latest = later;
        }
        Some(latest)
    }

    /// This process' era; begins it if need be. Only called with the GVL held, which is not given up
    /// here, so no thread can be left behind in the middle of it by a fork.
    pub(crate) fn begin(
        &self,
        ruby: &Ruby,
        make: impl FnOnce(SharedPipe) -> std::io::Result<T>,
    ) -> Result<&ProcessValue<T>, Error> {
        if let Some(era) = self.current() {
            return Ok(era);
        }
        let era = ProcessValue::new(make).map_err(|error| system_error(ruby, "starting the timer thread", &error))?;
        let mut eras = self;
        while let Some(earlier) = eras.0.get() {
            eras = &earlier.next;
        }
        Ok(eras.0.get_or_init(|| Box::new(era)))
    }
}

impl<T> ProcessValue<T> {
    fn new(make: impl FnOnce(SharedPipe) -> std::io::Result<T>) -> std::io::Result<ProcessValue<T>> {
        let pipe = Arc::new(Pipe::new()?);
        let inner = make(SharedPipe(Arc::clone(&pipe)))?;
        Ok(ProcessValue {
            generation: generation(),
            inner: ManuallyDrop::new(inner),
            pipe: ManuallyDrop::new(pipe),
            next: ProcessLocal::default(),
        })
    }

    /// Whether the process is still the one that began this era.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.generation == generation()
    }

    /// What the era is for.
    #[inline]
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }

    pub(crate) fn duplicate_reader(&self, ruby: &Ruby) -> Result<RawFd, Error> {
        self.pipe.duplicate_reader().map_err(|error| system_error(ruby, "duplicating the wakeup pipe", &error))
    }
}

impl<T> Drop for ProcessValue<T> {
    fn drop(&mut self) {
        if self.is_current() {
            // SAFETY: neither field is used again; this is the era's own destructor.
            unsafe {
                ManuallyDrop::drop(&mut self.inner);
                ManuallyDrop::drop(&mut self.pipe);
            }
        }
    }
}

/// An error of the operating system as Ruby knows it.
pub(crate) fn system_error(ruby: &Ruby, doing: &str, error: &std::io::Error) -> Error {
    Error::new(
        error_class(ruby, "Error"),
        format!("{doing} failed: {error}; check the limits of the process (ulimit -a)"),
    )
}

/// One of the gem's own classes of errors.
pub(crate) fn error_class(ruby: &Ruby, name: &str) -> ExceptionClass {
    let class: Option<ExceptionClass> = ruby.eval(&format!("OnlineManager::{name}")).ok();
    class.unwrap_or_else(|| ruby.exception_runtime_error())
}
