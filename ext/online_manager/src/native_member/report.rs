//! The operator's view of a store, for the executable. These methods open the store themselves, and wait for it.

use magnus::{Error, RArray, RHash, Ruby, Value};
use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::{Event, MemberSummary, PartitionSummary};
use online_manager_store::{Access, Store, StoreError, StoreUrl};
use online_manager_tracker::Nanos;

use super::deliver::symbol;
use super::{NativeMember, parse_store_url};
use crate::error::store_error;
use crate::native_tracker::detail;
use crate::store_id;

impl NativeMember {
    /// `NativeMember.report(store, namespace, users, max_events, max_dead_letters) -> Hash`
    ///
    /// It has the `:partitions` and the `:members`; with `users` the `:users` who are online, and for how many seconds
    /// each was not seen; and the waiting `:events` and the `:dead_letters`, unless there are more than those maxima, or
    /// the maximum is nil and sets none. What it leaves out is nil.
    ///
    /// Raises a StoreError if the store cannot be read or does not exist, and an ArgumentError if it is no store.
    pub(super) fn report(
        ruby: &Ruby,
        store: Value,
        namespace: String,
        users: bool,
        max_events: Option<u64>,
        max_dead_letters: Option<u64>,
    ) -> Result<RHash, Error> {
        let mut store = open(ruby, &parse_store_url(ruby, store)?, &namespace)?;
        let failed = |error| failed(ruby, &error);
        let summary = store.summary().map_err(failed)?;
        let is_listed = |max: Option<u64>, count: fn(&PartitionSummary) -> u64| {
            max.is_none_or(|max| summary.partitions.iter().map(count).sum::<u64>() <= max)
        };
        let events = if is_listed(max_events, |partition| partition.undelivered) {
            Some(events(ruby, &store.undelivered_events().map_err(failed)?)?)
        } else {
            None
        };
        let dead_letters = if is_listed(max_dead_letters, |partition| partition.dead_letters) {
            Some(dead_letters(ruby, &mut *store)?)
        } else {
            None
        };
        let users = if users { Some(online_users(ruby, &mut *store)?) } else { None };
        let partitions = partitions(ruby, &summary.partitions, 0)?;
        let members = ruby.ary_new();
        for member in &summary.members {
            members.push(member_to_hash(ruby, member)?)?;
        }
        let hash = ruby.hash_new();
        hash.aset(ruby.to_symbol("partitions"), partitions)?;
        hash.aset(ruby.to_symbol("members"), members)?;
        hash.aset(ruby.to_symbol("users"), users)?;
        hash.aset(ruby.to_symbol("events"), events)?;
        hash.aset(ruby.to_symbol("dead_letters"), dead_letters)?;
        Ok(hash)
    }

    /// `NativeMember.requeue_dead_letters(store, namespace) -> [requeued, dropped]`: how many dead letters are
    /// delivered again, and how many were superseded and are dropped
    ///
    /// Raises as `report` does.
    pub(super) fn requeue_dead_letters(ruby: &Ruby, store: Value, namespace: String) -> Result<(usize, usize), Error> {
        let mut store = open_for_change(ruby, store, &namespace)?;
        store.requeue_dead_letters().map_err(|error| failed(ruby, &error))
    }

    /// `NativeMember.purge(store, namespace, forced) -> true`, or false if a member is registered and `forced` is not
    /// true: deletes the namespace with everything in it
    ///
    /// Raises as `report` does.
    pub(super) fn purge(ruby: &Ruby, store: Value, namespace: String, is_forced: bool) -> Result<bool, Error> {
        open_for_change(ruby, store, &namespace)?.purge(is_forced).map_err(|error| failed(ruby, &error))
    }
}

/// Returns the users who are online, each with the number of seconds since it was seen.
fn online_users(ruby: &Ruby, store: &mut dyn Store) -> Result<RHash, Error> {
    let users = ruby.hash_new();
    for (user_id, ago) in &store.snapshot().map_err(|error| failed(ruby, &error))?.users {
        users.aset(store_id::to_value(ruby, user_id)?, seconds(*ago))?;
    }
    Ok(users)
}

fn events(ruby: &Ruby, events: &[Event]) -> Result<RArray, Error> {
    let array = ruby.ary_new_capa(events.len());
    for event in events {
        array.push(event_to_hash(ruby, event)?)?;
    }
    Ok(array)
}

