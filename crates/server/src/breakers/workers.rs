//! Circuit breakers of workers: one whose machine fails attempt after attempt, or which accepts none, is given no more tasks
//! until a probe shows that it works again. The agent's breaker does not notice, since the other workers succeed.

use std::collections::BTreeMap;

use rota_core::breaker::{Breaker, Outcome, State};
use rota_core::failure::{Class, Failure};
use rota_core::task::AttemptOutcome;
use rota_core::{Fence, TaskId, Timestamp};
use rota_proto::v1;
use rota_store::{AttemptEnded, Commit};

use super::{Breakers, describe_breaker, is_evidence, observe};
use crate::keys::{AgentKey, WorkerKey};
use crate::scheduler::Admission;

/// Failures that are remembered until their tasks run elsewhere.
const MAX_SUSPICIONS: usize = 4096;

/// Failures to reach a host, by task: the worker, the attempt, and what failed.
pub(super) type Suspicions = BTreeMap<TaskId, (WorkerKey, Fence, Failure)>;

impl Breakers {
    /// Takes in the attempts of a commit as evidence about their workers.
    pub(super) fn observe_workers(&self, commit: &Commit) {
        for change in &commit.tasks {
            let task = &change.task;
            let Some(assignment) = &task.assignment else { continue };
            let attempt = (task.id, task.fence);
            let key = (task.namespace.clone(), assignment.worker.clone());
            let shows = || change.events.iter().any(|event| is_evidence(&event.body));
            if self.suspicions.lock().contains_key(&task.id) && shows() {
                self.confirm(task.id, &key);
            }
            let mut workers = self.workers.lock();
            let Some(breaker) = workers.get_mut(&key) else { continue };
            if change.dispatch.is_some() {
                breaker.assigned(attempt);
            } else if breaker.is_probe(attempt) && shows() {
                drop(workers);
                self.record_worker(&key, Outcome::Success, attempt);
            }
        }
        for ended in &commit.attempts_ended {
            self.observe_worker_end(ended);
        }
    }

    fn observe_worker_end(&self, ended: &AttemptEnded) {
        let attempt = &ended.attempt;
        let assignment = &attempt.assignment;
        let key: WorkerKey = (ended.namespace().clone(), assignment.worker.clone());
        let program = || {
            let agent = (key.0.clone(), ended.agent().cloned()?);
            let spec = self.agents.get(&agent)?.spec;
            Some(!assignment.own.program && spec.runtime.as_ref().is_some_and(v1::Runtime::names_program))
        };
        // A worker that is draining rejects what it was sent before its announcement arrived.
        let draining = || self.scheduler.inspect(&key, |entry| entry.draining) == Some(true);
        let refused = |_| {
            let reason = ended.task.refusal.as_ref().map_or("not accepted", |refusal| &*refusal.reason);
            Failure::new(Class::Environment, format!("an assignment was not accepted: {reason}"))
        };
        let unaccepted = attempt.started_at.is_none() && attempt.outcome == AttemptOutcome::Failed;
        let refusal =
            Some(()).filter(|()| unaccepted && attempt.failure.is_none() && !draining()).map(refused);
        let outcome = match (&attempt.failure, attempt.outcome, &refusal) {
            (_, AttemptOutcome::Succeeded, _) => Outcome::Success,
            (Some(failure), AttemptOutcome::Failed, _) => {
                Outcome::of_worker(failure, program().unwrap_or_default())
            }
            (.., Some(refusal)) => Outcome::Failure(refusal),
            _ => Outcome::Ignored,
        };
        let id = (ended.task.id, attempt.fence);
        match &attempt.failure {
            Some(failure) if failure.class == Class::Source && !failure.of_storage => {
                self.suspect(&key, id, failure)
            }
            _ if outcome == Outcome::Success => self.confirm(ended.task.id, &key),
            _ => {}
        }
        if ended.task.state.is_final() {
            self.suspicions.lock().remove(&ended.task.id);
        }
        self.record_worker(&key, outcome, id);
    }

    /// Remembers that a host could not be reached. Either no worker reaches it, or this worker has no network: known as soon as
    /// the task runs somewhere.
    fn suspect(&self, worker: &WorkerKey, attempt: (TaskId, Fence), failure: &Failure) {
        let mut suspicions = self.suspicions.lock();
        if suspicions.len() < MAX_SUSPICIONS {
            suspicions.entry(attempt.0).or_insert_with(|| (worker.clone(), attempt.1, failure.clone()));
        }
    }

    /// Blames the worker on which the task failed before, now that it runs on another one.
    fn confirm(&self, task: TaskId, on: &WorkerKey) {
        let Some((suspect, fence, failure)) = self.suspicions.lock().remove(&task) else { return };
        if suspect != *on {
            self.record_worker(&suspect, Outcome::Failure(&failure), (task, fence));
        }
    }

    pub(super) fn record_worker(&self, key: &WorkerKey, outcome: Outcome<'_>, attempt: (TaskId, Fence)) {
        // A worker that has left has no breaker.
        let known = || self.scheduler.inspect(key, |_| ()).is_some();
        let mut workers = self.workers.lock();
        let counts = matches!(outcome, Outcome::Failure(_)) && known();
        if !counts && !workers.contains_key(key) {
            return;
        }
        let observed = observe(&mut workers, &self.policy, key, outcome, attempt, self.now());
        if let Some(admission) = observed.admission {
            // Under the lock, so that the admission never lags behind a later decision.
            self.scheduler.set_worker_admission(key, admission);
        }
        if let Some(state) = observed.changed {
            tracing::warn!(namespace = %key.0, worker = %key.1, ?state, "the circuit breaker of a worker changed state");
        }
        if observed.opened() {
            self.opened.notify_one();
        }
    }

    /// Closes the breaker of a worker that has left, or whose process is a new one.
    pub(crate) fn forget_worker(&self, key: &WorkerKey) {
        let mut workers = self.workers.lock();
        if workers.remove(key).is_some() {
            self.scheduler.set_worker_admission(key, Admission::Open);
        }
    }

    /// Closes the breakers of an agent's workers: what failed there may have been the agent's program.
    pub(super) fn forget_workers_of(&self, agent: &AgentKey) {
        let known: Vec<_> = self.workers.lock().keys().filter(|key| key.0 == agent.0).cloned().collect();
        for key in known {
            if self.scheduler.agent_of(&key.0, &key.1).is_none_or(|own| own == agent.1) {
                self.forget_worker(&key);
            }
        }
    }

    /// Describes the breaker of a worker for users; empty if it is closed.
    pub(crate) fn describe_worker(&self, key: &WorkerKey) -> String {
        let workers = self.workers.lock();
        let Some(breaker) = workers.get(key) else { return String::new() };
        if breaker.state() == State::Closed {
            return String::new();
        }
        describe_breaker(breaker, "failures of the worker", self.now())
    }

    pub(super) fn tick_workers(&self) {
        for (worker, breaker) in &mut *self.workers.lock() {
            if breaker.tick(&self.policy, self.now()) {
                self.scheduler.set_worker_admission(worker, Admission::Probe);
            }
        }
    }

    pub(super) fn next_worker(&self) -> Option<Timestamp> {
        self.workers.lock().values().filter_map(Breaker::until).min()
    }
}
