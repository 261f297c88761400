//! From commits to counters and spans: what happened, once it is durable.

use std::sync::Arc;
use std::time::Duration;

use rota_core::task::{Body, State, StateChange, Task};
use rota_core::usage::Usage;
use rota_core::{AgentName, Timestamp, WorkerName};
use rota_store::{Commit, TaskChange};

use super::Metrics;
use super::labels::{Agent, Class};
use crate::dispatch::Fleet;
use crate::shared::Shared;
use crate::spans;
use crate::wire::failure;

/// What must be remembered of an attempt until it ends.
#[derive(Debug)]
pub(super) struct Attempt {
    agent: Agent,
    pub(super) state: State,
    worker: Option<WorkerName>,
    number: u32,
    span_id: [u8; 8],
    /// When a worker took it.
    began: Option<Timestamp>,
    /// What the task had used before.
    before: Usage,
    /// What the task had used when it was last looked at.
    seen: Usage,
}

impl Attempt {
    fn new(task: &Task, agent: Agent, worker: Option<WorkerName>) -> Self {
        let (number, span_id) = task.assignment.as_ref().map(|a| (a.attempt, a.span_id)).unwrap_or_default();
        let (before, seen) = (task.usage.clone(), task.usage.clone());
        Self { agent, state: State::Assigned, worker, number, span_id, began: None, before, seen }
    }
}

impl Metrics {
    /// A task that was on a worker when the control plane started.
    pub(crate) fn load(&self, task: &Task, agent: Option<&AgentName>) {
        let agent = self.bounds.agent(&task.namespace, task.agent().or(agent));
        let assignment = task.assignment.as_ref();
        let mut attempt = Attempt::new(task, agent, assignment.map(|a| a.worker.clone()));
        attempt.began = assignment.filter(|_| task.state != State::Assigned).map(|a| a.at);
        (attempt.state, attempt.seen) = (task.state, task.total_usage());
        self.attempts.lock().insert(task.id, attempt);
    }

