//! What is a Redis' own: servers that are no good, data that are lost, scripts that are forgotten, clocks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::{Commit, LeaseRequest, PollRequest, Store};
use online_manager_store::{StoreError, StoreUrl};
use online_manager_tracker::Nanos;

mod support;
use support::*;

fn refusal(url: &str) -> StoreError {
    match StoreUrl::parse(url).unwrap().open("", &Interrupt::default()) {
        Err(error) => error,
        Ok(_) => panic!("it opened"),
    }
}

fn misconfigured(url: &str) -> String {
    match refusal(url) {
        StoreError::Misconfigured(message) => message,
        error => panic!("{error:?}"),
    }
}

#[test]
fn what_cannot_be_used_is_refused_and_no_password_shown() {
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
    assert!(StoreUrl::parse(&format!("{}?pass=secret", server.url())).unwrap().open("", &Interrupt::default()).is_ok());
}

#[test]
fn a_replica_and_a_server_of_a_cluster_are_refused() {
    let server = Server::with(&["--replicaof", "127.0.0.1", "1"]);
    assert!(misconfigured(&server.url()).contains("read-only replica of 127.0.0.1"));
    let server = Server::with(&["--cluster-enabled", "yes"]);
    assert!(misconfigured(&server.url()).contains("give the URLs of some of them as an Array"));
}

#[test]
fn who_is_not_there_is_unavailable() {
    assert!(matches!(refusal("redis+unix:///nowhere/socket"), StoreError::Unavailable(_)));
    assert!(matches!(refusal("redis://127.0.0.1:1"), StoreError::Unavailable(_)));
}

#[test]
fn a_policy_that_throws_keys_away_is_worth_a_warning() {
    let server = Server::with(&["--maxmemory-policy", "allkeys-lru"]);
    assert!(server.open().warnings()[0].contains("maxmemory-policy is allkeys-lru"));
    assert!(Server::new().open().warnings().is_empty());
}

