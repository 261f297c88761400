//! Protection of records that the operator of a cluster manages: what a resource states is changed in the resource. A guard
//! against changes that would be overwritten, not against an admin.

use std::collections::BTreeMap;

use rota_core::AgentName;
use rota_core::task::Task;
use rota_core::workflow::Workflow;
use rota_proto::labels::CLUSTER;
use tonic::{Request, Status};

use crate::trust::roles::OperatorCall;
use crate::watchers::is_managed;
use crate::wire::status::{error, hinted};

/// Records that a caller has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// Those of clusters: the operator sees nothing that was created over the API.
    Managed,
}

impl Scope {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        match request.extensions().get::<OperatorCall>() {
            Some(_) => Self::Managed,
            None => Self::All,
        }
    }

    pub(crate) fn contains(self, task: &Task) -> bool {
        self == Self::All || is_managed(task)
    }

    /// Returns the task, which does not exist for callers that have nothing to do with it.
    pub(crate) fn check(self, task: Task) -> Result<Task, Status> {
        match self.contains(&task) {
            true => Ok(task),
            false => Err(error("TASK_NOT_FOUND", format!("task {} does not exist in any cluster", task.id))),
        }
    }

    /// Whether an agent with these labels exists for the caller.
    pub(crate) fn contains_agent(self, labels: &BTreeMap<String, String>) -> bool {
        self == Self::All || labels.contains_key(CLUSTER)
    }

    /// Returns the workflow, which does not exist for callers that have nothing to do with it.
    pub(crate) fn check_workflow(self, workflow: Workflow) -> Result<Workflow, Status> {
        if self == Self::All || workflow.labels.contains_key(CLUSTER) {
            return Ok(workflow);
        }
        let text = format!("workflow {} does not exist in any cluster", workflow.id);
        Err(error("WORKFLOW_NOT_FOUND", text))
    }

    /// Refuses to take over a template that was created over the API.
    pub(crate) fn check_template(self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
        if self == Self::All || labels.contains_key(CLUSTER) {
            return Ok(());
        }
        Err(hinted(
            "MANAGED_BY_API",
            format!("template {name} was created over the API, and no resource of a cluster takes it over"),
            format!("delete it with `rota template delete {name}`, or give the resource another name"),
        ))
    }

    /// Refuses to take over a schedule that was created over the API.
    pub(crate) fn check_schedule(self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
        if self == Self::All || labels.contains_key(CLUSTER) {
            return Ok(());
        }
        Err(hinted(
            "MANAGED_BY_API",
            format!("schedule {name} was created over the API, and no resource of a cluster takes it over"),
            format!("delete it with `rota schedule delete {name}`, or give the resource another name"),
        ))
    }

    /// Refuses to take over an agent that was created over the API, with its secrets and waiting tasks.
    pub(crate) fn check_agent(
        self,
        name: &AgentName,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Status> {
        if self == Self::All || labels.contains_key(CLUSTER) {
            return Ok(());
        }
        Err(hinted(
            "MANAGED_BY_API",
            format!("agent {name} was created over the API, and no resource of a cluster takes it over"),
            format!("delete it with `rota delete agent {name}`, or give the resource another name"),
        ))
    }

    /// Checks the labels of what is to be created.
    pub(crate) fn check_new(self, labels: &BTreeMap<String, String>) -> Result<(), Status> {
        if self == Self::All || labels.contains_key(CLUSTER) {
            return Ok(());
        }
        let text = format!("the operator has to do with what has the label {CLUSTER} of its cluster only");
        Err(error("ROLE_FORBIDDEN", text))
    }
}

/// Refuses a change of a record that a cluster manages, unless the request names the same cluster.
pub(crate) fn check(
    known: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    subject: &str,
    hint: impl FnOnce() -> String,
) -> Result<(), Status> {
    if !known.contains_key(CLUSTER) || known.get(CLUSTER) == given.get(CLUSTER) {
        return Ok(());
    }
    let message = format!(
        "{subject} belongs to a resource of a Kubernetes cluster, whose operator would undo the change"
    );
    Err(hinted("MANAGED_BY_CLUSTER", message, hint()))
}
