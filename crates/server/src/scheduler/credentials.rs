//! Model credentials of workers, and what may be given to the workers that use one while it cools down. A change of it costs
//! work for each of these workers; nothing else does.

use std::collections::{BTreeSet, HashMap};

use rota_core::WorkerName;
use rota_core::quota::CredentialId;
use rota_store::CredentialKey;

use super::admission::Admission;
use super::state::State;
use super::{Scheduler, WorkerEntry};
use crate::keys::WorkerKey;

#[derive(Debug, Default)]
struct CredentialEntry {
    admission: Admission,
    workers: BTreeSet<WorkerName>,
}

/// Workers by the credential of their agent that they use.
#[derive(Debug, Default)]
pub(super) struct Credentials(HashMap<CredentialKey, CredentialEntry>);

fn key(entry: &WorkerEntry) -> Option<CredentialKey> {
    Some((entry.profile.namespace.clone(), entry.credential?))
}

impl Credentials {
    /// Adds a worker. Returns what it may be given.
    pub(super) fn join(&mut self, worker: &WorkerEntry) -> Admission {
        let Some(key) = key(worker) else { return Admission::Open };
        let known = self.0.entry(key).or_default();
        known.workers.insert(worker.profile.worker.clone());
        known.admission
    }

    pub(super) fn leave(&mut self, worker: &WorkerEntry) {
        let Some(key) = key(worker) else { return };
        if let Some(known) = self.0.get_mut(&key) {
            known.workers.remove(&worker.profile.worker);
        }
        self.forget(&key);
    }

    fn forget(&mut self, key: &CredentialKey) {
        let idle = |known: &CredentialEntry| known.workers.is_empty() && known.admission == Admission::Open;
        if self.0.get(key).is_some_and(idle) {
            self.0.remove(key);
        }
    }

    fn admission(&self, key: &CredentialKey) -> Admission {
        self.0.get(key).map(|known| known.admission).unwrap_or_default()
    }
}

impl State {
    fn set_credential_admission(&mut self, key: &CredentialKey, admission: Admission) {
        let known = self.credentials.0.entry(key.clone()).or_default();
        let before = std::mem::replace(&mut known.admission, admission);
        let workers = if before == admission { BTreeSet::new() } else { known.workers.clone() };
        self.credentials.forget(key);
        for worker in workers {
            self.with_entry(&(key.0.clone(), worker), |entry| entry.quota = admission);
        }
        self.mark_changed();
    }

    /// Takes the probe of a worker's credential, if it is due. Returns the credential that the probe is for.
    pub(super) fn take_quota_probe(&mut self, worker: &WorkerKey) -> Option<CredentialKey> {
        let key = key(self.workers.get(worker)?)?;
        if self.credentials.admission(&key) != Admission::Probe {
            return None;
        }
        self.set_credential_admission(&key, Admission::ProbeInFlight);
        Some(key)
    }

    /// Gives back a probe that no task came of, so that the next task may be it.
    pub(super) fn return_quota_probe(&mut self, key: &CredentialKey) {
        if self.credentials.admission(key) == Admission::ProbeInFlight {
            self.set_credential_admission(key, Admission::Probe);
        }
    }
}

impl Scheduler {
    /// Sets what the workers that use a credential may be given from now on.
    pub(crate) fn set_credential_admission(&self, key: &CredentialKey, admission: Admission) {
        self.state().set_credential_admission(key, admission);
    }

    /// Lets one task probe a credential, unless one does already.
    pub(crate) fn admit_probe(&self, key: &CredentialKey) {
        let mut state = self.state();
        if state.credentials.admission(key) == Admission::Closed {
            state.set_credential_admission(key, Admission::Probe);
        }
    }

    /// Sets the credential of its agent that a worker uses. Returns another one that it used before.
    pub(crate) fn set_credential(&self, key: &WorkerKey, credential: CredentialId) -> Option<CredentialId> {
        let mut state = self.state();
        let State { workers, credentials, .. } = &mut *state;
        let entry = workers.get_mut(key).filter(|entry| entry.credential != Some(credential))?;
        credentials.leave(entry);
        let before = entry.credential.replace(credential);
        let quota = credentials.join(entry);
        state.with_entry(key, |entry| entry.quota = quota);
        before
    }
}
