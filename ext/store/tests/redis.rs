//! What only the Redis store does: unusable servers, lost data, flushed scripts, the server's clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::{Commit, LeaseRequest, PollRequest, Store};
use online_manager_store::{Access, StoreError, StoreUrl};
use online_manager_tracker::Nanos;

mod support;
use support::*;

fn open_error(url: &str) -> StoreError {
    match StoreUrl::parse(url).unwrap().open("", Access::Participate, &Interrupt::default()) {
        Err(error) => error,
        Ok(_) => panic!("it opened"),
    }
}

fn misconfigured(url: &str) -> String {
    match open_error(url) {
        StoreError::Misconfigured(message) => message,
        error => panic!("{error:?}"),
    }
}

#[test]
fn unusable_servers_are_refused_without_showing_a_password() {
    let server = Server::with(&["--requirepass", "secret"]);
    for (url, reason) in [
        (format!("{}?pass=wrong", server.url()), "Password authentication failed"),
        (server.url(), "Authentication required"),
        (format!("{}?pass=secret&db=99", server.url()), "DB index is out of range"),
        ("rediss://127.0.0.1:1?ca_file=/nowhere".to_owned(), "cannot be read"),
    ] {
        let message = misconfigured(&url);
        assert!(message.contains(reason) && !message.contains("wrong") && !message.contains("secret"), "{message}");
    }
    assert!(
        StoreUrl::parse(&format!("{}?pass=secret", server.url()))
            .unwrap()
            .open("", Access::Participate, &Interrupt::default())
            .is_ok()
    );
}

#[test]
fn a_replica_and_a_server_of_a_cluster_are_refused() {
    let server = Server::with(&["--replicaof", "127.0.0.1", "1"]);
    assert!(misconfigured(&server.url()).contains("read-only replica of 127.0.0.1"));
    let server = Server::with(&["--cluster-enabled", "yes"]);
    assert!(misconfigured(&server.url()).contains("give the URLs of some of its servers as an Array"));
}

#[test]
fn an_unreachable_server_is_unavailable() {
    assert!(matches!(open_error("redis+unix:///nowhere/socket"), StoreError::Unavailable(_)));
    assert!(matches!(open_error("redis://127.0.0.1:1"), StoreError::Unavailable(_)));
}

#[test]
fn an_eviction_policy_that_drops_keys_causes_a_warning() {
    let server = Server::with(&["--maxmemory-policy", "allkeys-lru"]);
    assert!(server.open().warnings()[0].contains("maxmemory-policy is allkeys-lru"));
    assert!(Server::new().open().warnings().is_empty());
}

#[test]
fn scripts_are_sent_again_after_script_flush() {
    let server = Server::new();
    let mut store = server.open();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    server.command(&["SCRIPT", "FLUSH"]);
    write(&mut *store, &[heartbeat("bob", 0, MINUTE)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 2);
}

#[test]
fn a_restarted_server_is_reconnected_to_and_its_data_reported_as_replaced() {
    let mut server = Server::new();
    let mut store = server.open();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert!(!store.reconnect().unwrap());
    server.restart();
    assert!(matches!(
        store.write(&membership(MEMBER_A, MINUTE), &[heartbeat("bob", 0, MINUTE)]),
        Err(StoreError::Unavailable(_))
    ));
    assert!(store.recover());
    assert!(store.reconnect().unwrap(), "the connection was lost");
    assert!(!store.reconnect().unwrap(), "once");
    let results = store.write(&membership(MEMBER_A, MINUTE), &[heartbeat("ada", 0, MINUTE)]).unwrap();
    assert!(matches!(results[0].1, Err(StoreError::Replaced(_))));
}

/// The user's only heartbeat is long ago when a process that knew the lost data polls.
#[test]
fn nobody_expires_for_one_timeout_after_the_data_is_lost() {
    let server = Server::new();
    let (mut before, mut after) = (server.open(), server.open());
    let timeout = 300 * MILLISECOND;
    sweep_for(&mut *before, timeout);
    server.lose();
    sweep_for(&mut *after, timeout);
    write(&mut *after, &[heartbeat("ada", MINUTE, timeout)]);
    let partition = after.partition_of(&user("ada"));
    let requests = [PollRequest { partition, sweep: Some(10), ..EMPTY_POLL }];
    let result = before.poll(&membership(MEMBER_A, timeout), &requests).unwrap().remove(0);
    assert!(matches!(result, Err(StoreError::Replaced(_))));
    assert_eq!(sweep_for(&mut *after, timeout).expired, 0, "held");
    let start = Instant::now();
    while sweep_for(&mut *after, timeout).expired == 0 {
        thread::sleep(Duration::from_millis(10));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert!(start.elapsed() > Duration::from_millis(200));
}

/// Returns a key of the partition that a user is in.
fn key(store: &dyn Store, name: &str, kind: &str) -> String {
    format!("{{om::{}}}:{kind}", store.partition_of(&user(name)))
}

#[test]
fn a_server_clock_that_is_set_back_keeps_nobody_online() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    // As if the last sweep had been an hour from now.
    let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() + 3_600_000_000;
    server.command(&["HSET", &key(&*store, "ada", "meta"), "swept", &ahead.to_string()]);
    write(&mut *store, &[heartbeat("ada", 0, 50 * MILLISECOND)]);
    assert!(store.snapshot().unwrap().users[&user("ada")] < 20 * MILLISECOND);
    assert_eq!(sweep(&mut *store).expired, 0);
    thread::sleep(Duration::from_millis(60));
    assert_eq!(sweep(&mut *store).expired, 1);
}

#[test]
fn a_heartbeat_that_is_written_twice_sets_nobody_online_again() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    let timeout = 50 * MILLISECOND;
    write(&mut *store, &[heartbeat("ada", 0, timeout)]);
    thread::sleep(Duration::from_millis(60));
    assert_eq!(sweep(&mut *store).expired, 1);
    // Again, with its age of now, and as if it had been on its way for a while.
    write(&mut *store, &[heartbeat("ada", 70 * MILLISECOND, timeout), heartbeat("ada", 55 * MILLISECOND, timeout)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 0);
    write(&mut *store, &[heartbeat("ada", 0, timeout)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 1);
}

#[test]
fn an_expired_lease_allows_commits_until_another_member_acquires_it() {
    let server = Server::new();
    let mut store = server.open();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), heartbeat("bob", 0, MINUTE)]);
    let all = undelivered(&mut *store);
    assert!(acquire(&mut *store, MEMBER_A, MILLISECOND));
    thread::sleep(Duration::from_millis(10));
    assert!(commit(&mut *store, MEMBER_A, &[(&all[0], Outcome::Done)]));
    assert!(acquire(&mut *store, MEMBER_B, MILLISECOND));
    thread::sleep(Duration::from_millis(10));
    assert!(!commit(&mut *store, MEMBER_A, &[(&all[1], Outcome::Done)]));
}

