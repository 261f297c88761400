//! Finds what an `Agent` is about: its pods, and what the control plane says of its workers. Pure once
//! the caches have been read.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};

use super::demand::Heard;
use crate::cluster::{AGENT, SPEC_HASH, TASK_UID};

/// One pod and its worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Member {
    pub name: String,
    pub uid: String,
    /// The task that it is for alone.
    pub task: Option<String>,
    pub hash: String,
    pub state: Life,
    /// Why it does not start, in a word and a sentence, while it does not.
    pub trouble: Option<(String, String)>,
    /// How long ago it was made.
    pub age: Duration,
    /// What the control plane says of its worker.
    pub worker: Option<v1::WorkerDemand>,
    pub idle_for: Option<Duration>,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// Not started, or started and never connected.
    #[default]
    Starting,
    /// Its worker is, or was, connected.
    Serving,
    /// It was told to go.
    Leaving,
    /// It has ended well, which is what a drained worker does.
    Succeeded,
    /// It has ended badly.
    Failed,
}

/// The pods of an agent, by name.
pub(super) fn members(agent: &Agent, pods: &[Store<Pod>], heard: &Heard, now: Timestamp) -> Vec<Member> {
    let (namespace, name) = (agent.namespace(), agent.name_any());
    let mine = |pod: &Pod| pod.namespace() == namespace && pod.labels().get(AGENT) == Some(&name);
    let mut members: Vec<_> =
        pods.iter().flat_map(|store| store.state_filter(mine)).map(|pod| member(&pod, heard, now)).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

fn member(pod: &Arc<Pod>, heard: &Heard, now: Timestamp) -> Member {
    let name = pod.name_any();
    let task = pod.labels().get(TASK_UID).cloned();
    let worker = heard.demand.workers.iter().find(|one| names::last(&one.worker) == name).cloned();
    // A worker of one task is not among its agent's in the demand: the task names it.
    let known = worker.is_some() || heard.isolated.iter().any(|one| names::last(&one.worker) == name);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let state = match phase {
        "Succeeded" => Life::Succeeded,
        "Failed" => Life::Failed,
        _ if pod.metadata.deletion_timestamp.is_some() => Life::Leaving,
        _ if known => Life::Serving,
        _ => Life::Starting,
    };
    let since = |time: Option<Timestamp>| {
        time.and_then(|time| Duration::try_from(now.duration_since(time)).ok()).unwrap_or_default()
    };
    let idle_since = worker.as_ref().and_then(|worker| worker.idle_since.as_ref());
    Member {
        uid: pod.uid().unwrap_or_default(),
        task,
        hash: pod.labels().get(SPEC_HASH).cloned().unwrap_or_default(),
        state,
        trouble: trouble(pod),
        age: since(pod.creation_timestamp().map(|time| time.0)),
        idle_for: idle_since
            .and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
            .map(|at| since(Some(at))),
        worker,
        name,
    }
}

/// Why a pod does not start, or how it ended: what a person would look for in `kubectl describe`.
fn trouble(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let container = status.container_statuses.iter().flatten().next();
    let state = container.and_then(|one| one.state.as_ref());
    if let Some(ended) =
        state.and_then(|state| state.terminated.as_ref()).filter(|ended| ended.exit_code != 0)
    {
        let words = text(&ended.message);
        let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let reason = ended.reason.clone().unwrap_or_else(|| "Error".to_owned());
        return Some((reason, format!("its worker ended with exit code {}: {last}", ended.exit_code)));
    }
    // `ContainerCreating` is on the way, not trouble.
    let waiting = state.and_then(|state| state.waiting.as_ref());
    if let Some(waiting) = waiting
        .filter(|one| !matches!(one.reason.as_deref(), Some("ContainerCreating" | "PodInitializing") | None))
    {
        return Some((text(&waiting.reason), text(&waiting.message)));
    }
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.clone().unwrap_or_else(|| "Failed".to_owned());
        return Some((reason, text(&status.message)));
    }
    let unscheduled =
        status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    unscheduled
        .map(|one| (one.reason.clone().unwrap_or_else(|| "Unscheduled".to_owned()), text(&one.message)))
}
