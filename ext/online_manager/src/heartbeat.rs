//! The proc that a config's `setup` gets. Each call of it is a heartbeat.
//!
//! It is made by Ruby's `rb_proc_new` and not by magnus. A proc of magnus' keeps what it captures in an instance
//! variable. A copy of it (by `dup` or `define_method`) has no such variable and may outlive the original. Ruby keeps
//! the argument of `rb_proc_new` alive, and in its place, as long as there is a copy.

use std::ffi::c_int;
use std::panic::AssertUnwindSafe;

use magnus::block::Proc;
use magnus::rb_sys::{AsRawValue, FromRawValue, catch_unwind, resume_error};
use magnus::typed_data::Obj;
use magnus::{Error, Ruby, Value, prelude::*};
use rb_sys::VALUE;

use crate::handle::NativeObject;
use crate::ractor;

/// Returns a proc that takes one id and returns what `native.seen(id)` does. It raises a Ractor::UnsafeError in other
/// Ractors than the main one.
pub(crate) fn new<T: NativeObject>(native: Obj<T>) -> Result<Proc, Error> {
    // SAFETY: `call` has the signature that Ruby wants, and its second argument is `native`, which is a T.
    let raw = unsafe { Value::from_raw(rb_sys::rb_proc_new(Some(call::<T>), native.as_raw())) };
    Proc::try_convert(raw)
}

/// Records a heartbeat. Ruby calls it for each call of the proc.
///
/// # Safety
///
/// `native` must be a live object of the class of T, and `argv` point to `argc` live objects.
unsafe extern "C" fn call<T: NativeObject>(
    _first: VALUE,
    native: VALUE,
    argc: c_int,
    argv: *const VALUE,
    _block: VALUE,
) -> VALUE {
    // SAFETY: Ruby calls this, so it is a Ruby thread. `native` is the argument of `rb_proc_new`, and lives as long as
    // the proc. There are `argc` arguments, which live as long as the call.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe {
        let ruby = Ruby::get_unchecked();
        if argc != 1 {
            return Err(wrong_number(&ruby, argc));
        }
        ractor::check_main(&ruby)?;
        let native: &T = &*rb_sys::RTYPEDDATA_GET_DATA(native).cast();
        // Converted to a VALUE in here: moving the `Result<bool, Error>` costs more than the rest of this function.
        let is_recorded = native.record_heartbeat(&ruby, Value::from_raw(*argv), None)?;
        Ok(ruby.into_value(is_recorded).as_raw())
    }));
    match result {
        Ok(Ok(value)) => value,
        // SAFETY: no value that has a destructor is left in this frame.
        Ok(Err(error)) | Err(error) => unsafe { resume_error(error) },
    }
}

#[cold]
fn wrong_number(ruby: &Ruby, given: c_int) -> Error {
    let message = format!("wrong number of arguments (given {given}, expected 1)");
    Error::new(ruby.exception_arg_error(), message)
}
