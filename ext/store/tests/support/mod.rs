//! Shared by the tests: places for a store, and short calls of its methods.
#![allow(dead_code, unreachable_pub, reason = "not every test uses all of it")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use online_manager_store::id::{Charset, Kind};
use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::{
    Commit, Event, Heartbeat, LeaseRequest, Leave, Membership, PollRequest, Purpose, Store, Sweep, Token, Write,
};
use online_manager_store::{Access, StoreError, StoreUrl, UserId};
use online_manager_tracker::{Nanos, Transition};
use tempfile::TempDir;

pub const MILLISECOND: Nanos = 1_000_000;
pub const MINUTE: Nanos = 60_000 * MILLISECOND;
pub const MEMBER_A: Token = Token([1; 16]);
pub const MEMBER_B: Token = Token([2; 16]);

/// A place where a store is. The store is deleted with it.
pub trait Place {
    /// Returns the `store:` option.
    fn url(&self) -> String;

    /// Deletes all data of the store.
    fn lose(&self);

    fn try_open(&self, namespace: &str) -> Result<Box<dyn Store>, StoreError> {
        StoreUrl::parse(&self.url()).unwrap().open(namespace, Access::Participate, &Interrupt::default())
    }

    fn open(&self) -> Box<dyn Store> {
        self.try_open("").unwrap()
    }
}

/// A folder for an SQLite file.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("presence.sqlite3")
    }
}

