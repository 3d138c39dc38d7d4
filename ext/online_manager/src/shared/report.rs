//! What an operator asks of a store, with the executable: these wait for it, and open it for themselves.

use magnus::{Error, RHash, Ruby, Value};
use online_manager_store::interrupt::Interrupt;
use online_manager_store::store::Event;
use online_manager_store::{Store, StoreError, StoreUrl};

use super::deliver::name;
use super::{Shared, locate};
use crate::native::detail;
use crate::process_local::error_class;
use crate::store_id;

impl Shared {
    /// `Shared.poll(store, namespace) -> Hash`: everything in the store, for an operator
    pub(super) fn report(ruby: &Ruby, store: Value, namespace: String) -> Result<RHash, Error> {
        let mut store = open(ruby, store, &namespace)?;
        let failed = |error| failed(ruby, &error);
        let snapshot = store.snapshot().map_err(failed)?;
        let online = ruby.hash_new();
        for (user_id, ago) in &snapshot.users {
            online.aset(store_id::to_value(ruby, user_id)?, *ago as f64 / 1e9)?;
        }
        let events = ruby.ary_new();
        for event in store.waiting().map_err(failed)? {
            events.push(describe(ruby, &event)?)?;
        }
        let dead_letters = ruby.ary_new();
        for letter in store.dead_letters().map_err(failed)? {
            let hash = describe(ruby, &letter.event)?;
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

    /// `Shared.requeue_dead_letters(store, namespace) -> [how many are delivered again, how many are dropped]`
    pub(super) fn requeue_dead_letters(ruby: &Ruby, store: Value, namespace: String) -> Result<(usize, usize), Error> {
        open(ruby, store, &namespace)?.requeue_dead_letters().map_err(|error| failed(ruby, &error))
    }
}

fn describe(ruby: &Ruby, event: &Event) -> Result<RHash, Error> {
    let hash = ruby.hash_new();
    hash.aset(ruby.to_symbol("user_id"), store_id::to_value(ruby, &event.id)?)?;
    hash.aset(ruby.to_symbol("transition"), name(ruby, event.transition))?;
    let detail = detail(ruby, event.reason, event.lateness)?;
    hash.aset(ruby.to_symbol("reason"), detail.entry::<Value>(0)?)?;
    hash.aset(ruby.to_symbol("lateness"), detail.entry::<Value>(1)?)?;
    hash.aset(ruby.to_symbol("version"), event.version)?;
    hash.aset(ruby.to_symbol("failures"), event.failures)?;
    Ok(hash)
}

/// Opens a store that must be there already: whoever mistypes a path shall not be notified that nobody is online.
fn open(ruby: &Ruby, store: Value, namespace: &str) -> Result<Box<dyn Store>, Error> {
    let store_url = locate(ruby, store)?;
    if let StoreUrl::Sqlite(path) = &store_url
        && !path.exists()
    {
        let message = format!("{}: there is no such file; check the path", path.display());
        return Err(Error::new(error_class(ruby, "StoreError"), message));
    }
    store_url.open(namespace, &Interrupt::default()).map_err(|error| failed(ruby, &error))
}

fn failed(ruby: &Ruby, error: &StoreError) -> Error {
    Error::new(error_class(ruby, "StoreError"), error.to_string())
}
