//! The wakeup pipe: readable while somebody can be claimed, so that Ruby waits with `IO#wait_readable`.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use online_manager_tracker::Signal;

/// Both ends, closed on exec and non-blocking. Ruby gets duplicates, so whatever Ruby closes, no
/// write of ours meets a closed or reused descriptor, and none raises SIGPIPE.
pub(crate) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    /// Whether there is a byte in the pipe. Changed under the tracker's lock only.
    raised: AtomicBool,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Pipe> {
        let (reader, writer) = io::pipe()?;
        set_nonblocking(reader.as_raw_fd())?;
        set_nonblocking(writer.as_raw_fd())?;
        Ok(Pipe { reader, writer, raised: AtomicBool::new(false) })
    }

    /// A duplicate of the end to wait on. It is the caller's to close.
    pub(crate) fn duplicate_reader(&self) -> io::Result<RawFd> {
        Ok(self.reader.try_clone()?.into_raw_fd())
    }
}

impl Signal for Pipe {
    fn raise(&self) {
        if !self.raised.swap(true, Ordering::Relaxed) {
            // Never full: there is one byte at the most. An interrupted write is tried again by `write_all`.
            let written = (&self.writer).write_all(b"!");
            debug_assert!(written.is_ok());
        }
    }

    fn clear(&self) {
        if self.raised.swap(false, Ordering::Relaxed) {
            let read = (&self.reader).read_exact(&mut [0]);
            debug_assert!(read.is_ok());
        }
    }
}

/// The tracker and whoever asks for a descriptor share the pipe.
pub(crate) struct SharedPipe(pub(crate) Arc<Pipe>);

impl Signal for SharedPipe {
    fn raise(&self) {
        self.0.raise();
    }

    fn clear(&self) {
        self.0.clear();
    }
}

fn set_nonblocking(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open and ours; the calls touch no memory.
    let done = unsafe {
        let flags = libc::fcntl(descriptor, libc::F_GETFL);
        flags >= 0 && libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