#[test]
fn register_returns_an_equal_share_of_the_partitions() {
    let server = Server::new();
    let mut store = server.open();
    let membership =
        |token, lease: Nanos| online_manager_store::store::Membership { lease, ..membership(token, MINUTE) };
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 16);
    assert_eq!(store.register(&membership(MEMBER_B, 50 * MILLISECOND)).unwrap(), 8);
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 8, "counted once");
    thread::sleep(Duration::from_millis(60));
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 16, "the other registration has expired");
    store.register(&membership(MEMBER_B, MINUTE)).unwrap();
    store.deregister(&membership(MEMBER_B, MINUTE)).unwrap();
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 16);
}

#[test]
fn tombstones_are_removed_after_two_timeouts() {
    let server = Server::new();
    let mut store = server.open();
    let tombstones = |store: &dyn Store| server.command(&["ZCARD", &key(store, "ada", "tombstones")]);
    sweep_for(&mut *store, 20 * MILLISECOND);
    write(&mut *store, &[heartbeat("ada", MINUTE, MILLISECOND)]);
    sweep_for(&mut *store, MINUTE);
    assert_eq!(tombstones(&*store), redis::Value::Int(1));
    thread::sleep(Duration::from_millis(5));
    sweep_for(&mut *store, 20 * MILLISECOND);
    assert_eq!(tombstones(&*store), redis::Value::Int(0));
}

#[test]
fn an_interrupt_ends_the_wait_for_a_server_that_hangs() {
    let server = Server::new();
    let interrupt = Interrupt::default();
    let mut store = StoreUrl::parse(&server.url()).unwrap().open("", Access::Participate, &interrupt).unwrap();
    server.command(&["CLIENT", "PAUSE", "20000", "ALL"]);
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        interrupt.raise();
        interrupt
    });
    let start = Instant::now();
    let request = PollRequest { lease: LeaseRequest::Acquire, ..EMPTY_POLL };
    let error = store.poll(&membership(MEMBER_A, MINUTE), &[request]).unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(
        store.commit(&membership(MEMBER_A, MINUTE), &[(0, Commit { done: vec![1], ..Commit::default() })]).is_err()
    );
    other.join().unwrap().clear();
}

#[test]
fn the_overflow_holds_only_users_who_have_left() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert_eq!(server.command(&["EXISTS", &key(&*store, "ada", "overflow")]), redis::Value::Int(0));
    write(&mut *store, &[leave("ada", 0, MINUTE / 2)]);
    assert_eq!(server.command(&["EXISTS", &key(&*store, "ada", "overflow")]), redis::Value::Int(1));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    thread::sleep(Duration::from_millis(2));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert_eq!(server.command(&["EXISTS", &key(&*store, "ada", "overflow")]), redis::Value::Int(0));
}
