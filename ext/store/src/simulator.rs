//! Runs two to four members against the model store on virtual time, with seeded schedules of heartbeats, leaves and faults,
//! and judges what the callbacks hear. One seed is one schedule, and replays exactly.
//!
//! ```text
//! SCHEDULES=1000000 cargo test --release -p online_manager_store simulator   # a long run
//! SEED=42 cargo test -p online_manager_store simulator -- --nocapture        # one schedule, with its trace
//! ```

mod judge;
mod options;
mod process;
pub(crate) mod random;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use options::Options;
use world::World;

use crate::model::Broken;

/// How many schedules a normal test run plays.
const SCHEDULES: u64 = 10_000;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Plays one schedule. Returns what was wrong, if anything.
fn play(seed: u64, broken: Option<Broken>, is_traced: bool) -> Result<(), String> {
    let options = Options::from_seed(seed);
    let mut world = World::new(options, broken, is_traced);
    world.run().map_err(|wrong| format!("seed {seed}: {wrong}\n{:#?}", world.options))
}

/// Plays schedules on all cores. Returns the first that fails, by number.
fn play_all(first: u64, count: u64, broken: Option<Broken>) -> Option<String> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let found = AtomicU64::new(u64::MAX);
    let mut failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let found = &found;
                scope.spawn(move || {
                    for seed in (first + thread..first + count).step_by(threads as usize) {
                        if found.load(Ordering::Relaxed) < seed {
                            return None;
                        }
                        if let Err(wrong) = play(seed, broken, false) {
                            found.fetch_min(seed, Ordering::Relaxed);
                            return Some((seed, wrong));
                        }
                    }
                    None
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    failures.sort();
    failures.into_iter().next().map(|(_, wrong)| wrong)
}

#[test]
fn every_schedule_keeps_the_promises() {
    if let Some(seed) = from_env("SEED") {
        if let Err(wrong) = play(seed, None, true) {
            panic!("{wrong}");
        }
        return;
    }
    let count = from_env("SCHEDULES").unwrap_or(SCHEDULES);
    let first = from_env("FIRST_SEED").unwrap_or(0);
    if let Some(wrong) = play_all(first, count, None) {
        panic!("{wrong}");
    }
}

/// Prints how many schedules fail in which way, with the first seeds of each.
#[test]
fn survey() {
    let Some(count) = from_env("SURVEY") else { return };
    let first = from_env("FIRST_SEED").unwrap_or(0);
    let broken = std::env::var("BROKEN").ok().map(|name| {
        Broken::ALL.into_iter().find(|broken| format!("{broken:?}") == name).unwrap_or_else(|| panic!("no {name}"))
    });
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let kinds = std::sync::Mutex::new(std::collections::BTreeMap::<String, Vec<u64>>::new());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let kinds = &kinds;
            scope.spawn(move || {
                for seed in (first + thread..first + count).step_by(threads as usize) {
                    let Err(wrong) = play(seed, broken, false) else { continue };
                    let line = wrong.lines().next().unwrap_or_default();
                    let kind: String = line
                        .split_once(": at ")
                        .map_or(line, |(_, rest)| rest)
                        .chars()
                        .filter(|letter| !letter.is_ascii_digit() && *letter != '.')
                        .collect();
                    kinds.lock().unwrap().entry(kind).or_default().push(seed);
                }
            });
        }
    });
    for (kind, mut seeds) in kinds.into_inner().unwrap() {
        seeds.sort_unstable();
        println!("{:6} {kind}: {:?}", seeds.len(), &seeds[..seeds.len().min(10)]);
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let trace = |_| {
            let mut world = World::new(Options::from_seed(seed), None, false);
            let result = world.run();
            (result, world.fingerprint())
        };
        assert_eq!(trace(1), trace(2), "seed {seed}");
    }
}

/// Long, so only on demand: `rake "mutants[simulator]"`.
#[test]
fn a_store_that_breaks_a_rule_is_found() {
    if from_env("BROKEN_RULES").is_none() {
        return;
    }
    let mut missed = Vec::new();
    for broken in Broken::ALL {
        match play_all(0, SCHEDULES, Some(broken)) {
            Some(wrong) => println!("{broken:?}: {}", wrong.lines().next().unwrap_or_default()),
            None => missed.push(broken),
        }
    }
    assert_eq!(missed, []);
}
