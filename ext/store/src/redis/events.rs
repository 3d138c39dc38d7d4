//! The event log and the dead letters.

use std::collections::HashMap;

use super::replies::{Entry, Fields, unexpected_reply};
use super::request::Call;
use super::{EVENTS_PER_SCRIPT, Redis, hex, scripts};
use crate::error::StoreError;
use crate::store::{Commit, DeadLetter, Event, Membership, Partition, Token};

/// The maximum length of an error's text in bytes: each event that failed has one of its own.
const MAX_ERROR: usize = 2_048;

/// Returns the beginning of an error's text.
fn shortened(error: &str) -> &str {
    // A character takes up to four bytes.
    (MAX_ERROR.saturating_sub(3)..=MAX_ERROR).rev().find_map(|length| error.get(..length)).unwrap_or(error)
}

impl Redis {
    /// Builds the calls that commit delivered and failed events of a partition.
    pub(super) fn commit_calls(
        &self,
        membership: &Membership,
        partition: Partition,
        commit: &Commit,
    ) -> Vec<(Partition, Call)> {
        let mut calls = Vec::new();
        let call = || self.call(scripts::commit(), partition, membership).arg(hex(membership.token));
        for done in commit.done.chunks(EVENTS_PER_SCRIPT) {
            let call = done.iter().fold(call().number(done.len()), |call, number| call.number(number));
            calls.push((partition, call));
        }
        for failed in commit.failed.chunks(EVENTS_PER_SCRIPT) {
            let call = failed.iter().fold(call().number(0), |call, (number, failures, error)| {
                call.number(number).number(failures).arg(shortened(error))
            });
            calls.push((partition, call));
        }
        calls
    }

    /// Moves events to the dead letters, and notes which of these a later event in the log supersedes. Returns false if
    /// the member does not hold the lease.
    pub(super) fn dead_letter(
        &mut self,
        membership: &Membership,
        partition: Partition,
        dead: &[(u64, u32, String)],
    ) -> Result<bool, StoreError> {
        for dead in dead.chunks(EVENTS_PER_SCRIPT) {
            let mut after = String::new();
            let mut dead = dead;
            // Once, unless the log is long: then the script goes through it in several calls.
            while after != "0" {
                let call = self.call(scripts::dead_letter(), partition, membership).arg(hex(membership.token));
                let call = dead.iter().fold(call.arg(&after), |call, (number, failures, error)| {
                    call.number(number).number(failures).arg(shortened(error))
                });
                let replies = self.call_partitions::<(u8, u64)>(vec![(partition, call)])?;
                let (_, reply) = replies.into_iter().next().ok_or_else(unexpected_reply)?;
                let ((is_held, next), _) = reply?;
                if is_held == 0 {
                    return Ok(false);
                }
                after = next.to_string();
                dead = &[];
            }
        }
        Ok(true)
    }

    /// Reads up to `limit` entries of a stream. `from` is the start of a range as XRANGE has it.
    fn page(&mut self, key: &str, from: &str, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(key).arg(from).arg("+").arg("COUNT").arg(limit);
        let entries: Vec<(String, Fields)> = self.send_command(command)?;
        entries.into_iter().map(|(number, fields)| Entry::read(&number, fields)).collect()
    }

    /// Reads all entries of a stream.
    fn pages(&mut self, key: &str) -> Result<Vec<Entry>, StoreError> {
        let mut all = Vec::new();
        let mut from = "-".to_owned();
        loop {
            let mut entries = self.page(key, &from, EVENTS_PER_SCRIPT)?;
            let Some(last) = entries.last() else { return Ok(all) };
            from = format!("({}-0", last.number);
            all.append(&mut entries);
        }
    }

    /// Reads all events of all logs.
    pub(super) fn read_log(&mut self) -> Result<Vec<Event>, StoreError> {
        let mut undelivered = Vec::new();
        let summaries = self.summaries()?;
        for (keys, summary) in self.keys.clone().into_iter().zip(summaries) {
            let mut command = redis::cmd("HGETALL");
            command.arg(&keys.failures);
            let failures_by_number: HashMap<u64, String> = self.send_command(command)?;
            for entry in self.pages(&keys.events)? {
                let failures =
                    failures_by_number.get(&entry.number).and_then(|text| text.split(' ').next()?.parse().ok());
                let entry = Entry { failures: failures.unwrap_or(0), ..entry };
                undelivered.extend(entry.event(summary.now));
            }
        }
        Ok(undelivered)
    }

    /// Reads all dead letters.
    pub(super) fn read_dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        let summaries = self.summaries()?;
        for (keys, summary) in self.keys.clone().into_iter().zip(summaries) {
            let mut command = redis::cmd("HGETALL");
            command.arg(&keys.superseded);
            let newest: HashMap<Vec<u8>, i64> = self.send_command(command)?;
            for entry in self.pages(&keys.dead_letters)? {
                let is_superseded = newest.get(&entry.id).is_some_and(|newest| *newest > entry.version);
                letters.extend(entry.event(summary.now).map(|event| {
                    let error = entry.error.clone();
                    DeadLetter { event, error, is_superseded }
                }));
            }
        }
        Ok(letters)
    }

    /// Requeues all dead letters but superseded ones. Returns how many were requeued and how many dropped.
    pub(super) fn requeue(&mut self) -> Result<(usize, usize), StoreError> {
        // The script uses neither a token nor a timeout, except for the timeout if the data is lost: no epoch is known
        // here.
        let membership =
            Membership { token: Token([0; 16]), lease: 0, timeout: 0, known: Vec::new(), name: String::new() };
        let (mut requeued, mut dropped) = (0, 0);
        let summaries = self.summaries()?;
        for (partition, mut left) in (0..).zip(summaries.into_iter().map(|summary| summary.dead_letters)) {
            while left > 0 {
                let call = self.call(scripts::requeue(), partition, &membership).number(EVENTS_PER_SCRIPT);
                for (_, reply) in self.call_partitions::<(usize, usize, u64)>(vec![(partition, call)])? {
                    let ((again, superseded, remaining), _) = reply?;
                    requeued += again;
                    dropped += superseded;
                    left = remaining;
                }
            }
        }
        Ok((requeued, dropped))
    }
}