fn dead_letters(ruby: &Ruby, store: &mut dyn Store) -> Result<RArray, Error> {
    let array = ruby.ary_new();
    for letter in store.dead_letters().map_err(|error| failed(ruby, &error))? {
        let hash = event_to_hash(ruby, &letter.event)?;
        hash.aset(ruby.to_symbol("error"), letter.error)?;
        hash.aset(ruby.to_symbol("superseded"), letter.is_superseded)?;
        array.push(hash)?;
    }
    Ok(array)
}

/// Returns the partitions as Hashes. `age` is that of the summary, in nanoseconds.
pub(super) fn partitions(ruby: &Ruby, partitions: &[PartitionSummary], age: Nanos) -> Result<RArray, Error> {
    let array = ruby.ary_new_capa(partitions.len());
    for (number, partition) in partitions.iter().enumerate() {
        array.push(partition_to_hash(ruby, number, partition, age)?)?;
    }
    Ok(array)
}

/// Returns a partition as a Hash, with durations in seconds and the epoch in microseconds since 1970.
fn partition_to_hash(ruby: &Ruby, number: usize, partition: &PartitionSummary, age: Nanos) -> Result<RHash, Error> {
    let left = |duration: Nanos| seconds(duration.saturating_sub(age));
    let (lease_holder, remaining) = partition.lease_holder.clone().unzip();
    let hash = ruby.hash_new();
    hash.aset(ruby.to_symbol("number"), number)?;
    hash.aset(ruby.to_symbol("online"), partition.online)?;
    hash.aset(ruby.to_symbol("waiting"), partition.undelivered)?;
    hash.aset(ruby.to_symbol("oldest_waiting"), partition.oldest.map(|oldest| seconds(oldest.saturating_add(age))))?;
    hash.aset(ruby.to_symbol("dead_letters"), partition.dead_letters)?;
    hash.aset(ruby.to_symbol("lease_holder"), lease_holder)?;
    hash.aset(ruby.to_symbol("lease_remaining"), remaining.map(left))?;
    hash.aset(ruby.to_symbol("hold"), left(partition.hold))?;
    hash.aset(ruby.to_symbol("epoch"), partition.epoch)?;
    hash.aset(ruby.to_symbol("generation"), partition.generation)?;
    Ok(hash)
}

fn member_to_hash(ruby: &Ruby, member: &MemberSummary) -> Result<RHash, Error> {
    let hash = ruby.hash_new();
    hash.aset(ruby.to_symbol("name"), member.name.as_str())?;
    hash.aset(ruby.to_symbol("remaining"), seconds(member.remaining))?;
    Ok(hash)
}

/// Returns an event as a Hash, with its lateness in seconds.
fn event_to_hash(ruby: &Ruby, event: &Event) -> Result<RHash, Error> {
    let hash = ruby.hash_new();
    hash.aset(ruby.to_symbol("user_id"), store_id::to_value(ruby, &event.id)?)?;
    hash.aset(ruby.to_symbol("transition"), symbol(ruby, event.transition))?;
    let detail = detail(ruby, event.reason, event.lateness)?;
    hash.aset(ruby.to_symbol("reason"), detail.entry::<Value>(0)?)?;
    hash.aset(ruby.to_symbol("lateness"), detail.entry::<Value>(1)?)?;
    hash.aset(ruby.to_symbol("version"), event.version)?;
    hash.aset(ruby.to_symbol("failures"), event.failures)?;
    Ok(hash)
}

fn seconds(nanoseconds: Nanos) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Opens a store and a namespace that must exist already: a mistyped one would otherwise be created, with nobody online.
fn open(ruby: &Ruby, store_url: &StoreUrl, namespace: &str) -> Result<Box<dyn Store>, Error> {
    if let StoreUrl::Sqlite(path) = store_url
        && matches!(path.try_exists(), Ok(false))
        && !path.is_symlink()
    {
        let message =
            format!("{}: there is no such file; pass the path of a store that a manager has created", path.display());
        return Err(store_error(ruby, message));
    }
    store_url.open(namespace, Access::Inspect, &Interrupt::default()).map_err(|error| failed(ruby, &error))
}

/// Opens a store and a namespace that must exist already, to change it.
fn open_for_change(ruby: &Ruby, store: Value, namespace: &str) -> Result<Box<dyn Store>, Error> {
    let store_url = parse_store_url(ruby, store)?;
    drop(open(ruby, &store_url, namespace)?);
    store_url.open(namespace, Access::Participate, &Interrupt::default()).map_err(|error| failed(ruby, &error))
}

/// Returns the StoreError for Ruby.
fn failed(ruby: &Ruby, error: &StoreError) -> Error {
    store_error(ruby, error.to_string())
}
