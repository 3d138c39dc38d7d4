//! Who is online in all partitions.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::replies::{Summary, parse};
use super::request::Call;
use super::{Redis, scripts};
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::Snapshot;

/// How many users a step of a scan reads: enough for few round trips, and little enough not to block the server.
const SCAN_COUNT: usize = 1_000;
type Pairs = Vec<(Vec<u8>, String)>;

impl Redis {
    /// Reads everyone who is online. A user who changes meanwhile may be in it or not.
    pub(super) fn read_snapshot(&mut self) -> Result<Snapshot, StoreError> {
        let summaries = self.summaries()?;
        let users = self.scan("ZSCAN", self.keys.iter().map(|keys| keys.users.clone()).collect())?;
        let overflow = self.scan("HSCAN", self.keys.iter().map(|keys| keys.overflow.clone()).collect())?;
        let mut snapshot = Snapshot::default();
        for ((summary, users), overflow) in summaries.into_iter().zip(users).zip(overflow) {
            snapshot.undelivered_events += summary.undelivered;
            snapshot.dead_letters += summary.dead_letters;
            let overflow: HashMap<Vec<u8>, String, RandomState> = overflow.into_iter().collect();
            snapshot.users.extend(users.into_iter().filter_map(|(id, score)| {
                let ago = overflow.get(&id).map_or_else(|| summary.ago(&score), |times| summary.ago_of_overflow(times));
                UserId::from_store(&id).map(|id| (id, ago))
            }));
        }
        Ok(snapshot)
    }

    /// Reads the clock, the timeouts and the numbers of events of all partitions.
    pub(super) fn summaries(&mut self) -> Result<Vec<Summary>, StoreError> {
        let calls: Vec<Call> = self.keys.iter().map(|keys| Call::new(scripts::summary(), keys.all())).collect();
        let replies = self.connection.call(&calls)?;
        replies.into_iter().map(|reply| reply.and_then(Summary::read)).collect()
    }

    /// Reads hashes or sorted sets, in steps. What is in one all the time is in the result.
    fn scan(&mut self, name: &str, keys: Vec<String>) -> Result<Vec<Pairs>, StoreError> {
        let mut found = vec![Pairs::new(); keys.len()];
        let mut unfinished: Vec<(usize, String, u64)> =
            keys.into_iter().enumerate().map(|(number, key)| (number, key, 0)).collect();
        while !unfinished.is_empty() {
            let command = |(_, key, cursor): &(usize, String, u64)| {
                let mut command = redis::cmd(name);
                command.arg(key).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
                command
            };
            let replies = self.connection.send(&unfinished.iter().map(command).collect::<Vec<_>>())?;
            let mut next = Vec::with_capacity(unfinished.len());
            for ((number, key, _), reply) in unfinished.into_iter().zip(replies) {
                let (cursor, pairs): (u64, Pairs) = parse(reply?)?;
                found.iter_mut().skip(number).take(1).for_each(|all| all.extend(pairs.iter().cloned()));
                if cursor != 0 {
                    next.push((number, key, cursor));
                }
            }
            unfinished = next;
        }
        Ok(found)
    }
}
