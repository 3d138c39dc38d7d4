//! What only the Redis store does: unusable servers, lost data, flushed scripts, the server's clock.
//!
//! Over 400 lines: each test is a page at most, and all share the helpers here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::{
    Commit, Handled, Heartbeat, LeaseRequest, LeaseState, Membership, PollRequest, PollResult, Purpose, Store, Write,
};
use online_manager_store::{Access, StoreError, StoreUrl};
use online_manager_tracker::{Nanos, Transition};

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
        (format!("{}?pass=wrong", server.url()), "Check the user and the password"),
        (server.url(), "Write its password into the URL"),
        (format!("{}?pass=secret&db=99", server.url()), "0 to 15"),
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
    assert!(misconfigured(&server.url()).contains("as an Array; on the command line, add --cluster"));
}

#[test]
fn an_unreachable_server_is_unavailable() {
    assert!(matches!(open_error("redis+unix:///nowhere/socket"), StoreError::Unavailable(_)));
    assert!(matches!(open_error("redis://127.0.0.1:1"), StoreError::Unavailable(_)));
}

/// Returns what an operator is warned about before members use a server.
fn warnings(url: &str) -> Vec<String> {
    StoreUrl::parse(url).unwrap().check("", &Interrupt::default()).unwrap()
}

#[test]
fn an_eviction_policy_that_drops_keys_causes_a_warning() {
    let server = Server::with(&["--maxmemory-policy", "allkeys-lru"]);
    assert!(warnings(&server.url())[0].contains("maxmemory-policy is allkeys-lru"));
    assert!(warnings(&Server::new().url()).is_empty());
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
    let knowing = knowing(&mut *store, MEMBER_A, MINUTE);
    server.restart();
    assert!(matches!(
        store.write(&membership(MEMBER_A, MINUTE), &[heartbeat("bob", 0, MINUTE)]),
        Err(StoreError::Unavailable(_))
    ));
    assert!(store.recover());
    assert!(store.reconnect().unwrap(), "the connection was lost");
    assert!(!store.reconnect().unwrap(), "once");
    let results = store.write(&knowing, &[heartbeat("ada", 0, MINUTE)]).unwrap();
    assert!(matches!(results[0].1, Err(StoreError::Replaced(_))));
}

/// A member goes on after a registration that failed: where the members are counted may be away by itself.
#[test]
fn a_connection_that_a_call_has_made_again_is_reported_as_lost() {
    let server = Server::new();
    let mut store = server.open();
    store.register(&membership(MEMBER_A, MINUTE)).unwrap();
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    store.register(&membership(MEMBER_A, MINUTE)).unwrap_err();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert!(store.reconnect().unwrap(), "the connection was lost");
    assert!(!store.reconnect().unwrap(), "once");
}

/// The user's only heartbeat is long ago when a process that knew the lost data polls.
#[test]
fn nobody_expires_for_one_timeout_after_the_data_is_lost() {
    let server = Server::new();
    let (mut before, mut after) = (server.open(), server.open());
    let timeout = 300 * MILLISECOND;
    sweep_for(&mut *before, timeout);
    let knowing = knowing(&mut *before, MEMBER_A, timeout);
    server.lose();
    sweep_for(&mut *after, timeout);
    write(&mut *after, &[heartbeat("ada", MINUTE, 2 * MINUTE), heartbeat("ada", MINUTE, timeout)]);
    let partition = after.partition_of(&user("ada"));
    let requests = [PollRequest { partition, sweep: Some(10), ..EMPTY_POLL }];
    let result = before.poll(&knowing, &requests).unwrap().remove(0);
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
    write(&mut *store, &[heartbeat("ada", 0, 1_000 * MILLISECOND)]);
    assert!(store.snapshot().unwrap().users[&user("ada")] < 900 * MILLISECOND);
    assert_eq!(sweep(&mut *store).expired, 0);
    thread::sleep(Duration::from_millis(1_010));
    assert_eq!(sweep(&mut *store).expired, 1);
}

