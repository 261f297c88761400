//! Second load of a batch: what the records lead to that the first one has returned. Without it, each command would load by
//! itself.

use std::collections::BTreeMap;

use rota_core::task::{self, Desired, EventEffect, Task};
use rota_core::{RouteId, TaskKey, WorkflowKey};

use super::claim::MAX_EARLY_PAYLOADS;
use super::collect::may_end;
use super::follow_ups::MAX_FOLLOW_UPS;
use super::{Engine, KeySet, threads};
use crate::{Backend, Command, DependentsPage, Error, Load, Place, WORKFLOW_MEMBER};

/// Whether a command ends a task that is not on a worker.
fn cancels(command: &task::Command) -> bool {
    use task::Command::{Update, UpdateAsRead};
    let (Update { desired, .. } | UpdateAsRead { desired, .. }) = command else { return false };
    *desired == Some(Desired::Cancelled)
}

/// Whether a command reports what an attempt has used.
fn reports_usage(command: &task::Command) -> bool {
    match command {
        task::Command::Report { items, .. } => {
            items.iter().any(|item| matches!(item.effect, EventEffect::Usage(_)))
        }
        task::Command::Finish { usage, .. } => usage.is_some(),
        _ => false,
    }
}

/// Returns the ready tasks that the claims of a batch get if each of them gets the first ones of its routes.
fn first_claimed(batch: &[Command], load: &Load, ready: &[Vec<Place>]) -> Vec<TaskKey> {
    let pages = load.ready.iter().map(|page| page.route).zip(ready.iter().map(Vec::as_slice));
    let mut left: BTreeMap<RouteId, &[Place]> = pages.collect();
    let mut first = Vec::new();
    for command in batch {
        let Command::Claim(claim) = command else { continue };
        for _ in 0..claim.slots {
            let heads = claim.routes.iter().filter_map(|route| Some((*left.get(route)?.first()?, *route)));
            let Some(((_, key), route)) = heads.min() else { break };
            first.push(key);
            if let Some(places) = left.get_mut(&route) {
                *places = &places[1..];
            }
        }
    }
    first
}

impl<B: Backend> Engine<B> {
    /// Loads the first tasks that wait for new objects of the batch, as many as it may visit, the last tasks of the threads
    /// that new ones join, what the ends of tasks concern, the payloads of tasks that claims are likely to assign and the workflows
    /// that pay for them, and those for which reported costs count: one more load for each level of nested ones.
    pub(super) fn fetch_linked(
        &mut self,
        load: &Load,
        ready: &[Vec<Place>],
        batch: &[Command],
    ) -> Result<(), Error> {
        let waiting = load.waits.iter().flat_map(|page| self.write_set.waits.stored(&page.key));
        let waiting = waiting.copied().filter(|key| !self.knows(*key)).take(MAX_FOLLOW_UPS);
        let joined = threads::joined(batch);
        let tails = joined.iter().filter_map(|name| Some(self.write_set.threads.get(name)?.tail?.0));
        let mut tasks: Vec<_> = waiting.chain(tails.filter(|key| !self.knows(*key))).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let mut linked = Load { tasks, ..Load::default() };
        self.collect_ends(batch, &mut linked);
        let claimed = first_claimed(batch, load, ready);
        linked.workflows.keys.extend(self.payers(claimed.iter().copied()));
        self.collect_payloads(&claimed, MAX_EARLY_PAYLOADS, &mut linked);
        let records = &self.write_set.workflows.records;
        let mut around = self.counting_around(&self.counting(batch));
        linked.workflows.keys.extend(around.iter().copied().filter(|key| !records.contains_key(key)));
        linked.workflows.deduplicate();
        self.fetch(&linked)?;
        self.load_predecessors(linked.ids)?;
        while !around.is_empty() {
            around = self.counting_around(&around);
            self.load_steps(around.iter().map(|key| (*key, WORKFLOW_MEMBER)))?;
        }
        Ok(())
    }

    /// Returns the workflows for which the costs count that a batch reports.
    fn counting(&self, batch: &[Command]) -> Vec<WorkflowKey> {
        // Those of tasks on workers are loaded by now.
        if self.write_set.workflows.records.is_empty() {
            return Vec::new();
        }
        let reported = |command: &Command| match command {
            Command::Task { namespace, id, command } if reports_usage(command) => {
                let (task, _) = self.record(self.known(&(namespace.clone(), *id))?)?;
                task.step.as_ref().filter(|place| place.counts_cost).map(|place| place.workflow)
            }
            _ => None,
        };
        batch.iter().filter_map(reported).collect()
    }

    /// Returns the workflows around known ones for which the costs of these count too.
    fn counting_around(&self, workflows: &[WorkflowKey]) -> Vec<WorkflowKey> {
        let set = &self.write_set.workflows;
        let mut around: Vec<_> = workflows.iter().filter_map(|key| set.counting_around(*key)).collect();
        around.sort_unstable();
        around.dedup();
        around
    }

    /// Adds what the ends of tasks need whose records are known by now: their threads, the tasks before them in these, and their
    /// first dependents, as many of all as the batch may visit.
    fn collect_ends(&self, batch: &[Command], load: &mut Load) {
        let (mut seen, mut needed) = (KeySet::default(), Vec::new());
        for command in batch {
            let Command::Task { namespace, id, command } = command else { continue };
            let Some(key) = self.known(&(namespace.clone(), *id)) else { continue };
            let is_end = cancels(command) || (self.memory.holds(key) && may_end(command));
            let Some((task, has_dependents)) = self.record(key).filter(|(task, _)| !task.state.is_final())
            else {
                continue;
            };
            if !is_end || !seen.insert(key) {
                continue;
            }
            let thread = threads::thread_of(task);
            load.threads.extend(thread.filter(|name| !self.write_set.threads.knows(name)));
            let before = task.waits_in_thread().map(|before| (task.namespace.clone(), before));
            load.ids.extend(before.filter(|id| !self.knows_id(id)));
            if has_dependents && !self.write_set.dependents.contains_key(&key) {
                needed.push(key);
            }
        }
        load.threads.sort_unstable();
        load.threads.dedup();
        load.ids.sort_unstable();
        load.ids.dedup();
        let loaded: usize = self.write_set.dependents.values().map(|(known, _)| known.len()).sum();
        let left = self.write_set.pending.budget().saturating_sub(loaded);
        needed.truncate(left);
        let limit = left / needed.len().max(1);
        let page = |task| DependentsPage { task, after: TaskKey(0), until: TaskKey(u64::MAX), limit };
        load.dependents.extend(needed.into_iter().map(page));
    }

    /// Returns a record that the batch or memory has, and whether others depend on it.
    pub(super) fn record(&self, key: TaskKey) -> Option<(&Task, bool)> {
        match self.write_set.get(key) {
            Some(entry) => Some((&*entry.task, entry.has_dependents)),
            None => self.memory.get(key).map(|live| (&*live.task, live.has_dependents)),
        }
    }
}
