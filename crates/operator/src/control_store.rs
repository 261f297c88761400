//! Which store the control plane has, as the demand stream reports it. What the operator has registered and announced holds
//! only for that store: after a restart on another one, or on a backup, all of it is registered again.

use parking_lot::Mutex;
use rota_proto::v1;
use tokio::sync::watch;

/// Tracker of the control plane's store. Shared by the reconcilers, written by the demand stream.
#[derive(Debug, Default)]
pub(crate) struct ControlStore {
    version: Mutex<Option<v1::StoreVersion>>,
    generation: watch::Sender<Generation>,
}

/// Why the control plane may lack records that it had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The store has another identity.
    Replaced,
    /// The store is the same with fewer commits.
    Restored,
}

impl Loss {
    /// Describes what happened to the store.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Replaced => "the store of the control plane was replaced by another one",
            Self::Restored => "the store of the control plane was restored from a backup",
        }
    }
}

/// Run of the control plane on a store, as far as this operator has observed it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    number: u64,
    /// What happened to the store last, and the generation that began with it.
    lost: Option<(u64, Loss)>,
}

impl Generation {
    /// Returns what happened to the store since an earlier generation began.
    pub(crate) fn loss_since(self, earlier: Self) -> Option<Loss> {
        self.lost.filter(|(at, _)| *at > earlier.number).map(|(_, loss)| loss)
    }

    /// Returns what happened to the store since the operator was started, or while it was away.
    pub(crate) fn loss(self) -> Option<Loss> {
        self.loss_since(Self::default())
    }
}

/// Change of the store since the previous response of the demand stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreChange {
    None,
    /// The control plane was started again on the same store. A backup that is newer than the last response looks the
    /// same, so that registrations are repeated all the same; unchanged ones cost no commit.
    Restarted,
    Lost(Loss),
}

impl ControlStore {
    /// Takes in the version that a response contains.
    pub(crate) fn observe(&self, version: v1::StoreVersion) -> StoreChange {
        let mut known = self.version.lock();
        let change = match &*known {
            None => StoreChange::None,
            Some(old) if old.id != version.id => StoreChange::Lost(Loss::Replaced),
            Some(old) if version.revision < old.revision => StoreChange::Lost(Loss::Restored),
            Some(old) if old.run != version.run => StoreChange::Restarted,
            Some(_) => StoreChange::None,
        };
        *known = Some(version);
        if change != StoreChange::None {
            self.generation.send_modify(|generation| {
                generation.number += 1;
                if let StoreChange::Lost(loss) = change {
                    generation.lost = Some((generation.number, loss));
                }
            });
        }
        change
    }

    /// Returns the version that was taken in last.
    pub(crate) fn version(&self) -> Option<v1::StoreVersion> {
        self.version.lock().clone()
    }

    /// Returns the current generation. What was registered in an earlier one must be registered again.
    pub(crate) fn generation(&self) -> Generation {
        *self.generation.borrow()
    }

    /// Returns a receiver that is notified when a generation begins.
    pub(crate) fn generations(&self) -> watch::Receiver<Generation> {
        self.generation.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: &str, run: &str, revision: i64) -> v1::StoreVersion {
        v1::StoreVersion { id: id.into(), run: run.into(), revision }
    }

    #[test]
    fn each_run_is_a_generation() {
        let store = ControlStore::default();
        let (first, generations) = (store.generation(), store.generations());
        assert_eq!(store.observe(version("a", "1", 10)), StoreChange::None);
        assert_eq!(store.observe(version("a", "1", 20)), StoreChange::None);
        assert_eq!(store.generation(), first);
        assert!(!generations.has_changed().unwrap());
        assert_eq!(store.observe(version("a", "2", 20)), StoreChange::Restarted);
        assert_ne!(store.generation(), first);
        assert!(generations.has_changed().unwrap(), "the sweep is woken");
        assert_eq!(store.generation().loss(), None);
    }

    #[test]
    fn lower_revision_or_other_id_is_a_loss() {
        let store = ControlStore::default();
        store.observe(version("a", "1", 10));
        assert_eq!(store.observe(version("a", "2", 9)), StoreChange::Lost(Loss::Restored));
        let restored = store.generation();
        assert_eq!(restored.loss(), Some(Loss::Restored));
        assert_eq!(store.observe(version("b", "3", 99)), StoreChange::Lost(Loss::Replaced));
        let replaced = store.generation();
        assert_eq!(replaced.loss_since(restored), Some(Loss::Replaced));
        // A later restart does not hide it.
        assert_eq!(store.observe(version("b", "4", 99)), StoreChange::Restarted);
        assert_eq!(store.generation().loss(), Some(Loss::Replaced));
        assert_eq!(store.generation().loss_since(replaced), None);
    }
}
