//! Workflows: commands on them and on their steps, and the tasks that the driver creates for them. The rules are those of
//! `rota_core::workflow`; what follows for other steps is in `workflow_visits`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::task::State;
use rota_core::workflow::{
    self, COMPENSATION, Change, Follow, Rejected, Step, StepCommand, StepRef, TaskEnd, Workflow,
};
use rota_core::{Timestamp, WorkflowKey};
use rustc_hash::FxHashMap;

use super::{Answer, Engine};
use crate::{
    Action, Backend, Command, Commit, Create, CreateWorkflow, Error, FollowUp, Load, NameKey, Refused, Reply,
    StepKey, TaskHold, WORKFLOW_OUTPUT, WorkflowChanges, WorkflowCommand, WorkflowLoad, WorkflowLoaded,
    WorkflowScopedId,
};

#[derive(Debug)]
pub(super) struct WorkflowEntry {
    pub(super) workflow: Workflow,
    /// The spec and the idempotency key of a new one.
    pub(super) new: Option<(Bytes, Option<String>)>,
    changed: bool,
}

#[derive(Debug)]
pub(super) struct StepEntry {
    pub(super) step: Step,
    /// The spec of a new one.
    new: Option<Bytes>,
    changed: bool,
}

/// Workflows and steps in a batch: `None` for one that does not exist.
#[derive(Debug, Default)]
pub(super) struct WorkflowSet {
    pub(super) records: FxHashMap<WorkflowKey, Option<WorkflowEntry>>,
    ids: HashMap<WorkflowScopedId, Option<WorkflowKey>>,
    names: HashMap<NameKey, Option<WorkflowKey>>,
    pub(super) steps: FxHashMap<StepKey, Option<StepEntry>>,
    /// Changed records, in order of their first change.
    order: Vec<WorkflowKey>,
    step_order: Vec<StepKey>,
    /// Commands on steps that follow from the last command.
    pub(super) calls: VecDeque<(StepKey, StepCommand)>,
    /// Workflows whose held steps the batch will look at.
    pub(super) releasing: HashSet<WorkflowKey>,
    /// What is due; `None` if not loaded.
    due: Option<(Vec<WorkflowKey>, Vec<StepKey>)>,
    /// Workflows whose retention is over.
    pub(super) expired: Vec<WorkflowKey>,
    pub(super) changes: WorkflowChanges,
}

impl WorkflowSet {
    pub(super) fn workflow(&self, key: WorkflowKey) -> Option<&Workflow> {
        self.records.get(&key)?.as_ref().map(|entry| &entry.workflow)
    }

    pub(super) fn step(&self, key: StepKey) -> Option<&Step> {
        self.steps.get(&key)?.as_ref().map(|entry| &entry.step)
    }

    fn change_workflow(&mut self, key: WorkflowKey) {
        if let Some(Some(entry)) = self.records.get_mut(&key)
            && !std::mem::replace(&mut entry.changed, true)
        {
            self.order.push(key);
        }
    }

    fn change_step(&mut self, key: StepKey) {
        if let Some(Some(entry)) = self.steps.get_mut(&key)
            && !std::mem::replace(&mut entry.changed, true)
        {
            self.step_order.push(key);
        }
    }

    /// Removes a workflow with its steps.
    pub(super) fn remove(&mut self, key: WorkflowKey) {
        self.records.insert(key, None);
        self.steps.retain(|(workflow, _), _| *workflow != key);
        self.changes.removed.push(key);
    }

    /// Takes in the rows of a load.
    pub(super) fn learn(&mut self, load: &WorkflowLoad, loaded: &mut WorkflowLoaded) {
        for workflow in loaded.workflows.drain(..).flatten() {
            let (key, id) = (workflow.key, (workflow.namespace.clone(), workflow.id));
            let entry = WorkflowEntry { workflow, new: None, changed: false };
            self.records.entry(key).or_insert(Some(entry));
            self.ids.entry(id).or_insert(Some(key));
        }
        let found: HashMap<_, _> = loaded.names.drain(..).collect();
        for name in &load.names {
            self.names.entry(name.clone()).or_insert_with(|| found.get(name).copied());
        }
        for key in &load.keys {
            self.records.entry(*key).or_insert(None);
        }
        for id in &load.ids {
            self.ids.entry(id.clone()).or_insert(None);
        }
        let of_pages = loaded.held.iter_mut().chain(&mut loaded.active).flat_map(|page| page.iter());
        let of_pages: Vec<_> = of_pages.flatten().cloned().collect();
        let dependents: Vec<_> =
            loaded.dependents.iter().flatten().filter_map(|(step, _)| step.as_ref().ok()).cloned().collect();
        for step in loaded.steps.drain(..).flatten().chain(of_pages).chain(dependents) {
            let entry = StepEntry { new: None, changed: false, step };
            self.steps.entry((entry.step.workflow, entry.step.index)).or_insert(Some(entry));
        }
        for key in &load.steps {
            self.steps.entry(*key).or_insert(None);
        }
        if load.due.is_some() {
            let due = (std::mem::take(&mut loaded.due_workflows), std::mem::take(&mut loaded.due_steps));
            self.due = Some(due);
        }
        self.expired.append(&mut loaded.expired);
    }

