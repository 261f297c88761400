//! Workflows and steps that a batch has read or changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::workflow::{self, NestedCommand, Rejected, Step, StepCommand, Workflow};
use rota_core::{WorkflowId, WorkflowKey};
use rustc_hash::FxHashMap;

use super::groups::GroupEntry;
use crate::{
    Commit, GroupKey, GroupMember, NameKey, Refused, Removal, StepKey, TaskPlace, WorkflowChanges,
    WorkflowLoad, WorkflowLoaded, WorkflowScopedId,
};

#[derive(Debug)]
pub(super) struct WorkflowEntry {
    pub(super) workflow: Workflow,
    /// The spec and the idempotency key of a new one.
    pub(super) new: Option<(Bytes, Option<String>)>,
    pub(super) changed: bool,
}

#[derive(Debug)]
pub(super) struct StepEntry {
    pub(super) step: Step,
    /// The spec of a new one.
    pub(super) new: Option<Bytes>,
    pub(super) changed: bool,
}

/// Workflows and steps in a batch: `None` for one that does not exist.
#[derive(Debug, Default)]
pub(super) struct WorkflowSet {
    pub(super) records: FxHashMap<WorkflowKey, Option<WorkflowEntry>>,
    pub(super) ids: HashMap<WorkflowScopedId, Option<WorkflowKey>>,
    pub(super) names: HashMap<NameKey, Option<WorkflowKey>>,
    pub(super) steps: FxHashMap<StepKey, Option<StepEntry>>,
    /// Workflows and steps whose record cannot be decoded, with the reason.
    pub(super) damaged: BTreeMap<WorkflowKey, (WorkflowId, String)>,
    pub(super) damaged_steps: BTreeMap<StepKey, String>,
    /// Changed records, in order of their first change.
    order: Vec<WorkflowKey>,
    /// Workflows that have ended in the batch.
    pub(super) ended: Vec<WorkflowKey>,
    step_order: Vec<StepKey>,
    /// Steps that began to wait for a person in the batch.
    pub(super) asking: Vec<StepKey>,
    /// Commands on steps that follow from the last command.
    pub(super) calls: VecDeque<(StepKey, StepCommand)>,
    /// Costs of tasks that count for the budgets of their workflows, since the last command.
    pub(super) spent: Vec<(WorkflowKey, i64)>,
    /// Workflows that may have room for held steps: the end of the batch looks at those of each, once.
    pub(super) releasing: BTreeSet<WorkflowKey>,
    pub(super) groups: HashMap<GroupKey, GroupEntry>,
    /// Members of groups that the batch has changed.
    pub(super) members: BTreeMap<(GroupKey, StepKey), Option<GroupMember>>,
    /// Groups whose members the batch will admit.
    pub(super) admitting: HashSet<GroupKey>,
    /// Places of a workflow and its steps in groups, as loaded.
    pub(super) memberships: Vec<(GroupKey, StepKey)>,
    /// What is due; `None` if not loaded.
    pub(super) due: Option<(Vec<WorkflowKey>, Vec<StepKey>)>,
    /// Due steps without a workflow that can be decoded: they would be due again in every tick.
    pub(super) stranded: Vec<StepKey>,
    /// Workflows whose retention is over.
    pub(super) expired: Vec<WorkflowKey>,
    /// Workflows to which the batch has added steps, whose rows the next commit finds.
    pub(super) extended: HashSet<WorkflowKey>,
    pub(super) changes: WorkflowChanges,
    /// Records that are removed, for those who follow the commits.
    removed: Vec<Arc<Workflow>>,
}

impl WorkflowSet {
    pub(super) fn workflow(&self, key: WorkflowKey) -> Option<&Workflow> {
        self.records.get(&key)?.as_ref().map(|entry| &entry.workflow)
    }

    pub(super) fn step(&self, key: StepKey) -> Option<&Step> {
        self.steps.get(&key)?.as_ref().map(|entry| &entry.step)
    }

    /// Returns the workflow around a known one, if the costs of that count for it too.
    pub(super) fn counting_around(&self, key: WorkflowKey) -> Option<WorkflowKey> {
        let place = &self.workflow(key)?.parent.as_ref()?.step;
        place.counts_cost.then_some(place.workflow)
    }

    /// Whether the batch has created a workflow, or added steps to it: their rows are not there yet.
    pub(super) fn has_new_rows(&self, key: WorkflowKey) -> bool {
        let record = self.records.get(&key);
        matches!(record, Some(Some(WorkflowEntry { new: Some(_), .. }))) || self.extended.contains(&key)
    }

