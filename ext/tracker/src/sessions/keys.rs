//! Which keys of the caller's the sessions use, for keys that the caller has to release.
//!
//! The caller's key may stand for an object of its own. The same key may name sessions of several users, so its uses
//! are counted here, and it is handed back when the last one is gone. Other keys (integers) are not counted and cost
//! nothing.

use std::collections::{HashMap, HashSet};

use foldhash::quality::RandomState;

use super::SessionId;
use crate::invariant::violated;

/// The keys that have to be released, and those of them that are in use no more.
#[derive(Clone)]
pub(crate) struct SessionKeys {
    /// Whether a key has to be released.
    is_counted: fn(u64) -> bool,
    /// How many sessions have the key.
    uses: HashMap<u64, usize, RandomState>,
    /// The keys that no session has any more. The caller still keeps an object for each, so there are not more of them
    /// than of these.
    released: HashSet<u64, RandomState>,
}

impl SessionKeys {
    pub(crate) fn new() -> SessionKeys {
        SessionKeys { is_counted: |_| false, uses: HashMap::default(), released: HashSet::default() }
    }

    /// Counts from now on the keys for which `is_counted` returns true.
    pub(crate) fn count(&mut self, is_counted: fn(u64) -> bool) {
        self.is_counted = is_counted;
    }

    /// A session begins.
    pub(crate) fn begin(&mut self, id: &SessionId) {
        if let SessionId::Key(key) = id
            && (self.is_counted)(*key)
        {
            *self.uses.entry(*key).or_default() += 1;
            self.released.remove(key);
        }
    }

    /// A session ends: nothing of it is kept.
    pub(crate) fn end(&mut self, id: &SessionId) {
        let SessionId::Key(key) = id else { return };
        if !(self.is_counted)(*key) {
            return;
        }
        let Some(uses) = self.uses.get_mut(key) else { return violated("the key of a session is counted") };
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(key);
            self.released.insert(*key);
        }
        if self.uses.len() * 8 <= self.uses.capacity() {
            // Otherwise the map would keep the memory of its largest crowd.
            self.uses.shrink_to(self.uses.len() * 2);
        }
    }

    /// Whether a session has a counted key, or it is one of those that none has any more.
    pub(crate) fn is_known(&self, key: u64) -> bool {
        self.uses.contains_key(&key) || self.released.contains(&key)
    }

    /// Takes the keys that no session has any more, each once.
    pub(crate) fn take_released(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.released).into_iter().collect()
    }

    /// Returns how many keys are kept.
    pub(crate) fn len(&self) -> usize {
        self.uses.len() + self.released.len()
    }

    /// Frees all memory.
    pub(crate) fn free(&mut self) {
        *self = SessionKeys { is_counted: self.is_counted, ..SessionKeys::new() };
    }
}

/// Shows the keys in order.
impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uses: std::collections::BTreeMap<_, _> = self.uses.iter().collect();
        let released: std::collections::BTreeSet<_> = self.released.iter().collect();
        formatter.debug_tuple("SessionKeys").field(&uses).field(&released).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_released_with_its_last_session() {
        let mut keys = SessionKeys::new();
        keys.count(|key| key >= 100);
        let [seven, hundred] = [7, 100].map(SessionId::Key);
        keys.begin(&seven);
        keys.begin(&hundred);
        keys.begin(&hundred);
        keys.end(&hundred);
        assert_eq!(keys.take_released(), []);
        keys.end(&hundred);
        keys.end(&seven);
        assert_eq!([7, 100, 101].map(|key| keys.is_known(key)), [false, true, false], "it waits to be taken");
        assert_eq!(keys.take_released(), [100]);
        assert!(!keys.is_known(100));
        assert_eq!(keys.len(), 0);
    }

    #[test]
    fn a_key_that_is_used_again_is_not_released() {
        let mut keys = SessionKeys::new();
        keys.count(|_| true);
        let seven = SessionId::Key(7);
        for _ in 0..3 {
            keys.begin(&seven);
            keys.end(&seven);
        }
        assert_eq!(keys.len(), 1, "it waits to be taken, once");
        keys.begin(&seven);
        assert_eq!(keys.take_released(), []);
    }
}
