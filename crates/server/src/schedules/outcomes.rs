//! Tasks and workflows of runs: what has become of them, and the commands that cancel and remove them.

use rota_core::task::{Command as TaskCommand, Desired};
use rota_core::workflow::{self, Workflow};
use rota_core::{Namespace, TaskId, WorkflowId};
use rota_proto::v1;
use rota_store::{Command, WorkflowCommand, WorkflowQuery};
use tonic::{Code, Status};

use super::record::RunOf;
use crate::store_client::StoreClient;
use crate::wire::{self, event, failure, status, time};

/// A run, with the state of its task or workflow.
pub(crate) struct Observed {
    pub(crate) run: v1::ScheduleRun,
    pub(crate) is_over: bool,
}

async fn workflow_of(
    store: &StoreClient,
    namespace: &Namespace,
    run: &v1::ScheduleRun,
) -> Result<Option<Workflow>, Status> {
    let Ok(id) = run.workflow.parse::<WorkflowId>() else { return Ok(None) };
    let query = WorkflowQuery::Id((namespace.clone(), id));
    let rows = store.reads().workflows(query).await.map_err(status::store)?;
    Ok(rows.workflows.into_iter().find(|found| !found.deleted))
}

/// Whether the workflow of a run was cancelled already. One whose record cannot be decoded is not: what it has left can be.
pub(super) async fn is_cancelled(
    store: &StoreClient,
    namespace: &Namespace,
    run: &v1::ScheduleRun,
) -> Result<bool, Status> {
    match workflow_of(store, namespace, run).await {
        Err(damaged) if damaged.code() == Code::DataLoss => Ok(false),
        found => Ok(found?.is_some_and(|found| found.cancelled)),
    }
}

/// Looks up the task or workflow of a run. Returns `None` if it does not exist. One whose record cannot be decoded may still run:
/// its message is the reason, and the schedule continues.
pub(crate) async fn observe(
    store: &StoreClient,
    namespace: &Namespace,
    run: v1::ScheduleRun,
) -> Result<Option<Observed>, Status> {
    match look_up(store, namespace, run.clone()).await {
        Err(damaged) if damaged.code() == Code::DataLoss => {
            let run = v1::ScheduleRun { message: damaged.message().to_owned(), ..run };
            Ok(Some(Observed { run, is_over: false }))
        }
        observed => observed,
    }
}

async fn look_up(
    store: &StoreClient,
    namespace: &Namespace,
    run: v1::ScheduleRun,
) -> Result<Option<Observed>, Status> {
    let RunOf::Task(id) = RunOf::new(&run) else {
        let Some(found) = workflow_of(store, namespace, &run).await? else { return Ok(None) };
        let status = wire::workflow::workflow(&found, None, None).status.unwrap_or_default();
        let run = v1::ScheduleRun {
            workflow_state: status.state,
            end_time: status.end_time,
            message: status.message,
            ..run
        };
        return Ok(Some(Observed { run, is_over: found.state.is_final() }));
    };
    let Ok(id) = id.parse::<TaskId>() else { return Ok(None) };
    let Some(task) = store.record(namespace, id).await? else { return Ok(None) };
    let message = task.failure.as_ref().map(|one| failure::to_wire(one).message).unwrap_or_default();
    let run = v1::ScheduleRun {
        state: event::state(task.state).into(),
        end_time: task.ended_at.map(time::timestamp),
        message,
        ..run
    };
    Ok(Some(Observed { run, is_over: task.state.is_final() }))
}

/// Whether a run has ended with success.
pub(super) fn has_succeeded(run: &v1::ScheduleRun) -> bool {
    match RunOf::new(run) {
        RunOf::Workflow(_) => run.workflow_state() == v1::WorkflowState::Succeeded,
        RunOf::Task(_) => run.state() == v1::TaskState::Succeeded,
    }
}

/// Returns the command that cancels the task or workflow of a run.
pub(super) fn cancel(namespace: &Namespace, run: &v1::ScheduleRun, reason: String) -> Option<Command> {
    let namespace = namespace.clone();
    Some(match RunOf::new(run) {
        RunOf::Workflow(id) => {
            let command = workflow::Command::Cancel { reason };
            WorkflowCommand::Apply { namespace, id: id.parse().ok()?, command }.into()
        }
        RunOf::Task(id) => {
            let desired = Some(Desired::Cancelled);
            let command = TaskCommand::Update { priority: None, labels: None, desired, reason };
            Command::Task { namespace, id: id.parse().ok()?, command }
        }
    })
}

/// Returns the command that removes the task or workflow of an ended run.
pub(super) fn remove(namespace: &Namespace, run: &v1::ScheduleRun) -> Option<Command> {
    let namespace = namespace.clone();
    Some(match RunOf::new(run) {
        RunOf::Workflow(id) => {
            let (id, command) = (id.parse().ok()?, workflow::Command::Delete);
            WorkflowCommand::Apply { namespace, id, command }.into()
        }
        RunOf::Task(id) => Command::RemoveTask((namespace, id.parse().ok()?)),
    })
}
