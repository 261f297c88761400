//! In-memory store: the reference implementation of [`Backend`] and [`Reader`]. Tests compare other stores with it, and
//! use it where durability does not matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::slice::from_ref;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{Event, State, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp};

use crate::{
    Backend, Budget, Changes, Error, ExpiredKeys, ExpiredRows, FeedEntry, Filter, Keys, NameKey, Page,
    Reader, ReadyKey, ReadyRow, Rows, Session, SessionKey, Snapshot, StoreStats, WaitsKey, Written,
};

#[derive(Debug, Clone, Default)]
struct Contents {
    tasks: BTreeMap<TaskId, (Task, RouteId)>,
    payloads: HashMap<TaskId, Bytes>,
    results: HashMap<TaskId, Bytes>,
    secrets: HashMap<TaskId, Bytes>,
    log: BTreeMap<u64, (TaskId, Vec<Event>)>,
    revision: u64,
    routes: BTreeMap<RouteId, Route>,
    last_route: u32,
    aliases: HashMap<NameKey, TaskId>,
    /// With the time at which the task was removed.
    keys: BTreeMap<NameKey, (TaskId, Option<Timestamp>)>,
    waits: BTreeMap<WaitsKey, BTreeSet<TaskId>>,
    edges: BTreeMap<TaskId, BTreeSet<TaskId>>,
    agents: BTreeMap<(Namespace, AgentName), Agent>,
    sessions: BTreeMap<SessionKey, Session>,
}

/// In-memory database. Clones share their contents; one of them writes.
#[derive(Debug, Clone, Default)]
pub struct InMemoryStore {
    state: Arc<RwLock<Contents>>,
}

/// Returns the keys of the oldest entries that ended before a time.
fn oldest<'a, K: Ord + Clone + 'a, V: 'a>(
    all: impl IntoIterator<Item = (&'a K, &'a V)>,
    before: Timestamp,
    limit: usize,
    ended: impl Fn(&V) -> Option<Timestamp>,
) -> Vec<K> {
    let mut old: Vec<_> =
        all.into_iter().filter_map(|(key, value)| Some((ended(value)?, key.clone()))).collect();
    old.retain(|(at, _)| *at < before);
    old.sort_unstable();
    old.truncate(limit);
    old.into_iter().map(|(_, key)| key).collect()
}

impl Contents {
    fn ready(&self, key: &ReadyKey) -> Vec<ReadyRow> {
        let ready = self.tasks.values().filter(|(task, at)| *at == key.route && task.state == State::Queued);
        let mut ready: Vec<_> = ready.map(|(task, _)| task).collect();
        ready.sort_unstable_by_key(|task| (task.rank(), task.id));
        ready.truncate(key.limit);
        let row = |task: &Task| ReadyRow {
            rank: task.rank(),
            id: task.id,
            task: Ok(task.clone()),
            payload: self.payloads.get(&task.id).filter(|_| key.payloads).cloned(),
        };
        ready.into_iter().map(row).collect()
    }

    fn due(&self, now: Timestamp, limit: usize) -> Vec<TaskId> {
        let due = self.tasks.values().filter_map(|(task, _)| Some((task.due()?, task.id)));
        let mut due: Vec<_> = due.filter(|(at, _)| *at <= now).collect();
        due.sort_unstable();
        due.into_iter().take(limit).map(|(_, id)| id).collect()
    }

    fn expired(&self, keys: &ExpiredKeys) -> ExpiredRows {
        let sessions = oldest(&self.sessions, keys.left_before, keys.limit, |session| {
            (!session.open).then_some(session.since)
        });
        let Some(before) = keys.ended_before else {
            return ExpiredRows { sessions, ..ExpiredRows::default() };
        };
        let tasks = oldest(&self.tasks, before, keys.limit, |(task, _)| task.ended_at);
        ExpiredRows {
            tasks: tasks.into_iter().filter_map(|id| Some((id, Ok(self.task(id)?)))).collect(),
            keys: oldest(&self.keys, before, keys.limit, |(_, orphaned_at)| *orphaned_at),
            sessions,
        }
    }

    fn task(&self, id: TaskId) -> Option<Task> {
        self.tasks.get(&id).map(|(task, _)| task.clone())
    }

