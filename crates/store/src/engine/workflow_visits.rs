//! Visits of follow-ups of workflows: each takes a page of the steps or tasks concerned, and gives them their commands.

use std::ops::Range;

use rota_core::task::{self, Desired, Task};
use rota_core::workflow::{COMPENSATION, State, StepCommand, StepState, Workflow};
use rota_core::{Timestamp, WorkflowKey};

use super::Engine;
use crate::{Backend, Error, FollowUp, Load, StepKey, StepPage, TaskHold, TaskRow, WorkflowLoad, place_of};

/// Indexes of the steps of a phase.
#[derive(Debug, Default)]
pub(super) struct OfPhase {
    pub(super) all: Range<u32>,
    without: Range<u32>,
}

impl OfPhase {
    fn contains(&self, index: u32) -> bool {
        self.all.contains(&index) && !self.without.contains(&index)
    }
}

impl<B: Backend> Engine<B> {
    /// Notifies the steps that need one that has ended.
    pub(super) fn visit_needing(
        &mut self,
        number: Option<u64>,
        (workflow, step): StepKey,
        dependents: &[(u32, bool)],
        limit: usize,
    ) {
        self.write_set.pending.spend(dependents.len().max(1));
        let set = &mut self.write_set.workflows;
        let ended = set.step((workflow, step)).cloned();
        if ended.is_none() && !set.damaged_steps.contains_key(&(workflow, step)) {
            self.write_set.pending.finish(number, None);
            return;
        }
        for (dependent, continues) in dependents {
            // One that cannot be decoded has no result that others could use.
            let satisfied = ended.as_ref().map_or(*continues, |ended| ended.satisfies(*continues));
            let reused = ended.as_ref().is_some_and(|ended| ended.reused);
            let command = StepCommand::NeedEnded { satisfied, reused };
            set.calls.push_back(((workflow, *dependent), command));
        }
        match dependents.last().filter(|_| dependents.len() >= limit) {
            Some((last, _)) => {
                let rest = FollowUp::StepEnded { workflow, step, from: last + 1 };
                self.write_set.pending.go_on(number, rest);
            }
            None => self.write_set.pending.finish(number, None),
        }
    }

    /// Returns how many held steps of a workflow may start, and the indexes of its phase: one of another phase would take the
    /// place of one that may start.
    pub(super) fn releasable(&self, workflow: WorkflowKey) -> (usize, OfPhase) {
        let workflow = self.write_set.workflows.workflow(workflow);
        workflow.map_or((0, OfPhase::default()), |workflow| {
            let finals = workflow.finals();
            let finalizes = workflow.state == State::Finalizing;
            let all = if finalizes { finals.clone() } else { 0..workflow.total() };
            let without = if finalizes { 0..0 } else { finals };
            (workflow.releasable() as usize, OfPhase { all, without })
        })
    }

    /// Has the held steps looked at for which the batch has made room: once for each workflow, however many of its steps have ended.
    pub(super) fn release_steps(&mut self, now: Timestamp) -> Result<(), Error> {
        while !self.write_set.workflows.releasing.is_empty() {
            for workflow in std::mem::take(&mut self.write_set.workflows.releasing) {
                let follow_up = FollowUp::ReleaseSteps { workflow };
                if self.write_set.workflows.has_new_rows(workflow) {
                    self.write_set.pending.finish(None, Some(follow_up));
                } else {
                    self.write_set.pending.push(follow_up);
                }
            }
            self.follow_up(now)?;
        }
        Ok(())
    }

    /// Starts the first held steps, as many as there is room for.
    pub(super) fn visit_held(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        page: (StepPage, Vec<u32>),
    ) -> Result<(), Error> {
        self.write_set.workflows.releasing.remove(&workflow);
        let (wanted, indexes) = self.releasable(workflow);
        let limit = wanted.min(page.0.limit);
        if limit == 0 {
            self.write_set.pending.finish(number, None);
            return Ok(());
        }
        // Steps that the batch has held are not in the index, and those that it has started still are.
        let is_held = |state: StepState| state == StepState::Held;
        let of_batch = self.write_set.workflows.steps.iter();
        let of_batch = of_batch.filter(|((of, index), _)| *of == workflow && indexes.contains(*index));
        let mut held: Vec<_> = of_batch
            .filter(|(_, entry)| entry.as_ref().is_some_and(|entry| is_held(entry.step.state)))
            .map(|((_, index), _)| *index)
            .collect();
        let mut next = Some(page);
        while held.len() < limit
            && let Some((page, found)) = next
        {
            let set = &self.write_set.workflows;
            let still = |index: &u32| {
                indexes.contains(*index)
                    && set.step((workflow, *index)).is_some_and(|step| is_held(step.state))
            };
            held.extend(found.iter().copied().filter(still));
            self.write_set.pending.spend(found.len());
            next = match found.last().filter(|_| found.len() >= page.limit && held.len() < limit) {
                Some(last) if last + 1 < indexes.all.end => {
                    let page = StepPage { from: last + 1, ..page };
                    let workflows = WorkflowLoad { held: vec![page], ..WorkflowLoad::default() };
                    let mut pages = self.fetch(&Load { workflows, ..Load::default() })?;
                    Some((page, pages.held.pop().unwrap_or_default()))
                }
                _ => None,
            };
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

    /// Notifies steps that have started that the workflow has stopped, or was resumed.
    pub(super) fn visit_active(
        &mut self,
        number: Option<u64>,
        (workflow, from): StepKey,
        halts: bool,
        found: &[u32],
        limit: usize,
    ) {
        let set = &mut self.write_set.workflows;
        let command = if halts { StepCommand::Halt } else { StepCommand::Resume };
        let of_batch = set.steps.iter().filter(|((of, index), entry)| {
            *of == workflow
                && *index >= from
                && entry.as_ref().is_some_and(|entry| entry.step.state.is_active())
        });
        let mut steps: Vec<_> = of_batch.map(|((_, index), _)| *index).chain(found.iter().copied()).collect();
        steps.sort_unstable();
        steps.dedup();
        self.write_set.pending.spend(steps.len().max(1));
        if let Some(record) = set.workflow(workflow).filter(|_| halts) {
            steps.retain(|index| record.is_stopped(*index));
        }
        set.calls.extend(steps.into_iter().map(|index| ((workflow, index), command.clone())));
        match found.last().filter(|_| found.len() >= limit) {
            Some(last) => {
                let from = last + 1;
                let rest = match halts {
                    true => FollowUp::HaltSteps { workflow, from },
                    false => FollowUp::ResumeSteps { workflow, from },
                };
                self.write_set.pending.go_on(number, rest);
            }
            None => self.write_set.pending.finish(number, None),
        }
    }

    /// Cancels, suspends or resumes the tasks of a workflow that have not ended.
    pub(super) fn visit_tasks(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        (hold, only): (TaskHold, Option<u32>),
        rows: Vec<TaskRow>,
        limit: usize,
    ) {
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
            return;
        }
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
        for key in keys {
            // Memory has those on workers.
            self.hold(key);
            let Some(entry) = self.write_set.get(key) else { continue };
            let Some(step) = entry.task.step.as_ref() else { continue };
            let record = self.write_set.workflows.workflow(workflow);
            // A compensation is not cancelled with what it reverses.
            let is_stopped =
                step.round != COMPENSATION && record.is_none_or(|workflow| workflow.is_stopped(step.step));
            let is_meant = match only {
                Some(only) => step.step == only && step.round != COMPENSATION,
                None => hold != TaskHold::Cancel || is_stopped,
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
    }
}
