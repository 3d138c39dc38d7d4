//! Ids as they come in and go out: a key of the caller's own making, or a string.

/// A user's id at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// Two keys are the same user if they are the same number. A key must not end in the bits
    /// `10`: those are the tracker's own (see [`is_valid_key`]).
    Key(u64),
    /// A string, copied when its user is first seen.
    String(StringId<'a>),
}

/// A string with what tells it from others of the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringId<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Part of the identity: equal bytes of another class are another user.
    pub class: u8,
    /// Not part of the identity: handed back as it came with the first heartbeat (an encoding, for example).
    pub label: u16,
}

/// A user's id on the way out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnedId {
    /// The key that came in.
    Key(u64),
    /// The string that came in with the first heartbeat.
    String {
        /// The bytes.
        bytes: Box<[u8]>,
        /// Its class, as it came in.
        class: u8,
        /// Its label, as it came in.
        label: u16,
    },
}

/// Whether `key` may be an [`Id::Key`].
///
/// ```
/// use online_manager_tracker::id::is_valid_key;
///
/// assert!(is_valid_key(7));
/// assert!(!is_valid_key(0b110));
/// ```
#[inline]
pub fn is_valid_key(key: u64) -> bool {
    key & RESERVED_MASK != RESERVED
}

/// The last two bits of a key that the tracker made itself.
const RESERVED: u64 = 0b10;
const RESERVED_MASK: u64 = 0b11;

/// How many bits of a string's hash its key carries.
pub(crate) const HASH_BITS: u32 = 30;
const HASH_SHIFT: u32 = u64::BITS - HASH_BITS;

/// The key of a vacant place in the table. It looks like a string's, of an index that is never given out.
pub(crate) const VACANT: u64 = u64::MAX ^ 0b01;

/// The key under which a string is kept: `| hash: 30 bits | index: 32 bits | 10 |`. The hash comes
/// along so that the table can tell most strings apart, and find a string's home, without reading it.
#[inline]
pub(crate) fn string_key(hash: u64, index: u32) -> u64 {
    (hash & !0 << HASH_SHIFT) | u64::from(index) << 2 | RESERVED
}

/// The index of the string kept under `key`, or `None` if `key` is the caller's own.
#[inline]
pub(crate) fn string_index(key: u64) -> Option<u32> {
    // The cast cuts off the hash, which stands above the 32 bits of the index.
    (key & RESERVED_MASK == RESERVED).then_some((key >> 2) as u32)
}

/// The part of a hash that decides where an entry lives.
#[inline]
pub(crate) fn short_hash(hash: u64) -> u64 {
    hash >> HASH_SHIFT
}
