//! Applies commits, in their order, to everything that the control plane keeps in memory, then notifies the
//! watchers. Decides nothing: a commit states what has happened already.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use rota_core::Timestamp;
use rota_core::target::Profile;
use rota_core::task::{Loss, State, Task, WorkerRef};
use rota_store::{AgentChange, Commit, Session, Snapshot};
use tokio::sync::watch;

use crate::agents::{AgentEffect, AgentRegistry};
use crate::alerts::Alerts;
use crate::approvals::Approvals;
use crate::attention::Attention;
use crate::breakers::Breakers;
use crate::clock::now;
use crate::dispatcher::Dispatcher;
use crate::follow::Successes;
use crate::health::Health;
use crate::keys::{AgentKey, WorkerKey};
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::scheduler::{Scheduler, SlotState, WorkerEntry};
use crate::schedules::Registry;
use crate::sessions::{self, SessionDeps};
use crate::spans;
use crate::store_client::StoreClient;
use crate::trust::browser_sessions::BrowserSessions;
use crate::trust::token_registry::TokenRegistry;
use crate::watchers::Watchers;
use crate::workflows::ReadySteps;

/// Everything that follows the commits.
pub(crate) struct CommitApplier {
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) attention: Arc<Attention>,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) successes: Successes,
    pub(crate) ready_steps: Arc<ReadySteps>,
    pub(crate) schedules: Arc<Registry>,
    pub(crate) token_registry: Arc<TokenRegistry>,
    pub(crate) browser_sessions: Arc<BrowserSessions>,
    pub(crate) store: StoreClient,
    /// Revision of the snapshot that was restored, if any: it contains the commits up to this one.
    pub(crate) restored: Option<u64>,
    /// When the next task is due.
    pub(crate) timer: watch::Sender<Option<Timestamp>>,
}

impl CommitApplier {
    /// Applies one commit. The comments state which steps must precede which.
    pub(crate) fn apply(&mut self, commit: Commit) {
        self.health.committed();
        self.metrics
            .undecodable(commit.undecodable.iter().map(|(what, reason)| (what as &dyn Display, reason)));
        self.metrics.set_aside(&commit);
        // The store continues its follow-ups as soon as it is open: their first commits may be part of the snapshot.
        if self.restored.is_some_and(|restored| is_contained(&commit, restored)) {
            return;
        }
        self.metrics.observe(&commit);
        self.store.overload().observe(&commit);
        spans::emit(&commit, &self.store);
        // Before the registry changes, since only an existing agent has a breaker; and before anything is sent, so that a
        // probe is registered before its worker can report on it.
        let breakers = self.breakers.observe(&commit);
        self.metrics.breakers_opened(breakers.opened);
        let mut may_alert = breakers.opened > 0;
        // Before assignments are sent, since a slot must be running when its worker answers.
        let recipients = self.scheduler.apply(&commit, now());
        // Before assignments are sent, since an agent's spec completes those of its tasks.
        for change in &commit.agents {
            self.apply_agent_change(change);
        }
        // After those, since the budgets of agents are a part of their specs.
        for change in &commit.accounts {
            if self.agents.apply_account(change) {
                may_alert = true;
                // Tasks may count for another agent now.
                self.scheduler.demand_changed();
            }
        }
        for (change, recipient) in commit.tasks.iter().zip(recipients) {
            self.dispatcher.send_change(change, recipient);
        }
        for change in &commit.documents {
            self.schedules.apply(change);
            self.token_registry.apply(change);
            self.browser_sessions.apply(change);
        }
        let is_over = |state: Option<State>| state.is_some_and(State::is_final);
        for change in
            commit.tasks.iter().filter(|change| change.task.state.is_final() && !is_over(change.before))
        {
            self.schedules.ended(&change.task.namespace, change.task.id.0);
        }
        for workflow in commit.workflows.iter().filter(|workflow| workflow.state.is_final()) {
            self.schedules.ended(&workflow.namespace, workflow.id.0);
        }
        self.timer.send_if_modified(|due| std::mem::replace(due, commit.next_due) != commit.next_due);
        self.attention.observe(&commit);
        self.approvals.observe(&commit);
        // After all that it looks at.
        if may_alert {
            self.alerts.begun();
        }
        // Last: a watcher that reads after it was notified must find what the commit changed.
        self.watchers.publish(&commit, self.store.now());
        self.notifier.observe(&commit);
        self.successes.observe(&commit);
        self.ready_steps.observe(&commit);
        self.store.index().committed(commit.revision);
    }

