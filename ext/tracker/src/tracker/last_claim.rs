//! The last claim, in case that its outcome is never reported.

use super::{Clock, Shared, Signal, Tracker};
use crate::presence::{Announced, CallbackOutcome, Transition, User};
use crate::sync::{MutexGuard, PoisonError};

impl<C: Clock, S: Signal> Tracker<C, S> {
    /// Notes that the outcome of the last claim is reported. If it never was (a continuation has left the callback),
    /// reports that the callback has ended. Returns the users who are forgotten by that.
    pub fn end_claim(&self, is_reported: bool) -> Vec<User> {
        let claimed = self.shared.claimed().take();
        match claimed {
            Some((Transition::Offline, users)) if !is_reported => self.departed_all(users),
            Some((Transition::Online, mut users)) if !is_reported => {
                users.retain(|user| self.announced(*user, 0, CallbackOutcome::Aborted) == Announced::Offline);
                users
            }
            _ => Vec::new(),
        }
    }
}

impl<C: Clock, S: Signal> Shared<C, S> {
    pub(super) fn claimed(&self) -> MutexGuard<'_, Option<(Transition, Vec<User>)>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
