//! Why a task is not running: the reasons in its record, with the state of the workers, its pool and its log.

use std::collections::BTreeMap;

use prost::Message;
use rota_core::failure::Failure;
use rota_core::scaling::{self, Backlog, Bounds, ReportedWorker};
use rota_core::target::{Route, Target};
use rota_core::task::explain::{Context, Pool, Wait};
use rota_core::task::{Body, State, Task, explain};
use rota_core::workflow::StepRef;
use rota_core::{AgentName, TaskId, Timestamp};
use rota_proto::{causes, num, v1};
use rota_store::{Budget, Error, WorkflowQuery};
use tonic::Status;

use crate::artifacts::Artifacts;
use crate::clock::now;
use crate::demand::{Demand, Snapshot};
use crate::health::Cause;
use crate::keys::AgentKey;
use crate::scheduler::{Admission, WorkerView};
use crate::store_client::StoreClient;
use crate::wire::{status, task as wire};

/// Other tasks that are named in an explanation.
const MAX_NAMED: usize = 5;
/// Entries at the end of a log that are searched for the last failure.
const FAILURE_SEARCH_EVENTS: u64 = 32;

/// Whether the slots of a route may be held until the storage of artifacts takes files of their attempts.
fn are_slots_held(context: &Context) -> bool {
    context.capacity.workers > 0 && context.capacity.free == 0
}

/// Whether a worker has stated that it does not isolate its attempts.
fn is_not_isolated(worker: &WorkerView) -> bool {
    scaling::is_not_isolated(worker.stats.isolated, worker.connected, &worker.stats.not_isolated_reason)
}

/// Whether a task waits for the storage of artifacts, or for a slot that attempts may hold until it takes their files.
fn may_wait_for_storage(task: &Task, context: &Context) -> bool {
    match task.state {
        State::Queued => are_slots_held(context),
        _ => task.assignment.as_ref().is_some_and(|assignment| assignment.work_ended),
    }
}

/// Returns the cause if the record of the workflow around a step cannot be decoded: nothing of it ends what the step runs, nor follows from the
/// end of that.
pub(super) async fn orphaned(store: &StoreClient, step: &StepRef) -> Result<Option<explain::Cause>, Status> {
    match store.reads().workflows(WorkflowQuery::Key(step.workflow)).await {
        Ok(_) => Ok(None),
        Err(Error::Corrupt(reason)) => Ok(Some(explain::Cause {
            code: causes::WORKFLOW_DAMAGED,
            message: format!(
                "the record of workflow {}, of which it is step {}, cannot be decoded: {reason}",
                step.id, step.name
            ),
            hint: format!(
                "nothing follows from its end; `rota workflow cancel {}` ends what is left",
                step.id
            ),
        })),
        Err(error) => Err(status::store(error)),
    }
}

fn of_storage(cause: Cause) -> explain::Cause {
    explain::Cause { code: cause.code, message: cause.message, hint: cause.hint }
}

/// Explains why tasks do not run.
#[derive(Clone)]
pub(crate) struct Explainer {
    pub(crate) store: StoreClient,
    pub(crate) demand: Demand,
    pub(crate) artifacts: Artifacts,
}

impl Explainer {
    pub(super) async fn explain(&self, task: &Task) -> Result<v1::ExplainTaskResponse, Status> {
        let context = self.context(task).await?;
        let now = now();
        let mut causes = explain::causes(task, &context, now);
        let held = match task.state {
            State::Queued => self.held(&task.route(), &context),
            _ => None,
        };
        if let Some(cause) = held {
            // Free slots do not matter then.
            causes.retain(|cause| cause.code == causes::BEHIND);
            causes.insert(0, cause);
        } else if let Some(cause) = self.storage(task, &context, now).await? {
            causes.insert(0, of_storage(cause));
        }
        if let Some(step) = task.step.as_deref().filter(|_| !task.state.is_final()) {
            causes.extend(orphaned(&self.store, step).await?);
        }
        let summary = explain::summary(task, &causes, now);
        let causes = causes.into_iter().map(|cause| v1::Cause {
            code: cause.code.to_owned(),
            message: cause.message,
            hint: cause.hint,
        });
        Ok(v1::ExplainTaskResponse {
            task: Some(wire::to_wire(task, None, None)),
            summary,
            causes: causes.collect(),
            ahead: num::to_i64(context.capacity.ahead),
        })
    }

