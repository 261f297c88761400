//! What worker sessions change in the scheduler: workers that register, drain and leave, and attempts that end.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use rota_core::task::{Task, WorkerRef};
use rota_core::{AgentName, Fence, Namespace, TaskId, Timestamp, WorkerName};

use super::{Scheduler, SessionHandle, SlotState, WorkerEntry};
use crate::keys::{AgentKey, WorkerKey};

/// A newer session of the worker registered first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superseded;

impl Scheduler {
    /// Registers a worker's session in place of its previous one, which is returned. Reservations of the previous
    /// session end with it.
    pub(crate) fn register(&self, mut entry: WorkerEntry) -> Result<Option<WorkerEntry>, Superseded> {
        let mut state = self.state();
        let key = entry.key();
        if state.workers.get(&key).is_some_and(|known| known.epoch > entry.epoch) {
            return Err(Superseded);
        }
        let previous = state.remove_worker(&key);
        // A drain that was requested while the worker was away still holds for the same process.
        entry.draining |= previous
            .as_ref()
            .is_some_and(|previous| previous.draining && previous.instance == entry.instance);
        // A new process may have been started to repair the worker.
        entry.admission = previous
            .as_ref()
            .filter(|previous| previous.instance == entry.instance)
            .map_or(entry.admission, |previous| previous.admission);
        let same = previous.as_ref().filter(|previous| previous.instance == entry.instance);
        entry.credential = entry.credential.or_else(|| same.and_then(|previous| previous.credential));
        let gaps = previous.iter().flat_map(|previous| previous.gaps.iter());
        entry.gaps = gaps.filter(|(id, fence)| entry.slots.state(*id, *fence).is_some()).copied().collect();
        state.add_worker(entry);
        Ok(previous)
    }

    /// Removes a worker, if this is still its session. Returns whether it was.
    pub(crate) fn remove(&self, key: &WorkerKey, session: &WorkerRef) -> bool {
        let mut state = self.state();
        let same = state.workers.get(key).is_some_and(|entry| entry.epoch == session.epoch);
        let Some(entry) = same.then(|| state.remove_worker(key)).flatten() else { return false };
        state.await_worker(&entry);
        true
    }

    /// Sets the capabilities of an agent, which its workers have in addition to their own.
    pub(crate) fn set_capabilities(&self, agent: &AgentKey, capabilities: &BTreeSet<String>) {
        let mut state = self.state();
        state.matching.set_capabilities(agent, capabilities);
        state.mark_changed();
    }

    /// Changes a worker if this is still its session.
    pub(crate) fn update<O>(
        &self,
        key: &WorkerKey,
        session: &WorkerRef,
        change: impl FnOnce(&mut WorkerEntry) -> O,
    ) -> Option<O> {
        self.state().with_session(key, session, change)
    }

    /// Changes a worker, whatever its session.
    pub(crate) fn update_any<O>(
        &self,
        key: &WorkerKey,
        change: impl FnOnce(&mut WorkerEntry) -> O,
    ) -> Option<O> {
        self.state().with_entry(key, change)
    }

    /// Reads a worker, whatever its session.
    pub(crate) fn inspect<O>(&self, key: &WorkerKey, read: impl FnOnce(&WorkerEntry) -> O) -> Option<O> {
        self.state().workers.get(key).map(|entry| read(entry))
    }

    /// Reads a worker if this is still its session.
    pub(crate) fn inspect_session<O>(
        &self,
        key: &WorkerKey,
        session: &WorkerRef,
        read: impl FnOnce(&WorkerEntry) -> O,
    ) -> Option<O> {
        self.state().workers.get(key).filter(|entry| entry.epoch == session.epoch).map(|entry| read(entry))
    }

    /// Returns the workers without a session.
    pub(crate) fn disconnected(&self) -> Arc<HashSet<WorkerKey>> {
        Arc::clone(&self.state().disconnected)
    }

    /// Returns the workers of an agent that meet a condition.
    pub(crate) fn workers_of(
        &self,
        agent: &AgentKey,
        condition: impl Fn(&WorkerEntry) -> bool,
    ) -> Vec<WorkerKey> {
        let state = self.state();
        let keys = state.credentials.workers_of(agent).map(|worker| (agent.0.clone(), worker.clone()));
        keys.filter(|key| state.workers.get(key).is_some_and(|entry| condition(entry))).collect()
    }

