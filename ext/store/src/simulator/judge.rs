//! What the callbacks of all processes hear, against what the users did.
//!
//! The judge knows when each user last sent a heartbeat or left, and when something was last wrong. A promise that holds
//! under any fault is checked always; one about how soon something happens only if nothing has been wrong for a while.

use std::collections::{BTreeMap, BTreeSet};

use online_manager_tracker::{Nanos, Transition};

use super::options::{MILLISECOND, SECOND};
use crate::store::{Event, ORDER_TOLERANCE, Token};

/// How soon a heartbeat brings its user online, and a leave sets its user offline, while nothing is wrong.
pub(super) const PROMPT: Nanos = SECOND;

/// Two times count as equal that are closer than the resolution of the processes' clock.
pub(super) const EQUAL: Nanos = 12 * MILLISECOND;

/// Within which time other processes hear of a heartbeat with a shorter timeout, and write.
const SETTLED: Nanos = 400 * MILLISECOND;

/// How many calls of the store one process may make within a second.
const MAX_CALLS_PER_SECOND: usize = 500;

/// How far a user's leave has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Parting {
    /// The user has not left, or perhaps came back.
    #[default]
    None,
    /// The user has left for good at that time: clearly after the last heartbeat, and due at once.
    Left(Nanos),
    /// The store knows that.
    Known,
    /// It has set the user offline: no older heartbeat brings the user online.
    Gone,
}

/// What is known of one user.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) last_heartbeat: Option<Nanos>,
    pub(super) last_leave: Option<Nanos>,
    /// When all heartbeats came, and with which timeouts.
    pub(super) heartbeats: Vec<(Nanos, Nanos)>,
    /// The process of the last heartbeat.
    pub(super) last_process: Option<usize>,
    /// The last leave must count: it was clearly after the last heartbeat, or the same process got both, or the store
    /// knew the heartbeat.
    pub(super) is_leave_certain: bool,
    pub(super) parting: Parting,
    /// The data were lost, and every process that knew the user knows that the user has left.
    pub(super) is_leave_kept: bool,
    /// The process of the last leave, by number and by token.
    pub(super) left_process: Option<usize>,
    pub(super) left_by: Option<Token>,
    /// The last heartbeat came soon after a leave: it may be dated forward.
    pub(super) is_return: bool,
    /// The last heartbeat must count even if it came right after the last leave: the same process got both.
    pub(super) is_return_certain: bool,
    /// The versions that a callback was called for.
    started: BTreeSet<i64>,
    latest: Option<(i64, Transition)>,
    /// The last transition whose callback returned.
    pub(super) heard: Option<Transition>,
    /// The versions of calls that did not end as they should: these may come again.
    may_repeat: BTreeSet<i64>,
    /// Nobody knows what was called last for the user: the data were lost, and so were the processes that got the heartbeats.
    pub(super) is_lost: bool,
    /// The process that last put the user's deadline off.
    pub(super) prolonged_by: Option<Token>,
    /// The data went back, and nobody who knew newer ones lives: what is online there may not be what was called last.
    pub(super) is_unknown: bool,
}

impl User {
    /// The timeout of the last heartbeat, or of one whose order with it is not certain: the shortest.
    pub(super) fn last_timeout(&self) -> Nanos {
        let last = self.last_heartbeat.unwrap_or(0);
        let nearly_last = self.heartbeats.iter().filter(|(at, _)| at + ORDER_TOLERANCE + EQUAL > last);
        nearly_last.map(|(_, timeout)| *timeout).min().unwrap_or(0)
    }

    /// The version of the last transition, or 0.
    pub(super) fn latest_version(&self) -> i64 {
        self.latest.map_or(0, |(version, _)| version)
    }
}

#[derive(Debug)]
pub(super) struct Judge {
    pub(super) users: Vec<User>,
    /// Something was wrong until then.
    pub(super) trouble_until: Nanos,
    /// The data were lost or older at some time.
    pub(super) has_lost_data: bool,
    /// A call may have been repeated from older data whose lease holder was gone.
    pub(super) may_repeat_anything: bool,
    pub(super) reports: usize,
    /// How many callbacks have returned without an exception.
    successes: u64,
    /// By version, how often the callback failed while others succeeded, and the number of successes at its last failure.
    failures: BTreeMap<i64, (u32, u64)>,
    /// What is called before then may be called again: a lease may end at any moment.
    pub(super) repeats_until: Nanos,
}

impl Judge {
    pub(super) fn new(users: usize) -> Judge {
        Judge {
            users: (0..users).map(|_| User::default()).collect(),
            trouble_until: 0,
            has_lost_data: false,
            may_repeat_anything: false,
            reports: 0,
            successes: 0,
            failures: BTreeMap::new(),
            repeats_until: 0,
        }
    }

    pub(super) fn trouble(&mut self, until: Nanos) {
        self.trouble_until = self.trouble_until.max(until);
    }

