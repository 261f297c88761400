//! CEL rules for what a schema alone cannot express, each with the message that users see. Rules over distant fields are
//! left to `validate`; the operator reports them in the condition `Accepted`.
//!
//! The API server refuses a definition with a rule that may cost more than 10,000,000 by its estimate, or with rules that may cost
//! 100,000,000 together. It estimates from the bounds of what a rule reads, and counts a rule in a list once for each element that there
//! may be: `tests/schema.rs` requires a bound of every string, list and map, and no rule per element. A value with
//! `x-kubernetes-int-or-string` counts as large as a request, with or without a bound. Only a real API server computes the estimate.

/// Kind that a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Agent,
    Task,
    Workflow,
    WorkflowTemplate,
    Schedule,
}

/// CEL validation rule at one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub kind: Kind,
    /// Path of the field, such as `spec.runtime`; empty for the whole object.
    pub at: String,
    /// CEL expression that must be true.
    pub rule: String,
    /// Message shown to users on a violation.
    pub message: String,
}

/// Immutable fields of a task's spec. Priority, desired state and TTL are mutable.
const IMMUTABLE_FIELDS: &[&str] = &[
    "title",
    "prompt",
    "kind",
    "input",
    "agent",
    "agents",
    "worker",
    "capabilities",
    "dependsOn",
    "limits",
    "retry",
    "startTime",
    "environment",
    "workspace",
    "setup",
    "doneWhen",
    "resultSchema",
    "runtime",
    "owner",
    "parentTask",
    "strict",
    "continueFrom",
    "fork",
    "thread",
    "isolation",
    "podOverrides",
    "secretNames",
];

/// Immutable fields of a workflow's spec. Desired state and TTL are mutable.
const IMMUTABLE_WORKFLOW_FIELDS: &[&str] = &[
    "template",
    "parameters",
    "title",
    "owner",
    "inputs",
    "inputsSchema",
    "steps",
    "finally",
    "maxParallel",
    "concurrency",
    "onFailure",
    "timeout",
    "budgetUsd",
    "outputs",
    "outputsSchema",
];

const GIT: &str = "!self.matches('^[^/@]*://[^/@]*:[^/@]*@')";
const GIT_MESSAGE: &str = "a password in a URL is visible to all readers of the object; pass it as a secret";
const COMMAND: &str = "!has(self.argv) || size(self.argv) == 0 || !has(self.shell)";
const COMMAND_MESSAGE: &str = "argv and shell are mutually exclusive";
const KINDS: &str =
    "[has(self.claude), has(self.command), has(self.scripted), has(self.external)].filter(set, set).size()";

const PLAIN: &[(Kind, &str, &str, &str)] = &[
    (
        Kind::Agent,
        "",
        "size(self.metadata.name) <= 63",
        "the name of an agent must have at most 63 characters, because it is a label of its pods",
    ),
    (
        Kind::Agent,
        "spec",
        "!has(self.maxReplicas) || self.maxReplicas >= self.replicas",
        "maxReplicas must not be below replicas",
    ),
    (
        Kind::Agent,
        "spec",
        "!has(self.maxReplicas) || !has(self.spareWorkers) || self.spareWorkers <= self.maxReplicas",
        "spareWorkers must not be above maxReplicas",
    ),
    (
        Kind::Agent,
        "spec.budget",
        "has(self.dailyUsd) || has(self.monthlyUsd)",
        "dailyUsd or monthlyUsd is required",
    ),
    (Kind::Agent, "spec.runtime.command", COMMAND, COMMAND_MESSAGE),
    (Kind::Agent, "spec.workspace.git.url", GIT, GIT_MESSAGE),
    (Kind::Task, "", "size(self.metadata.name) <= 63", "the name of a task must have at most 63 characters"),
    (
        Kind::Task,
        "spec",
        "[has(self.agent), has(self.agents) && size(self.agents) > 0, has(self.worker), has(self.capabilities) && size(self.capabilities) > 0].filter(set, set).size() <= 1",
        "agent, agents, worker and capabilities are mutually exclusive",
    ),
    (
        Kind::Task,
        "spec",
        "!has(self.isolation) || self.isolation != 'Pod' || !(has(self.worker) || has(self.agents) && size(self.agents) > 0 || has(self.capabilities) && size(self.capabilities) > 0)",
        "isolation Pod requires an agent, whose pod template is used, not several, a worker or capabilities",
    ),
    (
        Kind::Task,
        "spec",
        "!has(self.podOverrides) || has(self.isolation) && self.isolation == 'Pod'",
        "podOverrides require isolation Pod: shared workers use the pod template of their agent",
    ),
    (
        Kind::Task,
        "spec",
        "!has(self.secrets) || size(self.secrets) == 0",
        "secrets in a Task are visible to all its readers: store them in a Secret and refer to it in spec.secrets of the agent",
    ),
    (
        Kind::Task,
        "spec",
        "!has(oldSelf.desiredState) || oldSelf.desiredState != 'Cancelled' || has(self.desiredState) && self.desiredState == 'Cancelled'",
        "a cancelled task cannot be resumed; create a new one",
    ),
    (
        Kind::Task,
        "spec.priority",
        // A regular expression would cost several times as much, by the estimate of the API server.
        "string(self).lowerAscii() in ['low', 'normal', 'high', 'urgent', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '10']",
        "priority must be 0 to 10, or LOW, NORMAL, HIGH, URGENT",
    ),
    (
        Kind::Workflow,
        "",
        "size(self.metadata.name) <= 63",
        "the name of a workflow must have at most 63 characters",
    ),
    (
        Kind::Workflow,
        "spec",
        "has(self.template) != (has(self.steps) && size(self.steps) > 0)",
        "exactly one of steps and template is required",
    ),
    (
        Kind::Workflow,
        "spec",
        "!has(oldSelf.desiredState) || oldSelf.desiredState != 'Cancelled' || has(self.desiredState) && self.desiredState == 'Cancelled'",
        "a cancelled workflow cannot be resumed; create a new one",
    ),
    (
        Kind::WorkflowTemplate,
        "",
        "size(self.metadata.name) <= 63",
        "the name of a template must have at most 63 characters",
    ),
    (
        Kind::Schedule,
        "",
        "size(self.metadata.name) <= 63",
        "the name of a schedule must have at most 63 characters",
    ),
    (
        Kind::Schedule,
        "spec",
        "has(self.task) != has(self.workflow)",
        "exactly one of task and workflow is required",
    ),
    (
        Kind::Schedule,
        "spec.task",
        "!has(self.podOverrides)",
        "podOverrides are for Task resources: the tasks of a schedule have none",
    ),
    (Kind::Task, "spec.runtime.command", COMMAND, COMMAND_MESSAGE),
    (Kind::Task, "spec.workspace.git.url", GIT, GIT_MESSAGE),
];

