//! What is impossible. Where it happens all the same, which is a bug, a debug build panics. A release build counts it,
//! and goes on in the way that keeps nobody online for ever.

use std::sync::atomic::{AtomicU64, Ordering};

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// Returns how often, in this process, something impossible has happened.
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Counts that `invariant`, a sentence, does not hold; panics in a debug build.
#[cold]
#[inline(never)]
#[track_caller]
pub fn violated(invariant: &str) {
    VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    #[cfg(test)]
    if tests::IS_RELEASE.get() {
        return;
    }
    debug_assert!(false, "this does not hold: {invariant}");
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static IS_RELEASE: Cell<bool> = const { Cell::new(false) };
    }

    /// Calls `act` as in a release build. Returns whether it violates an invariant.
    pub(crate) fn is_violated(act: impl FnOnce()) -> bool {
        let before = violations();
        IS_RELEASE.set(true);
        act();
        IS_RELEASE.set(false);
        violations() > before
    }

    #[test]
    #[should_panic(expected = "this does not hold: one is two")]
    fn a_debug_build_panics() {
        violated("one is two");
    }
}
