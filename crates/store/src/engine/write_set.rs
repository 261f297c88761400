//! Write set of a batch: each touched record is loaded once, changed in memory, and written once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::Account;
use rota_core::target::Route;
use rota_core::task::{self, Command, State, Task};
use rota_core::{AgentName, Epoch, Namespace, RouteId, TaskId, TaskKey, Timestamp};
use rustc_hash::FxHashMap;

use super::budgets::{Spenders, spender};
use super::cache::{Cells, Waiting};
use super::clock::Jump;
use super::cycles::CycleSearch;
use super::documents::DocumentRows;
use super::entry::Entry;
use super::follow_ups::Pending;
use super::memory::Live;
use super::prune::PruneCursor;
use super::queue::{Queue, place};
use super::workflow_set::WorkflowSet;
use super::{AgentKey, Engine, KeyMap, KeySet};
use crate::{
    AccountKey, AgentChange, Backend, Changes, CoolDownChange, CredentialKey, Error, ExpiredRows,
    IdempotencyRow, Load, NameKey, Refused, ScopedId, SessionKey, SessionRow, Thread, WaitKey,
};

/// Owner of an idempotency key.
#[derive(Debug, Clone)]
pub(super) struct KeyOwner {
    pub(super) id: TaskId,
    /// The task; `None` once it was removed.
    pub(super) task: Option<TaskKey>,
}

impl From<&IdempotencyRow> for KeyOwner {
    fn from(row: &IdempotencyRow) -> Self {
        Self { id: row.id, task: row.task.as_ref().map(|task| task.key) }
    }
}

/// Result of the lookup of an id.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Task(TaskKey),
    /// There is no such task, or the batch has removed it.
    Absent,
    /// The record cannot be decoded, for this reason.
    Undecodable(TaskKey, String),
}

/// Returns the credential or the budget that a task waits for.
fn waits_for(task: &Task) -> Option<WaitKey> {
    let budget = task.budget_wait.as_ref().map(|wait| WaitKey::Budget(wait.scope.clone()));
    task.quota.as_ref().map(|wait| WaitKey::Credential(wait.credential)).or(budget)
}

