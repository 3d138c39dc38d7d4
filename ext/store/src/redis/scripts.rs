//! The scripts and their keys. Each runs in one atomic step, by the server's clock; all but `register.lua` on one
//! partition.

use std::sync::OnceLock;

use crate::store::Partition;

/// A script's text, and the hash by which a server finds it after its first run.
pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) hash: String,
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        pub(super) fn $name() -> &'static Script {
            static SCRIPT: OnceLock<Script> = OnceLock::new();
            SCRIPT.get_or_init(|| {
                let text = concat!($(include_str!($file)),+);
                Script { text, hash: redis::Script::new(text).get_hash().to_owned() }
            })
        }
    };
}

script!(write, "partition.lua", "write.lua");
script!(poll, "partition.lua", "poll.lua");
script!(commit, "partition.lua", "commit.lua");
script!(dead_letter, "partition.lua", "dead_letter.lua");
script!(requeue, "partition.lua", "requeue.lua");
script!(summary, "summary.lua");
script!(register, "register.lua");

/// The keys of a partition. They share a hash tag, so that a cluster keeps them on one server.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The users who are online: a sorted set of ids by deadline and class of timeout.
    pub(super) users: String,
    /// The event log: a stream.
    pub(super) events: String,
    /// The lease: the token of its holder, which expires.
    lease: String,
    /// The epoch, the clock, the last sweep and the classes of timeouts: a hash. See `partition.lua`.
    meta: String,
    /// When users were seen and left whose score does not hold it, those who have left for example: a hash by id.
    pub(super) overflow: String,
    /// The users who went offline lately, and when they were last seen or left: a sorted set.
    tombstones: String,
    /// How often events have failed, and the last error: a hash by number.
    pub(super) failures: String,
    /// The dead letters: a stream.
    pub(super) dead_letters: String,
    /// The latest version of each user who has a dead letter: a hash by id.
    pub(super) superseded: String,
}

impl Keys {
    pub(super) fn new(namespace: &str, partition: Partition) -> Keys {
        let key = |name: &str| format!("{{om:{}:{partition}}}:{name}", escaped(namespace));
        Keys {
            users: key("users"),
            events: key("events"),
            lease: key("lease"),
            meta: key("meta"),
            overflow: key("overflow"),
            tombstones: key("tombstones"),
            failures: key("failures"),
            dead_letters: key("dead_letters"),
            superseded: key("superseded"),
        }
    }

    /// Returns the keys in the order in which the scripts take them.
    pub(super) fn all(&self) -> [&str; 9] {
        [
            &self.users,
            &self.events,
            &self.lease,
            &self.meta,
            &self.overflow,
            &self.tombstones,
            &self.failures,
            &self.dead_letters,
            &self.superseded,
        ]
    }
}

/// Returns the key of a namespace's members.
pub(super) fn members(namespace: &str) -> String {
    format!("{{om:{}}}:members", escaped(namespace))
}

/// Escapes braces, which would begin a hash tag of their own.
fn escaped(namespace: &str) -> String {
    namespace.replace('%', "%25").replace('{', "%7B").replace('}', "%7D")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_partition_share_a_hash_tag_and_no_two_namespaces_a_key() {
        let keys = Keys::new("a}b", 3);
        assert!(keys.all().iter().all(|key| key.starts_with("{om:a%7Db:3}:")));
        assert_ne!(Keys::new("a%7Db", 3).users, keys.users);
        assert_ne!(Keys::new("a:1", 2).users, Keys::new("a", 12).users);
        assert!(members("a:3") != Keys::new("a", 3).users && members("") == "{om:}:members");
    }
}