    /// Returns the places of the workflows of some steps of a workflow that a command concerns.
    pub(super) fn nested_places<'a>(
        &'a self,
        workflow: WorkflowKey,
        steps: &'a [u32],
        command: NestedCommand,
    ) -> impl Iterator<Item = TaskPlace> + 'a {
        let of_step = move |step: &'a u32| {
            let key = (workflow, *step);
            let known = self.step(key);
            let is_concerned = match known {
                Some(known) => command == NestedCommand::Remove || known.state.is_active(),
                None => self.damaged_steps.contains_key(&key),
            };
            let places = is_concerned.then(|| workflow::nested_places(known, command));
            places.into_iter().flatten().map(move |(round, item)| (*step, round, item))
        };
        steps.iter().flat_map(of_step)
    }

    /// Returns the reply to a command that was rejected: that a record is damaged, if one is.
    pub(super) fn refusal(&self, key: WorkflowKey, step: Option<u32>, rejected: Rejected) -> Refused {
        let workflow = self.damaged.get(&key).map(|(id, reason)| (format!("workflow {id}"), reason));
        let of_step = |step| Some((format!("step {step}"), self.damaged_steps.get(&(key, step))?));
        match workflow.or_else(|| step.and_then(of_step)) {
            Some((what, reason)) => Refused::Corrupt { what, reason: reason.clone() },
            None => Refused::Workflow(rejected),
        }
    }

    pub(super) fn change_workflow(&mut self, key: WorkflowKey) {
        if let Some(Some(entry)) = self.records.get_mut(&key)
            && !std::mem::replace(&mut entry.changed, true)
        {
            self.order.push(key);
        }
    }

    pub(super) fn change_step(&mut self, key: StepKey) {
        if let Some(Some(entry)) = self.steps.get_mut(&key)
            && !std::mem::replace(&mut entry.changed, true)
        {
            self.step_order.push(key);
        }
    }

    /// Removes a workflow with its steps.
    pub(super) fn remove(&mut self, key: WorkflowKey) {
        if let Some(Some(entry)) = self.records.insert(key, None) {
            self.removed.push(Arc::new(Workflow { deleted: true, ..entry.workflow }));
        }
        self.steps.retain(|(workflow, _), _| *workflow != key);
        self.changes.removed.push(key);
    }

    /// Removes rows of the steps of a workflow, which has ended.
    pub(super) fn remove_rows(&mut self, key: WorkflowKey, rows: Removal) {
        self.steps.retain(|(workflow, _), _| *workflow != key);
        self.changes.outputs.retain(|((workflow, _), _)| *workflow != key);
        self.changes.removed_rows.push((key, rows));
    }

    /// Takes in the rows of a load.
    pub(super) fn learn(&mut self, load: &WorkflowLoad, loaded: &mut WorkflowLoaded) {
        for (id, row) in loaded.ids.drain(..) {
            self.ids.entry(id).or_insert(Some(row.key));
            loaded.workflows.push(row);
        }
        for row in loaded.workflows.drain(..) {
            let entry = match row.workflow {
                Ok(workflow) => Some(WorkflowEntry { workflow, new: None, changed: false }),
                Err(reason) => {
                    self.damaged.insert(row.key, (row.id, reason));
                    None
                }
            };
            self.records.entry(row.key).or_insert(entry);
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
        let of_pages = loaded.held.drain(..).chain(loaded.active.drain(..)).flatten();
        let dependents = loaded.dependents.drain(..).flatten().map(|(row, _)| row);
        for row in loaded.steps.drain(..).chain(of_pages).chain(dependents) {
            let entry = match row.step {
                Ok(step) => Some(StepEntry { new: None, changed: false, step }),
                Err(reason) => {
                    self.damaged_steps.insert(row.key, reason);
                    None
                }
            };
            self.steps.entry(row.key).or_insert(entry);
        }
        for key in &load.steps {
            self.steps.entry(*key).or_insert(None);
        }
        for (group, members) in load.groups.iter().zip(loaded.groups.drain(..)) {
            // With what the batch has changed before it read them.
            let of_group = |key: StepKey| (group.clone(), key);
            let first = of_group((WorkflowKey(0), 0));
            let changed = self.members.range(first..=of_group((WorkflowKey(u64::MAX), u32::MAX)));
            let changed = changed.map(|((_, key), member)| (*key, *member));
            self.groups.entry(group.clone()).or_insert_with(|| GroupEntry::new(&members, changed));
        }
        if load.due.is_some() {
            let due = (std::mem::take(&mut loaded.due_workflows), std::mem::take(&mut loaded.due_steps));
            self.due = Some(due);
        }
        self.memberships.append(&mut loaded.memberships);
        self.expired.append(&mut loaded.expired);
    }

    /// Turns the batch's changes into what is written and published.
    pub(super) fn flush(&mut self, commit: &mut Commit) -> WorkflowChanges {
        let mut changes = std::mem::take(&mut self.changes);
        self.extended.clear();
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
            let Some(Some(StepEntry { step, new, .. })) = self.steps.remove(&key) else { continue };
            let step = Arc::new(step);
            match new {
                Some(spec) => changes.new_steps.push((Arc::clone(&step), spec)),
                None => changes.steps.push(Arc::clone(&step)),
            }
            commit.steps.push(step);
        }
        commit.workflows.append(&mut self.removed);
        commit.workflows_ended.append(&mut self.ended);
        commit.steps_asking.append(&mut self.asking);
        let members = std::mem::take(&mut self.members).into_iter();
        changes.members.extend(members.map(|((group, key), member)| (group, key, member)));
        commit.removed_workflows.extend_from_slice(&changes.removed);
        let removed: HashSet<_> = changes.removed.iter().copied().collect();
        changes.outputs.retain(|((workflow, _), _)| !removed.contains(workflow));
        changes
    }
}
