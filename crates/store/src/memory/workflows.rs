//! Workflows in memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use rota_core::workflow::{State, Step, StepState, Workflow};
use rota_core::{TaskKey, Timestamp, WorkflowKey};

use super::Contents;
use crate::{
    GROUP_WINDOW, GroupKey, GroupMember, NameKey, Removal, RemovalPage, StepKey, StepPage, StepRow,
    StepTasksPage, TaskRow, WORKFLOW_MEMBER, WORKFLOW_OUTPUT, WorkflowChanges, WorkflowLoad, WorkflowLoaded,
    WorkflowQuery, WorkflowRows, place_of, stored_end,
};

#[derive(Debug, Clone, Default)]
pub(super) struct Workflows {
    records: BTreeMap<WorkflowKey, Workflow>,
    specs: HashMap<WorkflowKey, Bytes>,
    names: HashMap<NameKey, WorkflowKey>,
    steps: BTreeMap<StepKey, Step>,
    step_specs: HashMap<StepKey, Bytes>,
    /// Steps that need a step, with whether they run although it has not succeeded.
    edges: BTreeMap<(StepKey, u32), bool>,
    outputs: HashMap<StepKey, Bytes>,
    members: BTreeMap<(GroupKey, StepKey), GroupMember>,
}

impl Workflows {
    pub(super) fn write(&mut self, changes: &WorkflowChanges) {
        for (workflow, spec, name) in &changes.inserted {
            self.records.insert(workflow.key, Workflow::clone(workflow));
            self.specs.insert(workflow.key, spec.clone());
            if let Some(name) = name {
                self.names.insert((workflow.namespace.clone(), name.clone()), workflow.key);
            }
        }
        for workflow in &changes.updated {
            self.records.insert(workflow.key, Workflow::clone(workflow));
        }
        for (step, spec) in &changes.new_steps {
            self.step_specs.insert((step.workflow, step.index), spec.clone());
        }
        for step in changes.new_steps.iter().map(|(step, _)| step).chain(&changes.steps) {
            self.steps.insert((step.workflow, step.index), Step::clone(step));
        }
        self.edges.extend(
            changes.edges.iter().map(|(step, dependent, continues)| ((*step, *dependent), *continues)),
        );
        self.outputs.extend(changes.outputs.iter().cloned());
        for (group, key, member) in &changes.members {
            match member {
                Some(member) => self.members.insert((group.clone(), *key), *member),
                None => self.members.remove(&(group.clone(), *key)),
            };
        }
        for (key, part) in &changes.removed_rows {
            let is_left = |last: Option<u32>, (workflow, step): &StepKey| {
                workflow != key || last.is_none_or(|last| *step > last)
            };
            self.outputs.retain(|step, _| is_left(part.outputs, step));
            self.edges.retain(|((workflow, step), dependent), _| {
                workflow != key || part.edges.is_none_or(|last| (*step, *dependent) > last)
            });
            self.steps.retain(|step, _| is_left(part.steps, step));
            self.step_specs.retain(|step, _| is_left(part.steps, step));
        }
        for key in &changes.removed {
            self.records.remove(key);
            self.specs.remove(key);
            self.names.retain(|_, named| named != key);
            self.steps.retain(|(workflow, _), _| workflow != key);
            self.step_specs.retain(|(workflow, _), _| workflow != key);
            self.edges.retain(|((workflow, _), _), _| workflow != key);
            self.outputs.retain(|(workflow, _), _| workflow != key);
        }
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let workflows = self.records.values().filter_map(Workflow::due);
        workflows.chain(self.steps.values().filter_map(|step| step.due)).min()
    }

    fn of(&self, workflow: WorkflowKey, from: u32) -> impl Iterator<Item = &Step> {
        self.steps.range((workflow, from)..=(workflow, u32::MAX)).map(|(_, step)| step)
    }

    fn page(&self, page: &StepPage, wanted: impl Fn(StepState) -> bool) -> Vec<StepRow> {
        let steps = self.of(page.workflow, page.from).filter(|step| wanted(step.state));
        steps.take(page.limit).cloned().map(StepRow::from).collect()
    }

    fn dependents(&self, page: &StepPage) -> Vec<(StepRow, bool)> {
        let step = (page.workflow, page.step);
        let edges = self.edges.range((step, page.from)..=(step, u32::MAX)).take(page.limit);
        let row = |((_, dependent), continues): (&(StepKey, u32), &bool)| {
            Some((self.steps.get(&(page.workflow, *dependent))?.clone().into(), *continues))
        };
        edges.filter_map(row).collect()
    }

