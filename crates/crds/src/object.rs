//! One manifest of any kind, and where in its text it began.

use crate::{Agent, ObjectMeta, Position, Task, Violation};

/// One manifest.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A kind of worker.
    Agent(Box<Agent>),
    /// A unit of work.
    Task(Box<Task>),
}

/// A manifest and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it says.
    pub object: Object,
    /// Where it began.
    pub position: Position,
}

impl Object {
    /// Its `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "Agent",
            Self::Task(_) => "Task",
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Agent(agent) => &agent.metadata,
            Self::Task(task) => &task.metadata,
        }
    }

    /// Its name, or the beginning of the one it will get.
    pub fn name(&self) -> &str {
        let metadata = self.metadata();
        metadata.name.as_deref().or(metadata.generate_name.as_deref()).unwrap_or_default()
    }

    /// Its namespace, or the one the caller works in.
    pub fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        self.metadata().namespace.as_deref().unwrap_or(default)
    }

    /// Everything that is wrong with it.
    pub fn validate(&self) -> Vec<Violation> {
        match self {
            Self::Agent(agent) => agent.validate(),
            Self::Task(task) => task.validate(),
        }
    }

    /// Fields that are set and that only a cluster's operator looks at.
    pub fn of_clusters(&self) -> Vec<&'static str> {
        let fields = match self {
            Self::Agent(agent) => vec![
                ("an agent's spec.secrets", !agent.spec.secrets.is_empty()),
                ("an agent's spec.pod", agent.spec.pod.is_some()),
            ],
            Self::Task(task) => vec![
                ("a task's spec.podOverrides", task.spec.pod_overrides.is_some()),
                ("a task's spec.ttlAfterFinished", task.spec.ttl_after_finished.is_some()),
            ],
        };
        fields.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }
}
