//! Write set of a batch: each touched record is loaded once, changed in memory, and written once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{self, Command, EndedAttempt, Event, QueueWait, State, Task};
use rota_core::usage::Usage;
use rota_core::{AgentName, Epoch, RouteId, TaskId, Timestamp, WorkerName};

use super::cache::Cache;
use super::queue::{Queue, rank_key};
use super::{AgentKey, Engine};
use crate::{AgentChange, Backend, Changes, Error, Keys, Refused, SessionKey};

#[derive(Debug, Default)]
pub(super) struct WriteSet {
    pub(super) entries: HashMap<TaskId, Entry>,
    /// Ready tasks of the touched routes.
    pub(super) queues: HashMap<RouteId, Queue>,
    /// Ids of changed tasks in order of their first change.
    pub(super) order: Vec<TaskId>,
    pub(super) follow: VecDeque<(TaskId, Command)>,
    pub(super) cache: Cache,
    /// Agents that the batch changed; `None` for a deleted one.
    pub(super) agents: BTreeMap<AgentKey, Option<Arc<Agent>>>,
    pub(super) agent_changes: Vec<AgentChange>,
    /// Open sessions that the batch changed; `None` for an ended one.
    pub(super) sessions: HashMap<SessionKey, Option<(Epoch, AgentName)>>,
    /// Routes that the batch changed; `None` for a removed one.
    pub(super) routes: HashMap<Route, Option<RouteId>>,
    pub(super) new_routes: Vec<(RouteId, Route)>,
    pub(super) removed_routes: Vec<RouteId>,
    /// Routes on which a claim found nothing.
    pub(super) recounted: BTreeSet<RouteId>,
    /// Tasks that the batch assigned, by worker; some may have left it again.
    pub(super) assigned_to: HashMap<SessionKey, Vec<TaskId>>,
    /// Results of tasks that have ended before, as loaded.
    pub(super) results: HashMap<TaskId, Bytes>,
    /// Sealed secrets, as loaded or new.
    pub(super) secrets: HashMap<TaskId, Bytes>,
    /// Records that cannot be decoded, with the reason.
    pub(super) undecodable: BTreeMap<TaskId, String>,
    /// What the batch writes besides its records.
    pub(super) changes: Changes,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) task: Arc<Task>,
    pub(super) route: RouteId,
    /// State before the batch; `None` for a new task.
    pub(super) before: Option<State>,
    /// Worker that it was on before the batch.
    pub(super) before_worker: Option<WorkerName>,
    pub(super) events: Vec<Event>,
    pub(super) dirty: bool,
    /// Whether the batch created the task.
    pub(super) new: bool,
    /// The payload, if it is known.
    pub(super) payload: Option<Bytes>,
    pub(super) result: Option<Bytes>,
    pub(super) assigned: bool,
    pub(super) attempts_ended: Vec<EndedAttempt>,
    pub(super) queue_waits: Vec<(QueueWait, Option<AgentName>)>,
    pub(super) usage: Vec<(Option<AgentName>, Usage)>,
}

impl Entry {
    /// Returns an entry without changes.
    fn new(task: Arc<Task>, route: RouteId) -> Self {
        Self {
            task,
            route,
            before: None,
            before_worker: None,
            events: Vec::new(),
            dirty: false,
            new: false,
            payload: None,
            result: None,
            assigned: false,
            attempts_ended: Vec::new(),
            queue_waits: Vec::new(),
            usage: Vec::new(),
        }
    }

    /// Records the results of a command for the commit.
    fn record(&mut self, out: &mut task::Transition) {
        self.events.append(&mut out.events);
        if let Some(result) = out.result.take() {
            self.result = Some(result);
        }
        let current = self.task.assignment.as_ref();
        let ended = out.attempt_ended.take();
        if !out.used.is_zero() {
            let attempt = ended.as_ref().map(|ended| &ended.assignment).or(current);
            // Records of earlier versions do not name it; most tasks do.
            let agent =
                attempt.and_then(|attempt| attempt.agent.clone()).or_else(|| self.task.agent().cloned());
            self.usage.push((agent, std::mem::take(&mut out.used)));
        }
        if let Some(wait) = out.queue_wait {
            self.queue_waits.push((wait, current.and_then(|current| current.agent.clone())));
        }
        self.attempts_ended.extend(ended);
    }
}

impl WriteSet {
    pub(super) fn holds(&self, id: TaskId) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    fn put(&mut self, id: TaskId, entry: Entry) {
        if let Some(key) = rank_key(&entry.task) {
            self.queues.entry(entry.route).or_default().moved(None, Some(key));
        }
        if entry.dirty {
            self.order.push(id);
        }
        self.entries.insert(id, entry);
    }
}

impl<B: Backend> Engine<B> {
    /// Returns a task's record in the current state of the batch, and loads it if it is unknown.
    pub(super) fn load(&mut self, id: TaskId) -> Result<Option<&Task>, Error> {
        if !self.knows(id) {
            self.fetch(&Keys { tasks: vec![id], ..Keys::default() })?;
        }
        self.touch(id);
        Ok(self.write_set.get(id).map(|entry| &*entry.task))
    }

    /// Whether a task's record, or that there is none, is known without a load.
    pub(super) fn knows(&self, id: TaskId) -> bool {
        self.write_set.holds(id)
            || self.live.contains_key(&id)
            || self.write_set.cache.absent.contains(&id)
            || self.write_set.undecodable.contains_key(&id)
    }