#[test]
fn a_heartbeat_that_is_written_twice_sets_nobody_online_again() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    let timeout = 1_000 * MILLISECOND;
    write(&mut *store, &[heartbeat("ada", 0, timeout)]);
    thread::sleep(Duration::from_millis(1_010));
    assert_eq!(sweep(&mut *store).expired, 1);
    // Again, with its age of now, and as if it had been on its way for a while.
    write(
        &mut *store,
        &[heartbeat("ada", 1_020 * MILLISECOND, timeout), heartbeat("ada", 1_005 * MILLISECOND, timeout)],
    );
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
    let membership = |token, lease: Nanos| Membership { lease, ..membership(token, MINUTE) };
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 16);
    assert_eq!(store.register(&membership(MEMBER_B, 1_000 * MILLISECOND)).unwrap(), 8);
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 8, "counted once");
    thread::sleep(Duration::from_millis(1_010));
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 16, "the other registration has expired");
    store.register(&membership(MEMBER_B, MINUTE)).unwrap();
    store.deregister(&membership(MEMBER_B, MINUTE)).unwrap();
    assert_eq!(store.register(&membership(MEMBER_A, MINUTE)).unwrap(), 16);
}

#[test]
fn a_user_is_forgotten_after_the_longest_timeout_in_use_and_not_before() {
    let server = Server::new();
    let mut store = server.open();
    let tombstones = |store: &dyn Store| server.command(&["ZCARD", &key(store, "ada", "tombstones")]);
    let longest = 1_000 * MILLISECOND;
    sweep_for(&mut *store, MILLISECOND);
    write(&mut *store, &[heartbeat("ada", 0, longest), heartbeat("ada", 0, MILLISECOND)]);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep_for(&mut *store, MINUTE).expired, 1);
    sweep_for(&mut *store, MILLISECOND);
    assert_eq!(tombstones(&*store), redis::Value::Int(1), "not after the config's timeout");
    thread::sleep(Duration::from_millis(1_010));
    sweep_for(&mut *store, MILLISECOND);
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

/// Opens a namespace of a server to inspect it.
fn inspect(url: &str, namespace: &str) -> Result<Box<dyn Store>, StoreError> {
    StoreUrl::parse(url).unwrap().open(namespace, Access::Inspect, &Interrupt::default())
}

#[test]
fn to_inspect_creates_nothing_and_lists_the_namespaces() {
    let server = Server::new();
    let missing = |namespace: &str| match inspect(&server.url(), namespace) {
        Err(StoreError::Missing(message)) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it opened"),
    };
    assert!(missing("typo").contains("no namespace \"typo\" in it; there is none yet"));
    assert_eq!(server.command(&["DBSIZE"]), redis::Value::Int(0));
    for namespace in ["b:3", "a{}"] {
        write(&mut *server.try_open(namespace).unwrap(), &[heartbeat("ada", 0, MINUTE)]);
    }
    server.try_open("registered").unwrap().register(&membership(MEMBER_A, MINUTE)).unwrap();
    assert!(missing("typo").contains("there are \"a{}\", \"b:3\" and \"registered\". Check the name"));
    assert_eq!(inspect(&server.url(), "a{}").unwrap().snapshot().unwrap().users.len(), 1);
    let url = StoreUrl::parse(&server.url()).unwrap();
    assert_eq!(url.namespaces(&Interrupt::default()).unwrap(), ["a{}", "b:3", "registered"]);
}

#[test]
fn a_summary_shows_each_partition_and_who_holds_its_lease() {
    let server = Server::new();
    let mut store = server.open();
    let member = |token, name: &str| Membership { name: name.into(), ..membership(token, MINUTE) };
    let (one, other) = (member(MEMBER_A, "web-1:4711"), member(MEMBER_B, "web-2:3"));
    store.register(&one).unwrap();
    store.register(&other).unwrap();
    write(&mut *store, &[heartbeat("ada", 2 * MINUTE, 3 * MINUTE)]);
    let partition = store.partition_of(&user("ada"));
    let request = PollRequest { partition, lease: LeaseRequest::Acquire, ..EMPTY_POLL };
    store.poll(&one, &[request]).unwrap().remove(0).unwrap();
    let summary = store.summary().unwrap();
    let mut names: Vec<_> = summary.members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["web-1:4711", "web-2:3"]);
    assert!(summary.members.iter().all(|member| (MINUTE / 2..=MINUTE).contains(&member.remaining)));
    assert_eq!(summary.partitions.len(), 16);
    for (number, found) in (0..).zip(&summary.partitions) {
        let is_hers = number == partition;
        assert_eq!((found.online, found.undelivered), if is_hers { (1, 1) } else { (0, 0) });
        assert_eq!(found.oldest.is_some_and(|oldest| oldest > MINUTE), is_hers);
        assert_eq!(found.epoch != 0, is_hers);
        let holder = found.lease_holder.as_ref().map(|(name, remaining)| (name.as_str(), *remaining > MINUTE / 2));
        assert_eq!(holder, is_hers.then_some(("web-1:4711", true)));
    }
}