    fn apply_agent_change(&self, change: &AgentChange) {
        let key: AgentKey = (change.agent.namespace.clone(), change.agent.name.clone());
        match self.agents.apply(change) {
            AgentEffect::Deleted => {
                self.breakers.leave_cool_downs(&key);
                self.breakers.leave_backend(&key);
                return drop(self.breakers.reset(&key));
            }
            // The change may have fixed what opened the breaker.
            AgentEffect::SpecChanged => {
                self.breakers.credentials_may_differ(&key);
                self.breakers.backend_may_differ(&key);
                // Its budget may have changed.
                self.scheduler.demand_changed();
                drop(self.breakers.reset(&key));
            }
            AgentEffect::Created | AgentEffect::Unchanged => {}
        }
        // Workers may have joined before their agent was created.
        self.scheduler.set_capabilities(&key, &change.agent.capabilities);
    }

    /// Restores what was there before this control plane started. Workers have the recovery grace period to come back;
    /// then their sessions expire.
    pub(crate) fn restore(&mut self, mut snapshot: Snapshot, sessions: &SessionDeps) {
        self.restored = Some(snapshot.revision);
        self.store.overload().restore(&snapshot);
        let next_due = snapshot.earliest_due();
        self.agents.accounts().restore(&mut snapshot);
        let message = "the worker did not reconnect after the control plane started";
        // What ended the control plane may have ended its workers: a reboot, a power loss, a closed terminal.
        let expire_after = |key: &WorkerKey, worker, grace| {
            sessions::expire_session_after(sessions, key, worker, grace, Loss::Unclear, message);
        };
        for (key, epoch) in snapshot.damaged_sessions() {
            expire_after(&key, WorkerRef { worker: key.1.clone(), epoch }, sessions.timing.recovery_grace);
        }
        self.breakers.restore_cool_downs(snapshot.cool_downs);
        self.agents.restore(snapshot.agents);
        self.scheduler.restore(snapshot.routes, snapshot.queued);
        self.metrics.restore(snapshot.on_workers.iter().map(|on| on.task.state));
        let mut on_workers: HashMap<WorkerKey, Vec<&Task>> = HashMap::new();
        for task in snapshot.on_workers.iter().map(|on| &on.task) {
            if let Some(assignment) = &task.assignment {
                let key = (task.namespace.clone(), assignment.worker.clone());
                on_workers.entry(key).or_default().push(task);
            }
        }
        for session in snapshot.sessions {
            let worker = WorkerRef { worker: session.worker.clone(), epoch: session.epoch };
            let key = (session.namespace.clone(), session.worker.clone());
            let tasks = on_workers.remove(&key).unwrap_or_default();
            let own_task = tasks.iter().find(|task| task.target.is_own()).map(|task| task.id);
            let mut entry = self.disconnected(&session);
            for task in tasks {
                let storing = task.storing().is_some();
                let state = if storing { SlotState::Storing } else { SlotState::Running };
                entry.resume(task.id, task.fence, state);
            }
            entry.slot_count = entry.attempts();
            entry.profile.task = own_task;
            // The first session of its name: none can be newer.
            let _ = self.scheduler.register(entry);
            let own = self.agents.reconnect_grace(&(session.namespace.clone(), session.agent.clone()));
            let grace = sessions.timing.recovery_grace.max(own.unwrap_or_default());
            expire_after(&key, worker, grace);
        }
        self.scheduler.await_workers(on_workers.into_values().flatten());
        self.timer.send_replace(next_due);
    }

    /// Returns a worker that has a session row but, for now, no stream.
    fn disconnected(&self, session: &Session) -> WorkerEntry {
        let known = self.agents.get(&(session.namespace.clone(), session.agent.clone()));
        let profile = Profile {
            namespace: session.namespace.clone(),
            worker: session.worker.clone(),
            agent: session.agent.clone(),
            capabilities: known.map(|known| Arc::new(known.agent.capabilities.clone())).unwrap_or_default(),
            task: None,
        };
        let mut entry = WorkerEntry::new(profile, session.epoch, session.instance.clone(), session.since);
        // Its next Hello shows whether its token does.
        entry.named = true;
        entry.draining = session.draining;
        entry
    }
}

/// Whether a snapshot of a revision contains a commit. One that wrote nothing has the revision of the last write.
fn is_contained(commit: &Commit, revision: u64) -> bool {
    commit.revision < revision || (commit.revision == revision && commit.changes_records())
}

#[cfg(test)]
mod tests;
