//! Pruning of expired tasks, keys, sessions and routes, in bounded parts.

use std::collections::HashSet;
use std::sync::Arc;

use rota_core::target::{Route, Target};
use rota_core::task::{DependencyKey, DependencyState, State, Task};
use rota_core::{RouteId, TaskKey, Timestamp};

use super::queue::Queue;
use super::write_set::Found;
use super::{Answer, Engine, KeySet};
use crate::{
    Backend, Error, ExpiredRow, FollowUp, Load, LogSize, PassedRows, Prune, ReadyPage, Refused, Reply,
    ScopedId, WaitKey,
};

/// Routes that one prune looks at.
const MAX_ROUTES: usize = 256;
/// Logs that one prune removes.
pub(super) const MAX_LOGS: LogSize = LogSize { rows: 16 * 1024, bytes: 32 * 1024 * 1024 };

/// Where a prune begins: behind what those before it have looked at, up to the last route.
#[derive(Debug, Clone, Default)]
pub(super) struct PruneCursor {
    /// The first route to look at.
    route: RouteId,
    /// The end and the key of the last task; `None` to begin with the oldest.
    pub(super) expired: Option<(Timestamp, TaskKey)>,
    /// Rows whose names are not valid.
    pub(super) passed: PassedRows,
}

/// Divides the limit of a prune: each kind of records has as much of it as another one, and leaves to the others what it does not
/// need.
fn shares<const KINDS: usize>(found: [usize; KINDS], limit: usize) -> [usize; KINDS] {
    let mut order: [usize; KINDS] = std::array::from_fn(|kind| kind);
    order.sort_by_key(|kind| found[*kind]);
    let (mut shares, mut left) = ([0; KINDS], limit);
    for (place, kind) in order.into_iter().enumerate() {
        shares[kind] = found[kind].min(left.div_ceil(KINDS - place));
        left -= shares[kind];
    }
    shares
}

/// Returns the objects that a task waited for when it ended.
fn waited_for(task: &Task) -> impl Iterator<Item = WaitKey> {
    let missing = task.dependencies.iter().filter(|dependency| dependency.state == DependencyState::Missing);
    let waits = missing.map(|dependency| match &dependency.key {
        DependencyKey::Id(id) => WaitKey::Id(*id),
        DependencyKey::Alias(alias) => WaitKey::Alias(alias.clone()),
    });
    waits.chain(task.agent().filter(|_| !task.agent_known).cloned().map(WaitKey::Agent))
}

impl<B: Backend> Engine<B> {
    pub(super) fn prune(&mut self, prune: Prune, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        let Some(expired) = self.write_set.expired.take() else {
            // A second one in the same batch: the next batch continues where the first has ended.
            return Ok(Ok(Reply::Pruned { count: 0, more: true }.into()));
        };
        for (object, reason) in &expired.damaged {
            self.damage.report_once(object, reason);
        }
        let found = [
            expired.sessions.len(),
            expired.keys.len(),
            expired.threads.len(),
            self.write_set.workflows.expired.len(),
            expired.tasks.len(),
        ];
        let shares = shares(found, prune.limit);
        let [sessions, keys, threads, workflows, tasks] = shares;
        // Behind a full page, there may be more.
        let more_workflows = found[3] >= prune.limit;
        let more = expired.more_names || more_workflows || shares != found || expired.more_tasks;
        let mut count = 0;
        for key in expired.sessions.into_iter().take(sessions) {
            if self.write_set.session_rows.remove(&key) {
                self.write_set.changes.removed_sessions.push(key);
                count += 1;
            }
        }
        for key in expired.keys.into_iter().take(keys) {
            if self.write_set.idempotency_keys.remove(&key) {
                self.write_set.changes.removed_keys.push(key);
                count += 1;
            }
        }
        for (name, thread) in expired.threads.into_iter().take(threads) {
            // One that cannot be decoded keeps nothing that is known.
            if self.write_set.threads.remove(&name) {
                let kept = thread.ok().and_then(|thread| thread.conversation);
                self.write_set.changes.removed_dependents.extend(kept.map(|(key, _)| key));
                self.write_set.changes.removed_threads.push(name);
                count += 1;
            }
        }
        let (removed, last) = self.prune_tasks(expired.tasks.into_iter().take(tasks));
        count += removed;
        // Routes are looked through once per round: after the last record of any other kind.
        let room = prune.limit - shares.iter().sum::<usize>();
        let (removed, next) =
            if more || room == 0 { (0, Some(self.prune_cursor.route)) } else { self.prune_routes(room)? };
        count += removed + self.prune_workflows(workflows, now)?;
        // The next round begins with the oldest records: they may be needed no longer, or valid again.
        let cursor = next.map(|route| PruneCursor {
            route,
            expired: last.or(self.prune_cursor.expired),
            passed: expired.passed,
        });
        self.write_set.prune_cursor = Some(cursor.unwrap_or_default());
        Ok(Ok(Reply::Pruned { count, more: more || next.is_some() }.into()))
    }

