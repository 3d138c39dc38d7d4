//! Processes, the server, users and faults on virtual time.
//!
//! Over 400 lines: it is one queue of events, and each kind of event is handled in one place.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};

use online_manager_tracker::{Nanos, Reason, Stall, Transition};

use super::judge::{EQUAL, Judge, PROMPT, Parting};
use super::options::{FaultKind, MILLISECOND, Options, SECOND};
use super::process::{Asked, Callback, Doing, Process, asked, user_id, user_of};
use super::random::Random;
use crate::coalescer::RETURN_MARGIN;
use crate::error::StoreError;
use crate::id::UserId;
use crate::log::{DeliveryOutcome, MAX_FAILURES};
use crate::member::Phase;
use crate::member::state::{Action, Call, Reply, StoreTraits};
use crate::model::{Broken, Model};
use crate::store::{Event, Heartbeat, ORDER_TOLERANCE, Purpose, Token, Write, Written};

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Happening {
    /// The member's thread of a process goes on, unless it did something else since.
    Thread { process: usize, generation: u64 },
    /// A call reaches the server.
    Effect { process: usize, generation: u64, fails_after: bool },
    /// A call fails before it reaches the server.
    Failure { process: usize, generation: u64 },
    /// The reactor of a process looks for events.
    Reactor { process: usize },
    /// A callback returns.
    Return { process: usize, generation: u64 },
    /// A user sends a heartbeat, leaves, comes or goes.
    Act { user: usize },
    /// What a user sent reaches a process.
    Arrival { user: usize, process: usize, waits_in: Option<u64>, sent: Sent },
    /// Something is about to go wrong.
    Fault,
    /// A replica that got no writes lately takes a partition over, after a while.
    FailOver { partition: u16, duration: Nanos },
    /// Something is right again.
    Repair(Repair),
    /// The promise about a heartbeat or leave of that moment is due.
    Check { user: usize, at: Nanos },
    /// Every partition has a lease holder, or had one within the last lease.
    CheckLeases,
    /// The next part of the schedule begins.
    Part,
}

/// What a user sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sent {
    Heartbeat,
    /// A heartbeat with a timeout that is over before the others are written, but not before they come.
    Shorter,
    Leave,
    /// A leave for [`LATER`] that follows a leave, and changes nothing.
    LaterLeave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repair {
    Server,
    Writes,
    Callbacks,
    Users,
    Calls,
    Partition(u16),
    Start(usize),
    Resume(usize),
    Stall(usize),
}

/// The part of a schedule: first faults, then the liveness checks of a world without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Faults,
    Leases,
    Calm,
    Online,
    Offline,
    Over,
}

pub(super) struct World {
    pub(super) options: Options,
    is_traced: bool,
    now: Nanos,
    random: Random,
    sequence: u64,
    queue: BinaryHeap<Reverse<(Nanos, u64, Happening)>>,
    server: Model,
    wall_offset: i64,
    processes: Vec<Process>,
    incarnations: u64,
    is_server_away: bool,
    /// Since when the server was away last.
    away_since: Nanos,
    /// Until when each partition is away.
    partitions_away_until: Vec<Nanos>,
    /// When the server came back from an outage that was long enough for a hold, and who was online then.
    back: Option<(Nanos, Vec<usize>)>,
    do_writes_fail: bool,
    do_callbacks_fail: bool,
    failing_users: BTreeSet<usize>,
    is_slow: bool,
    /// The events that were not delivered when the last part began.
    undelivered: BTreeMap<(u16, u64), UserId>,
    /// When each partition last had a lease holder.
    held_at: Vec<Nanos>,
    /// Who sends heartbeats, how often, and through which process.
    is_active: Vec<bool>,
    intervals: Vec<Nanos>,
    homes: Vec<usize>,
    part: Part,
    judge: Judge,
    /// Until when a lease may last that the data lack which were put back.
    restored_until: Nanos,
    /// How often the data were lost, or went back.
    losses: u64,
    /// By partition, the generation of data that went back, and who can notice that, if no member has yet.
    unnoticed: Vec<Option<(u64, Vec<Token>)>>,
    hash: DefaultHasher,
    /// The first promise that was broken.
    wrong: Option<String>,
}

/// How long after a second leave its user is due: longer than any timeout.
const LATER: Nanos = 60 * SECOND;

/// The least timeout of such a heartbeat: the other processes hear of it, and write, in less than half of that.
const MIN_SHORTER: Nanos = 800 * MILLISECOND;

/// How often the leases are checked once there are no more faults.
const LEASE_CHECK_INTERVAL: Nanos = 100 * MILLISECOND;

/// A year 2026 in microseconds, so that numbers are as large as real ones.
const WALL: u64 = 1_790_000_000_000_000;

impl World {
    pub(super) fn new(options: Options, broken: Option<Broken>, is_traced: bool) -> World {
        let mut random = Random::new(options.seed ^ 0x0073_696d_756c_6174);
        let users = options.users;
        let intervals = options.user_timeouts.iter().map(|timeout| timeout / random.range(3, 8)).collect();
        let mut world = World {
            is_traced,
            now: SECOND,
            sequence: 0,
            queue: BinaryHeap::new(),
            server: Model::new(options.partitions, broken),
            wall_offset: 0,
            processes: Vec::new(),
            incarnations: 0,
            is_server_away: false,
            away_since: 0,
            partitions_away_until: vec![0; usize::from(options.partitions)],
            back: None,
            do_writes_fail: false,
            do_callbacks_fail: false,
            failing_users: BTreeSet::new(),
            is_slow: false,
            undelivered: BTreeMap::new(),
            held_at: vec![0; usize::from(options.partitions)],
            is_active: (0..users).map(|_| random.percent(60)).collect(),
            intervals,
            homes: (0..users).map(|_| random.range(0, options.processes as u64 - 1) as usize).collect(),
            part: Part::Faults,
            judge: Judge::new(users),
            restored_until: 0,
            losses: 0,
            unnoticed: vec![None; usize::from(options.partitions)],
            hash: DefaultHasher::new(),
            wrong: None,
            random,
            options,
        };
        for number in 0..world.options.processes {
            world.start_process(number);
        }
        for user in 0..users {
            let delay = world.random.range(0, SECOND);
            world.at(delay, Happening::Act { user });
        }
        if !world.options.faults.is_empty() {
            let delay = world.random.range(SECOND, 3 * SECOND);
            world.at(delay, Happening::Fault);
        }
        let length = world.options.fault_time;
        world.at(length, Happening::Part);
        // Starting is trouble too: nothing is polled yet.
        world.judge.trouble(world.now + SECOND);
        // The members that knew the versions may be gone; the versions then go by a clock that was set back.
        let has = |kind| world.options.faults.contains(&kind);
        world.judge.may_repeat_anything = has(FaultKind::ClockJump)
            && (has(FaultKind::RollBack)
                || has(FaultKind::Restore)
                || (has(FaultKind::Lose) && (has(FaultKind::Kill) || has(FaultKind::Stop))));
        world
    }

    /// What has happened, as one number.
    pub(super) fn fingerprint(&self) -> u64 {
        self.hash.finish()
    }

