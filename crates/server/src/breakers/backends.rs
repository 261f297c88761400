//! Circuit breakers of back ends of models: a host or provider that is unavailable to many tasks gets none of any agent that
//! uses it, until one probe task shows that it responds. One worker alone does not show that it is, where others serve too.
//! Limits of a credential are the credential's (`credentials`).

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::breaker::{Breaker, Outcome, State};
use rota_core::failure::{Class, Failure};
use rota_core::task::{self, Assignment, AttemptOutcome, EndedAttempt, Task};
use rota_core::{AgentName, Fence, TaskId, Timestamp, WorkerName};
use rota_store::{AttemptEnded, Commit};

use super::{Breakers, admission, describe_breaker, is_evidence, observe};
use crate::keys::{AgentKey, BackendKey};
use crate::scheduler::Admission;

/// Back ends of one namespace with failures that are remembered: workers name them.
const MAX_BACKENDS: usize = 64;

/// Returns the back end that shows by an attempt whether it responds.
fn shown_by(task: &Task, assignment: &Assignment) -> Option<BackendKey> {
    Some((task.namespace.clone(), Arc::from(task.backend_of(assignment)?)))
}

/// Whether a failure of an attempt is one of its back end, and not of its agent.
pub(super) fn is_blamed(task: &Task, attempt: &EndedAttempt, failure: &Failure) -> bool {
    failure.class == Class::Overload && task.backend_of(&attempt.assignment).is_some()
}

/// Describes the breaker of a back end for users.
pub(crate) fn describe(key: &BackendKey, breaker: &Breaker, now: Timestamp) -> String {
    format!("back end {}: {}", key.1, describe_breaker(breaker, "failures", now))
}

/// Makes room for the breaker of a back end. Returns whether there is some.
fn has_room(backends: &mut BTreeMap<BackendKey, Breaker>, key: &BackendKey) -> bool {
    if backends.contains_key(key) {
        return true;
    }
    let known = backends.iter().filter(|(known, _)| known.0 == key.0);
    let (open, closed): (Vec<_>, Vec<_>) = known.partition(|(_, one)| one.state() != State::Closed);
    if open.len() + closed.len() < MAX_BACKENDS {
        return true;
    }
    let Some(least) = closed.iter().min_by_key(|(_, one)| one.failures()) else { return false };
    let least = least.0.clone();
    backends.remove(&least).is_some()
}

impl Breakers {
    /// Returns the breakers of all back ends with failures to report.
    pub(crate) fn backends(&self) -> Vec<(BackendKey, Breaker)> {
        self.backends.lock().iter().map(|(key, breaker)| (key.clone(), breaker.clone())).collect()
    }

    /// Returns the breaker of the back end that an agent uses, if it holds back tasks.
    pub(crate) fn backend_of(&self, agent: &AgentKey) -> Option<(BackendKey, Breaker)> {
        let key = self.scheduler.backend(agent)?;
        let breaker = self.backends.lock().get(&key).filter(|one| one.state() != State::Closed)?.clone();
        Some((key, breaker))
    }

    /// Takes in the attempts of a commit as evidence about the back ends that they use. Returns how many breakers opened.
    pub(super) fn observe_backends(&self, commit: &Commit) -> u64 {
        for change in &commit.tasks {
            let task = &change.task;
            let Some(assignment) = &task.assignment else { continue };
            let attempt = (task.id, task.fence);
            // Reports of a running attempt do not change it.
            if change.before != Some(task::State::Running) || change.events.is_empty() {
                self.learn_backend(task, assignment);
            }
            if change.dispatch.is_some() {
                self.backend_assigned(task, assignment, attempt);
                continue;
            }
            let used = shown_by(task, assignment);
            let works = || change.events.iter().any(|event| is_evidence(&event.body));
            for key in self.probed_by(attempt) {
                match &used {
                    Some(used) if *used == key && works() => {
                        self.record_backend(&key, Outcome::Success, attempt);
                    }
                    // It shows nothing of this one: another task may.
                    Some(used) if *used != key => {
                        self.record_backend(&key, Outcome::Ignored, attempt);
                    }
                    _ => {}
                }
            }
        }
        commit.attempts_ended.iter().map(|ended| u64::from(self.observe_backend_end(ended))).sum()
    }

    fn observe_backend_end(&self, ended: &AttemptEnded) -> bool {
        let attempt = &ended.attempt;
        let id = (ended.task.id, attempt.fence);
        // One that was assigned and lost in one commit was not dispatched, but may be the probe.
        if attempt.started_at.is_none() {
            self.backend_assigned(&ended.task, &attempt.assignment, id);
        }
        self.learn_backend(&ended.task, &attempt.assignment);
        let used = shown_by(&ended.task, &attempt.assignment);
        for key in self.probed_by(id).into_iter().filter(|key| Some(key) != used.as_ref()) {
            self.record_backend(&key, Outcome::Ignored, id);
        }
        // Attempts that a deleted agent still runs show nothing that tasks wait for.
        let exists = |agent: &AgentName| self.agents.contains(&(ended.namespace().clone(), agent.clone()));
        let used = used.filter(|_| ended.agent().is_some_and(exists));
        let outcome = match (&attempt.failure, attempt.outcome) {
            (_, AttemptOutcome::Succeeded) => Outcome::Success,
            (Some(failure), _) => Outcome::of_backend(failure),
            (None, _) => Outcome::Ignored,
        };
        used.is_some_and(|key| match outcome {
            Outcome::Failure(failure) if self.is_of_worker(&key, failure, id, &attempt.assignment.worker) => {
                false
            }
            outcome => self.record_backend(&key, outcome, id),
        })
    }

