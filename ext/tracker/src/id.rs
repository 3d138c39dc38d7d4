//! User ids: a key of the caller's, or a string.

/// A user id that is passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// A number of the caller's. It must not end in the bits `10`, which mark the tracker's own keys
    /// (see [`is_valid_key`]).
    Key(u64),
    /// A string. The tracker copies it at the first heartbeat.
    String(StringId<'a>),
}

/// A string id: the bytes, and what distinguishes it from other strings with the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringId<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Part of the identity: equal bytes with another class are another user.
    pub class: u8,
    /// Not part of the identity, an encoding for example: returned as the first heartbeat passed it in.
    pub label: u16,
}

/// A user id that is returned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnedId {
    /// The caller's key.
    Key(u64),
    /// The string of the first heartbeat.
    String {
        /// The bytes.
        bytes: Box<[u8]>,
        /// See [`StringId::class`].
        class: u8,
        /// See [`StringId::label`].
        label: u16,
    },
}

/// Whether the caller may use `key` as an [`Id::Key`].
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

/// The low two bits of a key that the tracker made itself, for a string.
const RESERVED: u64 = 0b10;
const RESERVED_MASK: u64 = 0b11;

/// How many bits of a string's hash its key holds: all that the index and the two low bits leave.
pub(crate) const HASH_BITS: u32 = 30;
const HASH_SHIFT: u32 = u64::BITS - HASH_BITS;

/// The key of a vacant place in the table: that of a string with an index that is never assigned.
pub(crate) const VACANT: u64 = u64::MAX ^ 0b01;

/// Returns the key of the string at `index`: `| hash: 30 bits | index: 32 bits | 10 |`. With the hash in the key, the
/// table compares most strings, and finds a string's home, without reading the bytes.
#[inline]
pub(crate) fn string_key(hash: u64, index: u32) -> u64 {
    (hash & !0 << HASH_SHIFT) | u64::from(index) << 2 | RESERVED
}

/// Returns the index of the string with this key, or `None` if the key is the caller's.
#[inline]
pub(crate) fn string_index(key: u64) -> Option<u32> {
    // The cast drops the hash, which is above the 32 bits of the index.
    (key & RESERVED_MASK == RESERVED).then_some((key >> 2) as u32)
}

/// Returns the bits of a hash that decide where an entry is: those that a string's key holds.
#[inline]
pub(crate) fn short_hash(hash: u64) -> u64 {
    hash >> HASH_SHIFT
}
