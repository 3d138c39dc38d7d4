//! Hash flooding: ids that an attacker chose to collide are found as fast as random ones.
//!
//! The attacker knows how the table and its hasher work, but not the seed that the process drew. The tests count the
//! entries that a search probes, so the machine's speed does not matter.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::entry::State;

/// How many users there are. With this number the parts are about two thirds full, and none is likely to have grown
/// once more than the others.
const USERS: u64 = 20_000;
/// How many tables are filled, each with a seed of its own.
const SEEDS: usize = 12;
/// How many times those of random ids the mean and the longest probe length may be. Chance alone makes 1.05 and 1.8.
const MAX_MEAN_RATIO: f64 = 1.25;
const MAX_LONGEST_RATIO: f64 = 5.0;

/// The ids of all users.
enum UserIds {
    Integers(Vec<u64>),
    Strings(Vec<Vec<u8>>),
}

use UserIds::{Integers, Strings};

/// How many entries a search probes: on average, and for the user with the longest search.
#[derive(Clone, Copy, Debug)]
struct ProbeLengths {
    mean: f64,
    longest: usize,
}

impl UserIds {
    /// Returns a table with these users, and with a new seed.
    fn table(&self) -> Table {
        let mut table = Table::new();
        let mut add = |id: Id<'_>| {
            assert!(table.find(id).is_none(), "{id:?} is there twice");
            let key = table.key_for(id).unwrap();
            table.insert(Entry::new(key, State::ANNOUNCING, 0));
        };
        match self {
            Integers(numbers) => numbers.iter().for_each(|number| add(Id::Key(fixnum(*number)))),
            Strings(strings) => strings.iter().for_each(|bytes| add(Id::String(string_id(bytes)))),
        }
        table
    }

    /// Returns the worst of all seeds.
    fn probe_lengths(&self) -> ProbeLengths {
        (0..SEEDS)
            .map(|_| probe_lengths(&self.table()))
            .reduce(|one, other| ProbeLengths {
                mean: one.mean.max(other.mean),
                longest: one.longest.max(other.longest),
            })
            .unwrap()
    }
}

/// Returns the key of a small Ruby Integer.
fn fixnum(number: u64) -> u64 {
    number << 1 | 1
}

fn string_id(bytes: &[u8]) -> StringId<'_> {
    StringId { bytes, class: 0, label: 0 }
}

fn probe_lengths(table: &Table) -> ProbeLengths {
    let lengths: Vec<usize> = table
        .parts
        .iter()
        .flat_map(|part| part.entries.iter().enumerate().map(move |(index, entry)| (part, index, entry)))
        .filter(|(_, _, entry)| entry.key != VACANT)
        .map(|(part, index, entry)| (index.wrapping_sub(home(table.hash_of(entry.key))) & (part.entries.len() - 1)) + 1)
        .collect();
    assert_eq!(lengths.len() as u64, USERS);
    ProbeLengths { mean: lengths.iter().sum::<usize>() as f64 / USERS as f64, longest: *lengths.iter().max().unwrap() }
}

fn integers(number: impl FnMut(u64) -> u64) -> UserIds {
    Integers((0..USERS).map(number).collect())
}

fn strings(string: impl FnMut(u64) -> String) -> UserIds {
    Strings((0..USERS).map(string).map(String::into_bytes).collect())
}

/// Returns a number that looks random, the same on each run.
fn pseudo_random(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27) >> 2
}

/// Returns ids of `candidates` that are neighbours in a table with another seed.
fn neighbours_of_another_seed<T>(candidates: impl Iterator<Item = T>, hash: impl Fn(&Table, &T) -> u64) -> Vec<T> {
    let other_table = Table::new();
    candidates
        .filter(|candidate| {
            let hash = hash(&other_table, candidate);
            part_of(hash) == 0 && home(hash) & 0b111 == 0
        })
        .take(USERS as usize)
        .collect()
}

/// Returns eight blocks, each as long as what the hasher reads at once, in the `number`th order.
fn permutation(mut number: u64) -> String {
    let mut blocks: Vec<char> = ('a'..='h').collect();
    (1..=8)
        .rev()
        .map(|left| {
            let block = blocks.remove((number % left) as usize);
            number /= left;
            block.to_string().repeat(16)
        })
        .collect()
}

fn assert_no_slower(chosen: Vec<(String, UserIds)>, random: &UserIds) {
    let random = random.probe_lengths();
    for (name, ids) in chosen {
        let found = ids.probe_lengths();
        assert!(found.mean <= random.mean * MAX_MEAN_RATIO, "{name}: {found:?}, random ones {random:?}");
        assert!(
            found.longest as f64 <= random.longest as f64 * MAX_LONGEST_RATIO,
            "{name}: {found:?}, random ones {random:?}"
        );
    }
}

#[test]
fn no_integers_take_more_probes_than_random_ones() {
    let mut chosen = vec![
        ("consecutive".into(), integers(|number| number)),
        ("same low bits".into(), integers(|number| ((pseudo_random(number) << 30) & ((1 << 62) - 1)) | 0x1234_5678)),
        ("same high bits".into(), integers(|number| 0x3fff_0000_0000_0000 | number)),
        ("same low and high bits".into(), integers(|number| 0x3f00_0000_0000_0000 | number << 24 | 0xabcdef)),
        ("descending from the largest".into(), integers(|number| (1 << 62) - 1 - number)),
        (
            "neighbours with another seed".into(),
            Integers(neighbours_of_another_seed(0.., |other_table, number| other_table.hash_of(fixnum(*number)))),
        ),
    ];
    for power in [1, 2, 3, 6, 8, 12, 16, 20, 24, 32, 40, 46] {
        chosen.push((format!("multiples of 2^{power}"), integers(|number| number << power)));
    }
    assert_no_slower(chosen, &integers(pseudo_random));
}

#[test]
fn no_strings_take_more_probes_than_random_ones() {
    let long = "the same in each of them, and longer than what the hasher reads at once, ".repeat(3);
    let chosen = vec![
        ("common prefix".into(), strings(|number| format!("{long}{number}"))),
        ("common suffix".into(), strings(|number| format!("{number:08}{long}"))),
        ("common prefix and suffix".into(), strings(|number| format!("{long}{number:08}{long}"))),
        ("short common prefix".into(), strings(|number| format!("user-{number}"))),
        ("digits".into(), strings(|number| number.to_string())),
        ("blocks in another order".into(), strings(permutation)),
        (
            "neighbours with another seed".into(),
            Strings(neighbours_of_another_seed(
                (0..).map(|number: u64| number.to_string().into_bytes()),
                |other_table, bytes| other_table.hash_string(string_id(bytes)),
            )),
        ),
    ];
    assert_no_slower(
        chosen,
        &strings(|number| format!("{:016x}{:016x}", pseudo_random(number), pseudo_random(number + USERS))),
    );
}
