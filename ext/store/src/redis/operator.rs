//! What an operator asks of a namespace, and of the server: which there are, their figures, and their end.

use std::collections::{BTreeSet, HashMap};

use super::connection::Connection;
use super::replies::{nanos, parse, unexpected_reply};
use super::scripts::{self, Keys};
use super::url::ServerUrls;
use super::{MILLISECOND, Redis};
use crate::error::StoreError;
use crate::interrupt::Interrupt;
use crate::store::{MemberSummary, StoreSummary};

impl Redis {
    /// See [`StoreUrl::namespaces`](crate::StoreUrl::namespaces).
    pub(crate) fn namespaces(servers: &ServerUrls, interrupt: &Interrupt) -> Result<Vec<String>, StoreError> {
        namespaces(&mut Connection::open(servers, None, interrupt)?)
    }

    /// Whether the namespace has a key.
    pub(super) fn exists(&mut self) -> Result<bool, StoreError> {
        let commands: Vec<_> = self.all_keys().map(|keys| command("EXISTS", &keys)).collect();
        let replies = self.connection.send(&commands)?;
        let mut exists = false;
        for reply in replies {
            exists |= parse::<u64>(reply?)? > 0;
        }
        Ok(exists)
    }

    /// Returns the error for a namespace without a key.
    pub(super) fn missing(&mut self, namespace: &str) -> Result<StoreError, StoreError> {
        let names = namespaces(&mut self.connection)?;
        Ok(StoreError::missing_namespace(self.connection.servers(), namespace, &names))
    }

    /// Reads the figures of all partitions and the members, in two round trips.
    pub(super) fn read_summary(&mut self) -> Result<StoreSummary, StoreError> {
        let summaries = self.summaries()?;
        let members = self.registered_members()?;
        let names = members.iter().map(|(token, name, _)| (token.clone(), name.clone())).collect::<HashMap<_, _>>();
        let summary = |(_, name, remaining): (_, String, u64)| MemberSummary { name, remaining };
        Ok(StoreSummary {
            partitions: summaries.iter().map(|summary| summary.partition(&names)).collect(),
            members: members.into_iter().map(summary).collect(),
        })
    }

    /// Deletes all keys of the namespace. Returns false, and deletes nothing, if a member is registered and `is_forced`
    /// is false.
    pub(super) fn delete_all(&mut self, is_forced: bool) -> Result<bool, StoreError> {
        if !is_forced && !self.registered_members()?.is_empty() {
            return Ok(false);
        }
        let commands: Vec<_> = self.all_keys().map(|keys| command("UNLINK", &keys)).collect();
        self.connection.send(&commands)?.into_iter().try_for_each(|reply| reply.map(|_| ()))?;
        Ok(true)
    }

    /// Returns the keys of the namespace, in groups of one hash tag each.
    fn all_keys(&self) -> impl Iterator<Item = Vec<&str>> {
        self.keys.iter().map(|keys: &Keys| keys.all().to_vec()).chain([vec![self.members.as_str()]])
    }

    /// Returns the token and name of each registered member, and how long its registration lasts.
    fn registered_members(&mut self) -> Result<Vec<(String, String, u64)>, StoreError> {
        let mut range = command("ZRANGE", &[self.members.as_str()]);
        range.arg(0).arg(-1).arg("WITHSCORES");
        // A cluster sends a command without a key to any of its servers: its clock may differ by a little.
        let mut replies = self.connection.send(&[range, redis::cmd("TIME")])?.into_iter();
        let mut next = || replies.next().ok_or_else(unexpected_reply)?;
        let (members, time): (Vec<(String, f64)>, (i64, i64)) = (parse(next()?)?, parse(next()?)?);
        let now = time.0 * 1_000 + time.1 / 1_000;
        let member = |(member, until): (String, f64)| {
            let remaining = nanos((until as i64 - now).max(0) * (MILLISECOND / 1_000) as i64);
            let (token, name) = member.split_once(' ').unwrap_or((&member, &member));
            (remaining > 0).then(|| (token.to_owned(), name.to_owned(), remaining))
        };
        Ok(members.into_iter().filter_map(member).collect())
    }
}

/// Builds a command with keys.
fn command(name: &str, keys: &[&str]) -> redis::Cmd {
    let mut command = redis::cmd(name);
    command.arg(keys);
    command
}

/// Returns the names of the namespaces, in order.
fn namespaces(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let prefix = connection.servers().prefix().to_owned();
    let mut names = BTreeSet::new();
    for pattern in scripts::patterns(&prefix) {
        let keys = connection.scan(&pattern)?;
        names.extend(keys.iter().filter_map(|key| scripts::namespace_of(&prefix, key)));
    }
    Ok(names.into_iter().collect())
}
