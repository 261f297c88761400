//! Reports of pods that have ended or are given up.

use jiff::Timestamp;
use kube::ResourceExt;
use rota_core::text::prefix;
use rota_crds::Time;
use rota_crds::resource::{Agent, WorkerFailure};
use tokio::time::Instant;

use super::dereference::{PodLifecycle, WorkerPod};
use super::start_failure::StartFailure;
use super::state::{AgentState, Start};
use super::status::{MAX_MESSAGE_BYTES, MAX_REASON_BYTES};
use super::{Agents, apply};
use crate::error::ReconcileError;

impl Agents {
    /// Reports what ended and why to the control plane and to users, before the pod is deleted. Counts failed starts.
    pub(super) async fn handle_ended(
        &self,
        agent: &Agent,
        state: &mut AgentState,
        pods: &[WorkerPod],
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let namespace = agent.namespace().unwrap_or_default();
        let mut reported = Ok(());
        let endpoint = &self.context.options.workers.endpoint;
        for pod in pods {
            let had_joined = state.history.has_joined(pod);
            if let Some(failure) = state.history.take_failure(pod, endpoint) {
                let note = format!("{}: {}", pod.name, failure.message);
                self.context.event_of(agent, pod.reference(&namespace), "WorkerFailed", "Run", &note).await;
                state.last_failure = Some(WorkerFailure {
                    time: Time(now),
                    pod: pod.name.clone(),
                    reason: prefix(&failure.reason, MAX_REASON_BYTES).to_owned(),
                    message: prefix(&failure.message, MAX_MESSAGE_BYTES).to_owned(),
                });
                let has_ended = pod.has_terminated() && !pod.is_disrupted;
                let is_start = match has_ended {
                    true => !pod.was_stable(),
                    false => pod.lifecycle == PodLifecycle::Unresponsive && !had_joined,
                };
                if is_start {
                    let failure = StartFailure::new(&failure.reason, note);
                    state.start_failed(Start::of(pod), failure, Instant::now());
                }
            }
            if state.history.death_report_due(pod) {
                match apply::report_death(&self.context, &namespace, pod).await {
                    Ok(()) => state.history.death_reported(pod),
                    // What concerns one pod must not keep the others.
                    Err(error) => reported = Err(error),
                }
            }
        }
        reported
    }
}