    /// A callback is called.
    pub(super) fn started(&mut self, user: usize, event: &Event, now: Nanos) -> Result<(), String> {
        if now < self.repeats_until {
            self.may_repeat(user, event.version);
        }
        let may_repeat_anything = self.may_repeat_anything;
        let has_lost_data = self.has_lost_data;
        let known = &mut self.users[user];
        let (version, transition) = (event.version, event.transition);
        let is_repeated = known.started.contains(&version);
        if let Some((latest, latest_transition)) = known.latest {
            if version < latest && !may_repeat_anything && !known.may_repeat.contains(&version) {
                return Err(format!(
                    "user {user}: {transition:?} of version {version} is called after version {latest}"
                ));
            }
            if version > latest && transition == latest_transition && !has_lost_data {
                return Err(format!("user {user}: {transition:?} is called twice, as {latest} and as {version}"));
            }
        }
        if is_repeated && !known.may_repeat.contains(&version) && !may_repeat_anything {
            return Err(format!("user {user}: {transition:?} of version {version} is called again"));
        }
        known.started.insert(version);
        if may_repeat_anything && (!is_repeated || !known.may_repeat.contains(&version)) {
            // Versions may have begun again at a lower one.
            known.latest = known.latest.filter(|(latest, _)| version >= *latest);
        }
        if version > known.latest_version() {
            (known.is_lost, known.is_unknown) = (false, false);
        }
        if known.latest.is_none_or(|(latest, _)| version >= latest) {
            known.latest = Some((version, transition));
        }
        Ok(())
    }

    /// The callback has returned.
    pub(super) fn returned(&mut self, user: usize, event: &Event) {
        self.successes += 1;
        let known = &mut self.users[user];
        if known.latest.is_none_or(|(latest, _)| event.version >= latest) {
            known.heard = Some(event.transition);
        }
    }

    /// The callback has failed. That counts if a callback has succeeded since it failed last.
    pub(super) fn failed(&mut self, event: &Event) {
        let (count, successes) = self.failures.entry(event.version).or_insert((0, 0));
        if *count == 0 || self.successes > *successes {
            *count += 1;
        }
        *successes = self.successes;
    }

    /// How many failures of an event count.
    pub(super) fn counted_failures(&self, version: i64) -> u32 {
        self.failures.get(&version).map_or(0, |(count, _)| *count)
    }

    /// The callback may be called again: it failed, or its process was killed, stood still or was cut off before the commit.
    pub(super) fn may_repeat(&mut self, user: usize, version: i64) {
        self.users[user].may_repeat.insert(version);
    }

    /// The data of a user went back, and nobody who knew newer ones lives: what they say was not called, is called.
    pub(super) fn went_back_unnoticed(&mut self, user: usize) {
        let user = &mut self.users[user];
        user.is_unknown = true;
        user.may_repeat.extend(&user.started);
    }

    /// Whatever this process has delivered lately may be delivered again.
    pub(super) fn may_repeat_all(&mut self) {
        for user in &mut self.users {
            user.may_repeat.extend(&user.started);
        }
    }

    /// Nothing has been wrong for long enough at `now` that promises about time hold.
    pub(super) fn is_calm(&self, now: Nanos, settling: Nanos) -> bool {
        now > self.trouble_until + settling
    }

    /// Whether the user left last, or sent a heartbeat last; none if that is uncertain.
    pub(super) fn is_present(&self, user: usize, now: Nanos, timeout: Nanos) -> Option<bool> {
        let known = &self.users[user];
        match (known.last_heartbeat, known.last_leave) {
            (None, _) => Some(false),
            (Some(heartbeat), Some(leave)) if leave >= heartbeat => known.is_leave_certain.then_some(false),
            // The leave may win.
            (Some(heartbeat), Some(leave))
                if heartbeat - leave < ORDER_TOLERANCE + EQUAL && !known.is_return_certain =>
            {
                None
            }
            (Some(heartbeat), _) => Some(heartbeat + timeout > now),
        }
    }

    /// Whether every heartbeat was good beyond `due` that came since the last one which all processes had time to hear of and
    /// write, and the user has not left since that one.
    pub(super) fn has_heartbeats(&self, user: usize, due: Nanos) -> bool {
        let known = &self.users[user];
        let before = known.heartbeats.iter().filter(|(at, _)| *at <= due);
        let Some((written, _)) = before.clone().rfind(|(at, _)| at + SETTLED <= due) else { return false };
        let mut since = before.filter(|(at, _)| at + ORDER_TOLERANCE + EQUAL > *written);
        since.all(|(at, timeout)| at + timeout > due + EQUAL)
            && known.last_leave.is_none_or(|leave| leave + SECOND < *written)
    }

    pub(super) fn check_calls(&self, process: usize, calls: usize) -> Result<(), String> {
        if calls > MAX_CALLS_PER_SECOND {
            return Err(format!("process {process} called the store {calls} times within a second"));
        }
        Ok(())
    }
}