    /// Removes expired tasks that no other task needs. Returns how many, and the last that it has looked at.
    fn prune_tasks(
        &mut self,
        rows: impl Iterator<Item = ExpiredRow>,
    ) -> (usize, Option<(Timestamp, TaskKey)>) {
        let (mut count, mut last) = (0, None);
        for ExpiredRow { ended_at, row } in rows {
            last = Some((ended_at, row.key));
            match row.task {
                Ok(task)
                    if task.state.is_final()
                        && !row.has_dependents
                        && !self.write_set.holds(row.key)
                        && !self.write_set.new_dependents.contains_key(&row.key) =>
                {
                    self.remove(Arc::new(task));
                    count += 1;
                }
                Ok(_) => {}
                Err(reason) => {
                    self.write_set.undecodable.insert(row.key, (row.id, reason));
                }
            }
        }
        (count, last)
    }

    /// Removes a task, if it has ended and no other task needs it, or if its record cannot be decoded. That of a step is removed with
    /// its workflow, whose expressions and compensation read its result.
    pub(super) fn remove_task(&mut self, id: &ScopedId) -> Result<Result<Answer, Refused>, Error> {
        let kept = Reply::Pruned { count: 0, more: false };
        let Some(key) = self.find(id)? else {
            let Some(&Found::Undecodable(key, _)) = self.write_set.ids.get(id) else {
                return Ok(Err(self.absent(id)));
            };
            self.discard(key, id);
            return Ok(Ok(Reply::Pruned { count: 1, more: false }.into()));
        };
        self.load(key)?;
        let Some(entry) = self.write_set.get(key) else { return Ok(Err(self.absent(id))) };
        let (has_ended, step) = (entry.task.state.is_final(), entry.task.step.as_ref());
        let mut is_kept = !has_ended;
        if let Some(workflow) = step.map(|step| step.workflow) {
            self.load_workflow(workflow)?;
            is_kept |= self.write_set.workflows.workflow(workflow).is_some();
        }
        if is_kept || !self.remove_unneeded(key) {
            return Ok(Ok(kept.into()));
        }
        Ok(Ok(Reply::Pruned { count: 1, more: false }.into()))
    }

    /// Removes a task whose record cannot be decoded. What depends on it continues as after a cancelled one.
    fn discard(&mut self, key: TaskKey, id: &ScopedId) {
        self.write_set.undecodable.remove(&key);
        self.write_set.removed.insert(key);
        self.write_set.ids.insert(id.clone(), Found::Absent);
        self.write_set.changes.discarded.push(key);
        self.write_set.changes.removed_dependents.push(key);
        let (state, until) = (State::Cancelled, TaskKey(self.write_set.revision));
        let ended = FollowUp::Ended { task: key, id: id.1, state, after: TaskKey(0), until, before: None };
        self.write_set.pending.push(ended);
    }

    /// Returns those of the due tasks that are to be removed and need to be loaded for it, as many as [`MAX_LOGS`] allows.
    pub(super) fn removable(&mut self, due: &[TaskKey]) -> Result<KeySet, Error> {
        let is_over =
            |key: &TaskKey| self.write_set.get(*key).is_some_and(|entry| entry.task.state.is_final());
        let tasks: Vec<_> = due.iter().copied().filter(is_over).collect();
        self.with_small_logs(tasks)
    }

