//! What a schedule is like: everything follows from its seed.

use online_manager_tracker::Nanos;

use super::random::Random;

pub(super) const MILLISECOND: Nanos = 1_000_000;
pub(super) const SECOND: Nanos = 1_000 * MILLISECOND;

const LONG_TIMEOUT: Nanos = 30 * SECOND;

/// What can go wrong. A schedule has a few kinds of faults and not all: so that they do not hide each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A process is killed, and another one starts later.
    Kill,
    /// A process stops cleanly, and another one starts later.
    Stop,
    /// A process stands still.
    Pause,
    /// What reads a process' heartbeats and calls its callbacks stands still, and its member's thread does not.
    Stall,
    /// A process forks.
    Fork,
    /// The server does not answer.
    ServerAway,
    /// One process cannot reach the server, and the others can.
    CutOff,
    /// The server's connections are cut.
    Cut,
    /// The server restarts with older data.
    RollBack,
    /// Older data replace the server's while it answers, and a process stands still for most of a lease.
    Restore,
    /// The server restarts without its data.
    Lose,
    /// A lease ends before its time.
    EndLease,
    /// One partition is away.
    PartitionAway,
    /// The server's clocks jump.
    ClockJump,
    /// Writes fail, and all else works.
    WritesFail,
    /// Every callback fails.
    CallbacksFail,
    /// The callbacks of one user fail, or those of all users but one.
    CallbackFails,
    /// A callback hangs.
    CallbackHangs,
    /// The calls are slow.
    SlowCalls,
}

impl FaultKind {
    const ALL: [FaultKind; 19] = [
        FaultKind::Kill,
        FaultKind::Stop,
        FaultKind::Pause,
        FaultKind::Stall,
        FaultKind::Fork,
        FaultKind::ServerAway,
        FaultKind::CutOff,
        FaultKind::Cut,
        FaultKind::RollBack,
        FaultKind::Restore,
        FaultKind::Lose,
        FaultKind::EndLease,
        FaultKind::PartitionAway,
        FaultKind::ClockJump,
        FaultKind::WritesFail,
        FaultKind::CallbacksFail,
        FaultKind::CallbackFails,
        FaultKind::CallbackHangs,
        FaultKind::SlowCalls,
    ];
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) seed: u64,
    pub(super) processes: usize,
    pub(super) partitions: u16,
    pub(super) users: usize,
    /// The config's timeout.
    pub(super) timeout: Nanos,
    /// The timeouts of the users' own.
    pub(super) user_timeouts: Vec<Nanos>,
    pub(super) faults: Vec<FaultKind>,
    /// How long faults happen, and how long the pause between two of them is on average.
    pub(super) fault_time: Nanos,
    pub(super) fault_interval: Nanos,
    /// The percentage of calls that fail, before or after they took effect.
    pub(super) failing_calls: u64,
    pub(super) latency: (Nanos, Nanos),
    pub(super) poll_interval: Nanos,
    pub(super) idle_poll_interval: Nanos,
    pub(super) lease_poll_interval: Nanos,
    /// Whether several events go into one call of a callback.
    pub(super) is_batched: bool,
    /// How far the server's clock is ahead.
    pub(super) server_offset: Nanos,
    /// The step of the processes' clock.
    pub(super) clock_step: Nanos,
    pub(super) is_hopping: bool,
    /// Whether the users whose callbacks fail are never mended. The others must not wait for them.
    pub(super) is_failing_for_ever: bool,
    /// Whether heartbeats of the same user have a much shorter timeout at times, mostly in other processes.
    pub(super) is_shortening: bool,
}

impl Options {
    /// Whether calls take less time than a step of the clock.
    pub(super) fn is_fast(&self) -> bool {
        self.latency.1 <= MILLISECOND
    }

    pub(super) fn from_seed(seed: u64) -> Options {
        let mut random = Random::new(seed);
        let mut faults = Vec::new();
        // Four schedules in five have faults, of one to three kinds.
        if random.percent(80) {
            for _ in 0..random.range(1, 3) {
                faults.push(random.choose(&FaultKind::ALL));
            }
        }
        let timeout = random.choose(&[SECOND, 2 * SECOND, 3 * SECOND]);
        let users = random.range(2, 6) as usize;
        let user_timeouts = (0..users)
            .map(|_| if random.percent(70) { timeout } else { random.choose(&[SECOND, 2 * SECOND, 5 * SECOND]) })
            .collect();
        let is_sqlite = random.percent(40);
        let (poll_interval, idle_poll_interval, lease_poll_interval) = if is_sqlite {
            (50 * MILLISECOND, 50 * MILLISECOND, 50 * MILLISECOND)
        } else {
            (20 * MILLISECOND, 100 * MILLISECOND, 250 * MILLISECOND)
        };
        let mut options = Options {
            seed,
            processes: random.range(1, 4).max(2) as usize,
            partitions: if is_sqlite { 1 } else { random.range(2, 4) as u16 },
            users,
            timeout,
            user_timeouts,
            faults,
            fault_time: random.range(5, 15) * SECOND,
            fault_interval: random.choose(&[500 * MILLISECOND, 2 * SECOND, 6 * SECOND]),
            failing_calls: random.choose(&[0, 0, 1, 10]),
            latency: (50_000, random.choose(&[MILLISECOND, MILLISECOND, 20 * MILLISECOND])),
            poll_interval,
            idle_poll_interval,
            lease_poll_interval,
            is_batched: random.percent(30),
            server_offset: random.choose(&[0, 1_000 * SECOND]),
            clock_step: random.choose(&[1, 4 * MILLISECOND]),
            is_hopping: random.percent(50),
            is_failing_for_ever: random.percent(50),
            is_shortening: random.percent(30),
        };
        if random.percent(10) {
            // Far longer than a lease, to distinguish what waits for one timeout from what waits for one lease.
            if random.percent(70) {
                options.timeout = LONG_TIMEOUT;
            }
            options.user_timeouts.fill(LONG_TIMEOUT);
        }
        options
    }
}
