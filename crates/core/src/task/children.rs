//! Children of a task: tasks that name it as their parent. Its later attempts get their results.

use super::apply::Step;
use super::{DependencyState, Task};
use crate::TaskId;

/// Children that a record keeps: as many as a task may have dependencies.
const MAX_CHILDREN: usize = 256;

impl Task {
    /// Returns the tasks whose results an attempt gets: the dependencies that have ended, but for those of its thread, then its children.
    pub fn builds_on(&self) -> impl Iterator<Item = TaskId> {
        let ended = || {
            let passed_on = self.dependencies.iter().filter(|dependency| !dependency.of_thread);
            passed_on.filter_map(|dependency| match dependency.state {
                DependencyState::Ended(id, _) => Some(id),
                _ => None,
            })
        };
        let children = self.children.iter().copied();
        ended().chain(children.filter(move |child| !ended().any(|dependency| dependency == *child)))
    }
}

impl Step<'_> {
    pub(super) fn add_child(&mut self, id: TaskId) {
        let children = &mut self.task.children;
        if children.len() < MAX_CHILDREN && !children.contains(&id) {
            children.push(id);
        }
    }
}
