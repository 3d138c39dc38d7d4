//! Ractors: only the main one may use the gem.
//!
//! Ruby enforces that for native methods, but not for the heartbeat proc: `Ractor.make_shareable` takes a proc that is
//! made in C for one without captured variables.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use magnus::{Error, ExceptionClass, Module, RClass, Ruby};
use rb_sys::rb_ractor_local_key_struct as Key;

/// The Ractor-local storage key under which only the main Ractor has a value.
static MAIN_KEY: AtomicPtr<Key> = AtomicPtr::new(ptr::null_mut());

/// Records the current Ractor as the main one: no other Ractor may load an extension.
pub(crate) fn record_main() {
    // SAFETY: the value of a key without a type is a pointer that Ruby does not follow, mark or free.
    unsafe {
        let key = rb_sys::rb_ractor_local_storage_ptr_newkey(ptr::null());
        rb_sys::rb_ractor_local_storage_ptr_set(key, key.cast());
        MAIN_KEY.store(key, Ordering::Relaxed);
    }
}

/// Fails with a `Ractor::UnsafeError` unless the current Ractor is the main one.
#[inline]
pub(crate) fn check_main(ruby: &Ruby) -> Result<(), Error> {
    // SAFETY: the key was made when the extension was loaded.
    let is_main = unsafe { !rb_sys::rb_ractor_local_storage_ptr(MAIN_KEY.load(Ordering::Relaxed)).is_null() };
    if is_main { Ok(()) } else { Err(unsafe_error(ruby)) }
}

#[cold]
fn unsafe_error(ruby: &Ruby) -> Error {
    let class = ruby.class_object().const_get("Ractor").and_then(|ractor: RClass| ractor.const_get("UnsafeError"));
    let class: ExceptionClass = class.unwrap_or_else(|_| ruby.exception_runtime_error());
    Error::new(class, "a heartbeat may only be called from the main Ractor")
}
