//! The application's last version, which the reactor asks for before the member begins.

use magnus::{Error, Ruby};

use super::NativeMember;
use crate::handle::NativeObject;

impl NativeMember {
    /// `await_last_version`: has this process' member leave the store alone, once it is started, until `last_version=`
    pub(super) fn await_last_version(ruby: &Ruby, this: &NativeMember) -> Result<(), Error> {
        this.local(ruby)?.await_last_version();
        Ok(())
    }

    /// `last_version=(version)`: the store gives out higher versions from now on
    pub(super) fn set_last_version(this: &NativeMember, version: u64) {
        if let Some(member) = this.handle.current() {
            member.set_last_version(version);
        }
    }
}
