//! Dependencies between tasks.

use serde::{Deserialize, Serialize};

use super::apply::Step;
use super::{Rejected, State, StateChange, Task};
use crate::TaskId;
use crate::failure::{Class, Failure};

/// Key of a dependency, as its task declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyKey {
    Id(TaskId),
    /// Newest task with this alias at creation, or the first one created afterwards.
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

/// Reaction to a dependency that does not succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    #[default]
    Fail,
    Continue,
    Cancel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyState {
    /// The task does not exist yet.
    Missing,
    /// The task has not ended.
    Waiting(TaskId),
    /// The task has ended in this state.
    Ended(TaskId, State),
}

/// Task that must end before its dependent starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Key under which the dependency was declared.
    pub key: DependencyKey,
    /// What happens if it does not succeed.
    pub on_failure: OnFailure,
    pub state: DependencyState,
    /// Whether it is the task before this one in its thread, whose result is not passed on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_thread: bool,
}

impl Dependency {
    /// Returns the dependency on the task before in a thread, which runs.
    pub fn of_thread(id: TaskId) -> Self {
        let state = DependencyState::Waiting(id);
        Self { key: DependencyKey::Id(id), on_failure: OnFailure::Continue, state, of_thread: true }
    }

    /// Returns the id of the task, once it exists.
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
    /// Returns the task of its thread that it waits for.
    pub fn waits_in_thread(&self) -> Option<TaskId> {
        self.dependencies.iter().find_map(|dependency| match dependency.state {
            DependencyState::Waiting(id) if dependency.of_thread => Some(id),
            _ => None,
        })
    }

    /// Whether every dependency has ended.
    pub(super) fn dependencies_over(&self) -> bool {
        self.dependencies.iter().all(Dependency::is_over)
    }

    /// Returns the state change that an unsuccessful dependency requires, if any.
    pub(super) fn broken_dependency(&self) -> Option<StateChange> {
        self.dependencies.iter().find_map(|dependency| {
            let DependencyState::Ended(_, state) = dependency.state else { return None };
            if state == State::Succeeded {
                return None;
            }
            let message = format!("dependency {} is {}", dependency.key, state.name());
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

    pub(super) fn thread_passed_on(&mut self, id: TaskId, next: TaskId) {
        // It may also depend on it otherwise.
        for dependency in &mut self.task.dependencies {
            if dependency.of_thread && dependency.state == DependencyState::Waiting(id) {
                *dependency = Dependency::of_thread(next);
            }
        }
    }

    pub(super) fn cycle(&mut self, path: &[TaskId], omitted: usize) -> Result<(), Rejected> {
        if self.task.state != State::Pending {
            return Err(Rejected::State(self.task.state));
        }
        let mut steps: Vec<_> = path.iter().map(ToString::to_string).collect();
        if omitted > 0 {
            steps.push(format!("({omitted} more)"));
        }
        steps.extend(path.first().map(ToString::to_string));
        let message = format!("dependency cycle: {}", steps.join(" → "));
        let mut failure = Failure::new(Class::Dependency, message.clone());
        failure.hint = "remove one of these dependencies and create the tasks again".to_owned();
        self.go(StateChange::new(State::Failed, "dependency_cycle").message(message).failure(failure));
        Ok(())
    }
}
