//! Decides what to do with an agent's pods. Pure, so that the invariants, such as never draining a busy worker as idle, are
//! tested without a cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use rota_core::scaling::{self, Backlog, Bounds, ManagedState, ManagedWorker, ReportedWorker};
use rota_crds::{AgentSpec, Management};
use rota_proto::{names, v1};

use super::demand::{DemandSnapshot, is_not_isolated};
use super::dereference::{PodLifecycle, WorkerPod};

/// Time for which the last failed pod of an agent is kept, for its log and its description.
pub(super) const FAILED_POD_TTL: Duration = Duration::from_secs(600);

/// Age at which an unneeded pod that has not started is withdrawn at the earliest.
const MIN_WITHDRAWAL_AGE: Duration = Duration::from_secs(30);

/// Actions that bring an agent's pods to the desired state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Number of shared workers to start.
    pub start: u32,
    /// Tasks to start a worker of their own for.
    pub start_for: Vec<String>,
    /// Workers to drain if they are still idle.
    pub drain_idle: Vec<String>,
    /// Whether the first of these makes room for one that may isolate its attempts.
    pub for_isolation: bool,
    /// Workers to drain after what they run.
    pub drain: Vec<String>,
    /// Pods to delete because they have terminated.
    pub delete: Vec<String>,
    /// Pods to delete whose workers are not connected: those that nothing needs any more, those that cannot start and
    /// were created from an older spec, possibly because of it, and those that are given up. Excludes pods that were
    /// connected a moment ago: the control plane may just have restarted. Also pods of isolated tasks whose connected
    /// workers get no tasks.
    pub abandon: Vec<String>,
}

/// Plans the next actions. `may_start` is false while new pods would presumably fail like the last ones.
pub(crate) fn plan(
    spec: &AgentSpec,
    hash: &str,
    pods: &[WorkerPod],
    demand: &DemandSnapshot,
    may_start: bool,
) -> Plan {
    let may_start = may_start && runs_pods(spec);
    let shared: Vec<_> = pods.iter().filter(|pod| pod.task.is_none()).collect();
    let beyond = beyond_ceiling(spec, hash, &shared);
    let managed: Vec<_> = (shared.iter())
        .map(|pod| ManagedWorker {
            name: pod.name.clone(),
            state: managed(pod, beyond.contains(pod.name.as_str())),
        })
        .collect();
    let reported = reported(hash, demand, &shared);
    let backlog = Backlog { queued: demand.demand.queued, isolated: demand.demand.queued_isolated };
    let mut pool = scaling::Pool::managed(&bounds(spec), backlog, &managed, &reported, demand.last_try);
    if !runs_pods(spec) {
        (pool.floor, pool.ceiling, pool.spare, pool.queued, pool.isolated) = (0, 0, 0, 0, 0);
    }
    for worker in pool.workers.iter_mut().filter(|worker| worker.starting) {
        let pod = shared.iter().find(|pod| pod.name == worker.name);
        // A short idle timeout does not withdraw a start that is about to succeed.
        worker.idle_for = pod.map(|pod| if pod.age < MIN_WITHDRAWAL_AGE { Duration::ZERO } else { pod.age });
    }
    let scaling = scaling::plan(&pool);
    let (withdrawn, idle): (Vec<_>, Vec<_>) = scaling
        .drain
        .into_iter()
        .partition(|name| shared.iter().any(|pod| pod.is_starting() && pod.name == *name));
    let (outdated_idle, outdated) = replacements(hash, &shared, &idle);
    let unstartable = pods.iter().filter(|pod| {
        let outdated = if pod.task.is_none() { pod.hash != hash } else { pod.is_outdated };
        let given_up = pod.lifecycle == PodLifecycle::Unresponsive;
        !pod.is_deleted && (given_up || pod.is_starting() && pod.start_failure.is_some() && outdated)
    });
    let mut abandon: Vec<_> = unstartable.map(|pod| pod.name.clone()).chain(withdrawn).collect();
    abandon.extend(unneeded_isolated(pods, demand));
    abandon.sort();
    abandon.dedup();
    Plan {
        start: if may_start { scaling.start } else { 0 },
        start_for: if may_start { unserved_isolated_tasks(&pool, pods, demand) } else { Vec::new() },
        for_isolation: scaling.for_isolation,
        drain_idle: idle.into_iter().chain(outdated_idle).collect(),
        drain: outdated,
        delete: terminated(pods),
        abandon,
    }
}

