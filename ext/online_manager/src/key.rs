//! How a Ruby object becomes an id of the tracker's, and back.
//!
//! Two objects have the same id exactly if they are the same key in a Ruby Hash. The key of an immediate value is its
//! bits, strings are copied, and [`Objects`] numbers all other objects. So the garbage collector has nothing to mark
//! for a million integers and strings.

use magnus::rb_sys::{AsRawValue, FromRawValue};
use magnus::{Error, Ruby, Value};
use online_manager_tracker::{Id, OwnedId, StringId};
use rb_sys::{StableApiDefinition, VALUE, ruby_value_type};

use crate::objects::Objects;

/// The classes of a [`StringId`]. Strings of equal bytes are the same Hash key if they are ASCII only, or in the same
/// encoding.
pub(crate) const ASCII: u8 = 0;
pub(crate) const UTF_8: u8 = 1;
pub(crate) const BINARY: u8 = 2;

/// Ruby's indexes of its built-in encodings, the same since 1.9 (`ENCINDEX_…` in `encindex.h`).
const BINARY_INDEX: u16 = 0;
const UTF_8_INDEX: u16 = 1;
const US_ASCII_INDEX: u16 = 2;

/// Returns the id of `value` if it can be read without calling Ruby: of an immediate value or a plain string.
///
/// # Safety
///
/// Ruby must not run while the id is in use: it has the bytes of a string, which Ruby code may change or free.
#[inline(always)]
pub(crate) unsafe fn plain_id<'a>(value: &'a Value) -> Option<Id<'a>> {
    let raw = value.as_raw();
    if is_immediate(raw) {
        return Some(Id::Key(raw));
    }
    // SAFETY: `raw` is a live object while the caller's `value` is borrowed. The caller lets no Ruby run meanwhile.
    unsafe {
        if !rb_sys::SPECIAL_CONST_P(raw) && rb_sys::RB_BUILTIN_TYPE(raw) == ruby_value_type::RUBY_T_STRING {
            return string_id(raw).map(Id::String);
        }
    }
    None
}

/// Returns whether `value` has a [`plain_id`].
pub(crate) fn is_plain(value: Value) -> bool {
    // SAFETY: no Ruby runs in this function, and it returns nothing of the id.
    unsafe { plain_id(&value) }.is_some()
}

/// Returns the id of `value`, or `None` if the tracker cannot know such a user. May call the value's `hash` and `eql?`,
/// and fails with what they raise.
///
/// # Safety
///
/// As for [`plain_id`].
pub(crate) unsafe fn find<'a>(ruby: &Ruby, value: &'a Value, objects: &Objects) -> Result<Option<Id<'a>>, Error> {
    // SAFETY: Ruby runs below only if there is no id, and the caller lets none run afterwards.
    match unsafe { plain_id(value) } {
        Some(id) => Ok(Some(id)),
        None => Ok(objects.find(ruby, *value)?.map(|found| Id::Key(found.key()))),
    }
}

/// Returns the Ruby object that an id was made from, or an equal one.
pub(crate) fn to_value(ruby: &Ruby, id: &OwnedId, objects: &Objects) -> Value {
    #[cfg(feature = "faults")]
    crate::faults::allocate();
    match id {
        OwnedId::Key(key) => {
            let object = crate::objects::Slot::of_key(*key).map(|slot| objects.get(ruby, slot));
            // SAFETY: a key that is no slot was returned by `plain_id`. Immediate values never move or die.
            object.unwrap_or_else(|| unsafe { Value::from_raw(*key) })
        }
        OwnedId::String { bytes, label, .. } => {
            // SAFETY: the bytes are copied; the encoding's index is that of a string in this process.
            unsafe {
                let encoding = rb_sys::rb_enc_from_index(i32::from(*label));
                let string = rb_sys::rb_enc_str_new(bytes.as_ptr().cast(), bytes.len() as i64, encoding);
                Value::from_raw(string)
            }
        }
    }
}

/// Returns whether a value is its own key: an Integer of the fixnum range, a static Symbol, true, false or nil. Floats
/// are not: 0.0 and -0.0 are the same Hash key with different bits.
#[inline]
fn is_immediate(raw: VALUE) -> bool {
    rb_sys::FIXNUM_P(raw)
        || rb_sys::STATIC_SYM_P(raw)
        || raw == rb_sys::special_consts::Qtrue as VALUE
        || raw == rb_sys::special_consts::Qfalse as VALUE
        || raw == rb_sys::special_consts::Qnil as VALUE
}

/// Returns the id of a plain string: one whose equality depends on its bytes and encoding only.
///
/// # Safety
///
/// `string` must be a live String, and Ruby must not run while the id is in use.
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

/// Returns the class of a string, and the index of its encoding. `bytes` are the string's. Returns `None` if the
/// equality of such strings depends on more than that.
///
/// This function is not inlined, but its callers are. So the small parts are returned in registers, and the
/// [`StringId`] is written once, where it is read. Returned through memory, each part would have to wait for the one
/// before.
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
            // Ruby's code range 7BIT: the encoding is compatible with ASCII, and the string is ASCII only.
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

/// Returns whether a subclass of String has String's own `eql?`. Its `hash` does not matter: a Hash never calls the
/// `hash` of a string.
///
/// # Safety
///
/// `class` must be the class of a live object.
#[cold]
unsafe fn compares_as_string(class: VALUE) -> bool {
    // SAFETY: as the caller promises. Interning a name and looking up a method run no Ruby code.
    unsafe { rb_sys::rb_method_basic_definition_p(class, rb_sys::rb_intern(c"eql?".as_ptr())) != 0 }
}