#[derive(Debug, Default)]
pub(super) struct WriteSet {
    pub(super) entries: KeyMap<Entry>,
    pub(super) ids: HashMap<ScopedId, Found>,
    /// States of tasks that new ones depend on, as loaded: of those without an entry.
    pub(super) states: KeyMap<(TaskId, State)>,
    /// Dependents that the batch added to tasks without an entry.
    pub(super) new_dependents: KeyMap<Vec<TaskKey>>,
    /// Bytes of the payloads that the batch has loaded.
    pub(super) payload_bytes: u64,
    /// Tasks that the batch has removed.
    pub(super) removed: KeySet,
    /// Ready tasks of the touched routes.
    pub(super) queues: FxHashMap<RouteId, Queue>,
    /// Changed tasks in order of their first change.
    pub(super) order: Vec<TaskKey>,
    /// The last revision that a change of the batch took.
    pub(super) revision: u64,
    /// Commands on single tasks that follow from the last command.
    pub(super) next: VecDeque<(TaskKey, Command)>,
    pub(super) pending: Pending,
    /// Jumps of the clock that the batch has begun with.
    pub(super) jumps: Vec<Jump>,
    /// Searches for cycles that the next commits continue.
    pub(super) searches: KeyMap<CycleSearch>,
    pub(super) aliases: Cells<NameKey, TaskKey>,
    pub(super) idempotency_keys: Cells<NameKey, KeyOwner>,
    pub(super) session_rows: Cells<SessionKey, SessionRow>,
    pub(super) threads: Cells<NameKey, Thread>,
    /// Threads that cannot be decoded, with the reason.
    pub(super) undecodable_threads: HashMap<NameKey, String>,
    /// Tasks of threads that have ended in the batch.
    pub(super) ended_in_threads: Vec<TaskKey>,
    pub(super) waits: Waiting,
    /// First dependents of tasks that commands of the batch may end, and whether they are all.
    pub(super) dependents: KeyMap<(Vec<TaskKey>, bool)>,
    pub(super) workflows: WorkflowSet,
    /// Due tasks that are not on workers, earliest deadline first; `None` if not loaded.
    pub(super) due: Option<Vec<TaskKey>>,
    /// What a prune found; `None` if not loaded.
    pub(super) expired: Option<ExpiredRows>,
    /// Where the next prune begins, if the batch has pruned.
    pub(super) prune_cursor: Option<PruneCursor>,
    /// Agents that the batch changed; `None` for a deleted one.
    pub(super) agents: BTreeMap<AgentKey, Option<Arc<Agent>>>,
    pub(super) agent_changes: Vec<AgentChange>,
    /// Cool-downs that the batch changed; `None` for one that is over.
    pub(super) cool_downs: BTreeMap<CredentialKey, Option<Arc<CoolDown>>>,
    pub(super) cool_down_changes: Vec<CoolDownChange>,
    /// Books that the batch changed.
    pub(super) accounts: BTreeMap<AccountKey, Arc<Account>>,
    /// Budgets that had no room for a ready task of the batch.
    pub(super) full: BTreeSet<AccountKey>,
    /// When the batch has offered the unused room of budgets.
    pub(super) offered_at: Option<Timestamp>,
    pub(super) documents: DocumentRows,
    /// By how much the batch changes the attempts that spend of accounts.
    pub(super) spenders: BTreeMap<AccountKey, Spenders>,
    /// Open sessions that the batch changed; `None` for an ended one.
    pub(super) sessions: HashMap<SessionKey, Option<(Epoch, AgentName)>>,
    /// Routes that the batch changed; `None` for a removed one.
    pub(super) routes: HashMap<Route, Option<RouteId>>,
    pub(super) new_routes: Vec<(RouteId, Route)>,
    pub(super) removed_routes: Vec<RouteId>,
    /// Routes on which a claim found nothing.
    pub(super) recounted: BTreeSet<RouteId>,
    /// Tasks that the batch assigned, by worker; some may have left it again.
    pub(super) assigned_to: HashMap<SessionKey, Vec<TaskKey>>,
    /// Results of tasks that have ended before, as loaded.
    pub(super) results: KeyMap<Bytes>,
    /// Results that the batch's assignments carry: the assigned task, then the one that it depended on.
    pub(super) carried: HashSet<(TaskKey, TaskKey)>,
    /// Sealed secrets, as loaded or new.
    pub(super) secrets: KeyMap<Bytes>,
    /// Tasks whose secrets the batch has replaced.
    pub(super) resealed: Vec<TaskKey>,
    /// Records that cannot be decoded, with the reason.
    pub(super) undecodable: BTreeMap<TaskKey, (TaskId, String)>,
    /// Namespaces of those of them, and of the discarded ones, that have waited.
    pub(super) quarantined: Vec<Namespace>,
    /// What the batch writes besides its records.
    pub(super) changes: Changes,
}

impl WriteSet {
    pub(super) fn holds(&self, key: TaskKey) -> bool {
        self.entries.contains_key(&key)
    }

    pub(super) fn get(&self, key: TaskKey) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// Takes the next revision, for a first change of a record.
    pub(super) fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn put(&mut self, entry: Entry) {
        let key = entry.task.key;
        if let Some(place) = place(&entry.task) {
            self.queues.entry(entry.route).or_default().moved(None, Some(place));
        }
        self.entries.insert(key, entry);
    }
}

impl<B: Backend> Engine<B> {
    /// Returns the key of a task in the current state of the batch, and loads its record if it is unknown.
    pub(super) fn find(&mut self, id: &ScopedId) -> Result<Option<TaskKey>, Error> {
        if !self.knows_id(id) {
            self.fetch(&Load { ids: vec![id.clone()], ..Load::default() })?;
        }
        Ok(self.known(id))
    }

    /// Returns the key of a task whose id was looked up before.
    pub(super) fn known(&self, id: &ScopedId) -> Option<TaskKey> {
        match self.write_set.ids.get(id) {
            Some(Found::Task(key)) => Some(*key),
            Some(_) => None,
            None => self.memory.find(id),
        }
    }

