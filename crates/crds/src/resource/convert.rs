//! Converts resources to manifests, so that both share one validation and one conversion to requests.

use kube::ResourceExt;
use rota_proto::v1;

use super::{Agent, Schedule, Task, Workflow, WorkflowTemplate};
use crate::{ObjectMeta, Violation};

/// Annotation of a task or a workflow with the W3C trace context of its creator.
pub const TRACEPARENT: &str = "rota.dev/traceparent";

impl Agent {
    /// Converts the resource to a manifest.
    pub fn manifest(&self) -> crate::Agent {
        crate::Agent {
            api_version: crate::API_VERSION.to_owned(),
            kind: "Agent".to_owned(),
            metadata: metadata(self),
            spec: self.spec.clone(),
            status: Default::default(),
        }
    }

    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        self.manifest().validate()
    }

    /// Builds the request that registers or updates the agent.
    pub fn to_request(&self) -> v1::UpdateAgentRequest {
        let agent = Some(self.manifest().to_api(""));
        v1::UpdateAgentRequest { agent, allow_missing: true, ..Default::default() }
    }
}

impl Task {
    /// Converts the resource to a manifest.
    pub fn manifest(&self) -> crate::Task {
        crate::Task {
            api_version: crate::API_VERSION.to_owned(),
            kind: "Task".to_owned(),
            metadata: metadata(self),
            spec: self.spec.clone(),
            status: Default::default(),
        }
    }

    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        self.manifest().validate()
    }

    /// Builds the creation request. The task id is the resource's UID, which makes it idempotent; a key derived from the name
    /// would collide with a later resource of the same name.
    pub fn to_request(&self) -> v1::CreateTaskRequest {
        let task_id = self.metadata.uid.clone().unwrap_or_default();
        let mut request = v1::CreateTaskRequest {
            task_id,
            idempotency_key: String::new(),
            ..self.manifest().to_request("", "")
        };
        // The operator deletes the resource by it; the record outlives that.
        if let Some(spec) = request.task.as_mut().and_then(|task| task.spec.as_mut()) {
            spec.ttl_after_finished = None;
        }
        request
    }

    /// Returns the trace context of the creator, which is sent as metadata of the request.
    pub fn traceparent(&self) -> Option<&str> {
        self.annotations().get(TRACEPARENT).map(String::as_str)
    }
}

impl Workflow {
    /// Converts the resource to a manifest.
    pub fn manifest(&self) -> crate::Workflow {
        crate::Workflow {
            api_version: crate::API_VERSION.to_owned(),
            kind: "Workflow".to_owned(),
            metadata: metadata(self),
            spec: self.spec.clone(),
            status: Default::default(),
        }
    }

    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        self.manifest().validate()
    }

    /// Builds the creation request. Its id and key are the resource's UID, which makes it repeatable. Returns an error for
    /// fields that the API does not have.
    pub fn to_request(&self) -> Result<v1::CreateWorkflowRequest, String> {
        let uid = self.metadata.uid.clone().unwrap_or_default();
        let mut request = self.manifest().to_request("", "")?;
        // The operator deletes the resource by it; the record outlives that.
        if let Some(workflow) = &mut request.workflow {
            workflow.ttl_after_finished = None;
        }
        Ok(v1::CreateWorkflowRequest {
            idempotency_key: format!("resource:{uid}"),
            workflow_id: uid,
            ..request
        })
    }

    /// Returns the trace context of the creator, which is sent as metadata of the request.
    pub fn traceparent(&self) -> Option<&str> {
        self.annotations().get(TRACEPARENT).map(String::as_str)
    }
}

impl WorkflowTemplate {
    /// Converts the resource to a manifest.
    pub fn manifest(&self) -> crate::WorkflowTemplate {
        crate::WorkflowTemplate {
            api_version: crate::API_VERSION.to_owned(),
            kind: "WorkflowTemplate".to_owned(),
            metadata: metadata(self),
            spec: self.spec.clone(),
            status: Default::default(),
        }
    }

    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        self.manifest().validate()
    }

    /// Builds the request that creates the template or adds a version. Returns an error for fields that the API does not have.
    pub fn to_request(&self) -> Result<v1::UpdateWorkflowTemplateRequest, String> {
        self.manifest().to_request("")
    }
}

