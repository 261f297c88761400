//! Visits of follow-ups of workflows: each loads a page of the steps or tasks concerned, and gives them their commands.

use std::sync::Arc;

use rota_core::task::{self, Desired, Task};
use rota_core::workflow::{COMPENSATION, State, StepCommand, StepState, Workflow};
use rota_core::{TaskKey, Timestamp, WorkflowKey};

use super::Engine;
use crate::{
    Backend, Error, FollowUp, Load, StepPage, StepTasksPage, TaskHold, TaskPlace, TaskRow, WorkflowLoad,
    place_of,
};

/// Tasks that one visit removes: their logs are large.
const MAX_REMOVED: usize = 32;

impl<B: Backend> Engine<B> {
    pub(super) fn visit_workflow(
        &mut self,
        number: Option<u64>,
        follow_up: FollowUp,
        now: Timestamp,
    ) -> Result<(), Error> {
        match follow_up {
            FollowUp::StepEnded { workflow, step, from } => self.visit_needing(number, workflow, step, from),
            FollowUp::ReleaseSteps { workflow } => self.visit_held(number, workflow),
            FollowUp::HaltSteps { workflow, from } => self.visit_active(number, workflow, from),
            FollowUp::StepTasks { workflow, after, hold, only } => {
                self.visit_tasks(number, workflow, after, hold, only)
            }
            FollowUp::AdmitMembers { group } => self.visit_group(number, group, now),
            FollowUp::ReplaceMembers { group, joined } => self.visit_replaced(number, group, joined, now),
            FollowUp::RemoveWorkflow { workflow, after } => self.visit_removal(number, workflow, after),
            _ => Ok(()),
        }
    }

    fn page(&self, workflow: WorkflowKey, step: u32, from: u32) -> StepPage {
        StepPage { workflow, step, from, limit: self.write_set.pending.budget() }
    }

    /// Notifies the steps that need one that has ended.
    fn visit_needing(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        step: u32,
        from: u32,
    ) -> Result<(), Error> {
        let page = self.page(workflow, step, from);
        let mut wanted = WorkflowLoad { dependents: vec![page], ..WorkflowLoad::default() };
        let set = &self.write_set.workflows;
        if !set.records.contains_key(&workflow) {
            wanted.keys.push(workflow);
        }
        if !set.steps.contains_key(&(workflow, step)) {
            wanted.steps.push((workflow, step));
        }
        let pages = self.fetch(&Load { workflows: wanted, ..Load::default() })?;
        let dependents = pages.needing.into_iter().next().unwrap_or_default();
        self.write_set.pending.spend(dependents.len().max(1));
        let set = &mut self.write_set.workflows;
        let ended = set.step((workflow, step)).cloned();
        if ended.is_none() && !set.damaged_steps.contains_key(&(workflow, step)) {
            self.write_set.pending.finish(number, None);
            return Ok(());
        }
        for (dependent, continues) in &dependents {
            // One that cannot be decoded has no result that others could use.
            let satisfied = ended.as_ref().map_or(*continues, |ended| ended.satisfies(*continues));
            let reused = ended.as_ref().is_some_and(|ended| ended.reused);
            let command = StepCommand::NeedEnded { satisfied, reused };
            set.calls.push_back(((workflow, *dependent), command));
        }
        match dependents.last().filter(|_| dependents.len() >= page.limit) {
            Some((last, _)) => {
                let rest = FollowUp::StepEnded { workflow, step, from: last + 1 };
                self.write_set.pending.go_on(number, rest);
            }
            None => self.write_set.pending.finish(number, None),
        }
        Ok(())
    }

