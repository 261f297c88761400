//! Rows as a load returns them: a record, or why it cannot be decoded, with columns of it.

use rota_core::task::State;
use rota_core::workflow::{Step, Workflow};
use rota_core::{Epoch, TaskId, TaskKey, WorkflowId, WorkflowKey};

use crate::{Session, StepKey, Stored, TaskRow};

/// State of a task, without its record.
#[derive(Debug, Clone)]
pub struct StateRow {
    pub key: TaskKey,
    pub id: TaskId,
    pub state: Stored<State>,
}

impl StateRow {
    pub fn new(row: TaskRow) -> Self {
        Self { key: row.key, id: row.id, state: row.task.map(|task| task.state) }
    }
}

/// Row of the last session of a worker.
#[derive(Debug, Clone)]
pub struct SessionRow {
    pub epoch: Epoch,
    pub session: Stored<Session>,
}

impl From<Session> for SessionRow {
    fn from(session: Session) -> Self {
        Self { epoch: session.epoch, session: Ok(session) }
    }
}

#[derive(Debug, Clone)]
pub struct WorkflowRow {
    pub key: WorkflowKey,
    pub id: WorkflowId,
    pub workflow: Stored<Workflow>,
}

impl From<Workflow> for WorkflowRow {
    fn from(workflow: Workflow) -> Self {
        Self { key: workflow.key, id: workflow.id, workflow: Ok(workflow) }
    }
}

#[derive(Debug, Clone)]
pub struct StepRow {
    pub key: StepKey,
    pub step: Stored<Step>,
}

impl From<Step> for StepRow {
    fn from(step: Step) -> Self {
        Self { key: (step.workflow, step.index), step: Ok(step) }
    }
}
