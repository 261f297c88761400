//! Who may do a task, and which workers a route covers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{AgentName, Namespace, TaskId, WorkerName};

/// Who may do a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Any worker of this agent.
    Agent(AgentName),
    /// This one worker.
    Worker(WorkerName),
    /// Any worker with all of these capabilities.
    Capabilities(BTreeSet<String>),
    /// The worker of this agent that was started for this one task: its own id.
    Task {
        /// The task.
        id: TaskId,
        /// The kind of worker that it needs.
        agent: AgentName,
    },
}

impl Target {
    /// Whether only one task can ever have it, so that its route goes with the task.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Task { .. })
    }

    /// The agent that it names, if it names one.
    pub fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::Agent(agent) | Self::Task { agent, .. } => Some(agent),
            Self::Worker(_) | Self::Capabilities(_) => None,
        }
    }
}

/// Where a ready task waits: its namespace and target. Interned by the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Matching never crosses namespaces.
    pub namespace: Namespace,
    /// Who may take from it.
    pub target: Target,
}

/// What of a worker matters for matching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub worker: WorkerName,
    /// Its agent.
    pub agent: AgentName,
    /// What it can do: its agent's capabilities and its own.
    pub capabilities: BTreeSet<String>,
    /// The one task that it was started for.
    pub task: Option<TaskId>,
}

impl Profile {
    /// Whether this worker may take tasks from `route`. One that was started for a task takes nothing else.
    pub fn covers(&self, route: &Route) -> bool {
        self.namespace == route.namespace
            && match (&route.target, self.task) {
                (Target::Task { id, agent }, Some(own)) => *id == own && *agent == self.agent,
                (Target::Task { .. }, None) | (_, Some(_)) => false,
                (Target::Agent(agent), None) => *agent == self.agent,
                (Target::Worker(worker), None) => *worker == self.worker,
                (Target::Capabilities(words), None) => words.is_subset(&self.capabilities),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn coverage() {
        let namespace = Namespace::new("a").unwrap();
        let profile = Profile {
            namespace: namespace.clone(),
            worker: WorkerName::new("w").unwrap(),
            agent: AgentName::new("g").unwrap(),
            capabilities: words(&["code", "test"]),
            task: None,
        };
        let at = |target| Route { namespace: namespace.clone(), target };
        let covers = |target| profile.covers(&at(target));
        assert!(covers(Target::Agent(AgentName::new("g").unwrap())));
        assert!(!covers(Target::Agent(AgentName::new("h").unwrap())));
        assert!(covers(Target::Worker(WorkerName::new("w").unwrap())));
        assert!(covers(Target::Capabilities(words(&["code"]))));
        assert!(covers(Target::Capabilities(words(&[]))));
        assert!(!covers(Target::Capabilities(words(&["code", "docs"]))));
        let elsewhere =
            Route { namespace: Namespace::new("b").unwrap(), target: Target::Capabilities(words(&[])) };
        assert!(!profile.covers(&elsewhere));

        let id = |number| TaskId(uuid::Uuid::from_u128(number));
        let task =
            |number, agent: &str| Target::Task { id: id(number), agent: AgentName::new(agent).unwrap() };
        assert!(!covers(task(1, "g")), "a shared worker takes no isolated task");
        let own = Profile { task: Some(id(1)), ..profile.clone() };
        assert!(own.covers(&at(task(1, "g"))));
        for other in [
            task(2, "g"),
            task(1, "h"),
            Target::Agent(own.agent.clone()),
            Target::Worker(own.worker.clone()),
            Target::Capabilities(words(&[])),
        ] {
            assert!(!own.covers(&at(other)), "a worker of its own takes nothing else");
        }
    }
}