    /// Starts the first held steps, as many as there is room for.
    fn visit_held(&mut self, number: Option<u64>, workflow: WorkflowKey) -> Result<(), Error> {
        self.write_set.workflows.releasing.remove(&workflow);
        self.load_workflow(workflow)?;
        let room = |engine: &Self| {
            let workflow = engine.write_set.workflows.workflow(workflow);
            workflow.map_or((0, 0..0), |workflow| {
                let indexes = match workflow.state {
                    State::Finalizing => workflow.main..u32::MAX,
                    _ => 0..workflow.main,
                };
                (workflow.releasable() as usize, indexes)
            })
        };
        // Those of another phase would take the place of one that may start.
        let (wanted, indexes) = room(self);
        let limit = wanted.min(self.write_set.pending.budget());
        if limit == 0 {
            self.write_set.pending.finish(number, None);
            return Ok(());
        }
        // Steps that the batch has held are not in the index, and those that it has started still are.
        let is_held = |state: StepState| state == StepState::Held;
        let of_batch = self.write_set.workflows.steps.iter();
        let of_batch = of_batch.filter(|((of, index), _)| *of == workflow && indexes.contains(index));
        let mut held: Vec<_> = of_batch
            .filter(|(_, entry)| entry.as_ref().is_some_and(|entry| is_held(entry.step.state)))
            .map(|((_, index), _)| *index)
            .collect();
        let mut from = indexes.start;
        while held.len() < limit && indexes.contains(&from) {
            let page = StepPage { workflow, step: 0, from, limit };
            let wanted = WorkflowLoad { held: vec![page], ..WorkflowLoad::default() };
            let found =
                self.fetch(&Load { workflows: wanted, ..Load::default() })?.held.pop().unwrap_or_default();
            let set = &self.write_set.workflows;
            let still = |index: &u32| {
                indexes.contains(index)
                    && set.step((workflow, *index)).is_some_and(|step| is_held(step.state))
            };
            held.extend(found.iter().copied().filter(still));
            self.write_set.pending.spend(found.len());
            match found.last().filter(|_| found.len() >= limit) {
                Some(last) => from = last + 1,
                None => break,
            }
        }
        held.sort_unstable();
        held.dedup();
        self.write_set.pending.spend(1);
        let calls = held.into_iter().take(limit).map(|index| ((workflow, index), StepCommand::Release));
        self.write_set.workflows.calls.extend(calls);
        let rest = (wanted > limit).then_some(FollowUp::ReleaseSteps { workflow });
        self.write_set.pending.finish(number, rest);
        Ok(())
    }

    /// Notifies steps that have started that the workflow has stopped.
    fn visit_active(&mut self, number: Option<u64>, workflow: WorkflowKey, from: u32) -> Result<(), Error> {
        let page = self.page(workflow, 0, from);
        let active = WorkflowLoad { active: vec![page], ..WorkflowLoad::default() };
        let found =
            self.fetch(&Load { workflows: active, ..Load::default() })?.active.pop().unwrap_or_default();
        self.load_workflow(workflow)?;
        let set = &mut self.write_set.workflows;
        let finals = set.workflow(workflow).filter(|one| !one.finals_halted).map(|one| one.main);
        let is_concerned = |index: &u32| finals.is_none_or(|finals| *index < finals);
        let of_batch = set.steps.iter().filter(|((of, index), entry)| {
            *of == workflow
                && *index >= from
                && entry.as_ref().is_some_and(|entry| entry.step.state.is_active())
        });
        let mut steps: Vec<_> = of_batch.map(|((_, index), _)| *index).chain(found.iter().copied()).collect();
        steps.sort_unstable();
        steps.dedup();
        let calls = steps.iter().filter(|index| is_concerned(index));
        set.calls.extend(calls.map(|index| ((workflow, *index), StepCommand::Halt)));
        self.write_set.pending.spend(steps.len().max(1));
        match found.last().filter(|_| found.len() >= page.limit) {
            Some(last) => {
                let rest = FollowUp::HaltSteps { workflow, from: last + 1 };
                self.write_set.pending.go_on(number, rest);
            }
            None => self.write_set.pending.finish(number, None),
        }
        Ok(())
    }

    fn task_page(&mut self, page: StepTasksPage) -> Result<Vec<TaskRow>, Error> {
        let wanted = WorkflowLoad { tasks: vec![page], ..WorkflowLoad::default() };
        let mut pages = self.fetch(&Load { workflows: wanted, ..Load::default() })?;
        Ok(pages.step_tasks.pop().unwrap_or_default())
    }