    pub(super) fn knows_id(&self, id: &ScopedId) -> bool {
        self.write_set.ids.contains_key(id) || self.memory.find(id).is_some()
    }

    /// Returns a task's record in the current state of the batch, and loads it if it is unknown.
    pub(super) fn load(&mut self, key: TaskKey) -> Result<Option<&Task>, Error> {
        if !self.knows(key) {
            self.fetch(&Load { tasks: vec![key], ..Load::default() })?;
        }
        self.hold(key);
        Ok(self.write_set.get(key).map(|entry| &*entry.task))
    }

    /// Returns a task's id and state in the current state of the batch, and loads its record if they are unknown.
    pub(super) fn state(&mut self, key: TaskKey) -> Result<Option<(TaskId, State)>, Error> {
        match self.write_set.states.get(&key) {
            Some(state) if !self.knows(key) => Ok(Some(*state)),
            _ => Ok(self.load(key)?.map(|task| (task.id, task.state))),
        }
    }

    /// Loads the records of tasks that are not known, in one call.
    pub(super) fn load_all(&mut self, keys: &[TaskKey]) -> Result<(), Error> {
        let tasks = keys.iter().copied().filter(|key| !self.knows(*key)).collect();
        self.fetch(&Load { tasks, ..Load::default() }).map(drop)
    }

    /// Whether a task's record, or that there is none, is known without a load.
    pub(super) fn knows(&self, key: TaskKey) -> bool {
        self.write_set.holds(key)
            || self.memory.holds(key)
            || self.write_set.removed.contains(&key)
            || self.write_set.undecodable.contains_key(&key)
    }

    /// Takes the record of a task on a worker into the batch.
    pub(super) fn hold(&mut self, key: TaskKey) {
        if !self.write_set.holds(key)
            && let Some(live) = self.memory.get(key).cloned()
        {
            self.take_in(live);
        }
    }

    /// Takes a record into the batch.
    pub(super) fn take_in(&mut self, live: Live) {
        let route = self.route(&live.task);
        let mut entry = Entry::new(live, route);
        if let Some(added) = self.write_set.new_dependents.remove(&entry.task.key) {
            entry.has_dependents = true;
            entry.new_dependents = added;
        }
        self.write_set.put(entry);
    }

    /// Adds a new task to the batch. Returns its key.
    pub(super) fn add(&mut self, mut task: Task, out: task::Transition, payload: Bytes) -> TaskKey {
        let revision = self.write_set.next_revision();
        let key = TaskKey(revision);
        task.key = key;
        self.write_set.ids.insert((task.namespace.clone(), task.id), Found::Task(key));
        let route = self.route(&task);
        let live = Live { task: Arc::new(task), has_dependents: false };
        let entry = Entry {
            before: None,
            revision: Some(revision),
            new: true,
            payload: Some(payload),
            ..Entry::new(live, route)
        };
        self.write_set.put(entry);
        self.write_set.order.push(key);
        self.applied(key, out);
        key
    }

