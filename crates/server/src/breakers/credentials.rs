//! Cool-downs of model credentials: follows those that the store keeps, holds back the workers that use such a credential, and
//! ends them in time. The rules are `rota_core::quota`'s. Tasks that bring a credential along are held back by the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rota_core::quota::{self, CoolDown, Phase};
use rota_core::task::{AttemptOutcome, State};
use rota_core::{AgentName, Namespace, Timestamp};
use rota_store::{Commit, CredentialKey};

use super::Breakers;
use crate::clock::now;
use crate::keys::AgentKey;
use crate::scheduler::Admission;
use crate::store_client::StoreClient;

/// Time after which a credential that no task has used again is forgotten.
const FORGET_AFTER: Duration = Duration::from_hours(24);
/// Delay before the end of a cool-down is committed again after the store was unavailable.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The cool-downs that the store keeps.
#[derive(Debug, Default)]
pub(super) struct CoolDowns {
    all: BTreeMap<CredentialKey, Arc<CoolDown>>,
    /// Those that are to end, until the commit that ends them.
    over: Vec<(CredentialKey, bool)>,
}

impl CoolDowns {
    fn end_of(&mut self, namespace: &Namespace, agent: &AgentName, fits: impl Fn(&CoolDown) -> bool) {
        let of_agent =
            |one: &CoolDown| one.namespace == *namespace && one.agents.contains(agent) && fits(one);
        let over = self.all.iter().filter(|(_, one)| of_agent(one)).map(|(key, _)| (key.clone(), true));
        self.over.extend(over);
    }
}

fn admission(phase: Phase) -> Admission {
    match phase {
        Phase::Cooling(_) => Admission::Closed,
        Phase::Probe => Admission::Probe,
        Phase::ProbeInFlight(_) => Admission::ProbeInFlight,
        Phase::Over => Admission::Open,
    }
}

/// Returns when a cool-down changes by itself.
fn next_change(cool_down: &CoolDown, now: Timestamp) -> Timestamp {
    match cool_down.phase(now) {
        Phase::Cooling(until) | Phase::ProbeInFlight(until) => until,
        Phase::Probe => cool_down.until + FORGET_AFTER,
        Phase::Over => now + RETRY_DELAY,
    }
}

impl Breakers {
    /// Restores the cool-downs that the store knows at the start.
    pub(crate) fn restore_cool_downs(&self, cool_downs: Vec<CoolDown>) {
        let mut known = self.cool_downs.lock();
        for cool_down in cool_downs {
            let key = (cool_down.namespace.clone(), cool_down.credential);
            self.scheduler.set_credential_admission(&key, admission(cool_down.phase(now())));
            known.all.insert(key, Arc::new(cool_down));
        }
        self.opened.notify_one();
    }

    /// Returns the cool-downs of a namespace, or all.
    pub(crate) fn cool_downs(&self, namespace: Option<&Namespace>) -> Vec<Arc<CoolDown>> {
        let known = self.cool_downs.lock();
        let fits = |one: &&Arc<CoolDown>| namespace.is_none_or(|namespace| one.namespace == *namespace);
        known.all.values().filter(fits).cloned().collect()
    }

    /// Returns the cool-downs of an agent's own credentials that hold back tasks.
    pub(crate) fn cool_downs_of(&self, agent: &AgentKey) -> Vec<Arc<CoolDown>> {
        let now = now();
        let holds = |one: &Arc<CoolDown>| one.agents.contains(&agent.1) && one.phase(now) != Phase::Over;
        self.cool_downs(Some(&agent.0)).into_iter().filter(holds).collect()
    }

