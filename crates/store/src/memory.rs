//! In-memory store: the reference implementation of [`WriteTxn`] and [`ReadTxn`]. Tests compare other stores with it,
//! and use it where durability does not matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{Event, State, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp, WorkerName};

use crate::{Error, FeedEntry, Filter, Page, ReadTxn, Session, Snapshot, StoreStats, WaitKey, WriteTxn};

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
    aliases: HashMap<(Namespace, String), TaskId>,
    /// With the time at which the task was removed.
    keys: BTreeMap<(Namespace, String), (TaskId, Option<Timestamp>)>,
    waits: BTreeSet<(Namespace, WaitKey, TaskId)>,
    edges: BTreeSet<(TaskId, TaskId)>,
    agents: BTreeMap<(Namespace, AgentName), Agent>,
    sessions: BTreeMap<(Namespace, WorkerName), Session>,
}

/// In-memory database. Clones share their contents; one of them writes.
#[derive(Debug, Clone, Default)]
pub struct InMemoryStore {
    state: Arc<RwLock<Contents>>,
    /// The committed contents, while a dry run changes a copy.
    kept: Option<Arc<RwLock<Contents>>>,
}

/// Removes the oldest entries that ended before a time, and returns their number.
fn oldest<K: Ord + Clone, V>(
    all: &mut BTreeMap<K, V>,
    before: Timestamp,
    limit: usize,
    over: impl Fn(&V) -> Option<Timestamp>,
) -> usize {
    let mut old: Vec<_> = all.iter().filter_map(|(key, value)| Some((over(value)?, key.clone()))).collect();
    old.retain(|(at, _)| *at < before);
    old.sort_unstable();
    old.truncate(limit);
    for (_, key) in &old {
        all.remove(key);
    }
    old.len()
}

