//! Ractors: everything in here belongs to the main one.
//!
//! Ruby sees to that itself for methods, but not for procs: `Ractor.make_shareable` takes the heartbeat
//! proc for one of its own.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use magnus::{Error, ExceptionClass, Module, RClass, Ruby};
use rb_sys::rb_ractor_local_key_struct as Key;

/// A key under which only the main Ractor has something.
static MAIN_KEY: AtomicPtr<Key> = AtomicPtr::new(ptr::null_mut());

/// Overflow that the present Ractor is the main one: no other may load an extension.
pub(crate) fn record_main() {
    // SAFETY: a key without a type holds a pointer that nobody follows, marks or frees.
    unsafe {
        let key = rb_sys::rb_ractor_local_storage_ptr_newkey(ptr::null());
        rb_sys::rb_ractor_local_storage_ptr_set(key, key.cast());
        MAIN_KEY.store(key, Ordering::Relaxed);
    }
}

/// A `Ractor::UnsafeError` unless the present Ractor is the main one.
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
