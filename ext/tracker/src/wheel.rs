//! The timing wheel: which users to check at which tick.
//!
//! Hashed and hierarchical (Varghese and Lauck, 1987): short slots for the next ticks, long ones for ticks farther
//! away. It holds only keys. The user's entry shows whether a key that comes up still counts, so no key has to be found
//! to be removed. Keys that no longer count are dropped when they come up, or by a [sweep](Wheel::sweep).

use std::ops::RangeInclusive;

use crate::invariant::violated;

/// For each level: how many ticks a slot is long, as a power of two, and how many slots there are. 64 slots of a tick,
/// then 4,096 slots of 67 ms (4.6 minutes in all), then 512 slots of 4.6 minutes (39 hours in all).
///
/// While the keys of a long slot are distributed over shorter ones, no other user is checked. So the middle level is
/// longer than any usual timeout: of a million users with a timeout of 5 s, 13,000 come up together, which takes a
/// millisecond. With slots of 4.3 s nearly all of them came up together, and users who were due meanwhile were 60 ms
/// late.
const LEVELS: [(u32, usize); 3] = [(0, 64), (6, 4_096), (18, 512)];

/// A wheel. Its hand is at the tick that was drained last.
#[derive(Clone)]
pub(crate) struct Wheel {
    hand: u64,
    /// How many keys there are.
    len: usize,
    levels: [Level; LEVELS.len()],
    /// Where the sweep goes on: the level, and the first tick in it.
    sweep: (usize, u64),
}

/// Slots of one length, in a ring. The next one to come up is the one after that of the hand.
#[derive(Clone)]
struct Level {
    /// A slot is two to the power of this long, in ticks.
    slot_bits: u32,
    /// How many slots there are: a power of two, at least 64.
    slot_count: usize,
    /// One bit for each slot: set if it is not empty.
    occupied: Vec<u64>,
    /// The keys of each slot; no slots before the first key.
    slots: Vec<Vec<u64>>,
}

/// The content of one slot: its keys, and the ticks that they may have been inserted for.
#[derive(Clone, Debug)]
pub(crate) struct DrainedSlot {
    pub(crate) keys: std::vec::IntoIter<u64>,
    pub(crate) ticks: RangeInclusive<u64>,
}

/// A key that a [sweep](Wheel::sweep) has removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) key: u64,
    /// Whether its slot is empty now, and the sweep is past it. If not, the same key may be there again, so a key that
    /// counts has to be put into another slot. In an earlier one the sweep does not meet it again.
    pub(crate) is_last: bool,
    /// The ticks that the key may have been inserted for.
    pub(crate) ticks: RangeInclusive<u64>,
}

impl Wheel {
    /// Returns an empty wheel with its hand at the tick `hand`.
    pub(crate) fn new(hand: u64) -> Wheel {
        let levels = LEVELS.map(|(slot_bits, slot_count)| Level::new(slot_bits, slot_count));
        Wheel { hand, len: 0, levels, sweep: (0, 0) }
    }

    /// Inserts `key` for `tick`, which must be [`Wheel::within_reach`]. Returns the tick that it is inserted for.
    pub(crate) fn insert(&mut self, key: u64, mut tick: u64) -> u64 {
        let hand = self.hand;
        let level = match self.levels.iter_mut().find(|level| level.reaches(tick, hand)) {
            Some(level) => level,
            None => {
                violated("a key is inserted for a tick that is within the wheel's reach");
                // The user is checked too early, and not never.
                tick = hand + 1;
                let [shortest, ..] = &mut self.levels;
                shortest
            }
        };
        level.insert(key, tick);
        self.len += 1;
        tick
    }

    /// Returns `tick`, or a tick near it that a key can be inserted for: after the hand, and not after the start of the last
    /// slot of the last level.
    pub(crate) fn within_reach(&self, tick: u64) -> u64 {
        tick.min(self.levels.last().map_or(0, |level| level.start_of_last_slot(self.hand))).max(self.hand + 1)
    }

    /// Returns the tick at which the next slot comes up: no key is for an earlier one. `None` if the wheel is empty.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.levels.iter().filter_map(|level| level.next_tick(self.hand)).min()
    }

    /// Moves the hand to the next slot that is not empty, and drains it. If that begins after `now`, or there is none,
    /// moves the hand to `now` and returns `None`.
    pub(crate) fn drain_next(&mut self, now: u64) -> Option<DrainedSlot> {
        let hand = self.hand;
        let next =
            self.levels.iter_mut().filter_map(|level| Some((level.next_tick(hand)?, level))).min_by_key(|next| next.0);
        let Some((tick, level)) = next.filter(|(tick, _)| *tick <= now) else {
            self.hand = hand.max(now);
            return None;
        };
        self.hand = hand.max(tick);
        let drained = level.drain(tick);
        self.len -= drained.keys.len();
        Some(drained)
    }

    /// Removes a key that may not count any more; the caller puts it back if it does. Takes the keys of one slot after
    /// the other, those that come up first before the others. Returns `None` after the last slot, and begins anew with
    /// the next call. It leaves out the slots that come up within three ticks.
    pub(crate) fn sweep(&mut self) -> Option<Swept> {
        let (first_level, mut from) = self.sweep;
        for (number, level) in self.levels.iter_mut().enumerate().skip(first_level) {
            let slot = level.next_slot_from(from.max(self.hand + 3), self.hand);
            if let Some((tick, (key, is_last))) = slot.and_then(|tick| Some((tick, level.pop(tick)?))) {
                let ticks = level.ticks_from(tick);
                self.sweep = (number, if is_last { ticks.end() + 1 } else { tick });
                self.len -= 1;
                return Some(Swept { key, is_last, ticks });
            }
            from = 0;
        }
        self.sweep = (0, 0);
        None
    }

    /// Returns the tick that was drained last.
    pub(crate) fn hand(&self) -> u64 {
        self.hand
    }

    /// Moves the hand of an empty wheel to `now`. Otherwise the hand would lag behind by the idle time, and the next
    /// key would be moved on from slot to slot until the hand has caught up.
    pub(crate) fn catch_up(&mut self, now: u64) {
        if self.len == 0 {
            self.hand = self.hand.max(now);
        }
    }

    /// Removes all keys.
    pub(crate) fn clear(&mut self) {
        *self = Wheel::new(self.hand);
    }

    /// Returns how many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the slots that are not empty, by level and number.
    fn slots(&self) -> impl Iterator<Item = ((usize, usize), &Vec<u64>)> {
        let slots = self.levels.iter().enumerate().flat_map(|(level, Level { slots, .. })| {
            slots.iter().enumerate().map(move |(slot, keys)| ((level, slot), keys))
        });
        slots.filter(|(_, keys)| !keys.is_empty())
    }
}

