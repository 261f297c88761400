//! The attempt that a call of a worker outside its session is about. Every other caller learns nothing, not even whether the
//! task exists.

use rota_core::task::Task;
use rota_core::{Fence, Namespace, TaskId};
use tonic::Status;

use super::deps::SessionDeps;
use super::identity;
use crate::trust::identity::{Holder, Identity};
use crate::wire::status::{error, invalid};

/// What a call names: a worker, and an attempt that it runs.
pub(super) struct Named<'a> {
    pub(super) namespace: &'a str,
    pub(super) worker: &'a str,
    pub(super) task_id: &'a str,
    pub(super) fence: i64,
}

/// Returns the task of an attempt that the caller runs, and that `concerns` the call.
pub(super) async fn task(
    deps: &SessionDeps,
    holder: Option<&Identity>,
    named: Named<'_>,
    concerns: impl FnOnce(&Task) -> bool,
) -> Result<Task, Status> {
    let namespace = Namespace::new(named.namespace).map_err(|bad| invalid("namespace", bad.to_string()))?;
    let foreign = match holder.map(|holder| &holder.holder) {
        None => false,
        Some(Holder::Pod(pod)) => pod.namespace != named.namespace || pod.name != named.worker,
        Some(Holder::Grant(grant)) => {
            let own = grant.worker.as_ref().is_none_or(|worker| worker.as_str() == named.worker);
            grant.namespace != namespace || !own
        }
    };
    if foreign {
        return Err(error("WORKER_NAME_MISMATCH", "the token belongs to another worker"));
    }
    let id: TaskId = named.task_id.parse().map_err(|_| invalid("task_id", "is not a task's id"))?;
    let fence = Fence(u64::try_from(named.fence).map_err(|_| absent())?);
    let task = deps.store.record(&namespace, id).await?.filter(|task| {
        let on_worker = task.assignment.as_ref().is_some_and(|on| on.worker.as_str() == named.worker);
        on_worker && task.fence == fence && concerns(task)
    });
    let task = task.ok_or_else(absent)?;
    if let Some(holder) = holder {
        let assignment = task.assignment.as_ref().ok_or_else(absent)?;
        let key = (namespace, assignment.worker.clone());
        // Records from before the field are of workers that had to be admitted to their session.
        let agent = assignment
            .agent
            .clone()
            .or_else(|| deps.scheduler.inspect(&key, |entry| entry.profile.agent.clone()));
        // After a restart of this process, whether a worker drains by itself is in its next Hello. Until then one that is not
        // announced may finish what it runs, as one whose Hello claims to drain.
        identity::check(deps, holder, &key, &agent.ok_or_else(absent)?, true)?;
    }
    Ok(task)
}

pub(super) fn absent() -> Status {
    error("TASK_NOT_FOUND", "the worker runs no attempt with this fence that this call is about")
}
