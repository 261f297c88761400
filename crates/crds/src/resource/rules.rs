//! The rules that a schema alone cannot say, as a cluster checks them (CEL), each with the sentence
//! that people get. What needs more than one field's neighbours is `validate`'s: the operator says
//! it in the condition `Accepted`.

/// The kind that a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Agents.
    Agent,
    /// Tasks.
    Task,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its kind.
    pub kind: Kind,
    /// The field that it is at, as `spec.runtime`; empty for the whole object.
    pub at: &'static str,
    /// The CEL expression that must hold.
    pub rule: String,
    /// What people are told when it does not.
    pub message: String,
}

/// Fields of a task that are what was asked for. Priority, desired state and TTL may change.
const FIXED: &[&str] = &[
    "title",
    "prompt",
    "input",
    "agent",
    "worker",
    "capabilities",
    "dependsOn",
    "limits",
    "retry",
    "startTime",
    "environment",
    "workspace",
    "runtime",
    "owner",
    "parentTask",
    "strict",
    "isolation",
    "podOverrides",
    "secretNames",
];

const GIT: &str = "!self.matches('^[^/@]*://[^/@]*:[^/@]*@')";
const GIT_MESSAGE: &str =
    "a password in a URL can be read by everybody who can read this object; give it as a secret";
const COMMAND: &str = "!has(self.argv) || size(self.argv) == 0 || !has(self.shell)";
const COMMAND_MESSAGE: &str = "argv and shell exclude each other";
const KINDS: &str =
    "[has(self.claude), has(self.command), has(self.scripted), has(self.external)].filter(set, set).size()";

const PLAIN: &[(Kind, &str, &str, &str)] = &[
    (
        Kind::Agent,
        "",
        "size(self.metadata.name) <= 63",
        "an agent's name has at most 63 characters, since its pods carry it as a label",
    ),
    (
        Kind::Agent,
        "spec",
        "!has(self.maxReplicas) || self.maxReplicas >= self.replicas",
        "maxReplicas must not be below replicas, the floor that always runs",
    ),
    (
        Kind::Agent,
        "spec",
        "!has(self.maxReplicas) || !has(self.spareWorkers) || self.spareWorkers <= self.maxReplicas",
        "spareWorkers must not be above maxReplicas",
    ),
    (Kind::Agent, "spec.runtime.command", COMMAND, COMMAND_MESSAGE),
    (Kind::Agent, "spec.workspace.git.url", GIT, GIT_MESSAGE),
    (Kind::Task, "", "size(self.metadata.name) <= 63", "a task's name has at most 63 characters"),
    (
        Kind::Task,
        "spec",
        "[has(self.agent), has(self.worker), has(self.capabilities) && size(self.capabilities) > 0].filter(set, set).size() <= 1",
        "agent, worker and capabilities exclude each other",
    ),
    (
        Kind::Task,
        "spec",
        "!has(self.isolation) || self.isolation != 'Pod' || !(has(self.worker) || has(self.capabilities) && size(self.capabilities) > 0)",
        "isolation Pod needs an agent, of whose kind the task's own worker is; not a worker or capabilities",
    ),
    (
        Kind::Task,
        "spec",
        "!has(self.podOverrides) || has(self.isolation) && self.isolation == 'Pod'",
        "podOverrides need isolation Pod: a shared worker's pod is its agent's",
    ),
    (
        Kind::Task,
        "spec",
        "!has(self.secrets) || size(self.secrets) == 0",
        "secrets in a Task could be read by everybody who can read the Task: keep them in a Secret and name it in the agent's spec.secrets",
    ),
    (
        Kind::Task,
        "spec",
        "!has(oldSelf.desiredState) || oldSelf.desiredState != 'Cancelled' || has(self.desiredState) && self.desiredState == 'Cancelled'",
        "a cancelled task stays cancelled; make a new one",
    ),
    (
        Kind::Task,
        "spec.priority",
        "string(self).matches('^(?i:low|normal|high|urgent|10|[0-9])$')",
        "a priority is from 0 to 10, or LOW, NORMAL, HIGH, URGENT",
    ),
    (Kind::Task, "spec.runtime.command", COMMAND, COMMAND_MESSAGE),
    (Kind::Task, "spec.workspace.git.url", GIT, GIT_MESSAGE),
];

/// All rules.
pub fn rules() -> Vec<Rule> {
    let plain = PLAIN.iter().map(|&(kind, at, rule, message)| Rule {
        kind,
        at,
        rule: rule.to_owned(),
        message: message.to_owned(),
    });
    let runtimes = [
        (Kind::Agent, "==", "an agent has exactly one runtime: claude, command, scripted or external"),
        (Kind::Task, "<=", "a runtime is at most one of claude, command, scripted and external"),
    ];
    let runtimes = runtimes.into_iter().map(|(kind, how, message)| Rule {
        kind,
        at: "spec.runtime",
        rule: format!("{KINDS} {how} 1"),
        message: message.to_owned(),
    });
    let fixed = FIXED.iter().map(|field| Rule {
        kind: Kind::Task,
        at: "spec",
        rule: format!(
            "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        ),
        message: format!("{field} cannot change once the task exists; make a new task"),
    });
    plain.chain(runtimes).chain(fixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_task_is_fixed_or_known_to_change() {
        let schema = serde_json::to_value(super::super::definition_of_tasks()).unwrap();
        let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let fields: Vec<_> = spec["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let free = ["priority", "desiredState", "ttlAfterFinished", "secrets"];
        for field in &fields {
            assert!(FIXED.contains(field) != free.contains(field), "{field}: may it change?");
        }
        assert_eq!(fields.len(), FIXED.len() + free.len());
    }
}
