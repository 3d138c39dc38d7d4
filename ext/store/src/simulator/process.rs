//! One process of the application: its member, its users, and its reactor.

use std::collections::{BTreeMap, BTreeSet};

use online_manager_tracker::{Id, Nanos, StringId};
use parking_lot::Mutex;

use super::options::Options;
use crate::coalescer::{Coalesced, Coalescer};
use crate::error::StoreError;
use crate::id::{Charset, Kind, UserId};
use crate::log::DeliveryOutcome;
use crate::member::Phase;
use crate::member::state::{Call, MemberState, Reply, is_sweep};
use crate::store::{Event, Partition, Token};

/// What the member's thread is doing.
#[derive(Debug)]
pub(super) enum Doing {
    /// It takes the next step at some moment, with this reply.
    Step(Reply),
    /// It waits until then, or until it is woken.
    Wait,
    /// It waits for a call; with the reply as soon as there is one.
    Call(Call, Option<Reply>),
    /// It has ended.
    Nothing,
}

/// A callback that runs.
#[derive(Debug)]
pub(super) struct Callback {
    pub(super) events: Vec<Event>,
    pub(super) outcome: DeliveryOutcome,
}

pub(super) struct Process {
    pub(super) number: usize,
    /// Distinguishes it from the processes that had this number before.
    pub(super) incarnation: u64,
    pub(super) is_alive: bool,
    pub(super) state: Mutex<MemberState>,
    pub(super) coalescer: Coalescer,
    pub(super) doing: Doing,
    /// Counts what the thread does, so that what was meant for something earlier is dropped.
    pub(super) generation: u64,
    /// The process stands still until then.
    pub(super) paused_until: Nanos,
    /// Since when all but the member's thread stands still, by the clock, and until when.
    pub(super) stalled_since: Nanos,
    pub(super) stalled_until: Nanos,
    /// The process cannot reach the server until then.
    pub(super) cut_off_until: Nanos,
    /// When each user last sent it a heartbeat.
    pub(super) heartbeats: BTreeMap<usize, Nanos>,
    pub(super) is_connected: bool,
    pub(super) is_open: bool,
    /// The calls that failed and have not succeeded since: their kind, and the partition unless they failed as a whole.
    pub(super) failing: BTreeSet<(&'static str, Option<Partition>)>,
    partitions: Partition,
    /// The partitions that may turn out to have other data, and until when other data belong to the same outage.
    pub(super) unpolled: BTreeSet<Partition>,
    pub(super) replaced_until: Nanos,
    pub(super) is_outage: bool,
    /// Whether it was reported of this outage that the data are others.
    is_loss_reported: bool,
    /// The last loss of data that it has reported, by number, and until when all that is found belongs to it.
    pub(super) reported_loss: Option<(u64, Nanos)>,
    pub(super) callback: Option<Callback>,
    pub(super) callback_generation: u64,
    /// When the member's last calls were made.
    pub(super) recent_calls: std::collections::VecDeque<Nanos>,
}

impl Process {
    pub(super) fn new(number: usize, incarnation: u64, seed: u64, options: &Options) -> Process {
        let (timeout, jitter) = (options.timeout, options.clock_step);
        let mut token = [0; 16];
        token[0] = number as u8 + 1;
        token[8..].copy_from_slice(&incarnation.to_le_bytes());
        let mut state = MemberState::new("the store".into(), Token(token), seed, jitter);
        state.timeout = timeout;
        state.phase = Phase::Running;
        Process {
            number,
            incarnation,
            is_alive: true,
            state: Mutex::new(state),
            coalescer: Coalescer::default(),
            doing: Doing::Step(Reply::None),
            generation: 0,
            paused_until: 0,
            stalled_since: 0,
            stalled_until: 0,
            cut_off_until: 0,
            heartbeats: BTreeMap::new(),
            is_connected: false,
            is_open: false,
            failing: BTreeSet::new(),
            partitions: options.partitions,
            unpolled: (0..options.partitions).collect(),
            replaced_until: 0,
            is_outage: false,
            is_loss_reported: false,
            reported_loss: None,
            callback: None,
            callback_generation: 0,
            recent_calls: std::collections::VecDeque::new(),
        }
    }