impl Place for Folder {
    fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    fn lose(&self) {
        for file in std::fs::read_dir(self.0.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}

/// A redis-server on a socket in its own folder.
pub struct Server {
    folder: TempDir,
    process: Child,
}

impl Server {
    pub fn new() -> Server {
        Server::with(&[])
    }

    /// Starts a server with more command-line options.
    pub fn with(options: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let process = Server::spawn(&folder, options);
        let server = Server { folder, process };
        server.wait_until_ready(options);
        server
    }

    /// Starts a server with a configuration file, which it may write to.
    pub fn with_config(file: &std::path::Path, options: &[&str]) -> Server {
        let file = file.to_str().unwrap();
        Server::with(&[&[file], options].concat())
    }

    fn spawn(folder: &TempDir, options: &[&str]) -> Child {
        // A configuration file has to be the first argument.
        let (file, options) =
            options.split_at(usize::from(options.first().is_some_and(|first| !first.starts_with('-'))));
        Command::new("redis-server")
            .args(file)
            .args(["--port", "0", "--save", "", "--unixsocket", "socket"])
            .args(options)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed; bin/setup installs it")
    }

    fn wait_until_ready(&self, options: &[&str]) {
        let limit = Instant::now() + Duration::from_secs(10);
        let password = options.iter().position(|option| *option == "--requirepass").map(|place| options[place + 1]);
        let url = password.map_or(self.url(), |password| format!("{}?pass={password}", self.url()));
        while redis::Client::open(url.as_str()).unwrap().get_connection().is_err() {
            assert!(Instant::now() < limit, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Sends a command to the server. Returns the reply.
    pub fn command(&self, words: &[&str]) -> redis::Value {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.connection()).unwrap()
    }

    /// Kills the server, which loses its data, and starts another one in its place.
    pub fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Server::spawn(&self.folder, &[]);
        self.wait_until_ready(&[]);
    }
}

impl Place for Server {
    fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("socket").display())
    }

    fn lose(&self) {
        self.command(&["FLUSHALL"]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

pub fn membership(token: Token, timeout: Nanos) -> Membership {
    Membership { token, lease: MINUTE, timeout, known: Vec::new(), name: "here:1".into() }
}

/// Returns a membership that knows the present data of each partition.
pub fn knowing(store: &mut dyn Store, token: Token, timeout: Nanos) -> Membership {
    let known = poll_all(store, &membership(token, timeout), EMPTY_POLL).iter().map(|result| result.known).collect();
    Membership { known, ..membership(token, timeout) }
}

pub fn user(name: &str) -> UserId {
    UserId::new(Kind::String(Charset::Ascii), name.as_bytes())
}

pub fn name(id: &UserId) -> String {
    String::from_utf8(id.parts().unwrap().1.to_vec()).unwrap()
}

pub fn heartbeat(name: &str, age: Nanos, timeout: Nanos) -> Write {
    Write::Heartbeat(Heartbeat { id: user(name), age, timeout, purpose: Purpose::Report })
}

/// Heartbeats of a user who is due in `timeout`, and who comes online however late they arrive: a machine that stands
/// still for longer than a short timeout would bring nobody online with one heartbeat.
pub fn soon_due(name: &str, timeout: Nanos) -> [Write; 2] {
    [heartbeat(name, 0, MINUTE), heartbeat(name, 0, timeout)]
}

pub fn leave(name: &str, age: Nanos, after: Nanos) -> Write {
    Write::Leave(Leave { id: user(name), age, after })
}

/// Writes to the store, and expects success of every partition.
pub fn write(store: &mut dyn Store, writes: &[Write]) {
    for (_, result) in store.write(&membership(MEMBER_A, MINUTE), writes).unwrap() {
        result.unwrap();
    }
}

/// Polls every partition with the same request.
pub fn poll_all(
    store: &mut dyn Store,
    membership: &Membership,
    request: PollRequest,
) -> Vec<online_manager_store::store::PollResult> {
    let requests: Vec<PollRequest> =
        (0..store.partitions()).map(|partition| PollRequest { partition, ..request.clone() }).collect();
    store.poll(membership, &requests).unwrap().into_iter().map(Result::unwrap).collect()
}

/// A request for nothing but the state of the lease.
pub const EMPTY_POLL: PollRequest = PollRequest {
    partition: 0,
    lease: LeaseRequest::None,
    sweep: None,
    events: None,
    notices_after: None,
    handled: None,
};

/// Sweeps all partitions, with this timeout of the config.
pub fn sweep_for(store: &mut dyn Store, timeout: Nanos) -> Sweep {
    let results = poll_all(store, &membership(MEMBER_A, timeout), PollRequest { sweep: Some(1_000), ..EMPTY_POLL });
    let sweeps = results.into_iter().map(|result| result.sweep.unwrap());
    let together = |one: Sweep, other: Sweep| Sweep {
        expired: one.expired + other.expired,
        lag: one.lag.max(other.lag),
        next: one.next.into_iter().chain(other.next).min(),
    };
    sweeps.reduce(together).unwrap()
}

pub fn sweep(store: &mut dyn Store) -> Sweep {
    sweep_for(store, MINUTE)
}

/// Acquires or renews all leases. Returns whether the member holds them all.
pub fn acquire(store: &mut dyn Store, token: Token, length: Nanos) -> bool {
    let membership = Membership { lease: length, ..membership(token, MINUTE) };
    let renewed = poll_all(store, &membership, PollRequest { lease: LeaseRequest::Renew, ..EMPTY_POLL });
    let acquired = poll_all(store, &membership, PollRequest { lease: LeaseRequest::Acquire, ..EMPTY_POLL });
    renewed.iter().zip(&acquired).all(|(renewed, acquired)| renewed.lease.is_held() || acquired.lease.is_held())
}

pub fn release(store: &mut dyn Store, token: Token) {
    poll_all(store, &membership(token, MINUTE), PollRequest { lease: LeaseRequest::Release, ..EMPTY_POLL });
}

/// Returns the events in the log by version, which is the order in which they happened.
pub fn undelivered(store: &mut dyn Store) -> Vec<Event> {
    let mut events = store.undelivered_events().unwrap();
    events.sort_by_key(|event| event.version);
    events
}

pub fn events(store: &mut dyn Store) -> Vec<(String, Transition)> {
    undelivered(store).iter().map(|event| (name(&event.id), event.transition)).collect()
}

/// What is committed of an event.
pub enum Outcome {
    Done,
    Failed(u32),
    Dead,
}

/// Commits what became of events. Returns whether the member holds the leases.
pub fn commit(store: &mut dyn Store, token: Token, outcomes: &[(&Event, Outcome)]) -> bool {
    let mut commits: Vec<(u16, Commit)> = Vec::new();
    for (event, outcome) in outcomes {
        let partition = store.partition_of(&event.id);
        if !commits.iter().any(|(other, _)| *other == partition) {
            commits.push((partition, Commit::default()));
        }
        let (_, commit) = commits.iter_mut().find(|(other, _)| *other == partition).unwrap();
        match outcome {
            Outcome::Done => commit.done.push(event.number),
            Outcome::Failed(failures) => commit.failed.push((event.number, *failures, "no".to_owned())),
            Outcome::Dead => commit.dead.push((event.number, event.failures + 1, "never".to_owned())),
        }
    }
    store.commit(&membership(token, MINUTE), &commits).unwrap().into_iter().all(Result::unwrap)
}

/// Returns `count` ids of the same partition.
pub fn neighbours(store: &dyn Store, count: usize) -> Vec<String> {
    let partition = store.partition_of(&user("0"));
    (0..)
        .map(|number| number.to_string())
        .filter(|name| store.partition_of(&user(name)) == partition)
        .take(count)
        .collect()
}
