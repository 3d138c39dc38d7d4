//! What only the SQLite store does: reboots, unusable files, locks, lost files, full disks.
//!
//! Over 400 lines: each test is a page at most, and all share the helpers here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use online_manager_store::interrupt::Interrupt;
use online_manager_store::sqlite::Sqlite;
use online_manager_store::store::{
    Commit, Handled, LeaseRequest, Membership, PollRequest, PollResult, Store, Sweep, WriteResult,
};
use online_manager_store::{Access, StoreError, StoreUrl};

mod support;
use support::*;

#[test]
fn after_a_reboot_everyone_stays_online_for_one_timeout() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut *store);
    write(&mut *store, &soon_due("ada", MILLISECOND));
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

#[test]
fn after_a_reboot_the_wall_clock_says_when_a_user_was_last_seen() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut *store);
    write(&mut *store, &soon_due("ada", MILLISECOND));
    drop(store);
    // The heartbeat was an hour before this boot.
    let seen: i64 = rusqlite::Connection::open(folder.path())
        .unwrap()
        .query_row("SELECT seen FROM users", [], |row| row.get(0))
        .unwrap();
    edit(&folder.path(), &format!("UPDATE boot SET id = 'another one', began = began - {seen} - 60 * {MINUTE}"));
    let mut store = folder.open();
    let before_boot = |ago: u64| (ago - seen as u64) as f64 / MINUTE as f64;
    assert!((59.9..61.0).contains(&before_boot(store.snapshot().unwrap().users[&user("ada")])));
    thread::sleep(Duration::from_millis(10));
    assert_eq!(sweep(&mut *store).expired, 1);
    let events = undelivered(&mut *store);
    assert_eq!(events.len(), 2, "online in the earlier boot, and offline in this one");
    for event in events {
        assert!((59.9..61.0).contains(&before_boot(event.seen_ago)), "{event:?}");
    }
}

#[test]
fn after_a_reboot_a_wall_clock_that_was_set_back_dates_no_heartbeat_into_this_boot() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    drop(store);
    edit(&folder.path(), &format!("UPDATE boot SET id = 'another one', began = began + {}", 1_000_000 * MINUTE));
    let mut store = folder.open();
    // A heartbeat of this boot, which has waited for the store, counts.
    write(&mut *store, &[heartbeat("ada", 40 * MILLISECOND, MINUTE)]);
    assert!((40 * MILLISECOND..10_000 * MILLISECOND).contains(&store.snapshot().unwrap().users[&user("ada")]));
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
    for (version, age) in [(5, "an older"), (7, "a newer")] {
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

// -- other data ------------------------------------------------------------------------------------------------------

/// Polls as a member that knows what it learned before. Returns what it learns.
fn poll(store: &mut dyn Store, membership: &mut Membership, request: PollRequest) -> Result<PollResult, StoreError> {
    let result = store.poll(membership, &[request])?.remove(0)?;
    membership.known = vec![result.known];
    Ok(result)
}

fn written(results: Result<Vec<WriteResult>, StoreError>) -> Result<(), StoreError> {
    results?.into_iter().try_for_each(|(_, result)| result.map(|_| ()))
}

/// Copies the data as another program does, to be put back later.
fn back_up(folder: &Folder) -> PathBuf {
    let backup = folder.0.path().join("backup");
    edit(&folder.path(), &format!("VACUUM INTO '{}'", backup.display()));
    backup
}

/// Puts the data back while processes have the file open.
fn restore(folder: &Folder, backup: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", folder.path().display()));
    }
    std::fs::rename(backup, folder.path()).unwrap();
}

const FETCH: PollRequest = PollRequest { lease: LeaseRequest::Acquire, events: Some((0, 100)), ..EMPTY_POLL };

