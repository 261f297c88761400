//! What an engine keeps in memory between batches: tasks on workers with their timers, agents, sessions, routes.
//!
//! It changes only after a write, so that it always equals the database. Its size is bounded by slots, workers, agents
//! and routes, never by the queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::{Account, Scope};
use rota_core::target::Route;
use rota_core::task::{Desired, State, Task};
use rota_core::{AgentName, Epoch, RouteId, TaskId, TaskKey, Timestamp};

use super::budgets::{Spenders, funders, spender};
use super::cycles::CycleSearch;
use super::follow_ups::StoredFollowUps;
use super::funding::OFFER_INTERVAL;
use super::{AgentKey, KeyMap, KeySet, acceptance};
use crate::{AccountKey, Changes, CredentialKey, ScopedId, SessionKey, Snapshot, Tick, Written};

/// A task on a worker.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) task: Arc<Task>,
    /// Whether stored tasks depend on it.
    pub(super) has_dependents: bool,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Tasks on workers: each is needed again soon, and slots bound their number.
    live: BTreeMap<TaskKey, Live>,
    ids: HashMap<ScopedId, TaskKey>,
    by_worker: HashMap<SessionKey, KeySet>,
    /// Deadlines of the tasks on workers.
    timers: BTreeSet<(Timestamp, TaskKey)>,
    /// When the last slow batch had ended: workers could not accept earlier assignments before.
    pub(super) accept_from: Timestamp,
    /// Earliest deadline of the other tasks.
    stored_due: Option<Timestamp>,
    pub(super) agents: BTreeMap<AgentKey, Arc<Agent>>,
    /// Open sessions, with the agent that each worker serves.
    pub(super) sessions: HashMap<SessionKey, (Epoch, AgentName)>,
    pub(super) cool_downs: BTreeMap<CredentialKey, Arc<CoolDown>>,
    pub(super) accounts: BTreeMap<AccountKey, Arc<Account>>,
    /// Those for which tasks may wait.
    pub(super) waiting: BTreeSet<AccountKey>,
    /// When unused room of these was last offered.
    pub(super) offered_at: Timestamp,
    /// Attempts that spend of each account.
    pub(super) spenders: HashMap<AccountKey, Spenders>,
    pub(super) routes: HashMap<Arc<Route>, RouteId>,
    /// The same routes, by their ids.
    pub(super) routes_by_id: BTreeMap<RouteId, Arc<Route>>,
    /// Routes whose tasks name an agent.
    agent_routes: HashMap<AgentKey, BTreeSet<RouteId>>,
    pub(super) last_route: u32,
    /// Revision of the last commit.
    pub(super) revision: u64,
    /// Consequences of earlier commands that are left, by number.
    pub(super) follow_ups: StoredFollowUps,
    /// Searches for cycles that the next commits continue, by the task where they began.
    pub(super) searches: KeyMap<CycleSearch>,
    /// Records that cannot be decoded, and are left alone.
    pub(super) undecodable: KeySet,
    /// Records that the snapshot could not decode, to be reported by the next commit.
    pub(super) unreported: Vec<(TaskKey, (TaskId, String))>,
}

impl Memory {
    pub(super) fn load(snapshot: Snapshot, accept_from: Timestamp) -> Self {
        let agents = snapshot.agents.into_iter();
        let sessions = snapshot.sessions.into_iter();
        let mut memory = Self {
            agents: agents
                .map(|agent| ((agent.namespace.clone(), agent.name.clone()), Arc::new(agent)))
                .collect(),
            sessions: sessions
                .map(|session| ((session.namespace, session.worker), (session.epoch, session.agent)))
                .collect(),
            cool_downs: (snapshot.cool_downs.into_iter())
                .map(|one| ((one.namespace.clone(), one.credential), Arc::new(one)))
                .collect(),
            accept_from,
            stored_due: snapshot.next_due,
            last_route: snapshot.last_route,
            revision: snapshot.revision,
            unreported: snapshot.undecodable.into_iter().map(|(key, id, why)| (key, (id, why))).collect(),
            ..Self::default()
        };
        for account in snapshot.accounts {
            memory.put_account((account.namespace.clone(), account.scope.clone()), Arc::new(account));
        }
        let follow_ups = snapshot.follow_ups.into_iter();
        memory.follow_ups.add(follow_ups.filter_map(|(number, one)| Some((number, one.ok()?))));
        for (id, route) in snapshot.routes {
            memory.add_route(route, id);
        }
        for on_worker in snapshot.on_workers {
            let task = Arc::new(on_worker.task);
            memory.count_spender(&task);
            memory.keep(Live { task, has_dependents: on_worker.has_dependents });
        }
        memory
    }