    /// Cancels, suspends or resumes the tasks of a workflow that have not ended.
    fn visit_tasks(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        after: Option<TaskPlace>,
        hold: TaskHold,
        only: Option<u32>,
    ) -> Result<(), Error> {
        self.load_workflow(workflow)?;
        // A later command may have overtaken this one, which takes several commits.
        let is_paused = self.write_set.workflows.workflow(workflow).map(Workflow::is_paused);
        let is_outdated = match hold {
            TaskHold::Suspend => is_paused != Some(true),
            TaskHold::Resume => is_paused == Some(true),
            TaskHold::Cancel => false,
        };
        if is_outdated {
            self.write_set.pending.spend(1);
            self.write_set.pending.finish(number, None);
            return Ok(());
        }
        let limit = self.write_set.pending.budget();
        let rows = self.task_page(StepTasksPage { workflow, after, open: true, limit })?;
        // One that cannot be decoded has no place: commands on it fail.
        let last =
            rows.iter().rev().find_map(|row| place_of(row.task.as_ref().ok()?)).map(|(_, place)| place);
        let whole = rows.len() < limit;
        self.write_set.pending.spend(rows.len().max(1));
        let stored: Vec<_> = rows.iter().map(|row| row.key).collect();
        rows.into_iter().for_each(|row| self.receive(row));
        let of_workflow = |task: &Task| task.step.as_ref().is_some_and(|step| step.workflow == workflow);
        let entries =
            self.write_set.entries.iter().filter(|(_, entry)| entry.new && of_workflow(&entry.task));
        let mut keys: Vec<_> = entries.map(|(key, _)| *key).chain(stored).collect();
        keys.sort_unstable();
        keys.dedup();
        let finals = self.write_set.workflows.workflow(workflow);
        let finals = finals.filter(|one| !one.finals_halted).map(|one| one.main);
        for key in keys {
            // Memory has those on workers.
            self.hold(key);
            let Some(entry) = self.write_set.get(key) else { continue };
            let Some(step) = entry.task.step.as_ref() else { continue };
            // A compensation is not cancelled with what it reverses, nor is a finally-step.
            let is_spared = step.round == COMPENSATION || finals.is_some_and(|finals| step.step >= finals);
            let is_meant = match only {
                Some(only) => step.step == only && step.round != COMPENSATION,
                None => hold != TaskHold::Cancel || !is_spared,
            };
            if !is_meant {
                continue;
            }
            let (desired, reason) = match hold {
                TaskHold::Cancel => (Desired::Cancelled, "the workflow has stopped"),
                TaskHold::Suspend => (Desired::Suspended, "the workflow is paused"),
                TaskHold::Resume => (Desired::Run, "the workflow was resumed"),
            };
            let command = task::Command::Update {
                priority: None,
                labels: None,
                desired: Some(desired),
                reason: reason.to_owned(),
            };
            self.write_set.next.push_back((key, command));
        }
        match last.filter(|last| !whole && only.is_none_or(|only| last.0 <= only)) {
            Some(after) => {
                let rest = FollowUp::StepTasks { workflow, after: Some(after), hold, only };
                self.write_set.pending.go_on(number, rest);
            }
            None => self.write_set.pending.finish(number, None),
        }
        Ok(())
    }

    /// Removes the tasks of a workflow, then its own rows. A task that another one needs outlives it.
    fn visit_removal(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        after: Option<TaskPlace>,
    ) -> Result<(), Error> {
        let page = StepTasksPage { workflow, after, open: false, limit: MAX_REMOVED };
        let rows = self.task_page(page)?;
        let whole = rows.len() < MAX_REMOVED;
        self.write_set.pending.spend(64);
        let mut last = after;
        for row in rows {
            let (key, has_dependents) = (row.key, row.has_dependents);
            let Ok(task) = &row.task else { continue };
            let place = place_of(task).map(|(_, place)| place);
            let is_changed = self.write_set.get(key).is_some_and(|entry| entry.revision.is_some());
            if is_changed || !task.state.is_final() {
                // The next commit removes it.
                let rest = FollowUp::RemoveWorkflow { workflow, after: last };
                self.write_set.pending.finish(number, Some(rest));
                return Ok(());
            }
            last = place.or(last);
            if has_dependents || self.write_set.new_dependents.contains_key(&key) {
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
        if whole || last == after {
            self.write_set.workflows.remove(workflow);
            self.write_set.pending.finish(number, None);
        } else {
            self.write_set.pending.go_on(number, FollowUp::RemoveWorkflow { workflow, after: last });
        }
        Ok(())
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