    /// Explains why all queued tasks of a route wait, without those that are before them.
    pub(super) fn explain_route(&self, snapshot: &Snapshot, route: &Route) -> Vec<explain::Cause> {
        let context = self.queue(snapshot, route);
        if let Some(cause) = self.held(route, &context) {
            return vec![cause];
        }
        let storage = self.artifacts.outage(now()).filter(|_| are_slots_held(&context)).map(of_storage);
        storage.into_iter().chain(explain::of_route(&route.target, &context)).collect()
    }

    /// Returns what is wrong with the storage of artifacts, if the task waits for it.
    async fn storage(&self, task: &Task, context: &Context, now: Timestamp) -> Result<Option<Cause>, Status> {
        if let Some(cause) = self.artifacts.outage(now)
            && (may_wait_for_storage(task, context) || self.waits_for_files(task).await?)
        {
            return Ok(Some(cause));
        }
        let stores = task.assignment.as_ref().is_some_and(|assignment| assignment.work_ended);
        Ok(self.artifacts.full(task.namespace.as_str(), now).filter(|_| stores))
    }

    /// Gathers what the explanation needs besides the record, as far as it matters in the task's state.
    async fn context(&self, task: &Task) -> Result<Context, Status> {
        let mut context = Context::default();
        match task.state {
            State::Queued => {
                let route = task.route();
                let snapshot = self.demand.snapshot().await;
                context = self.queue(&snapshot, &route);
                if let Some(id) = self.demand.scheduler.route_id(&route) {
                    context.capacity.ahead =
                        self.store.reads().ahead(id, task.rank()).await.map_err(status::store)?;
                }
                let (some, all) = snapshot.running_tasks(&route, MAX_NAMED);
                context.busy_with_more = all - some.len();
                for id in some {
                    let other = self.store.record(&task.namespace, id).await?;
                    context
                        .busy_with
                        .push(other.and_then(|task| task.alias).unwrap_or_else(|| id.to_string()));
                }
            }
            State::Pending => {
                context.dependencies = self.dependencies(task).await?;
                if task.retry_at.is_some() {
                    context.failure = self.last_failure(task).await?;
                }
            }
            _ => {}
        }
        Ok(context)
    }

    /// Gathers what all tasks of a route have in common.
    fn queue(&self, snapshot: &Snapshot, route: &Route) -> Context {
        Context {
            capacity: snapshot.capacity(route),
            not_ready: snapshot.not_ready(route),
            pool: self.agent(route).and_then(|agent| self.pool(snapshot, route, agent)),
            ..Context::default()
        }
    }

    /// Returns the agent that the tasks of a route count for.
    fn agent(&self, route: &Route) -> Option<AgentName> {
        route.target.agent().cloned().or_else(|| self.demand.preferred(route))
    }

    /// Returns the pool of an agent: its workers, its limits, and what its demand asks for.
    fn pool(&self, snapshot: &Snapshot, route: &Route, agent: AgentName) -> Option<Pool> {
        let key = (route.namespace.clone(), agent);
        let spec = self.demand.agents.get(&key)?.spec;
        let standing = snapshot.pools.get(&key);
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let bounds = Bounds {
            replicas: spec.replicas,
            max_replicas: spec.max_replicas,
            spare_workers: spec.spare_workers,
            slots: spec.slots,
            idle_timeout: None,
        };
        let now = now();
        let workers = standing.into_iter().flat_map(|pool| &pool.workers);
        let open = workers.clone().find(|worker| worker.is_pod && is_not_isolated(worker));
        let reported = workers.map(|worker| ReportedWorker {
            running: small(worker.tasks.len()),
            storing: small(worker.storing),
            draining: worker.draining,
            connected: worker.connected,
            unavailable: worker.is_unavailable(),
            not_isolated: is_not_isolated(worker),
            age: Some(now.since(worker.stats.connected_at)),
            // The operator ends only its own.
            is_current: worker.is_pod,
            idle_for: worker.stats.idle_since.filter(|_| worker.is_pod).map(|since| now.since(since)),
            ..ReportedWorker::default()
        });
        let reported: Vec<_> = reported.collect();
        let admitted = |count| num::to_i64(self.demand.admitted(&key, count));
        let backlog = standing.map_or_else(Backlog::default, |pool| Backlog {
            queued: admitted(pool.queued),
            isolated: admitted(pool.isolated),
        });
        let scaled = scaling::Pool::observed(&bounds, backlog, &reported);
        Some(Pool {
            managed: spec.management() != v1::Management::External,
            workers: small(reported.len()),
            floor: scaled.floor,
            ceiling: scaled.ceiling,
            not_isolated: open.map(|worker| worker.stats.not_isolated_reason.clone()),
            starting: scaling::plan(&scaled).start,
            start_failure: match route.target {
                Target::Task { id, .. } => self.demand.agents.pools().isolated_message(&key, id),
                _ => self.demand.agents.pools().message(&key),
            },
            agent: key.1,
        })
    }

