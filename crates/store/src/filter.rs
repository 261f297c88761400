//! Filters and pages of lists of tasks.

use std::collections::BTreeMap;

use rota_core::task::{State, Task};
use rota_core::{AgentName, Namespace, TaskId, TaskKey, Timestamp, WorkflowId};

/// Filter and page of a list of tasks.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub namespace: Option<Namespace>,
    /// Any state if empty.
    pub states: Vec<State>,
    pub agent: Option<AgentName>,
    /// Labels that must all match.
    pub labels: BTreeMap<String, String>,
    pub owner: Option<String>,
    pub alias: Option<String>,
    pub thread: Option<String>,
    pub parent: Option<TaskId>,
    /// Workflow that created the tasks.
    pub workflow: Option<WorkflowId>,
    /// Only tasks with a question that waits for a person.
    pub open_questions: bool,
    /// Only tasks that need the attention of a person.
    pub attention: bool,
    /// Only these tasks, of which no others are visited; any if absent.
    pub keys: Option<Vec<TaskKey>>,
    /// Inclusive lower bound of the creation time.
    pub created_after: Option<Timestamp>,
    /// Exclusive upper bound of the creation time.
    pub created_before: Option<Timestamp>,
    /// Page token: only older tasks.
    pub before: Option<TaskKey>,
    pub limit: usize,
}

impl Filter {
    /// Returns the keys of the only tasks to be visited, in the order of the list.
    pub fn keys_of_page(&self) -> Option<Vec<TaskKey>> {
        let before = self.before.unwrap_or(TaskKey(u64::MAX));
        let mut keys: Vec<_> = self.keys.as_ref()?.iter().copied().filter(|key| *key < before).collect();
        keys.sort_unstable_by(|one, other| other.cmp(one));
        Some(keys)
    }

    /// Whether a task matches, regardless of the page.
    pub fn fits(&self, task: &Task) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| task.namespace == *namespace)
            && (self.states.is_empty() || self.states.contains(&task.state))
            && self.agent.as_ref().is_none_or(|agent| task.agent() == Some(agent))
            && self.labels.iter().all(|(key, value)| task.labels.get(key) == Some(value))
            && self.owner.as_ref().is_none_or(|owner| task.owner == *owner)
            && self.alias.as_ref().is_none_or(|alias| task.alias.as_ref() == Some(alias))
            && self.thread.as_ref().is_none_or(|thread| task.thread.as_ref() == Some(thread))
            && self.parent.is_none_or(|parent| task.parent == Some(parent))
            && self.workflow.is_none_or(|id| task.step.as_ref().is_some_and(|step| step.id == id))
            && (!self.open_questions || task.open_questions().next().is_some())
            && (!self.attention || task.needs_attention())
            && self.keys.as_ref().is_none_or(|keys| keys.contains(&task.key))
            && self.created_after.is_none_or(|at| task.created_at >= at)
            && self.created_before.is_none_or(|at| task.created_at < at)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub tasks: Vec<Task>,
    /// Token of the next page, if there may be more.
    pub next: Option<TaskKey>,
}
