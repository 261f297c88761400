//! Converts `Workflow` and `WorkflowTemplate` manifests to requests. Their steps are read here: a manifest holds them as JSON.

use std::collections::BTreeMap;

use rota_proto::expressions::place_in_workflow;
use rota_proto::{names, v1};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::structure;
use crate::{DesiredState, Workflow, WorkflowSpec, WorkflowTemplate, WorkflowTemplateSpec};

/// Field that the API does not have, or not with this value.
pub(crate) struct Unreadable {
    /// Path within the spec; empty if it is not known.
    pub path: String,
    pub message: String,
}

impl Workflow {
    /// Builds the creation request. `namespace` applies if the manifest has none. A named workflow has an idempotency key derived
    /// from its name, as a task has; with `generateName`, the alias is that prefix followed by `suffix`, and there is no key.
    ///
    /// Returns an error for fields that the API does not have, which `validate` reports with their paths.
    pub fn to_request(&self, namespace: &str, suffix: &str) -> Result<v1::CreateWorkflowRequest, String> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or(namespace);
        let (alias, idempotency_key) = match (&self.metadata.name, &self.metadata.generate_name) {
            (Some(name), _) => (name.clone(), format!("manifest:{namespace}/{name}")),
            (None, Some(start)) => (format!("{start}{suffix}"), String::new()),
            (None, None) => Default::default(),
        };
        let whole = self.spec.to_scheduled(&self.metadata.labels)?;
        Ok(v1::CreateWorkflowRequest {
            parent: names::namespace(namespace),
            workflow: Some(v1::Workflow {
                alias,
                spec: whole.spec.map(|spec| *spec),
                labels: whole.labels,
                ttl_after_finished: whole.ttl_after_finished,
                ..Default::default()
            }),
            parameters: whole.parameters,
            template: whole.template,
            idempotency_key,
            paused: self.spec.desired_state == Some(DesiredState::Suspended),
            ..Default::default()
        })
    }
}

impl WorkflowSpec {
    /// Returns the workflow as a schedule has it: a template with parameters, or a specification.
    pub(crate) fn to_scheduled(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<v1::ScheduledWorkflow, String> {
        let spec = match self.template {
            Some(_) => None,
            None => Some(self.to_api().map_err(|error| format!("{}: {}", error.path, error.message))?),
        };
        Ok(v1::ScheduledWorkflow {
            spec: spec.map(Box::new),
            parameters: self.template.as_ref().map(|_| structure(&self.parameters).unwrap_or_default()),
            template: self.template.clone().unwrap_or_default(),
            labels: labels.clone(),
            ttl_after_finished: super::duration(self.ttl_after_finished),
            ..Default::default()
        })
    }

    pub(crate) fn to_api(&self) -> Result<v1::WorkflowSpec, Unreadable> {
        let spec = Self {
            template: None,
            parameters: None,
            desired_state: None,
            ttl_after_finished: None,
            // The notation of the API is one of seconds alone.
            timeout: None,
            budget_usd: None,
            ..self.clone()
        };
        let mut spec: v1::WorkflowSpec = read(&spec)?;
        spec.timeout = super::duration(self.timeout);
        spec.budget_micro_usd = self.budget_usd.map_or(0, |budget| budget.micro);
        Ok(spec)
    }
}

impl WorkflowTemplate {
    /// Builds the request that creates the template or adds a version to it. `namespace` applies if the manifest has none.
    ///
    /// Returns an error for fields that the API does not have, which `validate` reports with their paths.
    pub fn to_request(&self, namespace: &str) -> Result<v1::UpdateWorkflowTemplateRequest, String> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or(namespace);
        let spec = self.spec.to_api().map_err(|error| format!("{}: {}", error.path, error.message))?;
        Ok(v1::UpdateWorkflowTemplateRequest {
            workflow_template: Some(v1::WorkflowTemplate {
                name: names::template(namespace, self.metadata.name.as_deref().unwrap_or_default()),
                labels: self.metadata.labels.clone(),
                spec: Some(spec),
                ..Default::default()
            }),
            allow_missing: true,
            ..Default::default()
        })
    }
}

impl WorkflowTemplateSpec {
    pub(crate) fn to_api(&self) -> Result<v1::WorkflowTemplateSpec, Unreadable> {
        read(self)
    }
}

