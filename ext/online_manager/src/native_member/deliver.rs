//! `deliver`, which the reactor calls whenever the pipe is readable: it claims events, calls the target, reports the
//! outcome.

use magnus::value::LazyId;
use magnus::{Error, RArray, RString, Ruby, Value, prelude::*};
use online_manager_store::log::DeliveryOutcome;
use online_manager_store::store::Event;
use online_manager_tracker::Transition;

use super::NativeMember;
use crate::native_tracker::{detail, is_entered, seconds};
use crate::store_id;

static ASK_FOR_MEMBER: LazyId = LazyId::new("ask_for_member");
static DELIVER_EVENTS: LazyId = LazyId::new("deliver_events");
static STORE_FAILED: LazyId = LazyId::new("store_failed");

impl NativeMember {
    /// `deliver(online_together, offline_together, reads_heartbeats) -> whether there was something to do`: makes one call of
    /// the target
    ///
    /// Several events go into one call if the argument for their transition is true. The question for the last version
    /// comes first, then an outage of the store. `reads_heartbeats`: see [`Member::claim`]. Only one thread at a time may call it.
    ///
    /// [`Member::claim`]: online_manager_store::member::Member::claim
    pub(super) fn deliver(
        ruby: &Ruby,
        this: &NativeMember,
        online_together: bool,
        offline_together: bool,
        reads_heartbeats: bool,
    ) -> Result<bool, Error> {
        let Some(member) = this.handle.current() else { return Ok(false) };
        if member.awaits_last_version() {
            this.handle.target.call(ruby, &ASK_FOR_MEMBER, || Ok(()))?;
            return Ok(true);
        }
        if let Some(message) = member.next_outage() {
            this.handle.target.call(ruby, &STORE_FAILED, || Ok((message,)))?;
            return Ok(true);
        }
        // See `NativeTracker::deliver`.
        let entered = ruby.ary_new();
        let (transition, events) = member.claim(reads_heartbeats, |transition| match transition {
            Transition::Online => online_together,
            Transition::Offline => offline_together,
        });
        let Some(transition) = transition else { return Ok(false) };
        let called = this.call(ruby, transition, &events, entered);
        if !member.is_current() {
            // The callback has forked, and this is the child: the events are its parent's.
            return called.map(|_| true);
        }
        let outcome = match &called {
            Ok(returned) => match RString::from_value(*returned) {
                Some(message) => DeliveryOutcome::Failed(message.to_string().unwrap_or_else(|_| "an error".into())),
                None => DeliveryOutcome::Returned,
            },
            Err(_) if is_entered(Some(entered), &called) => DeliveryOutcome::Interrupted,
            Err(_) => DeliveryOutcome::NotCalled,
        };
        member.delivered(&outcome);
        called.map(|_| true)
    }

    /// Calls the target's `deliver_events`. It returns true, or a String if the callback has raised.
    fn call(&self, ruby: &Ruby, transition: Transition, events: &[Event], entered: RArray) -> Result<Value, Error> {
        self.handle.target.call(ruby, &DELIVER_EVENTS, || {
            let ids = ruby.ary_new_capa(events.len());
            let versions = ruby.ary_new_capa(events.len());
            let details = ruby.ary_new_capa(events.len());
            let seen_ago = ruby.ary_new_capa(events.len());
            for event in events {
                details.push(detail(ruby, event.reason, event.lateness)?)?;
                ids.push(store_id::to_value(ruby, &event.id)?)?;
                versions.push(event.version)?;
                seen_ago.push(seconds(event.seen_ago))?;
            }
            Ok((symbol(ruby, transition), ids, versions, entered, details, seen_ago))
        })
    }
}

/// Returns `:online` or `:offline`.
pub(super) fn symbol(ruby: &Ruby, transition: Transition) -> Value {
    let name = match transition {
        Transition::Online => "online",
        Transition::Offline => "offline",
    };
    ruby.to_symbol(name).as_value()
}