    /// Removes an ended task whose TTL has passed. One that another task needs is left to the retention.
    pub(super) fn expire(&mut self, key: TaskKey, now: Timestamp) {
        let expires = self.write_set.get(key).and_then(|entry| entry.task.expires_at());
        if expires.is_some_and(|at| at <= now) && !self.remove_unneeded(key) {
            self.forget_ttl(key);
        }
    }

    /// Removes the record of an ended task, unless another task needs it. Returns whether it did.
    fn remove_unneeded(&mut self, key: TaskKey) -> bool {
        let Some(entry) = self.write_set.get(key) else { return false };
        // One that the batch has changed is written, not removed.
        if entry.has_dependents || entry.revision.is_some() {
            return false;
        }
        let task = Arc::clone(&entry.task);
        self.write_set.entries.remove(&key);
        self.remove(task);
        true
    }

    pub(super) fn remove(&mut self, task: Arc<Task>) {
        let changes = &mut self.write_set.changes;
        let waits = waited_for(&task).map(|key| ((task.namespace.clone(), key), task.key));
        changes.removed_waits.extend(waits);
        self.write_set.ids.insert((task.namespace.clone(), task.id), Found::Absent);
        self.write_set.removed.insert(task.key);
        changes.removed.push(task);
    }

    /// Removes unused routes, of the next [`MAX_ROUTES`]. Returns how many, and with which route the next prune continues; `None`
    /// at the end. Only ready tasks are found by their route; any other task finds it, or creates it again, when it becomes
    /// ready.
    fn prune_routes(&mut self, limit: usize) -> Result<(usize, Option<RouteId>), Error> {
        let (idle, mut next) = self.idle_routes();
        let isolated: HashSet<_> = idle.iter().filter_map(|(_, route)| isolated_task(route)).collect();
        let first = |route| ReadyPage { route, after: None, limit: 1, payloads: false };
        let ready = idle.iter().map(|(id, _)| first(*id)).collect();
        let ids = isolated.into_iter().filter(|id| !self.knows_id(id)).collect();
        self.fetch(&Load { ready, ids, ..Load::default() })?;
        let mut count = 0;
        for (id, route) in idle {
            if count >= limit {
                next = Some(id);
                break;
            }
            // The worker of an isolated task is matched by its route until the task ends.
            if let Some(task) = isolated_task(&route)
                && let Some(key) = self.find(&task)?
                && self.load(key)?.is_some_and(|task| !task.state.is_final())
            {
                continue;
            }
            // Not known to be empty if its first row is damaged: then the next prune decides.
            if self.write_set.queues.get(&id).and_then(Queue::count) == Some(0) {
                self.write_set.routes.insert(Route::clone(&route), None);
                self.write_set.removed_routes.push(id);
                count += 1;
            }
        }
        Ok((count, next))
    }

    /// Returns those of the next routes that neither the batch nor an agent or worker uses, and the first route behind them.
    fn idle_routes(&self) -> (Vec<(RouteId, Arc<Route>)>, Option<RouteId>) {
        let touched: HashSet<_> = self.write_set.entries.values().map(|entry| entry.route).collect();
        let is_idle = |(id, route): &(&RouteId, &Arc<Route>)| {
            !touched.contains(*id)
                && !self.write_set.routes.contains_key(&***route)
                && !self.stands_behind(route)
        };
        let mut routes = self.memory.routes_by_id.range(self.prune_cursor.route..);
        let visited = routes.by_ref().take(MAX_ROUTES).filter(is_idle);
        let idle = visited.map(|(id, route)| (*id, Arc::clone(route))).collect();
        (idle, routes.next().map(|(id, _)| *id))
    }

    /// Whether an agent or worker serves the route: removing it would only slow down the next task.
    fn stands_behind(&self, route: &Route) -> bool {
        match &route.target {
            Target::Agent(agent) => self.agent(&(route.namespace.clone(), agent.clone())).is_some(),
            Target::Worker(worker) => self.session(&(route.namespace.clone(), worker.clone())).is_some(),
            Target::Agents(_) | Target::Capabilities(_) | Target::Task { .. } => false,
        }
    }
}

fn isolated_task(route: &Route) -> Option<ScopedId> {
    match route.target {
        Target::Task { id, .. } => Some((route.namespace.clone(), id)),
        _ => None,
    }
}
