//! Who may do a task, and which workers a route covers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{AgentName, Namespace, WorkerName};

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
}

impl Profile {
    /// Whether this worker may take tasks from `route`.
    pub fn covers(&self, route: &Route) -> bool {
        self.namespace == route.namespace
            && match &route.target {
                Target::Agent(agent) => *agent == self.agent,
                Target::Worker(worker) => *worker == self.worker,
                Target::Capabilities(words) => words.is_subset(&self.capabilities),
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
        };
        let covers = |target| profile.covers(&Route { namespace: namespace.clone(), target });
        assert!(covers(Target::Agent(AgentName::new("g").unwrap())));
        assert!(!covers(Target::Agent(AgentName::new("h").unwrap())));
        assert!(covers(Target::Worker(WorkerName::new("w").unwrap())));
        assert!(covers(Target::Capabilities(words(&["code"]))));
        assert!(covers(Target::Capabilities(words(&[]))));
        assert!(!covers(Target::Capabilities(words(&["code", "docs"]))));
        let elsewhere =
            Route { namespace: Namespace::new("b").unwrap(), target: Target::Capabilities(words(&[])) };
        assert!(!profile.covers(&elsewhere));
    }
}