    /// Returns the cause if a circuit breaker or the limit of a credential holds the tasks of a route back.
    fn held(&self, route: &Route, context: &Context) -> Option<explain::Cause> {
        let key = (route.namespace.clone(), self.agent(route)?);
        self.breaker(&key).or_else(|| self.quota(&key, context))
    }

    /// Returns the cause if a circuit breaker holds them back: of their agent, or of the back end of that.
    fn breaker(&self, key: &AgentKey) -> Option<explain::Cause> {
        let message = self.demand.breakers.describe(key);
        (!message.is_empty()).then(|| explain::Cause {
            code: causes::BREAKER_OPEN,
            message,
            hint: format!("fix the cause, or reset the breaker with: rota admin reset-breaker {}", key.1),
        })
    }

    /// Returns the cause if they wait for a credential of their agent's that cools down.
    fn quota(&self, key: &AgentKey, context: &Context) -> Option<explain::Cause> {
        if context.capacity.free > 0 {
            return None;
        }
        // Other workers, or other credentials of these, do not wait.
        if self.demand.scheduler.quota(key) == Admission::Open {
            return None;
        }
        let cool_downs = self.demand.breakers.cool_downs_of(key);
        let cool_down = cool_downs.iter().min_by_key(|one| one.until)?;
        let now = self.store.now();
        Some(explain::of_quota(cool_down.credential, &cool_down.limit, cool_down.until, now))
    }

    /// Returns the states of the dependencies that a task waits for.
    async fn dependencies(&self, task: &Task) -> Result<BTreeMap<TaskId, State>, Status> {
        let mut states = BTreeMap::new();
        let ids = task.waits().into_iter().filter_map(|wait| match wait {
            Wait::Dependency { id, .. } | Wait::Thread { id, .. } => Some(id),
            _ => None,
        });
        for id in ids.take(MAX_NAMED) {
            if let Some(other) = self.store.record(&task.namespace, id).await? {
                states.insert(id, other.state);
            }
        }
        Ok(states)
    }

    /// Whether the attempt of a task has reported last that it cannot fetch what it is given.
    async fn waits_for_files(&self, task: &Task) -> Result<bool, Status> {
        if task.state != State::Running {
            return Ok(false);
        }
        let budget = Budget { entries: 1, ..Budget::UNLIMITED };
        let last = self.store.events(task, task.log_seq.saturating_sub(1), budget).await?.pop();
        let Some(Body::Report(report)) = last.map(|entry| entry.body) else { return Ok(false) };
        let event = v1::Event::decode(report).unwrap_or_default();
        Ok(
            matches!(event.kind, Some(v1::event::Kind::Notice(notice)) if notice.code == causes::ARTIFACTS_UNAVAILABLE),
        )
    }

    /// Returns why the last attempt failed, which only the log has.
    async fn last_failure(&self, task: &Task) -> Result<Option<Failure>, Status> {
        let after = task.log_seq.saturating_sub(FAILURE_SEARCH_EVENTS);
        let budget = Budget { entries: FAILURE_SEARCH_EVENTS as usize, ..Budget::UNLIMITED };
        let tail = self.store.events(task, after, budget).await?;
        Ok(tail.into_iter().rev().find_map(|entry| match entry.body {
            Body::State(change) => change.failure,
            _ => None,
        }))
    }
}

#[cfg(test)]
mod tests;
