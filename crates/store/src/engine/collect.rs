//! Loading: what commands need, and the rows that a load returns.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::task::{self, DependencyKey, State, Task};
use rota_core::{RouteId, TaskKey, Timestamp};

use super::Engine;
use super::claim::MAX_EARLY_PAYLOADS;
use super::follow_ups::MAX_FOLLOW_UPS;
use super::memory::Live;
use super::prune::MAX_LOGS;
use super::threads;
use super::write_set::Found;
use crate::{
    Backend, Command, Create, DependentsPage, Error, ExpiredPage, Load, Loaded, NameKey, ReadyPage, Removal,
    ScopedId, SessionKey, StateRow, StepRow, Stored, TaskRow, Thread, WaitKey, WaitsPage, WorkflowLoad,
    WorkflowLoaded,
};

/// Dependents of a task that are loaded before it is known whether it ends.
const FIRST_DEPENDENTS: usize = 16;

/// Whether a command may end its task, whose dependents are then notified.
pub(super) fn may_end(command: &task::Command) -> bool {
    use task::Command::{
        Accept, AgentAppeared, AgentDeleted, Assign, DependencyEnded, DependencyFound, GiveInput, Report,
        Resume, ThreadPassedOn,
    };
    match command {
        Accept(_)
        | AgentAppeared { .. }
        | AgentDeleted
        | Assign { .. }
        | DependencyFound { .. }
        | GiveInput { .. }
        | Report { .. }
        | Resume { .. }
        | ThreadPassedOn { .. } => false,
        DependencyEnded { state, .. } => *state != State::Succeeded,
        _ => true,
    }
}

fn first_waiters(task: &Task, key: WaitKey) -> WaitsPage {
    WaitsPage { key: (task.namespace.clone(), key), limit: MAX_FOLLOW_UPS }
}

fn first_dependents(task: TaskKey) -> DependentsPage {
    DependentsPage { task, after: TaskKey(0), until: TaskKey(u64::MAX), limit: FIRST_DEPENDENTS }
}

/// Keys of the tasks of each page that a load has returned.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) dependents: Vec<Vec<TaskKey>>,
    /// With the rank of each.
    pub(super) ready: Vec<Vec<(i64, TaskKey)>>,
    /// Indexes of steps that need another one, with whether they run although that has not succeeded.
    pub(super) needing: Vec<Vec<(u32, bool)>>,
    pub(super) held: Vec<Vec<u32>>,
    pub(super) active: Vec<Vec<u32>>,
    pub(super) step_tasks: Vec<Vec<TaskRow>>,
    pub(super) removals: Vec<Removal>,
    /// Tasks of the page of logs.
    pub(super) logs: usize,
}

/// Returns the indexes of steps, also of those that cannot be decoded: a page with such a one is not the last.
fn indexes(pages: &[Vec<StepRow>]) -> Vec<Vec<u32>> {
    pages.iter().map(|page| page.iter().map(|row| row.key.1).collect()).collect()
}

impl WorkflowLoad {
    /// Requests no row twice. Pages stay as they are.
    pub(super) fn deduplicate(&mut self) {
        self.keys.sort_unstable();
        self.keys.dedup();
        self.ids.sort_unstable_by(|a, b| (&a.0, a.1.0).cmp(&(&b.0, b.1.0)));
        self.ids.dedup();
        self.names.sort_unstable();
        self.names.dedup();
        self.steps.sort_unstable();
        self.steps.dedup();
        self.groups.sort_unstable();
        self.groups.dedup();
    }
}

