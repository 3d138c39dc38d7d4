//! The ids that are strings, each kept once, under an index.

use crate::id::{OwnedId, Text};

/// A slab of strings. A freed index is given out again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    /// Each string behind its header; an empty box is a free index.
    kept: Vec<Box<[u8]>>,
    free: Vec<u32>,
}

/// Class and label stand before the bytes, in the same allocation: a UUID with them still fits the
/// allocator's next size, and a million of them make the difference.
const HEADER: usize = 3;

impl Texts {
    /// Copies `text` and answers its index, or `None` when all are taken.
    pub(crate) fn keep(&mut self, text: Text<'_>) -> Option<u32> {
        let [low, high] = text.label.to_le_bytes();
        let mut copy = Vec::with_capacity(HEADER + text.bytes.len());
        copy.extend_from_slice(&[text.class, low, high]);
        copy.extend_from_slice(text.bytes);
        let copy = copy.into_boxed_slice();

        if let Some(index) = self.free.pop() {
            if let Some(place) = self.kept.get_mut(index as usize) {
                *place = copy;
            }
            return Some(index);
        }
        // The last index is left out: its word would look like a vacant place.
        let index = u32::try_from(self.kept.len()).ok().filter(|index| *index < u32::MAX)?;
        self.kept.push(copy);
        Some(index)
    }

    /// Whether the string at `index` is `text`. The label is not compared.
    #[inline]
    pub(crate) fn is(&self, index: u32, text: Text<'_>) -> bool {
        self.kept
            .get(index as usize)
            .and_then(|kept| kept.split_first_chunk::<HEADER>())
            .is_some_and(|([class, ..], bytes)| *class == text.class && bytes == text.bytes)
    }

    /// A copy of the string at `index`.
    pub(crate) fn get(&self, index: u32) -> Option<OwnedId> {
        let ([class, low, high], bytes) = self.kept.get(index as usize)?.split_first_chunk::<HEADER>()?;
        Some(OwnedId::Text { bytes: bytes.into(), class: *class, label: u16::from_le_bytes([*low, *high]) })
    }

    /// How many strings there are.
    pub(crate) fn len(&self) -> usize {
        self.kept.len() - self.free.len()
    }

    /// Forgets the string at `index`.
    pub(crate) fn forget(&mut self, index: u32) {
        if let Some(place) = self.kept.get_mut(index as usize)
            && !place.is_empty()
        {
            *place = Box::default();
            self.free.push(index);
        }
        if self.free.len() == self.kept.len() {
            // Everybody has left: give the memory back.
            *self = Texts::default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(bytes: &[u8]) -> Text<'_> {
        Text { bytes, class: 1, label: 515 }
    }

    #[test]
    fn a_string_comes_back_as_it_was() {
        let mut texts = Texts::default();
        let index = texts.keep(text(b"ada")).unwrap();
        assert!(texts.is(index, text(b"ada")));
        assert!(texts.is(index, Text { label: 9, ..text(b"ada") }));
        assert!(!texts.is(index, Text { class: 2, ..text(b"ada") }));
        assert!(!texts.is(index, text(b"adb")));
        assert_eq!(texts.get(index), Some(OwnedId::Text { bytes: (*b"ada").into(), class: 1, label: 515 }));
    }

    #[test]
    fn an_index_is_given_out_again() {
        let mut texts = Texts::default();
        let first = texts.keep(text(b"")).unwrap();
        let second = texts.keep(text(b"bob")).unwrap();
        texts.forget(first);
        texts.forget(first);
        assert_eq!(texts.get(first), None);
        assert_eq!(texts.keep(text(b"cy")), Some(first));
        assert_ne!(texts.keep(text(b"di")), Some(first));
        assert!(texts.is(second, text(b"bob")));
    }
}