#[test]
fn older_data_are_replaced_once_and_hand_out_no_events_until_members_said_what_they_delivered() {
    for is_opened_anew in [false, true] {
        let folder = Folder::new();
        let mut store = folder.open();
        let mut member = membership(MEMBER_A, MINUTE);
        written(store.write(&member, &[heartbeat("ada", 0, MINUTE)])).unwrap();
        let backup = back_up(&folder);
        written(store.write(&member, &[heartbeat("bob", 0, MINUTE)])).unwrap();
        let before = poll(&mut *store, &mut member, FETCH).unwrap();
        assert_eq!(before.events.len(), 2);
        restore(&folder, &backup);
        if is_opened_anew {
            store = folder.open();
        }
        let error = poll(&mut *store, &mut member, FETCH).unwrap_err();
        assert!(matches!(error, StoreError::Replaced(_)), "{error:?}");
        member.known.clear();
        let after = poll(&mut *store, &mut member, FETCH).unwrap();
        assert_eq!(after.known.epoch, before.known.epoch);
        assert!(after.known.generation > before.known.epoch, "when the data were found to be older");
        assert!(after.known.last >= before.known.last);
        assert_eq!(after.events, [], "silent for a second");
        assert!(store.summary().unwrap().partitions[0].hold > MINUTE / 2);

        // The first event was delivered, by the member's word; the user may have gone offline since, so it comes again.
        let handled = Some(Handled { epoch: before.known.epoch, through: before.known.last, except: vec![] });
        poll(&mut *store, &mut member, PollRequest { handled, ..EMPTY_POLL }).unwrap();
        written(store.write(&member, &[heartbeat("ada", 0, MINUTE)])).unwrap();
        written(store.write(&member, &[heartbeat("ada", 0, MINUTE)])).unwrap();
        thread::sleep(Duration::from_millis(1_020));
        let events = poll(&mut *store, &mut member, FETCH).unwrap().events;
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(events[0].version > before.events[1].version);
    }
}

#[test]
fn data_that_go_back_to_before_a_finding_are_others_for_a_member_that_knows_the_finding() {
    let folder = Folder::new();
    let mut store = folder.open();
    let (mut one, mut other) = (membership(MEMBER_A, MINUTE), membership(MEMBER_B, MINUTE));
    written(store.write(&one, &[heartbeat("ada", 0, MINUTE)])).unwrap();
    let backup = back_up(&folder);
    let second_backup = backup.with_extension("2");
    std::fs::copy(&backup, &second_backup).unwrap();
    written(store.write(&one, &[heartbeat("bob", 0, MINUTE)])).unwrap();
    for member in [&mut one, &mut other] {
        poll(&mut *store, member, EMPTY_POLL).unwrap();
    }
    let is_replaced = |result| matches!(result, Err(StoreError::Replaced(_)));

    restore(&folder, &backup);
    assert!(is_replaced(poll(&mut *store, &mut one, EMPTY_POLL)));
    one.known.clear();
    poll(&mut *store, &mut one, EMPTY_POLL).unwrap();
    restore(&folder, &second_backup);
    assert!(is_replaced(poll(&mut *store, &mut other, EMPTY_POLL)));
    assert!(is_replaced(poll(&mut *store, &mut one, EMPTY_POLL)), "these data are of the second finding");
}

#[test]
fn an_event_that_a_member_could_not_deliver_stays_when_the_data_went_back() {
    let folder = Folder::new();
    let mut store = folder.open();
    let mut member = membership(MEMBER_A, MINUTE);
    written(store.write(&member, &[heartbeat("ada", 0, MINUTE), heartbeat("bob", 0, MINUTE)])).unwrap();
    let events = poll(&mut *store, &mut member, FETCH).unwrap().events;
    let known = member.known[0];
    let handled = |epoch| Some(Handled { epoch, through: known.last, except: vec![events[1].number] });
    poll(&mut *store, &mut member, PollRequest { handled: handled(known.epoch + 1), ..EMPTY_POLL }).unwrap();
    assert_eq!(store.undelivered_events().unwrap().len(), 2, "of other data");
    poll(&mut *store, &mut member, PollRequest { handled: handled(known.epoch), ..EMPTY_POLL }).unwrap();
    let left: Vec<_> = store.undelivered_events().unwrap().iter().map(|event| event.number).collect();
    assert_eq!(left, [events[1].number]);
}

