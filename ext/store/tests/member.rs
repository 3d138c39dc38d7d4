//! A member with a real store, with and without errors of the store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use online_manager_store::id::{Charset, Kind};
use online_manager_store::log::DeliveryOutcome;
use online_manager_store::member::{Member, ReadResult, Timed};
use online_manager_store::{StoreUrl, UserId, boot_clock};
use online_manager_tracker::{Clock, Id, Nanos, Signal, StringId, Transition};
use tempfile::TempDir;

mod support;
use support::{Place, Server};

const MINUTE: Nanos = 60_000_000_000;

struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Nanos {
        boot_clock::now()
    }

    fn jitter(&self) -> Nanos {
        5_000_000
    }
}

/// A clock that jumps ahead by ten seconds, as for a process that was suspended.
#[derive(Clone, Default)]
struct JumpingClock {
    /// After how many more readings it jumps; 0 for never.
    readings: Arc<AtomicU64>,
    /// How far it is ahead of the real clock, in nanoseconds.
    ahead: Arc<AtomicU64>,
}

impl Clock for JumpingClock {
    fn now(&self) -> Nanos {
        let before = self.readings.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |readings| readings.checked_sub(1));
        if before == Ok(1) {
            self.ahead.fetch_add(MINUTE / 6, Ordering::SeqCst);
        }
        boot_clock::now() + self.ahead.load(Ordering::SeqCst)
    }

    fn jitter(&self) -> Nanos {
        5_000_000
    }
}

/// A signal that nobody waits for.
struct NoSignal;

impl Signal for NoSignal {
    fn raise(&self) {}
    fn clear(&self) {}
}

/// Starts a member of the store in a folder.
fn member(folder: &TempDir) -> Member<MachineClock, NoSignal> {
    member_of(&format!("sqlite:{}", path(folder)))
}

fn member_of(url: &str) -> Member<MachineClock, NoSignal> {
    let store_url = StoreUrl::parse(url).unwrap();
    let member = Member::new(store_url, String::new(), MachineClock, NoSignal).unwrap();
    member.set_timeout(MINUTE);
    member.start().unwrap();
    member
}

fn path(folder: &TempDir) -> String {
    folder.path().join("presence.sqlite3").to_str().unwrap().to_owned()
}

fn heartbeat(member: &Member<MachineClock, NoSignal>, name: &'static str) {
    let id = Id::String(StringId { bytes: name.as_bytes(), class: 0, label: 1 });
    member.add_user(id, UserId::new(Kind::String(Charset::Ascii), name.as_bytes()), member.now(), MINUTE);
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Delivers the events of the next call. Returns how many.
fn deliver(member: &Member<MachineClock, NoSignal>) -> usize {
    let (_, events) = member.claim(false, |transition| transition == Transition::Online);
    if !events.is_empty() {
        member.delivered(&DeliveryOutcome::Returned);
    }
    events.len()
}

#[test]
fn a_single_heartbeat_is_not_lost_while_the_file_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let member = member(&folder);
    wait_until("it holds the lease", || member.status().leases > 0);
    let locker = rusqlite::Connection::open(path(&folder)).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    heartbeat(&member, "ada");
    wait_until("it fails", || member.status().store_errors > 0);
    assert!(member.next_outage().is_some_and(|message| message.contains("locked")));
    wait_until("it fails again", || member.status().store_errors > 1);
    assert_eq!(member.next_outage(), None, "reported once");
    assert_eq!(deliver(&member), 0);
    locker.execute_batch("ROLLBACK").unwrap();
    wait_until("the heartbeat is delivered", || deliver(&member) == 1);
    assert_eq!(member.status().unwritten, 0);
}

