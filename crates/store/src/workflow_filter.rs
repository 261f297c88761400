//! Filter of lists of workflows.

use std::collections::BTreeMap;

use rota_core::workflow::{self, Workflow};
use rota_core::{Namespace, WorkflowId, WorkflowKey};
use serde::{Deserialize, Serialize};

/// Filter and page of a list of workflows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorkflowFilter {
    pub namespace: Option<Namespace>,
    pub states: Vec<workflow::State>,
    pub paused: bool,
    pub labels: BTreeMap<String, String>,
    pub owner: Option<String>,
    pub alias: Option<String>,
    /// The workflow of which they are steps.
    pub parent: Option<WorkflowId>,
    #[serde(default)]
    pub template: Option<String>,
    /// Whether only those match that ask for a person, since they have failed for good.
    #[serde(default)]
    pub dead_letters: bool,
    /// Page token: only older workflows.
    pub before: Option<WorkflowKey>,
    pub limit: usize,
}

impl WorkflowFilter {
    /// Whether a workflow matches, regardless of the page.
    pub fn fits(&self, workflow: &Workflow) -> bool {
        let is_paused = workflow.paused && workflow.state == workflow::State::Running;
        let states = self.states.is_empty() && !self.paused
            || self.paused && is_paused
            || self.states.contains(&workflow.state) && !is_paused;
        !workflow.deleted
            && states
            && self.namespace.as_ref().is_none_or(|namespace| workflow.namespace == *namespace)
            && self.labels.iter().all(|(key, value)| workflow.labels.get(key) == Some(value))
            && self.owner.as_ref().is_none_or(|owner| workflow.owner == *owner)
            && self.alias.as_ref().is_none_or(|alias| workflow.alias.as_ref() == Some(alias))
            && self
                .parent
                .is_none_or(|id| workflow.parent.as_ref().is_some_and(|parent| parent.step.id == id))
            && (!self.dead_letters || workflow.is_dead_letter())
            && self.template.as_ref().is_none_or(|template| workflow.is_of_template(template))
    }
}