fn read<T: DeserializeOwned>(spec: &impl Serialize) -> Result<T, Unreadable> {
    let mut value = serde_json::to_value(spec).unwrap_or(Value::Null);
    place_in_workflow(&mut value);
    value.get_mut("workflow").into_iter().for_each(place_in_workflow);
    serde_path_to_error::deserialize(value)
        .map_err(|error| Unreadable { path: error.path().to_string(), message: error.inner().to_string() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{Object, parse};

    fn object(text: &str) -> Object {
        parse("f", &format!("apiVersion: rota.dev/v1alpha1\n{text}")).unwrap().remove(0).object
    }

    #[test]
    fn workflow_has_the_steps_of_the_api() {
        let text = "kind: Workflow
metadata: {name: release, namespace: team, labels: {a: b}}
spec:
  title: Release
  inputs: {modules: [x], width: 2}
  timeout: 90m
  budgetUsd: '1.50'
  onFailure: ON_STEP_FAILURE_COMPENSATE
  concurrency: {group: 'release-${{ inputs.modules[0] }}', whenFull: WHEN_FULL_REPLACE}
  steps:
    - {name: test, task: {prompt: 'test ${{ item }}', target: {agent: coder}}, forEach: {items: inputs.modules, maxParallel: '${{ inputs.width }}'}}
    - {name: ask, needs: [{step: test}], approval: {prompt: 'go?', deadline: '${{ inputs.time }}'}}
  outputs: {text: '${{ steps.test.results }}'}
  outputsSchema: {required: [text]}
  ttlAfterFinished: 1h
";
        let object = object(text);
        assert_eq!(object.validate(), []);
        let Object::Workflow(workflow) = object else { panic!("a workflow") };
        let request = serde_json::to_value(workflow.to_request("default", "").unwrap()).unwrap();
        assert_eq!(
            request,
            json!({
                "parent": "namespaces/team", "idempotencyKey": "manifest:team/release",
                "workflow": {
                    "alias": "release", "labels": {"a": "b"}, "ttlAfterFinished": "3600s",
                    "spec": {
                        "title": "Release", "inputs": {"modules": ["x"], "width": 2.0}, "timeout": "5400s", "budgetMicroUsd": "1500000",
                        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
                        "concurrency": {"group": "release-${{ inputs.modules[0] }}", "whenFull": "WHEN_FULL_REPLACE"},
                        "steps": [
                            {"name": "test", "task": {"prompt": "test ${{ item }}", "target": {"agent": "coder"}},
                             "forEach": {"items": "inputs.modules", "maxParallelExpression": "${{ inputs.width }}"}},
                            {"name": "ask", "needs": [{"step": "test"}], "approval": {"prompt": "go?"}, "expressions": {"approval.deadline": "${{ inputs.time }}"}},
                        ],
                        "outputs": {"text": "${{ steps.test.results }}"}, "outputsSchema": {"required": ["text"]},
                    },
                },
            })
        );
    }

    #[test]
    fn workflow_of_a_template_has_parameters() {
        let text = "kind: Workflow\nmetadata: {generateName: go-}\nspec: {template: deploy, parameters: {image: x}, desiredState: Suspended}\n";
        let Object::Workflow(workflow) = object(text) else { panic!("a workflow") };
        let request = serde_json::to_value(workflow.to_request("default", "abc").unwrap()).unwrap();
        let expected = json!({
            "parent": "namespaces/default", "workflow": {"alias": "go-abc"},
            "template": "deploy", "parameters": {"image": "x"}, "paused": true,
        });
        assert_eq!(request, expected);
    }

    #[test]
    fn template_is_converted() {
        let text = "kind: WorkflowTemplate
metadata: {name: deploy}
spec:
  description: Deploys
  parameters: [{name: image, schema: {type: string}, default: x}]
  workflow: {steps: [{name: a, task: {prompt: '${{ inputs.image }}'}}]}
";
        let object = object(text);
        assert_eq!(object.validate(), []);
        let Object::WorkflowTemplate(template) = object else { panic!("a template") };
        let request = serde_json::to_value(template.to_request("team").unwrap()).unwrap();
        assert_eq!(
            request,
            json!({
                "allowMissing": true,
                "workflowTemplate": {
                    "name": "namespaces/team/templates/deploy",
                    "spec": {
                        "description": "Deploys",
                        "parameters": [{"name": "image", "schema": {"type": "string"}, "default": "x"}],
                        "workflow": {"steps": [{"name": "a", "task": {"prompt": "${{ inputs.image }}"}}]},
                    },
                },
            })
        );
    }
}
