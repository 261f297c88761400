//! Collects what an `Agent` refers to: its pods, joined with the demand of their workers. Pure once the caches have been
//! read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};

use super::demand::DemandSnapshot;
use super::start_failure::StartFailure;
use crate::cluster::{AGENT, SPEC_HASH, TASK_UID};

/// Pod of an agent with its worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WorkerPod {
    pub name: String,
    pub uid: String,
    /// Task that the pod is limited to.
    pub task: Option<String>,
    pub hash: String,
    pub lifecycle: PodLifecycle,
    /// Why the pod does not start, or how it failed.
    pub start_failure: Option<StartFailure>,
    pub age: Duration,
    /// Worker as reported by the control plane.
    pub worker: Option<v1::WorkerDemand>,
    pub idle_for: Option<Duration>,
}

impl WorkerPod {
    /// Returns whether the pod has exited and only waits to be deleted.
    pub(crate) fn has_terminated(&self) -> bool {
        matches!(self.lifecycle, PodLifecycle::Succeeded | PodLifecycle::Failed)
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.lifecycle == PodLifecycle::Starting
    }
}

/// Lifecycle of a worker pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PodLifecycle {
    /// Created; its worker never connected so far.
    #[default]
    Starting,
    /// Its worker is, or was, connected.
    Serving,
    /// Deleted, and still in its grace period.
    Terminating,
    /// Exited with success, as a drained worker does.
    Succeeded,
    /// Exited with an error, or evicted.
    Failed,
}

/// Returns the pods of an agent, ordered by name.
pub(super) fn worker_pods(
    agent: &Agent,
    pods: &[Store<Pod>],
    demand: &DemandSnapshot,
    now: Timestamp,
) -> Vec<WorkerPod> {
    let (namespace, name) = (agent.namespace(), agent.name_any());
    let mine = |pod: &Pod| pod.namespace() == namespace && pod.labels().get(AGENT) == Some(&name);
    let pods = pods.iter().flat_map(|store| store.state_filter(mine));
    let mut pods: Vec<_> = pods.map(|pod| worker_pod(&pod, demand, now)).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

fn worker_pod(pod: &Pod, demand: &DemandSnapshot, now: Timestamp) -> WorkerPod {
    let name = pod.name_any();
    let worker = demand.demand.workers.iter().find(|worker| names::last(&worker.worker) == name).cloned();
    // The worker of an isolated task is not listed under its agent; the task names it.
    let known = worker.is_some() || demand.isolated.iter().any(|task| names::last(&task.worker) == name);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let lifecycle = match phase {
        "Succeeded" => PodLifecycle::Succeeded,
        "Failed" => PodLifecycle::Failed,
        _ if pod.metadata.deletion_timestamp.is_some() => PodLifecycle::Terminating,
        _ if known => PodLifecycle::Serving,
        _ => PodLifecycle::Starting,
    };
    let since = |time: Timestamp| Duration::try_from(now.duration_since(time)).unwrap_or_default();
    let idle_since = worker.as_ref().and_then(|worker| worker.idle_since.as_ref());
    WorkerPod {
        uid: pod.uid().unwrap_or_default(),
        task: pod.labels().get(TASK_UID).cloned(),
        hash: pod.labels().get(SPEC_HASH).cloned().unwrap_or_default(),
        lifecycle,
        start_failure: start_failure(pod),
        age: pod.creation_timestamp().map(|time| since(time.0)).unwrap_or_default(),
        idle_for: idle_since.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok()).map(since),
        worker,
        name,
    }
}

/// Returns why a pod does not start, or how it failed: what a user would look for in `kubectl describe`.
fn start_failure(pod: &Pod) -> Option<StartFailure> {
    let status = pod.status.as_ref()?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let reason =
        |reason: &Option<String>, default: &str| reason.clone().unwrap_or_else(|| default.to_owned());
    let container = status.container_statuses.iter().flatten().next();
    let state = container.and_then(|container| container.state.as_ref());
    let terminated = state.and_then(|state| state.terminated.as_ref());
    if let Some(terminated) = terminated.filter(|terminated| terminated.exit_code != 0) {
        let log = text(&terminated.message);
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let message = format!("the worker exited with code {}: {last}", terminated.exit_code);
        return Some(StartFailure::new(&reason(&terminated.reason, "Error"), message));
    }
    // A container that is being created is starting, not failing.
    let waiting = state.and_then(|state| state.waiting.as_ref()).filter(|waiting| {
        !matches!(waiting.reason.as_deref(), Some("ContainerCreating" | "PodInitializing") | None)
    });
    if let Some(waiting) = waiting {
        return Some(StartFailure::new(&text(&waiting.reason), text(&waiting.message)));
    }
    if status.phase.as_deref() == Some("Failed") {
        return Some(StartFailure::new(&reason(&status.reason, "Failed"), text(&status.message)));
    }
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some(StartFailure::new(&reason(&unscheduled.reason, "Unscheduled"), text(&unscheduled.message)))
}
