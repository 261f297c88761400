//! Workflows: commands on them and on their steps, and the tasks that the driver creates for them. The rules are those of
//! `rota_core::workflow`; what follows for other steps is in `workflow_visits`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rota_core::task::State;
use rota_core::workflow::{self, Change, Follow, Rejected, Step, StepCommand, StepRef, TaskEnd};
use rota_core::{Timestamp, WorkflowId, WorkflowKey};

use super::workflow_drive::default_decision;
use super::workflow_set::{StepEntry, WorkflowEntry};
use super::{Answer, Engine};
use crate::{
    Backend, CreateWorkflow, Error, FollowUp, Load, Refused, Reply, StepKey, TaskHold, WORKFLOW_MEMBER,
    WORKFLOW_OUTPUT, WorkflowCommand, WorkflowLoad, WorkflowScopedId, input_files,
};

impl<B: Backend> Engine<B> {
    /// Adds what a command on a workflow needs.
    pub(super) fn collect_workflow(&self, command: &WorkflowCommand, load: &mut Load) {
        for create in command.tasks() {
            self.collect_create(create, load);
        }
        Self::collect_nested(command.nested(), load);
        let wanted = &mut load.workflows;
        match command {
            WorkflowCommand::Create(create) => {
                let namespace = &create.workflow.namespace;
                wanted.names.extend(create.key.as_ref().map(|key| (namespace.clone(), key.clone())));
                if create.foreign_id {
                    wanted.ids.push((namespace.clone(), create.workflow.id));
                }
                wanted.ids.extend(create.workflow.rerun_of.map(|id| (namespace.clone(), id)));
            }
            WorkflowCommand::Apply { namespace, id, .. } | WorkflowCommand::Step { namespace, id, .. } => {
                wanted.ids.push((namespace.clone(), *id));
            }
            WorkflowCommand::Drive { workflow, step, .. } => {
                wanted.keys.push(*workflow);
                wanted.steps.push((*workflow, *step));
            }
            WorkflowCommand::AddStep(add) => wanted.ids.push((add.namespace.clone(), add.id)),
            WorkflowCommand::Conclude { workflow, .. } => wanted.keys.push(*workflow),
        }
    }

    /// Adds what the end of a task needs of its workflow.
    pub(super) fn collect_step(step: &StepRef, load: &mut Load) {
        load.workflows.keys.push(step.workflow);
        load.workflows.steps.push((step.workflow, step.step));
    }

    pub(super) fn workflow_command(
        &mut self,
        command: WorkflowCommand,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        use workflow::Command::{Cancel, CancelFinally};
        match command {
            WorkflowCommand::Create(create) => self.create_workflow(*create, now),
            WorkflowCommand::Apply { namespace, id, command } => {
                let Some(key) = self.find_workflow(&(namespace.clone(), id))? else {
                    return Ok(Err(Refused::NoWorkflow(id)));
                };
                if matches!(command, Cancel { .. } | CancelFinally { .. })
                    && let Some(known) = self.cancel_orphans(namespace, key, now)?
                {
                    return Ok(Ok(Reply::Workflow { workflow: Arc::new(known), created: false }.into()));
                }
                let is_damaged = self.write_set.workflows.damaged.contains_key(&key);
                if is_damaged && command == workflow::Command::Delete {
                    let refused = Refused::Workflow(Rejected::Unended);
                    return Ok(self.remove_stuck(key)?.then(|| Reply::Deleted.into()).ok_or(refused));
                }
                Ok(match self.apply_workflow(key, command, now) {
                    Err(Rejected::Unended) if self.remove_stuck(key)? => self.workflow_reply(key),
                    Err(rejected) => Err(self.write_set.workflows.refusal(key, None, rejected)),
                    Ok(()) => self.workflow_reply(key),
                })
            }
            WorkflowCommand::Step { namespace, id, step, command, output } => {
                let Some(key) = self.find_workflow(&(namespace, id))? else {
                    return Ok(Err(Refused::NoWorkflow(id)));
                };
                let step = (key, step);
                if let Err(rejected) = self.apply_step(step, command, now)? {
                    return Ok(Err(self.write_set.workflows.refusal(key, Some(step.1), rejected)));
                }
                self.put_output(step, output);
                let step = self.write_set.workflows.step(step).cloned();
                let step = step.ok_or(Refused::NoWorkflow(id));
                Ok(step.map(|step| Reply::Step(Arc::new(step)).into()))
            }
            WorkflowCommand::AddStep(add) => self.add_step(*add, now),
            WorkflowCommand::Drive { workflow, step, action } => {
                let driven = self.drive((workflow, step), *action, now)?;
                Ok(driven.map(Answer::Driven).map_err(Refused::Workflow))
            }
            WorkflowCommand::Conclude { workflow, outputs } => {
                self.load_workflow(workflow)?;
                let (body, outcome) = match outputs {
                    Ok(body) => (Some(body), Ok(())),
                    Err(why) => (None, Err(why)),
                };
                Ok(match self.apply_workflow(workflow, workflow::Command::Conclude(outcome), now) {
                    Err(rejected) => Err(Refused::Workflow(rejected)),
                    Ok(()) => {
                        let body = body.map(|body| ((workflow, WORKFLOW_OUTPUT), body));
                        self.write_set.workflows.changes.outputs.extend(body);
                        self.workflow_reply(workflow)
                    }
                })
            }
        }
    }

