//! User ids as bytes that every process reads alike: a tag for the kind of object, then its bytes.

use std::sync::Arc;

use crate::store::Partition;

/// A user id in a store: a tag, and bytes whose meaning depends on the tag. Equal bytes are the same user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<[u8]>);

/// The kind of object that an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer, in decimal digits.
    Integer,
    /// A string.
    String(Charset),
    /// The name of a symbol.
    Symbol(Charset),
}

/// The encoding of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// ASCII only: the same string in every encoding that contains ASCII.
    Ascii,
    /// UTF-8, valid or not, with at least one byte beyond ASCII.
    Utf8,
    /// Binary, with at least one byte beyond ASCII.
    Binary,
    /// Another encoding: the bytes are its name, a NUL, and the string.
    Other,
}

impl Kind {
    const ALL: [(u8, Kind); 9] = [
        (b'i', Kind::Integer),
        (b's', Kind::String(Charset::Ascii)),
        (b'u', Kind::String(Charset::Utf8)),
        (b'b', Kind::String(Charset::Binary)),
        (b'o', Kind::String(Charset::Other)),
        (b'S', Kind::Symbol(Charset::Ascii)),
        (b'U', Kind::Symbol(Charset::Utf8)),
        (b'B', Kind::Symbol(Charset::Binary)),
        (b'O', Kind::Symbol(Charset::Other)),
    ];

    pub(crate) fn tag(self) -> u8 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(tag, _)| *tag)
    }
}

impl UserId {
    /// Builds the id of a kind with these bytes.
    pub fn new(kind: Kind, bytes: &[u8]) -> UserId {
        let mut all = Vec::with_capacity(bytes.len() + 1);
        all.push(kind.tag());
        all.extend_from_slice(bytes);
        UserId(all.into())
    }

    /// Reads an id that is in a store. Returns `None` if its tag is unknown: a newer version of the gem has written it.
    pub fn from_store(bytes: &[u8]) -> Option<UserId> {
        let id = UserId(bytes.into());
        id.parts().map(|_| id.clone())
    }

    /// Returns the tag and the bytes: what is written to a store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the partition of the user in a store that has `count` of them, at least one.
    pub(crate) fn partition(&self, count: Partition) -> Partition {
        crc16::State::<crc16::XMODEM>::calculate(self.as_bytes()) % count.max(1)
    }

    /// Returns the kind and the bytes that [`UserId::new`] got.
    pub fn parts(&self) -> Option<(Kind, &[u8])> {
        let (tag, bytes) = self.0.split_first()?;
        let (_, kind) = Kind::ALL.iter().find(|(other, _)| other == tag)?;
        Some((*kind, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_different_kinds_differ_and_keep_their_bytes() {
        let ids = Kind::ALL.map(|(_, kind)| UserId::new(kind, b"1"));
        for (number, id) in ids.iter().enumerate() {
            assert!(!ids.iter().skip(number + 1).any(|other| other == id));
            assert_eq!(
                id.parts().map(|(kind, bytes)| (kind, bytes.to_vec())),
                Some((Kind::ALL[number].1, b"1".to_vec()))
            );
            assert_eq!(UserId::from_store(id.as_bytes()).as_ref(), Some(id));
        }
        assert_eq!(UserId::from_store(b"?1"), None);
        assert_eq!(UserId::from_store(b""), None);
    }
}
