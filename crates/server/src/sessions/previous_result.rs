//! Results of dependencies that an assignment omits, on request of the worker that runs the attempt. Every other caller
//! learns nothing, not even whether a task exists.

use prost::Message;
use rota_core::task::DependencyState;
use rota_core::{Fence, Namespace, TaskId};
use rota_proto::v1;
use rota_proto::worker::v1::FetchPreviousResultRequest;
use tonic::Status;

use super::deps::SessionDeps;
use super::identity;
use crate::trust::identity::{Holder, Identity};
use crate::wire::status::{error, invalid};

/// Returns the result of a dependency of a running attempt.
pub(super) async fn get(
    deps: &SessionDeps,
    holder: Option<&Identity>,
    request: &FetchPreviousResultRequest,
) -> Result<v1::TaskResult, Status> {
    let store = &deps.store;
    let namespace =
        Namespace::new(&request.namespace).map_err(|bad| invalid("namespace", bad.to_string()))?;
    let foreign = match holder.map(|holder| &holder.holder) {
        None => false,
        Some(Holder::Pod(pod)) => pod.namespace != request.namespace || pod.name != request.worker,
        Some(Holder::Grant(grant)) => {
            let named = grant.worker.as_ref().is_none_or(|worker| worker.as_str() == request.worker);
            grant.namespace != namespace || !named
        }
    };
    if foreign {
        return Err(error("WORKER_NAME_MISMATCH", "the token belongs to another worker"));
    }
    let id = |field, text: &str| text.parse().map_err(|_| invalid(field, "is not a task's id"));
    let (task, dependency): (TaskId, TaskId) =
        (id("task_id", &request.task_id)?, id("previous_task_id", &request.previous_task_id)?);
    let absent =
        || error("TASK_NOT_FOUND", "the worker runs no attempt with this fence that needs this result");
    let fence = Fence(u64::try_from(request.fence).map_err(|_| absent())?);
    let task = store.record(&namespace, task).await?.filter(|task| {
        let on_worker = task.assignment.as_ref().is_some_and(|on| on.worker.as_str() == request.worker);
        let needs = |state| matches!(state, DependencyState::Ended(id, _) if id == dependency);
        on_worker && task.fence == fence && task.dependencies.iter().any(|one| needs(one.state))
    });
    let task = task.ok_or_else(absent)?;
    if let Some(holder) = holder {
        let assignment = task.assignment.ok_or_else(absent)?;
        let key = (namespace.clone(), assignment.worker);
        // Records from before the field are of workers that had to be admitted to their session.
        let agent =
            assignment.agent.or_else(|| deps.scheduler.inspect(&key, |entry| entry.profile.agent.clone()));
        identity::check(deps, holder, &key, &agent.ok_or_else(absent)?)?;
    }
    let dependency = store.record(&namespace, dependency).await?.ok_or_else(absent)?;
    let result = store.result(&dependency).await?.ok_or_else(absent)?;
    v1::TaskResult::decode(&result[..])
        .map_err(|_| error("STORE_CORRUPT", "the result of the dependency cannot be decoded"))
}
