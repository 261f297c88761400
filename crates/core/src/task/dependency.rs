//! What a task waits for in other tasks.

use serde::{Deserialize, Serialize};

use super::apply::Step;
use super::{Rejected, State, StateChange, Task};
use crate::TaskId;
use crate::failure::{Class, Failure};

/// How a dependency was named.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyKey {
    /// By id.
    Id(TaskId),
    /// By alias: the newest task of that alias, when this one was made or the first that comes.
    Alias(String),
}

impl std::fmt::Display for DependencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// What happens if a dependency does not succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The task fails too.
    #[default]
    Fail,
    /// The task is done all the same.
    Continue,
    /// The task is cancelled.
    Cancel,
}

/// Where a dependency stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyState {
    /// There is no such task yet.
    Missing,
    /// It has not ended.
    Waiting(TaskId),
    /// It has ended so.
    Ended(TaskId, State),
}

/// A task that must end first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// How it was named.
    pub key: DependencyKey,
    /// What happens if it does not succeed.
    pub on_failure: OnFailure,
    /// Where it stands.
    pub state: DependencyState,
}

impl Dependency {
    /// The task that it is, once it exists.
    pub fn id(&self) -> Option<TaskId> {
        match self.state {
            DependencyState::Missing => None,
            DependencyState::Waiting(id) | DependencyState::Ended(id, _) => Some(id),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, DependencyState::Ended(..))
    }
}

impl Task {
    /// Whether every task that it depends on has ended.
    pub(super) fn dependencies_over(&self) -> bool {
        self.dependencies.iter().all(Dependency::is_over)
    }

    /// The step that an unsuccessful dependency forces, if one does.
    pub(super) fn broken_dependency(&self) -> Option<StateChange> {
        self.dependencies.iter().find_map(|dependency| {
            let DependencyState::Ended(_, state) = dependency.state else { return None };
            if state == State::Succeeded {
                return None;
            }
            let message = format!("the task {} that it depends on is {}", dependency.key, state.name());
            match dependency.on_failure {
                OnFailure::Continue => None,
                OnFailure::Cancel => {
                    Some(StateChange::new(State::Cancelled, "dependency_failed").message(message))
                }
                OnFailure::Fail => Some(
                    StateChange::new(State::Failed, "dependency_failed")
                        .message(message.clone())
                        .failure(Failure::new(Class::Dependency, message)),
                ),
            }
        })
    }
}

impl Step<'_> {
    pub(super) fn dependency_found(
        &mut self,
        key: &super::DependencyKey,
        id: TaskId,
    ) -> Result<(), Rejected> {
        for dependency in &mut self.task.dependencies {
            if dependency.state == DependencyState::Missing && dependency.key == *key {
                dependency.state = DependencyState::Waiting(id);
            }
        }
        Ok(())
    }

    pub(super) fn dependency_ended(&mut self, id: TaskId, state: State) -> Result<(), Rejected> {
        for dependency in &mut self.task.dependencies {
            if dependency.state == DependencyState::Waiting(id) {
                dependency.state = DependencyState::Ended(id, state);
            }
        }
        self.settle();
        Ok(())
    }

    pub(super) fn cycle(&mut self, path: &[TaskId]) -> Result<(), Rejected> {
        if self.task.state != State::Pending {
            return Err(Rejected::State(self.task.state));
        }
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        let message = format!("its dependencies form a cycle: {}", path.join(" → "));
        let mut failure = Failure::new(Class::Dependency, message.clone());
        failure.hint = "remove one of these dependencies and hand the tasks in again".to_owned();
        self.go(StateChange::new(State::Failed, "dependency_cycle").message(message).failure(failure));
        Ok(())
    }
}