    pub(super) fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse((now, _, happening))) = self.queue.pop() {
            self.now = now;
            (now, happening).hash(&mut self.hash);
            self.happen(happening);
            if let Some(wrong) = self.wrong.take() {
                return Err(format!("at {:.3} s: {wrong}", now as f64 / 1e9));
            }
            if self.part == Part::Over {
                return Ok(());
            }
        }
        Err("nothing happens any more".into())
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:9.4} {}", self.now as f64 / 1e9, text());
        }
    }

    fn at(&mut self, delay: Nanos, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, happening)));
    }

    fn check(&mut self, result: Result<(), String>) {
        if let Err(wrong) = result {
            self.wrong.get_or_insert(wrong);
        }
    }

    /// The time that heartbeats and members go by.
    fn clock(&self) -> Nanos {
        self.now / self.options.clock_step * self.options.clock_step
    }

    fn set_server_clock(&mut self) {
        self.server.now = self.now + self.options.server_offset;
        self.server.wall = (WALL + self.now / 1_000).saturating_add_signed(self.wall_offset);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Thread { process, generation } => self.thread(process, generation),
            Happening::Effect { process, generation, fails_after } => self.effect(process, generation, fails_after),
            Happening::Failure { process, generation } => self.failure(process, generation),
            Happening::Reactor { process } => self.react(process),
            Happening::Return { process, generation } => self.callback_returns(process, generation),
            Happening::Act { user } => self.act(user),
            Happening::Arrival { user, process, waits_in, sent } => self.arrive(user, process, waits_in, sent),
            Happening::Fault => self.fault(),
            Happening::FailOver { partition, duration } => self.fail_over(partition, duration),
            Happening::Repair(repair) => self.repair(repair),
            Happening::Check { user, at } => self.check_promptness(user, at),
            Happening::CheckLeases => self.check_leases(),
            Happening::Part => self.next_part(),
        }
    }

    // -- the member's thread --------------------------------------------------------------------

    fn start_process(&mut self, number: usize) {
        self.incarnations += 1;
        if self.now < self.restored_until {
            // It does not know that another one holds a lease which the data that were put back do not show.
            self.judge.may_repeat_all();
            self.judge.repeats_until = self.judge.repeats_until.max(self.now + 2 * SECOND);
        }
        let seed = self.random.next();
        let mut process = Process::new(number, self.incarnations, seed, &self.options);
        if number < self.processes.len() {
            // What was meant for the process before must not reach this one.
            let before = &self.processes[number];
            process.generation = before.generation + 1;
            process.callback_generation = before.callback_generation + 1;
            self.processes[number] = process;
        } else {
            self.processes.push(process);
        }
        self.trace(|| format!("process {number} starts"));
        self.go_on(number, 0);
    }

    /// Has the member's thread go on after a delay.
    fn go_on(&mut self, process: usize, delay: Nanos) {
        self.processes[process].generation += 1;
        let generation = self.processes[process].generation;
        self.at(delay, Happening::Thread { process, generation });
    }

    /// Whether the process stands still; if so, what happens is put off.
    fn is_put_off(&mut self, process: usize, happening: Happening) -> bool {
        self.is_put_off_until(self.processes[process].paused_until, happening)
    }

    /// Whether all but the member's thread stands still; if so, what happens is put off.
    fn is_ruby_put_off(&mut self, number: usize, happening: Happening) -> bool {
        let process = &self.processes[number];
        self.is_put_off_until(process.paused_until.max(process.stalled_until), happening)
    }

    fn is_put_off_until(&mut self, until: Nanos, happening: Happening) -> bool {
        if until > self.now {
            self.at(until - self.now, happening);
            return true;
        }
        false
    }

    fn thread(&mut self, number: usize, generation: u64) {
        let process = &self.processes[number];
        if !process.is_alive || process.generation != generation {
            return;
        }
        if self.is_put_off(number, Happening::Thread { process: number, generation }) {
            return;
        }
        let process = &mut self.processes[number];
        let (asked, reply) = match std::mem::replace(&mut process.doing, Doing::Nothing) {
            Doing::Call(call, Some(reply)) => (asked(&call), reply),
            Doing::Step(reply) => (Vec::new(), reply),
            Doing::Wait | Doing::Call(_, None) | Doing::Nothing => (Vec::new(), Reply::None),
        };
        self.step(number, &asked, reply);
    }

    fn step(&mut self, number: usize, asked: &[Asked], reply: Reply) {
        let clock = self.clock();
        let process = &mut self.processes[number];
        if self.is_traced && reply != Reply::None && reply != Reply::Done {
            println!("{:9.4}   process {number} <- {reply:?}", self.now as f64 / 1e9);
        }
        let expected = process.new_reports(asked, &reply, clock);
        let reports = process.state.get_mut().outages.len();
        let is_stalled = process.stalled_until > self.now;
        process.state.get_mut().awake(clock);
        process.state.get_mut().stalled_since = is_stalled.then_some(process.stalled_since);
        let action = process.state.get_mut().step(clock, reply);
        let reports = process.state.get_mut().outages.len() - reports;
        let loss = (self.losses, self.now + process.state.get_mut().lease_length());
        let messages = process.state.get_mut().outages.iter().rev().take(reports);
        // What a stop could not write is said with its cause.
        let is_report = |message: &&String| !message.contains("could not be written");
        let is_loss = messages.into_iter().filter(is_report).any(|message| message.contains("the data are others"));
        // A member that stood still for longer than a lease may notice older data once the others are done with them.
        let before = if is_loss { process.reported_loss.replace(loss) } else { None };
        if before.is_some_and(|(before, until)| before == loss.0 && self.now < until) {
            self.wrong.get_or_insert(format!("process {number} reports one loss twice"));
        }
        let process = &mut self.processes[number];
        // A stop says besides what it could not write.
        if reports != expected && process.state.get_mut().phase == Phase::Running {
            let result = format!("process {number} reports {reports} outages where {expected} begin");
            self.wrong.get_or_insert(result);
        }
        let process = &mut self.processes[number];
        let has_news = process.state.get_mut().has_news(clock);
        self.trace(|| format!("  process {number} -> {action:?}"));
        match action {
            Action::Wait(duration) => {
                self.processes[number].doing = Doing::Wait;
                // The thread is never quite on time, and a wait of nothing still is a turn of the loop.
                let late = self.random.range(10_000, 200_000);
                self.go_on(number, duration + late);
            }
            Action::End => {
                self.trace(|| format!("process {number} ends"));
                self.processes[number].doing = Doing::Nothing;
                self.member_ended(number);
            }
            Action::Call(call) => self.call(number, call),
        }
        if has_news {
            self.at(10_000, Happening::Reactor { process: number });
        }
    }

    fn member_ended(&mut self, number: usize) {
        let process = &mut self.processes[number];
        match process.state.get_mut().phase {
            Phase::Closing => {
                process.is_alive = false;
                self.lose_process();
                let delay = self.random.range(0, 3 * SECOND);
                self.judge.trouble(self.now + delay);
                self.at(delay, Happening::Repair(Repair::Start(number)));
            }
            // A fork: the parent goes on after it.
            Phase::Pausing => {
                process.state.get_mut().phase = Phase::Running;
                process.state.get_mut().restart();
                process.poll_anew();
                process.is_open = false;
                process.doing = Doing::Step(Reply::None);
                self.go_on(number, 5 * MILLISECOND);
            }
            _ => {}
        }
    }

    fn call(&mut self, number: usize, call: Call) {
        let clock = self.clock();
        let process = &mut self.processes[number];
        match call {
            Call::Scan { last_ok, timeout } => {
                process.coalescer.scan((clock, last_ok), timeout, &process.state);
                self.check_forgotten();
                return self.done(number);
            }
            Call::Resend(resend) => {
                process.coalescer.resend(clock, |id| resend.settled_at(id), resend.is_lost, &process.state);
                return self.done(number);
            }
            Call::Prolong { stall, is_lasting } => {
                process.coalescer.prolong(stall, is_lasting, &process.state);
                return self.done(number);
            }
            Call::Hear(heard) => {
                heard.iter().for_each(|heard| process.coalescer.hear(heard, clock, &process.state));
                return self.done(number);
            }
            Call::EnqueueUnwritten => {
                process.coalescer.enqueue_unwritten(clock, &process.state);
                return self.done(number);
            }
            Call::Recover => {
                process.is_connected = false;
                return self.done(number);
            }
            _ => {}
        }
        while process.recent_calls.front().is_some_and(|at| at + SECOND < self.now) {
            process.recent_calls.pop_front();
        }
        process.recent_calls.push_back(self.now);
        let calls = process.recent_calls.len();
        let result = self.judge.check_calls(number, calls);
        self.check(result);
        let (low, high) = self.options.latency;
        let high = if self.is_slow { SECOND } else { high };
        let latency = self.random.range(low, high.max(low + 1));
        let is_write = matches!(call, Call::Write(..) | Call::Commit(..));
        let is_cut_off = self.processes[number].cut_off_until > self.now;
        let is_failing = self.is_server_away
            || is_cut_off
            || (self.do_writes_fail && is_write)
            || (self.part == Part::Faults && self.random.percent(self.options.failing_calls));
        if is_failing {
            let until = self.now + latency;
            self.judge.trouble(until);
        }
        let can_arrive = !(self.is_server_away || is_cut_off || (self.do_writes_fail && is_write));
        let has_effect = can_arrive && self.random.percent(50);
        self.processes[number].doing = Doing::Call(call, None);
        self.processes[number].generation += 1;
        let generation = self.processes[number].generation;
        if is_failing && !has_effect {
            self.at(latency, Happening::Failure { process: number, generation });
        } else {
            self.at(latency / 2, Happening::Effect { process: number, generation, fails_after: is_failing });
        }
    }

    fn done(&mut self, number: usize) {
        self.processes[number].doing = Doing::Step(Reply::Done);
        self.go_on(number, 1_000);
    }

    /// A call reaches the server, also if the process stands still or has been killed since.
    fn effect(&mut self, number: usize, generation: u64, fails_after: bool) {
        if self.processes[number].generation != generation {
            return;
        }
        self.set_server_clock();
        let Doing::Call(call, _) = std::mem::replace(&mut self.processes[number].doing, Doing::Nothing) else { return };
        if self.is_server_away || self.processes[number].cut_off_until > self.now {
            self.processes[number].doing = Doing::Call(call, None);
            return self.failure(number, generation);
        }
        let is_cut = !self.processes[number].is_connected && call != Call::Open;
        let reply = if is_cut { failed(&call) } else { self.serve(number, &call) };
        let reply = if fails_after { failed(&call) } else { reply };
        if fails_after {
            self.judge.may_repeat_all();
            self.processes[number].is_connected = false;
        }
        self.processes[number].doing = Doing::Call(call, Some(reply));
        let (low, high) = self.options.latency;
        let latency = self.random.range(low, high.max(low + 1)) / 2;
        self.at(latency, Happening::Thread { process: number, generation });
    }

    fn serve(&mut self, number: usize, call: &Call) -> Reply {
        match call {
            Call::Open => {
                let process = &mut self.processes[number];
                let was_away = process.is_open && !process.is_connected;
                process.is_connected = true;
                process.is_open = true;
                let traits = StoreTraits {
                    partitions: self.options.partitions,
                    poll_interval: self.options.poll_interval,
                    idle_poll_interval: self.options.idle_poll_interval,
                    lease_poll_interval: self.options.lease_poll_interval,
                };
                Reply::Opened(Ok((traits, was_away)))
            }
            Call::Register(membership) => {
                let members = self.server.register(membership) as u16;
                Reply::Registered(Ok(self.options.partitions.div_ceil(members.max(1))))
            }
            Call::Deregister(membership) => {
                self.server.deregister(membership);
                Reply::Deregistered(Ok(()))
            }
            Call::Write(membership, writes) => {
                let late = self.late_leaves(writes);
                let expired = self.expired(writes);
                let results = self.server.write(membership, writes);
                self.note_prolongations(membership.token, writes);
                self.note_leaves(writes, &results);
                if let Some(user) = late.into_iter().find(|user| self.server.is_leaving(&user_id(*user))) {
                    self.wrong.get_or_insert(format!("a leave before the last heartbeat of user {user} counts"));
                }
                self.check_parted();
                self.check_expired(expired);
                // The data to go back to have events that are delivered meanwhile.
                let has = |kind| self.options.faults.contains(&kind);
                if (has(FaultKind::RollBack) || has(FaultKind::Restore)) && self.random.percent(10) {
                    self.partitions().for_each(|partition| self.server.back_up(partition));
                }
                self.look_for_witnesses();
                Reply::Written(Ok(results))
            }
            Call::Poll(membership, requests) => {
                let held = self.held();
                let results = self.server.poll(membership, requests);
                if let Some(user) = held.into_iter().find(|user| !self.server.is_online(&user_id(*user))) {
                    self.wrong.get_or_insert(format!("user {user} is set offline right after an outage"));
                }
                self.check_parted();
                self.look_for_witnesses();
                Reply::Polled(Ok(results))
            }
            Call::Commit(membership, commits) => {
                let before = self.server.undelivered();
                let results = self.server.commit(membership, commits);
                let after = self.server.undelivered();
                let is_changed = |event: &&(u16, u64)| !after.contains_key(*event);
                if let Some((partition, number)) = before.keys().find(is_changed)
                    && self.server.last_lease_holder(*partition) != Some(membership.token)
                {
                    let what = format!("event {number} is committed by a process that does not hold the lease");
                    self.wrong.get_or_insert(what);
                }
                if results.iter().any(|result| *result != Ok(true)) {
                    self.judge.may_repeat_all();
                }
                Reply::Committed(Ok(results))
            }
            Call::Recover
            | Call::Scan { .. }
            | Call::Resend(_)
            | Call::Prolong { .. }
            | Call::Hear(_)
            | Call::EnqueueUnwritten => Reply::Done,
        }
    }

    /// The users of leaves that come too late: the store knows a heartbeat that is clearly later, and it is the last.
    fn late_leaves(&self, writes: &[Write]) -> Vec<usize> {
        let is_late = |user: &usize| {
            let known = &self.judge.users[*user];
            let (Some(heartbeat), Some(leave)) = (known.last_heartbeat, known.last_leave) else { return false };
            let id = user_id(*user);
            let oldest = self.now - heartbeat + self.options.clock_step;
            let is_known = self.server.seen_ago(&id).is_some_and(|ago| ago <= oldest);
            let is_apart = leave + ORDER_TOLERANCE + 2 * EQUAL < heartbeat;
            self.are_times_exact() && is_apart && is_known && !self.server.is_leaving(&id)
        };
        let users = writes.iter().filter(|write| matches!(write, Write::Leave(_))).map(|write| user_of(write.id()));
        users.filter(is_late).collect()
    }

    /// The users of heartbeats who are offline since their timeout was over, with the time of the last heartbeat.
    fn expired(&self, writes: &[Write]) -> Vec<(usize, Nanos)> {
        // Of heartbeats of nearly the same moment another one may have a timeout that is not over.
        let heartbeats = writes
            .iter()
            .filter(|write| matches!(write, Write::Heartbeat(_)) && !self.may_be_shorter(user_of(write.id())));
        let expired = |write: &Write| Some((user_of(write.id()), self.server.expired_seen(write.id())?));
        heartbeats.filter_map(expired).collect()
    }

    /// No heartbeat brings its user online a second time, after its timeout is over.
    fn check_expired(&mut self, expired: Vec<(usize, Nanos)>) {
        let is_again = |(user, seen): &(usize, Nanos)| {
            self.server.online_seen(&user_id(*user)).is_some_and(|other| other < *seen + EQUAL)
        };
        if let Some((user, _)) = expired.into_iter().find(is_again)
            && self.are_times_exact()
        {
            self.wrong.get_or_insert(format!("user {user} comes online by a heartbeat whose timeout was over"));
        }
    }

    /// The users who are not to be set offline yet: the server is just back, and they were online before and have not left.
    fn held(&self) -> Vec<usize> {
        let Some((back_at, online)) = self.back.as_ref().filter(|(at, _)| self.now < at + self.options.timeout) else {
            return Vec::new();
        };
        let is_before = |ago: Nanos| self.now.saturating_sub(ago) < *back_at;
        let is_held = |user: &usize| self.server.seen_ago(&user_id(*user)).is_some_and(is_before);
        let has_promise = self.are_times_exact() && !self.judge.has_lost_data;
        let has_left = |user: &usize| self.server.has_left(&user_id(*user));
        online.iter().copied().filter(|user| has_promise && is_held(user) && !has_left(user)).collect()
    }

    /// Whether the times that the server has of heartbeats and leaves are nearly those at which they came.
    fn are_times_exact(&self) -> bool {
        let has = |kind| self.options.faults.contains(&kind);
        !has(FaultKind::SlowCalls) && !has(FaultKind::ClockJump)
    }

    /// Takes in whose deadlines a process puts off.
    fn note_prolongations(&mut self, token: Token, writes: &[Write]) {
        for write in writes {
            if matches!(write, Write::Heartbeat(Heartbeat { purpose: Purpose::Prolong, .. })) {
                self.judge.users[user_of(write.id())].prolonged_by = Some(token);
            }
        }
    }

    /// Takes in that the store knows leaves.
    fn note_leaves(&mut self, writes: &[Write], results: &[(u16, Result<Written, StoreError>)]) {
        for write in writes {
            let Write::Leave(leave) = write else { continue };
            let partition = leave.id.partition(self.options.partitions);
            let is_written = results.iter().any(|(other, result)| *other == partition && result.is_ok());
            let user = user_of(&leave.id);
            let left_at = self.now.saturating_sub(leave.age) + EQUAL;
            let parting = &mut self.judge.users[user].parting;
            let is_last = matches!(parting, Parting::Left(at) if left_at >= *at);
            if is_written && is_last && leave.after == 0 {
                *parting = Parting::Known;
            }
        }
    }

    /// Once the store has set a user offline who left, no older heartbeat brings the user online.
    fn check_parted(&mut self) {
        for user in 0..self.options.users {
            // A store remembers a leave for the longest timeout that it has heard of lately.
            let partition = user_id(user).partition(self.options.partitions);
            let is_remembered = self.server.longest_timeout(partition) >= self.options.user_timeouts[user];
            let is_kept = self.judge.users[user].is_leave_kept;
            let parting = &mut self.judge.users[user].parting;
            if !is_remembered && !is_kept {
                *parting = Parting::None;
            }
            if *parting == Parting::Known && !self.server.is_online(&user_id(user)) {
                *parting = Parting::Gone;
            }
            if *parting == Parting::Gone && self.server.online_seen(&user_id(user)).is_some() {
                self.wrong.get_or_insert(format!("user {user} has left, and an older heartbeat brings it online"));
            }
        }
    }

    fn failure(&mut self, number: usize, generation: u64) {
        let process = &mut self.processes[number];
        if process.generation != generation {
            return;
        }
        let Doing::Call(call, _) = std::mem::replace(&mut process.doing, Doing::Nothing) else { return };
        let is_again = !process.failing.is_empty();
        if matches!(call, Call::Commit(..)) || is_again {
            self.judge.may_repeat_all();
        }
        if is_again {
            // The lease may end before the next attempt, and nothing is committed until then.
            self.judge.repeats_until = self.judge.repeats_until.max(self.now + SECOND / 2);
        }
        let process = &mut self.processes[number];
        let reply = failed(&call);
        process.is_connected = false;
        process.doing = Doing::Call(call, Some(reply));
        self.at(1_000, Happening::Thread { process: number, generation });
    }

    fn wake(&mut self, number: usize) {
        if self.processes[number].is_alive && matches!(self.processes[number].doing, Doing::Wait) {
            self.go_on(number, 20_000);
        }
    }

    // -- the reactor ----------------------------------------------------------------------------

    fn react(&mut self, number: usize) {
        if !self.processes[number].is_alive || self.processes[number].callback.is_some() {
            return;
        }
        if self.is_ruby_put_off(number, Happening::Reactor { process: number }) {
            return;
        }
        let clock = self.clock();
        let is_batched = self.options.is_batched;
        let process = &mut self.processes[number];
        let state = process.state.get_mut();
        self.judge.reports += state.outages.len();
        state.outages.clear();
        if !matches!(state.phase, Phase::Running | Phase::Pausing) {
            return;
        }
        let (_, events) = state.log.claim(clock, |_| is_batched);
        if events.is_empty() {
            return;
        }
        let fails =
            self.do_callbacks_fail || events.iter().any(|event| self.failing_users.contains(&user_of(&event.id)));
        for event in &events {
            let user = user_of(&event.id);
            self.trace(|| {
                format!("process {number}: {:?} user {user} version {} fails: {fails}", event.transition, event.version)
            });
            // What a process delivers that is cut off, or whose calls fail, is perhaps not committed before its lease ends.
            let process = &self.processes[number];
            if fails || process.cut_off_until > self.now || !process.failing.is_empty() {
                self.judge.may_repeat(user, event.version);
            }
            let result = self.judge.started(user, event, self.now);
            self.check(result);
            self.check_silence(user, event);
        }
        let is_hanging = self.options.faults.contains(&FaultKind::CallbackHangs)
            && self.part == Part::Faults
            && self.random.percent(5);
        let duration =
            if is_hanging { self.random.range(SECOND, 6 * SECOND) } else { self.random.range(50_000, 5 * MILLISECOND) };
        if is_hanging {
            self.judge.trouble(self.now + duration);
            if self.now < self.restored_until {
                events.iter().for_each(|event| self.judge.may_repeat(user_of(&event.id), event.version));
            }
        }
        let outcome = if fails { DeliveryOutcome::Failed("it fails".into()) } else { DeliveryOutcome::Returned };
        let process = &mut self.processes[number];
        process.callback = Some(Callback { events, outcome });
        process.callback_generation += 1;
        let generation = process.callback_generation;
        self.at(duration, Happening::Return { process: number, generation });
    }

    /// While nothing is wrong, nobody is set offline whose heartbeats come in.
    fn check_silence(&mut self, user: usize, event: &Event) {
        let due = self.now.saturating_sub(event.lateness);
        let settling = 3 * SECOND + 2 * self.longest_timeout();
        let is_timeout = event.reason == Reason::Timeout;
        if is_timeout && self.judge.is_calm(due, settling) && self.judge.has_heartbeats(user, due) {
            let due = due as f64 / 1e9;
            self.wrong.get_or_insert(format!("user {user} is set offline at {due:.3} s in spite of heartbeats"));
        }
    }

    fn callback_returns(&mut self, number: usize, generation: u64) {
        let process = &self.processes[number];
        if !process.is_alive || process.callback_generation != generation {
            return;
        }
        if self.is_ruby_put_off(number, Happening::Return { process: number, generation }) {
            return;
        }
        let clock = self.clock();
        let process = &mut self.processes[number];
        let Some(Callback { events, outcome }) = process.callback.take() else { return };
        process.state.get_mut().log.delivered(&outcome, clock);
        for event in &events {
            if outcome == DeliveryOutcome::Returned {
                self.judge.returned(user_of(&event.id), event);
            } else {
                self.judge.failed(event);
            }
        }
        self.wake(number);
        self.at(10_000, Happening::Reactor { process: number });
    }

    // -- the users --------------------------------------------------------------------------------

    fn act(&mut self, user: usize) {
        let interval = self.intervals[user];
        let delay = interval / 2 + self.random.range(0, interval);
        self.at(delay, Happening::Act { user });
        let is_over = matches!(self.part, Part::Online | Part::Offline);
        if !is_over && self.random.percent(6) {
            self.is_active[user] = !self.is_active[user];
        }
        if !self.is_active[user] {
            return;
        }
        if self.options.is_hopping && self.random.percent(10) {
            self.homes[user] = self.random.range(0, self.options.processes as u64 - 1) as usize;
        }
        let home = self.homes[user];
        if !is_over && self.random.percent(5) {
            // The user logs out, in any process, and perhaps goes on in another tab.
            let process = self.random.range(0, self.options.processes as u64 - 1) as usize;
            self.at(0, Happening::Arrival { user, process, waits_in: None, sent: Sent::Leave });
            if self.random.percent(20) {
                let process = self.random.range(0, self.options.processes as u64 - 1) as usize;
                let delay = self.random.range(0, 60 * MILLISECOND);
                self.at(delay, Happening::Arrival { user, process, waits_in: None, sent: Sent::LaterLeave });
            }
            if self.random.percent(70) {
                self.is_active[user] = false;
            }
            return;
        }
        self.at(0, Happening::Arrival { user, process: home, waits_in: None, sent: Sent::Heartbeat });
        if self.may_be_shorter(user) && self.random.percent(20) {
            let process = self.random.range(0, self.options.processes as u64 - 1) as usize;
            let delay = self.random.range(0, 60 * MILLISECOND);
            self.at(delay, Happening::Arrival { user, process, waits_in: None, sent: Sent::Shorter });
        }
        if self.random.percent(10) && !is_over {
            // A leave right after the heartbeat, mostly in another process; or at the same moment of the clock, in this one.
            let longest = self.random.choose(&[0, 6 * MILLISECOND, 60 * MILLISECOND]);
            let last = self.options.processes as u64 - 1;
            let process = if longest == 0 { home } else { self.random.range(0, last) as usize };
            let delay = self.random.range(0, longest);
            self.at(delay, Happening::Arrival { user, process, waits_in: None, sent: Sent::Leave });
            if self.random.percent(30) {
                // And back at once.
                let delay = delay + self.random.range(0, 6 * MILLISECOND);
                self.at(delay, Happening::Arrival { user, process, waits_in: None, sent: Sent::Heartbeat });
            }
            self.is_active[user] = self.random.percent(50);
        }
    }

    /// What a user sent reaches a process. `waits_in` is the process' incarnation if it has waited there to be read: it is lost if
    /// the process has ended.
    fn arrive(&mut self, user: usize, number: usize, waits_in: Option<u64>, sent: Sent) {
        if waits_in.is_some_and(|incarnation| self.processes[number].incarnation != incarnation) {
            return;
        }
        let is_there = |process: &Process| process.is_alive && process.state.lock().phase == Phase::Running;
        // What was sent to a process that is gone goes to another one, if there is one.
        let Some(number) =
            [number].into_iter().chain(0..self.processes.len()).find(|number| is_there(&self.processes[*number]))
        else {
            return;
        };
        let known = &self.judge.users[user];
        if sent == Sent::LaterLeave && known.last_heartbeat >= known.last_leave {
            return;
        }
        let waits_in = Some(self.processes[number].incarnation);
        if self.is_ruby_put_off(number, Happening::Arrival { user, process: number, waits_in, sent }) {
            return;
        }
        let (clock, shorter) = (self.clock(), self.shorter_timeout(user));
        let timeout = shorter.filter(|_| sent == Sent::Shorter).unwrap_or(self.options.user_timeouts[user]);
        let has_exact_times = self.are_times_exact();
        self.trace(|| format!("user {user}: {sent:?} at process {number}"));
        self.set_server_clock();
        let process = &self.processes[number];
        let known = &mut self.judge.users[user];
        let is_woken = match sent {
            Sent::Heartbeat | Sent::Shorter => {
                known.is_return_certain = known.left_process == Some(number) && self.options.is_fast();
                known.is_return = known.last_leave.is_some_and(|at| self.now - at < SECOND);
                known.last_heartbeat = Some(self.now);
                known.prolonged_by = None;
                known.heartbeats.push((self.now, timeout));
                known.last_process = Some(number);
                (known.parting, known.is_leave_kept) = (Parting::None, false);
                self.processes[number].heartbeats.insert(user, self.now);
                let process = &self.processes[number];
                process.heartbeat(user, clock, timeout)
            }
            Sent::Leave => {
                known.left_process = Some(number);
                known.left_by = Some(process.token());
                process.leave(user, clock, 0);
                let oldest = known.last_heartbeat.map(|at| self.now - at + self.options.clock_step);
                let is_written = self.server.seen_ago(&user_id(user)).is_some_and(|ago| Some(ago) <= oldest);
                let margin = if known.is_return { RETURN_MARGIN } else { 0 };
                let is_apart = known.last_heartbeat.is_none_or(|at| self.now - at >= EQUAL + margin);
                let is_written = is_written && !known.is_return;
                let is_ordered = is_apart || known.last_process == Some(number);
                known.is_leave_certain = is_ordered || is_written;
                known.last_leave = Some(self.now);
                let others = self.processes.iter().filter(|process| process.number != number);
                let is_last = others
                    .filter_map(|process| process.heartbeats.get(&user))
                    .all(|at| self.now - at >= EQUAL + margin);
                let is_for_good = is_ordered && is_last && !known.is_return && has_exact_times;
                known.parting = if is_for_good { Parting::Left(self.now) } else { Parting::None };
                true
            }
            Sent::LaterLeave => {
                (known.left_process, known.left_by) = (None, None);
                process.leave(user, clock, LATER);
                known.last_leave = Some(self.now);
                true
            }
        };
        if is_woken {
            self.wake(number);
        }
        let at = self.now;
        self.at(PROMPT, Happening::Check { user, at });
    }

    /// The timeout of a heartbeat that ends before the others of its user are written, if they come often enough.
    fn shorter_timeout(&self, user: usize) -> Option<Nanos> {
        let timeout = (2 * self.intervals[user]).max(MIN_SHORTER);
        (timeout < self.options.user_timeouts[user] / 3).then_some(timeout)
    }

    fn may_be_shorter(&self, user: usize) -> bool {
        self.options.is_shortening && self.shorter_timeout(user).is_some()
    }

    /// A second after a heartbeat or a leave: if nothing was wrong and nothing came since, the store has heard of it.
    fn check_promptness(&mut self, user: usize, at: Nanos) {
        let known = &self.judge.users[user];
        let latest = known.last_heartbeat.max(known.last_leave);
        let timeout =
            if known.last_heartbeat == Some(at) { known.last_timeout() } else { self.options.user_timeouts[user] };
        // An unreachable store is tried again within two seconds. After that a heartbeat is prompt; a leave may be held for
        // one lease length more.
        let held = if known.last_leave == Some(at) { self.longest_lease_length() } else { 0 };
        let settling = 3 * SECOND + held;
        let may_be_over = known.last_leave < Some(at) && timeout <= 2 * PROMPT;
        if latest != Some(at) || may_be_over || !self.judge.is_calm(at, settling) || !self.judge.is_calm(self.now, 0) {
            return;
        }
        let Some(is_present) = self.judge.is_present(user, at + 1, timeout) else { return };
        let is_online = self.server.is_online(&user_id(user));
        if is_present != is_online {
            let what = if is_present { "a heartbeat" } else { "a leave" };
            self.wrong.get_or_insert(format!(
                "user {user} is {} a second after {what} at {:.3} s",
                if is_online { "online" } else { "offline" },
                at as f64 / 1e9
            ));
        }
    }

    /// Whether the process with this token lives.
    fn is_token_alive(&self, token: Token) -> bool {
        self.alive().any(|process| process.token() == token)
    }

    fn longest_lease_length(&self) -> Nanos {
        self.alive().map(|process| process.state.lock().lease_length()).max().unwrap_or(0)
    }

    fn longest_timeout(&self) -> Nanos {
        self.options.user_timeouts.iter().copied().max().unwrap_or(0).max(self.options.timeout)
    }

    // -- faults -----------------------------------------------------------------------------------

    fn fault(&mut self) {
        if self.part != Part::Faults {
            return;
        }
        let interval = self.options.fault_interval;
        let delay = interval / 2 + self.random.range(0, interval);
        self.at(delay, Happening::Fault);
        let kinds = self.options.faults.clone();
        let kind = self.random.choose(&kinds);
        let number = self.random.range(0, self.options.processes as u64 - 1) as usize;
        let timeout = self.options.timeout;
        let duration = self.random.range(100 * MILLISECOND, 3 * timeout);
        self.trace(|| format!("FAULT {kind:?} process {number} for {:.3} s", duration as f64 / 1e9));
        match kind {
            FaultKind::Kill => self.kill(number, duration),
            FaultKind::Stop => {
                let is_alive = self.processes[number].is_alive;
                let state = self.processes[number].state.get_mut();
                if is_alive && state.phase == Phase::Running {
                    state.phase = Phase::Stopping;
                    self.judge.trouble(self.now + 6 * SECOND);
                    self.wake(number);
                }
            }
            FaultKind::Pause => {
                let until = self.now + duration;
                let paused_until = &mut self.processes[number].paused_until;
                *paused_until = until.max(*paused_until);
                self.judge.may_repeat_all();
                self.judge.trouble(until + SECOND);
                self.at(duration, Happening::Repair(Repair::Resume(number)));
            }
            FaultKind::Stall => self.stall(number, duration),
            FaultKind::Fork => {
                let is_alive = self.processes[number].is_alive;
                let state = self.processes[number].state.get_mut();
                if is_alive && state.phase == Phase::Running {
                    state.phase = Phase::Pausing;
                    if !state.has_seen_heartbeat {
                        // It gives its leases up, also if a callback runs.
                        self.judge.repeats_until = self.now + SECOND;
                    }
                    self.judge.trouble(self.now + SECOND);
                    self.judge.may_repeat_all();
                    self.wake(number);
                }
            }
            FaultKind::ServerAway => self.server_away(duration),
            FaultKind::CutOff => {
                let process = &mut self.processes[number];
                process.cut_off_until = process.cut_off_until.max(self.now + duration);
                process.is_connected = false;
                self.judge.may_repeat_all();
                self.judge.trouble(self.now + duration + 3 * SECOND);
            }
            FaultKind::Cut => {
                self.judge.trouble(self.now + SECOND);
                self.judge.may_repeat_all();
                for process in &mut self.processes {
                    process.is_connected = false;
                }
            }
            FaultKind::RollBack => {
                if self.random.percent(50) {
                    self.partitions().for_each(|partition| self.server.back_up(partition));
                } else {
                    self.roll_back(self.partitions());
                    self.server_away(duration);
                    if self.random.percent(30) {
                        // A new process may write before those that knew the data.
                        self.kill(number, duration);
                    }
                }
            }
            // Of data that were lost before, members know no more what they delivered. And members do not wait for ever.
            FaultKind::Restore
                if self.now >= self.restored_until
                    && self.partitions().all(|partition| self.server.is_backup_of_these(partition)) =>
            {
                self.restore(number);
            }
            FaultKind::Restore => {}
            FaultKind::Lose => {
                self.lose_data(self.partitions(), true);
                self.server.lose();
                if self.random.percent(70) {
                    self.server_away(duration);
                } else {
                    // Its data were deleted while it answers.
                    self.judge.may_repeat_all();
                    self.judge.repeats_until = self.now + 6 * SECOND;
                    self.judge.trouble(self.now + 3 * SECOND);
                }
            }
            FaultKind::EndLease => {
                let partition = self.random.range(0, u64::from(self.options.partitions) - 1) as u16;
                self.judge.may_repeat_all();
                self.judge.repeats_until = self.now + 6 * SECOND;
                self.judge.trouble(self.now + SECOND);
                self.server.end_lease(partition);
            }
            FaultKind::PartitionAway => {
                let partition = self.random.range(0, u64::from(self.options.partitions) - 1) as u16;
                if self.random.percent(30) {
                    // Its replica gets no more writes, and takes over when it is away.
                    self.server.back_up(partition);
                    let delay = self.random.range(0, SECOND);
                    self.at(delay, Happening::FailOver { partition, duration });
                } else {
                    self.partition_away(partition, duration);
                }
            }
            FaultKind::ClockJump => {
                let jump = self.random.range(0, 20 * SECOND / 1_000) as i64 - 10_000_000;
                self.wall_offset += jump;
                self.options.server_offset = self.options.server_offset.saturating_add_signed(jump * 1_000);
                self.judge.trouble(self.now + 10 * SECOND);
                self.judge.may_repeat_all();
                self.judge.repeats_until = self.now + 6 * SECOND;
            }
            FaultKind::WritesFail => {
                self.do_writes_fail = true;
                // What cannot be committed within a lease is delivered again.
                self.judge.may_repeat_all();
                self.judge.repeats_until = self.now + duration + 6 * SECOND;
                self.judge.trouble(self.now + duration + 3 * SECOND);
                self.at(duration, Happening::Repair(Repair::Writes));
            }
            FaultKind::CallbacksFail => {
                self.do_callbacks_fail = true;
                self.judge.trouble(self.now + duration);
                self.at(duration, Happening::Repair(Repair::Callbacks));
            }
            FaultKind::CallbackFails => {
                let users = self.options.users;
                let first = self.random.range(0, users as u64 - 1) as usize;
                let count = self.random.choose(&[1, users - 1]);
                self.failing_users = (first..first + count).map(|user| user % users).collect();
                self.at(duration, Happening::Repair(Repair::Users));
            }
            FaultKind::CallbackHangs => {}
            FaultKind::SlowCalls => {
                self.is_slow = true;
                self.judge.trouble(self.now + duration + 3 * SECOND);
                self.judge.may_repeat_all();
                self.judge.repeats_until = self.now + duration + 6 * SECOND;
                self.at(duration, Happening::Repair(Repair::Calls));
            }
        }
    }

    fn stall(&mut self, number: usize, duration: Nanos) {
        let clock = self.clock();
        let process = &mut self.processes[number];
        if !process.is_alive || process.stalled_until > self.now {
            return;
        }
        (process.stalled_since, process.stalled_until) = (clock, self.now + duration);
        if let Some(callback) = process.callback.as_ref().filter(|_| self.now < self.restored_until) {
            callback.events.iter().for_each(|event| self.judge.may_repeat(user_of(&event.id), event.version));
        }
        self.judge.trouble(self.now + duration + 3 * SECOND);
        self.at(duration, Happening::Repair(Repair::Stall(number)));
    }

    fn stall_ends(&mut self, number: usize) {
        let clock = self.clock();
        let process = &mut self.processes[number];
        if process.is_alive && process.stalled_until == self.now && process.paused_until <= self.now {
            let stall = Stall { start: process.stalled_since, end: clock };
            process.state.get_mut().awake(clock);
            process.state.get_mut().stall_ended(stall);
            self.wake(number);
        }
    }

    fn kill(&mut self, number: usize, duration: Nanos) {
        let process = &mut self.processes[number];
        if !process.is_alive {
            return;
        }
        process.is_alive = false;
        self.lose_process();
        self.judge.may_repeat_all();
        self.judge.trouble(self.now + duration + 2 * SECOND);
        self.at(duration, Happening::Repair(Repair::Start(number)));
    }

    fn server_back(&mut self) {
        if self.is_server_away && self.now - self.away_since > self.options.timeout * 6 / 10 {
            let online = (0..self.options.users).filter(|user| self.server.is_online(&user_id(*user))).collect();
            self.back = Some((self.now, online));
        }
        self.is_server_away = false;
    }

    fn server_away(&mut self, duration: Nanos) {
        if !self.is_server_away {
            self.away_since = self.now;
        }
        self.is_server_away = true;
        for process in &mut self.processes {
            process.is_connected = false;
        }
        self.judge.may_repeat_all();
        // What is delivered while nothing can be committed may be delivered again.
        self.judge.repeats_until = self.now + duration + 6 * SECOND;
        self.judge.trouble(self.now + duration + 3 * SECOND);
        self.at(duration, Happening::Repair(Repair::Server));
    }

    /// A partition is away for a while, also if there are no more faults meanwhile: its members have to notice that.
    fn partition_away(&mut self, partition: u16, duration: Nanos) {
        self.server.set_away(partition, true);
        let until = &mut self.partitions_away_until[usize::from(partition)];
        *until = (self.now + duration).max(*until);
        self.judge.trouble(self.now + duration + SECOND);
        self.judge.may_repeat_all();
        self.judge.repeats_until = self.now + duration + 6 * SECOND;
        self.at(duration, Happening::Repair(Repair::Partition(partition)));
    }

    fn fail_over(&mut self, partition: u16, duration: Nanos) {
        if self.part == Part::Faults {
            self.trace(|| format!("FAULT partition {partition} fails over"));
            self.roll_back(partition..partition + 1);
            self.partition_away(partition, duration);
        }
    }

    /// The data of these partitions go back to those that were kept.
    fn roll_back(&mut self, partitions: std::ops::Range<u16>) {
        self.lose_data(partitions.clone(), false);
        for partition in partitions {
            let (before, holder) = (self.server.last(partition), self.server.last_lease_holder(partition));
            self.server.roll_back(partition);
            if self.server.last(partition) < before {
                let witnesses = self.witnesses(partition);
                self.unnoticed[usize::from(partition)] = Some((self.server.generation(partition), witnesses));
            }
            self.look_for_takers(partition, holder);
        }
        self.look_for_witnesses();
    }

    /// The data of a partition go back whose lease a process held. Events are delivered again if nobody knows what was
    /// delivered and keeps the others from the lease; or if one takes it that knows of no holder, or believes to be it.
    fn look_for_takers(&mut self, partition: u16, holder: Option<Token>) {
        let is_holder = |process: &&Process| Some(process.state.lock().token()) == holder;
        let is_taker = |process: &Process| {
            let state = process.state.lock();
            state.known(partition).epoch == 0 || state.log.is_leased(partition)
        };
        let has_taker = self.alive().filter(|process| !is_holder(process)).any(is_taker);
        if has_taker || !self.alive().any(|process| is_holder(&process)) {
            let lengths = self.alive().map(|process| process.state.lock().lease_length());
            let until = self.now + lengths.max().unwrap_or(0) + 2 * SECOND;
            self.judge.may_repeat_all();
            self.judge.repeats_until = self.judge.repeats_until.max(until);
        }
    }

    /// Older data replace the present ones, and every connection is cut. A process stands still from then on for less than a
    /// lease: what it has delivered, and what it delivers, is not delivered again all the same.
    fn restore(&mut self, number: usize) {
        self.roll_back(self.partitions());
        for process in &mut self.processes {
            process.is_connected = false;
        }
        // A callback that hangs for longer than a lease does not keep it.
        let can_hang = [FaultKind::CallbackHangs, FaultKind::Stall];
        if self.options.faults.iter().any(|kind| can_hang.contains(kind)) {
            let callbacks = self.processes.iter().filter_map(|process| process.callback.as_ref());
            for event in callbacks.flat_map(|callback| &callback.events) {
                self.judge.may_repeat(user_of(&event.id), event.version);
            }
        }
        let lease = self.processes[number].state.get_mut().lease_length();
        // Members that have left a lease to another one for long enough take it.
        let clock = self.clock();
        if self.processes.iter().any(|process| process.is_alive && process.state.lock().has_waited_enough(clock)) {
            self.judge.may_repeat_all();
            self.judge.repeats_until = self.judge.repeats_until.max(self.now + lease + 2 * SECOND);
        }
        let pause = self.random.range(0, lease / 10 * 8);
        self.trace(|| format!("process {number} stands still for {:.3} s", pause as f64 / 1e9));
        let paused_until = &mut self.processes[number].paused_until;
        *paused_until = (self.now + pause).max(*paused_until);
        self.restored_until = self.now + lease;
        self.judge.trouble(self.now + pause + 3 * SECOND);
        self.at(pause, Happening::Repair(Repair::Resume(number)));
    }

    /// The data are about to be lost: whom no process knows is lost with them. Not all data are gone if older ones take their
    /// place.
    fn lose_data(&mut self, partitions: std::ops::Range<u16>, is_gone: bool) {
        self.judge.has_lost_data = true;
        self.losses += 1;
        let clock = self.clock();
        for user in 0..self.options.users {
            let is_there = partitions.contains(&user_id(user).partition(self.options.partitions));
            self.judge.users[user].is_lost |= is_there && !self.is_known(user);
            // The leave may be lost with the data, and older data may say that the user is online. But of data that are
            // gone altogether no process makes up a user who has left, if it knows that.
            let may_write = |process: &Process| process.is_alive && process.may_write_without_leave(user, clock);
            if is_there {
                let is_kept = is_gone && !self.processes.iter().any(may_write);
                let known = &mut self.judge.users[user];
                known.is_leave_kept = is_kept;
                if !is_kept {
                    known.parting = Parting::None;
                }
            }
        }
    }

    /// A process has ended. What it knew may have been nowhere else, if the data were lost and it could not write them again.
    fn lose_process(&mut self) {
        for user in 0..self.options.users {
            let latest = self.judge.users[user].latest_version();
            let is_anywhere = self.is_known(user) || self.server.knows(&user_id(user), latest);
            self.judge.users[user].is_lost |= self.judge.has_lost_data && !is_anywhere;
        }
        self.look_for_witnesses();
    }

    fn partitions(&self) -> std::ops::Range<u16> {
        0..self.options.partitions
    }

    /// The processes that know newer data of a partition than the server has.
    fn witnesses(&self, partition: u16) -> Vec<Token> {
        let is_witness =
            |process: &&Process| self.server.is_older_than(partition, process.state.lock().known(partition));
        self.alive().filter(is_witness).map(|process| process.state.lock().token()).collect()
    }

    fn alive(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.is_alive)
    }

    /// Older data are noticed by a member that knows a higher number. If no such member lives, or one that did not know it has
    /// written a still higher one before, what the data lost is lost.
    fn look_for_witnesses(&mut self) {
        for partition in self.partitions() {
            let Some((generation, before)) = self.unnoticed[usize::from(partition)].take() else { continue };
            if self.server.generation(partition) != generation {
                continue;
            }
            let witnesses = self.witnesses(partition);
            let is_alive = |token: &Token| self.alive().any(|process| process.state.lock().token() == *token);
            let has_missed = before.iter().any(|token| !witnesses.contains(token) && is_alive(token));
            if witnesses.is_empty() || has_missed {
                self.went_back_unnoticed(partition);
            }
            if !witnesses.is_empty() {
                self.unnoticed[usize::from(partition)] = Some((generation, witnesses));
            }
        }
    }

    fn went_back_unnoticed(&mut self, partition: u16) {
        for user in 0..self.options.users {
            if user_id(user).partition(self.options.partitions) == partition {
                self.judge.went_back_unnoticed(user);
            }
        }
    }

    /// Whether a process knows the user that has not ended, or is about to deliver its `offline`.
    fn is_known(&self, user: usize) -> bool {
        let clock = self.clock();
        let partition = user_id(user).partition(self.options.partitions);
        self.alive().any(|process| {
            // A process that has not polled since it started does not know that anything was lost.
            let has_polled = process.state.lock().known(partition).last > 0;
            // The process of the last heartbeat has to know a user whose offline is not called, whatever it forgets. But it
            // forgets by the server's clock, which loses time when it is set back.
            let known = &self.judge.users[user];
            let has_last = process.has_last_heartbeat(user, known.last_heartbeat);
            let is_clock_good = !self.options.faults.contains(&FaultKind::ClockJump);
            let has_to_know = has_last && is_clock_good && known.heard == Some(Transition::Online);
            ((process.knows(user, clock) || has_to_know) && has_polled) || process.has_undelivered_offline(user, clock)
        })
    }

    /// Some process keeps a user until the `offline` is called: if the data are lost before, nobody else can write the user
    /// again. The process of the last heartbeat does, unless it ends, or one that has put the deadline off. What is in the log of a
    /// process is written again from there. Three kinds of schedules are excused. A process forgets by the server's clock, which
    /// loses time when it is set back. What comes in a slow call seems later to the server than it was, so that the server may
    /// ignore what came after it. And a process that has ended may have written a heartbeat again that has a longer timeout than
    /// the last one.
    fn check_forgotten(&mut self) {
        let is_excused = |fault: &FaultKind| matches!(fault, FaultKind::ClockJump | FaultKind::SlowCalls);
        if self.options.is_shortening || self.options.faults.iter().any(is_excused) {
            return;
        }
        let clock = self.clock();
        for user in 0..self.options.users {
            let known = &self.judge.users[user];
            let has_last = |process: &Process| {
                process.has_last_heartbeat(user, known.last_heartbeat) && process.state.lock().phase != Phase::Stopping
            };
            // Only the process that has put the deadline off knows the later one.
            let is_put_off = known.prolonged_by.is_some_and(|token| !self.is_token_alive(token));
            let is_excused = known.is_lost || known.is_unknown || is_put_off || self.is_backing_off(user);
            if known.heard != Some(Transition::Online) || is_excused || !self.alive().any(has_last) {
                continue;
            }
            let is_kept = |process: &Process| process.has(user) || process.has_undelivered_offline(user, clock);
            if !self.alive().any(is_kept) {
                self.wrong.get_or_insert(format!("user {user} is forgotten, and the offline is not called"));
            }
        }
    }

    fn repair(&mut self, repair: Repair) {
        self.trace(|| format!("REPAIR {repair:?}"));
        match repair {
            Repair::Server => self.server_back(),
            Repair::Writes => self.do_writes_fail = false,
            Repair::Callbacks => self.do_callbacks_fail = false,
            Repair::Users => self.mend_users(),
            Repair::Calls => self.is_slow = false,
            Repair::Partition(partition) => {
                let is_away = self.now < self.partitions_away_until[usize::from(partition)];
                self.server.set_away(partition, is_away);
            }
            Repair::Start(number) => {
                if !self.processes[number].is_alive {
                    self.start_process(number);
                    self.judge.trouble(self.now + SECOND);
                }
            }
            Repair::Resume(_) => {}
            Repair::Stall(number) => self.stall_ends(number),
        }
    }

    fn mend_users(&mut self) {
        if !self.options.is_failing_for_ever {
            self.failing_users.clear();
        }
    }

    // -- liveness -----------------------------------------------------------------------------------

    fn next_part(&mut self) {
        self.set_server_clock();
        match self.part {
            Part::Faults => {
                self.trace(|| "PART no more faults".into());
                self.part = Part::Leases;
                self.server_back();
                self.do_writes_fail = false;
                self.do_callbacks_fail = false;
                self.mend_users();
                self.is_slow = false;
                self.processes.iter_mut().for_each(|process| process.cut_off_until = 0);
                // What stands still, or is away, goes on at its time.
                let until = |process: &Process| process.paused_until.max(process.stalled_until);
                let times = self.processes.iter().map(until).chain(self.partitions_away_until.iter().copied());
                let resumed_at = times.max().unwrap_or(0);
                let pause = resumed_at.saturating_sub(self.now);
                for number in 0..self.processes.len() {
                    if !self.processes[number].is_alive {
                        self.start_process(number);
                    }
                }
                self.judge.trouble(self.now + pause + SECOND);
                // What is under way may be slow, and a lease may have been granted for as long as a minute. After a lost
                // connection a member leaves it for as long to the one that held it.
                let lengths = self.processes.iter_mut().map(|process| process.state.get_mut().lease_length());
                let lease = lengths.max().unwrap_or(0).max(self.server.longest_lease());
                self.at(pause + lease + 4 * SECOND, Happening::Part);
            }
            Part::Leases => {
                self.held_at.fill(self.now);
                self.check_leases();
                self.part = Part::Calm;
                let length = self.random.range(3, 8) * SECOND;
                self.at(length, Happening::Part);
            }
            Part::Calm => {
                // Who is there now stays, and who is not does not come.
                for user in 0..self.options.users {
                    let is_active = self.random.percent(50);
                    self.is_active[user] = is_active;
                    self.intervals[user] = self.intervals[user].min(self.options.user_timeouts[user] / 4);
                }
                self.part = Part::Online;
                // A user acts within one and a half of an interval, which was a third of the timeout at most.
                self.at(self.longest_timeout() / 2 + 3 * SECOND, Happening::Part);
            }
            Part::Online => {
                self.check_online();
                self.undelivered = self.server.undelivered();
                self.part = Part::Offline;
                let longest = self.longest_timeout();
                self.at(2 * longest, Happening::Part);
            }
            Part::Offline => {
                self.check_online();
                self.check_offline();
                self.check_log();
                self.check_shares();
                self.part = Part::Over;
            }
            Part::Over => {}
        }
    }

    /// A lease may go from one member to another, as long as no partition is without a holder for longer than a lease.
    fn check_leases(&mut self) {
        self.set_server_clock();
        let length = self.processes.iter_mut().map(|process| process.state.get_mut().lease_length()).max().unwrap_or(0);
        for partition in 0..self.options.partitions {
            let held_at = &mut self.held_at[usize::from(partition)];
            match check_lease(partition, &self.server, &self.processes) {
                Ok(()) => *held_at = self.now,
                Err(wrong) if self.now - *held_at > length => {
                    self.wrong.get_or_insert(wrong);
                }
                Err(_) => {}
            }
        }
        self.at(LEASE_CHECK_INTERVAL, Happening::CheckLeases);
    }

    fn check_online(&mut self) {
        for user in 0..self.options.users {
            let known = &self.judge.users[user];
            let timeout = known.last_timeout();
            let is_sending = self.is_active[user] && known.last_heartbeat.is_some_and(|at| at + timeout > self.now);
            let is_online = known.heard == Some(Transition::Online);
            let is_excused = known.is_unknown || self.is_backing_off(user);
            if is_sending && known.last_heartbeat > known.last_leave && !is_online && !is_excused {
                self.wrong.get_or_insert(format!("user {user} sends heartbeats, and is not online"));
            }
            // Whatever became of the data, the process that got the leave knows it, if it lives.
            let is_leave_known = known.left_by.is_some_and(|token| self.is_token_alive(token));
            let is_long_ago = |left: Nanos| left + PROMPT + self.longest_lease_length() < self.now;
            let is_last = known.last_leave > known.last_heartbeat && known.is_leave_certain;
            let has_left = is_last && is_leave_known && known.last_leave.is_some_and(is_long_ago);
            if has_left && is_online && !known.is_lost && !is_excused {
                self.wrong.get_or_insert(format!("user {user} has left, and is online"));
            }
        }
    }

    fn check_offline(&mut self) {
        for user in 0..self.options.users {
            let known = &self.judge.users[user];
            let is_online = known.heard == Some(Transition::Online);
            let is_excused = known.is_lost || known.is_unknown || self.is_backing_off(user);
            if !self.is_active[user] && is_online && !is_excused {
                self.wrong.get_or_insert(format!("user {user} is gone, and is not offline"));
            }
        }
    }

    fn check_log(&mut self) {
        for (place, id) in self.server.undelivered() {
            let user = user_of(&id);
            if self.undelivered.contains_key(&place) && !self.is_backing_off(user) {
                self.wrong.get_or_insert(format!("event {} of user {user} stays in the log", place.1));
            }
        }
        for letter in self.server.dead_letters() {
            let failures = self.judge.counted_failures(letter.event.version);
            if failures < MAX_FAILURES {
                let version = letter.event.version;
                self.wrong.get_or_insert(format!("event {version} is a dead letter after {failures} failures"));
            }
        }
    }

    /// No process holds more leases than its share, unless one that is dead may still be registered.
    fn check_shares(&mut self) {
        let share = usize::from(self.options.partitions).div_ceil(self.options.processes);
        let is_over = |process: &Process| process.state.lock().log.leases() > share;
        let found = self.processes.iter().find(|process| is_over(process)).map(|process| process.number);
        if let (Some(number), false) = (found, self.options.faults.contains(&FaultKind::ClockJump)) {
            self.wrong.get_or_insert(format!("process {number} holds more leases than its share"));
        }
    }

    /// Whether the user's callback has failed, and is not tried now, or always fails.
    fn is_backing_off(&self, user: usize) -> bool {
        if self.failing_users.contains(&user) {
            return true;
        }
        let id = user_id(user);
        let is_dead = self.server.dead_letters().iter().any(|letter| letter.event.id == id);
        is_dead || self.processes.iter().any(|process| process.is_alive && process.state.lock().log.is_backing_off(&id))
    }
}