#[test]
fn to_purge_deletes_all_keys_of_a_namespace_unless_a_member_is_registered() {
    let server = Server::new();
    let (mut store, mut other) = (server.open(), server.try_open("other").unwrap());
    store.register(&membership(MEMBER_A, MINUTE)).unwrap();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), leave("bob", 0, MINUTE)]);
    write(&mut *other, &[heartbeat("ada", 0, MINUTE)]);
    assert!(!store.purge(false).unwrap());
    assert_eq!(store.snapshot().unwrap().users.len(), 1);
    store.deregister(&membership(MEMBER_A, MINUTE)).unwrap();
    store.register(&membership(MEMBER_B, MINUTE)).unwrap();
    assert!(store.purge(true).unwrap());
    assert!(matches!(inspect(&server.url(), ""), Err(StoreError::Missing(_))));
    assert_eq!(other.snapshot().unwrap().users.len(), 1);
    assert!(other.purge(false).unwrap());
    assert_eq!(server.command(&["DBSIZE"]), redis::Value::Int(0));
}

#[test]
fn every_key_expires_a_month_after_the_last_member() {
    let server = Server::new();
    let mut store = server.open();
    store.register(&membership(MEMBER_A, MINUTE)).unwrap();
    let keys = |server: &Server| -> Vec<String> { redis::from_redis_value(server.command(&["KEYS", "*"])).unwrap() };
    let without_end = |server: &Server| {
        let ttl = |key: &String| redis::from_redis_value::<i64>(server.command(&["TTL", key])).unwrap();
        keys(server).into_iter().filter(|key| ttl(key) < 29 * 86_400).collect::<Vec<_>>()
    };
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), leave("bob", 0, MINUTE), leave("ada", 0, MINUTE / 2)]);
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let all = undelivered(&mut *store);
    assert!(commit(&mut *store, MEMBER_A, &[(&all[0], Outcome::Dead)]));
    sweep(&mut *store);
    assert_eq!(without_end(&server), Vec::<String>::new());
    // Renewed, as long as a member sweeps.
    keys(&server).iter().for_each(|key| drop(server.command(&["EXPIRE", key, "1000"])));
    thread::sleep(Duration::from_millis(10));
    sweep_for(&mut *store, MILLISECOND);
    store.register(&membership(MEMBER_A, MINUTE)).unwrap();
    assert_eq!(without_end(&server), Vec::<String>::new());
}

#[test]
fn many_dead_letters_take_few_round_trips_and_hold_the_beginning_of_their_errors() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let names = neighbours(&*store, 256);
    let partition = store.partition_of(&user(&names[0]));
    for chunk in names.chunks(200) {
        write(&mut *store, &chunk.iter().map(|name| heartbeat(name, 0, MINUTE)).collect::<Vec<_>>());
    }
    write(&mut *store, &[leave(&names[7], 0, 0)]);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut *store).expired, 1);
    let all = undelivered(&mut *store);
    let error = "é".repeat(50_000);
    let dead = all[..256].iter().map(|event| (event.number, 5, error.clone())).collect();
    server.command(&["CONFIG", "RESETSTAT"]);
    let commits = [(partition, Commit { dead, failed: vec![(all[256].number, 1, error)], ..Commit::default() })];
    assert!(*store.commit(&membership(MEMBER_A, MINUTE), &commits).unwrap()[0].as_ref().unwrap());
    let stats: String = redis::from_redis_value(server.command(&["INFO", "commandstats"])).unwrap();
    let calls = |name: &str| stats.lines().filter(|line| line.starts_with(&format!("cmdstat_{name}:calls="))).count();
    let evalsha = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
    let number: u32 = evalsha.split(['=', ',']).nth(1).unwrap().parse().unwrap();
    assert!(number <= 3 && calls("hset") == 1, "{stats}");
    let letters = store.dead_letters().unwrap();
    assert_eq!(letters.len(), 256);
    assert!(letters.iter().all(|letter| (2_045..=2_048).contains(&letter.error.len())));
    let superseded: Vec<_> = letters.iter().filter(|letter| letter.is_superseded).map(|l| l.event.id.clone()).collect();
    assert_eq!(superseded, [user(&names[7])]);
    let failures: String = redis::from_redis_value(server.command(&[
        "HGET",
        &format!("{{om::{partition}}}:failures"),
        &all[256].number.to_string(),
    ]))
    .unwrap();
    assert!(failures.len() <= 2_050);
}