#[test]
fn an_empty_file_in_place_of_the_store_is_noticed() {
    for is_opened_anew in [false, true] {
        let folder = Folder::new();
        let mut store = folder.open();
        let mut member = membership(MEMBER_A, MINUTE);
        written(store.write(&member, &[heartbeat("ada", 0, MINUTE)])).unwrap();
        let before = poll(&mut *store, &mut member, FETCH).unwrap();
        let empty = folder.0.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        restore(&folder, &empty);
        if is_opened_anew {
            store = folder.open();
        }
        let error = written(store.write(&member, &[heartbeat("ada", 0, MINUTE)])).unwrap_err();
        assert!(matches!(error, StoreError::Replaced(_)), "{error:?}");
        member.known.clear();
        poll(&mut *store, &mut member, FETCH).unwrap();
        written(store.write(&member, &[heartbeat("ada", 0, MINUTE)])).unwrap();
        let after = poll(&mut *store, &mut member, FETCH).unwrap();
        assert!(after.known.epoch > before.known.epoch && after.events[0].version > before.events[0].version);
    }
}

/// Asks the file by another process.
fn ask(path: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").args(["-cmd", ".timeout 2000"]).arg(path).arg(sql).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_write_ahead_log_that_is_deleted_is_noticed_and_healed() {
    for suffixes in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let folder = Folder::new();
        let (mut one, mut other) = (folder.open(), folder.open());
        let mut members = [MEMBER_A, MEMBER_B].map(|token| membership(token, MINUTE));
        written(one.write(&members[0], &[heartbeat("ada", 0, MINUTE)])).unwrap();
        poll(&mut *one, &mut members[0], EMPTY_POLL).unwrap();
        poll(&mut *other, &mut members[1], EMPTY_POLL).unwrap();
        for suffix in suffixes {
            std::fs::remove_file(format!("{}{suffix}", folder.path().display())).unwrap();
        }
        let [a, b] = &mut members;
        let mut heard = [0, 0];
        let limit = Instant::now() + Duration::from_secs(10);
        let mut is_good = [false, false];
        while is_good != [true, true] {
            assert!(Instant::now() < limit, "{suffixes:?}: {heard:?}");
            for (place, (store, member)) in [(&mut one, &mut *a), (&mut other, &mut *b)].into_iter().enumerate() {
                match poll(&mut **store, member, EMPTY_POLL) {
                    Ok(_) => is_good[place] = true,
                    Err(StoreError::Replaced(_)) => {
                        heard[place] += 1;
                        member.known.clear();
                    }
                    // The other connection still has the deleted file.
                    Err(StoreError::Unavailable(message)) => assert!(message.contains("-wal or -shm"), "{message}"),
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        assert_eq!(heard, [1, 1], "{suffixes:?}");
        written(one.write(a, &[heartbeat("ada", 0, MINUTE)])).unwrap();
        written(other.write(b, &[heartbeat("bob", 0, MINUTE)])).unwrap();
        assert_eq!(one.snapshot().unwrap().users.len(), 2);
        assert_eq!(ask(&folder.path(), "SELECT count(*) FROM users; PRAGMA integrity_check"), "2\nok");
    }
}

#[test]
fn a_member_hears_of_a_deleted_log_though_another_connection_delays_it() {
    let folder = Folder::new();
    let (mut store, idle) = (folder.open(), folder.open());
    let mut member = membership(MEMBER_A, MINUTE);
    poll(&mut *store, &mut member, EMPTY_POLL).unwrap();
    assert!(!store.recover());
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", folder.path().display())).unwrap();
    }
    let error = poll(&mut *store, &mut member, EMPTY_POLL).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    drop(idle);
    assert!(store.recover());
    let error = poll(&mut *store, &mut member, EMPTY_POLL).unwrap_err();
    assert!(matches!(error, StoreError::Replaced(_)), "{error:?}");
    member.known.clear();
    poll(&mut *store, &mut member, EMPTY_POLL).unwrap();
    assert!(!store.recover());
}

// -- inspecting ------------------------------------------------------------------------------------------------------

fn inspect(folder: &Folder, namespace: &str) -> Result<Box<dyn Store>, StoreError> {
    StoreUrl::parse(&folder.url()).unwrap().open(namespace, Access::Inspect, &Interrupt::default())
}

fn missing<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Missing(message)) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it is there"),
    }
}

