//! Workflows that are steps of others: their creation, the end of one, and the commands that a workflow passes on to them. Their
//! ids follow from their places, so that they are found without an index.

use rota_core::workflow::{
    self, MAX_NESTED, MAX_NESTING_STEPS, NestedCommand, Rejected, StepCommand, TaskEnd,
};
use rota_core::{TaskKey, Timestamp, WorkflowKey};

use super::Engine;
use crate::{
    Backend, CreateWorkflow, Error, FollowUp, Load, StepKey, TaskPlace, WorkflowLoad, WorkflowScopedId,
};

/// Workflows that one visit commands.
pub(super) const MAX_VISITED: usize = 64;
pub(super) const CANCELLED: &str = "the workflow of which it is a step has stopped";

impl<B: Backend> Engine<B> {
    /// Adds what the creation of workflows as steps needs.
    pub(super) fn collect_nested(creates: &[CreateWorkflow], load: &mut Load) {
        for create in creates {
            let ids = [Some(create.workflow.id), create.workflow.rerun_of];
            let scoped = |id| (create.workflow.namespace.clone(), id);
            load.workflows.ids.extend(ids.into_iter().flatten().map(scoped));
            load.workflows.keys.extend(create.workflow.parent.as_ref().map(|parent| parent.root));
        }
    }

    /// Returns why these workflows cannot be created, if they are too many for the one that is around all of them.
    pub(super) fn no_room_for_nested(&mut self, creates: &[CreateWorkflow]) -> Result<Option<String>, Error> {
        let Some(parent) = creates.first().and_then(|create| create.workflow.parent.as_ref()) else {
            return Ok(None);
        };
        let root = parent.root;
        self.load_workflow(root)?;
        let below = self.write_set.workflows.workflow(root).map_or(0, |root| root.nested);
        let count = u32::try_from(creates.len()).unwrap_or(u32::MAX);
        let most = format!("the outermost workflow may have at most {MAX_NESTED} workflows below it");
        Ok((below.saturating_add(count) > MAX_NESTED).then_some(most))
    }

    /// Creates the next workflows of a step that runs, in the commit in which it counts them.
    pub(super) fn create_nested(
        &mut self,
        key: StepKey,
        mut creates: Vec<CreateWorkflow>,
        now: Timestamp,
    ) -> Result<Result<Vec<TaskKey>, Rejected>, Error> {
        let Some(step) = self.write_set.workflows.step(key) else { return Ok(Err(Rejected::Outdated)) };
        creates.truncate(step.wanted() as usize);
        let round = step.round;
        let Ok(count @ 1..) = u32::try_from(creates.len()) else { return Ok(Ok(Vec::new())) };
        if let Err(rejected) = self.apply_step(key, StepCommand::Created { count }, now)? {
            return Ok(Err(rejected));
        }
        let root = creates.first().and_then(|create| Some(create.workflow.parent.as_ref()?.root));
        if let Some(root) = root
            && let Some(Some(entry)) = self.write_set.workflows.records.get_mut(&root)
        {
            entry.workflow.nested = entry.workflow.nested.saturating_add(count);
            self.write_set.workflows.change_workflow(root);
        }
        for create in creates {
            let scoped = (create.workflow.namespace.clone(), create.workflow.id);
            if self.find_workflow(&scoped)?.is_none() {
                let _ = self.create_workflow(create, now)?;
                continue;
            }
            if let Some(Some(entry)) = self.write_set.workflows.steps.get_mut(&key) {
                entry.step.message = format!("there is another workflow with the id {}", scoped.1);
            }
            let refused = StepCommand::TaskEnded { round, end: TaskEnd::Failed };
            self.write_set.workflows.calls.push_back((key, refused));
        }
        Ok(Ok(Vec::new()))
    }

    /// Takes in the end of a workflow that is a step of another.
    pub(super) fn ended_as_step(&mut self, key: WorkflowKey) {
        let set = &mut self.write_set.workflows;
        let Some(workflow) = set.workflow(key) else { return };
        let Some(parent) = workflow.parent.as_ref() else { return };
        let command = StepCommand::TaskEnded { round: parent.step.round, end: workflow.end_as_step() };
        let step = (parent.step.workflow, parent.step.step);
        set.calls.push_back((step, command));
    }

    /// Returns the ids of the workflows at these places of one, if that is known.
    fn nested_ids(&self, workflow: WorkflowKey, places: &[TaskPlace]) -> Vec<WorkflowScopedId> {
        let Some(record) = self.write_set.workflows.workflow(workflow) else { return Vec::new() };
        let id = |(step, round, item): &TaskPlace| {
            (record.namespace.clone(), record.nested_id(*step, *round, *item))
        };
        places.iter().map(id).collect()
    }

    /// Loads workflows by their ids, in one call.
    fn load_workflow_ids(&mut self, ids: &[WorkflowScopedId]) -> Result<(), Error> {
        let known = &self.write_set.workflows.ids;
        let ids = ids.iter().filter(|id| !known.contains_key(*id)).cloned().collect();
        let mut wanted = WorkflowLoad { ids, ..WorkflowLoad::default() };
        wanted.deduplicate();
        self.fetch(&Load { workflows: wanted, ..Load::default() }).map(drop)
    }

    /// Returns the keys of the workflows at these places of one, which are loaded: `None` for those that do not exist.
    pub(super) fn find_nested(
        &mut self,
        workflow: WorkflowKey,
        places: &[TaskPlace],
    ) -> Result<Vec<Option<WorkflowKey>>, Error> {
        let ids = self.nested_ids(workflow, places);
        self.load_workflow_ids(&ids)?;
        let mut keys = Vec::with_capacity(ids.len());
        for (id, (step, ..)) in ids.iter().zip(places) {
            let key = self.find_workflow(id)?;
            key.map_or(Ok(()), |key| self.load_workflow(key))?;
            let set = &self.write_set.workflows;
            // Of a damaged one the place is not known.
            let is_meant =
                |key: &WorkflowKey| set.workflow(*key).is_none_or(|found| found.is_step(workflow, *step));
            keys.push(key.filter(is_meant));
        }
        Ok(keys)
    }