#[test]
fn a_stop_flushes_the_outbox_and_releases_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let first = member(&folder);
    wait_until("it holds the lease", || first.status().leases > 0);
    let second = member(&folder);
    heartbeat(&first, "ada");
    first.stop();
    wait_until("it has ended", || first.has_ended());
    let ended = Instant::now();
    wait_until("the other one delivers", || deliver(&second) == 1);
    // The lease would have lasted for five seconds.
    assert!(ended.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_process_that_was_suspended_gets_no_longer_lease() {
    let folder = tempfile::tempdir().unwrap();
    let clock = JumpingClock::default();
    let store_url = StoreUrl::parse(&format!("sqlite:{}", path(&folder))).unwrap();
    let member = Member::new(store_url, String::new(), clock.clone(), NoSignal).unwrap();
    member.set_timeout(MINUTE);
    member.start().unwrap();
    wait_until("it holds the lease", || member.status().leases > 0);
    let file = rusqlite::Connection::open(path(&folder)).unwrap();
    // Wherever in a step the jump is.
    for readings in 1..=10 {
        clock.readings.store(readings, Ordering::SeqCst);
        wait_until("the clock has jumped", || clock.readings.load(Ordering::SeqCst) == 0);
        for _ in 0..30 {
            thread::sleep(Duration::from_millis(10));
            let until: i64 = file.query_row("SELECT max(leased_until) FROM namespaces", [], |row| row.get(0)).unwrap();
            let left = until - boot_clock::now() as i64;
            assert!(left <= 5_000_000_000, "a lease of {left} ns, with a jump after {readings} readings");
        }
    }
}

#[test]
fn a_paused_member_resumes_only_if_it_has_seen_a_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let [active, idle] = [true, false].map(|has_seen_heartbeat| {
        let member = member(&folder);
        if has_seen_heartbeat {
            heartbeat(&member, "ada");
        }
        member.pause();
        wait_until("it has ended", || member.is_paused());
        assert!(!member.has_threads());
        member.resume().unwrap();
        member
    });
    assert!(active.has_threads() && !idle.has_threads() && idle.is_inactive());
    wait_until("it delivers", || deliver(&active) == 1);
    wait_until("a snapshot shows who is online", || match idle.snapshot() {
        ReadResult::Ready(taken) => taken.value.users.len() == 1,
        ReadResult::NotYet => false,
        ReadResult::Failed(message) => panic!("{message}"),
    });
}

#[test]
fn a_leave_in_a_process_without_heartbeats_survives_a_fork() {
    let folder = tempfile::tempdir().unwrap();
    let active = member(&folder);
    heartbeat(&active, "ada");
    wait_until("it delivers", || deliver(&active) == 1);
    let idle = member(&folder);
    let user_id = UserId::new(Kind::String(Charset::Ascii), b"ada");
    idle.leave(Id::String(StringId { bytes: b"ada", class: b's', label: 0 }), user_id, idle.now(), 0);
    idle.pause();
    wait_until("it has ended", || idle.is_paused());
    idle.resume().unwrap();
    wait_until("the user is offline", || deliver(&active) + deliver(&idle) == 1);
}

/// A signal that knows whether an SQLite file was open when it was last raised.
struct OpenSignal {
    wal: String,
    was_open: Arc<AtomicBool>,
}

impl Signal for OpenSignal {
    fn raise(&self) {
        // The last connection deletes it.
        self.was_open.store(Path::new(&self.wal).exists(), Ordering::SeqCst);
    }

    fn clear(&self) {}
}

#[test]
fn a_member_closes_its_store_before_it_reports_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let was_open = Arc::new(AtomicBool::new(false));
    let signal = OpenSignal { wal: format!("{}-wal", path(&folder)), was_open: Arc::clone(&was_open) };
    let store_url = StoreUrl::parse(&format!("sqlite:{}", path(&folder))).unwrap();
    let member = Member::new(store_url, String::new(), MachineClock, signal).unwrap();
    member.set_timeout(MINUTE);
    member.start().unwrap();
    wait_until("it holds the lease", || member.status().leases > 0);
    member.wake_reactor();
    assert!(was_open.load(Ordering::SeqCst));
    member.stop();
    wait_until("it has ended", || member.has_ended());
    assert!(!was_open.load(Ordering::SeqCst));
}

