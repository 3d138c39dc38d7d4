//! Forks: every process has a tracker of its own.
//!
//! A child of `fork` gets a copy of its parent's memory, but of its threads only the one that forked.
//! The copied tracker may be locked for ever or half changed, and its pipe is the parent's. So it is
//! never touched again, not even to free it: the child starts an era of its own, with nobody online.

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use magnus::{Error, Ruby, exception::ExceptionClass};
use online_manager_tracker::Tracker;

use crate::clock::CoarseClock;
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

/// A tracker and its pipe, in the process that made them.
pub(crate) struct Era {
    generation: u64,
    tracker: ManuallyDrop<Tracker<CoarseClock, SharedPipe>>,
    pipe: ManuallyDrop<Arc<Pipe>>,
    next: Eras,
}

/// The eras of one manager: the one of the process that made it, then those of its children,
/// grandchildren and so on.
#[derive(Default)]
pub(crate) struct Eras(OnceLock<Box<Era>>);

impl Eras {
    /// This process' era, if it has begun.
    #[inline]
    pub(crate) fn current(&self) -> Option<&Era> {
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

    /// This process' era; begins it if need be. Only called with the GVL held, which is not given up
    /// here, so no thread can be left behind in the middle of it by a fork.
    pub(crate) fn begin(&self, ruby: &Ruby) -> Result<&Era, Error> {
        if let Some(era) = self.current() {
            return Ok(era);
        }
        let era = Era::new().map_err(|error| system_error(ruby, "starting the timer thread", &error))?;
        let mut eras = self;
        while let Some(earlier) = eras.0.get() {
            eras = &earlier.next;
        }
        Ok(eras.0.get_or_init(|| Box::new(era)))
    }
}

impl Era {
    fn new() -> std::io::Result<Era> {
        let pipe = Arc::new(Pipe::new()?);
        let tracker = Tracker::start(CoarseClock, SharedPipe(Arc::clone(&pipe)))?;
        Ok(Era {
            generation: generation(),
            tracker: ManuallyDrop::new(tracker),
            pipe: ManuallyDrop::new(pipe),
            next: Eras::default(),
        })
    }

    /// Whether the process is still the one that began this era.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.generation == generation()
    }

    #[inline]
    pub(crate) fn tracker(&self) -> &Tracker<CoarseClock, SharedPipe> {
        &self.tracker
    }

    pub(crate) fn duplicate_reader(&self, ruby: &Ruby) -> Result<RawFd, Error> {
        self.pipe.duplicate_reader().map_err(|error| system_error(ruby, "duplicating the wakeup pipe", &error))
    }
}

impl Drop for Era {
    fn drop(&mut self) {
        if self.is_current() {
            // SAFETY: neither field is used again; this is the era's own destructor.
            unsafe {
                ManuallyDrop::drop(&mut self.tracker);
                ManuallyDrop::drop(&mut self.pipe);
            }
        }
    }
}

/// An error of the operating system as Ruby knows it.
fn system_error(ruby: &Ruby, doing: &str, error: &std::io::Error) -> Error {
    let class = ruby.exception_runtime_error();
    let class: ExceptionClass = ruby.eval("OnlineManager::Error").unwrap_or(class);
    Error::new(class, format!("{doing}: {error}"))
}