/// Whether one process holds the lease of a partition, and is the one that the server names.
fn check_lease(partition: u16, server: &Model, processes: &[Process]) -> Result<(), String> {
    let Some(token) = server.lease_holder(partition) else {
        return Err(format!("partition {partition} has no lease holder"));
    };
    let holders: Vec<&Process> =
        processes.iter().filter(|process| process.is_alive && process.state.lock().log.is_leased(partition)).collect();
    let is_theirs = holders.iter().all(|process| process.state.lock().token() == token);
    if holders.len() == 1 && is_theirs {
        Ok(())
    } else {
        let holders: Vec<usize> = holders.iter().map(|process| process.number).collect();
        Err(format!("partition {partition} is held by {token:?}, and processes {holders:?} believe to hold it"))
    }
}

fn failed(call: &Call) -> Reply {
    let error = || StoreError::Unavailable("the server does not answer".into());
    match call {
        Call::Open => Reply::Opened(Err(error())),
        Call::Register(_) => Reply::Registered(Err(error())),
        Call::Deregister(_) => Reply::Deregistered(Err(error())),
        Call::Commit(..) => Reply::Committed(Err(error())),
        Call::Write(..) => Reply::Written(Err(error())),
        Call::Poll(..) => Reply::Polled(Err(error())),
        Call::Recover
        | Call::Scan { .. }
        | Call::Resend(_)
        | Call::Prolong { .. }
        | Call::Hear(_)
        | Call::EnqueueUnwritten => Reply::Done,
    }
}
