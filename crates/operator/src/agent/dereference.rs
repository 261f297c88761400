//! Collects what an `Agent` refers to: its pods, joined with the demand of their workers. Pure once the caches have been
//! read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::ResourceExt;
use rota_core::scaling::STABLE_AFTER;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};

use super::demand::DemandSnapshot;
use super::observation::PodObservation;
use super::origin::{self, Creations, Origin};
use super::start_failure::StartFailure;
use crate::cluster::{SLOTS, SPEC_HASH, TASK_UID};
use crate::pods::WorkerPods;

/// Pod of an agent with its worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WorkerPod {
    pub name: String,
    pub uid: String,
    pub origin: Origin,
    /// Task that the pod is limited to.
    pub task: Option<String>,
    /// Number of tasks that it runs at a time, as far as the pod has it.
    pub slots: Option<i32>,
    /// Whether that task is over, or does not wait for a worker any more.
    pub task_is_over: bool,
    pub hash: String,
    pub lifecycle: PodLifecycle,
    /// Why the pod does not start, or how it failed.
    pub start_failure: Option<StartFailure>,
    pub age: Duration,
    /// Time that the worker's container has run, or ran until it ended; `None` before it started.
    pub ran_for: Option<Duration>,
    /// Time since the worker's container ended.
    pub ended_for: Option<Duration>,
    /// Whether the pod was deleted. It may still run, or have ended.
    pub is_deleted: bool,
    /// Whether nothing is known of the pod any more: its node does not respond, or it has outlived its grace period.
    pub is_unreachable: bool,
    /// Whether the cluster ended the pod for its own reasons: a drain, a preemption or an eviction.
    pub is_disrupted: bool,
    /// Whether its node ended it for lack of disk, memory or processes.
    pub is_under_pressure: bool,
    /// Whether a pod of an isolated task was created from an older spec.
    pub is_outdated: bool,
    /// Worker as reported by the control plane.
    pub worker: Option<v1::WorkerDemand>,
    pub idle_for: Option<Duration>,
    /// Time for which the idle worker of an isolated task has got no tasks.
    pub unavailable_for: Option<Duration>,
}

impl WorkerPod {
    /// Returns whether the worker has exited and its pod only waits to be deleted.
    pub(crate) fn has_terminated(&self) -> bool {
        matches!(self.lifecycle, PodLifecycle::Succeeded | PodLifecycle::Failed)
    }

    /// Returns whether the worker should be connected and is not.
    pub(crate) fn is_absent(&self) -> bool {
        let connected = self.worker.is_some() || self.task.is_some();
        match self.lifecycle {
            PodLifecycle::Starting | PodLifecycle::Lost | PodLifecycle::Unresponsive => true,
            PodLifecycle::Serving => !connected,
            _ => false,
        }
    }

    /// Returns the reference of an Event to it.
    pub(super) fn reference(&self, namespace: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// Returns whether the worker has run, or ran, for longer than a failed start takes.
    pub(super) fn was_stable(&self) -> bool {
        self.ran_for.is_some_and(|ran_for| ran_for >= STABLE_AFTER)
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.lifecycle == PodLifecycle::Starting
    }
}

/// Lifecycle of a worker pod. The worker's container decides, whatever sidecars run next to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PodLifecycle {
    /// Created; its worker never connected so far.
    #[default]
    Starting,
    /// Its worker is connected, or was a moment ago.
    Serving,
    /// Its worker was connected, and is not any more: no capacity.
    Lost,
    /// Its worker runs and has not been connected for so long that it is given up.
    Unresponsive,
    /// Deleted and still in its grace period, or drained, and without a session since: its container is about to end.
    Terminating,
    /// Exited with success, as a drained worker does.
    Succeeded,
    /// Exited with an error, or evicted.
    Failed,
}