    fn removal(&self, page: &RemovalPage) -> Removal {
        let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let mut outputs: Vec<_> = self
            .outputs
            .iter()
            .filter(|((workflow, _), _)| *workflow == page.workflow)
            .map(|((_, step), output)| (*step, size(output.len())))
            .collect();
        outputs.sort_unstable();
        outputs.truncate(page.limit);
        let of_workflow = ((page.workflow, 0), 0)..=((page.workflow, u32::MAX), u32::MAX);
        let edges = self.edges.range(of_workflow).map(|(((_, step), dependent), _)| (*step, *dependent));
        let edges: Vec<_> = edges.take(page.limit).collect();
        let spec = |index| self.step_specs.get(&(page.workflow, index)).map_or(0, Bytes::len);
        let steps = self.of(page.workflow, 0).take(page.limit);
        let steps: Vec<_> = steps.map(|step| (step.index, size(spec(step.index)))).collect();
        Removal::of(page, &outputs, &edges, &steps)
    }

    fn group(&self, group: &GroupKey) -> Vec<GroupMember> {
        let of_group = |holds| {
            let all = self.members.iter().filter(move |((of, _), one)| of == group && one.holds == holds);
            all.map(|(_, member)| *member)
        };
        of_group(true).chain(of_group(false).take(GROUP_WINDOW)).collect()
    }

    fn find(&self, id: &crate::WorkflowScopedId) -> Option<&Workflow> {
        self.records.values().find(|workflow| workflow.id == id.1 && workflow.namespace == id.0)
    }
}

fn first<K: Ord + Copy>(due: impl Iterator<Item = (Timestamp, K)>, now: Timestamp, limit: usize) -> Vec<K> {
    let mut due: Vec<_> = due.filter(|(at, _)| *at <= now).collect();
    due.sort_unstable();
    due.into_iter().take(limit).map(|(_, key)| key).collect()
}

impl Contents {
    fn tasks_of(&self, page: &StepTasksPage) -> Vec<TaskRow> {
        let mut places: Vec<_> = self
            .tasks
            .values()
            .filter(|(task, _)| !page.open || !task.state.is_final())
            .filter_map(|(task, _)| place_of(task).map(|(workflow, place)| (workflow, place, task.key)))
            .filter(|(workflow, place, _)| {
                *workflow == page.workflow && page.after.is_none_or(|after| *place > after)
            })
            .map(|(_, place, key)| (place, key))
            .collect();
        places.sort_unstable();
        self.rows(places.into_iter().take(page.limit).map(|(_, key)| key))
    }

    pub(super) fn load_workflows(&self, load: &WorkflowLoad) -> WorkflowLoaded {
        let of = &self.workflows;
        let names: Vec<_> =
            load.names.iter().filter_map(|name| Some((name.clone(), *of.names.get(name)?))).collect();
        let by_key = load.keys.iter().filter_map(|key| of.records.get(key));
        let by_id = load.ids.iter().filter_map(|id| Some((id.clone(), of.find(id)?.clone().into())));
        let (mut due_workflows, mut due_steps) = (Vec::new(), Vec::new());
        if let Some((now, limit)) = load.due {
            let due = of.records.values().filter_map(|one| Some((one.due()?, one.key)));
            due_workflows = first(due, now, limit);
            let due = of.steps.iter().filter_map(|(key, step)| Some((step.due?, *key)));
            due_steps = first(due, now, limit);
        }
        let expired = load.expired.map_or_else(Vec::new, |(before, limit)| {
            let ended = of.records.values().filter_map(|one| Some((stored_end(one)?, one.key)));
            first(ended.filter(|(at, _)| *at < before), before, limit)
        });
        WorkflowLoaded {
            workflows: by_key.cloned().map(Into::into).collect(),
            ids: by_id.collect(),
            names,
            steps: load.steps.iter().filter_map(|key| of.steps.get(key)).cloned().map(Into::into).collect(),
            dependents: load.dependents.iter().map(|page| of.dependents(page)).collect(),
            held: load.held.iter().map(|page| of.page(page, |state| state == StepState::Held)).collect(),
            active: load.active.iter().map(|page| of.page(page, StepState::is_active)).collect(),
            tasks: load.tasks.iter().map(|page| self.tasks_of(page)).collect(),
            removals: load.removals.iter().map(|page| of.removal(page)).collect(),
            groups: load.groups.iter().map(|group| of.group(group)).collect(),
            memberships: load.memberships.map_or_else(Vec::new, |(workflow, limit)| {
                let own = of.members.keys().filter(|(_, (of, _))| *of == workflow);
                own.take(limit).cloned().collect()
            }),
            due_workflows,
            due_steps,
            expired,
        }
    }

