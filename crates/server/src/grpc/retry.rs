//! Copies of ended tasks: what a retry takes over, and which tasks the copy waits for.

use std::collections::HashMap;

use rota_core::task::{self, State};
use rota_core::{Namespace, TaskId};
use rota_proto::labels::{CLUSTER, REPLAYED};
use rota_proto::v1;
use tonic::Status;

use super::tasks::Tasks;
use crate::creation::{Creator, Prepared, Scope};
use crate::wire::names::TaskName;
use crate::wire::status::invalid;

/// Copies of copies that are followed back to the task that they repeat.
const MAX_COPIES: usize = 100;
/// Copies that are followed for all dependencies of one task together.
const MAX_READS: usize = 1000;

/// Copies that were made already, by the tasks that they repeat.
pub(super) type Copies = HashMap<(Namespace, TaskId), TaskId>;

impl Tasks {
    /// Prepares a copy of an ended task. `copies` are those that belong to the same change.
    pub(super) async fn prepare_copy(
        &self,
        creator: &Creator,
        old: &task::Task,
        request: v1::RetryTaskRequest,
        trace: task::Trace,
        scope: Scope,
        copies: &Copies,
    ) -> Result<Prepared, Status> {
        let mut again = self.whole(old).await?;
        again.desired_state = v1::DesiredState::Run.into();
        // It has no resource: the operator would cancel it.
        again.labels.remove(CLUSTER);
        again.labels.remove(REPLAYED);
        let mut in_vain = None;
        if let Some(spec) = &mut again.spec {
            // The start time has passed once already.
            spec.start_time = None;
            let missing = spec.secret_names.iter().find(|name| !request.secrets.contains_key(*name));
            if let Some(name) = missing {
                let why = format!("{name} is required again: the old task's secrets were removed");
                return Err(invalid("secrets", why));
            }
            spec.secrets = request.secrets;
            in_vain = self.follow_dependencies(old, spec, copies).await.err();
        }
        let create = v1::CreateTaskRequest {
            task: Some(again),
            idempotency_key: request.idempotency_key,
            ..v1::CreateTaskRequest::default()
        };
        let mut prepared = creator.prepare(old.namespace.clone(), trace, create, Some(old.id), scope).await?;
        // One that succeeded before is repeated, whatever became of its dependencies.
        if let Some(status) = in_vain
            && !creator.exists(&prepared.command).await?
        {
            return Err(status);
        }
        if !request.from_scratch
            && let Some((work, pin)) = creator.undelivered(old, prepared.id()).await?
        {
            prepared.deliver(work, pin);
        }
        Ok(prepared)
    }

    /// Replaces dependencies by id that did not succeed by their newest copies. Fails if the task would fail again because of one.
    async fn follow_dependencies(
        &self,
        old: &task::Task,
        spec: &mut v1::TaskSpec,
        copies: &Copies,
    ) -> Result<(), Status> {
        let mut reads = MAX_READS;
        let mut ref_from = spec.workspace.as_mut().and_then(|workspace| workspace.git.as_mut());
        for (index, dependency) in spec.depends_on.iter_mut().enumerate() {
            let Ok(id) = dependency.task.parse::<TaskId>() else { continue };
            let Some(before) = self.store.record(&old.namespace, id).await? else { continue };
            if !before.state.is_final() || before.state == State::Succeeded {
                continue;
            }
            let copy = match copies.get(&(old.namespace.clone(), id)) {
                Some(copy) => Some(*copy),
                None => self.newest_copy(&before, &mut reads).await?,
            };
            if let Some(copy) = copy {
                let copy = copy.to_string();
                if let Some(git) = ref_from.as_mut().filter(|git| git.ref_from == dependency.task) {
                    git.ref_from.clone_from(&copy);
                }
                dependency.task = copy;
            } else if dependency.on_failure() != v1::OnDependencyFailure::Continue {
                let why = match before.alias {
                    Some(_) => format!("{id} is {}: retry it, then this task", before.state.name()),
                    None => format!(
                        "{id} is {}, and has no alias by which its copy could be found: retry it, and create this task again \
                         with the id of the copy",
                        before.state.name()
                    ),
                };
                return Err(invalid(format!("task.spec.depends_on[{index}].task"), why));
            }
        }
        Ok(())
    }

    /// Returns the newest task of an alias, if it repeats this one, or a copy of it, and has succeeded or may. Takes the tasks that it reads
    /// from `reads`.
    async fn newest_copy(&self, of: &task::Task, reads: &mut usize) -> Result<Option<TaskId>, Status> {
        let Some(alias) = of.alias.clone() else { return Ok(None) };
        let newest = self.store.task(&of.namespace, TaskName::Alias(alias)).await?;
        let mut earlier = newest.retry_of;
        for _ in 0..MAX_COPIES {
            match earlier {
                Some(id) if id == of.id => {
                    let may_succeed = !newest.state.is_final() || newest.state == State::Succeeded;
                    return Ok(may_succeed.then_some(newest.id));
                }
                Some(id) => {
                    *reads = reads.checked_sub(1).ok_or_else(too_often)?;
                    earlier = self.store.record(&of.namespace, id).await?.and_then(|it| it.retry_of);
                }
                None => break,
            }
        }
        Ok(None)
    }
}

fn too_often() -> Status {
    let why = format!(
        "the dependencies have been retried more than {MAX_READS} times in all, too often to find their newest copies: create this task \
         again with the ids of these copies"
    );
    invalid("task.spec.depends_on", why)
}
