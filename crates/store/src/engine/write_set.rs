//! Write set of a batch: each touched record is loaded once, changed in memory, and written once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::target::Route;
use rota_core::task::{self, Command, EndedAttempt, Event, QueueWait, State, Task};
use rota_core::usage::Usage;
use rota_core::{AgentName, RouteId, TaskId, Timestamp, WorkerName};

use super::Engine;
use super::queue::{Queue, rank_key};
use crate::{AgentChange, Error, Refused, WriteTxn};

#[derive(Debug, Default)]
pub(super) struct WriteSet {
    pub(super) entries: HashMap<TaskId, Entry>,
    /// Ready tasks of the touched routes.
    pub(super) queues: HashMap<RouteId, Queue>,
    /// Ids in order of first touch.
    pub(super) order: Vec<TaskId>,
    pub(super) follow: VecDeque<(TaskId, Command)>,
    pub(super) agents: Vec<AgentChange>,
    pub(super) routes: Vec<(RouteId, Route)>,
    pub(super) removed_routes: Vec<RouteId>,
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
    /// Payload of a new task.
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
        self.order.push(id);
        self.entries.insert(id, entry);
    }
}

impl<T: WriteTxn> Engine<T> {
    /// Returns a task's record in the current state of the batch.
    pub(super) fn load(&mut self, id: TaskId) -> Result<Option<&Task>, Error> {
        if !self.write_set.holds(id) {
            let task = match self.live.remove(&id) {
                Some(task) => task,
                None => match self.txn.task(id)? {
                    Some(task) => Arc::new(task),
                    None => return Ok(None),
                },
            };
            let route = self.route(&task.route())?;
            let entry = Entry {
                before: Some(task.state),
                before_worker: task.assignment.as_ref().map(|assignment| assignment.worker.clone()),
                ..Entry::new(task, route)
            };
            self.write_set.put(id, entry);
        }
        Ok(self.write_set.get(id).map(|entry| &*entry.task))
    }

    /// Adds a new task to the batch.
    pub(super) fn add(&mut self, task: Task, out: task::Transition, payload: Bytes) -> Result<(), Error> {
        let id = task.id;
        let route = self.route(&task.route())?;
        let entry = Entry { dirty: true, payload: Some(payload), ..Entry::new(Arc::new(task), route) };
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
            return Ok(Err(Refused::NoTask(id)));
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
                entry.dirty |= reply != task::Reply::Stale || !out.events.is_empty();
                entry.assigned |= assigning;
                self.take_in(id, out)?;
                Ok(Ok(reply))
            }
        }
    }

    fn take_in(&mut self, id: TaskId, mut out: task::Transition) -> Result<(), Error> {
        let Some(entry) = self.write_set.entries.get_mut(&id) else { return Ok(()) };
        entry.record(&mut out);
        let ended = out.ended.then_some(entry.task.state);
        if entry.task.state == State::Queued
            && let Some(name) = entry.task.agent()
        {
            match self.agents.get(&(entry.task.namespace.clone(), name.clone())) {
                None => self.without_agent(id)?,
                // A ready task has its agent's current limits, whichever of the two was created or changed last.
                Some(agent) if agent.defaults != entry.task.defaults => {
                    let command = Command::AgentAppeared { defaults: agent.defaults };
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

    /// Executes every pending follow-up command.
    pub(super) fn follow_up(&mut self, now: Timestamp) -> Result<(), Error> {
        while let Some((id, command)) = self.write_set.follow.pop_front() {
            // A follow-up that no longer applies, for example to a cancelled dependent, is dropped.
            let _ = self.apply(id, command, now)?;
        }
        Ok(())
    }

    pub(super) fn route(&mut self, route: &Route) -> Result<RouteId, Error> {
        if let Some(id) = self.routes.get(route) {
            return Ok(*id);
        }
        let id = self.txn.add_route(route)?;
        self.routes.insert(route.clone(), id);
        self.write_set.routes.push((id, route.clone()));
        Ok(id)
    }
}
