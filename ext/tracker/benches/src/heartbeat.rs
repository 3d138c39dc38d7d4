//! What a heartbeat of a known user costs, in random order, in the tracker alone and in other data structures.
//!
//! The contenders of one size alternate for several rounds, so that other load on the machine affects all of them
//! alike; `rake bench:core` takes the medians. `BENCH_ROUNDS` and `BENCH_SCALE` make a trial run short.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use online_manager_tracker_benches::{
    Contender, Core, CoreWithClock, CoreWithStrings, LockedMap, Map, MokaCache, StringMap, TokioDelayQueue,
};

const SIZES: [u32; 3] = [10_000, 1_000_000, 10_000_000];
const ROUNDS: u32 = 5;
const SEED: u64 = 1;

fn main() {
    disable_huge_pages();
    let mut criterion = Criterion::default().configure_from_args();
    for size in SIZES {
        let users = (f64::from(size) * env_number("BENCH_SCALE").unwrap_or(1.0)).ceil() as u32;
        let mut group = criterion.benchmark_group(size.to_string());
        group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
        measure(&mut group, users);
        group.finish();
    }
    criterion.final_summary();
}

/// Disables transparent huge pages, as Ruby does for its process.
fn disable_huge_pages() {
    // SAFETY: the call takes numbers and touches no memory.
    let done = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(done, 0, "the kernel knows no PR_SET_THP_DISABLE");
}

/// Measures in groups that fit into memory together, each with the contenders that are compared.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, users: u32) {
    alternate(
        group,
        &mut [
            named::<Core>("core", users),
            named::<Map>("map", users),
            named::<LockedMap>("locked map", users),
            named::<CoreWithClock>("core by the clock", users),
            named::<TokioDelayQueue>("DelayQueue", users),
            named::<MokaCache>("moka", users),
        ],
    );
    alternate(
        group,
        &mut [named::<CoreWithStrings>("core of strings", users), named::<StringMap>("map of strings", users)],
    );
}

/// A contender's name, and a function that sends a number of heartbeats.
type Named = (&'static str, Box<dyn FnMut(u64) -> Duration>);

fn named<C: Contender + 'static>(name: &'static str, users: u32) -> Named {
    let (mut contender, mut known) = C::with_users(users);
    shuffle(&mut known);
    let mut next = 0;
    let mut moment = 0;
    let heartbeats = move |times| {
        let start = std::time::Instant::now();
        for _ in 0..times {
            // Nothing stays in registers from one heartbeat to the next, as in an application.
            black_box(&mut contender).heartbeat(black_box(&known[next]), moment);
            next = if next + 1 == known.len() { 0 } else { next + 1 };
            moment += 1;
        }
        start.elapsed()
    };
    (name, Box::new(heartbeats))
}

fn alternate(group: &mut BenchmarkGroup<'_, WallTime>, contenders: &mut [Named]) {
    let rounds = env_number("BENCH_ROUNDS").map_or(ROUNDS, |rounds| rounds as u32);
    for round in 0..rounds {
        for (name, heartbeats) in &mut *contenders {
            group.bench_function(format!("{name}/{round}"), |bencher| bencher.iter_custom(&mut *heartbeats));
        }
    }
}

fn env_number(name: &str) -> Option<f64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Shuffles the list (Fisher and Yates), the same way on every run.
fn shuffle<T>(list: &mut [T]) {
    let mut state = SEED;
    for last in (1..list.len()).rev() {
        // Knuth's LCG; its upper bits are random enough.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = ((u128::from(state) * (last as u128 + 1)) >> 64) as usize;
        list.swap(last, other);
    }
}
