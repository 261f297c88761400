//! What a workflow whose record cannot be decoded has left: tasks, and workflows of its steps. No rule of the workflow ends them, so that
//! its cancellation does. Only its id and its steps are known.

use rota_core::workflow::{self, Kind, MAX_STEPS, NestedCommand, State, Workflow};
use rota_core::{Namespace, Timestamp, WorkflowKey};

use super::Engine;
use super::nested::{CANCELLED, MAX_VISITED};
use crate::{Backend, Error, FollowUp, Load, StepPage, TaskHold, WorkflowLoad};

impl<B: Backend> Engine<B> {
    /// Cancels the tasks of a damaged workflow that have not ended, and the workflows of its steps. Returns what is known of it.
    pub(super) fn cancel_orphans(
        &mut self,
        namespace: Namespace,
        key: WorkflowKey,
        now: Timestamp,
    ) -> Result<Option<Workflow>, Error> {
        let Some((id, reason)) = self.write_set.workflows.damaged.get(&key).cloned() else { return Ok(None) };
        let hold = TaskHold::Cancel;
        self.write_set.pending.push(FollowUp::StepTasks { workflow: key, after: None, hold, only: None });
        let mut known = Workflow::new(id, namespace);
        (known.key, known.state, known.cancelled) = (key, State::Stopping, true);
        known.message = format!("its record cannot be decoded, and what it has left is cancelled: {reason}");
        self.cancel_nested_orphans(&known, now)?;
        Ok(Some(known))
    }

    /// Cancels the workflows of the steps of a damaged workflow, of which there are at most as many as below any.
    fn cancel_nested_orphans(&mut self, of: &Workflow, now: Timestamp) -> Result<(), Error> {
        let page = StepPage { workflow: of.key, step: 0, from: 0, limit: MAX_STEPS };
        let workflows = WorkflowLoad { active: vec![page], ..WorkflowLoad::default() };
        let active = self.fetch(&Load { workflows, ..Load::default() })?.active;
        let set = &self.write_set.workflows;
        let steps = active.into_iter().flatten().filter_map(|index| set.step((of.key, index)));
        let nesting = steps.filter(|step| step.kind == Kind::Workflow);
        let places = nesting.flat_map(|step| {
            let nested = step.nested(NestedCommand::Cancel);
            nested.map(|(round, item)| (step.index, round, item)).collect::<Vec<_>>()
        });
        let places: Vec<_> = places.collect();
        for places in places.chunks(MAX_VISITED) {
            let id = |(step, round, item): &(u32, u32, u32)| {
                (of.namespace.clone(), of.nested_id(*step, *round, *item))
            };
            let ids: Vec<_> = places.iter().map(id).collect();
            let workflows = WorkflowLoad { ids: ids.clone(), ..WorkflowLoad::default() };
            self.fetch(&Load { workflows, ..Load::default() })?;
            for (id, (step, ..)) in ids.iter().zip(places) {
                let Some(nested) = self.find_workflow(id)? else { continue };
                let is_meant = |found: &Workflow| found.is_step(of.key, *step) && !found.cancelled;
                if self.write_set.workflows.damaged.contains_key(&nested) {
                    self.cancel_orphans(of.namespace.clone(), nested, now)?;
                } else if self.write_set.workflows.workflow(nested).is_some_and(is_meant) {
                    let command = workflow::Command::Cancel { reason: CANCELLED.to_owned() };
                    // One that has ended needs none.
                    let _ = self.apply_workflow(nested, command, now);
                }
            }
        }
        Ok(())
    }
}
