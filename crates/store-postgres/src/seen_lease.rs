//! The lease of an owner as others see it: over once it is not renewed any more, whenever it ends by the clock of the database. Knows no SQL.

use rota_core::time::micros;
use uuid::Uuid;

use crate::lease::LEASE;

/// The lease of an owner, as a control plane that waits for it has first seen it.
#[derive(Debug, Default)]
pub(crate) struct SeenLease {
    /// The owner, and the end of its lease by the clock of the database: another one after each renewal.
    lease: Option<(Uuid, i64)>,
    since: i64,
}

impl SeenLease {
    /// Whether the lease was not renewed for as long as it lasts, by a clock that is never set. By that of the database, if it was set
    /// back, or that of a promoted server, if it is behind, it may end much later.
    pub(crate) fn is_over(&mut self, lease: (Uuid, i64), now: i64) -> bool {
        if self.lease != Some(lease) {
            (self.lease, self.since) = (Some(lease), now);
        }
        now - self.since > micros(LEASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_is_over_once_it_is_not_renewed() {
        let (owner, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (mut lease, length) = (SeenLease::default(), micros(LEASE));
        assert!(!lease.is_over((owner, 100), 5));
        assert!(!lease.is_over((owner, 100), 5 + length));
        // Set back, the clock of the database gives a renewal an earlier end.
        assert!(!lease.is_over((owner, 90), 6 + length));
        assert!(!lease.is_over((owner, 90), 6 + 2 * length));
        assert!(!lease.is_over((other, 90), 7 + 2 * length));
        assert!(lease.is_over((other, 90), 8 + 3 * length));
    }
}
