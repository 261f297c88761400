//! What a write changes of workflows.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::WorkflowKey;
use rota_core::workflow::Step;
use rota_store::codec::{encode, signed};
use rota_store::{Error, GroupKey, GroupMember, Removal, StepKey, WorkflowChanges, stored_end};

use super::{Param, Statements, columns, key, text};
use crate::sql;

/// Columns of the keys of steps.
fn step_keys<'a>(steps: impl Iterator<Item = &'a StepKey> + Clone) -> [Param; 2] {
    [
        columns(steps.clone().map(|(workflow, _)| signed(workflow.0)).collect()),
        columns(steps.map(|(_, step)| i64::from(*step)).collect()),
    ]
}

/// Columns of steps without their specs.
fn step_columns(steps: &[&Arc<Step>]) -> Result<Vec<Param>, Error> {
    Ok(vec![
        column!(steps, |step| signed(step.workflow.0)),
        column!(steps, |step| i64::from(step.index)),
        column!(steps, |step| i16::from(step.state as u8)),
        column!(steps, |step| step.needs_driver()),
        column!(steps, |step| step.due.map(|due| due.0)),
        encoded!(steps, |step| encode(&***step)),
    ])
}

impl Statements {
    /// Removes rows up to the last ones of a page.
    fn removed_rows(&mut self, parts: &[(WorkflowKey, Removal)]) {
        let of = |last: fn(&Removal) -> Option<u32>| -> Vec<StepKey> {
            parts.iter().filter_map(|(workflow, part)| Some((*workflow, last(part)?))).collect()
        };
        let outputs = of(|part| part.outputs);
        self.add(outputs.len(), sql::DELETE_FIRST_OUTPUTS, || step_keys(outputs.iter()).into());
        let edges =
            parts.iter().filter_map(|(workflow, part)| Some(((*workflow, part.edges?.0), part.edges?.1)));
        let edges: Vec<(StepKey, u32)> = edges.collect();
        self.add(edges.len(), sql::DELETE_FIRST_EDGES, || {
            let [workflows, steps] = step_keys(edges.iter().map(|(step, _)| step));
            vec![workflows, steps, column!(edges, |(_, dependent)| i64::from(*dependent))]
        });
        let steps = of(|part| part.steps);
        for sql in [sql::DELETE_FIRST_STEPS, sql::DELETE_FIRST_SPECS] {
            self.add(steps.len(), sql, || step_keys(steps.iter()).into());
        }
    }

    pub(super) fn workflows(&mut self, changes: &WorkflowChanges) -> Result<(), Error> {
        self.removed_rows(&changes.removed_rows);
        let removed = &changes.removed;
        for sql in [
            sql::DELETE_WORKFLOWS,
            sql::DELETE_WORKFLOW_SPECS,
            sql::DELETE_STEPS,
            sql::DELETE_STEP_SPECS,
            sql::DELETE_STEP_OUTPUTS,
            sql::DELETE_STEP_EDGES,
            // Lists of files that its steps have taken over.
            sql::DELETE_ARTIFACTS,
        ] {
            self.add(removed.len(), sql, || vec![column!(removed, |workflow| signed(workflow.0))]);
        }
        let aside = &changes.undecodable;
        self.add(aside.len(), sql::SET_WORKFLOWS_ASIDE, || vec![column!(aside, |key| signed(key.0))]);
        let aside = &changes.undecodable_steps;
        self.add(aside.len(), sql::SET_STEPS_ASIDE, || step_keys(aside.iter()).into());
        let new = &changes.inserted;
        if !new.is_empty() {
            let params = vec![
                column!(new, |(workflow, ..)| signed(workflow.key.0)),
                column!(new, |(workflow, ..)| workflow.id.0),
                column!(new, |(workflow, ..)| text(&workflow.namespace)),
                column!(new, |(workflow, ..)| workflow.alias.clone()),
                column!(new, |(.., name)| name.clone()),
                column!(new, |(workflow, ..)| i16::from(workflow.state as u8)),
                column!(new, |(workflow, ..)| workflow.due().map(|due| due.0)),
                column!(new, |(workflow, ..)| stored_end(workflow).map(|end| end.0)),
                encoded!(new, |(workflow, ..)| encode(&**workflow)),
                column!(new, |(_, spec, _)| spec.to_vec()),
            ];
            self.parts.push((sql::INSERT_WORKFLOWS, params));
        }
        // A statement must not change a row twice: the last one counts.
        let updated: BTreeMap<_, _> =
            changes.updated.iter().map(|workflow| (workflow.key.0, workflow)).collect();
        if !updated.is_empty() {
            let params = vec![
                column!(updated, |(key, _)| signed(*key)),
                column!(updated, |(_, workflow)| i16::from(workflow.state as u8)),
                column!(updated, |(_, workflow)| workflow.due().map(|due| due.0)),
                column!(updated, |(_, workflow)| stored_end(workflow).map(|end| end.0)),
                encoded!(updated, |(_, workflow)| encode(&***workflow)),
            ];
            self.parts.push((sql::UPDATE_WORKFLOWS, params));
        }
        self.steps(changes)?;
        self.members(&changes.members);
        let detached = &changes.detached;
        self.add(detached.len(), sql::DETACH_TASKS, || vec![column!(detached, |of| key(*of))]);
        Ok(())
    }