    /// Executes a command on a task whose clock is right.
    pub(super) fn transition(
        &mut self,
        key: TaskKey,
        command: Command,
        now: Timestamp,
    ) -> Result<Result<task::Reply, Refused>, Error> {
        if self.load(key)?.is_none() {
            return Ok(Err(self.absent_key(key)));
        }
        let write_set = &mut self.write_set;
        let Some(entry) = write_set.entries.get_mut(&key) else { return Ok(Err(self.absent_key(key))) };
        let assigning = matches!(command, Command::Assign { .. });
        let (before, was_on_worker) = (place(&entry.task), entry.task.assignment.is_some());
        let waited = waits_for(&entry.task);
        let spent_before = spender(&entry.task).map(|(agent, spends)| (agent.clone(), spends));
        match Arc::make_mut(&mut entry.task).apply(command, now) {
            Err(rejected) => Ok(Err(rejected.into())),
            Ok(out) => {
                let reply = out.reply;
                let after = place(&entry.task);
                if out.moved {
                    self.reroute(key);
                }
                let write_set = &mut self.write_set;
                let Some(entry) = write_set.entries.get_mut(&key) else { return Ok(Ok(reply)) };
                if before != after {
                    write_set.queues.entry(entry.route).or_default().moved(before, after);
                }
                if entry.revision.is_none()
                    && (reply != task::Reply::Stale || !out.events.is_empty() || !out.used.is_zero())
                {
                    write_set.revision += 1;
                    entry.revision = Some(write_set.revision);
                    write_set.order.push(key);
                }
                let waits = waits_for(&entry.task);
                let mut begun = None;
                if waits != waited {
                    let scoped = |waits| (entry.task.namespace.clone(), waits);
                    if let Some(waited) = waited {
                        write_set.waits.remove(scoped(waited), key);
                    }
                    if let Some(waits) = waits {
                        if let WaitKey::Budget(scope) = &waits {
                            begun = Some((entry.task.namespace.clone(), scope.clone()));
                        }
                        write_set.waits.add(scoped(waits), key);
                    }
                }
                let left = before.is_some() && after.is_none() && entry.task.assignment.is_none();
                entry.assigned |= assigning;
                if !was_on_worker && let Some(assignment) = &entry.task.assignment {
                    let worker = (entry.task.namespace.clone(), assignment.worker.clone());
                    write_set.assigned_to.entry(worker).or_default().push(key);
                }
                // Before its end is observed: the budget may have room again.
                if let Some(account) = begun {
                    self.begin_wait(&account);
                }
                self.observe_spender(spent_before, key);
                self.observe_cost(key, &out, now);
                if left {
                    self.left_queue(key);
                }
                self.applied(key, out);
                Ok(Ok(reply))
            }
        }
    }

    /// Changes an ended task so that it has no TTL.
    pub(super) fn forget_ttl(&mut self, key: TaskKey) {
        let write_set = &mut self.write_set;
        let Some(entry) = write_set.entries.get_mut(&key) else { return };
        Arc::make_mut(&mut entry.task).ttl = None;
        if entry.revision.is_none() {
            write_set.revision += 1;
            entry.revision = Some(write_set.revision);
            write_set.order.push(key);
        }
    }

    /// Returns the reply to a command on an id without a record.
    pub(super) fn absent(&self, id: &ScopedId) -> Refused {
        match self.write_set.ids.get(id) {
            Some(Found::Undecodable(_, reason)) => {
                Refused::Corrupt { what: format!("task {}", id.1), reason: reason.clone() }
            }
            _ => Refused::NoTask(id.1),
        }
    }

    /// Returns the reply to a command on a key without a record.
    pub(super) fn absent_key(&self, key: TaskKey) -> Refused {
        match self.write_set.undecodable.get(&key) {
            Some((id, reason)) => Refused::Corrupt { what: format!("task {id}"), reason: reason.clone() },
            None => Refused::NoTask(TaskId(uuid::Uuid::nil())),
        }
    }

    /// Takes in the results of a command, and what follows from them.
    fn applied(&mut self, key: TaskKey, mut out: task::Transition) {
        self.observe_credential(key, &out);
        let Some(entry) = self.write_set.entries.get_mut(&key) else { return };
        entry.record(&mut out);
        if entry.task.state == State::Queued
            && let Some(name) = entry.task.agent()
        {
            let agent = (entry.task.namespace.clone(), name.clone());
            self.match_agent(key, &agent);
        }
        if out.ended {
            self.ended(key);
        }
    }

    /// Returns an agent in the current state of the batch.
    pub(super) fn agent(&self, key: &AgentKey) -> Option<&Arc<Agent>> {
        match self.write_set.agents.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.memory.agents.get(key),
        }
    }

    /// Returns the open session of a worker in the current state of the batch.
    pub(super) fn session(&self, key: &SessionKey) -> Option<&(Epoch, AgentName)> {
        match self.write_set.sessions.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.memory.sessions.get(key),
        }
    }
}