impl<B: Backend> Engine<B> {
    /// Returns what a batch is known to need, without what is in memory.
    pub(super) fn collect(&self, batch: &[Command], now: Timestamp) -> Load {
        let mut load = Load::default();
        let mut slots: BTreeMap<RouteId, usize> = BTreeMap::new();
        for command in batch {
            match command {
                Command::Create(create) => self.collect_create(create, &mut load),
                Command::Task { namespace, id, command } => {
                    let id = (namespace.clone(), *id);
                    match self.memory.find(&id) {
                        None => load.ids.push(id),
                        Some(key) if may_end(command) => self.collect_end(key, &mut load),
                        Some(key) => self.collect_cost(key, &mut load),
                    }
                }
                Command::Claim(claim) => {
                    for route in &claim.routes {
                        let wanted = slots.entry(*route).or_default();
                        *wanted = wanted.saturating_add(claim.slots);
                    }
                }
                Command::Tick(tick) => {
                    let by = tick.by(now);
                    let most = load.due.map_or(0, |(_, most)| most);
                    load.due = Some((by, most.max(tick.limit)));
                    load.workflows.due = load.due;
                    for key in self.due_on_workers(by, tick) {
                        self.collect_end(key, &mut load);
                    }
                }
                // Tasks on workers are in memory.
                Command::ClockJumped { .. } | Command::HoldAgents(_) => {}
                Command::OpenSession(open) => {
                    let worker = (open.namespace.clone(), open.worker.clone());
                    let running = open.running.iter().map(|(id, _)| (open.namespace.clone(), *id));
                    load.ids.extend(running.filter(|id| self.memory.find(id).is_none()));
                    self.collect_worker(worker, &mut load);
                }
                Command::EndSession(end) => {
                    self.collect_worker((end.namespace.clone(), end.session.worker.clone()), &mut load);
                }
                Command::DrainWorker { namespace, worker, .. } => {
                    load.sessions.push((namespace.clone(), worker.clone()));
                }
                Command::PutAgent(put) => {
                    let key = (put.agent.namespace.clone(), WaitKey::Agent(put.agent.name.clone()));
                    load.waits.push(WaitsPage { key, limit: MAX_FOLLOW_UPS });
                }
                Command::EndCoolDown { namespace, credential, .. } => {
                    let key = (namespace.clone(), WaitKey::Credential(*credential));
                    load.waits.push(WaitsPage { key, limit: MAX_FOLLOW_UPS });
                }
                Command::DeleteAgent { .. } | Command::PutBudget { .. } | Command::CorrectAccount { .. } => {}
                Command::Reseal(secrets) => {
                    load.tasks.extend(secrets.iter().map(|one| one.key));
                    load.secrets.extend(secrets.iter().map(|one| one.key));
                }
                Command::RemoveTask(id) => load.ids.push(id.clone()),
                Command::PutDocument(put) => load.documents.push(put.key.clone()),
                Command::DeleteDocument(key, _) => load.documents.push(key.clone()),
                // A second one in the same batch finds the rows of the first.
                Command::Prune(prune) => {
                    load.expired.get_or_insert(ExpiredPage {
                        ended_before: prune.ended_before,
                        after: self.prune_cursor.expired,
                        passed: self.prune_cursor.passed.clone(),
                        left_before: prune.left_before,
                        limit: prune.limit,
                        logs: MAX_LOGS,
                    });
                    let before = prune.ended_before.map(|before| (before, prune.limit));
                    load.workflows.expired = load.workflows.expired.or(before);
                }
                Command::Workflow(command) => self.collect_workflow(command, &mut load),
            }
        }
        let claimed = slots.into_iter().filter(|(_, wanted)| *wanted > 0);
        let claimed: Vec<_> = claimed.collect();
        // Of many routes, most heads are not assigned.
        let payloads = claimed.len() == 1;
        let page = |(route, limit)| ReadyPage { route, after: None, limit, payloads };
        load.ready = claimed.into_iter().map(page).collect();
        load.payload_bytes = if payloads { MAX_EARLY_PAYLOADS } else { 0 };
        for ids in [&mut load.ids, &mut load.dependencies] {
            ids.sort_unstable();
            ids.dedup();
        }
        for names in [&mut load.aliases, &mut load.idempotency_keys, &mut load.threads] {
            names.sort_unstable();
            names.dedup();
        }
        load.documents.sort_unstable();
        load.documents.dedup();
        load.waits.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        load.waits.dedup();
        load.dependents.sort_unstable_by_key(|page| page.task);
        load.dependents.dedup();
        load.workflows.deduplicate();
        load
    }