/// Returns the pods of an agent's workers, ordered by name, also those that the watch has not delivered yet, and those of which it is
/// unknown who has created them. Those of other users are left out.
pub(super) fn worker_pods(
    agent: &Agent,
    pods: &[WorkerPods],
    demand: &DemandSnapshot,
    (creations, recorded_since): (&Creations, Timestamp),
    now: Timestamp,
) -> Vec<WorkerPod> {
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let reports = Reports::of(demand);
    let convert = |pod: Arc<Pod>| WorkerPod {
        origin: origin::of(&pod, agent, creations, recorded_since),
        ..worker_pod(&pod, &reports, now)
    };
    let found = pods.iter().flat_map(|pods| pods.of(&namespace, &name));
    let mut pods: Vec<_> = found.map(convert).filter(|pod| pod.origin != Origin::Foreign).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

/// Splits pods into those that the operator has created, and the others.
pub(super) fn by_origin(pods: Vec<WorkerPod>) -> (Vec<WorkerPod>, Vec<WorkerPod>) {
    pods.into_iter().partition(|pod| pod.origin == Origin::Operator)
}

/// What the control plane reports of an agent, by the name of the worker or the id of the task.
struct Reports<'a> {
    workers: HashMap<&'a str, &'a v1::WorkerDemand>,
    isolated: HashMap<&'a str, &'a v1::IsolatedDemand>,
    wanted: HashSet<&'a str>,
}

impl<'a> Reports<'a> {
    fn of(demand: &'a DemandSnapshot) -> Self {
        let workers = demand.demand.workers.iter().map(|worker| (names::last(&worker.worker), worker));
        let isolated = demand.isolated.iter().map(|task| (names::last(&task.worker), task));
        Self {
            workers: workers.collect(),
            isolated: isolated.collect(),
            wanted: demand.isolated.iter().map(|task| names::last(&task.task)).collect(),
        }
    }
}

fn worker_pod(pod: &Pod, reports: &Reports<'_>, now: Timestamp) -> WorkerPod {
    let name = pod.name_any();
    let worker = reports.workers.get(name.as_str()).map(|&worker| worker.clone());
    // The worker of an isolated task is not listed under its agent; the task names it.
    let isolated = reports.isolated.get(name.as_str());
    let known = worker.is_some() || isolated.is_some();
    let since = |time: Timestamp| Duration::try_from(now.duration_since(time)).unwrap_or_default();
    let passed = |seconds, nanos| Timestamp::new(seconds, nanos).ok().map(since);
    let idle_since = worker.as_ref().and_then(|worker| worker.idle_since.as_ref());
    let unavailable_since = isolated.and_then(|task| task.unavailable_since.as_ref());
    let observed = PodObservation::new(pod);
    let began = observed.began();
    let ended = observed.ended();
    let task = pod.labels().get(TASK_UID).cloned();
    WorkerPod {
        uid: pod.uid().unwrap_or_default(),
        origin: Origin::default(),
        task_is_over: task.as_ref().is_some_and(|task| !reports.wanted.contains(task.as_str())),
        task,
        slots: pod.labels().get(SLOTS).and_then(|slots| slots.parse().ok()),
        hash: pod.labels().get(SPEC_HASH).cloned().unwrap_or_default(),
        lifecycle: observed.lifecycle(known),
        start_failure: observed.start_failure(),
        age: pod.creation_timestamp().map(|time| since(time.0)).unwrap_or_default(),
        ran_for: began.map(|began| {
            let until = ended.unwrap_or(now);
            Duration::try_from(until.duration_since(began)).unwrap_or_default()
        }),
        ended_for: ended.map(since),
        is_deleted: pod.metadata.deletion_timestamp.is_some(),
        is_unreachable: observed.is_unreachable(now),
        is_disrupted: observed.is_disrupted(),
        is_under_pressure: observed.is_under_pressure(),
        is_outdated: false,
        idle_for: idle_since.and_then(|time| passed(time.seconds, time.nanos)),
        unavailable_for: unavailable_since.and_then(|time| passed(time.seconds, time.nanos)),
        worker,
        name,
    }
}