#[test]
fn a_prefix_is_put_before_every_key() {
    let server = Server::new();
    let url = format!("{}?prefix=myapp:", server.url());
    let parsed = StoreUrl::parse(&url).unwrap();
    let mut store = parsed.open("", Access::Participate, &Interrupt::default()).unwrap();
    store.register(&membership(MEMBER_A, MINUTE)).unwrap();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let keys: Vec<String> = redis::from_redis_value(server.command(&["KEYS", "*"])).unwrap();
    assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("myapp:{om:")), "{keys:?}");
    assert_eq!(parsed.namespaces(&Interrupt::default()).unwrap(), [""]);
    assert_eq!(server.open().snapshot().unwrap().users.len(), 0);
}

/// The commands of an ACL that suffice: the documents list them.
fn documented_commands() -> Vec<String> {
    let readme = include_str!("../../../README.md");
    let line = readme.lines().find(|line| line.starts_with("ACL SETUSER ")).expect("the README has no ACL line");
    line.split(' ').filter(|word| word.starts_with(['+', '-'])).map(str::to_owned).collect()
}

#[test]
fn the_documented_commands_suffice_for_everything() {
    let server = Server::new();
    let mut line = vec!["ACL", "SETUSER", "app", "on", ">secret", "resetkeys", "~myapp:*", "resetchannels", "-@all"];
    let commands = documented_commands();
    line.extend(commands.iter().map(String::as_str));
    server.command(&line);
    let url = format!("{}?user=app&pass=secret&prefix=myapp:&db=1", server.url());
    let parsed = StoreUrl::parse(&url).unwrap();
    let mut store = parsed.open("", Access::Participate, &Interrupt::default()).unwrap();
    assert_eq!(warnings(&url), Vec::<String>::new());
    let names = neighbours(&*store, 3);
    sweep_for(&mut *store, MINUTE);
    store.register(&membership(MEMBER_A, MINUTE)).unwrap();
    // Of an unknown user who is no longer there, one with a leave, one who stays.
    write(&mut *store, &[heartbeat(&names[0], MINUTE, 1), heartbeat(&names[1], 0, MINUTE), leave(&names[1], 0, 0)]);
    write(&mut *store, &[heartbeat(&names[2], 0, MINUTE), heartbeat(&names[0], 0, MINUTE)]);
    write(&mut *store, &[heartbeat(&names[0], 0, MINUTE), heartbeat(&names[1], 0, MINUTE), leave(&names[1], 0, 0)]);
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    thread::sleep(Duration::from_millis(10));
    assert_eq!(sweep_for(&mut *store, MINUTE).expired, 1);
    let all = undelivered(&mut *store);
    let outcomes = [(&all[0], Outcome::Dead), (&all[1], Outcome::Failed(1)), (&all[2], Outcome::Done)];
    assert!(commit(&mut *store, MEMBER_A, &outcomes));
    assert_eq!(store.dead_letters().unwrap().len(), 1);
    write(&mut *store, &[leave(&names[0], 0, 0), heartbeat(&names[1], 0, MINUTE)]);
    assert_eq!(store.requeue_dead_letters().unwrap().0 + store.dead_letters().unwrap().len(), 0);
    // The data go back, and users are forgotten.
    let mut knowing = knowing(&mut *store, MEMBER_A, MILLISECOND);
    let known = knowing.known[usize::from(store.partition_of(&user(&names[0])))];
    knowing.known.iter_mut().for_each(|known| known.last += 1);
    let results = store.write(&knowing, &[heartbeat(&names[0], 0, MINUTE)]).unwrap();
    assert!(matches!(results[0].1, Err(StoreError::Replaced(_))));
    write(&mut *store, &[heartbeat(&names[0], 0, MILLISECOND)]);
    let handled = Handled { epoch: known.epoch, through: u64::MAX >> 11, except: vec![1] };
    let partition = store.partition_of(&user(&names[0]));
    let request =
        PollRequest { partition, sweep: Some(9), notices_after: Some(0), handled: Some(handled), ..EMPTY_POLL };
    store.poll(&membership(MEMBER_A, MILLISECOND), &[request]).unwrap().remove(0).unwrap();
    assert_eq!(undelivered(&mut *store), []);
    store.snapshot().unwrap();
    store.summary().unwrap();
    assert_eq!(parsed.namespaces(&Interrupt::default()).unwrap(), [""]);
    inspect(&url, "").unwrap();
    store.deregister(&membership(MEMBER_A, MINUTE)).unwrap();
    assert!(store.purge(false).unwrap());
}

