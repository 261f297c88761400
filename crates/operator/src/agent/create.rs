//! Starts the workers of a plan: creates their pods, and records each before the next.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rota_crds::resource::Agent;
use tokio::time::Instant;

use super::apply::PodCreation;
use super::build::Plan;
use super::dereference::WorkerPod;
use super::origin::Origin;
use super::pod::{PodSpecInput, TaskPod};
use super::state::{AgentState, Start};
use super::{Agents, apply};
use crate::cluster::SLOTS;
use crate::error::ReconcileError;

impl Agents {
    /// Creates the pods of a plan, and adds them to `pods`. An operator that ends in between leaves at most one that its successor does
    /// not know, and replaces.
    pub(super) async fn start_workers(
        &self,
        agent: &Agent,
        state: &mut AgentState,
        pods: &mut Vec<WorkerPod>,
        plan: &Plan,
        hash: &str,
    ) -> Result<(), ReconcileError> {
        for _ in 0..plan.start {
            if !self.start_worker(agent, state, pods, None, hash).await? {
                break;
            }
        }
        for task in &plan.start_for {
            if !self.start_worker(agent, state, pods, Some(task), hash).await? {
                break;
            }
        }
        Ok(())
    }

    /// Creates and records the pod of a worker of the pool, or of a task. Returns whether others may be started: not after the cluster
    /// has refused one. A task's pod that cannot be built does not stop others.
    async fn start_worker(
        &self,
        agent: &Agent,
        state: &mut AgentState,
        pods: &mut Vec<WorkerPod>,
        task: Option<&str>,
        hash: &str,
    ) -> Result<bool, ReconcileError> {
        let namespace = agent.namespace().unwrap_or_default();
        let resource = task.and_then(|id| self.task(&namespace, id));
        let input = PodSpecInput {
            agent,
            options: &self.context.options.workers,
            task: task.map(|id| TaskPod { id, resource: resource.as_ref() }),
        };
        let pod = match apply::create_pod(&self.context, &input).await? {
            PodCreation::Created(pod) => pod,
            PodCreation::Rejected(failure) => {
                let start = task.map_or(Start::Shared(hash), Start::Isolated);
                let may_go_on = task.is_some() && failure.is_of_its_spec();
                state.start_failed(start, failure, Instant::now());
                return Ok(may_go_on);
            }
        };
        let pod: Arc<Pod> = Arc::from(pod);
        let worker = started(&pod, task, hash);
        for scope in &self.pods {
            scope.created(&pod);
        }
        state.creations.add(&pod);
        pods.push(worker);
        self.record_creations(agent, state).await?;
        Ok(true)
    }
}

/// Returns the worker of a pod that was created just now.
fn started(pod: &Pod, task: Option<&str>, hash: &str) -> WorkerPod {
    WorkerPod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        origin: Origin::Operator,
        slots: pod.labels().get(SLOTS).and_then(|slots| slots.parse().ok()),
        task: task.map(str::to_owned),
        hash: hash.to_owned(),
        ..WorkerPod::default()
    }
}

#[cfg(test)]
mod tests;
