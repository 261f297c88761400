//! Consequences of a command for other tasks that later commits continue, and what tasks wait for.

use std::time::Duration;

use rota_core::quota::CredentialId;
use rota_core::spending::Scope;
use rota_core::task::State;
use rota_core::workflow::NestedCommand;
use rota_core::{AgentName, Namespace, TaskId, TaskKey, Timestamp, WorkflowKey};
use serde::{Deserialize, Serialize};

use crate::{GroupKey, RoutePlace, StepKey, TaskPlace, WaitsKey};

/// Missing object, credential or budget that a PENDING task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKey {
    Id(TaskId),
    Alias(String),
    Agent(AgentName),
    /// A credential that cools down.
    Credential(CredentialId),
    /// A budget that has no room.
    Budget(Scope),
}

impl std::fmt::Display for WaitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "id/{id}"),
            Self::Alias(alias) => write!(f, "alias/{alias}"),
            Self::Agent(agent) => write!(f, "agent/{agent}"),
            Self::Credential(credential) => write!(f, "credential/{credential}"),
            Self::Budget(Scope::Namespace) => f.write_str("budget"),
            Self::Budget(Scope::Agent(agent)) => write!(f, "budget/{agent}"),
            Self::Budget(Scope::Workflow(workflow)) => write!(f, "workflow-budget/{}", workflow.0),
        }
    }
}

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
    /// A credential may be used again, or a budget was changed: tasks still wait for it.
    Lifted { waits: WaitsKey },
    /// An attempt has left something of a budget for which tasks wait.
    Funded { waits: WaitsKey },
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
    /// A step of a workflow has ended: the steps that need it, from this index on, have not been notified.
    StepEnded { workflow: WorkflowKey, step: u32, from: u32 },
    /// Held steps of a workflow may start.
    ReleaseSteps { workflow: WorkflowKey },
    /// A workflow has stopped: started steps from this index on have not been notified.
    HaltSteps { workflow: WorkflowKey, from: u32 },
    /// A workflow was resumed: deadlines of started steps from this index on have not moved.
    ResumeSteps { workflow: WorkflowKey, from: u32 },
    /// Tasks of a workflow behind this place have not been cancelled, suspended or resumed.
    StepTasks {
        workflow: WorkflowKey,
        after: Option<TaskPlace>,
        hold: TaskHold,
        /// The only step whose tasks are meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<u32>,
    },
    /// Workflows that are steps of one, or its only step that is meant, have not received a command behind this place.
    Nested {
        workflow: WorkflowKey,
        command: NestedCommand,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<u32>,
        after: Option<TaskPlace>,
    },
    /// Members that wait for a concurrency group may hold it.
    AdmitMembers { group: GroupKey },
    /// A member has joined a group with this revision: older ones have not been cancelled in its favor.
    ReplaceMembers {
        group: GroupKey,
        joined: u64,
        /// The member. Earlier versions left it out.
        #[serde(default)]
        by: Option<StepKey>,
    },
    /// A workflow was deleted, or its retention is over: its tasks behind this place, and its own rows, are left.
    RemoveWorkflow { workflow: WorkflowKey, after: Option<TaskPlace> },
    /// The clock jumped, as was noticed at a time: tasks on workers after this key, up to the last one of then, have not moved
    /// their deadlines.
    ClockJumped { by: Duration, at: Timestamp, after: TaskKey, until: TaskKey },
}

/// What the tasks of a workflow are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskHold {
    Cancel,
    Suspend,
    Resume,
}
