//! The proc that a config's `setup` is given: a heartbeat per call.
//!
//! It is made by Ruby's own function and not by magnus', whose procs keep what they have captured in an
//! instance variable: a copy of such a proc has none (`dup` makes one, and so does `define_method`), and
//! may outlive it. What this one is given Ruby keeps alive, and in its place, as long as there is a copy.

use std::ffi::c_int;
use std::panic::AssertUnwindSafe;

use magnus::block::Proc;
use magnus::rb_sys::{AsRawValue, FromRawValue, catch_unwind, resume_error};
use magnus::typed_data::Obj;
use magnus::{Error, Ruby, Value, prelude::*};
use rb_sys::VALUE;

use crate::handle::NativeObject;
use crate::ractor;

/// A proc that takes one id and answers what `native.seen(id)` does.
pub(crate) fn new<T: NativeObject>(native: Obj<T>) -> Result<Proc, Error> {
    // SAFETY: `call` is such a function, and relies on its second argument to be a T.
    let raw = unsafe { Value::from_raw(rb_sys::rb_proc_new(Some(call::<T>), native.as_raw())) };
    Proc::try_convert(raw)
}

/// Called by Ruby for each call of the proc.
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
    // SAFETY: this is a thread of Ruby's, since Ruby calls; `native` is what the proc was made with, and lives
    // as long as the proc; there are `argc` arguments, which live as long as the call.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe {
        let ruby = Ruby::get_unchecked();
        if argc != 1 {
            return Err(wrong_number(&ruby, argc));
        }
        ractor::check_main(&ruby)?;
        let native: &T = &*rb_sys::RTYPEDDATA_GET_DATA(native).cast();
        // Made a VALUE in here: moving a `Result` of it about costs more than the rest of this function.
        let is_recorded = native.record_heartbeat(&ruby, Value::from_raw(*argv), None)?;
        Ok(ruby.into_value(is_recorded).as_raw())
    }));
    match result {
        Ok(Ok(value)) => value,
        // SAFETY: nothing is left to be dropped.
        Ok(Err(error)) | Err(error) => unsafe { resume_error(error) },
    }
}

#[cold]
fn wrong_number(ruby: &Ruby, given: c_int) -> Error {
    let message = format!("wrong number of arguments (given {given}, expected 1)");
    Error::new(ruby.exception_arg_error(), message)
}