#[test]
fn scripts_that_are_forgotten_are_loaded_again() {
    let server = Server::new();
    let mut store = server.open();
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    server.command(&["SCRIPT", "FLUSH"]);
    tell(&mut *store, &[beat("bob", 0, MINUTE)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 2);
}

#[test]
fn a_server_that_comes_back_is_found_again_and_what_it_has_lost() {
    let mut server = Server::new();
    let mut store = server.open();
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    assert!(!store.reconnect().unwrap());
    server.restart();
    assert!(matches!(store.write(&membership(US, MINUTE), &[beat("bob", 0, MINUTE)]), Err(StoreError::Unavailable(_))));
    assert!(store.recover());
    assert!(store.reconnect().unwrap(), "it was away");
    assert!(!store.reconnect().unwrap(), "once");
    let told = store.write(&membership(US, MINUTE), &[beat("ada", 0, MINUTE)]).unwrap();
    assert!(matches!(told[0].1, Err(StoreError::Replaced(_))));
}

/// Whose only beat is long ago, when a process that knew other data requests.
#[test]
fn nobody_is_set_offline_for_a_timeout_when_the_data_are_lost() {
    let server = Server::new();
    let (mut knows, mut new) = (server.open(), server.open());
    let timeout = 300 * MILLISECOND;
    sweep_for(&mut *knows, timeout);
    server.lose();
    sweep_for(&mut *new, timeout);
    tell(&mut *new, &[beat("ada", MINUTE, timeout)]);
    let partition = new.partition_of(&user("ada"));
    let requests = [PollRequest { partition, sweep: Some(10), ..NOTHING }];
    let seen = knows.poll(&membership(US, timeout), &requests).unwrap().remove(0);
    assert!(matches!(seen, Err(StoreError::Replaced(_))));
    assert_eq!(sweep_for(&mut *new, timeout).expired, 0, "held");
    let start = Instant::now();
    while sweep_for(&mut *new, timeout).expired == 0 {
        thread::sleep(Duration::from_millis(10));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert!(start.elapsed() > Duration::from_millis(200));
}

/// The key of the partition that a user is in.
fn key(store: &dyn Store, name: &str, kind: &str) -> String {
    format!("{{om::{}}}:{kind}", store.partition_of(&user(name)))
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_online() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    // As if the last look had been an hour from now.
    let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() + 3_600_000_000;
    server.command(&["HSET", &key(&*store, "ada", "meta"), "swept", &ahead.to_string()]);
    tell(&mut *store, &[beat("ada", 0, 50 * MILLISECOND)]);
    assert!(store.snapshot().unwrap().users[&user("ada")] < 20 * MILLISECOND);
    assert_eq!(sweep(&mut *store).expired, 0);
    thread::sleep(Duration::from_millis(60));
    assert_eq!(sweep(&mut *store).expired, 1);
}

#[test]
fn a_beat_that_is_told_twice_brings_nobody_back() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    let timeout = 50 * MILLISECOND;
    tell(&mut *store, &[beat("ada", 0, timeout)]);
    thread::sleep(Duration::from_millis(60));
    assert_eq!(sweep(&mut *store).expired, 1);
    // Again, as old as it is by now, and as if it had been on its way for a while.
    tell(&mut *store, &[beat("ada", 70 * MILLISECOND, timeout), beat("ada", 55 * MILLISECOND, timeout)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 0);
    tell(&mut *store, &[beat("ada", 0, timeout)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 1);
}

#[test]
fn an_owner_whose_lease_has_run_out_commits_as_long_as_nobody_else_has_it() {
    let server = Server::new();
    let mut store = server.open();
    tell(&mut *store, &[beat("ada", 0, MINUTE), beat("bob", 0, MINUTE)]);
    let all = waiting(&mut *store);
    assert!(bid(&mut *store, US, MILLISECOND));
    thread::sleep(Duration::from_millis(10));
    assert!(commit(&mut *store, US, &[(&all[0], Outcome::Done)]));
    assert!(bid(&mut *store, THEM, MILLISECOND));
    thread::sleep(Duration::from_millis(10));
    assert!(!commit(&mut *store, US, &[(&all[1], Outcome::Done)]));
}

#[test]
fn partitions_are_shared_out_among_the_processes() {
    let server = Server::new();
    let mut store = server.open();
    let membership =
        |token, lease: Nanos| online_manager_store::store::Membership { lease, ..membership(token, MINUTE) };
    assert_eq!(store.register(&membership(US, MINUTE)).unwrap(), 16);
    assert_eq!(store.register(&membership(THEM, 50 * MILLISECOND)).unwrap(), 8);
    assert_eq!(store.register(&membership(US, MINUTE)).unwrap(), 8, "counted once");
    thread::sleep(Duration::from_millis(60));
    assert_eq!(store.register(&membership(US, MINUTE)).unwrap(), 16, "the other one is gone");
    store.register(&membership(THEM, MINUTE)).unwrap();
    store.deregister(&membership(THEM, MINUTE)).unwrap();
    assert_eq!(store.register(&membership(US, MINUTE)).unwrap(), 16);
}

#[test]
fn who_has_left_is_forgotten_in_the_end() {
    let server = Server::new();
    let mut store = server.open();
    let gone = |store: &dyn Store| server.command(&["ZCARD", &key(store, "ada", "tombstones")]);
    sweep_for(&mut *store, 20 * MILLISECOND);
    tell(&mut *store, &[beat("ada", MINUTE, MILLISECOND)]);
    sweep_for(&mut *store, MINUTE);
    assert_eq!(gone(&*store), redis::Value::Int(1));
    thread::sleep(Duration::from_millis(5));
    sweep_for(&mut *store, 20 * MILLISECOND);
    assert_eq!(gone(&*store), redis::Value::Int(0));
}

#[test]
fn who_is_interrupted_does_not_wait_for_a_server_that_hangs() {
    let server = Server::new();
    let interrupt = Interrupt::default();
    let mut store = StoreUrl::parse(&server.url()).unwrap().open("", &interrupt).unwrap();
    server.command(&["CLIENT", "PAUSE", "20000", "ALL"]);
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        interrupt.raise();
        interrupt
    });
    let start = Instant::now();
    let request = PollRequest { lease: LeaseRequest::Acquire, ..NOTHING };
    let error = store.poll(&membership(US, MINUTE), &[request]).unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(store.commit(&membership(US, MINUTE), &[(0, Commit { done: vec![1], ..Commit::default() })]).is_err());
    other.join().unwrap().clear();
}

#[test]
fn only_what_is_needed_is_kept_of_a_user() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    assert_eq!(server.command(&["EXISTS", &key(&*store, "ada", "overflow")]), redis::Value::Int(0));
    tell(&mut *store, &[leave("ada", 0, MINUTE / 2)]);
    assert_eq!(server.command(&["EXISTS", &key(&*store, "ada", "overflow")]), redis::Value::Int(1));
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    thread::sleep(Duration::from_millis(2));
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    assert_eq!(server.command(&["EXISTS", &key(&*store, "ada", "overflow")]), redis::Value::Int(0));
}