/// Returns whether the operator starts pods for an agent.
pub(super) fn runs_pods(spec: &AgentSpec) -> bool {
    let none = spec.replicas == 0 && spec.max_replicas == Some(0);
    spec.management != Some(Management::External) && !none
}

/// Returns the pods to delete because they have terminated: all but the last that failed, which is kept for a while.
fn terminated(pods: &[WorkerPod]) -> Vec<String> {
    let ended = |pod: &&WorkerPod| pod.has_terminated() && !pod.is_deleted;
    let failed = pods.iter().filter(ended).filter(|pod| pod.lifecycle == PodLifecycle::Failed);
    let kept = failed.filter(|pod| pod.ended_for.is_some_and(|ended_for| ended_for < FAILED_POD_TTL));
    let kept = kept.min_by_key(|pod| pod.ended_for).map(|pod| &pod.name);
    pods.iter().filter(ended).map(|pod| &pod.name).filter(|name| Some(*name) != kept).cloned().collect()
}

/// Returns queued tasks that need a worker of their own and have no pod yet, up to the agent's ceiling, which bounds
/// these pods in addition to those of the pool. A worker that has lost its connection serves no task, and up to a quarter
/// of them hold no place.
fn unserved_isolated_tasks(pool: &scaling::Pool, pods: &[WorkerPod], demand: &DemandSnapshot) -> Vec<String> {
    let mut lost = usize::try_from(pool.ceiling.div_ceil(4)).unwrap_or(usize::MAX);
    let present = pods.iter().filter(|pod| match pod.lifecycle {
        PodLifecycle::Lost | PodLifecycle::Unresponsive if lost > 0 => {
            lost -= 1;
            false
        }
        _ => managed(pod, false) != ManagedState::Ended,
    });
    let present: Vec<_> = present.filter_map(|pod| pod.task.as_deref()).collect();
    let free = usize::try_from(pool.ceiling).unwrap_or(usize::MAX).saturating_sub(present.len());
    let served: BTreeSet<_> = present.into_iter().collect();
    let queued = demand.isolated.iter().filter(|task| task.queued && task.worker.is_empty());
    let tasks = queued.map(|task| names::last(&task.task));
    tasks.filter(|task| !served.contains(task)).take(free).map(str::to_owned).collect()
}

/// Returns the pods of isolated tasks that have ended or were cancelled, and those whose workers get no tasks, in place of
/// which another one starts. Other workers that serve end by themselves.
fn unneeded_isolated(pods: &[WorkerPod], demand: &DemandSnapshot) -> Vec<String> {
    let wanted: BTreeSet<_> = demand.isolated.iter().map(|task| names::last(&task.task)).collect();
    let idle = |pod: &&WorkerPod| {
        matches!(pod.lifecycle, PodLifecycle::Starting | PodLifecycle::Lost) && !pod.is_deleted
    };
    let unneeded = |pod: &&WorkerPod| pod.task.as_deref().is_some_and(|task| !wanted.contains(task));
    let useless = |pod: &&WorkerPod| {
        let unavailable = pod.unavailable_for.is_some_and(|time| time >= scaling::REPLACE_AFTER);
        pod.lifecycle == PodLifecycle::Serving && !pod.is_deleted && unavailable
    };
    let unneeded = pods.iter().filter(idle).filter(unneeded);
    unneeded.chain(pods.iter().filter(useless)).map(|pod| pod.name.clone()).collect()
}

/// Returns workers to replace because their pods were created from an older spec: the idle ones, and the busy ones. At
/// most a quarter is replaced at a time, so that the others can take new tasks; what they run, they finish. Busy ones
/// also wait for those that still do.
fn replacements(hash: &str, shared: &[&WorkerPod], draining: &[String]) -> (Vec<String>, Vec<String>) {
    let live: Vec<_> = shared.iter().filter(|pod| is_live(pod)).collect();
    let in_progress = live.iter().filter(|pod| pod.is_starting()).count() + draining.len();
    let max_at_a_time = live.len().div_ceil(4);
    let outdated = live.iter().filter(|pod| {
        let serves = pod.lifecycle == PodLifecycle::Serving && pod.worker.is_some();
        serves && pod.hash != hash && !draining.contains(&pod.name)
    });
    let (mut busy, mut idle): (Vec<_>, Vec<_>) = outdated.partition(|pod| running(pod) > 0);
    let finishing = shared.iter().filter(|pod| is_finishing(pod) && pod.hash != hash).count();
    // Idle workers first: they are replaced immediately.
    idle.truncate(max_at_a_time.saturating_sub(in_progress));
    busy.truncate(max_at_a_time.saturating_sub(in_progress + idle.len() + finishing));
    let names = |pods: Vec<&&&WorkerPod>| pods.into_iter().map(|pod| pod.name.clone()).collect();
    (names(idle), names(busy))
}

