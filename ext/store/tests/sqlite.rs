//! What only the SQLite store does: reboots, unusable files, locks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;
use std::thread;
use std::time::Duration;

use online_manager_store::sqlite::Sqlite;
use online_manager_store::store::Sweep;
use online_manager_store::{Access, StoreError};

mod support;
use support::*;

#[test]
fn after_a_reboot_everyone_stays_online_for_one_timeout() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MILLISECOND)]);
    drop(store);
    edit(
        &folder.path(),
        "UPDATE boot SET id = 'another one'; UPDATE users SET timeout = 1000000000, sweep_at = sweep_at + 1000000000000000",
    );
    let mut store = folder.open();
    let Sweep { expired, next, .. } = sweep(&mut *store);
    assert_eq!(expired, 0);
    // A busy machine may take some time in between.
    assert!((1..=1_000 * MILLISECOND).contains(&next.unwrap()), "{next:?}");
    thread::sleep(Duration::from_nanos(next.unwrap() + 10 * MILLISECOND));
    assert_eq!(sweep(&mut *store).expired, 1);
}

fn edit(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

fn open_error(path: &Path) -> String {
    match Sqlite::open(path, "", Access::Participate) {
        Err(StoreError::Misconfigured(message)) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn unusable_files_are_refused_with_their_path() {
    let folder = Folder::new();
    let path = folder.path();
    let missing = folder.0.path().join("missing/presence.sqlite3");
    assert!(open_error(&missing).contains("its folder cannot be reached"));
    assert!(open_error(folder.0.path()).contains("this is a folder"));
    std::fs::write(&path, "This is no database, but long enough to be taken for one".repeat(40)).unwrap();
    assert!(open_error(&path).contains("file is not a database"));
    std::fs::remove_file(&path).unwrap();
    drop(folder.open());
    for (version, age) in [(1, "an older"), (3, "a newer")] {
        edit(&path, &format!("PRAGMA user_version = {version}"));
        let message = open_error(&path);
        let expected = format!("{age} version of online_manager has written the file, in format {version}");
        assert!(message.contains(&expected) && message.contains(path.to_str().unwrap()), "{message}");
    }
    edit(&path, "PRAGMA application_id = 1");
    assert!(open_error(&path).contains("of another application"));
}

#[test]
fn a_write_to_a_locked_file_fails_and_a_later_one_succeeds() {
    let folder = Folder::new();
    let mut store = folder.open();
    let locker = rusqlite::Connection::open(folder.path()).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    match store.write(&membership(MEMBER_A, MINUTE), &[heartbeat("ada", 0, MINUTE)]) {
        Err(StoreError::Unavailable(message)) => assert!(message.contains("locked"), "{message}"),
        other => panic!("{other:?}"),
    }
    locker.execute_batch("COMMIT").unwrap();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert_eq!(events(&mut *store).len(), 1);
}