fn files(folder: &Folder) -> Vec<String> {
    let names =
        std::fs::read_dir(folder.0.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn who_only_asks_creates_nothing() {
    let folder = Folder::new();
    let url = StoreUrl::parse(&folder.url()).unwrap();
    let path = folder.path();
    assert!(missing(inspect(&folder, "chat")).starts_with(path.to_str().unwrap()));
    assert!(missing(url.namespaces(&Interrupt::default())).contains("no such store"));
    assert_eq!(files(&folder), [""; 0]);
    std::fs::write(&path, "").unwrap();
    missing(inspect(&folder, "chat"));
    assert_eq!(std::fs::read(&path).unwrap(), b"");

    drop(folder.try_open("chat").unwrap());
    drop(folder.try_open("").unwrap());
    let before = std::fs::read(&path).unwrap();
    let message = missing(inspect(&folder, "chta"));
    assert!(
        message.contains("\"chta\"") && message.contains("there are the one without a name and \"chat\""),
        "{message}"
    );
    assert_eq!(url.namespaces(&Interrupt::default()).unwrap(), ["", "chat"]);
    assert_eq!(inspect(&folder, "chat").unwrap().snapshot().unwrap().users.len(), 0);
    assert_eq!(files(&folder), ["presence.sqlite3"]);
    assert!(std::fs::read(&path).unwrap() == before);
    let folder_is_missing = Sqlite::open(&folder.0.path().join("no/file"), "", Access::Inspect);
    assert!(matches!(folder_is_missing, Err(StoreError::Misconfigured(_))));
}

#[test]
fn an_inspected_namespace_that_is_purged_is_missing() {
    let folder = Folder::new();
    write(&mut *folder.open(), &[heartbeat("ada", 0, MINUTE)]);
    let mut store = inspect(&folder, "").unwrap();
    assert!(store.purge(false).unwrap());
    assert!(missing(store.snapshot()).contains("there is none yet"));
    missing(store.purge(false));
    missing(store.requeue_dead_letters());
}

#[test]
fn times_of_another_boot_are_not_shown() {
    let folder = Folder::new();
    let mut store = folder.open();
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    store.register(&membership(MEMBER_A, MINUTE)).unwrap();
    write(&mut *store, &[heartbeat("ada", MINUTE, 2 * MINUTE)]);
    drop(store);
    edit(&folder.path(), "UPDATE boot SET id = 'another one'");
    let mut store = inspect(&folder, "").unwrap();
    assert_eq!(store.snapshot().unwrap().users[&user("ada")], 0);
    let summary = store.summary().unwrap();
    assert_eq!((summary.members, summary.partitions[0].lease_holder.clone()), (vec![], None));
    assert!(store.purge(false).unwrap(), "no member of that boot lives");
}

// -- space -----------------------------------------------------------------------------------------------------------

fn size(path: &Path, suffix: &str) -> u64 {
    std::fs::metadata(format!("{}{suffix}", path.display())).map_or(0, |file| file.len())
}

/// Polls as the lease holder until the condition holds.
fn poll_until(store: &mut dyn Store, what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        assert!(acquire(store, MEMBER_A, MINUTE));
        thread::sleep(Duration::from_millis(20));
    }
}

fn crowd(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number} {}", "x".repeat(length))).collect()
}