impl Schedule {
    /// Converts the resource to a manifest.
    pub fn manifest(&self) -> crate::Schedule {
        crate::Schedule {
            api_version: crate::API_VERSION.to_owned(),
            kind: "Schedule".to_owned(),
            metadata: metadata(self),
            spec: self.spec.clone(),
            status: Default::default(),
        }
    }

    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        self.manifest().validate()
    }

    /// Builds the request that creates or updates the schedule. Returns an error for fields that the API does not have.
    pub fn to_request(&self) -> Result<v1::UpdateScheduleRequest, String> {
        let schedule = Some(self.manifest().to_api("")?);
        Ok(v1::UpdateScheduleRequest { schedule, allow_missing: true, ..Default::default() })
    }
}

fn metadata(resource: &impl ResourceExt) -> ObjectMeta {
    ObjectMeta {
        name: Some(resource.name_any()),
        namespace: resource.namespace(),
        labels: resource.labels().clone(),
        annotations: resource.annotations().clone(),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn task_id_is_the_uid() {
        let task: Task = serde_json::from_value(json!({
            "apiVersion": "rota.dev/v1alpha1", "kind": "Task",
            "metadata": {
                "name": "build", "namespace": "team", "uid": "6f5c1f0e-0000-4000-8000-000000000001",
                "labels": {"a": "b"}, "annotations": {"rota.dev/traceparent": "00-1-2-01"},
                "resourceVersion": "7",
            },
            "spec": {
                "prompt": "hi", "agent": "coder", "priority": "HIGH", "isolation": "Pod",
                "podOverrides": {"nodeSelector": {"x": "y"}}, "secretNames": ["KEY"], "ttlAfterFinished": "1h",
            },
            "status": {"phase": "Running"},
        }))
        .unwrap();
        assert_eq!(task.validate(), []);
        assert_eq!(task.traceparent(), Some("00-1-2-01"));
        let request = serde_json::to_value(task.to_request()).unwrap();
        assert_eq!(
            request,
            json!({
                "parent": "namespaces/team", "taskId": "6f5c1f0e-0000-4000-8000-000000000001",
                "task": {
                    "alias": "build", "labels": {"a": "b"}, "priority": 8,
                    "spec": {
                        "prompt": "hi", "target": {"agent": "coder"},
                        "agentSecrets": {"names": ["KEY"]}, "isolation": "ISOLATION_POD",
                    },
                },
            })
        );
    }

    #[test]
    fn agent_request_carries_the_whole_spec() {
        let agent: Agent = serde_json::from_value(json!({
            "metadata": {"name": "coder", "namespace": "team"},
            "spec": {
                "runtime": {"scripted": {}}, "replicas": 1, "maxReplicas": 3,
                "secrets": [{"name": "KEY", "secretName": "keys", "key": "model"}],
                "pod": {"resources": {"requests": {"cpu": "1"}}},
            },
        }))
        .unwrap();
        assert_eq!(agent.validate(), []);
        let request = serde_json::to_value(agent.to_request()).unwrap();
        assert_eq!(
            request,
            json!({
                "allowMissing": true,
                "agent": {
                    "name": "namespaces/team/agents/coder",
                    "spec": {"runtime": {"scripted": {}}, "replicas": 1, "maxReplicas": 3},
                },
            })
        );
    }

    #[test]
    fn resources_share_manifest_validation() {
        let mut task = Task::new("a", crate::TaskSpec { agent: Some("A".to_owned()), ..Default::default() });
        task.metadata.namespace = Some("team".to_owned());
        assert_eq!(task.validate()[0].field, "spec.agent");
    }
}
