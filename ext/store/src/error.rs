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

impl StoreError {
    /// The error for a namespace that is not in the store. `names` are those that are.
    pub(crate) fn missing_namespace(store: &dyn fmt::Display, namespace: &str, names: &[String]) -> StoreError {
        let what = if namespace.is_empty() { "without a name".to_owned() } else { format!("{namespace:?}") };
        let quoted = |name: &String| {
            if name.is_empty() { "the one without a name".to_owned() } else { format!("{name:?}") }
        };
        let there_are = match names {
            [] => "there is none yet".to_owned(),
            [name] => format!("there is {}", quoted(name)),
            [names @ .., last] => {
                let names = names.iter().map(quoted).collect::<Vec<_>>().join(", ");
                format!("there are {names} and {}", quoted(last))
            }
        };
        StoreError::Missing(format!(
            "{store}: there is no namespace {what} in it; {there_are}. Check the name; the first process that \
             participates creates it"
        ))
    }
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
