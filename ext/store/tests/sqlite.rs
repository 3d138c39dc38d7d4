//! What the file promises, with several connections to it, as several processes would have them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use online_manager_store::id::{Charset, Kind};
use online_manager_store::sqlite::Sqlite;
use online_manager_store::store::{Beat, Commit, Event, Leave, Message, Store, Sweep, Token};
use online_manager_store::{StoreError, UserId};
use online_manager_tracker::{Nanos, Reason, Transition};
use tempfile::TempDir;

const MILLISECOND: Nanos = 1_000_000;
const MINUTE: Nanos = 60_000 * MILLISECOND;
const US: Token = Token([1; 16]);
const THEM: Token = Token([2; 16]);

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("presence.sqlite3")
    }

    fn open(&self) -> Sqlite {
        Sqlite::open(&self.path(), "").unwrap()
    }
}

fn user(name: &str) -> UserId {
    UserId::new(Kind::Text(Charset::Ascii), name.as_bytes())
}

fn beat(name: &str, age: Nanos, timeout: Nanos) -> Message {
    Message::Beat(Beat { id: user(name), age, timeout })
}

fn leave(name: &str, age: Nanos, after: Nanos) -> Message {
    Message::Leave(Leave { id: user(name), age, after })
}

fn sweep(store: &mut Sqlite) -> Sweep {
    store.sweep(0, MINUTE, 1_000).unwrap()
}

fn events(store: &mut Sqlite) -> Vec<(String, Transition)> {
    let name = |event: &Event| String::from_utf8(event.id.parts().unwrap().1.to_vec()).unwrap();
    store.events(0, 0, 1_000).unwrap().iter().map(|event| (name(event), event.transition)).collect()
}

fn came_and_left(name: &str) -> Vec<(String, Transition)> {
    vec![(name.to_owned(), Transition::Online), (name.to_owned(), Transition::Offline)]
}

#[test]
fn the_first_beat_is_a_transition_and_the_others_are_not() {
    let folder = Folder::new();
    let (mut one, mut other) = (folder.open(), folder.open());
    one.flush(&[beat("ada", 0, MINUTE)]).unwrap();
    other.flush(&[beat("ada", 0, MINUTE), beat("bob", 0, MINUTE)]).unwrap();
    assert_eq!(events(&mut one), [("ada".to_owned(), Transition::Online), ("bob".to_owned(), Transition::Online)]);
    assert_eq!(one.snapshot().unwrap().users.len(), 2);
}

#[test]
fn whoever_is_silent_for_the_timeout_is_set_offline_once_and_not_before() {
    let folder = Folder::new();
    let (mut one, mut other) = (folder.open(), folder.open());
    sweep(&mut one);
    one.flush(&[beat("ada", 0, 50 * MILLISECOND), beat("bob", 0, MINUTE)]).unwrap();
    let Sweep { expired, next, .. } = sweep(&mut one);
    assert_eq!(expired, 0);
    assert!(next.unwrap() <= 50 * MILLISECOND);
    thread::sleep(Duration::from_millis(60));
    assert_eq!([sweep(&mut one).expired, sweep(&mut other).expired], [1, 0]);
    assert_eq!(events(&mut one)[2..], came_and_left("ada")[1..]);
}

#[test]
fn a_beat_moves_the_deadline_also_when_the_sweep_is_about_to_look() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    store.flush(&[beat("ada", 0, 50 * MILLISECOND)]).unwrap();
    thread::sleep(Duration::from_millis(60));
    store.flush(&[beat("ada", 0, 50 * MILLISECOND)]).unwrap();
    let Sweep { expired, next, .. } = sweep(&mut store);
    assert_eq!(expired, 0);
    assert!(next.unwrap() > 30 * MILLISECOND);
    thread::sleep(Duration::from_millis(60));
    assert_eq!(sweep(&mut store).expired, 1);
}

#[test]
fn a_shorter_timeout_takes_hold_at_once() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    store.flush(&[beat("ada", 0, MINUTE)]).unwrap();
    store.flush(&[beat("ada", 0, MILLISECOND)]).unwrap();
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut store).expired, 1);
}

