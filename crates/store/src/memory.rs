//! In-memory store: the reference implementation of [`Backend`] and [`Reader`]. Tests compare other stores with it, and
//! use it where durability does not matter.

mod documents;
mod expired;
mod oldest;
mod pages;
mod search;
mod workflows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Bound;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::Account;
use rota_core::target::Route;
use rota_core::task::{Event, State, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, TaskKey, Timestamp};
use uuid::Uuid;

use crate::search::InMemoryIndex;
use crate::{
    AccountKey, ArtifactsKey, ArtifactsKeys, ArtifactsRow, Backend, Budget, Changes, CredentialKey, Document,
    DocumentKey, Documents, DocumentsPage, Error, FeedEntry, FeedPage, Filter, FollowUp, IdempotencyRow,
    Load, Loaded, NameKey, OnWorker, Page, Reader, ScopedId, SealedSecrets, Session, SessionKey, Snapshot,
    Span, StateRow, StoreSpace, StoreStats, TaskBody, TaskRow, Thread, WaitsKey, WorkflowQuery, WorkflowRows,
    Written, stored_due,
};

/// Reads at the same time: each only waits for the writer.
const MAX_READS: usize = 64;

#[derive(Debug, Clone, Default)]
struct Contents {
    id: Uuid,
    tasks: BTreeMap<TaskKey, (Task, RouteId)>,
    ids: HashMap<ScopedId, TaskKey>,
    payloads: HashMap<TaskKey, Bytes>,
    results: HashMap<TaskKey, Bytes>,
    artifacts: BTreeMap<ArtifactsKey, Bytes>,
    secrets: HashMap<TaskKey, Bytes>,
    log: BTreeMap<u64, (TaskKey, Vec<Event>)>,
    revision: u64,
    routes: BTreeMap<RouteId, Route>,
    last_route: u32,
    written_at: Option<Timestamp>,
    away: Vec<Span>,
    aliases: HashMap<NameKey, TaskKey>,
    threads: BTreeMap<NameKey, Thread>,
    /// With the id of the task, and the time at which it was removed.
    idempotency_keys: BTreeMap<NameKey, (TaskId, TaskKey, Option<Timestamp>)>,
    waits: BTreeSet<(WaitsKey, TaskKey)>,
    /// A task, then one that depends on it.
    edges: BTreeSet<(TaskKey, TaskKey)>,
    agents: BTreeMap<(Namespace, AgentName), Agent>,
    sessions: BTreeMap<SessionKey, Session>,
    follow_ups: BTreeMap<u64, FollowUp>,
    cool_downs: BTreeMap<CredentialKey, CoolDown>,
    accounts: BTreeMap<AccountKey, Account>,
    workflows: workflows::Workflows,
    documents: BTreeMap<DocumentKey, Document>,
}

/// In-memory database. Clones share their contents; one of them writes.
#[derive(Debug, Clone)]
pub struct InMemoryStore {
    state: Arc<RwLock<Contents>>,
    body_reads: Arc<AtomicU64>,
    index: Arc<InMemoryIndex>,
}

impl Default for InMemoryStore {
    fn default() -> Self {
        let contents = Contents { id: Uuid::new_v4(), ..Contents::default() };
        Self { state: Arc::new(RwLock::new(contents)), body_reads: Arc::default(), index: Arc::default() }
    }
}

impl Contents {
    fn row(&self, key: TaskKey) -> Option<TaskRow> {
        let (task, _) = self.tasks.get(&key)?;
        let has_dependents = self.edges.range((key, TaskKey(0))..=(key, TaskKey(u64::MAX))).next().is_some();
        Some(TaskRow { key, id: task.id, task: Ok(task.clone()), has_dependents })
    }

    fn rows(&self, keys: impl IntoIterator<Item = TaskKey>) -> Vec<TaskRow> {
        keys.into_iter().filter_map(|key| self.row(key)).collect()
    }

    fn remove(&mut self, task: &Task, now: Timestamp) {
        let key = task.key;
        self.tasks.remove(&key);
        self.ids.remove(&(task.namespace.clone(), task.id));
        for bodies in [&mut self.payloads, &mut self.results, &mut self.secrets] {
            bodies.remove(&key);
        }
        self.artifacts.retain(|of, _| of.task != key);
        self.aliases.retain(|_, named| *named != key);
        for (.., orphaned_at) in self.idempotency_keys.values_mut().filter(|(_, owner, _)| *owner == key) {
            *orphaned_at = Some(now);
        }
        self.log.retain(|_, (task, _)| *task != key);
    }

