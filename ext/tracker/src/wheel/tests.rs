//! The tests of the wheel.
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
    let drained: Vec<_> =
        std::iter::from_fn(|| wheel.drain_next(200)).map(|drained| (drained.ticks, drained.keys.collect())).collect();
    assert_eq!(drained, [(128..=191, vec![1]), (129..=129, vec![2])]);
}

#[test]
fn a_sweep_takes_every_key_but_those_that_come_up_next() {
    let mut wheel = Wheel::new(60);
    for (key, tick) in [61, 62, 63, 70, 200, 200, 300_000].into_iter().enumerate() {
        wheel.insert(key as u64, tick);
    }
    let swept: Vec<_> = std::iter::from_fn(|| wheel.sweep()).collect();
    let swept: Vec<_> = swept.into_iter().map(|Swept { key, is_last, ticks }| (key, is_last, ticks)).collect();
    let expected = [
        (2, true, 63..=63),
        (3, true, 70..=70),
        (5, false, 192..=255),
        (4, true, 192..=255),
        (6, true, 262_144..=524_287),
    ];
    assert_eq!(swept, expected);
    assert_eq!(wheel.len(), 2);
    assert!(wheel.sweep().is_none());
    assert_eq!(wheel.drain_next(1_000_000).unwrap().keys.as_slice(), [0]);
    assert_eq!(wheel.drain_next(1_000_000).unwrap().keys.as_slice(), [1]);
    assert_eq!((wheel.next_tick(), wheel.len()), (None, 0));
}

#[test]
fn a_sweep_finds_no_slot_of_the_next_round() {
    let mut wheel = Wheel::new(60);
    wheel.insert(7, 100);
    wheel.sweep = (0, 101);
    assert_eq!(wheel.sweep(), None);
    assert_eq!(wheel.sweep(), Some(Swept { key: 7, is_last: true, ticks: 100..=100 }));
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
    assert_eq!(format!("{wheel:?}"), r#"{"hand": 64, "sweep": (0, 0), (0, 6): [7], (1, 3): [8]}"#);
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

#[test]
fn a_key_for_a_tick_out_of_reach_comes_up_all_the_same() {
    for tick in [0, 1_000, 1_000 + (1 << 40), u64::MAX] {
        let mut wheel = Wheel::new(1_000);
        let mut inserted = 0;
        assert!(crate::invariant::tests::is_violated(|| inserted = wheel.insert(7, tick)));
        assert_eq!(inserted, 1_001, "the next tick");
        assert_eq!((wheel.len(), wheel.next_tick()), (1, Some(inserted)));
        let drained = wheel.drain_next(inserted).unwrap();
        assert_eq!(drained.keys.collect::<Vec<_>>(), [7]);
    }
}