/// Defines a user whose ACL is the documents', but for one rule, and returns the URL with that user.
fn url_without(server: &Server, rule: &str, prefix: &str, database: u8) -> String {
    let mut line = vec!["ACL", "SETUSER", "app", "reset", "on", ">secret", "~myapp:*"];
    let commands = documented_commands();
    line.extend(commands.iter().map(String::as_str).filter(|command| *command != rule));
    server.command(&line);
    format!("{}?user=app&pass=secret&prefix={prefix}&db={database}", server.url())
}

#[test]
fn a_user_without_a_command_is_refused_before_anything_is_written() {
    let server = Server::new();
    for rule in documented_commands().iter().filter(|rule| rule.starts_with('+')) {
        let url = url_without(&server, rule, "myapp:", 1);
        if ["+info", "+unlink", "+scan"].contains(&rule.as_str()) {
            let warnings = warnings(&url);
            assert_eq!(warnings.len(), usize::from(rule == "+info"), "{warnings:?}");
            continue;
        }
        let message = misconfigured(&url);
        assert!(message.contains(&format!("ACL SETUSER app {rule}. README.md")), "{rule}: {message}");
        assert!(StoreUrl::parse(&url).unwrap().check("", &Interrupt::default()).is_err());
    }
    assert_eq!(redis::from_redis_value::<usize>(server.command(&["DBSIZE"])).unwrap(), 0);
}

#[test]
fn all_missing_commands_are_named_at_once() {
    let server = Server::new();
    let url = url_without(&server, "", "myapp:", 0);
    server.command(&["ACL", "SETUSER", "app", "-hget", "-xadd", "-evalsha"]);
    let message = misconfigured(&url);
    assert!(message.contains("its user may not run evalsha, hget, xadd. "), "{message}");
    assert!(message.contains("ACL SETUSER app +evalsha +hget +xadd. "), "{message}");
    server.command(&["ACL", "SETUSER", "app", "+hget", "+xadd", "+evalsha"]);
    StoreUrl::parse(&url).unwrap().open("", Access::Participate, &Interrupt::default()).unwrap();
    // Nor does the check leave a key behind.
    assert_eq!(redis::from_redis_value::<usize>(server.command(&["DBSIZE"])).unwrap(), 0);
}

#[test]
fn a_user_without_the_keys_is_refused() {
    let server = Server::new();
    for (prefix, pattern) in [("", "{om:*"), ("other:", "other:*"), ("a[b]:", "a\\[b\\]:*")] {
        let url = url_without(&server, "", prefix, 0);
        let message = misconfigured(&url);
        assert!(message.contains(&format!("its user may not use the key {prefix}{{om:")), "{message}");
        assert!(
            message.contains(&format!("ACL SETUSER app ~{pattern}; ")) && message.contains("?prefix="),
            "{message}"
        );
        server.command(&["ACL", "SETUSER", "app", &format!("~{pattern}")]);
        let mut store = StoreUrl::parse(&url).unwrap().open("", Access::Participate, &Interrupt::default()).unwrap();
        write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    }
    // The partitions' keys alone are too few.
    let url = url_without(&server, "", "", 0);
    server.command(&["ACL", "SETUSER", "app", "resetkeys", "~{om::*"]);
    assert!(misconfigured(&url).contains("may not use the key {om:}:members"));
}