    fn write(&mut self, changes: &Changes) {
        for task in &changes.removed {
            self.remove(task, changes.now);
        }
        let discarded = changes.discarded.iter().filter_map(|key| Some(self.tasks.get(key)?.0.clone()));
        for task in discarded.collect::<Vec<_>>() {
            self.remove(&task, changes.now);
        }
        for (task, route, payload) in &changes.inserted {
            self.payloads.insert(task.key, payload.clone());
            self.ids.insert((task.namespace.clone(), task.id), task.key);
            self.tasks.insert(task.key, (Task::clone(task), *route));
        }
        for (task, route) in &changes.updated {
            self.tasks.insert(task.key, (Task::clone(task), *route));
        }
        self.results.extend(changes.results.iter().cloned());
        for workflow in &changes.workflows.removed {
            self.artifacts.retain(|of, _| of.task.0 != workflow.0);
        }
        self.artifacts.extend(changes.artifacts.iter().cloned());
        self.secrets.retain(|key, _| !changes.removed_secrets.contains(key));
        self.secrets.extend(changes.secrets.iter().cloned());
        self.log
            .extend(changes.log.iter().map(|(revision, key, events)| (*revision, (*key, events.to_vec()))));
        self.routes.retain(|id, _| !changes.removed_routes.contains(id));
        self.routes.extend(changes.routes.iter().cloned());
        self.aliases.extend(changes.aliases.iter().cloned());
        self.idempotency_keys.retain(|key, _| !changes.removed_keys.contains(key));
        for (name, id, key) in &changes.idempotency_keys {
            self.idempotency_keys.insert(name.clone(), (*id, *key, None));
        }
        self.threads.retain(|name, _| !changes.removed_threads.contains(name));
        self.threads.extend(changes.threads.iter().cloned());
        for waiter in &changes.removed_waits {
            self.waits.remove(waiter);
        }
        self.waits.extend(changes.waits.iter().cloned());
        self.edges.retain(|(_, dependent)| !changes.removed_dependents.contains(dependent));
        self.edges.extend(&changes.edges);
        self.agents.retain(|key, _| !changes.removed_agents.contains(key));
        for agent in &changes.agents {
            self.agents.insert((agent.namespace.clone(), agent.name.clone()), Agent::clone(agent));
        }
        self.sessions.retain(|key, _| !changes.removed_sessions.contains(key));
        for session in &changes.sessions {
            self.sessions.insert((session.namespace.clone(), session.worker.clone()), session.clone());
        }
        self.follow_ups.retain(|number, _| !changes.removed_follow_ups.contains(number));
        self.follow_ups.extend(changes.follow_ups.iter().cloned());
        for key in &changes.removed_cool_downs {
            self.cool_downs.remove(key);
        }
        for cool_down in &changes.cool_downs {
            let key = (cool_down.namespace.clone(), cool_down.credential);
            self.cool_downs.insert(key, CoolDown::clone(cool_down));
        }
        for account in &changes.accounts {
            let key = (account.namespace.clone(), account.scope.clone());
            self.accounts.insert(key, Account::clone(account));
        }
        self.workflows.write(&changes.workflows);
        self.write_documents(changes);
        self.revision = changes.revision;
        self.last_route = changes.last_route;
        self.written_at = Some(changes.now);
        if let Some(away) = &changes.away {
            self.away.clone_from(away);
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        let tasks = self.tasks.values().filter_map(|(task, _)| stored_due(task)).min();
        tasks.into_iter().chain(self.workflows.next_due()).min()
    }
}

/// Returns the rows of some keys.
fn rows<K: Clone, V>(keys: &[K], row: impl Fn(&K) -> Option<V>) -> Vec<(K, V)> {
    keys.iter().filter_map(|key| Some((key.clone(), row(key)?))).collect()
}

impl Backend for InMemoryStore {
    fn load(&mut self, load: &Load) -> Result<Loaded, Error> {
        let state = self.state.read();
        let bodies =
            |from: &HashMap<TaskKey, Bytes>, keys: &[TaskKey]| rows(keys, |key| from.get(key).cloned());
        let mut left = load.payload_bytes;
        Ok(Loaded {
            ids: rows(&load.ids, |id| state.row(*state.ids.get(id)?)),
            tasks: state.rows(load.tasks.iter().copied()),
            results: bodies(&state.results, &load.results),
            secrets: bodies(&state.secrets, &load.secrets),
            waiting: Vec::new(),
            dependents: load.dependents.iter().map(|page| state.dependents(page)).collect(),
            dependencies: rows(&load.dependencies, |id| state.row(*state.ids.get(id)?).map(StateRow::new)),
            aliases: rows(&load.aliases, |alias| state.row(*state.aliases.get(alias)?).map(StateRow::new)),
            idempotency_keys: rows(&load.idempotency_keys, |name| {
                let (id, key, _) = state.idempotency_keys.get(name)?;
                Some(IdempotencyRow { id: *id, task: state.row(*key) })
            }),
            threads: rows(&load.threads, |name| state.threads.get(name).cloned().map(Ok)),
            documents: rows(&load.documents, |key| state.documents.get(key).cloned().map(Ok)),
            waits: load.waits.iter().map(|page| state.waiters(page)).collect(),
            sessions: rows(&load.sessions, |key| state.sessions.get(key).cloned().map(Into::into)),
            ready: load.ready.iter().map(|page| state.ready(page, &mut left)).collect(),
            payloads: pages::bodies(&state.payloads, &load.payloads, &mut left),
            due: load.due.map_or_else(Vec::new, |(now, limit)| state.rows(state.due(now, limit))),
            logs: load.logs.as_ref().map_or(0, |page| state.within(page)),
            expired: load.expired.as_ref().map(|page| state.expired(page)).unwrap_or_default(),
            workflows: state.load_workflows(&load.workflows),
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

    fn stored_revision(&mut self) -> Result<u64, Error> {
        Ok(self.state.read().revision)
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        Reader::snapshot(self)
    }
}

impl Reader for InMemoryStore {
    fn concurrency(&self) -> usize {
        MAX_READS
    }

    fn task(&self, id: &ScopedId) -> Result<Option<Task>, Error> {
        let state = self.state.read();
        Ok(state.ids.get(id).and_then(|key| state.tasks.get(key)).map(|(task, _)| task.clone()))
    }

    fn newest(&self, alias: &NameKey) -> Result<Option<Task>, Error> {
        let state = self.state.read();
        let found = state.aliases.get(alias).and_then(|key| state.tasks.get(key));
        Ok(found.map(|(task, _)| task.clone()))
    }

    fn thread(&self, name: &NameKey) -> Result<Option<Thread>, Error> {
        Ok(self.state.read().threads.get(name).cloned())
    }

    fn threads(&self, after: &NameKey, limit: usize) -> Result<Vec<(NameKey, Thread)>, Error> {
        let state = self.state.read();
        let later = state.threads.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(later.take(limit).map(|(name, thread)| (name.clone(), thread.clone())).collect())
    }

    fn workflows(&self, query: &WorkflowQuery) -> Result<WorkflowRows, Error> {
        Ok(self.state.read().query(query))
    }

    fn document(&self, key: &DocumentKey) -> Result<Option<Document>, Error> {
        Ok(self.state.read().documents.get(key).cloned())
    }

    fn documents(&self, page: &DocumentsPage) -> Result<Documents, Error> {
        Ok(self.state.read().document_page(page))
    }

    fn bodies(&self, body: TaskBody, keys: &[TaskKey], bytes: u64) -> Result<Vec<(TaskKey, Bytes)>, Error> {
        self.body_reads.fetch_add(1, Ordering::Relaxed);
        let (state, mut left) = (self.state.read(), bytes);
        let all = match body {
            TaskBody::Payload => &state.payloads,
            TaskBody::Result => &state.results,
        };
        Ok(pages::bodies(all, keys, &mut left))
    }

    fn artifacts(&self, keys: ArtifactsKeys, limit: usize) -> Result<Vec<ArtifactsRow>, Error> {
        let state = self.state.read();
        Ok(state.artifacts.range(keys).take(limit).map(|(key, list)| (*key, list.clone())).collect())
    }

    fn secrets(&self, after: TaskKey, limit: usize) -> Result<Vec<SealedSecrets>, Error> {
        Ok(self.state.read().sealed(after, limit))
    }

    fn list(&self, filter: &Filter) -> Result<Page, Error> {
        let state = self.state.read();
        let older = state.tasks.range(..filter.before.unwrap_or(TaskKey(u64::MAX))).rev();
        let fitting = older.map(|(_, (task, _))| task).filter(|task| filter.fits(task));
        let tasks: Vec<_> = fitting.take(filter.limit).cloned().collect();
        let next = tasks.last().filter(|_| tasks.len() == filter.limit).map(|task| task.key);
        Ok(Page { tasks, next })
    }

    fn events(&self, key: TaskKey, after: u64, mut budget: Budget) -> Result<Vec<Event>, Error> {
        let state = self.state.read();
        let rows = state.log.values().filter(|(task, _)| *task == key);
        let mut events = Vec::new();
        for event in rows.flat_map(|(_, row)| row).filter(|event| event.log_seq > after) {
            events.push(event.clone());
            if budget.spend(from_ref(event)) {
                break;
            }
        }
        Ok(events)
    }

    fn feed(&self, after: u64, mut budget: Budget) -> Result<FeedPage, Error> {
        let state = self.state.read();
        let mut page = FeedPage::default();
        for (&revision, (key, events)) in state.log.range(after.saturating_add(1)..) {
            let task = state.tasks.get(key).map(|(task, _)| task.clone());
            page.entries.push(FeedEntry { revision, task, events: events.clone() });
            if budget.spend(events) {
                page.more = true;
                break;
            }
        }
        Ok(page)
    }

    fn revision(&self) -> Result<u64, Error> {
        Ok(self.state.read().revision)
    }

    fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error> {
        let ready = self.state.read().ready_on(route);
        Ok(ready.into_iter().filter(|(at, _)| *at < rank).count() as u64)
    }

    fn space(&self) -> Result<Option<StoreSpace>, Error> {
        Ok(None)
    }

    fn backup(&self) -> Result<File, Error> {
        let message = "the store is in memory and has no file".to_owned();
        Err(Error::Unavailable { message, hint: "start the control plane with a data directory" })
    }

    fn stats(&self, routes: &[RouteId]) -> Result<StoreStats, Error> {
        let state = self.state.read();
        let pending = state.tasks.values().filter(|(task, _)| task.state == State::Pending).count() as u64;
        let head = |route: &RouteId| {
            let (_, key) = *state.ready_on(*route).first()?;
            Some((*route, state.tasks.get(&key)?.0.ready_at?))
        };
        Ok(StoreStats { pending, next: routes.iter().filter_map(head).collect() })
    }

    fn snapshot(&self) -> Result<Snapshot, Error> {
        let state = self.state.read();
        let count = |wanted: State| {
            let mut counts = BTreeMap::new();
            let tasks = state.tasks.values().filter(|(task, _)| task.state == wanted);
            tasks.for_each(|(_, route)| *counts.entry(*route).or_insert(0) += 1);
            counts.into_iter().collect()
        };
        Ok(Snapshot {
            store: state.id,
            agents: state.agents.values().cloned().collect(),
            routes: state.routes.iter().map(|(id, route)| (*id, route.clone())).collect(),
            queued: count(State::Queued),
            pending: count(State::Pending),
            sessions: state.sessions.values().filter(|session| session.open).cloned().collect(),
            on_workers: (state.tasks.values())
                .filter(|(task, _)| task.state.is_on_worker())
                .map(|(task, route)| OnWorker {
                    route: *route,
                    task: task.clone(),
                    has_dependents: state.row(task.key).is_some_and(|row| row.has_dependents),
                })
                .collect(),
            next_due: state.next_due(),
            revision: state.revision,
            last_route: state.last_route,
            written_at: state.written_at,
            away: state.away.clone(),
            undecodable: Vec::new(),
            damaged: Vec::new(),
            cool_downs: state.cool_downs.values().cloned().collect(),
            accounts: state.accounts.values().cloned().collect(),
            follow_ups: state.follow_ups.iter().map(|(number, one)| (*number, Ok(one.clone()))).collect(),
        })
    }
}
