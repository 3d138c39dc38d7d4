//! What is asked of a store before `setup`: its name, its shortest timeout, and a check that opens it once, to find wrong
//! configuration early.

use std::sync::{MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use magnus::{Error, Ruby, Value, prelude::*};
use online_manager_store::StoreError;
use online_manager_store::interrupt::Interrupt;
use online_manager_tracker::Nanos;

use super::{NativeMember, parse_store_url};
use crate::error::{store_error, system_error};

/// A check that is running. It has a thread of its own, since a server that does not reply must not block Ruby.
pub(super) struct Check {
    thread: JoinHandle<Result<Vec<String>, StoreError>>,
    interrupt: Interrupt,
}

impl NativeMember {
    /// `NativeMember.describe(store) -> String`: the URL without its password
    ///
    /// Raises an ArgumentError if there is no such store.
    pub(super) fn describe(ruby: &Ruby, store: Value) -> Result<String, Error> {
        Ok(parse_store_url(ruby, store)?.to_string())
    }

    /// `NativeMember.min_timeout(store) -> Integer`: the shortest timeout that the store can keep, in nanoseconds
    ///
    /// Raises an ArgumentError if there is no such store.
    pub(super) fn min_timeout(ruby: &Ruby, store: Value) -> Result<Nanos, Error> {
        Ok(parse_store_url(ruby, store)?.min_timeout())
    }

    /// Locks the running check. The lock is held for a moment only, and never during a wait.
    fn check(&self) -> MutexGuard<'_, Option<Check>> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `begin_check`: checks the store on a thread. `end_check` must follow.
    ///
    /// Raises an Error when the operating system has no thread to give.
    pub(super) fn begin_check(ruby: &Ruby, this: &NativeMember) -> Result<(), Error> {
        let (store_url, namespace) = (this.store_url.clone(), this.namespace.clone());
        let interrupt = Interrupt::default();
        let interrupt_of_thread = interrupt.clone();
        let thread = thread::Builder::new()
            .name("online_manager".into())
            .spawn(move || store_url.check(&namespace, &interrupt_of_thread))
            .map_err(|error| system_error(ruby, "starting a thread", &error))?;
        *this.check() = Some(Check { thread, interrupt });
        Ok(())
    }

    /// `check_result -> Array of Strings`: warnings for the operator, or `:wait`
    ///
    /// An unreachable store is a warning, since it may come back. Raises a StoreError if it is misconfigured.
    pub(super) fn check_result(ruby: &Ruby, this: &NativeMember) -> Result<Value, Error> {
        let Some(check) = this.check().take_if(|check| check.thread.is_finished()) else {
            return Ok(ruby.to_symbol("wait").as_value());
        };
        let warnings = match check.thread.join() {
            Ok(Ok(warnings)) => warnings,
            Ok(Err(StoreError::Misconfigured(message))) => return Err(store_error(ruby, message)),
            Ok(Err(error)) => vec![format!("the store cannot be reached and will be tried again: {error}")],
            // The thread has panicked, which is a bug. Rust has printed it on standard error.
            Err(_) => {
                return Err(store_error(
                    ruby,
                    "checking the store failed: its thread panicked, see standard error; please report this bug",
                ));
            }
        };
        Ok(ruby.into_value(warnings))
    }

    /// `end_check`: interrupts the check, and waits until its thread has ended
    pub(super) fn end_check(this: &NativeMember) {
        let check = this.check().take();
        if let Some(check) = check {
            check.interrupt.raise();
            // Nobody needs the result any more.
            drop(check.thread.join());
        }
    }
}