    /// Takes in what a commit shows about credentials: which worker uses which, and how long each cools down.
    pub(super) fn observe_credentials(&self, commit: &Commit) {
        let mut replaced = Vec::new();
        for change in &commit.tasks {
            let Some(assignment) = &change.task.assignment else { continue };
            let Some(credential) = assignment.model.credential.filter(|_| change.task.credential.is_none())
            else {
                continue;
            };
            // Reports of a running attempt do not change it.
            if change.before != Some(State::Running) || change.events.is_empty() {
                let worker = (change.task.namespace.clone(), assignment.worker.clone());
                let before = self.scheduler.set_credential(&worker, credential);
                replaced.extend(before.map(|before| (worker.0, before)));
            }
        }
        let mut known = self.cool_downs.lock();
        if known.all.is_empty() && commit.cool_downs.is_empty() {
            return;
        }
        let now = now();
        for change in &commit.cool_downs {
            let cool_down = &change.cool_down;
            let key = (cool_down.namespace.clone(), cool_down.credential);
            let phase = if change.over { Phase::Over } else { cool_down.phase(now) };
            // Under the lock, so that the admission never lags behind a later decision.
            self.scheduler.set_credential_admission(&key, admission(phase));
            known.over.retain(|(over, _)| *over != key);
            if change.over {
                known.all.remove(&key);
                tracing::info!(namespace = %key.0, credential = %key.1, "a credential may be used again");
            } else {
                let before = known.all.insert(key, Arc::clone(cool_down));
                if before.is_none_or(|before| before.until != cool_down.until) {
                    tracing::warn!(
                        namespace = %cool_down.namespace, credential = %cool_down.credential, limit = cool_down.limit,
                        seconds = cool_down.until.since(now).as_secs(), "a credential cools down"
                    );
                }
                self.opened.notify_one();
            }
        }
        // Its probe has found another credential.
        for key in replaced {
            if known.all.get(&key).is_some_and(|one| one.phase(now) == Phase::Probe) {
                self.scheduler.set_credential_admission(&key, Admission::Probe);
            }
        }
        for ended in &commit.attempts_ended {
            let assignment = &ended.attempt.assignment;
            let worker = (ended.namespace().clone(), assignment.worker.clone());
            let of_worker = || self.scheduler.inspect(&worker, |entry| entry.credential).flatten();
            let Some(credential) = assignment.model.credential.or_else(of_worker) else { continue };
            let key = (worker.0.clone(), credential);
            // A probe that ended before it used the credential has shown nothing.
            let probes = |one: &Arc<CoolDown>| one.phase(now) == Phase::Probe && assignment.at >= one.until;
            if known.all.get(&key).is_some_and(probes) {
                self.scheduler.set_credential_admission(&key, Admission::Probe);
            }
            if ended.attempt.outcome == AttemptOutcome::Succeeded
                && ended.task.credential.is_none()
                && let Some(agent) = ended.agent()
            {
                known
                    .end_of(&key.0, agent, |one| one.limit == quota::INVALID && one.credential != credential);
                self.opened.notify_one();
            }
        }
    }

    /// Ends cool-downs of an agent's credentials: those that the model API rejects, since they may have been replaced, or all.
    pub(crate) fn end_cool_downs_of(&self, agent: &AgentKey, all: bool) {
        let fits = |one: &CoolDown| all || one.limit == quota::INVALID;
        self.cool_downs.lock().end_of(&agent.0, &agent.1, fits);
        self.opened.notify_one();
    }

    /// Admits probes that are due, and finds cool-downs that are over.
    pub(super) fn tick_credentials(&self) {
        let now = now();
        let CoolDowns { all, over } = &mut *self.cool_downs.lock();
        for (key, cool_down) in &*all {
            match cool_down.phase(now) {
                Phase::Over => over.push((key.clone(), false)),
                Phase::Probe if cool_down.until + FORGET_AFTER <= now => over.push((key.clone(), true)),
                Phase::Probe => self.scheduler.admit_probe(key),
                Phase::Cooling(_) | Phase::ProbeInFlight(_) => {}
            }
        }
        over.sort_unstable();
        over.dedup();
    }

    /// Commits the ends of cool-downs that are over: what waits for them continues.
    pub(super) async fn end_cool_downs(&self, store: &StoreClient) {
        let over = std::mem::take(&mut self.cool_downs.lock().over);
        if over.is_empty() {
            return;
        }
        if let Err(error) = store.end_cool_downs(over).await {
            tracing::warn!(%error, "failed to end the cool-down of a credential, retrying");
        }
    }

    pub(super) fn next_credential(&self) -> Option<Timestamp> {
        let now = now();
        let known = self.cool_downs.lock();
        let ends = (!known.over.is_empty()).then_some(now);
        known.all.values().map(|one| next_change(one, now)).chain(ends).min()
    }
}