    /// Whether a failure is the worker's, and not its back end's: it would open the breaker for all agents, and no other worker has
    /// seen any of the failures, though others use the back end. Counts it as one of the worker then.
    fn is_of_worker(
        &self,
        key: &BackendKey,
        failure: &Failure,
        attempt: (TaskId, Fence),
        worker: &WorkerName,
    ) -> bool {
        let by_one = {
            let mut backends = self.backends.lock();
            if !has_room(&mut backends, key) {
                return false;
            }
            let breaker = backends.entry(key.clone()).or_default();
            breaker.is_seen_by_one(&self.policy, failure, attempt.0, worker)
        };
        let is_of_worker = by_one && self.scheduler.serves_elsewhere(key, worker);
        if is_of_worker {
            self.record_worker(&(key.0.clone(), worker.clone()), Outcome::Failure(failure), attempt);
        }
        is_of_worker
    }

    /// Takes in which back end an agent uses.
    fn learn_backend(&self, task: &Task, assignment: &Assignment) {
        let Some((backend, agent)) = task.backend_of(assignment).zip(assignment.agent.clone()) else {
            return;
        };
        let agent = (task.namespace.clone(), agent);
        if self.agents.contains(&agent) {
            self.change_backend(&agent, Some(backend));
        }
    }

    fn change_backend(&self, agent: &AgentKey, backend: Option<&str>) {
        let mut backends = self.backends.lock();
        // What no agent uses holds no task back, and no task would show that it works again.
        if let Some(left) = self.scheduler.set_backend(agent, backend) {
            backends.remove(&left);
        }
    }

    fn backend_assigned(&self, task: &Task, assignment: &Assignment, attempt: (TaskId, Fence)) {
        let mut backends = self.backends.lock();
        if backends.is_empty() {
            return;
        }
        let agent = assignment.agent.clone().map(|agent| (task.namespace.clone(), agent));
        let key = agent.and_then(|agent| self.scheduler.backend(&agent));
        if let Some(breaker) = key.and_then(|key| backends.get_mut(&key)) {
            breaker.assigned(attempt);
        }
    }

    /// Returns the back ends whose probe an attempt is.
    fn probed_by(&self, attempt: (TaskId, Fence)) -> Vec<BackendKey> {
        let backends = self.backends.lock();
        let probed = backends.iter().filter(|(_, breaker)| breaker.is_probe(attempt));
        probed.map(|(key, _)| key.clone()).collect()
    }

    fn record_backend(&self, key: &BackendKey, outcome: Outcome<'_>, attempt: (TaskId, Fence)) -> bool {
        let mut backends = self.backends.lock();
        let counts = matches!(outcome, Outcome::Failure(_)) && has_room(&mut backends, key);
        if !counts && !backends.contains_key(key) {
            return false;
        }
        let observed = observe(&mut backends, &self.policy, key, outcome, attempt, self.now());
        if let Some(admission) = observed.admission {
            // Under the lock, so that the admission never lags behind a later decision.
            self.scheduler.set_backend_admission(key, admission);
        }
        if let Some(state) = observed.changed {
            tracing::warn!(namespace = %key.0, backend = %key.1, ?state, "the circuit breaker of a back end changed state");
        }
        if observed.opened() {
            self.opened.notify_one();
        }
        observed.opened()
    }

    /// Lets a task of an agent try its back end, since the agent may use another one now.
    pub(crate) fn backend_may_differ(&self, agent: &AgentKey) {
        let Some(key) = self.scheduler.backend(agent) else { return };
        if let Some(breaker) = self.backends.lock().get_mut(&key)
            && breaker.probe_now(&self.policy, self.now())
        {
            self.scheduler.set_backend_admission(&key, Admission::Probe);
            self.opened.notify_one();
        }
    }

    /// Forgets which back end an agent uses that is deleted.
    pub(crate) fn leave_backend(&self, agent: &AgentKey) {
        self.change_backend(agent, None);
    }

    /// Closes the breaker of the back end that an agent uses, for all that use it. Returns it as it was.
    pub(crate) fn reset_backend_of(&self, agent: &AgentKey) -> Option<(BackendKey, Breaker)> {
        let key = self.scheduler.backend(agent)?;
        let mut backends = self.backends.lock();
        let known = backends.remove(&key)?;
        self.scheduler.set_backend_admission(&key, Admission::Open);
        Some((key, known))
    }

    pub(super) fn tick_backends(&self) {
        for (key, breaker) in &mut *self.backends.lock() {
            if breaker.tick(&self.policy, self.now()) {
                self.scheduler.set_backend_admission(key, admission(breaker.state()));
            }
        }
    }

    pub(super) fn next_backend(&self) -> Option<Timestamp> {
        self.backends.lock().values().filter_map(Breaker::until).min()
    }
}
