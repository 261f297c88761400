//! Cool-downs of model credentials: learned from the ends of attempts, in their commit, and enforced for tasks that bring a
//! credential along. Those that use their agent's are held back by the scheduler.

use std::sync::Arc;

use rota_core::failure::Class;
use rota_core::quota::{CoolDown, Phase, Probe};
use rota_core::task::{AttemptOutcome, Command, EndedAttempt, State, Transition};
use rota_core::{TaskKey, Timestamp};

use super::{Answer, Engine};
use crate::{Backend, CoolDownChange, CredentialKey, Error, FollowUp, Reply, WaitKey};

impl<B: Backend> Engine<B> {
    /// Returns the cool-down of a credential in the current state of the batch.
    fn cool_down(&self, key: &CredentialKey) -> Option<&Arc<CoolDown>> {
        match self.write_set.cool_downs.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.memory.cool_downs.get(key),
        }
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

    /// Ends a cool-down: what waits for it continues.
    fn lift(&mut self, key: &CredentialKey) {
        let Some(cool_down) = self.cool_down(key).cloned() else { return };
        self.write_set.cool_down_changes.push(CoolDownChange { cool_down, over: true });
        self.write_set.cool_downs.insert(key.clone(), None);
        self.resume_waiting(key);
    }

    fn resume_waiting(&mut self, key: &CredentialKey) {
        let waits = (key.0.clone(), WaitKey::Credential(key.1));
        self.write_set.pending.push(FollowUp::Lifted { waits });
    }

    /// Ends a cool-down whose end the model API has named and that has passed, or any.
    pub(super) fn end_cool_down(&mut self, key: CredentialKey, force: bool, now: Timestamp) -> Answer {
        if self.cool_down(&key).is_some_and(|known| force || known.phase(now) == Phase::Over) {
            self.lift(&key);
        }
        Reply::Deleted.into()
    }

    /// Lets a ready task wait if it brings a credential that cools down. Returns whether it does.
    pub(super) fn cools_down(&mut self, key: TaskKey, now: Timestamp) -> Result<bool, Error> {
        let Some(task) = self.load(key)? else { return Ok(false) };
        let Some(credential) = task.credential else { return Ok(false) };
        let id = (task.namespace.clone(), credential);
        self.wait_for(key, &id, now)
    }

    /// Lets a ready task wait whose agent's credential cools down: its queue timeout does not count that. Returns whether it
    /// does.
    pub(super) fn await_agents_credential(&mut self, key: TaskKey, now: Timestamp) -> Result<bool, Error> {
        if self.memory.cool_downs.is_empty() {
            return Ok(false);
        }
        let Some(task) = self.load(key)?.filter(|task| task.state == State::Queued) else { return Ok(false) };
        let Some(agent) = task.agent().cloned() else { return Ok(false) };
        let namespace = task.namespace.clone();
        let mut known = self.memory.cool_downs.iter();
        let found = known.find(|((of, _), one)| {
            *of == namespace && one.agents.contains(&agent) && one.wait(now).is_some()
        });
        match found.map(|(id, _)| id.clone()) {
            Some(id) => self.wait_for(key, &id, now),
            None => Ok(false),
        }
    }

    fn wait_for(&mut self, key: TaskKey, id: &CredentialKey, now: Timestamp) -> Result<bool, Error> {
        let Some((cool_down, until)) = self.cool_down(id).and_then(|one| Some((one, one.wait(now)?))) else {
            return Ok(false);
        };
        let (credential, limit, since) = (id.1, cool_down.limit.clone(), cool_down.since);
        let command = Command::AwaitQuota { credential, limit, since, until };
        let _ = self.apply(key, command, now)?;
        Ok(true)
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
        let Some(credential) = assignment.model.credential else { return };
        let id = (task.namespace.clone(), credential);
        let Some(known) = self.cool_down(&id) else { return };
        if out.model_worked && known.is_disproved_by(assignment.at) {
            return self.lift(&id);
        }
        let mut next = CoolDown::clone(known);
        if next.phase(assignment.at) == Phase::Probe {
            next.probe = Some(Probe { task: task.id, fence: task.fence, since: assignment.at });
        }
        if let (false, Some(agent)) = (task.credential.is_some(), &assignment.agent) {
            next.agents.insert(agent.clone());
        }
        self.put_cool_down(&id, next);
    }

    fn observe_end(&mut self, key: TaskKey, ended: &EndedAttempt) {
        let assignment = &ended.assignment;
        let Some(credential) = assignment.model.credential else { return };
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { return };
        let id = (task.namespace.clone(), credential);
        let known = self.cool_down(&id).cloned();
        let failure = ended.failure.as_ref().filter(|failure| CoolDown::concerns(failure));
        match failure {
            // A task that brings a wrong key, or has chosen one, fails by itself.
            Some(failure) if failure.class == Class::Auth && !assignment.own.authenticates_as_agent() => {}
            Some(failure) => {
                let (namespace, jitter) = (&task.namespace, assignment.jitter());
                let mut next = CoolDown::after(
                    known.as_deref(),
                    namespace,
                    credential,
                    failure,
                    assignment.at,
                    ended.at,
                    jitter,
                );
                if let (false, Some(agent)) = (task.credential.is_some(), &assignment.agent) {
                    next.agents.insert(agent.clone());
                }
                let (limit, since, until) = (next.limit.clone(), next.since, next.until);
                self.put_cool_down(&id, next);
                let wait = Command::AwaitQuota { credential, limit, since, until };
                self.write_set.next.push_back((key, wait));
            }
            None => {
                let Some(known) = known else { return };
                let is_probe =
                    known.probe.is_some_and(|probe| probe.task == task.id && probe.fence == ended.fence);
                if ended.outcome == AttemptOutcome::Succeeded && known.is_disproved_by(assignment.at) {
                    self.lift(&id);
                } else if is_probe {
                    // It has shown nothing: another one may.
                    self.put_cool_down(&id, CoolDown { probe: None, ..CoolDown::clone(&known) });
                    self.resume_waiting(&id);
                }
            }
        }
    }
}