    /// Moves a live record into the batch.
    fn touch(&mut self, id: TaskId) {
        if self.write_set.holds(id) {
            return;
        }
        // A dry run keeps the record: the batch changes a copy of it.
        let live = if self.dry { self.live.get(&id).cloned() } else { self.live.remove(&id) };
        if let Some(task) = live {
            self.take_up(task);
        }
    }

    /// Adds a stored record to the batch.
    pub(super) fn take_up(&mut self, task: Arc<Task>) {
        let route = self.route(&task.route());
        let entry = Entry {
            before: Some(task.state),
            before_worker: task.assignment.as_ref().map(|assignment| assignment.worker.clone()),
            ..Entry::new(task, route)
        };
        self.write_set.put(entry.task.id, entry);
    }

    /// Adds a new task to the batch.
    pub(super) fn add(&mut self, task: Task, out: task::Transition, payload: Bytes) -> Result<(), Error> {
        let id = task.id;
        let route = self.route(&task.route());
        let entry =
            Entry { dirty: true, new: true, payload: Some(payload), ..Entry::new(Arc::new(task), route) };
        self.write_set.cache.absent.remove(&id);
        self.write_set.cache.dependents.none_stored(&id);
        self.write_set.put(id, entry);
        self.take_in(id, out)
    }

    /// Executes a command on a task.
    pub(super) fn apply(
        &mut self,
        id: TaskId,
        command: Command,
        now: Timestamp,
    ) -> Result<Result<task::Reply, Refused>, Error> {
        if self.load(id)?.is_none() {
            return Ok(Err(self.absent(id)));
        }
        let Some(entry) = self.write_set.entries.get_mut(&id) else { return Ok(Err(Refused::NoTask(id))) };
        let assigning = matches!(command, Command::Assign { .. });
        let before = rank_key(&entry.task);
        match Arc::make_mut(&mut entry.task).apply(command, now) {
            Err(rejected) => Ok(Err(rejected.into())),
            Ok(out) => {
                let reply = out.reply;
                let after = rank_key(&entry.task);
                if before != after {
                    self.write_set.queues.entry(entry.route).or_default().moved(before, after);
                }
                if !entry.dirty && (reply != task::Reply::Stale || !out.events.is_empty()) {
                    entry.dirty = true;
                    self.write_set.order.push(id);
                }
                entry.assigned |= assigning;
                if assigning && let Some(assignment) = &entry.task.assignment {
                    let worker = (entry.task.namespace.clone(), assignment.worker.clone());
                    self.write_set.assigned_to.entry(worker).or_default().push(id);
                }
                self.take_in(id, out)?;
                Ok(Ok(reply))
            }
        }
    }

    /// Returns the reply to a command on a task without a record.
    pub(super) fn absent(&self, id: TaskId) -> Refused {
        match self.write_set.undecodable.get(&id) {
            Some(reason) => Refused::Corrupt { what: format!("task {id}"), reason: reason.clone() },
            None => Refused::NoTask(id),
        }
    }

    fn take_in(&mut self, id: TaskId, mut out: task::Transition) -> Result<(), Error> {
        let Some(entry) = self.write_set.entries.get_mut(&id) else { return Ok(()) };
        entry.record(&mut out);
        let ended = out.ended.then_some(entry.task.state);
        if entry.task.state == State::Queued
            && let Some(name) = entry.task.agent()
        {
            let key = (entry.task.namespace.clone(), name.clone());
            let defaults = entry.task.defaults;
            match self.agent(&key).map(|agent| agent.defaults) {
                None => self.without_agent(id),
                // A ready task has its agent's current limits, whichever of the two was created or changed last.
                Some(current) if current != defaults => {
                    let command = Command::AgentAppeared { defaults: current };
                    self.write_set.follow.push_back((id, command));
                }
                Some(_) => {}
            }
        }
        if let Some(state) = ended {
            self.ended(id, state)?;
        }
        Ok(())
    }

    /// Executes every pending follow-up command. What a round of them needs is loaded in one call.
    pub(super) fn follow_up(&mut self, now: Timestamp) -> Result<(), Error> {
        while let Some((id, command)) = self.write_set.follow.pop_front() {
            if !self.is_ready_for(id, &command) {
                self.fetch_follow_ups((id, &command))?;
            }
            // A follow-up that no longer applies, for example to a cancelled dependent, is dropped.
            let _ = self.apply(id, command, now)?;
        }
        Ok(())
    }

    pub(super) fn route(&mut self, route: &Route) -> RouteId {
        let known =
            self.write_set.routes.get(route).copied().unwrap_or_else(|| self.routes.get(route).copied());
        known.unwrap_or_else(|| {
            let changes = &mut self.write_set.changes;
            changes.last_route = changes.last_route.max(self.last_route) + 1;
            let id = RouteId(changes.last_route);
            self.write_set.routes.insert(route.clone(), Some(id));
            self.write_set.new_routes.push((id, route.clone()));
            id
        })
    }

    /// Returns an agent in the current state of the batch.
    pub(super) fn agent(&self, key: &AgentKey) -> Option<&Arc<Agent>> {
        match self.write_set.agents.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.agents.get(key),
        }
    }

    /// Returns the open session of a worker in the current state of the batch.
    pub(super) fn session(&self, key: &SessionKey) -> Option<&(Epoch, AgentName)> {
        match self.write_set.sessions.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.sessions.get(key),
        }
    }
}
