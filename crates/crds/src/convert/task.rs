//! Converts `Task` manifests to creation requests.

use rota_proto::names;
use rota_proto::v1::{self, target};

use super::{structure, timestamp};
use crate::{Task, TaskSpec};

impl Task {
    /// Builds the creation request. `namespace` applies if the manifest has none.
    ///
    /// A named task has an idempotency key derived from its name, so that applying it again returns the existing task.
    /// With `generateName`, the alias is that prefix followed by `suffix`, and there is no key.
    pub fn to_request(&self, namespace: &str, suffix: &str) -> v1::CreateTaskRequest {
        let namespace = self.metadata.namespace.as_deref().unwrap_or(namespace);
        let (alias, idempotency_key) = match (&self.metadata.name, &self.metadata.generate_name) {
            (Some(name), _) => (name.clone(), format!("manifest:{namespace}/{name}")),
            (None, Some(start)) => (format!("{start}{suffix}"), String::new()),
            (None, None) => Default::default(),
        };
        v1::CreateTaskRequest {
            parent: names::namespace(namespace),
            task: Some(v1::Task {
                alias,
                spec: Some(Box::new(self.spec.to_api())),
                priority: self.spec.priority.map(|priority| priority.0),
                labels: self.metadata.labels.clone(),
                desired_state: self.spec.desired_state.map_or(0, |value| value.to_api().into()),
                ..Default::default()
            }),
            idempotency_key,
            ..Default::default()
        }
    }
}

