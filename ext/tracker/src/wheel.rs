//! The timing wheel: which users to check at which tick.
//!
//! Hashed and hierarchical (Varghese and Lauck, 1987): short slots for the next ticks, long ones for ticks farther
//! away. It holds only keys. The user's entry shows whether a key that comes up still counts, so no key is ever removed
//! early.

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
    pub(crate) ticks: std::ops::RangeInclusive<u64>,
}

impl Wheel {
    /// Returns an empty wheel with its hand at the tick `hand`.
    pub(crate) fn new(hand: u64) -> Wheel {
        Wheel { hand, len: 0, levels: LEVELS.map(|(slot_bits, slot_count)| Level::new(slot_bits, slot_count)) }
    }

    /// Inserts `key` for `tick`, which must be [`Wheel::within_reach`].
    pub(crate) fn insert(&mut self, key: u64, tick: u64) {
        debug_assert!(tick > self.hand);
        let hand = self.hand;
        if let Some(level) = self.levels.iter_mut().find(|level| level.reaches(tick, hand)) {
            level.insert(key, tick);
            self.len += 1;
        }
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
        (tick >> self.slot_bits) - (hand >> self.slot_bits) < self.slot_count as u64
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

    /// Drains the slot that begins at `tick`.
    fn drain(&mut self, tick: u64) -> DrainedSlot {
        let slot = self.slot_of(tick);
        if let Some(occupied) = self.occupied.get_mut(slot / 64) {
            *occupied &= !(1 << (slot % 64));
        }
        // The memory goes with the keys: otherwise each slot would keep the memory of its largest crowd.
        let keys = self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default().into_iter();
        DrainedSlot { keys, ticks: tick..=tick + (1 << self.slot_bits) - 1 }
    }
}

/// Shows the hand, and the keys of the slots that are not empty.
impl std::fmt::Debug for Wheel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entry(&"hand", &self.hand).entries(self.slots()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    /// Advances the wheel as `Presence` does: a key that comes up too early is inserted again.
    fn advance(wheel: &mut Wheel, now: u64, ticks: &[u64]) -> Vec<u64> {
        let mut expired = Vec::new();
        while let Some(drained) = wheel.drain_next(now) {
            for key in drained.keys {
                let tick = ticks[key as usize];
                assert!(drained.ticks.contains(&tick), "{tick} was in the slot of {:?}", drained.ticks);
                if tick <= now {
                    expired.push(key);
                } else {
                    assert_eq!(wheel.within_reach(tick), tick);
                    wheel.insert(key, tick);
                }
            }
        }
        expired
    }

    proptest! {
        #[test]
        fn every_key_comes_up_at_its_tick(
            start in 0u64..1 << 40,
            distances in prop::collection::vec(
                prop_oneof![1u64..200, 1u64..100_000, 1..=crate::entry::WHEEL_HORIZON],
                1..100,
            ),
            steps in prop::collection::vec(prop_oneof![1u64..100, 1u64..1_000_000], 1..100),
        ) {
            let mut wheel = Wheel::new(start);
            let ticks: Vec<u64> = distances.iter().map(|distance| start + distance).collect();
            for (key, tick) in ticks.iter().enumerate() {
                wheel.insert(key as u64, *tick);
            }
            let mut now = start;
            let mut seen = 0;
            for step in steps.into_iter().chain([2 * crate::entry::WHEEL_HORIZON]) {
                let before = now;
                now += step;
                let expired = advance(&mut wheel, now, &ticks);
                for key in &expired {
                    prop_assert!((before + 1..=now).contains(&ticks[*key as usize]));
                }
                seen += expired.len();
                prop_assert_eq!(seen, ticks.iter().filter(|tick| **tick <= now).count());
                let earliest = ticks.iter().copied().filter(|tick| *tick > now).min();
                match wheel.next_tick() {
                    Some(next) => prop_assert!(next > now && next <= earliest.unwrap()),
                    None => prop_assert_eq!(earliest, None),
                }
            }
        }
    }

    #[test]
    fn a_key_for_a_past_tick_comes_up_next() {
        let mut wheel = Wheel::new(0);
        assert!(wheel.drain_next(1_000).is_none());
        assert_eq!(wheel.within_reach(3), 1_001);
        wheel.insert(7, 1_001);
        assert_eq!(wheel.next_tick(), Some(1_001));
        assert_eq!(wheel.drain_next(1_001).unwrap().keys.as_slice(), [7]);
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn a_key_that_is_too_far_away_comes_up_before_the_wheel_has_gone_round() {
        let mut wheel = Wheel::new(300_000);
        let farthest = wheel.within_reach(u64::MAX);
        assert!(farthest > crate::entry::WHEEL_HORIZON, "{farthest}");
        for tick in [farthest, farthest + 1] {
            wheel.insert(7, tick);
        }
        assert_eq!(wheel.next_tick(), Some(farthest));
    }

    #[test]
    fn a_slot_that_is_farther_away_covers_more_ticks() {
        let mut wheel = Wheel::new(0);
        for (key, tick) in [5, 64, 262_143, 262_144].into_iter().enumerate() {
            wheel.insert(key as u64, tick);
        }
        for ticks in [5..=5, 64..=127, 262_080..=262_143, 262_144..=524_287] {
            assert_eq!(wheel.drain_next(1_000_000).unwrap().ticks, ticks);
        }
    }

    #[test]
    fn a_short_slot_may_be_within_a_long_one() {
        let mut wheel = Wheel::new(60);
        wheel.insert(1, 130);
        assert!(wheel.drain_next(100).is_none());
        wheel.insert(2, 129);
        let drained: Vec<_> = std::iter::from_fn(|| wheel.drain_next(200))
            .map(|drained| (drained.ticks, drained.keys.collect()))
            .collect();
        assert_eq!(drained, [(128..=191, vec![1]), (129..=129, vec![2])]);
    }

    #[test]
    fn the_hand_of_an_empty_wheel_catches_up() {
        let mut wheel = Wheel::new(0);
        wheel.catch_up(1_000);
        assert_eq!(wheel.hand, 1_000);
        wheel.insert(7, 1_001);
        wheel.catch_up(2_000);
        assert_eq!(wheel.hand, 1_000, "a key is still on the wheel");
    }

    #[test]
    fn different_wheels_have_different_debug_output() {
        // tests/exhaustive.rs distinguishes states by their Debug output.
        let mut wheel = Wheel::new(64);
        wheel.insert(7, 70);
        wheel.insert(8, 200);
        assert_eq!(format!("{wheel:?}"), r#"{"hand": 64, (0, 6): [7], (1, 3): [8]}"#);
    }

    #[test]
    fn a_drained_slot_keeps_no_memory() {
        let mut wheel = Wheel::new(0);
        for key in 0..1_000 {
            wheel.insert(key, 5);
        }
        drop(wheel.drain_next(5));
        assert!(wheel.levels.iter().flat_map(|level| &level.slots).all(|slot| slot.capacity() == 0));
    }
}