    fn workflow_reply(&self, key: WorkflowKey) -> Result<Answer, Refused> {
        let workflow = self.write_set.workflows.workflow(key).cloned();
        let refused = || self.write_set.workflows.refusal(key, None, Rejected::Outdated);
        let workflow = workflow.ok_or_else(refused)?;
        Ok(Reply::Workflow { workflow: Arc::new(workflow), created: false }.into())
    }

    pub(super) fn create_workflow(
        &mut self,
        create: CreateWorkflow,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let CreateWorkflow { mut workflow, spec, mut steps, key: name, foreign_id, files } = create;
        let scoped = (workflow.namespace.clone(), workflow.id);
        let name = name.map(|name| (workflow.namespace.clone(), name));
        let set = &mut self.write_set.workflows;
        let mut existing = name.as_ref().and_then(|name| *set.names.get(name)?);
        if existing.is_none() && foreign_id {
            existing = self.find_workflow(&scoped)?;
        }
        if let Some(key) = existing {
            self.load_workflow(key)?;
            return Ok(self.workflow_reply(key));
        }
        if let Some(refused) = self.refuses_workflow(&workflow, now) {
            return Ok(Err(refused));
        }
        if let Some(earlier) = workflow.rerun_of {
            self.note_rerun(&(workflow.namespace.clone(), earlier), workflow.id)?;
        }
        let key = WorkflowKey(self.write_set.next_revision());
        workflow.key = key;
        let mut records: Vec<_> = steps.iter().map(|new| new.step.clone()).collect();
        let change = workflow.begin(&mut records, now);
        let set = &mut self.write_set.workflows;
        for (step, new) in records.into_iter().zip(&mut steps) {
            let index = step.index;
            let step = Step { workflow: key, ..step };
            let edges = new.needs.iter().map(|need| ((key, need.step), index, need.continues));
            set.changes.edges.extend(edges);
            let entry = StepEntry { step, new: Some(std::mem::take(&mut new.spec)), changed: false };
            set.steps.insert((key, index), Some(entry));
            set.change_step((key, index));
        }
        set.ids.insert(scoped, Some(key));
        if let Some(name) = &name {
            set.names.insert(name.clone(), Some(key));
        }
        let new = Some((spec, name.map(|(_, name)| name)));
        set.records.insert(key, Some(WorkflowEntry { workflow: workflow.clone(), new, changed: false }));
        set.change_workflow(key);
        self.write_set.changes.artifacts.extend(files.map(|files| (input_files(key), files)));
        self.follow_workflow(key, change);
        if workflow.group.is_some() {
            // It may have its place already.
            self.follow_up(now)?;
        }
        let workflow = self.write_set.workflows.workflow(key).cloned().unwrap_or(workflow);
        Ok(Ok(Reply::Workflow { workflow: Arc::new(workflow), created: true }.into()))
    }

    /// Takes in that an ended workflow runs again, as another one.
    fn note_rerun(&mut self, earlier: &WorkflowScopedId, rerun: WorkflowId) -> Result<(), Error> {
        let Some(key) = self.find_workflow(earlier)? else { return Ok(()) };
        self.load_workflow(key)?;
        let set = &mut self.write_set.workflows;
        if let Some(Some(entry)) = set.records.get_mut(&key) {
            entry.workflow.rerun = Some(rerun);
            set.change_workflow(key);
        }
        Ok(())
    }