    fn remove(&mut self, task: &Task, now: Timestamp) {
        self.tasks.remove(&task.id);
        self.payloads.remove(&task.id);
        self.results.remove(&task.id);
        self.secrets.remove(&task.id);
        self.aliases.retain(|_, id| *id != task.id);
        for (_, orphaned_at) in self.keys.values_mut().filter(|(id, _)| *id == task.id) {
            *orphaned_at = Some(now);
        }
        self.log.retain(|_, (id, _)| *id != task.id);
    }

    fn write(&mut self, changes: &Changes) {
        for task in &changes.removed {
            self.remove(task, changes.now);
        }
        for (task, route, payload) in &changes.inserted {
            self.payloads.insert(task.id, payload.clone());
            self.tasks.insert(task.id, (Task::clone(task), *route));
        }
        for (task, route) in &changes.updated {
            self.tasks.insert(task.id, (Task::clone(task), *route));
        }
        self.results.extend(changes.results.iter().cloned());
        self.secrets.retain(|id, _| !changes.removed_secrets.contains(id));
        self.secrets.extend(changes.secrets.iter().cloned());
        self.log.extend(changes.log.iter().map(|(revision, id, events)| (*revision, (*id, events.to_vec()))));
        self.routes.retain(|id, _| !changes.removed_routes.contains(id));
        self.routes.extend(changes.routes.iter().cloned());
        self.aliases.extend(changes.aliases.iter().cloned());
        self.keys.retain(|key, _| !changes.removed_keys.contains(key));
        self.keys.extend(changes.keys.iter().map(|(key, id)| (key.clone(), (*id, None))));
        for (key, waiter) in &changes.removed_waiters {
            self.waits.entry(key.clone()).or_default().remove(waiter);
        }
        for key in &changes.removed_waits {
            self.waits.remove(key);
        }
        for (key, waiter) in &changes.waits {
            self.waits.entry(key.clone()).or_default().insert(*waiter);
        }
        self.waits.retain(|_, waiters| !waiters.is_empty());
        for id in &changes.removed_edges {
            self.edges.remove(id);
        }
        for (id, dependent) in &changes.edges {
            self.edges.entry(*id).or_default().insert(*dependent);
        }
        self.agents.retain(|key, _| !changes.removed_agents.contains(key));
        for agent in &changes.agents {
            self.agents.insert((agent.namespace.clone(), agent.name.clone()), Agent::clone(agent));
        }
        self.sessions.retain(|key, _| !changes.removed_sessions.contains(key));
        for session in &changes.sessions {
            self.sessions.insert((session.namespace.clone(), session.worker.clone()), session.clone());
        }
        self.revision = changes.revision;
        self.last_route = changes.last_route;
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.tasks.values().filter_map(|(task, _)| task.due()).min()
    }
}

/// Returns the rows of some keys.
fn rows<K: Clone, V>(keys: &[K], row: impl Fn(&K) -> Option<V>) -> Vec<(K, V)> {
    keys.iter().filter_map(|key| Some((key.clone(), row(key)?))).collect()
}

impl Backend for InMemoryStore {
    fn load(&mut self, keys: &Keys) -> Result<Rows, Error> {
        let state = self.state.read();
        let aliases = rows(&keys.aliases, |key| state.aliases.get(key).copied());
        let by_key = rows(&keys.keys, |key| state.keys.get(key).map(|(id, _)| *id));
        let named: Vec<_> = aliases.iter().chain(&by_key).map(|(_, id)| *id).collect();
        let record = |id: &TaskId| state.task(*id).map(Ok);
        let mut tasks = rows(&keys.tasks, record);
        tasks.extend(rows(&named, record));
        Ok(Rows {
            tasks,
            payloads: rows(&keys.payloads, |id| state.payloads.get(id).cloned()),
            results: rows(&keys.results, |id| state.results.get(id).cloned()),
            secrets: rows(&keys.secrets, |id| state.secrets.get(id).cloned()),
            dependents: rows(&keys.dependents, |id| Some(state.edges.get(id)?.iter().copied().collect())),
            aliases,
            keys: by_key,
            waits: rows(&keys.waits, |key| Some(state.waits.get(key)?.iter().copied().collect())),
            sessions: rows(&keys.sessions, |key| state.sessions.get(key).cloned().map(Ok)),
            ready: keys.ready.iter().map(|key| (key.route, state.ready(key))).collect(),
            due: keys.due.map_or_else(Vec::new, |(now, limit)| rows(&state.due(now, limit), record)),
            expired: keys.expired.as_ref().map(|keys| state.expired(keys)).unwrap_or_default(),
        })
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        let mut state = self.state.write();
        if state.revision != changes.before {
            return Err(Error::Deposed);
        }
        state.write(changes);
        Ok(Written { next_due: state.next_due() })
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        Reader::snapshot(self)
    }
}

