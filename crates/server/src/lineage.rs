//! Identity of the store, and of this run of the control plane on it: decides for callers that resume from a position
//! whether this store contains it. Knows no records.

use rota_proto::{num, v1};
use rota_store::Snapshot;
use uuid::Uuid;

/// Store and run that a position comes from. A store that was restored from a backup has the identity of the original,
/// and another history after the backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lineage {
    store: Uuid,
    run: u32,
    /// Revision at which this run began.
    began: u64,
}

/// Part of a token that identifies its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    store: u32,
    run: u32,
}

impl Lineage {
    /// Creates the lineage of a run that begins with this snapshot.
    pub(crate) fn begin(snapshot: &Snapshot) -> Self {
        Self { store: snapshot.store, run: Uuid::new_v4().as_fields().0, began: snapshot.revision }
    }

    /// Returns whether this store contains what another run, or this one, had committed up to a revision.
    pub(crate) fn contains(&self, origin: Origin, revision: u64) -> bool {
        let own = self.origin();
        // What an earlier run committed after the present one began was lost: the store was restored from a backup.
        own.store == origin.store && (own.run == origin.run || revision <= self.began)
    }

    /// Returns the revision at which this run began.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    fn origin(&self) -> Origin {
        Origin { store: self.store.as_fields().0, run: self.run }
    }

    /// Returns the store's version at a revision, as the API has it.
    pub(crate) fn version(&self, revision: u64) -> v1::StoreVersion {
        let run = format!("{:08x}", self.run);
        v1::StoreVersion { id: self.store.to_string(), run, revision: num::to_i64(revision) }
    }
}

impl std::fmt::Display for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Origin { store, run } = self.origin();
        write!(f, "{store:08x}-{run:08x}")
    }
}

impl Origin {
    /// Reads what [`Lineage`] displays as.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (store, run) = text.split_once('-')?;
        Some(Self { store: u32::from_str_radix(store, 16).ok()?, run: u32::from_str_radix(run, 16).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(store: u128, revision: u64) -> Lineage {
        Lineage::begin(&Snapshot { store: Uuid::from_u128(store << 96), revision, ..Snapshot::default() })
    }

    #[test]
    fn position_is_valid_only_in_its_own_history() {
        let first = run(1, 100);
        let origin = Origin::parse(&first.to_string()).unwrap();
        assert!(first.contains(origin, 500));
        assert!(run(1, 500).contains(origin, 500), "an ordinary restart");
        assert!(
            !run(1, 499).contains(origin, 500),
            "restored from a backup, whatever it has committed since"
        );
        assert!(!run(2, 900).contains(origin, 500), "another store");
        assert_eq!(Origin::parse("x"), None);
    }
}