#[test]
fn a_late_beat_never_lowers_a_deadline() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    store.flush(&[beat("ada", 0, MINUTE)]).unwrap();
    store.flush(&[beat("ada", MINUTE, MILLISECOND)]).unwrap();
    assert_eq!(sweep(&mut store).expired, 0);
}

#[test]
fn a_leave_makes_due_and_only_a_later_beat_undoes_it() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    let names = ["early", "late", "none", "later"];
    let beats = names.map(|name| beat(name, 900 * MILLISECOND, MINUTE));
    store.flush(&beats).unwrap();
    let leaves = names.map(|name| leave(name, 500 * MILLISECOND, if name == "later" { MINUTE / 2 } else { 0 }));
    store.flush(&leaves).unwrap();
    // A beat before the leave, from a process that did not know; and one after it.
    store.flush(&[beat("early", 600 * MILLISECOND, MINUTE), beat("late", 400 * MILLISECOND, MINUTE)]).unwrap();
    assert_eq!(sweep(&mut store).expired, 2);
    let online: Vec<_> = [user("late"), user("later")].into();
    let mut found: Vec<_> = store.snapshot().unwrap().users.into_keys().collect();
    found.sort();
    assert_eq!(found, online);
    // Nor does it when the user is offline already.
    store.flush(&[beat("early", 600 * MILLISECOND, MINUTE)]).unwrap();
    assert_eq!(store.snapshot().unwrap().users.len(), 2);
    store.flush(&[beat("early", 0, MINUTE)]).unwrap();
    assert_eq!(store.snapshot().unwrap().users.len(), 3);
}

#[test]
fn an_event_says_why_and_how_late_it_comes() {
    let folder = Folder::new();
    let mut store = folder.open();
    let reasons = |store: &mut Sqlite| -> Vec<_> {
        let events = store.events(0, 0, 1_000).unwrap();
        events.iter().map(|event| (event.reason, event.lateness / MINUTE)).collect()
    };
    sweep(&mut store);
    // Ada is silent; Bob leaves; Cy leaves, and undoes it.
    store.flush(&[beat("ada", 3 * MINUTE, MINUTE)]).unwrap();
    store.flush(&[beat("bob", 3 * MINUTE, 10 * MINUTE), leave("bob", 2 * MINUTE, MINUTE)]).unwrap();
    store.flush(&[beat("cy", 5 * MINUTE, MINUTE), leave("cy", 5 * MINUTE, 0), beat("cy", 4 * MINUTE, MINUTE)]).unwrap();
    assert_eq!(sweep(&mut store).expired, 3);
    let online = [3, 3, 5].map(|minutes| (Reason::Heartbeat, minutes));
    let offline = [(Reason::Timeout, 3), (Reason::Timeout, 2), (Reason::Leave, 1)];
    assert_eq!(reasons(&mut store), [&online[..], &offline[..]].concat());

    // Also when it has been a dead letter.
    assert!(store.bid(0, US, MINUTE).unwrap());
    let last = store.events(0, 0, 1_000).unwrap().pop().unwrap().number;
    let dead = Commit { dead: vec![(last, "no".into())], ..Commit::default() };
    assert!(store.commit(0, US, &dead).unwrap());
    assert_eq!(store.dead_letters().unwrap()[0].event.reason, Reason::Leave);
    assert_eq!(store.retry_dead_letters().unwrap(), (1, 0));
    assert_eq!(reasons(&mut store).pop(), Some((Reason::Leave, 1)));
}

#[test]
fn a_leave_that_is_not_sooner_changes_nothing() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    store.flush(&[beat("ada", 0, MILLISECOND), leave("ada", 0, MINUTE)]).unwrap();
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut store).expired, 1);
}