    pub(super) fn find_workflow(&mut self, id: &WorkflowScopedId) -> Result<Option<WorkflowKey>, Error> {
        if !self.write_set.workflows.ids.contains_key(id) {
            let workflows = WorkflowLoad { ids: vec![id.clone()], ..WorkflowLoad::default() };
            self.fetch(&Load { workflows, ..Load::default() })?;
        }
        Ok(self.write_set.workflows.ids.get(id).copied().flatten())
    }

    pub(super) fn load_workflow(&mut self, key: WorkflowKey) -> Result<(), Error> {
        self.load_steps([(key, WORKFLOW_MEMBER)])
    }

    /// Loads a step and its workflow, in one call.
    pub(super) fn load_step(&mut self, key: StepKey) -> Result<(), Error> {
        self.load_steps([key])
    }

    /// Loads steps and their workflows, in one call. One with [`WORKFLOW_MEMBER`] as index is the workflow alone.
    pub(super) fn load_steps(&mut self, keys: impl IntoIterator<Item = StepKey>) -> Result<(), Error> {
        let set = &self.write_set.workflows;
        let mut wanted = WorkflowLoad::default();
        for key in keys {
            if !set.records.contains_key(&key.0) {
                wanted.keys.push(key.0);
            }
            if key.1 != WORKFLOW_MEMBER && !set.steps.contains_key(&key) {
                wanted.steps.push(key);
            }
        }
        wanted.deduplicate();
        self.fetch(&Load { workflows: wanted, ..Load::default() }).map(drop)
    }

    pub(super) fn apply_workflow(
        &mut self,
        key: WorkflowKey,
        command: workflow::Command,
        now: Timestamp,
    ) -> Result<(), Rejected> {
        let command = self.with_away(key, command, now);
        let Some(Some(entry)) = self.write_set.workflows.records.get_mut(&key) else {
            return Err(Rejected::Outdated);
        };
        let had_ended = entry.workflow.state.is_final();
        let change = entry.workflow.apply(command, now)?;
        let ends = !had_ended && entry.workflow.state.is_final();
        self.write_set.workflows.ended.extend(ends.then_some(key));
        self.write_set.workflows.change_workflow(key);
        self.follow_workflow(key, change);
        Ok(())
    }

    /// Executes a command on a step.
    pub(super) fn apply_step(
        &mut self,
        key: StepKey,
        command: StepCommand,
        now: Timestamp,
    ) -> Result<Result<(), Rejected>, Error> {
        self.load_step(key)?;
        let set = &mut self.write_set.workflows;
        let (Some(Some(entry)), Some(Some(step))) = (set.records.get_mut(&key.0), set.steps.get_mut(&key))
        else {
            return Ok(Err(Rejected::Outdated));
        };
        let (had_ended, asked) = (entry.workflow.state.is_final(), step.step.awaits_decision());
        // One that the batch has changed already is written anyway.
        let before = (!entry.changed).then(|| entry.workflow.clone());
        let change = match entry.workflow.apply_to(&mut step.step, command, now) {
            Err(rejected) => return Ok(Err(rejected)),
            Ok(change) => change,
        };
        let ends = !had_ended && entry.workflow.state.is_final();
        let changes = before.is_some_and(|before| entry.workflow != before);
        set.asking.extend((!asked && step.step.awaits_decision()).then_some(key));
        set.ended.extend(ends.then_some(key.0));
        if changes {
            set.change_workflow(key.0);
        }
        set.change_step(key);
        self.follow_workflow(key.0, change);
        Ok(Ok(()))
    }

    /// Executes the commands on steps that follow from the last command.
    pub(super) fn call_steps(&mut self, now: Timestamp) -> Result<(), Error> {
        while !self.write_set.workflows.calls.is_empty() {
            let calls = std::mem::take(&mut self.write_set.workflows.calls);
            self.load_steps(calls.iter().map(|(key, _)| *key))?;
            for (key, command) in calls {
                // One that no longer applies is dropped.
                let _ = self.apply_step(key, command, now)?;
            }
        }
        Ok(())
    }

