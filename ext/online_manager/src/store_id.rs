//! How a Ruby object becomes an id of a store's, and back: Integers, Strings and Symbols, which every process knows.

use magnus::encoding::{EncodingCapable, RbEncoding};
use magnus::{Error, Integer, RString, Ruby, Symbol, Value, prelude::*};
use online_manager_store::UserId;
use online_manager_store::id::{Charset, Kind};
use online_manager_tracker::{Id, StringId};

use crate::key::{self, ASCII, BINARY, UTF_8};

/// A user, as the store and as the process' own table call it.
pub(crate) struct StoreId {
    pub(crate) user_id: UserId,
    /// If the id is a key.
    key: Option<u64>,
}

impl StoreId {
    /// May call Ruby, see [`user_id`].
    pub(crate) fn new(ruby: &Ruby, value: Value) -> Result<StoreId, Error> {
        // Raises for the keys that are no ids: true, false and nil.
        let user_id = user_id(ruby, value)?;
        let key = if let Some(Id::Key(key)) = key::plain(&value) { Some(key) } else { None };
        Ok(StoreId { user_id, key })
    }

    /// As the process' own table requests it up. The class of a text is the tag, see [`online_manager_store::coalescer`].
    pub(crate) fn as_id(&self) -> Id<'_> {
        match (self.key, self.user_id.as_bytes().split_first()) {
            (Some(key), _) => Id::Key(key),
            (None, Some((tag, bytes))) => Id::String(StringId { bytes, class: *tag, label: 0 }),
            (None, None) => Id::String(StringId { bytes: &[], class: 0, label: 0 }),
        }
    }
}

/// What a store calls `value`. May call Ruby, but no method that could be anybody's.
pub(crate) fn user_id(ruby: &Ruby, value: Value) -> Result<UserId, Error> {
    if let Some(Id::String(text)) = key::plain(&value) {
        let charset = match text.class {
            ASCII => Charset::Ascii,
            UTF_8 => Charset::Utf8,
            BINARY => Charset::Binary,
            _ => Charset::Other,
        };
        return Ok(UserId::new(Kind::String(charset), text.bytes));
    }
    if let Some(integer) = Integer::from_value(value) {
        let digits = match integer.to_i64() {
            Ok(number) => number.to_string(),
            // Rust's numbers end where Ruby's go on.
            Err(_) => RString::try_convert(integer.funcall("to_s", ())?)?.to_string()?,
        };
        return Ok(UserId::new(Kind::Integer, digits.as_bytes()));
    }
    if let Some(string) = RString::from_value(value) {
        let (charset, bytes) = text(string);
        return Ok(UserId::new(Kind::String(charset), &bytes));
    }
    if let Some(symbol) = Symbol::from_value(value) {
        let (charset, bytes) = text(RString::try_convert(symbol.funcall("name", ())?)?);
        return Ok(UserId::new(Kind::Symbol(charset), &bytes));
    }
    // Its class only: a channel of ActionCable raises it into the framework, which logs it, and ids belong in no log.
    // SAFETY: the name is copied before Ruby runs again.
    let class = unsafe { value.classname() }.into_owned();
    let message = format!(
        "a user id must be an Integer, a String or a Symbol with a shared store, got an object of the class {class}"
    );
    Err(Error::new(ruby.exception_arg_error(), message))
}

/// The charset of a string, and its bytes as [`Charset`] wants them.
fn text(string: RString) -> (Charset, Vec<u8>) {
    // SAFETY: the bytes are copied before Ruby runs again.
    let bytes = unsafe { string.as_slice() }.to_vec();
    let encoding = RbEncoding::from(string.enc_get());
    let is_ascii = bytes.is_empty() || string.enc_coderange_scan() == magnus::encoding::Coderange::SevenBit;
    match encoding.name() {
        _ if is_ascii => (Charset::Ascii, bytes),
        "UTF-8" => (Charset::Utf8, bytes),
        "ASCII-8BIT" | "BINARY" => (Charset::Binary, bytes),
        name => (Charset::Other, [name.as_bytes(), &[0], &bytes].concat()),
    }
}

/// The Ruby object that an id came from, or one that is equal to it.
pub(crate) fn to_value(ruby: &Ruby, user_id: &UserId) -> Result<Value, Error> {
    let Some((kind, bytes)) = user_id.parts() else { return Ok(ruby.qnil().as_value()) };
    match kind {
        Kind::Integer => {
            let digits = String::from_utf8_lossy(bytes).into_owned();
            match digits.parse::<i64>() {
                Ok(number) => Ok(ruby.integer_from_i64(number).as_value()),
                Err(_) => ruby.str_new(&digits).funcall("to_i", ()),
            }
        }
        Kind::String(charset) => Ok(string(ruby, charset, bytes)?.as_value()),
        Kind::Symbol(charset) => string(ruby, charset, bytes)?.funcall("to_sym", ()),
    }
}

fn string(ruby: &Ruby, charset: Charset, bytes: &[u8]) -> Result<RString, Error> {
    match charset {
        Charset::Ascii | Charset::Utf8 => Ok(ruby.enc_str_new(bytes, ruby.utf8_encindex())),
        Charset::Binary => Ok(ruby.str_from_slice(bytes)),
        Charset::Other => {
            let (name, bytes) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(0));
            let bytes = bytes.get(1..).unwrap_or_default();
            match ruby.find_encoding(&String::from_utf8_lossy(name)) {
                Some(encoding) => Ok(ruby.enc_str_new(bytes, encoding)),
                // Of an encoding that this process does not have.
                None => Ok(ruby.str_from_slice(bytes)),
            }
        }
    }
}
