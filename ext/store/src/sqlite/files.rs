//! The files of a store: which ones a connection has open, and why a path cannot be that of a store.
#![allow(unsafe_code, reason = "the lock of a folder")]

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::permissions::refusal;
use crate::error::StoreError;

/// A file's device and inode.
type FileId = (u64, u64);

/// The files that a connection has open: the database, its write-ahead log, and the index of that, which holds the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIds {
    database: FileId,
    wal: FileId,
    index: FileId,
}

impl FileIds {
    /// Returns the files at a path without links; `None` if any of them is missing.
    fn at(path: &Path) -> Option<FileIds> {
        let (wal, index) = (beside(path, "-wal"), beside(path, "-shm"));
        Some(FileIds { database: file_id(path)?, wal: file_id(&wal)?, index: file_id(&index)? })
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

/// Returns the path of a file that SQLite keeps beside the database: where that is, not where a link to it is.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// How many links Linux follows. Of a longer chain, opening the file says what is wrong.
const MAX_LINKS: usize = 40;

/// Returns the path that a path leads to, without links. The file itself may be missing: then it is where SQLite would create
/// it.
pub(super) fn resolve(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&path) {
            // A relative target begins at the folder of the link.
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => break,
        }
    }
    match (std::fs::canonicalize(folder_of(&path)), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

/// Returns the folder of a file.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The open connections of this process, with its id: a forked child has none of its parent's.
static OPEN: Mutex<Vec<(u32, FileIds)>> = Mutex::new(Vec::new());

/// An entry of [`OPEN`].
struct OpenEntry(u32, FileIds);

impl Drop for OpenEntry {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        if let Some(place) = open.iter().position(|entry| *entry == (self.0, self.1)) {
            open.swap_remove(place);
        }
    }
}

/// A connection that knows its files.
pub(super) struct OpenFile {
    /// The path as the operator wrote it. A link in it may be led elsewhere while the file is open.
    path: PathBuf,
    /// Where the file was when it was opened: the path without links.
    file: PathBuf,
    connection: Connection,
    /// Its files, as soon as they are recorded. Dropped after the connection is closed.
    entry: Option<OpenEntry>,
}

impl OpenFile {
    /// Opens the database at `file`, to which [`check_path`] says that `path` leads. [`OpenFile::record`] must follow as soon
    /// as it is in WAL mode.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if another connection of this process still has deleted files open: SQLite gives all
    /// connections of a process the same index, so that this one would not see what other processes write.
    pub(super) fn open(path: &Path, file: PathBuf, flags: OpenFlags) -> Result<OpenFile, StoreError> {
        check_others((path, &file), &OPEN.lock())?;
        let connection =
            Connection::open_with_flags(&file, flags).map_err(|error| store_error(path, "opened", &error))?;
        Ok(OpenFile { path: path.to_owned(), file, connection, entry: None })
    }

    /// Records the files that the connection has open.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if one of them is missing; see also [`OpenFile::open`].
    pub(super) fn record(&mut self) -> Result<(), StoreError> {
        let mut open = OPEN.lock();
        check_others((&self.path, &self.file), &open)?;
        let Some(ids) = FileIds::at(&self.file) else { return Err(deleted(&self.path)) };
        let process = std::process::id();
        open.push((process, ids));
        self.entry = Some(OpenEntry(process, ids));
        Ok(())
    }

    /// Closes the connection. What is left is of no use but to be replaced.
    pub(super) fn close(&mut self) -> rusqlite::Result<()> {
        let (path, file) = (self.path.clone(), self.file.clone());
        *self = OpenFile { path, file, connection: Connection::open_in_memory()?, entry: None };
        Ok(())
    }

