//! Errors of a store.

use std::fmt;

/// Why a call of a store failed. The message names the store and is meant for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// A permanent error, which an operator has to mend: the file is no database, say, or may not be written.
    Misconfigured(String),
    /// A temporary error: the file is locked, the disk full, the server away. It is not known whether the call had an
    /// effect; the member retries.
    Unavailable(String),
    /// The store works, but has lost its data. The call had no effect; the member writes everyone who is online again.
    Replaced(String),
    /// There is no such store yet, or no such namespace in it: only [`Access::Inspect`](crate::store_url::Access) finds
    /// that out.
    Missing(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Misconfigured(message)
            | StoreError::Unavailable(message)
            | StoreError::Replaced(message)
            | StoreError::Missing(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for StoreError {}
