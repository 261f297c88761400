//! Consequences of commands that later commits continue.

use rota_core::task::State;
use rota_core::{AgentName, Namespace, TaskId, TaskKey};
use serde::{Deserialize, Serialize};

use crate::{RoutePlace, WaitsKey};

/// Consequences of a command that did not fit into its commit. Later commits continue them, in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowUp {
    /// A task has ended: its dependents after this key, up to the last one that was created before the end, have not been
    /// notified. Later ones were created with the end. The id and state are those of the task, whose record may be
    /// undecodable by now.
    Ended {
        task: TaskKey,
        id: TaskId,
        state: State,
        after: TaskKey,
        until: TaskKey,
        /// Task of its thread that it still waited for: the one behind it waits for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<TaskId>,
    },
    /// A task was created: tasks still wait for its id or alias.
    Found { waits: WaitsKey, task: TaskKey },
    /// A credential may be used again: tasks still wait for it.
    Lifted { waits: WaitsKey },
    /// Tasks have found this one: it may be in a cycle with them.
    Cycle { task: TaskKey },
    /// An agent was created, changed or deleted: ready tasks after this place, and tasks that wait for the agent, have not
    /// been updated.
    Agent {
        namespace: Namespace,
        name: AgentName,
        after: Option<RoutePlace>,
        /// Where it began, if not at the first place: after the last one it continues at the first, up to here.
        end: Option<RoutePlace>,
    },
}
