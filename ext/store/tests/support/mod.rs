//! What the tests of stores have in common: places where one can be, and short ways to use it.
#![allow(dead_code, unreachable_pub, reason = "not every test uses all of it")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use online_manager_store::id::{Charset, Kind};
use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::{
    Commit, Event, Heartbeat, LeaseRequest, Leave, Membership, PollRequest, Store, Sweep, Token, Write,
};
use online_manager_store::{StoreError, StoreUrl, UserId};
use online_manager_tracker::{Nanos, Transition};
use tempfile::TempDir;

pub const MILLISECOND: Nanos = 1_000_000;
pub const MINUTE: Nanos = 60_000 * MILLISECOND;
pub const US: Token = Token([1; 16]);
pub const THEM: Token = Token([2; 16]);

/// Where a store is, for as long as this lives.
pub trait Place {
    /// The `store:` option.
    fn url(&self) -> String;

    /// All that is in the store is gone.
    fn lose(&self);

    fn try_open(&self, namespace: &str) -> Result<Box<dyn Store>, StoreError> {
        StoreUrl::parse(&self.url()).unwrap().open(namespace, &Interrupt::default())
    }

    fn open(&self) -> Box<dyn Store> {
        self.try_open("").unwrap()
    }
}

/// A folder with a file of SQLite's.
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

/// A redis-server of one's own, on a socket in a folder.
pub struct Server {
    folder: TempDir,
    process: Child,
}

impl Server {
    pub fn new() -> Server {
        Server::with(&[])
    }

    /// With more options of its command line.
    pub fn with(options: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let process = Server::spawn(&folder, options);
        let server = Server { folder, process };
        server.wait_until_it_answers(options);
        server
    }

    fn spawn(folder: &TempDir, options: &[&str]) -> Child {
        Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", "socket"])
            .args(options)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed; bin/setup installs it")
    }

    fn wait_until_it_answers(&self, options: &[&str]) {
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

    /// Has the server run a command.
    pub fn command(&self, keys: &[&str]) -> redis::Value {
        let mut command = redis::cmd(keys[0]);
        keys[1..].iter().for_each(|key| {
            command.arg(*key);
        });
        command.query(&mut self.connection()).unwrap()
    }

    /// Kills it, without its data being written, and starts another one in its place.
    pub fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Server::spawn(&self.folder, &[]);
        self.wait_until_it_answers(&[]);
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
    Membership { token, lease: MINUTE, timeout }
}

pub fn user(name: &str) -> UserId {
    UserId::new(Kind::String(Charset::Ascii), name.as_bytes())
}

pub fn name(id: &UserId) -> String {
    String::from_utf8(id.parts().unwrap().1.to_vec()).unwrap()
}

pub fn beat(name: &str, age: Nanos, timeout: Nanos) -> Write {
    Write::Heartbeat(Heartbeat { id: user(name), age, timeout })
}

pub fn leave(name: &str, age: Nanos, after: Nanos) -> Write {
    Write::Leave(Leave { id: user(name), age, after })
}

/// Tells the store, all of whose partitions take it.
pub fn tell(store: &mut dyn Store, messages: &[Write]) {
    for (_, result) in store.write(&membership(US, MINUTE), messages).unwrap() {
        result.unwrap();
    }
}

/// The same look at every partition.
pub fn look_all(
    store: &mut dyn Store,
    membership: &Membership,
    request: PollRequest,
) -> Vec<online_manager_store::store::PollResult> {
    let requests: Vec<PollRequest> =
        (0..store.partitions()).map(|partition| PollRequest { partition, ..request }).collect();
    store.poll(membership, &requests).unwrap().into_iter().map(Result::unwrap).collect()
}

pub const NOTHING: PollRequest = PollRequest { partition: 0, lease: LeaseRequest::None, sweep: None, events: None };

/// Sweeps all partitions, for a timeout of the config's.
pub fn sweep_for(store: &mut dyn Store, timeout: Nanos) -> Sweep {
    let seen = look_all(store, &membership(US, timeout), PollRequest { sweep: Some(1_000), ..NOTHING });
    let sweeps = seen.into_iter().map(|seen| seen.sweep.unwrap());
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

/// Whether one has all leases now.
pub fn bid(store: &mut dyn Store, token: Token, length: Nanos) -> bool {
    let membership = Membership { lease: length, ..membership(token, MINUTE) };
    let keep = look_all(store, &membership, PollRequest { lease: LeaseRequest::Renew, ..NOTHING });
    let take = look_all(store, &membership, PollRequest { lease: LeaseRequest::Acquire, ..NOTHING });
    keep.iter().zip(&take).all(|(keep, take)| keep.lease.is_held() || take.lease.is_held())
}

pub fn give_back(store: &mut dyn Store, token: Token) {
    look_all(store, &membership(token, MINUTE), PollRequest { lease: LeaseRequest::Release, ..NOTHING });
}

/// What waits, by version: that is as it happened.
pub fn waiting(store: &mut dyn Store) -> Vec<Event> {
    let mut events = store.waiting().unwrap();
    events.sort_by_key(|event| event.version);
    events
}

pub fn events(store: &mut dyn Store) -> Vec<(String, Transition)> {
    waiting(store).iter().map(|event| (name(&event.id), event.transition)).collect()
}

/// What is told of one event.
pub enum Outcome {
    Done,
    Failed(u32),
    Dead,
}

/// Commits what became of events. Answers whether one might.
pub fn commit(store: &mut dyn Store, token: Token, outcomes: &[(&Event, Outcome)]) -> bool {
    let mut commits: Vec<(u16, Commit)> = Vec::new();
    for (event, outcome) in outcomes {
        let partition = store.partition_of(&event.id);
        if !commits.iter().any(|(known, _)| *known == partition) {
            commits.push((partition, Commit::default()));
        }
        let (_, commit) = commits.iter_mut().find(|(known, _)| *known == partition).unwrap();
        match outcome {
            Outcome::Done => commit.done.push(event.number),
            Outcome::Failed(failures) => commit.failed.push((event.number, *failures, "no".to_owned())),
            Outcome::Dead => commit.dead.push((event.number, "never".to_owned())),
        }
    }
    store.commit(&membership(token, MINUTE), &commits).unwrap().into_iter().all(Result::unwrap)
}

/// Ids of the same partition as the first one, as many as wanted.
pub fn neighbours(store: &dyn Store, count: usize) -> Vec<String> {
    let partition = store.partition_of(&user("0"));
    (0..)
        .map(|number| number.to_string())
        .filter(|name| store.partition_of(&user(name)) == partition)
        .take(count)
        .collect()
}