/// Returns a rule about a new task or workflow as one about those of a schedule; `None` for rules about names and changes.
fn of_schedule(rule: &Rule) -> Option<Rule> {
    let part = match rule.kind {
        Kind::Task => "task",
        Kind::Workflow => "workflow",
        _ => return None,
    };
    // Of a schedule, no task has any.
    let is_moot = rule.rule.contains("oldSelf") || rule.rule.contains("podOverrides");
    let at = rule.at.strip_prefix("spec").filter(|_| !is_moot)?;
    Some(Rule { kind: Kind::Schedule, at: format!("spec.{part}{at}"), ..rule.clone() })
}

/// Returns the rules of all kinds.
pub fn rules() -> Vec<Rule> {
    let plain = PLAIN.iter().map(|&(kind, at, rule, message)| Rule {
        kind,
        at: at.to_owned(),
        rule: rule.to_owned(),
        message: message.to_owned(),
    });
    let runtimes = [
        (Kind::Agent, "==", "exactly one runtime is required: claude, command, scripted or external"),
        (Kind::Task, "<=", "at most one of claude, command, scripted and external may be set"),
    ];
    let runtimes = runtimes.into_iter().map(|(kind, how, message)| Rule {
        kind,
        at: "spec.runtime".to_owned(),
        rule: format!("{KINDS} {how} 1"),
        message: message.to_owned(),
    });
    let of_tasks = IMMUTABLE_FIELDS.iter().map(|field| (Kind::Task, "task", field));
    let of_workflows = IMMUTABLE_WORKFLOW_FIELDS.iter().map(|field| (Kind::Workflow, "workflow", field));
    let immutable = of_tasks.chain(of_workflows).map(|(kind, what, field)| Rule {
        kind,
        at: "spec".to_owned(),
        rule: format!(
            "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        ),
        message: format!("{field} is immutable; create a new {what}"),
    });
    let mut rules: Vec<_> = plain.chain(runtimes).chain(immutable).collect();
    let of_schedules: Vec<_> = rules.iter().filter_map(of_schedule).collect();
    rules.extend(of_schedules);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_immutable_or_known_mutable() {
        let schema = serde_json::to_value(super::super::definition_of_tasks()).unwrap();
        let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let fields: Vec<_> = spec["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mutable = ["priority", "desiredState", "ttlAfterFinished", "secrets"];
        for field in &fields {
            assert!(IMMUTABLE_FIELDS.contains(field) != mutable.contains(field), "{field}: is it mutable?");
        }
        assert_eq!(fields.len(), IMMUTABLE_FIELDS.len() + mutable.len());

        let schema = serde_json::to_value(super::super::definition_of_workflows()).unwrap();
        let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let fields: Vec<_> = spec["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mutable = ["desiredState", "ttlAfterFinished"];
        for field in &fields {
            let is_immutable = IMMUTABLE_WORKFLOW_FIELDS.contains(field);
            assert!(is_immutable != mutable.contains(field), "{field}: is it mutable?");
        }
        assert_eq!(fields.len(), IMMUTABLE_WORKFLOW_FIELDS.len() + mutable.len());
    }
}