#[test]
fn a_permission_that_is_taken_away_later_is_named() {
    let server = Server::new();
    let url = url_without(&server, "", "myapp:", 0);
    let mut store = StoreUrl::parse(&url).unwrap().open("", Access::Participate, &Interrupt::default()).unwrap();
    let mut error_with = |rule: &str| {
        server.command(&["ACL", "SETUSER", "app", rule]);
        match store.write(&membership(MEMBER_A, MINUTE), &[heartbeat("ada", 0, MINUTE)]) {
            Err(StoreError::Misconfigured(message)) => message,
            Ok(results) => match results.into_iter().next() {
                Some((_, Err(StoreError::Misconfigured(message)))) => message,
                other => panic!("{:?}", other.map(|(_, result)| result.err())),
            },
            Err(error) => panic!("{error:?}"),
        }
    };
    let message = error_with("-hmget");
    assert!(message.contains("ACL SETUSER app +") && message.contains("README.md has the line"), "{message}");
    let message = error_with("-hmget");
    assert!(message.contains("ACL SETUSER app +hmget. "), "{message}");
    server.command(&["ACL", "SETUSER", "app", "+hmget"]);
    let message = error_with("resetkeys");
    assert!(message.contains("ACL SETUSER app ~myapp:*; ") && message.contains("?prefix="), "{message}");
}

