//! Decides what to do with an agent's pods. Pure, so that the invariants, such as never draining a busy worker as idle, are
//! tested without a cluster.

use std::collections::BTreeSet;

use rota_core::scaling::{self, Bounds, ManagedState, ManagedWorker, ReportedWorker};
use rota_crds::AgentSpec;
use rota_proto::{names, v1};

use super::demand::DemandSnapshot;
use super::dereference::{PodLifecycle, WorkerPod};

/// Actions that bring an agent's pods to the desired state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Number of shared workers to start.
    pub start: u32,
    /// Tasks to start a worker of their own for.
    pub start_for: Vec<String>,
    /// Workers to drain if they are still idle.
    pub drain_idle: Vec<String>,
    /// Workers to drain after what they run.
    pub drain: Vec<String>,
    /// Pods to delete because they have terminated.
    pub delete: Vec<String>,
    /// Pods to delete that were created from an older spec and cannot start, possibly because of that spec. Excludes pods
    /// that run but are unknown to the control plane, which may just have restarted.
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
    let shared: Vec<_> = pods.iter().filter(|pod| pod.task.is_none()).collect();
    let managed: Vec<_> = shared.iter().map(|pod| managed(pod)).collect();
    let reported = reported(demand, &shared);
    let pool = scaling::Pool::managed(&bounds(spec), demand.demand.queued, &managed, &reported);
    let scaling = scaling::plan(&pool);
    let (outdated_idle, outdated) = replacements(hash, &shared, &scaling.drain);
    let names = |pods: &[&WorkerPod], matches: fn(&WorkerPod, &str) -> bool| {
        pods.iter().filter(|pod| matches(pod, hash)).map(|pod| pod.name.clone()).collect()
    };
    Plan {
        start: if may_start { scaling.start } else { 0 },
        start_for: if may_start { unserved_isolated_tasks(pods, demand) } else { Vec::new() },
        drain_idle: scaling.drain.into_iter().chain(outdated_idle).collect(),
        drain: outdated,
        delete: names(&pods.iter().collect::<Vec<_>>(), |pod, _| pod.has_terminated()),
        abandon: names(&shared, |pod, hash| {
            pod.is_starting() && pod.start_failure.is_some() && pod.hash != hash
        }),
    }
}

/// Returns queued tasks that need a worker of their own and have no pod yet.
fn unserved_isolated_tasks(pods: &[WorkerPod], demand: &DemandSnapshot) -> Vec<String> {
    let served: BTreeSet<_> =
        pods.iter().filter(|pod| !pod.has_terminated()).filter_map(|pod| pod.task.as_deref()).collect();
    let queued = demand.isolated.iter().filter(|task| task.queued && task.worker.is_empty());
    let tasks = queued.map(|task| names::last(&task.task));
    tasks.filter(|task| !served.contains(task)).map(str::to_owned).collect()
}

/// Returns workers to replace because their pods were created from an older spec: the idle ones, and the busy ones. At
/// most a quarter is replaced at a time, so that the others can take new tasks; what they run, they finish.
fn replacements(hash: &str, shared: &[&WorkerPod], draining: &[String]) -> (Vec<String>, Vec<String>) {
    let live: Vec<_> = shared.iter().filter(|pod| is_live(pod)).collect();
    let in_progress = live.iter().filter(|pod| pod.is_starting()).count() + draining.len();
    let max_at_a_time = live.len().div_ceil(4);
    let outdated = live.iter().filter(|pod| {
        pod.lifecycle == PodLifecycle::Serving && pod.hash != hash && !draining.contains(&pod.name)
    });
    // Idle workers first: they are replaced immediately.
    let mut outdated: Vec<_> = outdated.collect();
    outdated.sort_by_key(|pod| running(pod) > 0);
    outdated.truncate(max_at_a_time.saturating_sub(in_progress));
    let (busy, idle): (Vec<_>, Vec<_>) = outdated.into_iter().partition(|pod| running(pod) > 0);
    let names = |pods: Vec<&&&WorkerPod>| pods.into_iter().map(|pod| pod.name.clone()).collect();
    (names(idle), names(busy))
}

