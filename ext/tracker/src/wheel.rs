//! The timing wheel: which users to look at, and when.
//!
//! Hashed and hierarchical (Varghese and Lauck, 1987): six levels of 64 slots, each slot of a level
//! as long as the whole level below. It holds words and nothing else; whether a word that comes up is
//! still wanted is for the user's entry to say, so nothing is ever taken out of the wheel early.

/// Bits of a tick that one level tells apart.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 6;

/// A wheel, with its hand at the last tick that was taken.
#[derive(Clone)]
pub(crate) struct Wheel {
    hand: u64,
    levels: [Level; LEVELS],
}

#[derive(Clone)]
struct Level {
    /// One bit per slot that is not empty.
    occupied: u64,
    slots: [Vec<u64>; SLOTS],
}

/// What was in one slot: words, and the ticks that they can have been put in for.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) words: std::vec::IntoIter<u64>,
    pub(crate) ticks: std::ops::RangeInclusive<u64>,
}

impl Wheel {
    /// An empty wheel with its hand at `hand`.
    pub(crate) fn new(hand: u64) -> Wheel {
        let level = || Level { occupied: 0, slots: std::array::from_fn(|_| Vec::new()) };
        Wheel { hand, levels: std::array::from_fn(|_| level()) }
    }

    /// Puts `word` in for `tick`, or for the next one if that has passed, and answers for which.
    pub(crate) fn insert(&mut self, word: u64, tick: u64) -> u64 {
        let tick = tick.max(self.hand + 1);
        // The highest bit in which tick and hand differ tells the level: whatever is above it they share.
        let level = ((u64::BITS - 1 - (tick ^ self.hand).leading_zeros()) / BITS) as usize;
        let level = level.min(LEVELS - 1);
        let slot = slot_of(tick, level);
        if let Some(level) = self.levels.get_mut(level)
            && let Some(words) = level.slots.get_mut(slot)
        {
            words.push(word);
            level.occupied |= 1 << slot;
        }
        tick
    }

    /// The tick at which the next slot is to be taken: no entry is for an earlier one.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, tick)| tick)
    }

    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        // A slot of a lower level is over before the next slot of a higher one begins.
        self.levels.iter().enumerate().find_map(|(number, level)| {
            if level.occupied == 0 {
                return None;
            }
            let hand = slot_of(self.hand, number);
            let ahead = level.occupied.rotate_right(hand as u32).trailing_zeros();
            let slot = (hand + ahead as usize) % SLOTS;
            let span = BITS * number as u32;
            let tick = ((self.hand >> span) + u64::from(ahead)) << span;
            Some((number, slot, tick))
        })
    }

    /// Moves the hand to the next slot that begins at `now` or before, and empties it; without one,
    /// moves the hand to `now`.
    pub(crate) fn take(&mut self, now: u64) -> Option<Taken> {
        let Some((number, slot, tick)) = self.next_slot().filter(|(_, _, tick)| *tick <= now) else {
            self.hand = self.hand.max(now);
            return None;
        };
        self.hand = self.hand.max(tick);
        let level = self.levels.get_mut(number)?;
        level.occupied &= !(1 << slot);
        // The memory goes with the words: else each slot would keep what its fullest hour needed.
        let words = std::mem::take(level.slots.get_mut(slot)?).into_iter();
        let last = tick + (1 << (BITS * number as u32)) - 1;
        Some(Taken { words, ticks: tick..=last })
    }

    /// Moves the hand of an empty wheel to `now`, so that a long idle time is not wound through slot by slot.
    pub(crate) fn catch_up(&mut self, now: u64) {
        if self.levels.iter().all(|level| level.occupied == 0) {
            self.hand = self.hand.max(now);
        }
    }

    /// The last tick that was taken.
    pub(crate) fn hand(&self) -> u64 {
        self.hand
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.slots().map(|(_, words)| words.len()).sum()
    }

    /// The slots that are not empty, by level and number.
    fn slots(&self) -> impl Iterator<Item = ((usize, usize), &Vec<u64>)> {
        let levels = self.levels.iter().enumerate().filter(|(_, level)| level.occupied != 0);
        let slots = levels.flat_map(|(level, Level { slots, .. })| {
            slots.iter().enumerate().map(move |(slot, words)| ((level, slot), words))
        });
        slots.filter(|(_, words)| !words.is_empty())
    }
}