#[test]
fn a_snapshot_that_was_read_delays_no_new_files() {
    let folder = tempfile::tempdir().unwrap();
    let member = member(&folder);
    heartbeat(&member, "ada");
    wait_until("it delivers", || deliver(&member) == 1);
    wait_until("a snapshot is read", || matches!(member.snapshot(), ReadResult::Ready(_)));
    wait_until("a summary is read", || matches!(member.summary(), ReadResult::Ready(_)));
    std::fs::remove_file(format!("{}-wal", path(&folder))).unwrap();
    heartbeat(&member, "bob");
    let began = Instant::now();
    let mut outage = None;
    wait_until("it notices", || {
        outage = member.next_outage();
        outage.is_some()
    });
    let message = outage.unwrap();
    assert!(message.contains("was deleted or replaced while this process used it"), "{message}");
    wait_until("it goes on", || deliver(&member) > 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Asks until there is a result or an error.
fn ready<T>(what: &str, mut ask: impl FnMut() -> ReadResult<T>) -> Result<Arc<Timed<T>>, String> {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match ask() {
            ReadResult::Ready(timed) => return Ok(timed),
            ReadResult::Failed(error) => return Err(error),
            ReadResult::NotYet => assert!(Instant::now() < limit, "waited in vain for {what}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_member_that_cannot_create_its_store_does_not_report_that_nobody_is_online() {
    // The folder is there, and not even root can create a file in it.
    let member = member_of("sqlite:/proc/presence.sqlite3");
    heartbeat(&member, "ada");
    assert!(ready("figures", || member.summary()).is_err_and(|error| error.contains("/proc/presence.sqlite3")));
    assert!(ready("users", || member.snapshot()).is_err_and(|error| error.contains("/proc/presence.sqlite3")));
}

#[test]
fn a_store_is_reported_as_empty_only_if_nobody_can_have_tried_to_write_it() {
    let folder = tempfile::tempdir().unwrap();
    let store_url = StoreUrl::parse(&format!("sqlite:{}", path(&folder))).unwrap();
    let reader = || Member::new(store_url.clone(), String::new(), MachineClock, NoSignal).unwrap();
    let unused = reader();
    assert!(ready("users", || unused.snapshot()).is_ok_and(|snapshot| snapshot.value.users.is_empty()));
    let other = reader();
    assert!(ready("figures", || other.summary()).is_ok_and(|summary| summary.value.members.is_empty()));
    // A process that finds the disk full leaves such a file behind.
    std::fs::write(path(&folder), "").unwrap();
    let other = reader();
    assert!(ready("figures", || other.summary()).is_err_and(|error| error.contains("nothing in it yet")));
}

#[test]
fn the_figures_of_a_store_whose_folder_was_lost_are_gone_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let member = member(&folder);
    wait_until(
        "it is registered",
        || matches!(member.summary(), ReadResult::Ready(summary) if summary.value.members.len() == 1),
    );
    std::fs::remove_dir_all(folder.path()).unwrap();
    let lost = Instant::now();
    wait_until("it fails", || matches!(member.summary(), ReadResult::Failed(_)));
    assert!(lost.elapsed() < Duration::from_secs(2), "after {:?}", lost.elapsed());
}

/// Returns how many scripts the server has run.
fn script_calls(server: &Server) -> u64 {
    let info: String = redis::from_redis_value(server.command(&["INFO", "commandstats"])).unwrap();
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    calls.split(',').next().unwrap().parse().unwrap()
}

#[test]
fn leases_are_divided_among_members_and_taken_over_after_a_stop() {
    let server = Server::new();
    let first = member_of(&server.url());
    wait_until("it holds all leases", || first.status().leases == 16);
    let others = [member_of(&server.url()), member_of(&server.url())];
    let all = || [&first, &others[0], &others[1]].map(|member| member.status().leases);
    wait_until("each has its share", || all().iter().sum::<usize>() == 16 && all().iter().all(|leases| *leases >= 4));
    let [second, third] = others;
    second.stop();
    third.stop();
    wait_until("they have ended", || second.has_ended() && third.has_ended());
    let ended = Instant::now();
    wait_until("the first one holds all again", || first.status().leases == 16);
    // Their leases would have lasted for five seconds.
    assert!(ended.elapsed() < Duration::from_secs(4), "{:?}", ended.elapsed());
}

#[test]
fn an_idle_member_polls_less_often() {
    let server = Server::new();
    let member = member_of(&server.url());
    wait_until("it holds all leases", || member.status().leases == 16);
    thread::sleep(Duration::from_secs(1));
    let (start, before) = (Instant::now(), script_calls(&server));
    thread::sleep(Duration::from_secs(1));
    // One script per partition, ten times a second.
    let rate = (script_calls(&server) - before) as f64 / start.elapsed().as_secs_f64();
    assert!(rate < 16.0 * 10.0 * 1.5, "{rate} scripts a second");
    heartbeat(&member, "ada");
    wait_until("it delivers", || deliver(&member) == 1);
}