    pub(super) fn collect_create(&self, create: &Create, load: &mut Load) {
        let task = &create.task;
        let find = |id| (self.memory.find(&id).is_none()).then_some(id);
        // No other task names an id that was chosen at random for this creation.
        if create.foreign_id {
            load.ids.extend(find((task.namespace.clone(), task.id)));
            load.waits.push(first_waiters(task, WaitKey::Id(task.id)));
        }
        load.ids.extend(task.parent.and_then(|id| find((task.namespace.clone(), id))));
        load.threads.extend(threads::thread_of(task));
        if create.offer.is_some() {
            let payers = task.step.iter().flat_map(|place| place.paid_by.iter().copied());
            load.workflows.keys.extend(payers);
        }
        if let Some(key) = &create.key {
            load.idempotency_keys.push((task.namespace.clone(), key.clone()));
        }
        if let Some(alias) = &task.alias {
            load.waits.push(first_waiters(task, WaitKey::Alias(alias.clone())));
        }
        for dependency in &task.dependencies {
            match &dependency.key {
                DependencyKey::Id(id) => load.dependencies.extend(find((task.namespace.clone(), *id))),
                DependencyKey::Alias(alias) => load.aliases.push((task.namespace.clone(), alias.clone())),
            }
        }
    }

    /// Adds what the end of a task on a worker needs.
    fn collect_end(&self, key: TaskKey, load: &mut Load) {
        if let Some(live) = self.memory.get(key) {
            load.threads.extend(threads::thread_of(&live.task));
            if let Some(step) = &live.task.step {
                Self::collect_step(step, load);
            }
        }
        // Complete records: the others are loaded when they are visited.
        if load.dependents.len() < MAX_FOLLOW_UPS / FIRST_DEPENDENTS
            && self.memory.get(key).is_some_and(|live| live.has_dependents)
        {
            load.dependents.push(first_dependents(key));
        }
    }

    /// Adds a worker's session, and what the loss of its tasks needs.
    fn collect_worker(&self, worker: SessionKey, load: &mut Load) {
        for key in self.memory.on_worker(&worker) {
            self.collect_end(key, load);
        }
        load.sessions.push(worker);
    }

    /// Loads rows, and takes them into the batch.
    pub(super) fn fetch(&mut self, load: &Load) -> Result<Pages, Error> {
        if load.is_empty() {
            return Ok(Pages::default());
        }
        let loaded = self.backend.load(load)?;
        Ok(self.learn(load, loaded))
    }

    fn learn(&mut self, load: &Load, loaded: Loaded) -> Pages {
        let mut pages = Pages { logs: loaded.logs, ..Pages::default() };
        self.learn_workflows(load, loaded.workflows, &mut pages);
        for (id, row) in loaded.ids {
            let found = match &row.task {
                _ if self.write_set.removed.contains(&row.key) => Found::Absent,
                Ok(_) => Found::Task(row.key),
                Err(reason) => Found::Undecodable(row.key, reason.clone()),
            };
            self.write_set.ids.entry(id).or_insert(found);
            self.receive(row);
        }
        for id in &load.ids {
            if !self.write_set.ids.contains_key(id) {
                self.write_set.ids.insert(id.clone(), Found::Absent);
            }
        }
        self.learn_states(load, loaded.dependencies, loaded.aliases);
        let keys = loaded.idempotency_keys.iter().map(|(key, row)| (key.clone(), row.into()));
        self.write_set.idempotency_keys.learn(keys);
        self.write_set.session_rows.learn(loaded.sessions);
        self.learn_threads(load, loaded.threads);
        self.write_set.documents.learn(load, loaded.documents);
        for (page, rows) in load.waits.iter().zip(loaded.waits) {
            self.write_set.waits.learn(page, rows);
        }
        for (page, rows) in load.dependents.iter().zip(&loaded.dependents) {
            let keys: Vec<_> = rows.iter().map(|row| row.key).collect();
            if page.after == TaskKey(0) {
                let whole = keys.len() < page.limit;
                self.write_set.dependents.entry(page.task).or_insert_with(|| (keys.clone(), whole));
            }
            pages.dependents.push(keys);
        }
        if load.due.is_some() {
            self.write_set.due = Some(loaded.due.iter().map(|row| row.key).collect());
        }
        if load.expired.is_some() {
            self.write_set.expired = Some(loaded.expired);
        }
        let owners = loaded.idempotency_keys.into_iter().filter_map(|(_, row)| row.task);
        let linked = loaded.dependents.into_iter().flatten();
        for row in loaded.tasks.into_iter().chain(owners).chain(linked).chain(loaded.due) {
            self.receive(row);
        }
        for (page, rows) in load.ready.iter().zip(loaded.ready) {
            let places: Vec<_> = rows.iter().map(|row| (row.rank, row.row.key)).collect();
            for ready in rows {
                let key = ready.row.key;
                let is_new = !self.knows(key);
                self.receive(ready.row);
                if is_new
                    && let Some(payload) = ready.payload
                    && let Some(entry) = self.write_set.entries.get_mut(&key)
                {
                    self.write_set.payload_bytes += payload.len() as u64;
                    entry.payload = Some(payload);
                }
            }
            if page.after.is_none() {
                let queue = self.write_set.queues.entry(page.route).or_default();
                queue.learn(page.limit, places.last().copied(), places.len() < page.limit);
            }
            pages.ready.push(places);
        }
        self.write_set.results.extend(loaded.results);
        self.write_set.secrets.extend(loaded.secrets);
        for (key, payload) in loaded.payloads {
            if let Some(entry) = self.write_set.entries.get_mut(&key) {
                self.write_set.payload_bytes += payload.len() as u64;
                entry.payload = Some(payload);
            }
        }
        pages
    }