impl Reader for InMemoryStore {
    fn task(&self, id: TaskId) -> Result<Option<Task>, Error> {
        Ok(self.state.read().task(id))
    }

    fn newest(&self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error> {
        Ok(self.state.read().aliases.get(&(namespace.clone(), alias.to_owned())).copied())
    }

    fn payload(&self, id: TaskId) -> Result<Option<Bytes>, Error> {
        Ok(self.state.read().payloads.get(&id).cloned())
    }

    fn result(&self, id: TaskId) -> Result<Option<Bytes>, Error> {
        Ok(self.state.read().results.get(&id).cloned())
    }

    fn list(&self, filter: &Filter) -> Result<Page, Error> {
        let state = self.state.read();
        let all = state.tasks.values().rev().map(|(task, _)| task);
        let fitting = all.filter(|task| filter.before_id.is_none_or(|id| task.id < id) && filter.fits(task));
        let tasks: Vec<_> = fitting.take(filter.limit).cloned().collect();
        let next = tasks.last().filter(|_| tasks.len() == filter.limit).map(|task| task.id);
        Ok(Page { tasks, next })
    }

    fn events(&self, id: TaskId, after: u64, mut budget: Budget) -> Result<Vec<Event>, Error> {
        let state = self.state.read();
        let rows = state.log.values().filter(|(task, _)| *task == id);
        let mut events = Vec::new();
        for event in rows.flat_map(|(_, row)| row).filter(|event| event.log_seq > after) {
            events.push(event.clone());
            if budget.spend(from_ref(event)) {
                break;
            }
        }
        Ok(events)
    }

    fn feed(&self, after: u64, mut budget: Budget) -> Result<Vec<FeedEntry>, Error> {
        let state = self.state.read();
        let mut entries = Vec::new();
        for (&revision, (id, events)) in state.log.range(after.saturating_add(1)..) {
            entries.push(FeedEntry { revision, id: *id, events: events.clone() });
            if budget.spend(events) {
                break;
            }
        }
        Ok(entries)
    }

    fn revision(&self) -> Result<u64, Error> {
        Ok(self.state.read().revision)
    }

    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error> {
        let state = self.state.read();
        let ready = state.tasks.values().filter(|(task, at)| *at == route && task.state == State::Queued);
        Ok(ready.filter(|(task, _)| task.rank() < rank).count() as u64)
    }

    fn stats(&self, routes: &[RouteId]) -> Result<StoreStats, Error> {
        let state = self.state.read();
        let pending = state.tasks.values().filter(|(task, _)| task.state == State::Pending).count() as u64;
        let head = |route: &RouteId| {
            let ready = state.tasks.values().filter(|(task, at)| at == route && task.state == State::Queued);
            let first = ready.map(|(task, _)| task).min_by_key(|task| (task.rank(), task.id))?;
            Some((*route, first.ready_at?))
        };
        Ok(StoreStats { pending, next: routes.iter().filter_map(head).collect() })
    }

    fn snapshot(&self) -> Result<Snapshot, Error> {
        let state = self.state.read();
        let mut queued = BTreeMap::new();
        for (task, route) in state.tasks.values() {
            if task.state == State::Queued {
                *queued.entry(*route).or_insert(0) += 1;
            }
        }
        Ok(Snapshot {
            agents: state.agents.values().cloned().collect(),
            routes: state.routes.iter().map(|(id, route)| (*id, route.clone())).collect(),
            queued: queued.into_iter().collect(),
            sessions: state.sessions.values().filter(|session| session.open).cloned().collect(),
            on_workers: (state.tasks.values())
                .filter(|(task, _)| task.state.is_on_worker())
                .map(|(task, route)| (*route, task.clone()))
                .collect(),
            next_due: state.next_due(),
            revision: state.revision,
            last_route: state.last_route,
            undecodable: Vec::new(),
        })
    }
}
