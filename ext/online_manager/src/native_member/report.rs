//! The operator's view of a store, for the executable. These methods open the store themselves, and wait for it.

use magnus::{Error, RHash, Ruby, Value};
use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::Event;
use online_manager_store::{Access, Store, StoreError, StoreUrl};

use super::deliver::symbol;
use super::{NativeMember, parse_store_url};
use crate::error::store_error;
use crate::native_tracker::detail;
use crate::store_id;

impl NativeMember {
    /// `NativeMember.report(store, namespace) -> Hash`: who is `:online` and for how many seconds not seen, the
    /// `:waiting` events and the `:dead_letters`
    ///
    /// Raises a StoreError if the store cannot be read, and an ArgumentError if there is no such store.
    pub(super) fn report(ruby: &Ruby, store: Value, namespace: String) -> Result<RHash, Error> {
        let mut store = open(ruby, store, &namespace)?;
        let failed = |error| failed(ruby, &error);
        let snapshot = store.snapshot().map_err(failed)?;
        let online = ruby.hash_new();
        for (user_id, ago) in &snapshot.users {
            online.aset(store_id::to_value(ruby, user_id)?, *ago as f64 / 1e9)?;
        }
        let events = ruby.ary_new();
        for event in store.undelivered_events().map_err(failed)? {
            events.push(event_to_hash(ruby, &event)?)?;
        }
        let dead_letters = ruby.ary_new();
        for letter in store.dead_letters().map_err(failed)? {
            let hash = event_to_hash(ruby, &letter.event)?;
            hash.aset(ruby.to_symbol("error"), letter.error)?;
            hash.aset(ruby.to_symbol("superseded"), letter.is_superseded)?;
            dead_letters.push(hash)?;
        }
        let hash = ruby.hash_new();
        hash.aset(ruby.to_symbol("online"), online)?;
        hash.aset(ruby.to_symbol("waiting"), events)?;
        hash.aset(ruby.to_symbol("dead_letters"), dead_letters)?;
        Ok(hash)
    }

    /// `NativeMember.requeue_dead_letters(store, namespace) -> [requeued, dropped]`: how many dead letters are
    /// delivered again, and how many were superseded and are dropped
    ///
    /// Raises as `report` does.
    pub(super) fn requeue_dead_letters(ruby: &Ruby, store: Value, namespace: String) -> Result<(usize, usize), Error> {
        open(ruby, store, &namespace)?.requeue_dead_letters().map_err(|error| failed(ruby, &error))
    }
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

/// Opens a store that must exist already: a mistyped path would otherwise create an empty store with nobody online.
fn open(ruby: &Ruby, store: Value, namespace: &str) -> Result<Box<dyn Store>, Error> {
    let store_url = parse_store_url(ruby, store)?;
    if let StoreUrl::Sqlite(path) = &store_url
        && !path.exists()
    {
        let message =
            format!("{}: there is no such file; pass the path of a store that a manager has created", path.display());
        return Err(store_error(ruby, message));
    }
    store_url.open(namespace, Access::Inspect, &Interrupt::default()).map_err(|error| failed(ruby, &error))
}

/// Returns the StoreError for Ruby.
fn failed(ruby: &Ruby, error: &StoreError) -> Error {
    store_error(ruby, error.to_string())
}