    /// Returns the steps to whose workflows a command is passed on next; `None` if a later command has overtaken it.
    fn nesting_steps(
        &self,
        workflow: WorkflowKey,
        (command, only): (NestedCommand, Option<u32>),
        after: Option<TaskPlace>,
    ) -> Option<Vec<u32>> {
        let found = self.write_set.workflows.workflow(workflow)?;
        if !found.still_passes_on(command) {
            return None;
        }
        let from = after.map_or(0, |(step, ..)| step);
        let is_meant = |step: &&u32| {
            let cancels = matches!(command, NestedCommand::Cancel | NestedCommand::CancelFinally);
            **step >= from && only.map_or(!cancels || found.is_stopped(**step), |only| only == **step)
        };
        Some(found.nests.iter().filter(is_meant).take(MAX_NESTING_STEPS).copied().collect())
    }

    /// Returns the next places that a command is passed on to, of steps that are loaded, and whether they are the last.
    fn next_places(
        &self,
        (workflow, steps): (WorkflowKey, &[u32]),
        command: NestedCommand,
        after: Option<TaskPlace>,
        limit: usize,
    ) -> (Vec<TaskPlace>, bool) {
        let of_steps = self.write_set.workflows.nested_places(workflow, steps, command);
        let mut places = of_steps.filter(|place| after.is_none_or(|after| *place > after));
        let next: Vec<_> = places.by_ref().take(limit.min(MAX_VISITED)).collect();
        (next, places.next().is_none())
    }

    /// Loads what the commands of a round are passed on to: the steps of all of them in one call, their workflows in another.
    pub(super) fn load_nested<'a>(
        &mut self,
        follow_ups: impl Iterator<Item = &'a FollowUp>,
        limit: usize,
    ) -> Result<(), Error> {
        let passed_on = |follow_up: &FollowUp| match follow_up {
            FollowUp::Nested { workflow, command, only, after } => {
                let steps = self.nesting_steps(*workflow, (*command, *only), *after)?;
                Some((*workflow, steps, *command, *after))
            }
            _ => None,
        };
        let passed_on: Vec<_> = follow_ups.filter_map(passed_on).collect();
        let mut keys: Vec<StepKey> = Vec::new();
        for (workflow, steps, ..) in &passed_on {
            keys.extend(steps.iter().map(|step| (*workflow, *step)));
        }
        self.load_steps(keys)?;
        let mut ids = Vec::new();
        for (workflow, steps, command, after) in &passed_on {
            let (places, _) = self.next_places((*workflow, steps), *command, *after, limit);
            ids.extend(self.nested_ids(*workflow, &places));
        }
        self.load_workflow_ids(&ids)
    }

    /// Passes a command on to the next workflows that are steps of one.
    pub(super) fn visit_nested(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        (command, only): (NestedCommand, Option<u32>),
        (after, limit): (Option<TaskPlace>, usize),
        now: Timestamp,
    ) -> Result<(), Error> {
        self.load_workflow(workflow)?;
        let steps = self.nesting_steps(workflow, (command, only), after);
        let namespace = self.write_set.workflows.workflow(workflow).map(|found| found.namespace.clone());
        let (Some(steps), Some(namespace)) = (steps, namespace) else {
            self.write_set.pending.spend(1);
            self.write_set.pending.finish(number, None);
            return Ok(());
        };
        self.load_steps(steps.iter().map(|step| (workflow, *step)))?;
        let limit = limit.min(self.write_set.pending.budget()).max(1);
        let (visited, is_last) = self.next_places((workflow, &steps), command, after, limit);
        for key in self.find_nested(workflow, &visited)?.into_iter().flatten() {
            if matches!(command, NestedCommand::Cancel | NestedCommand::CancelFinally)
                && self.write_set.workflows.damaged.contains_key(&key)
            {
                self.cancel_orphans(namespace.clone(), key, now)?;
                continue;
            }
            let is_cancelled = self.write_set.workflows.workflow(key).is_some_and(|one| one.cancelled);
            let command = match command {
                NestedCommand::Cancel if is_cancelled => continue,
                NestedCommand::Cancel => workflow::Command::Cancel { reason: CANCELLED.to_owned() },
                NestedCommand::CancelFinally => {
                    workflow::Command::CancelFinally { reason: CANCELLED.to_owned() }
                }
                NestedCommand::Pause { suspend } => workflow::Command::Pause { suspend },
                NestedCommand::Resume => workflow::Command::RESUME,
                NestedCommand::Remove => workflow::Command::Delete,
            };
            // One that has ended, or ends, needs none; one that cannot end is removed with what is around it.
            let is_removal = command == workflow::Command::Delete;
            if self.apply_workflow(key, command, now).is_err() && is_removal {
                self.remove_stuck(key)?;
            }
        }
        self.write_set.pending.spend(visited.len().max(1));
        let rest = match visited.last().filter(|_| !is_last) {
            Some(last) => Some(FollowUp::Nested { workflow, command, only, after: Some(*last) }),
            None if command == NestedCommand::Remove => {
                Some(FollowUp::RemoveWorkflow { workflow, after: None })
            }
            None => None,
        };
        match rest {
            Some(rest) => self.write_set.pending.go_on(number, rest),
            None => self.write_set.pending.finish(number, None),
        }
        Ok(())
    }
}