/// Returns whether a worker takes, or will take, tasks.
fn is_live(pod: &WorkerPod) -> bool {
    let draining = pod.worker.as_ref().is_some_and(|worker| worker.draining);
    matches!(pod.lifecycle, PodLifecycle::Starting | PodLifecycle::Serving) && !draining
}

fn running(pod: &WorkerPod) -> u32 {
    pod.worker.as_ref().map_or(0, |worker| u32::try_from(worker.running).unwrap_or_default())
}

fn bounds(spec: &AgentSpec) -> Bounds {
    Bounds {
        replicas: spec.replicas,
        max_replicas: spec.max_replicas.unwrap_or_default(),
        spare_workers: spec.spare_workers.unwrap_or_default(),
        slots: spec.slots.unwrap_or_default(),
        idle_timeout: spec.idle_timeout.map(|timeout| timeout.0),
    }
}

fn managed(pod: &WorkerPod) -> ManagedWorker {
    let state = match pod.lifecycle {
        PodLifecycle::Starting => ManagedState::Starting,
        PodLifecycle::Serving => ManagedState::Serving,
        PodLifecycle::Terminating => ManagedState::Draining,
        PodLifecycle::Succeeded | PodLifecycle::Failed => ManagedState::Ended,
    };
    ManagedWorker { name: pod.name.clone(), state }
}