    fn learn_workflows(&mut self, load: &Load, mut loaded: WorkflowLoaded, pages: &mut Pages) {
        let needing = |(row, continues): &(StepRow, bool)| (row.key.1, *continues);
        pages.needing = loaded.dependents.iter().map(|page| page.iter().map(needing).collect()).collect();
        (pages.held, pages.active) = (indexes(&loaded.held), indexes(&loaded.active));
        pages.step_tasks = std::mem::take(&mut loaded.tasks);
        pages.removals = std::mem::take(&mut loaded.removals);
        self.write_set.workflows.learn(&load.workflows, &mut loaded);
    }

    fn learn_threads(&mut self, load: &Load, rows: Vec<(NameKey, Stored<Thread>)>) {
        for (name, row) in rows {
            match row {
                Ok(thread) => self.write_set.threads.learn([(name, thread)]),
                Err(reason) => drop(self.write_set.undecodable_threads.insert(name, reason)),
            }
        }
        for name in &load.threads {
            self.write_set.threads.learn_absent(name.clone());
        }
    }

    /// Takes in the states of tasks that new ones depend on.
    fn learn_states(
        &mut self,
        load: &Load,
        by_id: Vec<(ScopedId, StateRow)>,
        by_alias: Vec<(NameKey, StateRow)>,
    ) {
        let aliases = by_alias.iter().map(|(alias, row)| (alias.clone(), row.key));
        self.write_set.aliases.learn(aliases);
        for (id, row) in &by_id {
            let found = match &row.state {
                _ if self.write_set.removed.contains(&row.key) => Found::Absent,
                Ok(_) => Found::Task(row.key),
                Err(reason) => Found::Undecodable(row.key, reason.clone()),
            };
            self.write_set.ids.entry(id.clone()).or_insert(found);
        }
        for id in &load.dependencies {
            if !self.write_set.ids.contains_key(id) {
                self.write_set.ids.insert(id.clone(), Found::Absent);
            }
        }
        for row in by_id.into_iter().map(|(_, row)| row).chain(by_alias.into_iter().map(|(_, row)| row)) {
            match row.state {
                _ if self.knows(row.key) => {}
                Ok(state) => drop(self.write_set.states.insert(row.key, (row.id, state))),
                Err(reason) => drop(self.write_set.undecodable.insert(row.key, (row.id, reason))),
            }
        }
    }

    /// Takes a stored record into the batch, unless the batch or memory has it.
    pub(super) fn receive(&mut self, row: TaskRow) {
        if self.knows(row.key) {
            return;
        }
        let task: Stored<Task> = row.task;
        match task {
            Ok(task) => {
                self.take_in(Live { task: Arc::new(task), has_dependents: row.has_dependents });
            }
            Err(reason) => {
                self.write_set.undecodable.insert(row.key, (row.id, reason));
            }
        }
    }
}
