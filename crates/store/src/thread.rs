//! Records of threads.

use rota_core::usage::Usage;
use rota_core::{TaskId, TaskKey, Timestamp};
use serde::{Deserialize, Serialize};

/// Thread: tasks that run one after the other, each continuing the conversation of those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Number of its tasks, also of those that were removed.
    pub tasks: u64,
    /// Those of them that have not ended.
    pub open: u64,
    /// The newest of its tasks.
    pub last: TaskId,
    /// The newest of those that have not ended, for which the next one waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<(TaskKey, TaskId)>,
    /// The last task that has ended with a conversation. It is not pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<(TaskKey, TaskId)>,
    /// Usage of the tasks that have ended.
    #[serde(default)]
    pub usage: Usage,
    /// When a task was last added, or ended.
    pub used_at: Timestamp,
}

impl Thread {
    /// Returns when it was last used; `None` while a task of it has not ended.
    pub fn idle_since(&self) -> Option<Timestamp> {
        (self.open == 0).then_some(self.used_at)
    }
}