    pub(super) fn holds(&self, key: TaskKey) -> bool {
        self.live.contains_key(&key)
    }

    pub(super) fn get(&self, key: TaskKey) -> Option<&Live> {
        self.live.get(&key)
    }

    /// Returns the key of a task on a worker.
    pub(super) fn find(&self, id: &ScopedId) -> Option<TaskKey> {
        self.ids.get(id).copied()
    }

    pub(super) fn on_worker(&self, worker: &SessionKey) -> impl Iterator<Item = TaskKey> {
        self.by_worker.get(worker).into_iter().flatten().copied()
    }

    /// Returns the routes of an agent's tasks from one on, lowest first.
    pub(super) fn agent_routes(&self, agent: &AgentKey, from: RouteId) -> impl Iterator<Item = RouteId> {
        self.agent_routes.get(agent).into_iter().flat_map(move |routes| routes.range(from..)).copied()
    }

    /// Returns the tasks on workers whose deadlines have passed, earliest first, but for those of absent workers, and for
    /// assignments of disconnected ones.
    pub(super) fn due(&self, now: Timestamp, tick: &Tick, absent: &HashSet<SessionKey>) -> Vec<TaskKey> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key);
        if absent.is_empty() && tick.disconnected.is_empty() {
            return due.take(tick.limit).collect();
        }
        let waits = |key: &TaskKey| {
            let Some(task) = self.live.get(key).map(|live| &live.task) else { return false };
            let Some(assignment) = &task.assignment else { return false };
            let worker = (task.namespace.clone(), assignment.worker.clone());
            // The end of a cancelled one is waited for no longer than of others.
            let may_accept = task.state == State::Assigned && task.desired != Desired::Cancelled;
            absent.contains(&worker) || (may_accept && tick.disconnected.contains(&worker))
        };
        due.filter(|key| !waits(key)).take(tick.limit).collect()
    }

    /// Computes all deadlines on workers again.
    pub(super) fn restart_timers(&mut self) {
        let timer = |live: &Live| Some((acceptance::due(&live.task, self.accept_from)?, live.task.key));
        self.timers = self.live.values().filter_map(timer).collect();
    }

    /// Returns the tasks on workers, lowest key first.
    pub(super) fn on_workers(&self) -> impl ExactSizeIterator<Item = TaskKey> {
        self.live.keys().copied()
    }

    /// Returns the tasks on workers behind a key, up to another one, lowest first.
    pub(super) fn on_workers_between(&self, after: TaskKey, until: TaskKey) -> impl Iterator<Item = TaskKey> {
        let from = TaskKey(after.0.saturating_add(1));
        let range = (from <= until).then(|| self.live.range(from..=until));
        range.into_iter().flatten().map(|(key, _)| *key)
    }

    /// Returns the next deadline of any task.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let first = self.timers.first().map(|(at, _)| *at);
        first.into_iter().chain(self.stored_due).chain(self.next_offer()).min()
    }

    /// Returns when the unused room of budgets is offered next to tasks that wait.
    pub(super) fn next_offer(&self) -> Option<Timestamp> {
        (!self.waiting.is_empty()).then(|| self.offered_at + OFFER_INTERVAL)
    }

    /// Takes in the current books of an account.
    pub(super) fn put_account(&mut self, key: AccountKey, account: Arc<Account>) {
        if account.waiting {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(&key);
        }
        self.accounts.insert(key, account);
    }

    /// Takes in what a write has made durable, except records.
    pub(super) fn written(&mut self, changes: &Changes, written: Written) {
        self.stored_due = written.next_due;
        self.revision = changes.revision;
        self.last_route = changes.last_route;
        self.undecodable.extend(&changes.undecodable);
        for key in &changes.discarded {
            self.undecodable.remove(key);
        }
        for number in &changes.removed_follow_ups {
            self.follow_ups.remove(*number);
        }
        self.follow_ups.add(changes.follow_ups.iter().cloned());
    }

    /// Adds a route, also one that has had another id until now.
    pub(super) fn add_route(&mut self, route: Route, id: RouteId) {
        self.remove_route(&route);
        if let Some(agent) = route.target.agent() {
            let key = (route.namespace.clone(), agent.clone());
            self.agent_routes.entry(key).or_default().insert(id);
        }
        let route = Arc::new(route);
        self.routes_by_id.insert(id, Arc::clone(&route));
        self.routes.insert(route, id);
    }

    pub(super) fn remove_route(&mut self, route: &Route) {
        let Some(id) = self.routes.remove(route) else { return };
        self.routes_by_id.remove(&id);
        if let Some(agent) = route.target.agent() {
            let key = (route.namespace.clone(), agent.clone());
            if let Some(routes) = self.agent_routes.get_mut(&key) {
                routes.remove(&id);
                if routes.is_empty() {
                    self.agent_routes.remove(&key);
                }
            }
        }
    }

    /// Replaces a record by a newer one, which is kept while the task is on a worker.
    pub(super) fn replace(&mut self, new: Live) {
        let key = new.task.key;
        let now_on = new.task.assignment.as_ref().map(|assignment| &assignment.worker);
        let old = self.live.remove(&key);
        if let Some(old) = old {
            let old = old.task;
            if let Some(due) = acceptance::due(&old, self.accept_from) {
                self.timers.remove(&(due, key));
            }
            if let Some(assignment) = &old.assignment
                && now_on != Some(&assignment.worker)
            {
                self.leave((old.namespace.clone(), assignment.worker.clone()), key);
            }
            if now_on.is_none() {
                self.ids.remove(&(old.namespace.clone(), old.id));
            }
        }
        if now_on.is_some() {
            self.keep(new);
        }
    }

    /// Adds what the attempt of a task may spend, once the accounts are known.
    fn count_spender(&mut self, task: &Task) {
        let Some((agent, spends)) = spender(task) else { return };
        let account = self.accounts.get(&(task.namespace.clone(), Scope::Agent(agent.clone())));
        let spends = spends.with_turns(account.map_or(0, |account| account.turn));
        for key in funders(task, Some(agent)) {
            let spends = spends.of(&key.1);
            self.add_spenders(key, spends);
        }
    }

    /// Takes in by how much the attempts that spend of an account have changed.
    pub(super) fn add_spenders(&mut self, key: AccountKey, change: Spenders) {
        if change.is_empty() {
            return;
        }
        let all = self.spenders.entry(key.clone()).or_default();
        all.add(change, 1);
        if all.is_empty() {
            self.spenders.remove(&key);
        }
    }

    fn leave(&mut self, worker: SessionKey, key: TaskKey) {
        if let Some(tasks) = self.by_worker.get_mut(&worker) {
            tasks.remove(&key);
            if tasks.is_empty() {
                self.by_worker.remove(&worker);
            }
        }
    }

    fn keep(&mut self, live: Live) {
        let task = &live.task;
        if let Some(assignment) = &task.assignment {
            let worker = (task.namespace.clone(), assignment.worker.clone());
            self.by_worker.entry(worker).or_default().insert(task.key);
        }
        self.timers.extend(acceptance::due(task, self.accept_from).map(|due| (due, task.key)));
        self.ids.insert((task.namespace.clone(), task.id), task.key);
        self.live.insert(task.key, live);
    }
}