    /// Closes the connection to a write-ahead log that was deleted or replaced, and deletes the index of that log if it is still
    /// there: a new connection would look up in it what the new log does not have, and the database would be damaged.
    pub(super) fn close_stale(&mut self) -> rusqlite::Result<()> {
        let before = self.entry.as_ref().map(|entry| entry.1);
        self.close()?;
        // Another process may do the same. One that has noticed opens the new files after it was here: so the index that is
        // deleted is never a new one.
        let folder = File::open(folder_of(&self.file)).ok();
        if let Some(folder) = &folder {
            // SAFETY: the descriptor is open. The lock ends when it is closed.
            unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX) };
        }
        let (wal, index) = (beside(&self.file, "-wal"), beside(&self.file, "-shm"));
        if let Some(before) = before
            && file_id(&self.file) == Some(before.database)
            && file_id(&wal) != Some(before.wal)
            && file_id(&index) == Some(before.index)
        {
            // If that fails, opening the store says why.
            let _ = std::fs::remove_file(index);
        }
        Ok(())
    }

    /// Whether the path still leads to the files that the connection has open. A link that was led elsewhere is one more way
    /// to replace the file.
    pub(super) fn is_current(&self) -> bool {
        let leads_here = |ids: &FileIds| self.path == self.file || file_id(&self.path) == Some(ids.database);
        self.entry.as_ref().is_some_and(|entry| FileIds::at(&self.file) == Some(entry.1) && leads_here(&entry.1))
    }

    /// Returns the size of the write-ahead log in bytes.
    pub(super) fn wal_size(&self) -> u64 {
        std::fs::metadata(beside(&self.file, "-wal")).map_or(0, |file| file.len())
    }
}

/// Fails if a connection of this process has files open that were deleted.
fn check_others((path, file): (&Path, &Path), open: &[(u32, FileIds)]) -> Result<(), StoreError> {
    let (process, database, ids) = (std::process::id(), file_id(file), FileIds::at(file));
    let is_stale = |ids_of_other: &FileIds| Some(ids_of_other.database) == database && Some(*ids_of_other) != ids;
    if open.iter().any(|(owner, other)| *owner == process && is_stale(other)) {
        return Err(deleted(path));
    }
    Ok(())
}

fn deleted(path: &Path) -> StoreError {
    let message = format!(
        "{}: could not be opened: its -wal or -shm file was deleted while this process uses it. Wait for some seconds, in \
         which the process closes what it has open",
        path.display()
    );
    StoreError::Unavailable(message)
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.entry.is_some() && !self.is_current() {
            // The last connection copies its write-ahead log into the database, where others may have written since.
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

impl Deref for OpenFile {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for OpenFile {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Returns where the file of a path is, without links. Fails if it cannot be there. SQLite's own message for all of these is
/// "unable to open database file".
pub(super) fn check_path(path: &Path) -> Result<PathBuf, StoreError> {
    let file = resolve(path);
    let link = if path.is_symlink() { format!("it is a link to {}: ", file.display()) } else { String::new() };
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{}: {link}{what}", path.display())));
    if path.file_name().is_none() && !path.is_dir() {
        return misconfigured("the path names no file; expected the path of an SQLite file".into());
    }
    if file.is_dir() {
        return misconfigured("this is a folder; expected an SQLite file, or none".into());
    }
    if file.is_symlink() {
        return misconfigured("its links cannot be followed; expected a link that leads to a file".into());
    }
    let folder = folder_of(&file);
    match std::fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => {
            misconfigured(format!("{} is not a folder; expected the file's folder", folder.display()))
        }
        Ok(_) if !file.exists() => match refusal(&file) {
            Some(refusal) => misconfigured(format!("the file does not exist, and cannot be created: {refusal}")),
            None => Ok(file),
        },
        Ok(_) => Ok(file),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => misconfigured(format!(
            "its folder cannot be reached: {}",
            refusal(&file).unwrap_or_else(|| error.to_string())
        )),
        Err(error) => misconfigured(format!(
            "its folder cannot be reached: {error}. Create the folder; the file is created with the first use"
        )),
    }
}

/// Turns an error of SQLite into one for the operator. `action` is what the file could not be: "opened", "read",
/// "written".
pub(super) fn store_error(path: &Path, action: &str, error: &rusqlite::Error) -> StoreError {
    let message = format!("{}: could not be {action}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            StoreError::Misconfigured(match refusal(&resolve(path)) {
                Some(refusal) => format!("{}: could not be {action}: {refusal}", path.display()),
                None => message,
            })
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Misconfigured(message),
        Some(ErrorCode::SystemIoFailure) => StoreError::Unavailable(format!(
            "{message}. Check the disk. If the file's -wal or -shm was deleted, the process that still has it open mends that \
             as soon as it goes on; if that process stands still, end it"
        )),
        _ => StoreError::Unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn an_error_of_the_disk_says_what_else_it_may_be() {
        let error = rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_IOERR_SHORT_READ),
            Some("disk I/O error".into()),
        );
        let StoreError::Unavailable(message) = store_error(Path::new("p.db"), "read", &error) else {
            panic!("it may be over soon")
        };
        assert!(message.starts_with("p.db: could not be read: disk I/O error. Check the disk. "), "{message}");
        assert!(message.contains("-wal or -shm was deleted"), "{message}");
    }
}
