//! Targets of tasks, and the routes that workers cover.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{AgentName, Namespace, TaskId, WorkerName};

/// Capability of the workers whose attempts are isolated from them and from each other. Derived from their Hello.
pub const ISOLATED: &str = "isolated";

/// Workers that may execute a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Agent(AgentName),
    /// Workers of any of these agents.
    Agents(BTreeSet<AgentName>),
    Worker(WorkerName),
    /// Any worker that has all of these capabilities.
    Capabilities(BTreeSet<String>),
    /// The worker that was started for this task alone.
    Task {
        id: TaskId,
        agent: AgentName,
    },
}

impl Target {
    /// Whether the target belongs to one task, so that its route is removed with the task.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Task { .. })
    }

    /// Whether only workers that isolate their attempts may execute the task.
    pub fn demands_isolation(&self) -> bool {
        matches!(self, Self::Capabilities(words) if words.contains(ISOLATED))
    }

    /// Returns the agent that the target names, if it names one.
    pub fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::Agent(agent) | Self::Task { agent, .. } => Some(agent),
            Self::Agents(_) | Self::Worker(_) | Self::Capabilities(_) => None,
        }
    }

    /// Returns who is meant, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Agent(agent) => format!("agent {agent}"),
            Self::Agents(agents) => {
                format!("agents {}", agents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Self::Worker(worker) => format!("worker {worker}"),
            Self::Capabilities(words) => {
                format!("capabilities {}", words.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            Self::Task { .. } => "this task alone".to_owned(),
        }
    }

    /// Returns the agents that the target names.
    pub fn agents(&self) -> impl Iterator<Item = &AgentName> {
        let several = match self {
            Self::Agents(agents) => Some(agents),
            _ => None,
        };
        self.agent().into_iter().chain(several.into_iter().flatten())
    }
}

/// Queue of ready tasks with the same namespace and target. Interned by the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub namespace: Namespace,
    pub target: Target,
}

/// Properties of a worker that matter for matching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub namespace: Namespace,
    pub worker: WorkerName,
    pub agent: AgentName,
    /// Capabilities of its agent and its own. Shared: workers of one agent mostly have the same.
    pub capabilities: Arc<BTreeSet<String>>,
    /// Task that it was started for, if it was started for one.
    pub task: Option<TaskId>,
}

impl Profile {
    /// Whether this worker may take tasks from `route`. A worker that was started for one task takes no other.
    pub fn covers(&self, route: &Route) -> bool {
        self.namespace == route.namespace
            && match (&route.target, self.task) {
                (Target::Task { id, agent }, Some(own)) => *id == own && *agent == self.agent,
                (Target::Task { .. }, None) | (_, Some(_)) => false,
                (Target::Agent(agent), None) => *agent == self.agent,
                (Target::Agents(agents), None) => agents.contains(&self.agent),
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
    fn profile_covers_matching_routes() {
        let namespace = Namespace::new("a").unwrap();
        let profile = Profile {
            namespace: namespace.clone(),
            worker: WorkerName::new("w").unwrap(),
            agent: AgentName::new("g").unwrap(),
            capabilities: Arc::new(words(&["code", "test"])),
            task: None,
        };
        let at = |target| Route { namespace: namespace.clone(), target };
        let covers = |target| profile.covers(&at(target));
        assert!(covers(Target::Agent(AgentName::new("g").unwrap())));
        assert!(!covers(Target::Agent(AgentName::new("h").unwrap())));
        let several =
            |names: &[&str]| Target::Agents(names.iter().map(|name| AgentName::new(name).unwrap()).collect());
        assert!(covers(several(&["g", "h"])) && !covers(several(&["h", "i"])));
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