#[test]
fn a_write_ahead_log_that_grew_is_cut_when_nobody_writes() {
    let folder = Folder::new();
    let mut store = folder.open();
    let path = folder.path();
    // As long as another program reads, the log cannot begin anew.
    let reader = rusqlite::Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM users").unwrap();
    for chunk in crowd(10_000, 500).chunks(500) {
        write(&mut *store, &chunk.iter().map(|name| heartbeat(name, 0, MINUTE)).collect::<Vec<_>>());
    }
    assert!(size(&path, "-wal") > 8_000_000, "{}", size(&path, "-wal"));
    reader.execute_batch("ROLLBACK").unwrap();
    poll_until(&mut *store, "the log is small", || size(&path, "-wal") < 300_000);
}

#[test]
fn a_file_that_grew_gives_its_space_back() {
    let folder = Folder::new();
    let mut store = folder.try_open("review app").unwrap();
    let names = crowd(10_000, 500);
    for chunk in names.chunks(500) {
        write(&mut *store, &chunk.iter().map(|name| heartbeat(name, 0, MINUTE)).collect::<Vec<_>>());
    }
    let path = folder.path();
    let mut other = folder.open();
    poll_until(&mut *other, "all is in the file", || size(&path, "-wal") < 300_000);
    let before = size(&path, "");
    assert!(before > 10_000_000, "{before}");
    // By another program, so that nothing but the lease holder of another namespace tidies up.
    ask(&path, "DELETE FROM users; DELETE FROM events");
    poll_until(&mut *other, "the file is small", || size(&path, "") < 2_000_000);
    assert_eq!(ask(&path, "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_purge_deletes_all_rows_and_gives_their_space_back() {
    let folder = Folder::new();
    let mut store = folder.try_open("review app").unwrap();
    for chunk in crowd(6_000, 500).chunks(500) {
        write(&mut *store, &chunk.iter().map(|name| heartbeat(name, 0, MINUTE)).collect::<Vec<_>>());
        write(&mut *store, &chunk.iter().map(|name| leave(name, 0, 0)).collect::<Vec<_>>());
    }
    let mut other = folder.open();
    write(&mut *other, &[heartbeat("ada", 0, MINUTE)]);
    drop(store);
    assert!(inspect(&folder, "review app").unwrap().purge(false).unwrap());
    let path = folder.path();
    assert!(size(&path, "") < 2_000_000, "{}", size(&path, ""));
    let counts = ["users", "events", "dead_letters", "notices", "namespaces"]
        .map(|table| ask(&path, &format!("SELECT count(*) FROM {table}")));
    assert_eq!(counts, ["1", "1", "0", "0", "1"]);
}

#[test]
fn a_purge_that_was_interrupted_is_finished_by_a_member() {
    let folder = Folder::new();
    let mut store = folder.try_open("review app").unwrap();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), leave("ada", 0, 0)]);
    edit(&folder.path(), "UPDATE namespaces SET name = NULL");
    let mut other = folder.open();
    let path = folder.path();
    poll_until(&mut *other, "nothing is left", || ask(&path, "SELECT count(*) FROM namespaces, (SELECT 1)") == "1");
    assert_eq!(ask(&path, "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM notices)"), "0");
    assert_eq!(StoreUrl::parse(&folder.url()).unwrap().namespaces(&Interrupt::default()).unwrap(), [""]);
}

/// A file system of 2 MB in memory; unmounted with it.
struct SmallDisk(Folder);

impl SmallDisk {
    /// Returns `None` if this user may mount nothing.
    fn new() -> Option<SmallDisk> {
        let folder = Folder::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.0.path());
        mount.output().is_ok_and(|output| output.status.success()).then(|| SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.0.path()).status();
    }
}

