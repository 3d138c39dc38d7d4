//! What the table holds, finds and frees.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::entry::State;
use proptest::prelude::*;
use std::collections::HashMap;

fn entry(key: u64, deadline: u64) -> Entry {
    Entry::new(key, State::ANNOUNCING, deadline)
}

proptest! {
    #[test]
    fn the_table_holds_what_a_hash_map_holds(
        steps in prop::collection::vec((any::<bool>(), 0u64..400, any::<bool>()), 0..2_000),
    ) {
        let mut table = Table::new();
        let mut model: HashMap<(u64, bool), u64> = HashMap::new();
        for (number, (insert, key, is_string)) in steps.into_iter().enumerate() {
            let bytes = key.to_le_bytes();
            let id = if is_string {
                Id::String(StringId { bytes: &bytes, class: 0, label: 0 })
            } else {
                Id::Key(key << 3)
            };
            let deadline = number as u64;
            let found = table.find(id);
            prop_assert_eq!(
                found.map(|place| table.get(place).unwrap().deadline(deadline)),
                model.get(&(key, is_string)).copied()
            );
            match found {
                Some(place) if !insert => {
                    table.remove(place);
                    model.remove(&(key, is_string));
                }
                Some(place) => {
                    table.get_mut(place).unwrap().set_deadline(deadline);
                    model.insert((key, is_string), deadline);
                }
                None if insert => {
                    let entry_key = table.key_for(id).unwrap();
                    table.insert(entry(entry_key, deadline));
                    model.insert((key, is_string), deadline);
                }
                None => {}
            }
        }
        prop_assert_eq!((0..PARTS).map(|part| table.part(part).count()).sum::<usize>(), model.len());
    }
}

#[test]
fn consecutive_and_strided_keys_spread_over_all_parts() {
    for stride in [1, 2, 8, 64, 4096, 1 << 20, 1 << 40] {
        let mut table = Table::new();
        for number in 0..64_000u64 {
            table.insert(entry((number * stride) << 1 | 1, 0));
        }
        for part in 0..PARTS {
            let users = table.part(part).count();
            assert!((750..1_300).contains(&users), "{users} of 64,000 users in one part, by steps of {stride}");
        }
    }
}

#[test]
fn a_part_frees_the_memory_that_it_no_longer_needs() {
    let mut table = Table::new();
    for key in 0..100_000 {
        table.insert(entry(key << 2, 0));
    }
    for key in 0..100_000 {
        table.remove(table.find_key(key << 2).unwrap());
    }
    assert!(table.parts.iter().all(|part| part.entries.capacity() == 0));
}

#[test]
fn a_search_finds_every_entry() {
    let mut table = Table::new();
    for key in 0..1_000 {
        table.insert(entry(key << 2, 0));
    }
    let mut seen = 0;
    let mut from = Some(Table::START);
    while let Some(place) = from.and_then(|from| table.search(from, |_| true)) {
        seen += 1;
        from = Some(Place { index: place.index + 1, ..place });
    }
    assert_eq!(seen, 1_000);
    assert!(table.search(Table::START, |entry| entry.key == 3 << 2).is_some());
    assert!(table.search(Table::START, |entry| entry.key == 3).is_none());
}
