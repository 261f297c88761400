//! The records that one batch touches: loaded once, changed in memory, written once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::target::Route;
use rota_core::task::{self, Command, DependencyState, Event, State, Task};
use rota_core::{RouteId, TaskId, Timestamp, WorkerName};

use super::Engine;
use super::queue::{Queue, place};
use crate::{AgentChange, Commit, Dispatch, Error, Previous, Refused, Tables, TaskChange};

#[derive(Debug, Default)]
pub(super) struct Working {
    pub(super) entries: HashMap<TaskId, Entry>,
    /// Ready tasks of each route that was touched.
    pub(super) queues: HashMap<RouteId, Queue>,
    /// In the order of first touch.
    order: Vec<TaskId>,
    /// Commands that follow from those of the batch.
    pub(super) follow: VecDeque<(TaskId, Command)>,
    pub(super) agents: Vec<AgentChange>,
    pub(super) routes: Vec<(RouteId, Route)>,
    pub(super) gone_routes: Vec<RouteId>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) task: Arc<Task>,
    pub(super) route: RouteId,
    /// State before the batch; `None` for a new task.
    before: Option<State>,
    /// The worker that had it before the batch.
    before_worker: Option<WorkerName>,
    events: Vec<Event>,
    dirty: bool,
    /// Of a new task.
    payload: Option<Bytes>,
    result: Option<Bytes>,
    assigned: bool,
}

impl Working {
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
        if let Some(place) = place(&entry.task) {
            self.queues.entry(entry.route).or_default().moved(None, Some(place));
        }
        self.order.push(id);
        self.entries.insert(id, entry);
    }
}

impl<T: Tables> Engine<T> {
    /// A task's record as the batch has it now.
    pub(super) fn load(&mut self, id: TaskId) -> Result<Option<&Task>, Error> {
        if !self.working.holds(id) {
            let task = match self.live.remove(&id) {
                Some(task) => task,
                None => match self.tables.task(id)? {
                    Some(task) => Arc::new(task),
                    None => return Ok(None),
                },
            };
            let route = self.route(&task.route())?;
            let entry = Entry {
                before: Some(task.state),
                before_worker: task.assignment.as_ref().map(|assignment| assignment.worker.clone()),
                task,
                route,
                events: Vec::new(),
                dirty: false,
                payload: None,
                result: None,
                assigned: false,
            };
            self.working.put(id, entry);
        }
        Ok(self.working.get(id).map(|entry| &*entry.task))
    }

    /// Takes in a task that has just been made.
    pub(super) fn add(&mut self, task: Task, out: task::Transition, payload: Bytes) -> Result<(), Error> {
        let id = task.id;
        let route = self.route(&task.route())?;
        let entry = Entry {
            task: Arc::new(task),
            route,
            before: None,
            before_worker: None,
            events: Vec::new(),
            dirty: true,
            payload: Some(payload),
            result: None,
            assigned: false,
        };
        self.working.put(id, entry);
        self.take_in(id, out)
    }

    /// Lets the core carry out a command on a task.
    pub(super) fn apply(
        &mut self,
        id: TaskId,
        command: Command,
        now: Timestamp,
    ) -> Result<Result<task::Reply, Refused>, Error> {
        if self.load(id)?.is_none() {
            return Ok(Err(Refused::NoTask(id)));
        }
        let Some(entry) = self.working.entries.get_mut(&id) else { return Ok(Err(Refused::NoTask(id))) };
        let assigning = matches!(command, Command::Assign { .. });
        let before = place(&entry.task);
        match Arc::make_mut(&mut entry.task).apply(command, now) {
            Err(rejected) => Ok(Err(rejected.into())),
            Ok(out) => {
                let reply = out.reply;
                let after = place(&entry.task);
                if before != after {
                    self.working.queues.entry(entry.route).or_default().moved(before, after);
                }
                entry.dirty |= reply != task::Reply::Stale || !out.events.is_empty();
                entry.assigned |= assigning;
                self.take_in(id, out)?;
                Ok(Ok(reply))
            }
        }
    }

    fn take_in(&mut self, id: TaskId, out: task::Transition) -> Result<(), Error> {
        let Some(entry) = self.working.entries.get_mut(&id) else { return Ok(()) };
        entry.events.extend(out.events);
        if out.result.is_some() {
            entry.result = out.result;
        }
        let ended = out.ended.then_some(entry.task.state);
        if entry.task.state == State::Queued
            && let Some(name) = entry.task.agent()
        {
            match self.agents.get(&(entry.task.namespace.clone(), name.clone())) {
                None => self.without_agent(id)?,
                // A ready task has its agent's bounds, whichever of the two came or changed last.
                Some(agent) if agent.defaults != entry.task.defaults => {
                    let heard = Command::AgentAppeared { defaults: agent.defaults };
                    self.working.follow.push_back((id, heard));
                }
                Some(_) => {}
            }
        }
        if let Some(state) = ended {
            self.ended(id, state)?;
        }
        Ok(())
    }

