//! The look at a store before `setup`: whether it is configured right, and what an operator should know of it.

use std::sync::{MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use magnus::{Error, Ruby, Value, prelude::*};
use online_manager_store::StoreError;
use online_manager_store::interrupt::Interrupt;

use super::Shared;
use crate::process_local::{error_class, system_error};

/// A check. It runs on a thread, since a server that does not answer must not keep Ruby from running.
pub(super) struct Check {
    thread: JoinHandle<Result<Vec<String>, StoreError>>,
    interrupt: Interrupt,
}

impl Shared {
    /// Held for a moment only, and never while anything is waited for.
    fn check(&self) -> MutexGuard<'_, Option<Check>> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `begin_check`: opens the store once, on a thread, and closes it again. `end_check` must follow.
    pub(super) fn begin_check(ruby: &Ruby, this: &Shared) -> Result<(), Error> {
        let (store_url, namespace) = (this.store_url.clone(), this.namespace.clone());
        let interrupt = Interrupt::default();
        let waits = interrupt.clone();
        let thread = thread::Builder::new()
            .name("online_manager".into())
            .spawn(move || store_url.open(&namespace, &waits).map(|store| store.warnings()))
            .map_err(|error| system_error(ruby, "starting a thread", &error))?;
        *this.check() = Some(Check { thread, interrupt });
        Ok(())
    }

    /// `poll_check -> Array of what an operator should know`, what keeps the store from being reached now for one, or `:wait`.
    /// Raises if it is misconfigured.
    pub(super) fn poll_check(ruby: &Ruby, this: &Shared) -> Result<Value, Error> {
        let Some(check) = this.check().take_if(|check| check.thread.is_finished()) else {
            return Ok(ruby.to_symbol("wait").as_value());
        };
        let warnings = match check.thread.join() {
            Ok(Ok(warnings)) => warnings,
            Ok(Err(StoreError::Misconfigured(message))) => {
                return Err(Error::new(error_class(ruby, "StoreError"), message));
            }
            Ok(Err(error)) => vec![format!("the store cannot be reached, and is tried again until it can: {error}")],
            // A bug, and notified of on standard error.
            Err(_) => {
                return Err(Error::new(
                    error_class(ruby, "StoreError"),
                    "the store could not be opened: a bug, see standard error",
                ));
            }
        };
        Ok(ruby.into_value(warnings))
    }

    /// `end_check`: does not wait any longer, and lets nothing of it run on.
    pub(super) fn end_check(this: &Shared) {
        let check = this.check().take();
        if let Some(check) = check {
            check.interrupt.raise();
            // Its answer is nobody's any more.
            drop(check.thread.join());
        }
    }
}
