//! What can be wrong with a store.

use std::fmt;

/// Why a store did not do what it was asked for. Nothing has changed in it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It will not go away by itself: the file is no database, say, or may not be written.
    Misconfigured(String),
    /// It may be there again in a moment: the file is locked, the disk full.
    Unavailable(String),
    /// It is there, but another one than before: what was in it is gone.
    Replaced(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Misconfigured(message) | StoreError::Unavailable(message) | StoreError::Replaced(message) => {
                formatter.write_str(message)
            }
        }
    }
}

impl std::error::Error for StoreError {}
