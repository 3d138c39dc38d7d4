//! Which file or folder of a store this process may not use. SQLite says of all of these that it is unable to open the file, or
//! that the database is read-only.
#![allow(unsafe_code, reason = "the operating system's check of permissions")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files::{beside, folder_of};

/// Returns what this process may not do with the files of a store, and what to do about it; `None` if it may do all.
pub(super) fn refusal(file: &Path) -> Option<String> {
    let folder = folder_of(file);
    let mut above: Vec<&Path> = folder.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    above.reverse();
    let above = above.into_iter().map(|path| (path, libc::X_OK, "enter the folder"));
    let (wal, index) = (beside(file, "-wal"), beside(file, "-shm"));
    let files = [file, &wal, &index].map(|path| (path, libc::R_OK | libc::W_OK, "read and write the file"));
    above
        .chain(files)
        .chain([(folder, libc::W_OK | libc::X_OK, "write the folder")])
        .find_map(|(path, mode, what)| refused(path, access(path, mode).err()?.raw_os_error()?, what))
}

/// Says why something is refused; `None` if it is not for a lack of permission.
fn refused(path: &Path, error: i32, what: &str) -> Option<String> {
    let owner = std::fs::metadata(path)
        .map_or_else(|_| String::new(), |file| format!(" (mode {:03o}, of uid {})", file.mode() & 0o7777, file.uid()));
    match error {
        libc::EACCES | libc::EPERM => Some(format!(
            "this process (uid {}) may not {what} {}{owner}. Give its user permission for the file, what SQLite keeps beside it, \
             and their folder, with chown or chmod",
            // SAFETY: it has no arguments and cannot fail.
            unsafe { libc::geteuid() },
            path.display()
        )),
        libc::EROFS => Some(format!(
            "this process may not {what} {}: its file system is mounted read-only. Put the file on another one",
            path.display()
        )),
        _ => None,
    }
}

/// Fails if this process may not use a file or a folder in this mode.
fn access(path: &Path, mode: i32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the pointer is to a string that ends in a NUL and lives until the call returns.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_file_the_process_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.sqlite3");
        std::fs::write(&file, "").unwrap();
        assert_eq!(refusal(&file), None);
        let message = refused(&file, libc::EACCES, "read and write the file").unwrap();
        assert!(
            message.contains("(uid ") && message.contains("/p.sqlite3 (mode 6") && message.contains("chmod"),
            "{message}"
        );
        assert!(refused(&file, libc::EROFS, "write the folder").unwrap().contains("mounted read-only"));
        assert_eq!(refused(&file, libc::ENOENT, "read and write the file"), None);
    }
}