impl Level {
    fn new(slot_bits: u32, slot_count: usize) -> Level {
        Level { slot_bits, slot_count, occupied: Vec::new(), slots: Vec::new() }
    }

    /// Whether there is a slot for `tick`. A tick of a whole round later has none: its slot is that of an earlier tick.
    fn reaches(&self, tick: u64, hand: u64) -> bool {
        tick > hand && (tick >> self.slot_bits) - (hand >> self.slot_bits) < self.slot_count as u64
    }

    /// Returns the tick at which the last slot to come up begins.
    fn start_of_last_slot(&self, hand: u64) -> u64 {
        ((hand >> self.slot_bits) + self.slot_count as u64 - 1) << self.slot_bits
    }

    fn slot_of(&self, tick: u64) -> usize {
        (tick >> self.slot_bits) as usize % self.slot_count
    }

    fn insert(&mut self, key: u64, tick: u64) {
        if self.slots.is_empty() {
            self.slots.resize_with(self.slot_count, Vec::new);
            self.occupied.resize(self.slot_count / 64, 0);
        }
        let slot = self.slot_of(tick);
        if let Some(keys) = self.slots.get_mut(slot)
            && let Some(occupied) = self.occupied.get_mut(slot / 64)
        {
            keys.push(key);
            *occupied |= 1 << (slot % 64);
        } else {
            violated("each tick has a slot");
        }
    }

    /// Returns the tick at which the first slot that is not empty begins.
    fn next_tick(&self, hand: u64) -> Option<u64> {
        let from = self.slot_of(hand);
        let sections = self.occupied.len();
        if sections == 0 {
            return None;
        }
        // The hand's own section comes twice: its slots behind the hand are a round ahead.
        let slot = (0..=sections).find_map(|ahead| {
            let section = (from / 64 + ahead) % sections;
            let mask = if ahead == 0 { !0 << (from % 64) } else { !0 };
            let occupied = self.occupied.get(section)? & mask;
            (occupied != 0).then(|| section * 64 + occupied.trailing_zeros() as usize)
        })?;
        let ahead = (slot + self.slot_count - from) % self.slot_count;
        Some(((hand >> self.slot_bits) + ahead as u64) << self.slot_bits)
    }

    /// Returns the tick, `from` or later, at which the first slot that is not empty begins.
    fn next_slot_from(&self, from: u64, hand: u64) -> Option<u64> {
        let from = from.next_multiple_of(1 << self.slot_bits);
        // A slot between the hand and `from` looks as if it were a round ahead, where none is.
        self.next_tick(from).filter(|tick| self.reaches(*tick, hand))
    }

    /// Removes a key from the slot that begins at `tick`. Returns it, and whether it was the last one.
    fn pop(&mut self, tick: u64) -> Option<(u64, bool)> {
        let slot = self.slot_of(tick);
        let keys = self.slots.get_mut(slot)?;
        let key = keys.pop()?;
        let is_last = keys.is_empty();
        if is_last {
            self.empty(slot);
        }
        Some((key, is_last))
    }

    /// Drains the slot that begins at `tick`.
    fn drain(&mut self, tick: u64) -> DrainedSlot {
        DrainedSlot { keys: self.empty(self.slot_of(tick)).into_iter(), ticks: self.ticks_from(tick) }
    }

    /// Takes the keys of a slot, and their memory: otherwise each slot would keep the memory of its largest crowd.
    fn empty(&mut self, slot: usize) -> Vec<u64> {
        if let Some(occupied) = self.occupied.get_mut(slot / 64) {
            *occupied &= !(1 << (slot % 64));
        }
        self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default()
    }

    /// Returns the ticks of the slot that begins at `tick`.
    fn ticks_from(&self, tick: u64) -> RangeInclusive<u64> {
        tick..=tick + (1 << self.slot_bits) - 1
    }
}

/// Shows the hand, where the sweep is, and the keys of the slots that are not empty.
impl std::fmt::Debug for Wheel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut map = formatter.debug_map();
        map.entry(&"hand", &self.hand).entry(&"sweep", &self.sweep).entries(self.slots()).finish()
    }
}

#[cfg(test)]
mod tests;