/// Converts the reports of the agent's own pods, with their idle times, and those of foreign workers.
fn reported(demand: &DemandSnapshot, shared: &[&WorkerPod]) -> Vec<ReportedWorker> {
    let convert = |worker: &v1::WorkerDemand, idle_for| ReportedWorker {
        name: names::last(&worker.worker).to_owned(),
        running: u32::try_from(worker.running).unwrap_or_default(),
        draining: worker.draining,
        connected: worker.connected,
        idle_for,
    };
    let own = shared.iter().filter_map(|pod| Some(convert(pod.worker.as_ref()?, pod.idle_for)));
    let foreign = demand.demand.workers.iter();
    let foreign = foreign.filter(|worker| shared.iter().all(|pod| pod.name != names::last(&worker.worker)));
    own.chain(foreign.map(|worker| convert(worker, None))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::start_failure::StartFailure;
    use super::*;

    fn spec(text: &str) -> AgentSpec {
        serde_saphyr::from_str(&format!("{{runtime: {{scripted: {{}}}}, {text}}}")).unwrap()
    }

    fn pod(name: &str, lifecycle: PodLifecycle, running: Option<i32>) -> WorkerPod {
        let worker = running.map(|running| v1::WorkerDemand {
            worker: format!("namespaces/a/workers/{name}"),
            running,
            connected: true,
            ..Default::default()
        });
        let idle_for = (running == Some(0)).then_some(Duration::from_secs(999));
        WorkerPod { name: name.into(), hash: "h".into(), lifecycle, worker, idle_for, ..Default::default() }
    }

    fn demand(queued: i64) -> DemandSnapshot {
        DemandSnapshot { demand: v1::Demand { queued, ..Default::default() }, ..Default::default() }
    }

    #[test]
    fn demand_starts_and_idle_timeout_drains() {
        let agent = spec("replicas: 0, maxReplicas: 4");
        assert_eq!(plan(&agent, "h", &[], &demand(30), true).start, 4);
        assert_eq!(plan(&agent, "h", &[], &demand(30), false).start, 0);
        let pods = [pod("a", PodLifecycle::Serving, Some(0)), pod("b", PodLifecycle::Serving, Some(1))];
        assert_eq!(plan(&agent, "h", &pods, &demand(0), true).drain_idle, ["a"]);
    }

    #[test]
    fn terminated_pods_are_deleted_and_replaced() {
        let agent = spec("replicas: 2, maxReplicas: 2");
        let pods = [pod("a", PodLifecycle::Succeeded, None), pod("b", PodLifecycle::Failed, None)];
        let plan = plan(&agent, "h", &pods, &demand(0), true);
        assert_eq!(plan.delete, ["a", "b"]);
        assert_eq!(plan.start, 2);
    }

    #[test]
    fn outdated_failing_pods_are_abandoned() {
        let agent = spec("replicas: 0, maxReplicas: 1");
        let quiet = pod("a", PodLifecycle::Starting, None);
        assert_eq!(plan(&agent, "new", std::slice::from_ref(&quiet), &demand(1), true), Plan::default());
        let stuck = WorkerPod { start_failure: Some(StartFailure::new("ErrImagePull", "no")), ..quiet };
        let plan = plan(&agent, "new", &[stuck], &demand(1), true);
        assert_eq!(plan, Plan { abandon: vec!["a".into()], ..Plan::default() });
    }

    #[test]
    fn terminating_pods_count_for_the_ceiling() {
        let agent = spec("replicas: 1, maxReplicas: 1");
        let plan = plan(&agent, "h", &[pod("a", PodLifecycle::Terminating, Some(1))], &demand(5), true);
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn rollout_replaces_idle_workers_first() {
        let agent = spec("replicas: 4, maxReplicas: 4");
        let pods = [
            pod("a", PodLifecycle::Serving, Some(1)),
            pod("b", PodLifecycle::Serving, Some(0)),
            pod("c", PodLifecycle::Serving, Some(0)),
            pod("d", PodLifecycle::Serving, Some(0)),
        ];
        let first = plan(&agent, "new", &pods, &demand(0), true);
        assert_eq!((first.drain_idle.len(), first.drain.len()), (1, 0));
        assert_eq!(first.delete, [""; 0]);
        // All are busy: one after the other finishes its tasks and takes no new ones.
        let busy: Vec<_> = ["a", "b", "c", "d"].map(|name| pod(name, PodLifecycle::Serving, Some(1))).into();
        let busy_plan = plan(&agent, "new", &busy, &demand(9), true);
        assert_eq!((busy_plan.drain_idle.len(), busy_plan.drain), (0, vec!["a".to_owned()]));
        // While a replacement is starting, no other worker is drained.
        let mut with_new = pods[1..].to_vec();
        with_new.push(pod("e", PodLifecycle::Starting, None));
        assert_eq!(plan(&agent, "new", &with_new, &demand(0), true).drain_idle, [""; 0]);
    }

    #[test]
    fn isolated_task_gets_one_pod() {
        let agent = spec("replicas: 0, maxReplicas: 1");
        let mut demand = demand(0);
        let task =
            v1::IsolatedDemand { task: "namespaces/a/tasks/t1".into(), queued: true, ..Default::default() };
        demand.isolated.push(task);
        assert_eq!(plan(&agent, "h", &[], &demand, true).start_for, ["t1"]);
        let mut its_own = pod("p", PodLifecycle::Starting, None);
        its_own.task = Some("t1".into());
        let plan = plan(&agent, "h", &[its_own], &demand, true);
        assert_eq!(plan, Plan::default(), "the shared pool does not count it");
    }

    #[test]
    fn busy_workers_are_never_drained_as_idle() {
        // Every small pool, whatever its spec and demand.
        for floor in 0..3 {
            for ceiling in 0..4 {
                for queued in [0, 1, 9] {
                    for states in 0..27_u32 {
                        let pods: Vec<_> = (0..3_u32)
                            .map(|at| {
                                let running = i32::try_from(states / 3_u32.pow(at) % 3).unwrap();
                                pod(&format!("m{at}"), PodLifecycle::Serving, Some(running))
                            })
                            .collect();
                        let agent = spec(&format!("replicas: {floor}, maxReplicas: {ceiling}"));
                        for hash in ["h", "new"] {
                            let plan = plan(&agent, hash, &pods, &demand(queued), true);
                            for name in &plan.drain_idle {
                                let pod = pods.iter().find(|pod| pod.name == *name).unwrap();
                                assert_eq!(running(pod), 0, "{plan:?}");
                            }
                            assert_eq!(plan.delete, [""; 0]);
                            assert!(hash == "new" || plan.drain.is_empty());
                        }
                    }
                }
            }
        }
    }
}