    fn members(&mut self, members: &[(GroupKey, StepKey, Option<GroupMember>)]) {
        let keys = |members: &[&(GroupKey, StepKey, Option<GroupMember>)]| {
            let [workflows, steps] = step_keys(members.iter().map(|(_, key, _)| key));
            vec![
                column!(members, |(group, ..)| text(&group.namespace)),
                column!(members, |(group, ..)| group.stored_name()),
                workflows,
                steps,
            ]
        };
        let changed: Vec<_> = members.iter().collect();
        self.add(changed.len(), sql::DELETE_GROUP_MEMBERS, || keys(&changed));
        let put: Vec<_> = members.iter().filter(|(.., member)| member.is_some()).collect();
        self.add(put.len(), sql::INSERT_GROUP_MEMBERS, || {
            let all: Vec<_> = put.iter().filter_map(|(.., member)| member.as_ref()).collect();
            let mut params = keys(&put);
            params.push(column!(all, |member| member.holds));
            params.push(column!(all, |member| i64::from(member.limit)));
            params.push(column!(all, |member| signed(member.joined)));
            params
        });
    }

    fn steps(&mut self, changes: &WorkflowChanges) -> Result<(), Error> {
        let new = &changes.new_steps;
        if !new.is_empty() {
            let steps: Vec<_> = new.iter().map(|(step, _)| step).collect();
            let mut params = step_columns(&steps)?;
            params.push(column!(new, |(_, spec)| spec.to_vec()));
            self.parts.push((sql::INSERT_STEPS, params));
        }
        let updated: BTreeMap<_, _> =
            changes.steps.iter().map(|step| ((step.workflow.0, step.index), step)).collect();
        if !updated.is_empty() {
            let steps: Vec<_> = updated.into_values().collect();
            self.parts.push((sql::UPDATE_STEPS, step_columns(&steps)?));
        }
        let edges = &changes.edges;
        self.add(edges.len(), sql::PUT_STEP_EDGES, || {
            let [workflows, steps] = step_keys(edges.iter().map(|(step, ..)| step));
            let dependents = column!(edges, |(_, dependent, _)| i64::from(*dependent));
            vec![workflows, steps, dependents, column!(edges, |(.., continues)| *continues)]
        });
        let outputs: BTreeMap<_, _> =
            changes.outputs.iter().map(|((workflow, step), output)| ((workflow.0, *step), output)).collect();
        self.add(outputs.len(), sql::PUT_STEP_OUTPUTS, || {
            vec![
                column!(outputs, |((workflow, _), _)| signed(*workflow)),
                column!(outputs, |((_, step), _)| i64::from(*step)),
                column!(outputs, |(_, output)| output.to_vec()),
            ]
        });
        Ok(())
    }
}
