//! The member's thread: it carries messages between [`MemberState`](super::state::MemberState) and the store, and decides
//! nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use online_manager_tracker::{Clock, Nanos, Signal};

use super::state::{Action, Call, Reply, StoreTraits};
use super::{Phase, Shared};
use crate::error::StoreError;
use crate::store::Store;
use crate::store_url::Access;

/// How long the thread waits after a panic, so that it does not spin if it panics again.
const PANIC_BACKOFF: Duration = Duration::from_millis(100);

impl<C: Clock, S: Signal> Shared<C, S> {
    /// Runs the member until it is stopped, or ended for a fork.
    pub(super) fn run_thread(&self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            // A panic is a bug, reported on standard error; but without this thread nothing would ever be written again.
            std::thread::sleep(PANIC_BACKOFF);
        }
    }

    fn run(&self) {
        let mut store = None;
        self.state.lock().restart();
        let mut reply = Reply::None;
        loop {
            self.is_woken.store(false, Ordering::Release);
            reply = match self.step(reply) {
                Action::Call(call) => self.perform(call, &mut store),
                Action::Wait(duration) => {
                    self.wait(duration);
                    Reply::None
                }
                Action::End => {
                    drop(store);
                    self.report_end();
                    return;
                }
            };
        }
    }

    fn step(&self, reply: Reply) -> Action {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let mut stalls = self.stalls.lock();
        state.awake(now);
        let (is_asked, _) = stalls.ask(now, state.has_seen_heartbeat.then_some(state.timeout));
        state.stalled_since = stalls.stalled_since(now);
        let action = state.step(now, reply);
        // Under the lock, so that no claim clears the signal in between.
        if is_asked || state.has_news(now) {
            self.signal.raise();
        }
        action
    }

    /// Says that a stop is done. The store is closed by then: who hears of it may exit.
    fn report_end(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Closing {
            state.phase = Phase::Ended;
            self.signal.raise();
        }
    }

    fn perform(&self, call: Call, store: &mut Option<Box<dyn Store>>) -> Reply {
        match call {
            Call::Open => Reply::Opened(self.open(store)),
            Call::Recover => {
                if !store.as_mut().is_some_and(|store| store.recover()) {
                    *store = None;
                }
                Reply::Done
            }
            Call::Scan { last_ok, timeout } => {
                self.coalescer.scan((self.clock.now(), last_ok), timeout, &self.state);
                Reply::Done
            }
            Call::Resend(resend) => {
                self.coalescer.resend(self.clock.now(), |id| resend.settled_at(id), resend.is_lost, &self.state);
                Reply::Done
            }
            Call::Prolong { stall, is_lasting } => {
                self.coalescer.prolong(stall, is_lasting, &self.state);
                Reply::Done
            }
            Call::Hear(heard) => {
                heard.iter().for_each(|heard| self.coalescer.hear(heard, self.clock.now(), &self.state));
                Reply::Done
            }
            Call::EnqueueUnwritten => {
                self.coalescer.enqueue_unwritten(self.clock.now(), &self.state);
                Reply::Done
            }
            Call::Register(membership) => Reply::Registered(with(store, |store| store.register(&membership))),
            Call::Deregister(membership) => Reply::Deregistered(with(store, |store| store.deregister(&membership))),
            Call::Commit(membership, commits) => {
                Reply::Committed(with(store, |store| store.commit(&membership, &commits)))
            }
            Call::Write(membership, writes) => Reply::Written(with(store, |store| store.write(&membership, &writes))),
            Call::Poll(membership, requests) => Reply::Polled(with(store, |store| store.poll(&membership, &requests))),
        }
    }

    fn open(&self, store: &mut Option<Box<dyn Store>>) -> Result<(StoreTraits, bool), StoreError> {
        let mut opened = match store.take() {
            Some(store) => store,
            None => self.store_url.open(&self.namespace, Access::Participate, &self.interrupt)?,
        };
        let was_away = opened.reconnect();
        let traits = StoreTraits {
            partitions: opened.partitions(),
            poll_interval: opened.poll_interval(true),
            idle_poll_interval: opened.poll_interval(false),
            lease_poll_interval: opened.lease_poll_interval(),
        };
        *store = Some(opened);
        Ok((traits, was_away?))
    }

    fn wait(&self, duration: Nanos) {
        let mut state = self.state.lock();
        let is_quiet =
            !self.is_woken.load(Ordering::Acquire) && matches!(state.phase, Phase::Running | Phase::Stopping);
        if duration > 0 && is_quiet {
            self.wakeup.wait_for(&mut state, Duration::from_nanos(duration));
        }
    }
}

fn with<T>(
    store: &mut Option<Box<dyn Store>>,
    call: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match store {
        Some(store) => call(&mut **store),
        None => Err(StoreError::Unavailable("the store is not open".into())),
    }
}
