//! How a Ruby object becomes an id of the tracker's, and back.
//!
//! Two objects must become the same id exactly if they are the same key to a Ruby Hash. What is
//! immediate is its own bits, strings are copied, and all else is numbered by [`Objects`]: so a
//! million ids of the usual kinds are nothing that the garbage collector has to look at.

use magnus::rb_sys::{AsRawValue, FromRawValue};
use magnus::{Error, Ruby, Value};
use online_manager_tracker::{Id, OwnedId, StringId};
use rb_sys::{StableApiDefinition, VALUE, ruby_value_type};

use crate::objects::Objects;

/// Classes of [`Text`]: strings of equal bytes are the same key if they are ASCII only or of the same encoding.
pub(crate) const ASCII: u8 = 0;
pub(crate) const UTF_8: u8 = 1;
pub(crate) const BINARY: u8 = 2;

/// Ruby's numbers for the encodings that it always has, the same since 1.9 (`ENCINDEX_…` in `encindex.h`).
const BINARY_INDEX: u16 = 0;
const UTF_8_INDEX: u16 = 1;
const US_ASCII_INDEX: u16 = 2;

/// The id of `value` if that can be notified without calling Ruby. The bytes of a string are borrowed:
/// Ruby must not run while the answer is in use.
#[inline(always)]
pub(crate) fn plain_id<'a>(value: &'a Value) -> Option<Id<'a>> {
    let raw = value.as_raw();
    if is_immediate(raw) {
        return Some(Id::Key(raw));
    }
    // SAFETY: `raw` is a live object, kept so by the caller's argument.
    unsafe {
        if !rb_sys::SPECIAL_CONST_P(raw) && rb_sys::RB_BUILTIN_TYPE(raw) == ruby_value_type::RUBY_T_STRING {
            return string_id(raw).map(Id::String);
        }
    }
    None
}

/// The id of `value`, or `None` if nobody of that id can be known. May call the value's `hash` and `eql?`.
pub(crate) fn find<'a>(ruby: &Ruby, value: &'a Value, objects: &Objects) -> Result<Option<Id<'a>>, Error> {
    match plain_id(value) {
        Some(id) => Ok(Some(id)),
        None => Ok(objects.find(ruby, *value)?.map(|found| Id::Key(found.key()))),
    }
}

/// The Ruby object that an id came from, or one that is equal to it.
pub(crate) fn to_value(ruby: &Ruby, id: &OwnedId, objects: &Objects) -> Value {
    match id {
        OwnedId::Key(key) => {
            let object = crate::objects::Slot::of_key(*key).map(|slot| objects.get(ruby, slot));
            // SAFETY: a key that is no slot came out of `plain_id`, and immediates never move or die.
            object.unwrap_or_else(|| unsafe { Value::from_raw(*key) })
        }
        OwnedId::String { bytes, label, .. } => {
            // SAFETY: the bytes are copied; the encoding was taken from a string of this process.
            unsafe {
                let encoding = rb_sys::rb_enc_from_index(i32::from(*label));
                let string = rb_sys::rb_enc_str_new(bytes.as_ptr().cast(), bytes.len() as i64, encoding);
                Value::from_raw(string)
            }
        }
    }
}

/// Integers of the fixnum range, static symbols, true, false and nil. Floats are not among them: 0.0
/// and -0.0 are the same key in spite of their bits.
#[inline]
fn is_immediate(raw: VALUE) -> bool {
    rb_sys::FIXNUM_P(raw)
        || rb_sys::STATIC_SYM_P(raw)
        || raw == rb_sys::special_consts::Qtrue as VALUE
        || raw == rb_sys::special_consts::Qfalse as VALUE
        || raw == rb_sys::special_consts::Qnil as VALUE
}

/// The text of a string whose equality is that of its bytes and encoding.
///
/// # Safety
///
/// `string` must be a live String, and Ruby must not run while the answer is in use.
#[inline(always)]
unsafe fn string_id<'a>(string: VALUE) -> Option<StringId<'a>> {
    // SAFETY: as the caller promises; nothing in here runs Ruby code.
    unsafe {
        let class = rb_sys::stable_api::get_default().rbasic_class(string)?.as_ptr() as VALUE;
        if class != rb_sys::rb_cString && !compares_as_string(class) {
            return None;
        }
        let length = rb_sys::RSTRING_LEN(string) as usize;
        let bytes: &[u8] =
            if length == 0 { &[] } else { std::slice::from_raw_parts(rb_sys::RSTRING_PTR(string).cast(), length) };
        let (class, label) = class_and_label(string, bytes)?;
        Some(StringId { bytes, class, label })
    }
}

/// The class of a string whose bytes these are, and its encoding.
///
/// Not inlined, and inlined what calls it: so a whole [`Text`] is written where it is read, and its small parts are in
/// registers on the way. Were it handed through memory, the processor would have to wait for one after the other.
///
/// # Safety
///
/// As for [`string_id`].
#[inline(never)]
unsafe fn class_and_label(string: VALUE, bytes: &[u8]) -> Option<(u8, u16)> {
    // SAFETY: as the caller promises; nothing in here runs Ruby code.
    unsafe {
        let label = u16::try_from(rb_sys::ENCODING_GET(string)).ok()?;
        let class = match label {
            UTF_8_INDEX if bytes.is_ascii() => ASCII,
            UTF_8_INDEX => UTF_8,
            BINARY_INDEX if bytes.is_ascii() => ASCII,
            BINARY_INDEX => BINARY,
            US_ASCII_INDEX if bytes.is_ascii() => ASCII,
            // Empty strings are equal in all encodings.
            _ if bytes.is_empty() => ASCII,
            // 7 bit is what Ruby calls a string of an ASCII-compatible encoding that is ASCII only.
            _ if rb_sys::rb_enc_str_coderange(string) as u32
                == rb_sys::ruby_coderange_type::RUBY_ENC_CODERANGE_7BIT as u32 =>
            {
                ASCII
            }
            _ => return None,
        };
        Some((class, label))
    }
}

/// Whether strings of `class` are compared by String's own method. Its `hash` does not matter: a Hash
/// hashes every string by its text.
///
/// # Safety
///
/// `class` must be the class of a live object.
#[cold]
unsafe fn compares_as_string(class: VALUE) -> bool {
    // SAFETY: as the caller promises; interning a name and looking up a method run no Ruby code.
    unsafe { rb_sys::rb_method_basic_definition_p(class, rb_sys::rb_intern(c"eql?".as_ptr())) != 0 }
}