    pub(super) fn follow_workflow(&mut self, workflow: WorkflowKey, change: Change) {
        // Its rows are not there yet: the next commit finds them.
        let is_new = self.write_set.workflows.has_new_rows(workflow);
        for follow in change.follow {
            let set = &mut self.write_set.workflows;
            let tasks = |hold| FollowUp::StepTasks { workflow, after: None, hold, only: None };
            let follow_up = match follow {
                Follow::Ended { step } => FollowUp::StepEnded { workflow, step, from: 0 },
                Follow::Release => {
                    set.releasing.insert(workflow);
                    continue;
                }
                Follow::Halt => FollowUp::HaltSteps { workflow, from: 0 },
                Follow::CancelTasks => tasks(TaskHold::Cancel),
                Follow::CancelStep { step } => {
                    let after = step.checked_sub(1).map(|before| (before, u32::MAX, u32::MAX));
                    FollowUp::StepTasks { workflow, after, hold: TaskHold::Cancel, only: Some(step) }
                }
                Follow::Join { step } => {
                    self.join_group(workflow, step);
                    continue;
                }
                Follow::Leave { step } => {
                    self.leave_group(workflow, step);
                    continue;
                }
                Follow::DecidedByDefault { step, approves } => {
                    self.put_output((workflow, step), Some(Bytes::from_static(default_decision(approves))));
                    continue;
                }
                Follow::ResumeSteps => FollowUp::ResumeSteps { workflow, from: 0 },
                Follow::SuspendTasks => tasks(TaskHold::Suspend),
                Follow::ResumeTasks => tasks(TaskHold::Resume),
                Follow::Compensate { step } => {
                    set.calls.push_back(((workflow, step), StepCommand::Compensate));
                    continue;
                }
                Follow::Nested { command, only } => FollowUp::Nested { workflow, command, only, after: None },
                Follow::EndedAsStep => {
                    self.ended_as_step(workflow);
                    continue;
                }
                Follow::Remove => FollowUp::RemoveWorkflow { workflow, after: None },
            };
            if is_new {
                self.write_set.pending.finish(None, Some(follow_up));
            } else {
                self.write_set.pending.push(follow_up);
            }
        }
    }

    /// Takes in the end of a task of a step.
    pub(super) fn step_task_ended(&mut self, step: &StepRef, state: State) {
        let end = match state {
            State::Succeeded => TaskEnd::Succeeded,
            State::Cancelled => TaskEnd::Cancelled,
            _ => TaskEnd::Failed,
        };
        let command = StepCommand::TaskEnded { round: step.round, end };
        self.write_set.workflows.calls.push_back(((step.workflow, step.step), command));
    }

    /// Applies the deadlines of workflows and steps that have passed. Returns their number.
    pub(super) fn tick_workflows(&mut self, by: Timestamp, now: Timestamp) -> Result<usize, Error> {
        let (workflows, steps) = self.write_set.workflows.due.take().unwrap_or_default();
        let count = workflows.len() + steps.len();
        self.load_steps(workflows.iter().map(|key| (*key, WORKFLOW_MEMBER)).chain(steps.iter().copied()))?;
        for key in workflows {
            let _ = self.apply_workflow(key, workflow::Command::Tick { by, away: Duration::ZERO }, now);
        }
        self.follow_up(now)?;
        for key in steps {
            let away = self.away_of_step(key, now);
            let ticked = self.apply_step(key, StepCommand::Tick { by, away }, now)?;
            let is_stranded = ticked.is_err() && self.write_set.workflows.workflow(key.0).is_none();
            self.write_set.workflows.stranded.extend(is_stranded.then_some(key));
        }
        self.follow_up(now)?;
        Ok(count)
    }

    /// Begins the removal of workflows whose retention is over. Returns their number.
    pub(super) fn prune_workflows(&mut self, limit: usize, now: Timestamp) -> Result<usize, Error> {
        let mut expired = std::mem::take(&mut self.write_set.workflows.expired);
        expired.truncate(limit);
        let count = expired.len();
        self.load_steps(expired.iter().map(|key| (*key, WORKFLOW_MEMBER)))?;
        for key in expired {
            let _ = self.apply_workflow(key, workflow::Command::Delete, now);
        }
        self.follow_up(now)?;
        Ok(count)
    }
}