    pub(super) fn query(&self, query: &WorkflowQuery) -> WorkflowRows {
        let of = &self.workflows;
        let mut rows = WorkflowRows::default();
        match query {
            WorkflowQuery::Id(id) => rows.workflows.extend(of.find(id).cloned()),
            WorkflowQuery::Key(key) => rows.workflows.extend(of.records.get(key).cloned()),
            WorkflowQuery::IdOf(key) => rows.ids.extend(of.records.get(key).map(|one| one.id)),
            WorkflowQuery::Alias((namespace, alias)) => {
                let named =
                    |one: &&Workflow| one.namespace == *namespace && one.alias.as_ref() == Some(alias);
                rows.workflows.extend(of.records.values().rev().find(named).cloned());
            }
            WorkflowQuery::List(filter) => {
                let older = of.records.range(..filter.before.unwrap_or(WorkflowKey(u64::MAX))).rev();
                let fitting = older.map(|(_, one)| one).filter(|one| filter.fits(one)).take(filter.limit);
                rows.workflows = fitting.cloned().collect();
                rows.next =
                    rows.workflows.last().filter(|_| rows.workflows.len() == filter.limit).map(|one| one.key);
            }
            WorkflowQuery::Spec(key) => rows.bodies.extend(of.specs.get(key).map(|body| (0, body.clone()))),
            WorkflowQuery::Steps { workflow, from, limit } => {
                rows.steps = of.of(*workflow, *from).take(*limit).cloned().collect();
            }
            WorkflowQuery::StepsAt(workflow, indexes) => {
                let steps = indexes.iter().filter_map(|index| of.steps.get(&(*workflow, *index)));
                rows.steps = steps.cloned().collect();
            }
            WorkflowQuery::Work(key, indexes) => {
                rows.workflows.extend(of.records.get(key).cloned());
                for index in indexes {
                    rows.steps.extend(of.steps.get(&(*key, *index)).cloned());
                    rows.bodies.extend(of.step_specs.get(&(*key, *index)).map(|body| (*index, body.clone())));
                }
                rows.bodies.extend(of.specs.get(key).map(|body| (WORKFLOW_MEMBER, body.clone())));
            }
            WorkflowQuery::StepSpecs { workflow, from, limit } => {
                let steps = of.of(*workflow, *from).take(*limit);
                let spec =
                    |step: &Step| Some((step.index, of.step_specs.get(&(*workflow, step.index))?.clone()));
                rows.bodies = steps.filter_map(spec).collect();
            }
            WorkflowQuery::Outputs(workflow, indexes) => {
                let output = |index: &u32| Some((*index, of.outputs.get(&(*workflow, *index))?.clone()));
                rows.bodies = indexes.iter().filter_map(output).collect();
            }
            WorkflowQuery::Outcomes(namespace, ids) => {
                let found = ids.iter().filter_map(|id| of.find(&(namespace.clone(), *id)));
                let output = |one: &Workflow| of.outputs.get(&(one.key, WORKFLOW_OUTPUT)).cloned();
                rows.outcomes = found.map(|one| (one.clone(), output(one))).collect();
            }
            WorkflowQuery::Tasks { workflow, step, round, from, limit, bytes } => {
                let mut keys: Vec<(u32, TaskKey)> = self
                    .tasks
                    .values()
                    .filter_map(|(task, _)| place_of(task).map(|(of, place)| (of, place, task.key)))
                    .filter(|(of, place, _)| of == workflow && (place.0, place.1) == (*step, *round))
                    .map(|(_, place, key)| (place.2, key))
                    .filter(|(item, _)| item >= from)
                    .collect();
                keys.sort_unstable();
                let mut left = Some(*bytes);
                for (_, key) in keys.into_iter().take(*limit) {
                    let Some((task, _)) = self.tasks.get(&key) else { continue };
                    let result = self.results.get(&key).cloned();
                    left = left.and_then(|left| left.checked_sub(result.as_ref().map_or(0, Bytes::len)));
                    rows.tasks.push((task.clone(), result));
                    if left.is_none() {
                        break;
                    }
                }
            }
            WorkflowQuery::Driven { after, limit } => {
                let driven = of.steps.values().filter(|step| step.needs_driver());
                let later =
                    driven.filter(|step| after.is_none_or(|after| (step.workflow, step.index) > after));
                rows.steps = later.take(*limit).cloned().collect();
            }
            WorkflowQuery::Active { after, limit } => {
                let active = of.steps.values().filter(|step| step.state.is_active());
                let later =
                    active.filter(|step| after.is_none_or(|after| (step.workflow, step.index) > after));
                rows.steps = later.take(*limit).cloned().collect();
            }
            WorkflowQuery::Ended { after, limit } => {
                let ended = of.records.values().filter(|one| !one.deleted);
                let mut ended: Vec<_> =
                    ended.filter(|one| one.ended_at.is_some_and(|at| (at, one.key) > *after)).collect();
                ended.sort_unstable_by_key(|one| (one.ended_at, one.key));
                rows.workflows = ended.into_iter().take(*limit).cloned().collect();
            }
            WorkflowQuery::Ending { after, limit } => {
                let ending = of.records.values().filter(|one| one.state == State::Ending && one.key > *after);
                rows.workflows = ending.take(*limit).cloned().collect();
            }
            WorkflowQuery::Group(group) => rows.members = of.group(group),
            WorkflowQuery::Unended => {
                rows.count = of.records.values().filter(|one| !one.state.is_final()).count() as u64;
            }
        }
        rows
    }
}
