//! Removal of workflows that cannot end: records of theirs, or of workflows that are their steps, cannot be decoded, or were removed
//! for that.

use rota_core::WorkflowKey;
use rota_core::workflow::{Change, MAX_STEPS, NestedCommand};

use super::Engine;
use super::nested::MAX_VISITED;
use crate::{Backend, Error, FollowUp, Load, StepPage, StepTasksPage, WorkflowLoad};

impl<B: Backend> Engine<B> {
    /// Begins the removal of a workflow that cannot end, and of those that are its steps. Returns whether it is one.
    pub(super) fn remove_stuck(&mut self, key: WorkflowKey) -> Result<bool, Error> {
        // Nothing but its key is known of a damaged one.
        if self.write_set.workflows.damaged.contains_key(&key) {
            // Its removal would wait for them in every commit, and nothing of it ends them.
            let has_tasks = self.has_open_tasks(key, WorkflowLoad::default())?;
            if !has_tasks {
                self.write_set.pending.push(FollowUp::RemoveWorkflow { workflow: key, after: None });
            }
            return Ok(!has_tasks);
        }
        if !self.is_stuck(key)? {
            return Ok(false);
        }
        let mut change = Change::default();
        if let Some(Some(entry)) = self.write_set.workflows.records.get_mut(&key) {
            entry.workflow.remove(&mut change);
        }
        self.write_set.workflows.change_workflow(key);
        self.follow_workflow(key, change);
        Ok(true)
    }

    /// Whether a cancelled workflow cannot end, and nothing of it runs any more.
    fn is_stuck(&mut self, key: WorkflowKey) -> Result<bool, Error> {
        let Some(workflow) = self.write_set.workflows.workflow(key).filter(|one| one.cancelled) else {
            return Ok(false);
        };
        let nests = workflow.nests.clone();
        let steps = workflow.last_completed.map(|step| (key, step)).into_iter().collect();
        let active = vec![StepPage { workflow: key, step: 0, from: 0, limit: MAX_STEPS }];
        if self.has_open_tasks(key, WorkflowLoad { steps, active, ..WorkflowLoad::default() })? {
            return Ok(false);
        }
        let set = &self.write_set.workflows;
        let mut is_damaged = set.damaged_steps.keys().any(|(workflow, _)| *workflow == key);
        let places: Vec<_> = set.nested_places(key, &nests, NestedCommand::Cancel).collect();
        for places in places.chunks(MAX_VISITED) {
            for (place, nested) in places.iter().zip(self.find_nested(key, places)?) {
                let set = &self.write_set.workflows;
                let Some(nested) = nested else {
                    // Of a damaged step only those places are known that it may have.
                    is_damaged |= set.step((key, place.0)).is_some();
                    continue;
                };
                let runs = match set.workflow(nested) {
                    Some(nested) if nested.state.is_final() => continue,
                    Some(_) => !self.is_stuck(nested)?,
                    None => self.has_open_tasks(nested, WorkflowLoad::default())?,
                };
                if runs {
                    return Ok(false);
                }
                is_damaged = true;
            }
        }
        Ok(is_damaged)
    }

    /// Whether tasks of a workflow have not ended. Loads what else is wanted with them.
    fn has_open_tasks(&mut self, key: WorkflowKey, wanted: WorkflowLoad) -> Result<bool, Error> {
        let tasks = vec![StepTasksPage { workflow: key, after: None, open: true, limit: 1 }];
        let workflows = WorkflowLoad { tasks, ..wanted };
        let pages = self.fetch(&Load { workflows, ..Load::default() })?;
        Ok(pages.step_tasks.iter().any(|page| !page.is_empty()))
    }
}
