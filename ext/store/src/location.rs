//! Which store a `store:` option means.

use std::path::PathBuf;

use crate::error::StoreError;
use crate::sqlite::Sqlite;
use crate::store::Store;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file of SQLite's.
    Sqlite(PathBuf),
}

impl Location {
    /// Reads a `store:` option: `sqlite:PATH`.
    ///
    /// # Errors
    ///
    /// A message that says what came and what was wanted.
    pub fn parse(url: &str) -> Result<Location, String> {
        match url.split_once(':') {
            Some(("sqlite", "")) => Err(format!("the store {url:?} names no file; it must be \"sqlite:PATH\"")),
            Some(("sqlite", path)) => Ok(Location::Sqlite(PathBuf::from(path))),
            _ => Err(format!("unknown store {url:?}; there is :memory and \"sqlite:PATH\"")),
        }
    }

    /// Opens the store. Blocks.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    pub fn open(&self, namespace: &str) -> Result<Box<dyn Store>, StoreError> {
        match self {
            Location::Sqlite(path) => Ok(Box::new(Sqlite::open(path, namespace)?)),
        }
    }
}