    pub(super) fn token(&self) -> Token {
        self.state.lock().token()
    }

    /// Takes in which calls fail. Returns how many reports this reply is worth: one if something fails, and nothing did
    /// before; one if the data are others, for the first time in this outage.
    pub(super) fn new_reports(&mut self, asked: &[Asked], reply: &Reply, now: Nanos) -> usize {
        let is_pausing = self.state.get_mut().phase == Phase::Pausing;
        let mut reports = 0;
        let lease = self.state.get_mut().lease_length();
        if let Reply::Opened(Ok((_, true))) = reply {
            self.poll_anew();
        }
        for (kind, partition, error) in outcomes(asked, reply) {
            match error {
                None => {
                    self.failing.remove(&(kind, partition));
                    if kind == "poll" || kind == "sweep" {
                        self.failing.remove(&("poll", partition));
                        partition.map(|partition| self.unpolled.remove(&partition));
                    }
                }
                // What fails before a fork is not reported.
                Some(error) if is_pausing => {
                    if let StoreError::Replaced(_) = error {
                        self.poll_anew();
                    }
                }
                // The data is another: a poll shows that it is there. So may be the other partitions' data.
                Some(StoreError::Replaced(_)) => {
                    reports += usize::from(!self.is_loss_reported);
                    (self.is_outage, self.is_loss_reported) = (true, true);
                    self.failing.insert(("poll", partition));
                    self.replaced_until = now + lease;
                    self.poll_anew();
                }
                Some(_) => {
                    reports += usize::from(!std::mem::replace(&mut self.is_outage, true));
                    self.failing.insert((kind, partition));
                }
            }
        }
        let is_over = self.failing.is_empty() && self.unpolled.is_empty() && now >= self.replaced_until;
        self.is_outage = self.is_outage && !is_over;
        self.is_loss_reported = self.is_loss_reported && self.is_outage;
        reports
    }

    /// Each partition may turn out to have other data.
    pub(super) fn poll_anew(&mut self) {
        self.unpolled = (0..self.partitions).collect();
    }

    /// A heartbeat. Returns whether the member's thread has to be woken.
    pub(super) fn heartbeat(&self, user: usize, now: Nanos, timeout: Nanos) -> bool {
        let name = name(user);
        let id = id(&name);
        match self.coalescer.heartbeat(id, now, timeout, &self.state) {
            Coalesced::Known => false,
            Coalesced::WriteDue => true,
            Coalesced::Unknown => {
                self.state.lock().has_seen_heartbeat = true;
                self.coalescer.add_user(id, user_id(user), now, timeout, &self.state);
                true
            }
        }
    }

    /// A leave, as `Member::leave` does it.
    pub(super) fn leave(&self, user: usize, now: Nanos, after: Nanos) {
        let name = name(user);
        self.coalescer.leave(id(&name), user_id(user), (now, after), &self.state);
    }

    /// Whether the process may write a heartbeat of the user without the leave after it.
    pub(super) fn may_write_without_leave(&self, user: usize, now: Nanos) -> bool {
        let (name, user_id) = (name(user), user_id(user));
        let is_in_flight = matches!(&self.doing, Doing::Call(Call::Write(_, writes), _)
            if writes.iter().any(|write| *write.id() == user_id));
        let is_waiting = self.state.lock().outbox.has_heartbeat(&user_id);
        is_in_flight || is_waiting || self.coalescer.knows_leave(id(&name), now) == Some(false)
    }

    /// Whether the process got the user's last heartbeat, which was at `last`.
    pub(super) fn has_last_heartbeat(&self, user: usize, last: Option<Nanos>) -> bool {
        self.heartbeats.get(&user).copied() == last
    }