    /// Returns the agent of a worker.
    pub(crate) fn agent_of(&self, namespace: &Namespace, worker: &WorkerName) -> Option<AgentName> {
        self.inspect(&(namespace.clone(), worker.clone()), |entry| entry.profile.agent.clone())
    }

    /// Whether workers of an agent take tasks, and none of its workers isolates its attempts.
    pub(crate) fn lacks_isolation(&self, agent: &AgentKey) -> bool {
        self.state().matching.isolation.is_lacking(agent)
    }

    /// Returns the session of the worker that a task is assigned to, if it is up.
    pub(crate) fn session_of(&self, task: &Task) -> Option<SessionHandle> {
        let assignment = task.assignment.as_ref()?;
        let key = (task.namespace.clone(), assignment.worker.clone());
        let session =
            |entry: &WorkerEntry| (entry.epoch == assignment.epoch).then(|| entry.session.clone()).flatten();
        self.inspect(&key, session).flatten()
    }

    /// Closes a worker's session, if this is still it: nothing more is planned for it.
    pub(crate) fn close_session(&self, key: &WorkerKey, session: &WorkerRef) {
        if let Some(handle) = self.update(key, session, |entry| entry.session.take()).flatten() {
            handle.close();
        }
    }

    /// Marks a worker as draining, and returns its process. `None` when there is no such worker, or when it must be idle
    /// and is not.
    pub(crate) fn drain(
        &self,
        key: &WorkerKey,
        only_idle: bool,
        now: Timestamp,
    ) -> Option<(String, Option<SessionHandle>)> {
        let drained = self.update_any(key, |entry| {
            // A reserved slot counts as busy: the caller may stop the worker once it is drained. So do files that no storage has
            // taken yet, which may end with it.
            if only_idle && !entry.slots.are_free() {
                return None;
            }
            if !std::mem::replace(&mut entry.draining, true) {
                entry.stats.record(now, "draining", None);
            }
            Some((entry.instance.clone(), entry.session.clone()))
        });
        drained.flatten()
    }

    /// Marks an attempt as finishing: its worker has reported its end.
    pub(crate) fn finish_attempt(&self, key: &WorkerKey, session: &WorkerRef, id: TaskId, fence: Fence) {
        self.update(key, session, |entry| entry.slots.advance(id, fence, SlotState::Finishing));
    }

    /// Marks a running attempt as abandoned: only when its worker confirms the end is its slot free. Returns whether
    /// it was running.
    pub(crate) fn abandon_attempt(
        &self,
        key: &WorkerKey,
        session: &WorkerRef,
        id: TaskId,
        fence: Fence,
    ) -> bool {
        let abandon = |entry: &mut WorkerEntry| entry.slots.advance(id, fence, SlotState::Abandoned);
        self.update(key, session, abandon) == Some(true)
    }

    /// Releases the slot of an attempt that has ended. Does nothing when it was released before.
    pub(crate) fn release_attempt(
        &self,
        key: &WorkerKey,
        session: &WorkerRef,
        id: TaskId,
        fence: Fence,
        now: Timestamp,
    ) {
        self.update(key, session, |entry| {
            entry.stats.add_busy_time(now, entry.slots.attempts());
            if entry.slots.end(id, fence) && entry.slots.attempts() == 0 {
                entry.stats.idle_since = Some(now);
            }
        });
    }

    /// Returns whether an attempt runs.
    pub(crate) fn runs(&self, key: &WorkerKey, session: &WorkerRef, id: TaskId, fence: Fence) -> bool {
        let state = |entry: &WorkerEntry| entry.slots.state(id, fence);
        self.inspect_session(key, session, state).flatten() == Some(SlotState::Running)
    }

    /// Returns whether an attempt is abandoned.
    pub(crate) fn is_abandoned(
        &self,
        key: &WorkerKey,
        session: &WorkerRef,
        id: TaskId,
        fence: Fence,
    ) -> bool {
        let state = |entry: &WorkerEntry| entry.slots.state(id, fence);
        self.inspect_session(key, session, state).flatten() == Some(SlotState::Abandoned)
    }

    /// Returns the attempt of a task that its last worker still runs although the task has moved on.
    pub(crate) fn superseded_attempt(&self, task: &Task) -> Option<(WorkerKey, Fence)> {
        let key = (task.namespace.clone(), task.last_worker.clone()?);
        let live = task.state.is_on_worker().then_some(task.fence);
        let fence = self.inspect(&key, |entry| entry.slots.superseded(task.id, live)).flatten()?;
        Some((key, fence))
    }
}
