//! Which workers may join: records the creation of pods, announces those whose creation is recorded, and ends those that pass for the
//! agent's without a record.

use kube::ResourceExt;
use rota_crds::resource::Agent;
use rota_proto::v1;
use tokio::time::Instant;

use super::dereference::{PodLifecycle, WorkerPod};
use super::history::PodHistory;
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
                Ok(true) => state.creations.recorded(&creation.uid),
                // The watch may have delivered its whole life before its creation was answered.
                Ok(false) => self.forget_pod(state, &creation.uid),
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

    /// Ends the pods that name the agent as their controller and have no record of their creation: they can never join. Workers that
    /// serve all the same finish their tasks first, and those that have served or run for long may be cut off, as others.
    pub(super) async fn end_unrecorded(
        &self,
        agent: &Agent,
        name: &str,
        unknown: &[WorkerPod],
        history: &PodHistory,
    ) -> Result<(), ReconcileError> {
        let namespace = agent.namespace().unwrap_or_default();
        for pod in unknown {
            let end = unrecorded_end(pod, history);
            let (action, outcome) = match end {
                UnrecordedEnd::None => continue,
                UnrecordedEnd::Drain => ("Drain", "drained"),
                UnrecordedEnd::Delete => ("Delete", "deleted"),
            };
            let note =
                format!("{}: {outcome}, since the operator has no record that it created this pod", pod.name);
            self.context.event_of(agent, pod.reference(&namespace), "UnknownPod", action, &note).await;
            match end {
                UnrecordedEnd::Drain => {
                    apply::drain(&self.context, name, &pod.name, false, "not created by the operator")
                        .await?;
                }
                _ => {
                    let may_work = !pod.has_terminated() && history.may_run_tasks(pod);
                    let grace = (!may_work).then_some(ABANDON_GRACE_SECONDS);
                    apply::delete_pod(&self.context, &namespace, pod, grace).await?;
                }
            }
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

/// How a pod ends that the operator does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnrecordedEnd {
    /// It ends by itself, or may be cut off and is not given up yet.
    None,
    /// Its worker serves: the node has dropped the record, or a user has changed its labels. It finishes its tasks, gets no further
    /// ones, and is replaced.
    Drain,
    Delete,
}

/// Returns how a pod ends that the operator does not know.
pub(super) fn unrecorded_end(pod: &WorkerPod, history: &PodHistory) -> UnrecordedEnd {
    if pod.origin != Origin::Unrecorded || pod.is_deleted {
        return UnrecordedEnd::None;
    }
    // One that ran when the operator was started may have been announced before its record was lost: it has the time to come back.
    let may_return = history.has_joined(pod) || pod.was_stable();
    match (pod.lifecycle, &pod.worker) {
        (PodLifecycle::Serving, Some(worker)) if !worker.draining => UnrecordedEnd::Drain,
        // It drains, or ends with its only task.
        (PodLifecycle::Serving, _) => UnrecordedEnd::None,
        (PodLifecycle::Starting | PodLifecycle::Lost | PodLifecycle::Terminating, _) if may_return => {
            UnrecordedEnd::None
        }
        _ => UnrecordedEnd::Delete,
    }
}