    /// Takes in what a commit did.
    pub(crate) fn follow(&self, commit: &Commit, shared: &Arc<Shared>) {
        self.commit.observe(commit.took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch has few commands")]
        self.batch.observe(commit.commands as f64);
        for change in &commit.tasks {
            self.task(change, &shared.fleet);
            let task = &change.task;
            if task.state.is_final() && change.before != Some(task.state) && spans::wanted(task) {
                spans::task(shared, task);
            }
        }
    }

    fn task(&self, change: &TaskChange, fleet: &Fleet) {
        let task = &*change.task;
        let mut ended = None;
        for event in change.events.iter() {
            let (at, Body::State(step)) = (event.at, &event.body) else { continue };
            if step.from.is_none() {
                self.created.get_or_create(&self.bounds.agent(&task.namespace, task.agent())).inc();
            }
            if let Some(failure) = &step.failure {
                let class = failure::class_name(failure.class);
                self.failures.get_or_create(&Class { class }).inc();
            }
            let waited = (step.from == Some(State::Queued)).then(|| self.waited(task, at)).flatten();
            match step.to {
                State::Queued => {
                    self.queued.lock().insert(task.id, at);
                }
                State::Assigned => self.assigned(task, step, at.since(waited.unwrap_or(at)), fleet),
                State::Running if step.from == Some(State::Assigned) => {
                    if let Some(attempt) = self.attempts.lock().get_mut(&task.id) {
                        attempt.began = Some(at);
                    }
                }
                to if !to.is_on_worker() && step.from.is_some_and(State::is_on_worker) => {
                    // What it used until now is told with this attempt's labels.
                    self.used(task);
                    ended = self.attempt_ended(task, step, at);
                }
                _ => {}
            }
        }
        self.used(task);
        if task.state.is_final() && change.before != Some(task.state) {
            let agent = ended.unwrap_or_else(|| self.bounds.agent(&task.namespace, task.agent()));
            self.ended.get_or_create(&agent.outcome(name(task.state))).inc();
        }
    }

    /// It is no longer in the queue. Since when it was there; of what came there before this process began, and comes
    /// back from a worker, that is no longer known.
    fn waited(&self, task: &Task, until: Timestamp) -> Option<Timestamp> {
        let fresh = task.refusals == 0 && task.worker_losses == 0;
        let since = self.queued.lock().remove(&task.id).or(task.ready_at.filter(|_| fresh))?;
        if spans::wanted(task) {
            spans::queue(task, since, until);
        }
        Some(since)
    }

    fn assigned(&self, task: &Task, step: &StateChange, waited: Duration, fleet: &Fleet) {
        let taker = step.worker.as_ref().and_then(|worker| fleet.agent_of(&task.namespace, worker));
        let agent = self.bounds.agent(&task.namespace, task.agent().or(taker.as_ref()));
        self.dispatch.get_or_create(&agent).observe(waited.as_secs_f64());
        self.attempts.lock().insert(task.id, Attempt::new(task, agent, step.worker.clone()));
    }

    /// Adds what was used since the last look.
    fn used(&self, task: &Task) {
        let mut attempts = self.attempts.lock();
        let Some(attempt) = attempts.get_mut(&task.id) else { return };
        attempt.state = task.state;
        let now = task.total_usage();
        if now == attempt.seen {
            return;
        }
        let seen = std::mem::replace(&mut attempt.seen, now.clone());
        let model = attempt.agent.clone().model(self.bounds.model(&now.model));
        drop(attempts);
        for (kind, now, before) in [
            ("input", now.input_tokens, seen.input_tokens),
            ("output", now.output_tokens, seen.output_tokens),
            ("cache_read", now.cache_read_tokens, seen.cache_read_tokens),
            ("cache_write", now.cache_write_tokens, seen.cache_write_tokens),
        ] {
            let more = u64::try_from(now.saturating_sub(before)).unwrap_or(0);
            if more > 0 {
                self.tokens.get_or_create(&model.clone().tokens(kind)).inc_by(more);
            }
        }
        let more = now.cost_micro_usd.saturating_sub(seen.cost_micro_usd);
        if more > 0 {
            #[expect(clippy::cast_precision_loss, reason = "money on a page of metrics is no bookkeeping")]
            self.cost.get_or_create(&model).inc_by(more as f64 / 1e6);
        }
    }

    fn attempt_ended(&self, task: &Task, step: &StateChange, at: Timestamp) -> Option<Agent> {
        let attempt = self.attempts.lock().remove(&task.id)?;
        // One that no worker took was no attempt.
        if let Some(began) = attempt.began {
            let outcome = match step.to {
                State::Succeeded | State::Cancelled => name(step.to),
                _ if step.reason == "worker_lost" || step.reason == "quarantined" => "lost",
                _ => name(State::Failed),
            };
            self.attempts_ended.get_or_create(&attempt.agent.clone().outcome(outcome)).inc();
            self.attempt.get_or_create(&attempt.agent).observe(at.since(began).as_secs_f64());
            if spans::wanted(task) {
                let (before, seen) = (&attempt.before, &attempt.seen);
                let told = spans::Attempt {
                    span_id: attempt.span_id,
                    number: attempt.number,
                    worker: attempt.worker.map(|worker| worker.to_string()).unwrap_or_default(),
                    outcome,
                    tokens: (
                        seen.input_tokens.saturating_sub(before.input_tokens),
                        seen.output_tokens.saturating_sub(before.output_tokens),
                    ),
                    model: &seen.model,
                };
                spans::attempt(task, told, step, began, at);
            }
        }
        Some(attempt.agent)
    }
}

/// A state as a label.
pub(super) fn name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Queued => "queued",
        State::Assigned => "assigned",
        State::Running => "running",
        State::InputRequired => "input_required",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}