#[test]
fn a_write_ahead_log_fills_no_small_disk() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut store = disk.0.open();
    let names = crowd(200, 100);
    for round in 0..300 {
        let heartbeats: Vec<_> = names.iter().map(|name| heartbeat(name, 0, MINUTE + round)).collect();
        write(&mut *store, &heartbeats);
    }
    assert_eq!(store.snapshot().unwrap().users.len(), 200);
    assert_eq!(ask(&disk.0.path(), "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_full_disk_recovers_after_space_was_freed() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut store = disk.0.open();
    let ballast = disk.0.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 1_000_000]).unwrap();
    let names = crowd(4_000, 400);
    let come = |store: &mut dyn Store, from: usize| {
        let chunk: Vec<_> = names[from..from + 50].iter().map(|name| heartbeat(name, 0, MINUTE)).collect();
        written(store.write(&membership(MEMBER_A, MINUTE), &chunk))
    };
    let mut count = 0;
    // Until it is full, and stays so.
    while count < 3_000 && (0..3).any(|_| come(&mut *store, count).is_ok()) {
        count += 50;
    }
    let error = come(&mut *store, count).unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(message) if message.contains("full")), "{error:?}");
    std::fs::remove_file(&ballast).unwrap();
    come(&mut *store, count).unwrap();
    assert_eq!(store.snapshot().unwrap().users.len(), count + 50);
    assert_eq!(ask(&disk.0.path(), "PRAGMA integrity_check"), "ok");
}

// -- events ----------------------------------------------------------------------------------------------------------

#[test]
fn numbers_of_events_grow_though_the_log_is_empty() {
    let folder = Folder::new();
    let mut store = folder.open();
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let mut last = 0;
    for name in ["ada", "bob"] {
        write(&mut *store, &[heartbeat(name, 0, MINUTE)]);
        let event = undelivered(&mut *store).remove(0);
        assert!(event.number > last && event.version as u64 == event.number);
        last = event.number;
        assert!(commit(&mut *store, MEMBER_A, &[(&event, Outcome::Done)]));
    }
}

#[test]
fn the_text_of_an_error_is_cut_at_a_character() {
    let folder = Folder::new();
    let mut store = folder.open();
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), heartbeat("bob", 0, MINUTE)]);
    let events = undelivered(&mut *store);
    let text = format!("x{}", "ü".repeat(50_000));
    let failed = vec![(events[0].number, 1, text.clone())];
    let dead = vec![(events[1].number, 5, text)];
    let commit = Commit { failed, dead, ..Commit::default() };
    assert!(*store.commit(&membership(MEMBER_A, MINUTE), &[(0, commit)]).unwrap()[0].as_ref().unwrap());
    let error = store.dead_letters().unwrap().remove(0).error;
    assert_eq!((error.len(), error.ends_with('ü')), (2_047, true));
    let lengths = "SELECT length(CAST(error AS BLOB)) FROM events";
    assert_eq!(ask(&folder.path(), lengths), "2047");
}

// -- links -----------------------------------------------------------------------------------------------------------

/// A folder with `real/` and the paths of a link and of the file that it is to lead to.
fn linked(target: impl FnOnce(&Path) -> PathBuf) -> (Folder, PathBuf, PathBuf) {
    let folder = Folder::new();
    let root = folder.0.path().to_owned();
    std::fs::create_dir(root.join("real")).unwrap();
    let (link, file) = (root.join("link.sqlite3"), root.join("real/presence.sqlite3"));
    std::os::unix::fs::symlink(target(&root), &link).unwrap();
    (folder, link, file)
}

fn open_file(path: &Path) -> Sqlite {
    Sqlite::open(path, "", Access::Participate).unwrap()
}