impl TaskSpec {
    /// Converts the immutable part. Priority and desired state are fields of the API's task itself.
    pub fn to_api(&self) -> v1::TaskSpec {
        let target = None
            .or_else(|| self.agent.clone().map(target::Kind::Agent))
            .or_else(|| {
                let agents = self.agents.clone();
                (!agents.is_empty()).then_some(target::Kind::Agents(v1::AgentSet { agents, all: false }))
            })
            .or_else(|| self.worker.clone().map(target::Kind::Worker))
            .or_else(|| {
                let words = self.capabilities.clone();
                (!words.is_empty())
                    .then_some(target::Kind::Capabilities(v1::CapabilitySet { capabilities: words }))
            });
        v1::TaskSpec {
            title: self.title.clone().unwrap_or_default(),
            prompt: self.prompt.clone().unwrap_or_default(),
            kind: self.kind.clone().unwrap_or_default(),
            prompt_frame: String::new(),
            input: structure(&self.input),
            target: target.map(|kind| v1::Target { kind: Some(kind) }),
            depends_on: self
                .depends_on
                .iter()
                .map(|dependency| v1::Dependency {
                    task: dependency.task.clone(),
                    on_failure: dependency.on_failure.map_or(0, |value| value.to_api().into()),
                })
                .collect(),
            limits: self.limits.as_ref().map(crate::Limits::to_api),
            retry: self.retry.as_ref().map(crate::RetryPolicy::to_api),
            start_time: timestamp(self.start_time),
            environment: self.environment.clone(),
            secrets: self.secrets.clone(),
            secret_names: Vec::new(),
            inputs: Vec::new(),
            workspace: self.workspace.as_ref().map(crate::Workspace::to_api),
            setup: self.setup.iter().map(crate::WorkspaceCommand::to_api).collect(),
            done_when: self.done_when.as_ref().map(crate::DoneWhen::to_api),
            result_schema: structure(&self.result_schema).map(Box::new),
            runtime: self.runtime.as_ref().map(crate::Runtime::to_api),
            owner: self.owner.clone().unwrap_or_default(),
            parent_task: self.parent_task.clone().unwrap_or_default(),
            strict: self.strict,
            continue_from: self.continue_from.clone().unwrap_or_default(),
            fork: self.fork,
            thread: self.thread.clone().unwrap_or_default(),
            ttl_after_finished: super::duration(self.ttl_after_finished).map(Box::new),
            agent_secrets: self
                .secret_names
                .as_ref()
                .map(|names| v1::SecretSelection { names: names.clone() }),
            isolation: self.isolation.map_or(0, |value| value.to_api().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1;

    use crate::{Object, parse};

    fn task(text: &str) -> crate::Task {
        match parse("f", text).unwrap().remove(0).object {
            Object::Task(task) => *task,
            _ => panic!("a task"),
        }
    }

    #[test]
    fn every_field_is_converted() {
        let task = task(
            "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: build, namespace: team, labels: {a: b}}
spec:
  title: Build
  prompt: build it
  kind: code
  input: {count: 1, list: [true, null, x]}
  capabilities: [code]
  dependsOn: [{task: plan, onFailure: Continue}]
  priority: HIGH
  desiredState: Suspended
  limits: {timeout: 5m, silenceTimeout: 1m, queueTimeout: 1h, cancelGrace: 3s, maxTurns: 9, budgetUsd: '0.50'}
  retry: {maxAttempts: 2, maxWorkerLosses: 0, initialBackoff: 1s, maxBackoff: 2s, escalate: [sonnet, opus]}
  startTime: 2030-01-01T00:00:00.5Z
  environment: {A: b}
  secrets: {S: t}
  workspace: {mode: Keep, path: w, git: {url: u, ref: r, depth: 1}, cleanup: OnSuccess}
  runtime: {scripted: {seed: 7, steps: [{delay: 1s}, {fail: {class: RateLimit, attempts: 1}}]}}
  setup: [{argv: [npm, ci], timeout: 1m, secrets: [T]}]
  doneWhen: {commands: [{argv: [npm, test]}], maxRounds: 2, pinnedFiles: ['tests/**']}
  resultSchema: {type: object}
  owner: me
  parentTask: 0192f0c1-2b3c-7d4e-8f50-112233445566
  strict: true
  continueFrom: before
  fork: true
  thread: talk
  ttlAfterFinished: 2h
",
        );
        let wrong: Vec<_> = task.validate().iter().map(|wrong| wrong.field.clone()).collect();
        assert_eq!(wrong, ["spec.thread"], "the only exclusive ones");
        let request = task.to_request("default", "x");
        assert_eq!(
            (request.parent.as_str(), request.idempotency_key.as_str()),
            ("namespaces/team", "manifest:team/build")
        );
        // In canonical JSON, which names every field as the API does.
        let json = serde_json::to_value(&request.task).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "alias": "build", "labels": {"a": "b"}, "priority": 8, "desiredState": "DESIRED_STATE_SUSPENDED",
                "spec": {
                    "title": "Build", "prompt": "build it", "kind": "code",
                    "input": {"count": 1.0, "list": [true, null, "x"]},
                    "target": {"capabilities": {"capabilities": ["code"]}},
                    "dependsOn": [{"task": "plan", "onFailure": "ON_DEPENDENCY_FAILURE_CONTINUE"}],
                    "limits": {"timeout": "300s", "silenceTimeout": "60s", "queueTimeout": "3600s",
                        "cancelGrace": "3s", "maxTurns": 9, "budgetMicroUsd": "500000"},
                    "retry": {"maxAttempts": 2, "maxWorkerLosses": 0, "initialBackoff": "1s", "maxBackoff": "2s",
                        "escalate": ["sonnet", "opus"]},
                    "startTime": "2030-01-01T00:00:00.500+00:00",
                    "environment": {"A": "b"}, "secrets": {"S": "t"},
                    "workspace": {"mode": "WORKSPACE_MODE_KEEP", "path": "w",
                        "git": {"url": "u", "ref": "r", "depth": 1}, "cleanup": "WORKSPACE_CLEANUP_ON_SUCCESS"},
                    "runtime": {"scripted": {"seed": "7", "steps": [
                        {"delay": "1s"}, {"fail": {"class": "rate_limit", "attempts": 1}}]}},
                    "setup": [{"argv": ["npm", "ci"], "timeout": "60s", "secrets": ["T"]}],
                    "doneWhen": {"commands": [{"argv": ["npm", "test"]}], "maxRounds": 2, "pinnedFiles": ["tests/**"]},
                    "resultSchema": {"type": "object"},
                    "owner": "me", "parentTask": "0192f0c1-2b3c-7d4e-8f50-112233445566", "strict": true, "continueFrom": "before", "fork": true, "thread": "talk", "ttlAfterFinished": "7200s",
                },
            })
        );
    }

    #[test]
    fn generated_names_have_no_key() {
        let task =
            task("apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {generateName: build-}\nspec: {}\n");
        let request = task.to_request("default", "x1");
        assert_eq!(
            (request.idempotency_key.as_str(), request.task.unwrap().alias.as_str()),
            ("", "build-x1")
        );
        assert_eq!(task.spec.to_api(), v1::TaskSpec::default());
    }
}