#[test]
fn nobody_is_set_offline_for_a_timeout_when_nobody_has_swept() {
    let folder = Folder::new();
    let mut store = folder.open();
    let timeout = 200 * MILLISECOND;
    let mut sweep = || {
        let Sweep { expired, next, .. } = store.sweep(0, timeout, 1_000).unwrap();
        (expired, next)
    };
    sweep();
    let mut other = folder.open();
    other.flush(&[beat("ada", 0, 50 * MILLISECOND)]).unwrap();
    thread::sleep(Duration::from_millis(120));
    let (expired, next) = sweep();
    assert_eq!(expired, 0, "held");
    assert!(next.unwrap() > 150 * MILLISECOND);
    let mut rounds = 0;
    while sweep().0 == 0 {
        thread::sleep(Duration::from_millis(10));
        rounds += 1;
        assert!(rounds < 100);
    }
    assert!(rounds >= 10, "held for {rounds} rounds only");
}

#[test]
fn versions_grow_also_when_the_file_is_lost() {
    let folder = Folder::new();
    let mut store = folder.open();
    let version = |store: &mut Sqlite| store.events(0, 0, 1_000).unwrap().last().unwrap().version;
    store.flush(&[beat("ada", 0, MINUTE)]).unwrap();
    let first = version(&mut store);
    store.flush(&[leave("ada", 0, 0)]).unwrap();
    sweep(&mut store);
    let second = version(&mut store);
    assert!(second > first);
    for file in std::fs::read_dir(folder.0.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert!(matches!(store.flush(&[beat("ada", 0, MINUTE)]), Err(StoreError::Replaced(_))));
    store.flush(&[beat("ada", 0, MINUTE)]).unwrap();
    assert!(version(&mut store) > second);
}

#[test]
fn one_has_the_lease_until_it_is_over_or_given_back() {
    let folder = Folder::new();
    let (mut one, mut other) = (folder.open(), folder.open());
    assert!(one.bid(0, US, MINUTE).unwrap());
    assert!(!other.bid(0, THEM, MINUTE).unwrap());
    assert!(one.bid(0, US, MILLISECOND).unwrap(), "renewed");
    thread::sleep(Duration::from_millis(5));
    assert!(other.bid(0, THEM, MINUTE).unwrap());
    assert!(!one.bid(0, US, MINUTE).unwrap());
    one.give_back(0, US).unwrap();
    assert!(!one.bid(0, US, MINUTE).unwrap(), "it was not ours");
    other.give_back(0, THEM).unwrap();
    assert!(one.bid(0, US, MINUTE).unwrap());
}

#[test]
fn only_who_has_the_lease_commits() {
    let folder = Folder::new();
    let (mut one, mut other) = (folder.open(), folder.open());
    one.flush(&[beat("ada", 0, MINUTE), beat("bob", 0, MINUTE), beat("eve", 0, MINUTE)]).unwrap();
    let numbers: Vec<_> = one.events(0, 0, 10).unwrap().iter().map(|event| event.number).collect();
    assert!(one.bid(0, US, MINUTE).unwrap());
    let commit = Commit {
        done: vec![numbers[0]],
        failed: vec![(numbers[1], 2, "no".to_owned())],
        dead: vec![(numbers[2], "never".to_owned())],
    };
    assert!(!other.commit(0, THEM, &commit).unwrap());
    assert_eq!(events(&mut one).len(), 3);
    assert!(one.commit(0, US, &commit).unwrap());
    let left = other.events(0, 0, 10).unwrap();
    assert_eq!((left.len(), left[0].number, left[0].failures), (1, numbers[1], 2));
    assert_eq!(other.events(0, numbers[1], 10).unwrap(), []);
    let letters = other.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].error.as_str(), letters[0].is_overtaken), (1, "never", false));
    let snapshot = other.snapshot().unwrap();
    assert_eq!((snapshot.waiting, snapshot.dead_letters), (1, 1));
}

#[test]
fn dead_letters_are_delivered_again_unless_they_are_overtaken() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    assert!(store.bid(0, US, MINUTE).unwrap());
    store.flush(&[beat("ada", 0, MINUTE), beat("bob", 0, MINUTE)]).unwrap();
    let dead = store.events(0, 0, 10).unwrap();
    let commit =
        Commit { dead: dead.iter().map(|event| (event.number, "no".to_owned())).collect(), ..Commit::default() };
    assert!(store.commit(0, US, &commit).unwrap());
    store.flush(&[leave("ada", 0, 0)]).unwrap();
    sweep(&mut store);
    assert_eq!(store.retry_dead_letters().unwrap(), (1, 1));
    let events = store.events(0, 0, 10).unwrap();
    assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>()[1], dead[1].version);
    assert_eq!(events.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), [user("ada"), user("bob")]);
    assert_eq!(store.dead_letters().unwrap(), []);
}