fn names(store: &mut dyn Store) -> Vec<String> {
    let mut names: Vec<String> = store.snapshot().unwrap().users.keys().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_link_to_the_file_is_the_same_store() {
    for target in [
        |root: &Path| root.join("real/presence.sqlite3"),
        |_: &Path| PathBuf::from("real/presence.sqlite3"),
        |root: &Path| {
            std::os::unix::fs::symlink("real", root.join("folder")).unwrap();
            std::os::unix::fs::symlink("presence.sqlite3", root.join("real/other")).unwrap();
            PathBuf::from("folder/other")
        },
    ] {
        for exists in [true, false] {
            let (_folder, link, file) = linked(target);
            if exists {
                drop(open_file(&file));
            } else {
                assert!(matches!(Sqlite::open(&link, "", Access::Inspect), Err(StoreError::Missing(_))));
            }
            let mut through_link = open_file(&link);
            assert!(file.exists(), "the link's target is created");
            let mut direct = open_file(&file);
            write(&mut through_link, &[heartbeat("ada", 0, MINUTE)]);
            write(&mut direct, &[heartbeat("ben", 0, MINUTE)]);
            assert_eq!(names(&mut through_link), names(&mut direct));
            assert_eq!(names(&mut direct).len(), 2);
            drop((through_link, direct));
            assert_eq!(names(&mut open_file(&link)).len(), 2);
        }
    }
}

#[test]
fn a_link_that_leads_nowhere_says_where_it_leads() {
    let (_folder, link, _file) = linked(|root| root.join("gone/presence.sqlite3"));
    for access in [Access::Inspect, Access::Participate] {
        match Sqlite::open(&link, "", access) {
            Err(StoreError::Misconfigured(message)) => {
                assert!(message.contains("link.sqlite3: it is a link to "), "{message}");
                assert!(message.contains("gone/presence.sqlite3: its folder cannot be reached"), "{message}");
            }
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("it opened"),
        }
    }
    let (_folder, link, _file) = linked(|_| PathBuf::from("link.sqlite3"));
    let message = open_error(&link);
    assert!(message.contains("its links cannot be followed"), "{message}");
}

#[test]
fn a_link_that_is_led_elsewhere_is_a_file_that_was_replaced() {
    let (folder, link, file) = linked(|_| PathBuf::from("real/presence.sqlite3"));
    let mut store = open_file(&link);
    write(&mut store, &[heartbeat("ada", 0, MINUTE)]);
    let member = knowing(&mut store, MEMBER_A, MINUTE);
    let other = folder.0.path().join("real/other.sqlite3");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let result = written(store.write(&member, &[heartbeat("ben", 0, MINUTE)]));
    assert!(matches!(result, Err(StoreError::Replaced(_))), "{result:?}");
    write(&mut store, &[heartbeat("ben", 0, MINUTE)]);
    assert_eq!(names(&mut store), names(&mut open_file(&other)));
    assert_eq!((names(&mut store), names(&mut open_file(&file))), (vec!["ben".into()], vec!["ada".into()]));
}

#[test]
fn a_link_whose_file_vanishes_leads_to_a_new_one() {
    for suffix in ["", "-wal", "-shm"] {
        let (_folder, link, file) = linked(|_| PathBuf::from("real/presence.sqlite3"));
        let mut store = open_file(&link);
        write(&mut store, &[heartbeat("ada", 0, MINUTE)]);
        let member = knowing(&mut store, MEMBER_A, MINUTE);
        let mut path = file.clone().into_os_string();
        path.push(suffix);
        std::fs::remove_file(path).unwrap();
        let result = written(store.write(&member, &[heartbeat("ben", 0, MINUTE)]));
        assert!(matches!(result, Err(StoreError::Replaced(_))), "{result:?}");
        write(&mut store, &[heartbeat("ben", 0, MINUTE)]);
        assert_eq!(names(&mut store), names(&mut open_file(&file)));
    }
}

#[test]
fn the_log_of_a_linked_file_is_emptied() {
    let (_folder, link, file) = linked(|_| PathBuf::from("real/presence.sqlite3"));
    let mut store = open_file(&link);
    // As long as another program reads, the log cannot begin anew.
    let reader = rusqlite::Connection::open(&file).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM users").unwrap();
    for chunk in crowd(5_000, 500).chunks(500) {
        write(&mut store, &chunk.iter().map(|name| heartbeat(name, 0, MINUTE)).collect::<Vec<_>>());
    }
    assert!(size(&file, "-wal") > 2_000_000, "{}", size(&file, "-wal"));
    reader.execute_batch("ROLLBACK").unwrap();
    poll_until(&mut store, "the log is small", || size(&file, "-wal") < 300_000);
}
