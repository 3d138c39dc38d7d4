//! How a Ruby object becomes an id of a store's, and back. Only Integers, Strings and Symbols can be ids: they mean the
//! same in every process.

use magnus::encoding::{EncodingCapable, RbEncoding};
use magnus::{Error, Integer, RString, Ruby, Symbol, Value, prelude::*};
use online_manager_store::UserId;
use online_manager_store::id::{Charset, Kind};
use online_manager_tracker::{Id, StringId};

use crate::key::{self, ASCII, BINARY, UTF_8};
use crate::protect::funcall;

/// An id for the store, and the same id for the member's own table of users.
pub(crate) struct StoreId {
    pub(crate) user_id: UserId,
    /// The key, if the id is an immediate value.
    key: Option<u64>,
}

impl StoreId {
    /// Converts a Ruby object. Calls Ruby and fails as [`to_user_id`] does.
    pub(crate) fn new(ruby: &Ruby, value: Value) -> Result<StoreId, Error> {
        // First, since true, false and nil have keys but are no ids.
        let user_id = to_user_id(ruby, value)?;
        // SAFETY: of the id only a key is used.
        let key = if let Some(Id::Key(key)) = unsafe { key::plain_id(&value) } { Some(key) } else { None };
        Ok(StoreId { user_id, key })
    }

    /// Returns the id for the member's own table. The class of a string id is the tag, see
    /// [`online_manager_store::coalescer`].
    pub(crate) fn as_id(&self) -> Id<'_> {
        match (self.key, self.user_id.as_bytes().split_first()) {
            (Some(key), _) => Id::Key(key),
            (None, Some((tag, bytes))) => Id::String(StringId { bytes, class: *tag, label: 0 }),
            (None, None) => Id::String(StringId { bytes: &[], class: 0, label: 0 }),
        }
    }
}

/// Returns the store's id of `value`. May call Ruby, but only methods of Ruby's own classes.
///
/// Fails with an ArgumentError if `value` is no Integer, String or Symbol.
pub(crate) fn to_user_id(ruby: &Ruby, value: Value) -> Result<UserId, Error> {
    // SAFETY: the bytes are copied before Ruby runs.
    if let Some(Id::String(id)) = unsafe { key::plain_id(&value) } {
        let charset = match id.class {
            ASCII => Charset::Ascii,
            UTF_8 => Charset::Utf8,
            BINARY => Charset::Binary,
            _ => Charset::Other,
        };
        return Ok(UserId::new(Kind::String(charset), id.bytes));
    }
    if let Some(integer) = Integer::from_value(value) {
        let digits = match integer.to_i64() {
            Ok(number) => number.to_string(),
            // An Integer beyond 64 bits.
            Err(_) => funcall::<_, RString>(integer, "to_s", || Ok(()))?.to_string()?,
        };
        return Ok(UserId::new(Kind::Integer, digits.as_bytes()));
    }
    if let Some(string) = RString::from_value(value) {
        let (charset, bytes) = charset_and_bytes(string);
        return Ok(UserId::new(Kind::String(charset), &bytes));
    }
    if let Some(symbol) = Symbol::from_value(value) {
        let (charset, bytes) = charset_and_bytes(funcall(symbol, "name", || Ok(()))?);
        return Ok(UserId::new(Kind::Symbol(charset), &bytes));
    }
    // The message names the class only: ActionCable logs what a channel raises, and ids belong in no log.
    // SAFETY: the name is copied before Ruby runs again.
    let class = unsafe { value.classname() }.into_owned();
    let message = format!(
        "a user id in a shared store must be an Integer, a String or a Symbol, got an object of the class {class}: \
         pass the user's database id, for example"
    );
    Err(Error::new(ruby.exception_arg_error(), message))
}

/// Returns the charset of a string, and its bytes in the form of that [`Charset`].
fn charset_and_bytes(string: RString) -> (Charset, Vec<u8>) {
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

/// Returns the Ruby object that an id was made from, or an equal one.
pub(crate) fn to_value(ruby: &Ruby, user_id: &UserId) -> Result<Value, Error> {
    #[cfg(feature = "faults")]
    crate::faults::allocate();
    let Some((kind, bytes)) = user_id.parts() else { return Ok(ruby.qnil().as_value()) };
    match kind {
        Kind::Integer => {
            let digits = String::from_utf8_lossy(bytes).into_owned();
            match digits.parse::<i64>() {
                Ok(number) => Ok(ruby.integer_from_i64(number).as_value()),
                Err(_) => funcall(ruby.str_new(&digits), "to_i", || Ok(())),
            }
        }
        Kind::String(charset) => Ok(string(ruby, charset, bytes)?.as_value()),
        Kind::Symbol(charset) => funcall(string(ruby, charset, bytes)?, "to_sym", || Ok(())),
    }
}

/// Returns the String of a charset's bytes. It is binary if this process does not have the encoding.
fn string(ruby: &Ruby, charset: Charset, bytes: &[u8]) -> Result<RString, Error> {
    match charset {
        Charset::Ascii | Charset::Utf8 => Ok(ruby.enc_str_new(bytes, ruby.utf8_encindex())),
        Charset::Binary => Ok(ruby.str_from_slice(bytes)),
        Charset::Other => {
            let (name, bytes) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(0));
            let bytes = bytes.get(1..).unwrap_or_default();
            match ruby.find_encoding(&String::from_utf8_lossy(name)) {
                Some(encoding) => Ok(ruby.enc_str_new(bytes, encoding)),
                None => Ok(ruby.str_from_slice(bytes)),
            }
        }
    }
}
