//! Counters from commits: what happened, once it is durable.

use std::fmt::Display;

use rota_core::failure;
use rota_core::task::{AttemptOutcome, Body, State};
use rota_core::workflow;
use rota_store::{AttemptEnded, Commit, QueueLeft, TaskChange, UsageAdded};

use super::Metrics;
use super::labels::{Agent, Class, Recovery, Run};
use crate::wire::failure::class_name;

fn workflow_outcome(state: workflow::State) -> Option<&'static str> {
    match state {
        workflow::State::Succeeded => Some("succeeded"),
        workflow::State::Failed => Some("failed"),
        workflow::State::Cancelled => Some("cancelled"),
        workflow::State::CompensationFailed => Some("compensation_failed"),
        _ => None,
    }
}

impl Metrics {
    /// Counts the tasks that were on workers when the control plane started.
    pub(crate) fn restore(&self, on_workers: impl IntoIterator<Item = State>) {
        let mut known = self.on_workers.lock();
        for state in on_workers {
            *known.entry(state).or_default() += 1;
        }
    }

    /// Counts and logs records that cannot be decoded.
    pub(crate) fn undecodable<'a>(&self, records: impl IntoIterator<Item = (&'a dyn Display, &'a String)>) {
        for (what, reason) in records {
            self.undecodable.inc();
            tracing::error!(%what, reason, "a stored record cannot be decoded: it is left alone");
        }
    }

    /// Counts and logs follow-ups that a commit has set aside.
    pub(crate) fn set_aside(&self, commit: &Commit) {
        for (number, reason) in &commit.set_aside {
            self.set_aside.inc();
            tracing::error!(
                number,
                reason,
                "a follow-up cannot be continued: the tasks that it has not reached stay as they are"
            );
        }
    }

    /// Counts what a commit did.
    pub(crate) fn observe(&self, commit: &Commit) {
        self.commit.observe(commit.took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch has few commands")]
        self.batch.observe(commit.commands as f64);
        for left in &commit.queue_left {
            self.queue_left(left);
        }
        for added in &commit.usage {
            self.usage(added);
        }
        // Late costs and reruns change workflows that had ended.
        for workflow in commit.workflows.iter().filter(|one| commit.workflows_ended.contains(&one.key)) {
            if let Some(outcome) = workflow_outcome(workflow.state) {
                self.workflows_ended.get_or_create(&Run { outcome }).inc();
            }
        }
        let mut ends = commit.attempts_ended.iter().peekable();
        for change in &commit.tasks {
            let mut last = None;
            while let Some(ended) = ends.next_if(|ended| ended.task.id == change.task.id) {
                last = Some(self.attempt_ended(ended));
            }
            self.task(change, last);
        }
    }

    /// Counts a changed task; `last` is the agent of its last attempt, if one ended in this commit.
    fn task(&self, change: &TaskChange, last: Option<Agent>) {
        let task = &*change.task;
        for event in change.events.iter() {
            let Body::State(step) = &event.body else { continue };
            if step.from.is_none() {
                self.created.get_or_create(&self.bounds.agent(&task.namespace, task.agent())).inc();
            }
            if let Some(failure) = &step.failure {
                let class = class_name(failure.class);
                self.failures.get_or_create(&Class { class: class.clone() }).inc();
                if let Some(action) = action(step.to, failure.class) {
                    self.recoveries.get_or_create(&Recovery { class, action }).inc();
                }
            }
        }
        if task.state.is_final() && change.before != Some(task.state) {
            let agent = last.unwrap_or_else(|| self.bounds.agent(&task.namespace, task.agent()));
            if task.state == State::Succeeded && (task.failed_attempts() > 0 || task.worker_losses > 0) {
                self.recovered.get_or_create(&agent).inc();
            }
            self.ended.get_or_create(&agent.outcome(name(task.state))).inc();
        }
        self.moved(change.before, task.state);
    }

    fn moved(&self, before: Option<State>, after: State) {
        let before = before.filter(|state| state.is_on_worker());
        let after = Some(after).filter(|state| state.is_on_worker());
        if before == after {
            return;
        }
        let mut known = self.on_workers.lock();
        if let Some(count) = before.and_then(|state| known.get_mut(&state)) {
            debug_assert!(*count > 0, "a task left a state in which none was");
            *count = count.saturating_sub(1);
        }
        if let Some(after) = after {
            *known.entry(after).or_default() += 1;
        }
    }

    fn queue_left(&self, left: &QueueLeft) {
        if let Some(agent) = &left.agent {
            let agent = self.bounds.agent(&left.task.namespace, Some(agent));
            let waited = left.wait.until.since(left.wait.since);
            self.dispatch.get_or_create(&agent).observe(waited.as_secs_f64());
        }
    }

    fn usage(&self, added: &UsageAdded) {
        let usage = &added.usage;
        let agent = self.bounds.agent(&added.namespace, added.agent.as_ref());
        let model = agent.model(self.bounds.model(&usage.model));
        for (kind, tokens) in [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
        ] {
            let tokens = u64::try_from(tokens).unwrap_or(0);
            if tokens > 0 {
                self.tokens.get_or_create(&model.clone().tokens(kind)).inc_by(tokens);
            }
        }
        if usage.cost_micro_usd > 0 {
            #[expect(clippy::cast_precision_loss, reason = "metrics of money are approximate")]
            self.cost.get_or_create(&model).inc_by(usage.cost_micro_usd as f64 / 1e6);
        }
    }

    /// Returns the labels of the attempt's agent.
    fn attempt_ended(&self, ended: &AttemptEnded) -> Agent {
        let agent = self.bounds.agent(ended.namespace(), ended.agent());
        let attempt = &ended.attempt;
        // One that no worker started was no attempt.
        if let Some(started) = attempt.started_at {
            let outcome = outcome(attempt.outcome);
            self.attempts_ended.get_or_create(&agent.clone().outcome(outcome)).inc();
            self.attempt.get_or_create(&agent).observe(attempt.at.since(started).as_secs_f64());
        }
        agent
    }
}

/// Returns the reaction to a failed attempt, by the state of its task after it.
fn action(to: State, class: failure::Class) -> Option<&'static str> {
    match to {
        State::Failed => Some("stop"),
        State::Pending => Some(match class.recovery() {
            failure::Recovery::Wait | failure::Recovery::Credentials => "wait",
            _ => "retry",
        }),
        _ => None,
    }
}

/// Returns a state as a label.
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

/// Returns an attempt's outcome as a label and a span attribute.
pub(crate) fn outcome(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Succeeded => "succeeded",
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::Cancelled => "cancelled",
        AttemptOutcome::Lost => "lost",
        AttemptOutcome::Released => "released",
    }
}
