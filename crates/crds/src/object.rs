//! Manifest of any kind, with its position in the text.

use crate::resource::TRACEPARENT;
use crate::{Agent, ObjectMeta, Position, Schedule, Task, Violation, Workflow, WorkflowTemplate};

/// Parsed manifest of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Agent(Box<Agent>),
    Task(Box<Task>),
    Schedule(Box<Schedule>),
    Workflow(Box<Workflow>),
    WorkflowTemplate(Box<WorkflowTemplate>),
}

/// Manifest with its position in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub object: Object,
    pub position: Position,
}

impl Object {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "Agent",
            Self::Task(_) => "Task",
            Self::Schedule(_) => "Schedule",
            Self::Workflow(_) => "Workflow",
            Self::WorkflowTemplate(_) => "WorkflowTemplate",
        }
    }

    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Agent(agent) => &agent.metadata,
            Self::Task(task) => &task.metadata,
            Self::Schedule(schedule) => &schedule.metadata,
            Self::Workflow(workflow) => &workflow.metadata,
            Self::WorkflowTemplate(template) => &template.metadata,
        }
    }

    /// Returns the name, or the prefix of the generated one.
    pub fn name(&self) -> &str {
        let metadata = self.metadata();
        metadata.name.as_deref().or(metadata.generate_name.as_deref()).unwrap_or_default()
    }

    /// Returns the namespace, or `default` if it has none.
    pub fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        self.metadata().namespace.as_deref().unwrap_or(default)
    }

    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        match self {
            Self::Agent(agent) => agent.validate(),
            Self::Task(task) => task.validate(),
            Self::Schedule(schedule) => schedule.validate(),
            Self::Workflow(workflow) => workflow.validate(),
            Self::WorkflowTemplate(template) => template.validate(),
        }
    }

    /// Returns the fields that are set, but only effective on Kubernetes.
    pub fn kubernetes_only_fields(&self) -> Vec<&'static str> {
        let has_trace = self.metadata().annotations.contains_key(TRACEPARENT);
        let fields = match self {
            Self::Agent(agent) => vec![
                ("an agent's spec.secrets", !agent.spec.secrets.is_empty()),
                ("an agent's spec.pod", agent.spec.pod.is_some()),
            ],
            Self::Task(task) => vec![
                ("a task's spec.podOverrides", task.spec.pod_overrides.is_some()),
                ("a task's annotation rota.dev/traceparent", has_trace),
            ],
            Self::Schedule(schedule) => {
                let has_pod = schedule.spec.task.as_ref().is_some_and(|task| task.pod_overrides.is_some());
                vec![("a schedule's spec.task.podOverrides", has_pod)]
            }
            Self::Workflow(_) => vec![("a workflow's annotation rota.dev/traceparent", has_trace)],
            Self::WorkflowTemplate(_) => Vec::new(),
        };
        fields.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }

    /// Returns the fields that are set, but have no effect with the runtime that is set next to them.
    pub fn fields_without_effect(&self) -> Vec<&'static str> {
        let Self::Task(task) = self else { return Vec::new() };
        let ignores_turns = task
            .spec
            .runtime
            .as_ref()
            .is_some_and(|runtime| runtime.command.is_some() || runtime.scripted.is_some());
        let turns = task.spec.limits.as_ref().and_then(|limits| limits.max_turns);
        if ignores_turns && turns.is_some_and(|turns| turns > 0) {
            vec!["limits.maxTurns"]
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn turns_are_for_models_only() {
        let fields = |runtime: &str| {
            let head = "apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: a}";
            let spec = format!("{{agent: coder, prompt: hi, limits: {{maxTurns: 3}}, runtime: {runtime}}}");
            let text = format!("{{{head}, spec: {spec}}}");
            crate::parse("f.yaml", &text).unwrap()[0].object.fields_without_effect()
        };
        assert_eq!(fields("{command: {shell: make}}"), ["limits.maxTurns"]);
        assert_eq!(fields("{scripted: {}}"), ["limits.maxTurns"]);
        assert_eq!(fields("{claude: {}}"), [""; 0]);
    }

    #[test]
    fn annotated_trace_is_for_kubernetes_only() {
        let fields = |annotations: &str| {
            let head = "apiVersion: rota.dev/v1alpha1, kind: Task, spec: {agent: coder, prompt: hi}";
            let text = format!("{{{head}, metadata: {{name: a, annotations: {annotations}}}}}");
            crate::parse("f.yaml", &text).unwrap()[0].object.kubernetes_only_fields()
        };
        assert_eq!(fields("{rota.dev/traceparent: 00-1-2-01}"), ["a task's annotation rota.dev/traceparent"]);
        assert_eq!(fields("{other: x}"), [""; 0]);
    }
}