#[test]
fn a_dead_letter_whose_user_has_an_event_waiting_is_overtaken_too() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    assert!(store.bid(0, US, MINUTE).unwrap());
    store.flush(&[beat("ada", 0, MINUTE), leave("ada", 0, 0)]).unwrap();
    sweep(&mut store);
    let first = store.events(0, 0, 1).unwrap()[0].number;
    let commit = Commit { dead: vec![(first, "no".to_owned())], ..Commit::default() };
    assert!(store.commit(0, US, &commit).unwrap());
    assert!(store.dead_letters().unwrap()[0].is_overtaken);
}

#[test]
fn namespaces_do_not_know_each_other() {
    let folder = Folder::new();
    let mut one = Sqlite::open(&folder.path(), "one").unwrap();
    let mut other = Sqlite::open(&folder.path(), "other").unwrap();
    one.flush(&[beat("ada", 0, MINUTE)]).unwrap();
    assert!(one.bid(0, US, MINUTE).unwrap() && other.bid(0, THEM, MINUTE).unwrap());
    assert_eq!(events(&mut other), []);
    assert_eq!(other.snapshot().unwrap().users.len(), 0);
    assert_eq!(sweep(&mut other).next, None);
}

#[test]
fn after_a_reboot_everybody_gets_one_timeout() {
    let folder = Folder::new();
    let mut store = folder.open();
    sweep(&mut store);
    store.flush(&[beat("ada", 0, MILLISECOND)]).unwrap();
    drop(store);
    edit(
        &folder.path(),
        "UPDATE boot SET id = 'another one'; UPDATE users SET timeout = 1000000000, look_at = look_at + 1000000000000000",
    );
    let mut store = folder.open();
    let Sweep { expired, next, .. } = sweep(&mut store);
    assert_eq!(expired, 0);
    // A busy machine may take its time in between.
    assert!((1..=1_000 * MILLISECOND).contains(&next.unwrap()), "{next:?}");
    thread::sleep(Duration::from_nanos(next.unwrap() + 10 * MILLISECOND));
    assert_eq!(sweep(&mut store).expired, 1);
}

fn edit(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

fn refusal(path: &Path) -> String {
    match Sqlite::open(path, "") {
        Err(StoreError::Misconfigured(message)) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_its_path() {
    let folder = Folder::new();
    let path = folder.path();
    let missing = folder.0.path().join("missing/presence.sqlite3");
    assert!(refusal(&missing).contains("its folder cannot be reached"));
    assert!(refusal(folder.0.path()).contains("this is a folder"));
    std::fs::write(&path, "This is no database, but long enough to be taken for one".repeat(40)).unwrap();
    assert!(refusal(&path).contains("file is not a database"));
    std::fs::remove_file(&path).unwrap();
    drop(folder.open());
    edit(&path, "PRAGMA user_version = 2");
    let message = refusal(&path);
    assert!(
        message.contains("newer version of online_manager has written the file (in format 2;")
            && message.contains(path.to_str().unwrap()),
        "{message}"
    );
    edit(&path, "PRAGMA application_id = 1");
    assert!(refusal(&path).contains("of another application"));
}

#[test]
fn while_it_is_locked_nothing_is_lost_and_the_error_says_so() {
    let folder = Folder::new();
    let mut store = folder.open();
    let locker = rusqlite::Connection::open(folder.path()).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    match store.flush(&[beat("ada", 0, MINUTE)]) {
        Err(StoreError::Unavailable(message)) => assert!(message.contains("locked"), "{message}"),
        other => panic!("{other:?}"),
    }
    locker.execute_batch("COMMIT").unwrap();
    store.flush(&[beat("ada", 0, MINUTE)]).unwrap();
    assert_eq!(events(&mut store).len(), 1);
}