/// The hand, and what is in the slots that are not empty.
impl std::fmt::Debug for Wheel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entry(&"hand", &self.hand).entries(self.slots()).finish()
    }
}

fn slot_of(tick: u64, level: usize) -> usize {
    (tick >> (BITS * level as u32)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    /// Runs the wheel as its user does: what comes up too early is put in again.
    fn advance(wheel: &mut Wheel, now: u64, ticks: &[u64]) -> Vec<u64> {
        let mut up = Vec::new();
        while let Some(taken) = wheel.take(now) {
            for word in taken.words {
                let tick = ticks[word as usize];
                assert!(taken.ticks.contains(&tick), "{tick} was in the slot of {:?}", taken.ticks);
                if tick <= now { up.push(word) } else { assert_eq!(wheel.insert(word, tick), tick) }
            }
        }
        up
    }

    proptest! {
        #[test]
        fn every_word_comes_up_at_its_tick(
            start in 0u64..1 << 40,
            aheads in prop::collection::vec(prop_oneof![1u64..200, 1u64..100_000, 1..=crate::entry::REACH], 1..100),
            steps in prop::collection::vec(prop_oneof![1u64..100, 1u64..1_000_000], 1..100),
        ) {
            let mut wheel = Wheel::new(start);
            let ticks: Vec<u64> = aheads.iter().map(|ahead| start + ahead).collect();
            for (word, tick) in ticks.iter().enumerate() {
                wheel.insert(word as u64, *tick);
            }
            let mut now = start;
            let mut seen = 0;
            for step in steps.into_iter().chain([2 * crate::entry::REACH]) {
                let before = now;
                now += step;
                let up = advance(&mut wheel, now, &ticks);
                for word in &up {
                    prop_assert!((before + 1..=now).contains(&ticks[*word as usize]));
                }
                seen += up.len();
                prop_assert_eq!(seen, ticks.iter().filter(|tick| **tick <= now).count());
                let earliest = ticks.iter().copied().filter(|tick| *tick > now).min();
                match wheel.next() {
                    Some(next) => prop_assert!(next > now && next <= earliest.unwrap()),
                    None => prop_assert_eq!(earliest, None),
                }
            }
        }
    }

    #[test]
    fn what_is_put_in_for_the_past_comes_up_next() {
        let mut wheel = Wheel::new(0);
        assert!(wheel.take(1_000).is_none());
        assert_eq!(wheel.insert(7, 3), 1_001);
        assert_eq!(wheel.next(), Some(1_001));
        assert_eq!(wheel.hand(), 1_000);
        assert_eq!(wheel.take(1_001).unwrap().words.as_slice(), [7]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_slot_is_for_as_many_ticks_as_the_level_below_it_has() {
        let mut wheel = Wheel::new(0);
        for (word, tick) in [5, 64, 4_096].into_iter().enumerate() {
            wheel.insert(word as u64, tick);
        }
        for ticks in [5..=5, 64..=127, 4_096..=8_191] {
            assert_eq!(wheel.take(10_000).unwrap().ticks, ticks);
        }
    }

    #[test]
    fn the_hand_of_an_empty_wheel_catches_up() {
        let mut wheel = Wheel::new(0);
        wheel.catch_up(1_000);
        assert_eq!(wheel.hand(), 1_000);
        wheel.insert(7, 1_001);
        wheel.catch_up(2_000);
        assert_eq!(wheel.hand(), 1_000, "somebody is still to be taken");
    }

    #[test]
    fn wheels_that_differ_are_shown_differently() {
        // tests/exhaustive.rs tells states apart by what they show.
        let mut wheel = Wheel::new(64);
        wheel.insert(7, 70);
        wheel.insert(8, 200);
        assert_eq!(format!("{wheel:?}"), r#"{"hand": 64, (0, 6): [7], (1, 3): [8]}"#);
    }

    #[test]
    fn a_slot_that_was_emptied_keeps_no_memory() {
        let mut wheel = Wheel::new(0);
        for word in 0..1_000 {
            wheel.insert(word, 5);
        }
        drop(wheel.take(5));
        assert!(wheel.levels.iter().flat_map(|level| &level.slots).all(|slot| slot.capacity() == 0));
    }
}
