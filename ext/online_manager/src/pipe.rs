//! The wakeup pipe. It is readable while `deliver` has something to do: Ruby waits for it with `IO#wait_readable`.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use online_manager_tracker::Signal;
use online_manager_tracker::invariant::violated;

/// Both ends of the pipe, non-blocking and closed on exec. Ruby gets a duplicate: if it closes that, our writes still
/// go to an open pipe, and cause no SIGPIPE.
pub(crate) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    /// Whether there is a byte in the pipe. Changes only while the tracker (or the member's log) is locked.
    raised: AtomicBool,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Pipe> {
        let (reader, writer) = io::pipe()?;
        set_nonblocking(reader.as_fd())?;
        set_nonblocking(writer.as_fd())?;
        Ok(Pipe { reader, writer, raised: AtomicBool::new(false) })
    }

    /// In a child: writes nothing any more to the parent's pipe, which wakes the parent's reactor.
    pub(crate) fn silence(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }

    /// Closes the parent's pipe in a child, also if the parent's tracker was leaked with its reference.
    ///
    /// # Safety
    ///
    /// Every other reference to the pipe must have been leaked: neither its methods nor its destructor may run again.
    pub(crate) unsafe fn close_in_child(self: Arc<Self>) {
        if Arc::strong_count(&self) > 1 {
            for descriptor in [self.reader.as_raw_fd(), self.writer.as_raw_fd()] {
                // SAFETY: as the caller promises.
                unsafe { libc::close(descriptor) };
            }
        }
    }

    /// Returns a duplicate of the read end. The caller closes it.
    pub(crate) fn duplicate_reader(&self) -> io::Result<RawFd> {
        Ok(self.reader.try_clone()?.into_raw_fd())
    }
}

impl Signal for Pipe {
    fn raise(&self) {
        if !self.raised.swap(true, Ordering::Relaxed) {
            // The pipe is never full, since it holds one byte at most. `write_all` repeats an interrupted write.
            if (&self.writer).write_all(b"!").is_err() {
                // Not raised, so that the next time tries again: otherwise the reactor would sleep for ever.
                self.raised.store(false, Ordering::Relaxed);
                violated("the wakeup pipe is open and empty while it is not raised");
            }
        }
    }

    fn clear(&self) {
        if self.raised.swap(false, Ordering::Relaxed) && (&self.reader).read_exact(&mut [0]).is_err() {
            violated("the wakeup pipe holds a byte while it is raised");
        }
    }
}

/// The pipe, shared by the tracker (or member) and the [`crate::process_local::ProcessValue`] that duplicates its read
/// end.
pub(crate) struct SharedPipe(pub(crate) Arc<Pipe>);

impl Signal for SharedPipe {
    fn raise(&self) {
        self.0.raise();
    }

    fn clear(&self) {
        self.0.clear();
    }
}

fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptor = descriptor.as_raw_fd();
    // SAFETY: the descriptor is open, since it is borrowed. The calls touch no memory.
    let done = unsafe {
        let flags = libc::fcntl(descriptor, libc::F_GETFL);
        flags >= 0 && libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