/// Returns whether a worker takes, or will take, tasks.
fn is_live(pod: &WorkerPod) -> bool {
    matches!(pod.lifecycle, PodLifecycle::Starting | PodLifecycle::Serving) && !is_draining(pod)
}

/// Returns whether a draining worker still runs tasks.
fn is_finishing(pod: &WorkerPod) -> bool {
    let present = matches!(pod.lifecycle, PodLifecycle::Serving | PodLifecycle::Terminating);
    present && is_draining(pod) && running(pod) > 0
}

fn is_draining(pod: &WorkerPod) -> bool {
    pod.worker.as_ref().is_some_and(|worker| worker.draining)
}

fn running(pod: &WorkerPod) -> u32 {
    pod.worker.as_ref().map_or(0, |worker| u32::try_from(worker.running).unwrap_or_default())
}

fn bounds(spec: &AgentSpec) -> Bounds {
    Bounds {
        replicas: spec.replicas,
        max_replicas: spec.max_replicas,
        spare_workers: spec.spare_workers.unwrap_or_default(),
        slots: spec.slots.unwrap_or_default(),
        idle_timeout: spec.idle_timeout.map(|timeout| timeout.0),
    }
}

/// Returns the workers that leave and whose replacements need not wait for their end: those of an older spec that finish
/// their tasks, and those that are not connected. At most a quarter of the ceiling, which is exceeded by them.
fn beyond_ceiling<'a>(spec: &AgentSpec, hash: &str, shared: &[&'a WorkerPod]) -> BTreeSet<&'a str> {
    let bounds = bounds(spec);
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    let ceiling = scaling::ceiling(count(bounds.replicas), bounds.max_replicas.map(count));
    let max = usize::try_from(ceiling.div_ceil(4)).unwrap_or(usize::MAX);
    let leaves = shared.iter().filter(|pod| match pod.lifecycle {
        PodLifecycle::Lost | PodLifecycle::Unresponsive => true,
        PodLifecycle::Terminating => pod.worker.is_none() || pod.hash != hash,
        PodLifecycle::Serving => pod.hash != hash && is_draining(pod),
        _ => false,
    });
    leaves.filter(|pod| !pod.is_unreachable).take(max).map(|pod| pod.name.as_str()).collect()
}

/// Returns the state of a pod for scaling. `beyond` is whether it holds no place in the pool.
fn managed(pod: &WorkerPod, beyond: bool) -> ManagedState {
    match pod.lifecycle {
        _ if beyond => ManagedState::Ended,
        PodLifecycle::Starting => ManagedState::Starting,
        PodLifecycle::Serving => ManagedState::Serving,
        // A pod on a dead node stays until its node is back or removed: it must not hold a place until then.
        PodLifecycle::Lost | PodLifecycle::Unresponsive | PodLifecycle::Terminating if pod.is_unreachable => {
            ManagedState::Ended
        }
        PodLifecycle::Lost | PodLifecycle::Unresponsive | PodLifecycle::Terminating => ManagedState::Draining,
        PodLifecycle::Succeeded | PodLifecycle::Failed => ManagedState::Ended,
    }
}

/// Converts the reports of the agent's own pods, with their idle times, and those of foreign workers.
fn reported(hash: &str, demand: &DemandSnapshot, shared: &[&WorkerPod]) -> Vec<ReportedWorker> {
    let convert = |worker: &v1::WorkerDemand, pod: Option<&WorkerPod>| ReportedWorker {
        name: names::last(&worker.worker).to_owned(),
        running: u32::try_from(worker.running).unwrap_or_default(),
        storing: u32::try_from(worker.storing).unwrap_or_default(),
        draining: worker.draining,
        connected: worker.connected,
        unavailable: worker.unavailable,
        not_isolated: is_not_isolated(worker),
        age: pod.map(|pod| pod.age),
        is_current: pod.is_some_and(|pod| pod.hash == hash),
        idle_for: pod.and_then(|pod| pod.idle_for),
    };
    let own = shared.iter().filter_map(|pod| Some(convert(pod.worker.as_ref()?, Some(*pod))));
    let foreign = demand.demand.workers.iter();
    let foreign = foreign.filter(|worker| shared.iter().all(|pod| pod.name != names::last(&worker.worker)));
    own.chain(foreign.map(|worker| convert(worker, None))).collect()
}

#[cfg(test)]
mod tests;
