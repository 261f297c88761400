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
    /// The store is the same without commits that it had.
    Restored,
}

impl Loss {
    /// Describes what happened to the store.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Replaced => "the store of the control plane was replaced by another one",
            Self::Restored => {
                "the store of the control plane has lost commits: it was restored from a backup, or continues on a standby that lacks them"
            }
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
    /// The control plane was started again on the same store. Registrations are repeated all the same; unchanged ones cost
    /// no commit.
    Restarted,
    Lost(Loss),
}

/// Whether a version lacks commits of an earlier one: fewer are there, a run has begun after it without them, or its own run is
/// not there.
fn lacks(version: &v1::StoreVersion, old: &v1::StoreVersion) -> bool {
    if version.revision < old.revision {
        return true;
    }
    // Only the first version of a stream names the runs, and some control planes name none.
    if version.runs.is_empty() || old.run.is_empty() {
        return false;
    }
    let mut runs = version.runs.iter().skip_while(|run| run.run != old.run);
    // A run that is not named was before all of these, or its beginning itself was lost.
    runs.next().is_none() || runs.any(|run| run.began < old.revision)
}

impl ControlStore {
    /// Takes in the version that a response contains.
    pub(crate) fn observe(&self, version: v1::StoreVersion) -> StoreChange {
        let mut known = self.version.lock();
        let change = match &*known {
            None => StoreChange::None,
            Some(old) if old.id != version.id => StoreChange::Lost(Loss::Replaced),
            Some(old) if lacks(&version, old) => StoreChange::Lost(Loss::Restored),
            Some(old) if old.run != version.run => StoreChange::Restarted,
            Some(_) => StoreChange::None,
        };
        *known = Some(v1::StoreVersion { runs: Vec::new(), ..version });
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
        v1::StoreVersion { id: id.into(), run: run.into(), revision, runs: Vec::new() }
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

    /// The store has lost commits, and by now it has others in their place.
    #[test]
    fn run_that_began_without_known_commits_is_a_loss() {
        let run = |run: &str, began| v1::StoreRun { run: run.into(), began };
        let after = |runs: &[v1::StoreRun]| {
            let store = ControlStore::default();
            store.observe(version("a", "1", 500));
            store.observe(v1::StoreVersion { runs: runs.to_vec(), ..version("a", "3", 600) })
        };
        let lost = StoreChange::Lost(Loss::Restored);
        assert_eq!(after(&[run("1", 100), run("2", 450), run("3", 600)]), lost);
        assert_eq!(
            after(&[run("0", 50), run("1", 100), run("2", 500), run("3", 600)]),
            StoreChange::Restarted
        );
        assert_eq!(after(&[run("0", 50), run("3", 440)]), lost, "the beginning of the run was lost");
        assert_eq!(after(&[]), StoreChange::Restarted, "no run is named");
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