    /// Runs what follows from the commands so far, to its end.
    pub(super) fn follow_up(&mut self, now: Timestamp) -> Result<(), Error> {
        while let Some((id, command)) = self.working.follow.pop_front() {
            // What no longer applies (a dependent that was cancelled meanwhile) needs no answer.
            let _ = self.apply(id, command, now)?;
        }
        Ok(())
    }

    pub(super) fn route(&mut self, route: &Route) -> Result<RouteId, Error> {
        if let Some(id) = self.routes.get(route) {
            return Ok(*id);
        }
        let id = self.tables.add_route(route)?;
        self.routes.insert(route.clone(), id);
        self.working.routes.push((id, route.clone()));
        Ok(id)
    }

    /// Writes what the batch changed, and tells it.
    pub(super) fn flush(&mut self) -> Result<Commit, Error> {
        let order = std::mem::take(&mut self.working.order);
        let mut commit = Commit::default();
        for &id in &order {
            let Some(entry) = self.working.entries.get_mut(&id) else { continue };
            if !entry.dirty {
                continue;
            }
            match &entry.payload {
                Some(payload) => self.tables.insert_task(&entry.task, entry.route, payload)?,
                None => self.tables.update_task(&entry.task, entry.route)?,
            }
            if let Some(result) = &entry.result {
                self.tables.put_result(id, result)?;
            }
            if entry.task.state.is_final()
                && entry.task.has_secrets
                && entry.before.is_none_or(|s| !s.is_final())
            {
                self.tables.delete_secrets(id)?;
            }
            let events: Arc<[Event]> = std::mem::take(&mut entry.events).into();
            let revision = if events.is_empty() { 0 } else { self.tables.append(id, &events)? };
            let dispatch = if entry.assigned && entry.task.state == State::Assigned {
                let task = Arc::clone(&entry.task);
                let payload = entry.payload.clone();
                Some(Arc::new(self.dispatch(&task, payload)?))
            } else {
                None
            };
            let Some(entry) = self.working.entries.get(&id) else { continue };
            commit.tasks.push(TaskChange {
                task: Arc::clone(&entry.task),
                route: entry.route,
                before: entry.before,
                events,
                revision,
                dispatch,
            });
        }
        self.working.order = order;
        commit.agents = std::mem::take(&mut self.working.agents);
        commit.routes = std::mem::take(&mut self.working.routes);
        commit.gone_routes = std::mem::take(&mut self.working.gone_routes);
        commit.next_due = self.tables.next_due()?;
        Ok(commit)
    }

    /// What a worker must be sent besides the record.
    fn dispatch(&mut self, task: &Task, payload: Option<Bytes>) -> Result<Dispatch, Error> {
        let payload = match payload {
            Some(payload) => payload,
            None => self.tables.payload(task.id)?.unwrap_or_default(),
        };
        let secrets = if task.has_secrets { self.tables.secrets(task.id)? } else { None };
        let mut previous = Vec::new();
        for dependency in &task.dependencies {
            let DependencyState::Ended(id, _) = dependency.state else { continue };
            let (record, result) = match self.working.get(id) {
                Some(entry) => (Some(Arc::clone(&entry.task)), entry.result.clone()),
                None => (self.tables.task(id)?.map(Arc::new), None),
            };
            let Some(record) = record else { continue };
            let result = match result {
                None if record.has_result => self.tables.result(id)?,
                result => result,
            };
            previous.push(Previous { task: record, result });
        }
        Ok(Dispatch { payload, secrets, previous })
    }

    /// After the commit: keeps what will be needed again, and hands out the records touched.
    pub(super) fn settle_memory(&mut self) -> HashMap<TaskId, Arc<Task>> {
        let working = std::mem::take(&mut self.working);
        let mut records = HashMap::with_capacity(working.entries.len());
        for (id, entry) in working.entries {
            if let Some(worker) = entry.before_worker {
                let key = (entry.task.namespace.clone(), worker);
                if let Some(tasks) = self.by_worker.get_mut(&key) {
                    tasks.remove(&id);
                    if tasks.is_empty() {
                        self.by_worker.remove(&key);
                    }
                }
            }
            records.insert(id, Arc::clone(&entry.task));
            self.keep(entry.task);
        }
        records
    }

    /// Keeps a record in memory while a worker has the task.
    pub(super) fn keep(&mut self, task: Arc<Task>) {
        if let Some(assignment) = &task.assignment {
            let worker = (task.namespace.clone(), assignment.worker.clone());
            self.by_worker.entry(worker).or_default().insert(task.id);
            self.live.insert(task.id, task);
        }
    }
}
