//! Labels of tasks and agents that have a meaning for the control plane.

/// Cluster whose operator manages a record. Requests that change such a record must name the same cluster: the operator
/// would overwrite a change by anyone else.
pub const CLUSTER: &str = "rota.dev/cluster";

/// Kind of a task, so that lists can be filtered by it.
pub const KIND: &str = "rota.dev/kind";

/// Schedule that created a task.
pub const SCHEDULE: &str = "rota.dev/schedule";

/// Marks tasks in which an agent plans.
pub const PLANNER: &str = "rota.dev/planner";

/// Id of the task that took the place of a failed one.
pub const REPLAYED: &str = "rota.dev/replayed";

/// Id of the failed task in whose place a task was created.
pub const REPLAY_OF: &str = "rota.dev/replay-of";

/// Number of times that tasks were continued for a pull request, on those that were.
pub const FOLLOWED: &str = "rota.dev/followed";

/// Time before which the comments of a pull request were considered, in seconds since 1970.
pub const FOLLOWED_UNTIL: &str = "rota.dev/followed-until";
