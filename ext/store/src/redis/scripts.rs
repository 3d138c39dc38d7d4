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
    /// The epoch, the clock, the lease, the last sweep and the classes of timeouts: a hash. See `partition.lua`.
    pub(super) meta: String,
    /// When users were seen and left whose score does not hold it, those who have left for example: a hash by id.
    pub(super) overflow: String,
    /// The users who are offline, and when they were last seen or left: a sorted set.
    tombstones: String,
    /// How often events have failed, and the last error: a hash by number.
    pub(super) failures: String,
    /// The dead letters: a stream.
    pub(super) dead_letters: String,
    /// The latest version of each user who has a dead letter: a hash by id.
    pub(super) superseded: String,
    /// Whose deadline was moved forward, for other members to hear of: a stream. Its name is from when there were leaves only.
    notices: String,
    /// The users who may have come or gone since the data went back: a sorted set.
    uncertain: String,
    /// The users who are online and have left, by the time when their leave is due: a sorted set.
    leaving: String,
    /// A key that never exists, for the check of permissions.
    pub(super) probe: String,
}

impl Keys {
    /// Returns the keys, each with the URL's prefix in front.
    pub(super) fn new(prefix: &str, namespace: &str, partition: Partition) -> Keys {
        let key = |name: &str| format!("{prefix}{{om:{}:{partition}}}:{name}", escaped(namespace));
        Keys {
            users: key("users"),
            events: key("events"),
            meta: key("meta"),
            overflow: key("overflow"),
            tombstones: key("tombstones"),
            failures: key("failures"),
            dead_letters: key("dead_letters"),
            superseded: key("superseded"),
            notices: key("leaves"),
            uncertain: key("uncertain"),
            leaving: key("leaving"),
            probe: key("probe"),
        }
    }

    /// Returns the keys in the order in which the scripts take them.
    pub(super) fn all(&self) -> [&str; 11] {
        [
            &self.users,
            &self.events,
            &self.meta,
            &self.overflow,
            &self.tombstones,
            &self.failures,
            &self.dead_letters,
            &self.superseded,
            &self.notices,
            &self.uncertain,
            &self.leaving,
        ]
    }
}

/// Returns the key of a namespace's members, with the URL's prefix in front.
pub(super) fn members(prefix: &str, namespace: &str) -> String {
    format!("{prefix}{{om:{}}}:members", escaped(namespace))
}

/// Returns patterns of SCAN that each namespace has a key for.
pub(super) fn patterns(prefix: &str) -> [String; 2] {
    let literal = literal(prefix);
    [format!("{literal}{{om:*}}:members"), format!("{literal}{{om:*}}:meta")]
}

/// Returns a pattern that matches all keys of all namespaces.
pub(super) fn pattern_of_all(prefix: &str) -> String {
    if prefix.is_empty() { "{om:*".to_owned() } else { format!("{}*", literal(prefix)) }
}

/// Returns the pattern that matches a text.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            literal.push('\\');
        }
        literal.push(character);
    }
    literal
}

/// Returns the namespace that a key belongs to, if it is one that [`patterns`] look for.
pub(super) fn namespace_of(prefix: &str, key: &str) -> Option<String> {
    let (tag, name) = key.strip_prefix(prefix)?.strip_prefix("{om:")?.split_once("}:")?;
    let namespace = match name {
        "members" => tag,
        "meta" => tag.rsplit_once(':').filter(|(_, partition)| partition.parse::<Partition>().is_ok())?.0,
        _ => return None,
    };
    Some(namespace.replace("%7B", "{").replace("%7D", "}").replace("%25", "%"))
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
        let keys = Keys::new("", "a}b", 3);
        assert!(keys.all().iter().all(|key| key.starts_with("{om:a%7Db:3}:")));
        assert_ne!(Keys::new("", "a%7Db", 3).users, keys.users);
        assert_ne!(Keys::new("", "a:1", 2).users, Keys::new("", "a", 12).users);
        assert!(members("", "a:3") != Keys::new("", "a", 3).users && members("", "") == "{om:}:members");
        assert_eq!(Keys::new("my:", "a", 3).users, "my:{om:a:3}:users");
    }

    #[test]
    fn a_key_names_its_namespace() {
        for namespace in ["", "a", "a:3", "a}b%7D{c", "}:meta"] {
            for prefix in ["", "my*app:"] {
                assert_eq!(namespace_of(prefix, &members(prefix, namespace)).as_deref(), Some(namespace));
                assert_eq!(namespace_of(prefix, &Keys::new(prefix, namespace, 12).meta).as_deref(), Some(namespace));
                assert_eq!(namespace_of(prefix, &Keys::new(prefix, namespace, 12).users), None);
            }
        }
        assert_eq!(namespace_of("", "my:{om:a}:members"), None);
        assert_eq!(patterns("my*:")[0], "my\\*:{om:*}:members");
    }
}
