//! The gem's own errors, as `lib/online_manager/error.rb` defines them.

use std::borrow::Cow;
use std::io;

use magnus::{Error, ExceptionClass, Module, RClass, Ruby};

/// Returns an `OnlineManager::Error`.
pub(crate) fn gem_error(ruby: &Ruby, message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(class(ruby, "Error"), message)
}

/// Returns an `OnlineManager::StoreError`.
pub(crate) fn store_error(ruby: &Ruby, message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(class(ruby, "StoreError"), message)
}

/// Returns an `OnlineManager::Error` for a refusal by the operating system. `action` is what failed: "starting a
/// thread".
pub(crate) fn system_error(ruby: &Ruby, action: &str, cause: &io::Error) -> Error {
    gem_error(ruby, format!("{action} failed: {cause}; check the limits of the process (ulimit -a)"))
}

/// Looks an error class up each time. The constant keeps the class alive, and an error is rare, so nothing is cached.
/// Falls back on RuntimeError if the extension was loaded without the gem's Ruby files.
#[cold]
fn class(ruby: &Ruby, name: &str) -> ExceptionClass {
    let class = ruby.class_object().const_get("OnlineManager").and_then(|manager: RClass| manager.const_get(name));
    class.unwrap_or_else(|_| ruby.exception_runtime_error())
}
