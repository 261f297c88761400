//! Which workers may join: records the creation of pods, announces those whose creation is recorded, and deletes those that pass for the
//! agent's without a record.

use kube::ResourceExt;
use rota_crds::resource::Agent;
use rota_proto::v1;
use tokio::time::Instant;

use super::dereference::{PodLifecycle, WorkerPod};
use super::origin::Origin;
use super::state::AgentState;
use super::{ABANDON_GRACE_SECONDS, Agents, apply, build};
use crate::error::ReconcileError;

impl Agents {
    /// Records the pods that this process has created. What concerns one does not keep the others.
    pub(super) async fn record_creations(
        &self,
        agent: &Agent,
        state: &mut AgentState,
    ) -> Result<(), ReconcileError> {
        let namespace = agent.namespace().unwrap_or_default();
        let mut recorded = Ok(());
        for creation in state.creations.unrecorded() {
            match apply::record_creation(&self.context, &namespace, &creation).await {
                Ok(()) => state.creations.recorded(&creation.uid),
                Err(error) => recorded = Err(error),
            }
        }
        recorded
    }

    /// Announces the workers that may join.
    pub(super) async fn announce(
        &self,
        agent: &Agent,
        name: &str,
        state: &mut AgentState,
        pods: &[WorkerPod],
    ) -> Result<(), ReconcileError> {
        if pods.is_empty() && !build::runs_pods(&agent.spec) {
            return Ok(());
        }
        let workers = announced(state, pods);
        let all_joined = !pods.iter().any(WorkerPod::is_absent);
        if state.announcement_due(&workers, all_joined, Instant::now()) {
            let announced = apply::announce(&self.context, name, workers).await;
            if announced.is_err() {
                state.announcement_failed();
            }
            announced?;
        }
        Ok(())
    }

    /// Deletes the pods that name the agent as their controller and without a record of their creation: they can never join.
    pub(super) async fn delete_unrecorded(
        &self,
        agent: &Agent,
        unknown: &[WorkerPod],
    ) -> Result<(), ReconcileError> {
        let namespace = agent.namespace().unwrap_or_default();
        for pod in unknown.iter().filter(|pod| is_useless(pod)) {
            let note =
                format!("{}: deleted, since the operator has no record that it created this pod", pod.name);
            self.context.event_of(agent, pod.reference(&namespace), "UnknownPod", "Delete", &note).await;
            apply::delete_pod(&self.context, &namespace, pod, Some(ABANDON_GRACE_SECONDS)).await?;
        }
        Ok(())
    }
}

/// Returns the workers of an agent that may join.
pub(super) fn announced(state: &AgentState, pods: &[WorkerPod]) -> Vec<v1::AnnouncedWorker> {
    let present = pods.iter().filter(|pod| !pod.has_terminated() && state.creations.may_announce(pod));
    let announced = present.map(|pod| v1::AnnouncedWorker {
        worker: pod.name.clone(),
        instance: pod.uid.clone(),
        slots: pod.slots,
        isolated_task: Some(pod.task.clone().unwrap_or_default()),
    });
    announced.collect()
}

/// Returns whether a pod that the operator does not know is to be deleted. One that serves all the same, since a user has changed its
/// labels for example, ends its tasks.
pub(super) fn is_useless(pod: &WorkerPod) -> bool {
    pod.origin == Origin::Unrecorded && pod.lifecycle != PodLifecycle::Serving && !pod.is_deleted
}