    /// Whether the process' log has an `offline` of the user that is not delivered.
    pub(super) fn has_undelivered_offline(&self, user: usize, now: Nanos) -> bool {
        let id = user_id(user);
        let offline = self.state.lock().log.undelivered_offline(id.partition(self.partitions), now);
        offline.iter().any(|(other, _)| *other == id)
    }

    /// Whether the process has not forgotten the user.
    pub(super) fn has(&self, user: usize) -> bool {
        let name = name(user);
        self.coalescer.knows_leave(id(&name), 0).is_some()
    }

    /// Whether the process knows the user, and that the user is online.
    pub(super) fn knows(&self, user: usize, now: Nanos) -> bool {
        let name = name(user);
        self.coalescer.last_seen(id(&name), now).is_some()
    }
}

/// What a reply says of a kind of call as a whole, and in each partition, the errors last.
fn outcomes<'a>(asked: &[Asked], reply: &'a Reply) -> Vec<(&'static str, Option<Partition>, Option<&'a StoreError>)> {
    let is_sweep = |partition| asked.iter().any(|(other, is_sweep)| *other == partition && *is_sweep);
    let partitions = asked.iter().map(|(partition, _)| *partition);
    let (kind, whole, parts): (_, _, Vec<(Partition, Option<&StoreError>)>) = match reply {
        Reply::None | Reply::Done => return Vec::new(),
        Reply::Opened(result) => ("open", result.as_ref().err(), Vec::new()),
        Reply::Registered(result) => ("register", result.as_ref().err(), Vec::new()),
        Reply::Deregistered(result) => ("register", result.as_ref().err(), Vec::new()),
        Reply::Committed(Ok(results)) => {
            ("commit", None, partitions.zip(results.iter().map(|result| result.as_ref().err())).collect())
        }
        Reply::Committed(Err(error)) => ("commit", Some(error), Vec::new()),
        Reply::Written(Ok(results)) => {
            ("write", None, results.iter().map(|(partition, result)| (*partition, result.as_ref().err())).collect())
        }
        Reply::Written(Err(error)) => ("write", Some(error), Vec::new()),
        Reply::Polled(Ok(results)) => {
            ("poll", None, partitions.zip(results.iter().map(|result| result.as_ref().err())).collect())
        }
        Reply::Polled(Err(error)) => ("poll", Some(error), Vec::new()),
    };
    let mut outcomes = vec![(kind, None, whole)];
    let part_of = |partition| if kind == "poll" && is_sweep(partition) { "sweep" } else { kind };
    outcomes.extend(parts.into_iter().map(|(partition, error)| (part_of(partition), Some(partition), error)));
    outcomes.sort_by_key(|(_, _, error)| error.is_some());
    outcomes
}

/// A partition that a call is about, and whether it may set users of it offline.
pub(super) type Asked = (Partition, bool);

/// The partitions that a call is about, in the order of its answers.
pub(super) fn asked(call: &Call) -> Vec<Asked> {
    match call {
        Call::Commit(_, commits) => commits.iter().map(|(partition, _)| (*partition, false)).collect(),
        Call::Poll(_, requests) => requests.iter().map(|request| (request.partition, is_sweep(request))).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn name(user: usize) -> String {
    format!("user {user}")
}

fn id(name: &str) -> Id<'_> {
    Id::String(StringId { bytes: name.as_bytes(), class: 0, label: 1 })
}

pub(super) fn user_id(user: usize) -> UserId {
    UserId::new(Kind::String(Charset::Ascii), name(user).as_bytes())
}

/// The number of the user with an id.
pub(super) fn user_of(id: &UserId) -> usize {
    let name = std::str::from_utf8(&id.as_bytes()[1..]).unwrap();
    name.strip_prefix("user ").unwrap().parse().unwrap()
}
