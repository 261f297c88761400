//! Cool-downs of model credentials: follows those that the store keeps, holds back the workers that use such a credential, and
//! ends them in time. The rules are `rota_core::quota`'s. Tasks that bring a credential along are held back by the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_core::quota::{CoolDown, Phase};
use rota_core::task::State;
use rota_store::{Commit, CoolDownEnd, CredentialKey};
use tonic::Status;

use super::Breakers;
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
    over: Vec<(CredentialKey, CoolDownEnd)>,
    /// Agents that wait for their credentials, as the store knows.
    held: BTreeMap<AgentKey, Timestamp>,
    /// Whether the store knows of those that have waited since before the start.
    restored: bool,
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
        Phase::Probe if cool_down.reset_known => cool_down.until,
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
            self.scheduler.set_cool_down(&key, admission(cool_down.phase(self.now())), &cool_down.agents);
            known.all.insert(key, Arc::new(cool_down));
        }
        self.opened.notify_one();
    }

    /// Returns the cool-downs of an agent's own credentials that hold back tasks.
    pub(crate) fn cool_downs_of(&self, agent: &AgentKey) -> Vec<Arc<CoolDown>> {
        let limited = self.scheduler.limited(agent);
        if limited.is_empty() {
            return Vec::new();
        }
        let (now, known) = (self.now(), self.cool_downs.lock());
        let found = limited.into_iter().filter_map(|id| known.all.get(&(agent.0.clone(), id)));
        found.filter(|one| one.phase(now) != Phase::Over).cloned().collect()
    }

    /// Takes in what a commit shows about credentials: which worker uses which, and how long each cools down.
    pub(super) fn observe_credentials(&self, commit: &Commit) {
        let mut users = Vec::new();
        for change in &commit.tasks {
            let task = &change.task;
            let Some(assignment) = &task.assignment else { continue };
            // Reports of a running attempt do not change it.
            if change.before == Some(State::Running) && !change.events.is_empty() && !change.identified {
                continue;
            }
            if let Some(used) = task.credential_of(assignment).filter(|used| !used.own) {
                self.scheduler.set_credential(&(task.namespace.clone(), assignment.worker.clone()), used.id);
                users.extend(assignment.agent.clone().map(|agent| (task.namespace.clone(), agent)));
            }
        }
        // The worker may have named it in the commit in which the attempt ended.
        for ended in &commit.attempts_ended {
            let assignment = &ended.attempt.assignment;
            let worker = (ended.namespace().clone(), assignment.worker.clone());
            let used = ended.task.credential_of(assignment).filter(|used| !used.own);
            if let Some(used) = used
                && self.scheduler.inspect(&worker, |entry| entry.credential.is_none()) == Some(true)
            {
                self.scheduler.set_credential(&worker, used.id);
            }
        }
        let mut known = self.cool_downs.lock();
        if known.all.is_empty() && commit.cool_downs.is_empty() {
            return;
        }
        let now = self.now();
        for change in &commit.cool_downs {
            let cool_down = &change.cool_down;
            let key = (cool_down.namespace.clone(), cool_down.credential);
            known.over.retain(|(over, _)| *over != key);
            // Under the lock, so that the admission never lags behind a later decision.
            if change.over {
                self.scheduler.set_cool_down(&key, Admission::Open, &BTreeSet::new());
                known.all.remove(&key);
                tracing::info!(namespace = %key.0, credential = %key.1, "a credential may be used again");
            } else {
                self.scheduler.set_cool_down(&key, admission(cool_down.phase(now)), &cool_down.agents);
                let before = known.all.insert(key, Arc::clone(cool_down));
                if before.is_none_or(|before| before.until != cool_down.until) {
                    tracing::warn!(
                        namespace = %cool_down.namespace, credential = %cool_down.credential, limit = cool_down.limit,
                        seconds = cool_down.until.since(now).as_secs(), "a credential cools down"
                    );
                }
            }
            self.opened.notify_one();
        }
        // Those that their workers do not use any more hold no task back.
        for agent in users {
            for id in self.scheduler.unused_credentials(&agent) {
                known.over.push(((agent.0.clone(), id), CoolDownEnd::Left(agent.1.clone())));
                self.opened.notify_one();
            }
        }
    }

    /// Lets a task try the credentials of an agent that cool down, since they may have been replaced.
    pub(crate) fn credentials_may_differ(&self, agent: &AgentKey) {
        let limited = self.scheduler.limited(agent).into_iter();
        self.scheduler.forget_credentials(agent);
        let ends = limited.map(|id| ((agent.0.clone(), id), CoolDownEnd::Probe));
        self.cool_downs.lock().over.extend(ends);
        self.opened.notify_one();
    }

    /// Lets the cool-downs of an agent that is deleted be none of its.
    pub(crate) fn leave_cool_downs(&self, agent: &AgentKey) {
        let limited = self.scheduler.limited(agent).into_iter();
        let ends = limited.map(|id| ((agent.0.clone(), id), CoolDownEnd::Left(agent.1.clone())));
        self.cool_downs.lock().over.extend(ends);
        self.opened.notify_one();
    }

    /// Ends the cool-downs of an agent's credentials.
    pub(crate) async fn end_cool_downs_of(
        &self,
        agent: &AgentKey,
        store: &StoreClient,
    ) -> Result<(), Status> {
        let limited = self.scheduler.limited(agent).into_iter();
        let ends = limited.map(|id| ((agent.0.clone(), id), CoolDownEnd::Forced)).collect();
        store.end_cool_downs(ends).await
    }

    /// Ends the cool-down of a credential. Returns whether there was one.
    pub(crate) async fn end_cool_down(
        &self,
        key: CredentialKey,
        store: &StoreClient,
    ) -> Result<bool, Status> {
        let exists = self.cool_downs.lock().all.contains_key(&key);
        store.end_cool_downs(vec![(key, CoolDownEnd::Forced)]).await?;
        Ok(exists)
    }

    /// Admits what the cool-downs admit now, and finds those that are over.
    pub(super) fn tick_credentials(&self) {
        let now = self.now();
        let CoolDowns { all, over, .. } = &mut *self.cool_downs.lock();
        for (key, cool_down) in &*all {
            match cool_down.phase(now) {
                Phase::Over => over.push((key.clone(), CoolDownEnd::Passed)),
                Phase::Probe if next_change(cool_down, now) <= now => {
                    over.push((key.clone(), CoolDownEnd::Forced));
                }
                phase => self.scheduler.set_cool_down(key, admission(phase), &cool_down.agents),
            }
        }
        over.sort_unstable();
        over.dedup();
    }

    /// Commits the ends of cool-downs that are over: what waits for them continues. And reports to the store which agents wait,
    /// whose tasks do not time out meanwhile.
    pub(super) async fn end_cool_downs(&self, store: &StoreClient) {
        let over = std::mem::take(&mut self.cool_downs.lock().over);
        if !over.is_empty()
            && let Err(error) = store.end_cool_downs(over.clone()).await
        {
            tracing::warn!(%error, "failed to end the cool-down of a credential, retrying");
            self.cool_downs.lock().over.extend(over);
            tokio::time::sleep(RETRY_DELAY).await;
        }
        let Some(held) = self.changed_holds() else { return };
        match store.hold_agents(held.clone()).await {
            Ok(()) => {
                let mut known = self.cool_downs.lock();
                (known.held, known.restored) = (held, true);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to report to the store which agents wait, retrying");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Returns the agents that wait for their credentials, and since when, if that has changed.
    pub(super) fn changed_holds(&self) -> Option<BTreeMap<AgentKey, Timestamp>> {
        let (now, agents) = (self.now(), self.scheduler.held_agents());
        let known = self.cool_downs.lock();
        // Before the start they waited as long as there was reason to.
        let began = |agent: &AgentKey| {
            let of_agent =
                known.all.values().filter(|one| one.namespace == agent.0 && one.agents.contains(&agent.1));
            of_agent.map(|one| one.since).min()
        };
        let since = |agent: &AgentKey| {
            known.held.get(agent).copied().or_else(|| began(agent).filter(|_| !known.restored)).unwrap_or(now)
        };
        let held: BTreeMap<_, _> = agents.into_iter().map(|agent| (agent.clone(), since(&agent))).collect();
        (!held.keys().eq(known.held.keys())).then_some(held)
    }

    pub(super) fn next_credential(&self) -> Option<Timestamp> {
        let now = self.now();
        let holds = self.changed_holds().map(|_| now);
        let known = self.cool_downs.lock();
        let ends = (!known.over.is_empty()).then_some(now).or(holds);
        known.all.values().map(|one| next_change(one, now)).chain(ends).min()
    }
}
