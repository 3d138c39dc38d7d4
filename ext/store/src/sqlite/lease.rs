//! The lease of the only partition.

use online_manager_tracker::Nanos;
use rusqlite::params;

use super::{Sqlite, to_sql};
use crate::boot_clock;
use crate::error::StoreError;
use crate::store::{LeaseState, Token};

impl Sqlite {
    /// Acquires or renews the lease, if it is free or the member holds it. Returns the state afterwards.
    pub(super) fn acquire(&mut self, token: Token, length: Nanos) -> Result<LeaseState, StoreError> {
        let now = to_sql(boot_clock::now());
        let before = self.lease_state(token)?;
        if before == LeaseState::HeldByOther {
            // No write, which would block other processes.
            return Ok(before);
        }
        self.transaction(|transaction, namespace| {
            let now = to_sql(boot_clock::now()).max(now);
            let until = now.saturating_add(to_sql(length));
            let update = "UPDATE namespaces SET lease = ?2, leased_until = ?4
                          WHERE number = ?1 AND (lease = ?2 OR lease IS NULL OR leased_until < ?3)";
            let count = transaction.prepare_cached(update)?.execute(params![namespace, token.0, now, until])?;
            Ok(match (count, before) {
                (0, _) => LeaseState::HeldByOther,
                (_, LeaseState::Renewed) => LeaseState::Renewed,
                _ => LeaseState::Acquired,
            })
        })
    }

    /// Returns the state of the lease. An expired lease is still the member's until another one acquires it.
    pub(super) fn lease_state(&mut self, token: Token) -> Result<LeaseState, StoreError> {
        let now = to_sql(boot_clock::now());
        self.read(|connection, namespace| {
            let query = "SELECT lease = ?2, lease IS NULL OR leased_until < ?3 FROM namespaces WHERE number = ?1";
            connection.prepare_cached(query)?.query_row(params![namespace, token.0, now], |row| {
                Ok(match (row.get::<_, Option<bool>>(0)?, row.get(1)?) {
                    (Some(true), _) => LeaseState::Renewed,
                    (_, true) => LeaseState::Free,
                    (_, false) => LeaseState::HeldByOther,
                })
            })
        })
    }

    /// Releases the lease, if the member holds it.
    pub(super) fn release(&mut self, token: Token) -> Result<(), StoreError> {
        self.transaction(|transaction, namespace| {
            let update = "UPDATE namespaces SET lease = NULL, leased_until = 0 WHERE number = ?1 AND lease = ?2";
            transaction.execute(update, params![namespace, token.0]).map(|_| ())
        })
    }
}