    /// Turns the batch's changes into what is written and published.
    pub(super) fn flush(&mut self, commit: &mut Commit) -> WorkflowChanges {
        let mut changes = std::mem::take(&mut self.changes);
        for key in std::mem::take(&mut self.order) {
            let Some(Some(entry)) = self.records.get_mut(&key) else { continue };
            let workflow = Arc::new(entry.workflow.clone());
            match entry.new.take() {
                Some((spec, name)) => changes.inserted.push((Arc::clone(&workflow), spec, name)),
                None => changes.updated.push(Arc::clone(&workflow)),
            }
            commit.workflows.push(workflow);
        }
        for key in std::mem::take(&mut self.step_order) {
            let Some(Some(entry)) = self.steps.get_mut(&key) else { continue };
            let step = Arc::new(entry.step.clone());
            match entry.new.take() {
                Some(spec) => changes.new_steps.push((Arc::clone(&step), spec)),
                None => changes.steps.push(Arc::clone(&step)),
            }
            commit.steps.push(step);
        }
        let removed: HashSet<_> = changes.removed.iter().copied().collect();
        changes.outputs.retain(|((workflow, _), _)| !removed.contains(workflow));
        changes
    }
}

impl<B: Backend> Engine<B> {
    /// Adds what a command on a workflow needs.
    pub(super) fn collect_workflow(&self, command: &WorkflowCommand, load: &mut Load) {
        for create in command.tasks() {
            self.collect_create(create, load);
        }
        let wanted = &mut load.workflows;
        match command {
            WorkflowCommand::Create(create) => {
                let namespace = &create.workflow.namespace;
                wanted.names.extend(create.key.as_ref().map(|key| (namespace.clone(), key.clone())));
                if create.foreign_id {
                    wanted.ids.push((namespace.clone(), create.workflow.id));
                }
            }
            WorkflowCommand::Apply { namespace, id, .. } | WorkflowCommand::Step { namespace, id, .. } => {
                wanted.ids.push((namespace.clone(), *id));
            }
            WorkflowCommand::Drive { workflow, step, .. } => {
                wanted.keys.push(*workflow);
                wanted.steps.push((*workflow, *step));
            }
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
        match command {
            WorkflowCommand::Create(create) => self.create_workflow(*create, now),
            WorkflowCommand::Apply { namespace, id, command } => {
                let Some(key) = self.find_workflow(&(namespace, id))? else {
                    return Ok(Err(Refused::NoWorkflow(id)));
                };
                Ok(match self.apply_workflow(key, command, now) {
                    Err(rejected) => Err(Refused::Workflow(rejected)),
                    Ok(()) => self.workflow_reply(key),
                })
            }
            WorkflowCommand::Step { namespace, id, step, command, output } => {
                let Some(key) = self.find_workflow(&(namespace, id))? else {
                    return Ok(Err(Refused::NoWorkflow(id)));
                };
                let step = (key, step);
                if let Err(rejected) = self.apply_step(step, command, now)? {
                    return Ok(Err(Refused::Workflow(rejected)));
                }
                self.put_output(step, output);
                let step = self.write_set.workflows.step(step).cloned();
                let step = step.ok_or(Refused::NoWorkflow(id));
                Ok(step.map(|step| Reply::Step(Arc::new(step)).into()))
            }
            WorkflowCommand::Drive { workflow, step, action } => {
                let driven = self.drive((workflow, step), *action, now)?;
                Ok(driven.map(|()| Reply::Deleted.into()).map_err(Refused::Workflow))
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
        let workflow = workflow.ok_or(Refused::Workflow(Rejected::Outdated))?;
        Ok(Reply::Workflow { workflow: Arc::new(workflow), created: false }.into())
    }

    fn create_workflow(
        &mut self,
        create: CreateWorkflow,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let CreateWorkflow { mut workflow, spec, mut steps, key: name, foreign_id } = create;
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
        let key = WorkflowKey(self.write_set.next_revision());
        workflow.key = key;
        let mut records: Vec<_> = steps.iter().map(|new| new.step.clone()).collect();
        let change = workflow.begin(&mut records, now);
        let set = &mut self.write_set.workflows;
        for (step, new) in records.into_iter().zip(&mut steps) {
            let index = step.index;
            let step = Step { workflow: key, ..step };
            let edges = new.needs.iter().map(|need| ((key, need.step), index, need.goes_on));
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
        self.follow_workflow(key, change);
        Ok(Ok(Reply::Workflow { workflow: Arc::new(workflow), created: true }.into()))
    }

    fn find_workflow(&mut self, id: &WorkflowScopedId) -> Result<Option<WorkflowKey>, Error> {
        if !self.write_set.workflows.ids.contains_key(id) {
            let workflows = WorkflowLoad { ids: vec![id.clone()], ..WorkflowLoad::default() };
            self.fetch(&Load { workflows, ..Load::default() })?;
        }
        Ok(self.write_set.workflows.ids.get(id).copied().flatten())
    }

    pub(super) fn load_workflow(&mut self, key: WorkflowKey) -> Result<(), Error> {
        if self.write_set.workflows.records.contains_key(&key) {
            return Ok(());
        }
        let workflows = WorkflowLoad { keys: vec![key], ..WorkflowLoad::default() };
        self.fetch(&Load { workflows, ..Load::default() }).map(drop)
    }

    /// Loads a step and its workflow, in one call.
    pub(super) fn load_step(&mut self, key: StepKey) -> Result<(), Error> {
        let set = &self.write_set.workflows;
        let mut wanted = WorkflowLoad::default();
        if !set.records.contains_key(&key.0) {
            wanted.keys.push(key.0);
        }
        if !set.steps.contains_key(&key) {
            wanted.steps.push(key);
        }
        self.fetch(&Load { workflows: wanted, ..Load::default() }).map(drop)
    }

    pub(super) fn apply_workflow(
        &mut self,
        key: WorkflowKey,
        command: workflow::Command,
        now: Timestamp,
    ) -> Result<(), Rejected> {
        let Some(Some(entry)) = self.write_set.workflows.records.get_mut(&key) else {
            return Err(Rejected::Outdated);
        };
        let change = entry.workflow.apply(command, now)?;
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
        let before = entry.workflow.clone();
        let change = match entry.workflow.apply_to(&mut step.step, command, now) {
            Err(rejected) => return Ok(Err(rejected)),
            Ok(change) => change,
        };
        if entry.workflow != before {
            set.change_workflow(key.0);
        }
        set.change_step(key);
        self.follow_workflow(key.0, change);
        Ok(Ok(()))
    }

    /// Executes the commands on steps that follow from the last command.
    pub(super) fn call_steps(&mut self, now: Timestamp) -> Result<(), Error> {
        while let Some((key, command)) = self.write_set.workflows.calls.pop_front() {
            // One that no longer applies is dropped.
            let _ = self.apply_step(key, command, now)?;
        }
        Ok(())
    }

    fn follow_workflow(&mut self, workflow: WorkflowKey, change: Change) {
        let set = &mut self.write_set.workflows;
        // Its rows are not there yet: the next commit finds them.
        let is_new = matches!(set.records.get(&workflow), Some(Some(WorkflowEntry { new: Some(_), .. })));
        for follow in change.follow {
            let tasks = |hold| FollowUp::StepTasks { workflow, after: None, hold };
            let follow_up = match follow {
                Follow::Ended { step } => FollowUp::StepEnded { workflow, step, from: 0 },
                Follow::Release if set.releasing.insert(workflow) => FollowUp::ReleaseSteps { workflow },
                Follow::Release => continue,
                Follow::Halt => FollowUp::HaltSteps { workflow, from: 0 },
                Follow::CancelTasks => tasks(TaskHold::Cancel),
                Follow::SuspendTasks => tasks(TaskHold::Suspend),
                Follow::ResumeTasks => tasks(TaskHold::Resume),
                Follow::Compensate { step } => {
                    set.calls.push_back(((workflow, step), StepCommand::Compensate));
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

    fn put_output(&mut self, key: StepKey, output: Option<Bytes>) {
        let Some(output) = output else { return };
        let set = &mut self.write_set.workflows;
        if let Some(Some(entry)) = set.steps.get_mut(&key) {
            entry.step.has_output = true;
        }
        set.changes.outputs.push((key, output));
    }

    fn drive(&mut self, key: StepKey, action: Action, now: Timestamp) -> Result<Result<(), Rejected>, Error> {
        match action {
            Action::Skip => self.apply_step(key, StepCommand::Skip, now),
            Action::Start { round, total, parallel, prompt, tasks } => {
                let start = StepCommand::Start { round, total, parallel, prompt };
                if let Err(rejected) = self.apply_step(key, start, now)? {
                    return Ok(Err(rejected));
                }
                self.create_tasks(key, tasks, now)
            }
            Action::More { round, created, tasks } => {
                self.load_step(key)?;
                let step = self.write_set.workflows.step(key);
                let is_current = |step: &Step| step.round == round && step.created == created;
                if !step.is_some_and(is_current) {
                    return Ok(Err(Rejected::Outdated));
                }
                self.create_tasks(key, tasks, now)
            }
            Action::Finish { round, again, outputs } => {
                if let Err(rejected) = self.apply_step(key, StepCommand::Finish { round, again }, now)? {
                    return Ok(Err(rejected));
                }
                self.put_output(key, outputs);
                Ok(Ok(()))
            }
            Action::Fail { round, message } => {
                self.apply_step(key, StepCommand::Fail { round, message }, now)
            }
            Action::CompensationFailed { message } => {
                self.apply_step(key, StepCommand::CompensationFailed { message }, now)
            }
            Action::Compensate(create) => {
                if let Err(rejected) = self.apply_step(key, StepCommand::CompensationCreated, now)? {
                    return Ok(Err(rejected));
                }
                let failed = StepCommand::TaskEnded { round: COMPENSATION, end: TaskEnd::Failed };
                self.create_task(key, *create, failed, now)?;
                Ok(Ok(()))
            }
        }
    }

    /// Creates tasks of a step that runs, as many as it wants.
    fn create_tasks(
        &mut self,
        key: StepKey,
        mut tasks: Vec<Create>,
        now: Timestamp,
    ) -> Result<Result<(), Rejected>, Error> {
        let Some(step) = self.write_set.workflows.step(key) else { return Ok(Err(Rejected::Outdated)) };
        tasks.truncate(step.wanted() as usize);
        let round = step.round;
        let Ok(count @ 1..) = u32::try_from(tasks.len()) else { return Ok(Ok(())) };
        // Before the first of them may end.
        if let Err(rejected) = self.apply_step(key, StepCommand::Created { count }, now)? {
            return Ok(Err(rejected));
        }
        for create in tasks {
            self.create_task(key, create, StepCommand::TaskEnded { round, end: TaskEnd::Failed }, now)?;
        }
        Ok(Ok(()))
    }

    /// Creates a task of a step; one that is refused counts as failed.
    fn create_task(
        &mut self,
        key: StepKey,
        create: Create,
        refused: StepCommand,
        now: Timestamp,
    ) -> Result<(), Error> {
        let id = create.task.id;
        match self.create(create, now)? {
            Ok(_) => {
                if let Some(Some(entry)) = self.write_set.workflows.steps.get_mut(&key) {
                    entry.step.last_task = Some(id);
                }
            }
            Err(why) => {
                if let Some(Some(entry)) = self.write_set.workflows.steps.get_mut(&key) {
                    entry.step.message = format!("a task was refused: {why}");
                }
                self.write_set.workflows.calls.push_back((key, refused));
            }
        }
        Ok(())
    }

    /// Applies the deadlines of workflows and steps that have passed. Returns their number.
    pub(super) fn tick_workflows(&mut self, now: Timestamp) -> Result<usize, Error> {
        let (workflows, steps) = self.write_set.workflows.due.take().unwrap_or_default();
        let count = workflows.len() + steps.len();
        for key in workflows {
            self.load_workflow(key)?;
            let _ = self.apply_workflow(key, workflow::Command::Tick, now);
            self.follow_up(now)?;
        }
        for key in steps {
            let _ = self.apply_step(key, StepCommand::Tick, now)?;
            self.follow_up(now)?;
        }
        Ok(count)
    }

    /// Begins the removal of workflows whose retention is over. Returns their number.
    pub(super) fn prune_workflows(&mut self, now: Timestamp) -> Result<usize, Error> {
        let expired = std::mem::take(&mut self.write_set.workflows.expired);
        let count = expired.len();
        for key in expired {
            self.load_workflow(key)?;
            let _ = self.apply_workflow(key, workflow::Command::Delete, now);
        }
        self.follow_up(now)?;
        Ok(count)
    }
}

impl From<WorkflowCommand> for Command {
    fn from(command: WorkflowCommand) -> Self {
        Self::Workflow(Box::new(command))
    }
}
