//! Filters and pages of lists of tasks.

use std::collections::BTreeMap;

use rota_core::failure::Class;
use rota_core::rank::Priority;
use rota_core::task::{State, Task};
use rota_core::{AgentName, Namespace, TaskId, TaskKey, Timestamp, WorkerName, WorkflowId};

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
    /// Only dead letters: failed tasks that are no steps of workflows, without this label.
    pub dead_letters: Option<&'static str>,
    /// Any of these classes of the failure that ended the task, or of its last attempt as long as it has not ended; any if empty.
    pub failures: Vec<Class>,
    /// Worker of the current or last attempt.
    pub worker: Option<WorkerName>,
    pub min_priority: Option<Priority>,
    pub max_priority: Option<Priority>,
    /// Least cost of all attempts, in millionths of a US dollar.
    pub min_cost_micro_usd: Option<i64>,
    /// Least number of the current or last attempt.
    pub min_attempts: u32,
    /// Only these tasks, of which no others are visited; any if absent.
    pub keys: Option<Vec<TaskKey>>,
    /// Inclusive lower bound of the creation time.
    pub created_after: Option<Timestamp>,
    /// Exclusive upper bound of the creation time.
    pub created_before: Option<Timestamp>,
    /// Inclusive lower bound of the time of the end.
    pub ended_after: Option<Timestamp>,
    /// Exclusive upper bound of the time of the end.
    pub ended_before: Option<Timestamp>,
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
            && self.dead_letters.is_none_or(|replayed| {
                task.state == State::Failed && task.step.is_none() && !task.labels.contains_key(replayed)
            })
            && self.keys.as_ref().is_none_or(|keys| keys.contains(&task.key))
            && self.created_after.is_none_or(|at| task.created_at >= at)
            && self.created_before.is_none_or(|at| task.created_at < at)
            && self.ended_after.is_none_or(|at| task.ended_at.is_some_and(|end| end >= at))
            && self.ended_before.is_none_or(|at| task.ended_at.is_some_and(|end| end < at))
            && self.fits_course(task)
    }

    /// Whether the attempts of a task match, and its priority.
    fn fits_course(&self, task: &Task) -> bool {
        let failure = match task.state.is_final() {
            true => task.failure.as_ref(),
            false => task.last_failure.as_deref(),
        };
        let worker =
            task.assignment.as_ref().map(|assignment| &assignment.worker).or(task.last_worker.as_ref());
        (self.failures.is_empty() || failure.is_some_and(|failure| self.failures.contains(&failure.class)))
            && (self.worker.is_none() || self.worker.as_ref() == worker)
            && self.min_priority.is_none_or(|least| task.priority >= least)
            && self.max_priority.is_none_or(|most| task.priority <= most)
            && self.min_cost_micro_usd.is_none_or(|least| task.total_usage().cost_micro_usd >= least)
            && task.attempt() >= self.min_attempts
    }
}

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub tasks: Vec<Task>,
    /// Token of the next page, if there may be more.
    pub next: Option<TaskKey>,
}
