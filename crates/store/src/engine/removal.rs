//! Removal of a workflow: first its tasks, then the rows of its steps, then its own, a part in each commit. A part is bounded in
//! rows and in bytes.

use std::sync::Arc;

use rota_core::{TaskKey, WorkflowKey};

use super::prune::MAX_LOGS;
use super::rounds::REMOVAL_COST;
use super::{Engine, KeySet};
use crate::{
    Backend, Error, FollowUp, Load, LogsPage, Removal, RemovalPage, StepTasksPage, TaskPlace, TaskRow,
};

/// Tasks that one visit removes.
const MAX_REMOVED: usize = 32;
/// Rows of steps that one visit removes.
const MAX_ROWS: usize = 256;
/// Bytes of the rows of steps that one visit removes.
const MAX_ROW_BYTES: u64 = 8 * 1024 * 1024;
/// Place behind all tasks of a workflow.
const BEHIND_TASKS: TaskPlace = (u32::MAX, u32::MAX, u32::MAX);

/// Adds what the removal of a workflow visits next.
pub(super) fn ask(workflow: WorkflowKey, after: Option<TaskPlace>, load: &mut Load) {
    if after == Some(BEHIND_TASKS) {
        load.workflows.removals.push(RemovalPage { workflow, limit: MAX_ROWS, bytes: MAX_ROW_BYTES });
    } else {
        load.workflows.tasks.push(StepTasksPage { workflow, after, open: false, limit: MAX_REMOVED });
    }
}

/// What a visit has loaded.
pub(super) enum Part {
    Tasks(Vec<TaskRow>),
    Rows(Removal),
}

impl Part {
    /// Returns the tasks whose logs are removed with them.
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskKey> {
        let rows = match self {
            Self::Tasks(rows) => &rows[..],
            Self::Rows(_) => &[],
        };
        rows.iter().filter(|row| row.task.is_ok() && !row.has_dependents).map(|row| row.key)
    }
}

/// Whether a removal visits the tasks of its workflow, and not its rows.
pub(super) fn visits_tasks(after: Option<TaskPlace>) -> bool {
    after != Some(BEHIND_TASKS)
}

impl<B: Backend> Engine<B> {
    /// Returns those of some tasks whose logs one commit may remove.
    pub(super) fn with_small_logs(&mut self, tasks: Vec<TaskKey>) -> Result<KeySet, Error> {
        if tasks.is_empty() {
            return Ok(KeySet::default());
        }
        let logs = Some(LogsPage { tasks: tasks.clone(), bound: MAX_LOGS });
        let count = self.fetch(&Load { logs, ..Load::default() })?.logs;
        Ok(tasks.into_iter().take(count).collect())
    }

    /// Removes a part of a workflow. Of its tasks only those that are `removable`.
    pub(super) fn visit_removal(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        after: Option<TaskPlace>,
        part: Part,
        removable: &KeySet,
    ) -> Result<(), Error> {
        self.write_set.pending.spend(REMOVAL_COST);
        match part {
            Part::Tasks(rows) => self.remove_tasks(number, workflow, after, rows, removable),
            Part::Rows(rows) if rows.more => {
                self.write_set.workflows.remove_rows(workflow, rows);
                // The next page begins behind what this commit removes.
                let rest = FollowUp::RemoveWorkflow { workflow, after };
                self.write_set.pending.finish(number, Some(rest));
            }
            Part::Rows(_) => {
                self.load_workflow(workflow)?;
                let record = self.write_set.workflows.workflow(workflow);
                // One that has ended has left its groups.
                let is_member = !record.is_some_and(|one| one.state.is_final());
                let rest = if is_member && self.leave_all(workflow)? {
                    Some(FollowUp::RemoveWorkflow { workflow, after })
                } else {
                    self.write_set.workflows.remove(workflow);
                    // Lists of files that its steps have taken over have its number.
                    self.write_set.changes.artifacts.retain(|(of, _)| of.task.0 != workflow.0);
                    None
                };
                self.write_set.pending.finish(number, rest);
            }
        }
        Ok(())
    }

    /// Removes tasks of a workflow. One that another task needs outlives it.
    fn remove_tasks(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        after: Option<TaskPlace>,
        rows: Vec<TaskRow>,
        removable: &KeySet,
    ) {
        let whole = rows.len() < MAX_REMOVED;
        let mut last = after;
        for row in rows {
            let (key, has_dependents) = (row.key, row.has_dependents);
            let Ok(task) = &row.task else { continue };
            let place = crate::place_of(task).map(|(_, place)| place);
            let is_changed = self.write_set.get(key).is_some_and(|entry| entry.revision.is_some());
            let is_needed = has_dependents || self.write_set.new_dependents.contains_key(&key);
            if is_changed || !task.state.is_final() || !is_needed && !removable.contains(&key) {
                // The next commit removes it.
                let rest = FollowUp::RemoveWorkflow { workflow, after: last };
                self.write_set.pending.finish(number, Some(rest));
                return;
            }
            last = place.or(last);
            if is_needed {
                self.receive(row);
                self.detach(key);
                continue;
            }
            if let Ok(task) = row.task {
                self.write_set.entries.remove(&key);
                self.remove(Arc::new(task));
            }
        }
        // Tasks that cannot be decoded stay.
        let after = if whole || last == after { Some(BEHIND_TASKS) } else { last };
        self.write_set.pending.go_on(number, FollowUp::RemoveWorkflow { workflow, after });
    }

    /// Makes a task independent of its workflow.
    fn detach(&mut self, key: TaskKey) {
        self.hold(key);
        let revision = self.write_set.next_revision();
        let Some(entry) = self.write_set.entries.get_mut(&key) else { return };
        Arc::make_mut(&mut entry.task).step = None;
        if entry.revision.is_none() {
            entry.revision = Some(revision);
            self.write_set.order.push(key);
        }
        self.write_set.workflows.changes.detached.push(key);
    }
}