impl WriteTxn for InMemoryStore {
    fn begin(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn begin_dry_run(&mut self) -> Result<(), Error> {
        let copy = Arc::new(RwLock::new(self.state.read().clone()));
        self.kept = Some(std::mem::replace(&mut self.state, copy));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        Ok(())
    }

    // Only dry runs are rolled back: the engine otherwise rolls back on errors, of which there are none here.
    fn rollback(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.state = kept;
        }
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, Error> {
        ReadTxn::task(self, id)
    }

    fn insert_task(&mut self, task: &Task, route: RouteId, payload: &Bytes) -> Result<(), Error> {
        let mut state = self.state.write();
        state.payloads.insert(task.id, payload.clone());
        state.tasks.insert(task.id, (task.clone(), route));
        Ok(())
    }

    fn update_task(&mut self, task: &Task, route: RouteId) -> Result<(), Error> {
        self.state.write().tasks.insert(task.id, (task.clone(), route));
        Ok(())
    }

    fn delete_task(&mut self, task: &Task, now: Timestamp) -> Result<(), Error> {
        let mut state = self.state.write();
        state.tasks.remove(&task.id);
        state.payloads.remove(&task.id);
        state.results.remove(&task.id);
        state.secrets.remove(&task.id);
        state.aliases.retain(|_, id| *id != task.id);
        for (_, orphaned_at) in state.keys.values_mut().filter(|(id, _)| *id == task.id) {
            *orphaned_at = Some(now);
        }
        state.log.retain(|_, (id, _)| *id != task.id);
        state.waits.retain(|(.., waiter)| *waiter != task.id);
        Ok(())
    }

    fn append(&mut self, id: TaskId, events: &[Event]) -> Result<u64, Error> {
        let mut state = self.state.write();
        state.revision += 1;
        let revision = state.revision;
        state.log.insert(revision, (id, events.to_vec()));
        Ok(revision)
    }

    fn payload(&mut self, id: TaskId) -> Result<Option<Bytes>, Error> {
        ReadTxn::payload(self, id)
    }

    fn put_result(&mut self, id: TaskId, result: &Bytes) -> Result<(), Error> {
        self.state.write().results.insert(id, result.clone());
        Ok(())
    }

    fn result(&mut self, id: TaskId) -> Result<Option<Bytes>, Error> {
        ReadTxn::result(self, id)
    }

    fn put_secrets(&mut self, id: TaskId, secrets: &Bytes) -> Result<(), Error> {
        self.state.write().secrets.insert(id, secrets.clone());
        Ok(())
    }

    fn secrets(&mut self, id: TaskId) -> Result<Option<Bytes>, Error> {
        Ok(self.state.read().secrets.get(&id).cloned())
    }

    fn delete_secrets(&mut self, id: TaskId) -> Result<(), Error> {
        self.state.write().secrets.remove(&id);
        Ok(())
    }

    fn ready(&mut self, route: RouteId, limit: usize) -> Result<Vec<(i64, TaskId)>, Error> {
        let state = self.state.read();
        let ready = state.tasks.values().filter(|(task, at)| *at == route && task.state == State::Queued);
        let mut ready: Vec<_> = ready.map(|(task, _)| (task.rank(), task.id)).collect();
        ready.sort_unstable();
        ready.truncate(limit);
        Ok(ready)
    }

    fn due(&mut self, now: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error> {
        let state = self.state.read();
        let due = state.tasks.values().filter_map(|(task, _)| Some((task.due()?, task.id)));
        let mut due: Vec<_> = due.filter(|(at, _)| *at <= now).collect();
        due.sort_unstable();
        Ok(due.into_iter().take(limit).map(|(_, id)| id).collect())
    }

    fn next_due(&mut self) -> Result<Option<Timestamp>, Error> {
        Ok(self.state.read().tasks.values().filter_map(|(task, _)| task.due()).min())
    }

    fn ended_before(&mut self, before: Timestamp, limit: usize) -> Result<Vec<TaskId>, Error> {
        let state = self.state.read();
        let ended = state.tasks.values().filter_map(|(task, _)| Some((task.ended_at?, task.id)));
        let mut old: Vec<_> = ended.filter(|(at, _)| *at < before).collect();
        old.sort_unstable();
        Ok(old.into_iter().take(limit).map(|(_, id)| id).collect())
    }

    fn add_route(&mut self, route: &Route) -> Result<RouteId, Error> {
        let mut state = self.state.write();
        state.last_route += 1;
        let id = RouteId(state.last_route);
        state.routes.insert(id, route.clone());
        Ok(id)
    }

    fn delete_route(&mut self, id: RouteId) -> Result<(), Error> {
        self.state.write().routes.remove(&id);
        Ok(())
    }

    fn newest(&mut self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error> {
        ReadTxn::newest(self, namespace, alias)
    }

    fn put_alias(&mut self, namespace: &Namespace, alias: &str, id: TaskId) -> Result<(), Error> {
        self.state.write().aliases.insert((namespace.clone(), alias.to_owned()), id);
        Ok(())
    }

    fn key(&mut self, namespace: &Namespace, key: &str) -> Result<Option<TaskId>, Error> {
        Ok(self.state.read().keys.get(&(namespace.clone(), key.to_owned())).map(|(id, _)| *id))
    }

    fn put_key(&mut self, namespace: &Namespace, key: &str, id: TaskId) -> Result<(), Error> {
        self.state.write().keys.insert((namespace.clone(), key.to_owned()), (id, None));
        Ok(())
    }

    fn delete_keys(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let keys = &mut self.state.write().keys;
        Ok(oldest(keys, before, limit, |(_, orphaned_at)| *orphaned_at))
    }

    fn put_wait(&mut self, namespace: &Namespace, key: &WaitKey, waiter: TaskId) -> Result<(), Error> {
        self.state.write().waits.insert((namespace.clone(), key.clone(), waiter));
        Ok(())
    }

    fn take_waits(&mut self, namespace: &Namespace, key: &WaitKey) -> Result<Vec<TaskId>, Error> {
        let mut taken = Vec::new();
        self.state.write().waits.retain(|(at, wait, waiter)| {
            let found = at == namespace && wait == key;
            if found {
                taken.push(*waiter);
            }
            !found
        });
        Ok(taken)
    }

    fn put_edge(&mut self, id: TaskId, dependent: TaskId) -> Result<(), Error> {
        self.state.write().edges.insert((id, dependent));
        Ok(())
    }

    fn take_edges(&mut self, id: TaskId) -> Result<Vec<TaskId>, Error> {
        let mut taken = Vec::new();
        self.state.write().edges.retain(|(on, dependent)| {
            if *on == id {
                taken.push(*dependent);
            }
            *on != id
        });
        Ok(taken)
    }

    fn put_agent(&mut self, agent: &Agent) -> Result<(), Error> {
        self.state.write().agents.insert((agent.namespace.clone(), agent.name.clone()), agent.clone());
        Ok(())
    }

    fn delete_agent(&mut self, namespace: &Namespace, name: &AgentName) -> Result<(), Error> {
        self.state.write().agents.remove(&(namespace.clone(), name.clone()));
        Ok(())
    }

    fn session(&mut self, namespace: &Namespace, worker: &WorkerName) -> Result<Option<Session>, Error> {
        Ok(self.state.read().sessions.get(&(namespace.clone(), worker.clone())).cloned())
    }

    fn put_session(&mut self, session: &Session) -> Result<(), Error> {
        let key = (session.namespace.clone(), session.worker.clone());
        self.state.write().sessions.insert(key, session.clone());
        Ok(())
    }

    fn delete_sessions(&mut self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let sessions = &mut self.state.write().sessions;
        Ok(oldest(sessions, before, limit, |session| (!session.open).then_some(session.since)))
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        ReadTxn::snapshot(self)
    }
}

impl ReadTxn for InMemoryStore {
    fn task(&self, id: TaskId) -> Result<Option<Task>, Error> {
        Ok(self.state.read().tasks.get(&id).map(|(task, _)| task.clone()))
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

    fn events(&self, id: TaskId, after: u64, limit: usize) -> Result<Vec<Event>, Error> {
        let state = self.state.read();
        let mut events = Vec::new();
        for (_, row) in state.log.values().filter(|(task, _)| *task == id) {
            if events.len() >= limit {
                break;
            }
            events.extend(row.iter().filter(|event| event.log_seq > after).cloned());
        }
        Ok(events)
    }

    fn feed(&self, after: u64, limit: usize) -> Result<Vec<FeedEntry>, Error> {
        let state = self.state.read();
        let rows = state.log.range(after.saturating_add(1)..).take(limit);
        Ok(rows
            .map(|(&revision, (id, events))| FeedEntry { revision, id: *id, events: events.clone() })
            .collect())
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
            next_due: state.tasks.values().filter_map(|(task, _)| task.due()).min(),
        })
    }
}
