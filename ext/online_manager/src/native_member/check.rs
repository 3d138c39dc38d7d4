//! The look at a store before `setup`: whether it is configured right, and what an operator should know of it.

use std::sync::{MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use magnus::{Error, Ruby, Value, prelude::*};
use online_manager_store::StoreError;
use online_manager_store::interrupt::Interrupt;

use super::NativeMember;
use crate::error::{store_error, system_error};

/// A check. It runs on a thread, since a server that does not answer must not keep Ruby from running.
pub(super) struct Check {
    thread: JoinHandle<Result<Vec<String>, StoreError>>,
    interrupt: Interrupt,
}

impl NativeMember {
    /// Held for a moment only, and never while anything is waited for.
    fn check(&self) -> MutexGuard<'_, Option<Check>> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `begin_check`: opens the store once, on a thread, and closes it again. `end_check` must follow.
    pub(super) fn begin_check(ruby: &Ruby, this: &NativeMember) -> Result<(), Error> {
        let (store_url, namespace) = (this.store_url.clone(), this.namespace.clone());
        let interrupt = Interrupt::default();
        let interrupt_of_thread = interrupt.clone();
        let thread = thread::Builder::new()
            .name("online_manager".into())
            .spawn(move || store_url.open(&namespace, &interrupt_of_thread).map(|store| store.warnings()))
            .map_err(|error| system_error(ruby, "starting a thread", &error))?;
        *this.check() = Some(Check { thread, interrupt });
        Ok(())
    }

    /// `check_result -> Array of what an operator should know`, what keeps the store from being reached now for one, or `:wait`.
    /// Raises if it is misconfigured.
    pub(super) fn check_result(ruby: &Ruby, this: &NativeMember) -> Result<Value, Error> {
        let Some(check) = this.check().take_if(|check| check.thread.is_finished()) else {
            return Ok(ruby.to_symbol("wait").as_value());
        };
        let warnings = match check.thread.join() {
            Ok(Ok(warnings)) => warnings,
            Ok(Err(StoreError::Misconfigured(message))) => return Err(store_error(ruby, message)),
            Ok(Err(error)) => vec![format!("the store cannot be reached and will be tried again: {error}")],
            // A bug, and notified of on standard error.
            Err(_) => return Err(store_error(ruby, "the store could not be opened")),
        };
        Ok(ruby.into_value(warnings))
    }

    /// `end_check`: does not wait any longer, and lets nothing of it run on.
    pub(super) fn end_check(this: &NativeMember) {
        let check = this.check().take();
        if let Some(check) = check {
            check.interrupt.raise();
            // Its answer is nobody's any more.
            drop(check.thread.join());
        }
    }
}