/// Redis rolls nothing back: the event is in the log when the script is refused the next command.
#[test]
fn a_script_that_is_refused_a_command_in_its_middle_is_not_run_again_before_it_is_permitted() {
    let server = Server::new();
    server.command(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all"]);
    let url = format!("{}?user=app&pass=secret", server.url());
    let mut store = StoreUrl::parse(&url).unwrap().open("", Access::Participate, &Interrupt::default()).unwrap();
    sweep(&mut *store);
    server.command(&["ACL", "SETUSER", "app", "-zadd"]);
    for _ in 0..5 {
        let result = store.write(&membership(MEMBER_A, MINUTE), &[heartbeat("ada", 0, MINUTE)]);
        assert!(result.is_err() || result.unwrap().iter().all(|(_, result)| result.is_err()));
    }
    server.command(&["ACL", "SETUSER", "app", "+zadd"]);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let online = ("ada".to_owned(), Transition::Online);
    assert_eq!(events(&mut *store), [online.clone(), online], "one by the first script, and one since");
}

#[test]
fn a_user_who_may_not_run_info_is_warned_about_and_served() {
    let server = Server::new();
    server.command(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-@dangerous"]);
    server.command(&["ACL", "SETUSER", "bare", "on", ">secret", "~*", "+@all", "-@dangerous", "-hello"]);
    for name in ["app", "bare"] {
        let url = format!("{}?user={name}&pass=secret", server.url());
        let mut store = StoreUrl::parse(&url).unwrap().open("", Access::Participate, &Interrupt::default()).unwrap();
        assert!(warnings(&url)[0].contains("may not run INFO"), "{:?}", warnings(&url));
        write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    }
    let replica = Server::with(&["--replicaof", "127.0.0.1", "1"]);
    replica.command(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-@dangerous"]);
    assert!(misconfigured(&format!("{}?user=app&pass=secret", replica.url())).contains("read-only replica"));
}

#[test]
fn a_sentinel_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sentinel.conf");
    std::fs::write(&path, "sentinel resolve-hostnames no\n").unwrap();
    let server = Server::with_config(&path, &["--sentinel"]);
    let message = misconfigured(&server.url());
    assert!(
        message.contains("this is a Redis Sentinel") && message.contains("give the URL of the master"),
        "{message}"
    );
}

/// Polls the partition of a user.
fn poll(store: &mut dyn Store, name: &str, membership: &Membership, request: PollRequest) -> PollResult {
    let partition = store.partition_of(&user(name));
    store.poll(membership, &[PollRequest { partition, ..request }]).unwrap().remove(0).unwrap()
}

/// Has a member find the data of a user's partition older than it knows.
fn go_back(store: &mut dyn Store, name: &str) {
    let mut knowing = knowing(store, MEMBER_A, MINUTE);
    knowing.known.iter_mut().for_each(|known| known.last += 1);
    let partition = store.partition_of(&user(name));
    let result = store.poll(&knowing, &[PollRequest { partition, ..EMPTY_POLL }]).unwrap().remove(0);
    assert!(matches!(result, Err(StoreError::Replaced(_))));
}

#[test]
fn after_the_data_went_back_users_come_online_again_and_events_wait_for_what_was_delivered() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let first = undelivered(&mut *store)[0].clone();
    go_back(&mut *store, "ada");
    let member = membership(MEMBER_A, MINUTE);
    let request = PollRequest { lease: LeaseRequest::Acquire, events: Some((0, 10)), sweep: Some(10), ..EMPTY_POLL };
    let result = poll(&mut *store, "ada", &member, request.clone());
    assert!(result.known.generation > result.known.epoch, "when the data were found to be older");
    assert_eq!(result.lease, LeaseState::Acquired);
    assert!(result.known.last > first.number && result.events.is_empty() && result.oldest.is_some());
    assert!(result.sweep.unwrap().next.unwrap() > MINUTE / 2, "deadlines are held");
    for _ in 0..2 {
        write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
        assert_eq!(events(&mut *store), vec![("ada".to_owned(), Transition::Online); 2], "once more, and only once");
    }
    // Another member has delivered the first one.
    let handled = Handled { epoch: result.known.epoch, through: first.number, except: vec![] };
    poll(
        &mut *store,
        "ada",
        &member,
        PollRequest { handled: Some(Handled { epoch: 1, ..handled.clone() }), ..EMPTY_POLL },
    );
    assert_eq!(undelivered(&mut *store).len(), 2, "of other data");
    let except = Handled { except: vec![first.number], ..handled.clone() };
    poll(&mut *store, "ada", &member, PollRequest { handled: Some(except), ..EMPTY_POLL });
    assert_eq!(undelivered(&mut *store).len(), 2, "not delivered");
    poll(&mut *store, "ada", &member, PollRequest { handled: Some(handled), ..EMPTY_POLL });
    assert_eq!(undelivered(&mut *store).len(), 1);
    thread::sleep(Duration::from_millis(1_050));
    assert_eq!(poll(&mut *store, "ada", &member, request).events.len(), 1);
}

#[test]
fn a_heartbeat_that_is_written_again_too_late_sets_its_user_offline_unless_a_later_one_follows() {
    let server = Server::new();
    let mut store = server.open();
    sweep(&mut *store);
    let again = |name: &str| {
        Write::Heartbeat(Heartbeat { id: user(name), age: MINUTE / 2, timeout: MILLISECOND, purpose: Purpose::Resend })
    };
    write(&mut *store, &[heartbeat("bob", MINUTE / 2, MILLISECOND)]);
    assert_eq!(events(&mut *store), [], "it is no longer good");
    write(&mut *store, &[again("ada")]);
    assert_eq!(events(&mut *store), [], "another process may know a later heartbeat");
    assert_eq!(sweep(&mut *store).expired, 1);
    let offline = |count| vec![("ada".to_owned(), Transition::Offline); count];
    assert_eq!(events(&mut *store), offline(1));
    write(&mut *store, &[again("ada"), again("bob")]);
    assert_eq!(sweep(&mut *store).expired, 1, "Ada once; of Bob these data know no transition");
    write(&mut *store, &[again("ada"), again("bob")]);
    assert_eq!(sweep(&mut *store).expired, 0, "each once");
    write(&mut *store, &[again("cy"), heartbeat("cy", 0, MINUTE)]);
    let online = ("cy".to_owned(), Transition::Online);
    assert_eq!(events(&mut *store)[2..], [online], "perhaps the application knows of an offline");
}

#[test]
fn a_leave_of_an_unknown_user_counts_and_other_members_hear_of_it() {
    let server = Server::new();
    let (mut one, mut other) = (server.open(), server.open());
    let member = membership(MEMBER_B, MINUTE);
    let leaves = |store: &mut dyn Store, after| {
        let result = poll(store, "ada", &member, PollRequest { notices_after: Some(after), ..EMPTY_POLL });
        (result.notices.into_iter().map(|notice| notice.id).collect::<Vec<_>>(), result.notices_until)
    };
    sweep(&mut *one);
    let (none, until) = leaves(&mut *other, 0);
    assert_eq!(none, []);
    write(&mut *one, &[leave("ada", 0, 0)]);
    let (found, next) = leaves(&mut *other, until);
    assert_eq!(found, [user("ada")]);
    assert_eq!(leaves(&mut *other, next), (vec![], next));
    // The heartbeat was before the leave, in another process.
    write(&mut *other, &[heartbeat("ada", 1_000 * MILLISECOND, MINUTE)]);
    assert_eq!(events(&mut *other), []);
    thread::sleep(Duration::from_millis(5));
    write(&mut *other, &[heartbeat("ada", 0, MINUTE)]);
    assert_eq!(events(&mut *other), [("ada".to_owned(), Transition::Online)]);
}

#[test]
fn a_lease_that_another_member_held_and_released_can_be_acquired_but_not_renewed() {
    let server = Server::new();
    let mut store = server.open();
    let (one, other) =
        (Membership { lease: MILLISECOND, ..membership(MEMBER_A, MINUTE) }, membership(MEMBER_B, MINUTE));
    let mut ask = |membership: &Membership, lease| {
        poll(&mut *store, "ada", membership, PollRequest { lease, ..EMPTY_POLL }).lease
    };
    assert_eq!(ask(&one, LeaseRequest::Acquire), LeaseState::Acquired);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(ask(&one, LeaseRequest::Renew), LeaseState::Renewed, "it ran out, and nobody held it since");
    thread::sleep(Duration::from_millis(5));
    assert_eq!(ask(&other, LeaseRequest::Acquire), LeaseState::Acquired);
    assert_eq!(ask(&one, LeaseRequest::Release), LeaseState::HeldByOther);
    assert_eq!(ask(&other, LeaseRequest::Release), LeaseState::Free);
    assert_eq!(ask(&one, LeaseRequest::Renew), LeaseState::Free);
    assert_eq!(ask(&one, LeaseRequest::Acquire), LeaseState::Acquired);
}

#[test]
fn an_event_of_an_older_version_of_the_gem_counts_as_seen_when_it_was_due() {
    let server = Server::new();
    let mut store = server.open();
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    write(&mut *store, &[heartbeat("ada", MINUTE, MILLISECOND), heartbeat("ada", 0, MINUTE)]);
    // As `append` wrote it: without the field of the last heartbeat.
    let events = key(&*store, "ada", "events");
    let due = MINUTE / 1_000;
    let script = "local now = redis.call('TIME'); return redis.call('XADD', KEYS[1], '9000000000000000-0', 'u', ARGV[1], \
                  'k', 't', 'd', string.format('%.0f', now[1] * 1000000 + now[2] - ARGV[2]))";
    let id = String::from_utf8(user("ada").as_bytes().to_vec()).unwrap();
    server.command(&["EVAL", script, "1", &events, &id, &due.to_string()]);
    let event = undelivered(&mut *store).into_iter().next_back().unwrap();
    assert_eq!((event.number, event.seen_ago / MINUTE, event.lateness / MINUTE), (9_000_000_000_000_000, 1, 1));
    let mut polled =
        poll_all(&mut *store, &membership(MEMBER_A, MINUTE), PollRequest { events: Some((0, 9)), ..EMPTY_POLL });
    let partition = store.partition_of(&user("ada"));
    let polled = polled.remove(usize::from(partition)).events;
    let read = polled.last().unwrap();
    assert_eq!((read.number, read.seen_ago / MINUTE), (9_000_000_000_000_000, 1));
    assert!(commit(&mut *store, MEMBER_A, &[(read, Outcome::Dead)]));
    assert_eq!(store.dead_letters().unwrap()[0].event.seen_ago / MINUTE, 1);
}
