//! Cool-downs of model credentials: learned from the ends of attempts, in their commit, and enforced for tasks that bring a
//! credential along, and for the probes of the others. Those that use their agent's are held back by the scheduler.

use std::ops::Bound;
use std::sync::Arc;

use rota_core::failure::{Class, Failure};
use rota_core::quota::{
    CoolDown, CredentialId, MAX_COOL_DOWNS, MAX_OWN_COOL_DOWNS, Phase, Probe, UsedCredential,
};
use rota_core::task::{AttemptOutcome, Command, EndedAttempt, State, Task, Transition};
use rota_core::{Fence, Namespace, TaskKey, Timestamp};

use super::{Answer, Engine};
use crate::{Backend, CoolDownChange, CoolDownEnd, CredentialKey, Error, FollowUp, Reply, WaitKey};

/// What an assignment may do with the credential of its worker's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Free,
    AsProbe,
    Forbidden,
}

impl<B: Backend> Engine<B> {
    /// Returns the cool-down of a credential in the current state of the batch.
    fn cool_down(&self, key: &CredentialKey) -> Option<&Arc<CoolDown>> {
        match self.write_set.cool_downs.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.memory.cool_downs.get(key),
        }
    }

    /// Returns the cool-downs of a namespace, of which there are few.
    fn cool_downs_in(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<CoolDown>> {
        let from = (Bound::Included((namespace.clone(), CredentialId([0; 8]))), Bound::Unbounded);
        let changed = self.write_set.cool_downs.range(from.clone());
        let changed = changed.take_while(|(key, _)| key.0 == *namespace).filter_map(|(_, one)| one.as_ref());
        let known = self.memory.cool_downs.range(from).take_while(|(key, _)| key.0 == *namespace);
        let same = known.filter(|(key, _)| !self.write_set.cool_downs.contains_key(key));
        changed.chain(same.map(|(_, one)| one))
    }

    /// Whether there is room for another cool-down of a namespace. Without one each task waits for itself.
    fn has_room(&self, namespace: &Namespace, own: bool) -> bool {
        let most = if own { MAX_OWN_COOL_DOWNS } else { MAX_COOL_DOWNS };
        self.cool_downs_in(namespace).take(most).count() < most
    }

    fn put_cool_down(&mut self, key: &CredentialKey, new: CoolDown) {
        if self.cool_down(key).is_some_and(|known| **known == new) {
            return;
        }
        let cool_down = Arc::new(new);
        self.write_set
            .cool_down_changes
            .push(CoolDownChange { cool_down: Arc::clone(&cool_down), over: false });
        self.write_set.cool_downs.insert(key.clone(), Some(cool_down));
    }

    /// Changes a cool-down, and lets tasks that wait for it look again.
    fn change_cool_down(&mut self, key: &CredentialKey, change: impl FnOnce(&mut CoolDown)) {
        let Some(known) = self.cool_down(key) else { return };
        let mut next = CoolDown::clone(known);
        change(&mut next);
        self.put_cool_down(key, next);
        self.resume_waiting(key);
    }

    /// Ends a cool-down: what waits for it continues.
    fn lift(&mut self, key: &CredentialKey) {
        let Some(cool_down) = self.cool_down(key).cloned() else { return };
        self.write_set.cool_down_changes.push(CoolDownChange { cool_down, over: true });
        self.write_set.cool_downs.insert(key.clone(), None);
        self.resume_waiting(key);
    }

    pub(super) fn resume_waiting(&mut self, key: &CredentialKey) {
        let waits = (key.0.clone(), WaitKey::Credential(key.1));
        self.write_set.pending.push(FollowUp::Lifted { waits });
    }

    pub(super) fn end_cool_down(&mut self, key: &CredentialKey, how: &CoolDownEnd, now: Timestamp) -> Answer {
        let Some(known) = self.cool_down(key) else { return Reply::Deleted.into() };
        match how {
            CoolDownEnd::Passed if known.phase(now) != Phase::Over => {}
            CoolDownEnd::Passed | CoolDownEnd::Forced => self.lift(key),
            CoolDownEnd::Probe => self.change_cool_down(key, |one| one.probe_now(now)),
            CoolDownEnd::Left(agent) if known.agents.iter().all(|one| one == agent) => self.lift(key),
            CoolDownEnd::Left(agent) => {
                let mut next = CoolDown::clone(known);
                next.agents.remove(agent);
                self.put_cool_down(key, next);
            }
        }
        Reply::Deleted.into()
    }

    /// Lets a ready task wait if it brings a credential that cools down. Returns whether it does.
    pub(super) fn cools_down(&mut self, key: TaskKey, now: Timestamp) -> Result<bool, Error> {
        let Some(task) = self.load(key)?.filter(|task| task.state == State::Queued) else { return Ok(false) };
        let Some(credential) = task.credential.filter(|_| !task.delivers()) else { return Ok(false) };
        let id = (task.namespace.clone(), credential);
        let Some((cool_down, until)) = self.cool_down(&id).and_then(|one| Some((one, one.wait(now)?))) else {
            return Ok(false);
        };
        let (limit, since) = (cool_down.limit.clone(), cool_down.since);
        let command = Command::AwaitQuota { credential, limit, since, until, retry_at: until };
        let _ = self.apply(key, command, now)?;
        Ok(self.load(key)?.is_some_and(|task| task.state == State::Pending))
    }

    /// Returns what a task that a worker would be assigned may do with the credential of the worker's agent.
    pub(super) fn use_of(&self, task: &Task, credential: Option<CredentialId>, now: Timestamp) -> Use {
        let calls_model = task.uses_agents_credential() && !task.delivers();
        let Some(credential) = credential.filter(|_| calls_model) else { return Use::Free };
        let known = self.cool_down(&(task.namespace.clone(), credential));
        match known.map_or(Phase::Over, |known| known.phase(now)) {
            Phase::Over => Use::Free,
            Phase::Probe => Use::AsProbe,
            Phase::Cooling(_) | Phase::ProbeInFlight(_) => Use::Forbidden,
        }
    }

    /// Registers an attempt that was assigned as the probe of a credential.
    pub(super) fn begin_probe(&mut self, key: TaskKey, credential: CredentialId, now: Timestamp) {
        let Some(entry) = self.write_set.get(key) else { return };
        let probe = Probe { task: entry.task.id, fence: entry.task.fence, since: now };
        let id = (entry.task.namespace.clone(), credential);
        let Some(known) = self.cool_down(&id) else { return };
        let next = CoolDown { probe: Some(probe), ..CoolDown::clone(known) };
        self.put_cool_down(&id, next);
    }

    /// Ends the probes that an attempt is, except of one credential: it shows nothing of them. Another one may.
    fn end_probes(&mut self, task: &Task, fence: Fence, except: Option<CredentialId>) {
        let is_its = |probe: Probe| probe.task == task.id && probe.fence == fence;
        let probed = self.cool_downs_in(&task.namespace).filter(|one| one.probe.is_some_and(is_its));
        let ids: Vec<_> = probed.map(|one| one.credential).filter(|id| Some(*id) != except).collect();
        for id in ids {
            self.change_cool_down(&(task.namespace.clone(), id), |one| one.probe = None);
        }
    }

    /// Takes in what a command on a task shows about its credential.
    pub(super) fn observe_credential(&mut self, key: TaskKey, out: &Transition) {
        if let Some(ended) = &out.attempt_ended {
            return self.observe_end(key, ended);
        }
        if self.memory.cool_downs.is_empty() && self.write_set.cool_downs.is_empty() {
            return;
        }
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { return };
        let Some(assignment) = &task.assignment else { return };
        let used = task.credential_of(assignment);
        if out.identified {
            self.end_probes(&task, task.fence, used.map(|used| used.id));
        }
        let Some(UsedCredential { id, own }) = used else { return };
        let id = (task.namespace.clone(), id);
        let Some(known) = self.cool_down(&id) else { return };
        if out.model_worked && known.is_disproved_by(assignment.at) {
            return self.lift(&id);
        }
        let mut next = CoolDown::clone(known);
        // Its worker had not named a credential before.
        if next.phase(assignment.at) == Phase::Probe {
            next.probe = Some(Probe { task: task.id, fence: task.fence, since: assignment.at });
        }
        if let (false, Some(agent)) = (own, &assignment.agent) {
            next.agents.insert(agent.clone());
        }
        self.put_cool_down(&id, next);
    }

    fn observe_end(&mut self, key: TaskKey, ended: &EndedAttempt) {
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { return };
        let shown = match task.credential_of(&ended.assignment) {
            Some(used) if self.shows(key, &task, ended, used) => Some(used.id),
            _ => None,
        };
        self.end_probes(&task, ended.fence, shown);
    }

    /// Takes in what the end of an attempt shows about a credential. Returns whether it shows something.
    fn shows(&mut self, key: TaskKey, task: &Task, ended: &EndedAttempt, used: UsedCredential) -> bool {
        let assignment = &ended.assignment;
        let id = (task.namespace.clone(), used.id);
        // A task that brings a wrong key, or has chosen one, fails by itself.
        let blamed =
            |failure: &&Failure| failure.class != Class::Auth || assignment.own.authenticates_as_agent();
        let failure = ended.failure.as_ref().filter(|failure| CoolDown::concerns(failure));
        let known = self.cool_down(&id).cloned();
        let Some(failure) = failure else {
            let works = ended.outcome == AttemptOutcome::Succeeded
                && known.is_some_and(|known| known.is_disproved_by(assignment.at));
            if works {
                self.lift(&id);
            }
            return works;
        };
        let Some(failure) = Some(failure).filter(blamed) else { return false };
        if known.is_none() && !self.has_room(&task.namespace, used.own) {
            return false;
        }
        let mut next = CoolDown::after(
            known.as_deref(),
            &task.namespace,
            used.id,
            failure,
            assignment.at,
            ended.at,
            assignment.jitter(),
        );
        if let (false, Some(agent)) = (used.own, &assignment.agent) {
            next.agents.insert(agent.clone());
        }
        let wait = Command::AwaitQuota {
            credential: used.id,
            limit: next.limit.clone(),
            since: next.since,
            until: next.until,
            // It is the one that tries.
            retry_at: next.probe_at,
        };
        self.put_cool_down(&id, next);
        self.write_set.next.push_back((key, wait));
        true
    }
}
