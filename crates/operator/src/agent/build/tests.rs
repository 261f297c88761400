//! Plans for pools of every shape and history.

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
fn free_pods_without_isolation_are_no_room_for_it() {
    let agent = spec("replicas: 0, maxReplicas: 4");
    let starts = |isolated: bool, queued_isolated| {
        let mut pod = pod("a", PodLifecycle::Serving, Some(0));
        pod.worker.as_mut().unwrap().isolated = isolated;
        pod.age = scaling::REPLACE_AFTER;
        let demand = v1::Demand { queued: 1, queued_isolated, ..Default::default() };
        plan(&agent, "h", &[pod], &DemandSnapshot { demand, ..Default::default() }, true).start
    };
    assert_eq!((starts(false, 0), starts(false, 1), starts(true, 1)), (0, 1, 0));
}

#[test]
fn disconnected_pods_keep_their_statement_of_isolation() {
    let agent = spec("replicas: 0, maxReplicas: 4");
    let starts = |reason: &str| {
        let mut pod = pod("a", PodLifecycle::Serving, Some(0));
        pod.age = scaling::REPLACE_AFTER;
        let worker = pod.worker.as_mut().unwrap();
        (worker.connected, worker.not_isolated_reason) = (false, reason.into());
        let demand = v1::Demand { queued: 1, queued_isolated: 1, ..Default::default() };
        plan(&agent, "h", &[pod], &DemandSnapshot { demand, ..Default::default() }, true).start
    };
    assert_eq!((starts("it runs as root"), starts("")), (1, 0), "without a reason, none is known");
}

#[test]
fn ended_pods_delay_the_next_try() {
    let agent = spec("replicas: 0, maxReplicas: 4");
    let starts = |seconds: Option<u64>| {
        let demand = v1::Demand { queued: 3, queued_isolated: 3, ..Default::default() };
        let last_try = seconds.map(Duration::from_secs);
        plan(&agent, "h", &[], &DemandSnapshot { demand, last_try, ..Default::default() }, true).start
    };
    assert_eq!([starts(None), starts(Some(119)), starts(Some(120))], [3, 0, 1]);
}

#[test]
fn older_pods_delay_no_try_of_a_corrected_spec() {
    let agent = spec("replicas: 0, maxReplicas: 20, slots: 4");
    let busy = |name: usize| WorkerPod {
        age: Duration::from_secs(5),
        ..pod(&name.to_string(), PodLifecycle::Serving, Some(1))
    };
    let older: Vec<_> = (0..7).map(busy).collect();
    let last = WorkerPod { hash: "new".into(), age: scaling::REPLACE_AFTER, ..busy(7) };
    let starts = |pods: &[WorkerPod], last_try| {
        let demand = v1::Demand { queued: 1, queued_isolated: 1, ..Default::default() };
        plan(&agent, "new", pods, &DemandSnapshot { demand, last_try, ..Default::default() }, true).start
    };
    assert_eq!(starts(&older, None), 1);
    let (recent, all) = (scaling::REPLACE_AFTER / 2, [older, vec![last]].concat());
    assert_eq!([recent, scaling::REPLACE_AFTER].map(|age| starts(&all, Some(age))), [0, 1]);
}

/// An outage of the storage of artifacts: tasks end, and leave their files with their workers.
#[test]
fn files_to_store_start_no_spare_pods_and_keep_theirs() {
    let agent = spec("replicas: 0, maxReplicas: 9, spareWorkers: 1");
    let with = |mut pod: WorkerPod, storing| {
        pod.worker.as_mut().unwrap().storing = storing;
        pod
    };
    let busy = |name| pod(name, PodLifecycle::Serving, Some(1));
    assert_eq!(plan(&agent, "h", &[busy("a")], &demand(0), true).start, 1, "its slot is occupied");
    let storing = with(busy("a"), 1);
    assert_eq!(plan(&agent, "h", std::slice::from_ref(&storing), &demand(0), true), Plan::default());
    // It takes another task, and needs a spare one again.
    let taken = with(pod("a", PodLifecycle::Serving, Some(2)), 1);
    assert_eq!(plan(&agent, "h", std::slice::from_ref(&taken), &demand(0), true).start, 1);
    // Demand ends: pods go that have nothing, and not the one whose files end with it.
    let none = spec("replicas: 0, maxReplicas: 9");
    let both = [storing.clone(), pod("b", PodLifecycle::Serving, Some(0))];
    assert_eq!(plan(&none, "h", &both, &demand(0), true).drain_idle, ["b"]);
    // A rollout waits for its files as for a task.
    let replaced = plan(&none, "new", &[storing], &demand(0), true);
    assert_eq!((replaced.drain, replaced.drain_idle), (vec!["a".to_owned()], vec![]));
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
    // It finishes, and its replacement starts beyond the ceiling; the others wait for both, unless they become idle.
    let draining = |mut pod: WorkerPod| {
        pod.worker.as_mut().unwrap().draining = true;
        pod
    };
    let mut finishing = [vec![draining(busy[0].clone())], busy[1..].to_vec()].concat();
    let replaces = plan(&agent, "new", &finishing, &demand(9), true);
    assert_eq!((replaces.start, replaces.drain), (1, vec![]));
    let new = WorkerPod { hash: "new".into(), ..pod("e", PodLifecycle::Serving, Some(1)) };
    finishing.push(new);
    assert_eq!(plan(&agent, "new", &finishing, &demand(9), true), Plan::default());
    finishing[1] = pod("b", PodLifecycle::Serving, Some(0));
    assert_eq!(plan(&agent, "new", &finishing, &demand(9), true).drain_idle, ["b"]);
    // While a replacement is starting, no other worker is drained.
    let mut with_new = pods[1..].to_vec();
    with_new.push(pod("e", PodLifecycle::Starting, None));
    assert_eq!(plan(&agent, "new", &with_new, &demand(0), true).drain_idle, [""; 0]);
}

#[test]
fn replacement_outlives_the_end_of_its_predecessor() {
    let agent = spec("replicas: 3, maxReplicas: 3");
    let new = |name, lifecycle, running| WorkerPod { hash: "new".into(), ..pod(name, lifecycle, running) };
    let serving = |name| new(name, PodLifecycle::Serving, Some(1));
    // The old worker has left the control plane, and its container is about to end.
    let left = pod("a", PodLifecycle::Terminating, None);
    let pods = [left, serving("b"), serving("c"), new("d", PodLifecycle::Starting, None)];
    assert_eq!(plan(&agent, "new", &pods, &demand(0), true), Plan::default());
}

#[test]
fn only_worker_is_replaced_while_it_finishes() {
    let agent = spec("replicas: 0, maxReplicas: 1, slots: 8");
    let mut old = pod("a", PodLifecycle::Serving, Some(1));
    assert_eq!(plan(&agent, "new", &[old.clone()], &demand(3), true).drain, ["a"]);
    old.worker.as_mut().unwrap().draining = true;
    assert_eq!(plan(&agent, "new", &[old.clone()], &demand(3), true).start, 1, "its slots are closed");
    assert_eq!(plan(&agent, "h", &[old], &demand(3), true).start, 0, "it was not drained for a new spec");
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

fn isolated(tasks: &[&str]) -> DemandSnapshot {
    let tasks = tasks.iter().map(|task| v1::IsolatedDemand {
        task: format!("namespaces/a/tasks/{task}"),
        queued: true,
        ..Default::default()
    });
    DemandSnapshot { isolated: tasks.collect(), ..Default::default() }
}

fn isolated_pod(name: &str, task: &str, lifecycle: PodLifecycle) -> WorkerPod {
    WorkerPod { task: Some(task.into()), ..pod(name, lifecycle, None) }
}

#[test]
fn isolated_pods_stay_below_ceiling() {
    let agent = spec("replicas: 0, maxReplicas: 2");
    assert_eq!(plan(&agent, "h", &[], &isolated(&["t1", "t2", "t3"]), true).start_for, ["t1", "t2"]);
    let pods = [isolated_pod("p", "t1", PodLifecycle::Serving), pod("q", PodLifecycle::Serving, Some(1))];
    assert_eq!(plan(&agent, "h", &pods, &isolated(&["t1", "t2", "t3"]), true).start_for, ["t2"]);
}

#[test]
fn isolated_pods_end_with_their_task() {
    let agent = spec("replicas: 0, maxReplicas: 9");
    let pods = [
        isolated_pod("a", "t1", PodLifecycle::Starting),
        isolated_pod("b", "t2", PodLifecycle::Starting),
        isolated_pod("c", "t3", PodLifecycle::Serving),
        isolated_pod("d", "t4", PodLifecycle::Lost),
    ];
    assert_eq!(plan(&agent, "h", &pods, &isolated(&["t2"]), true).abandon, ["a", "d"]);
    // A worker with a full disk keeps its task waiting.
    let sick = |seconds| WorkerPod {
        unavailable_for: Some(Duration::from_secs(seconds)),
        ..isolated_pod("s", "t2", PodLifecycle::Serving)
    };
    assert_eq!(plan(&agent, "h", &[sick(119)], &isolated(&["t2"]), true), Plan::default());
    assert_eq!(plan(&agent, "h", &[sick(120)], &isolated(&["t2"]), true).abandon, ["s"]);
    let lost = isolated_pod("l", "t2", PodLifecycle::Lost);
    assert_eq!(plan(&agent, "h", &[lost], &isolated(&["t2"]), true).start_for, ["t2"], "it waits again");
    let deleted = WorkerPod { is_deleted: true, ..sick(120) };
    assert_eq!(plan(&agent, "h", &[deleted], &isolated(&["t2"]), true), Plan::default());
    // The agent was corrected: its task gets a new pod once the broken one is deleted.
    let broken = WorkerPod {
        start_failure: Some(StartFailure::new("ErrImagePull", "no")),
        is_outdated: true,
        ..isolated_pod("b", "t2", PodLifecycle::Starting)
    };
    assert_eq!(plan(&agent, "h", &[broken], &isolated(&["t2"]), true).abandon, ["b"]);
}

#[test]
fn external_and_stopped_agents_start_nothing() {
    for text in ["replicas: 2, maxReplicas: 4, management: External", "replicas: 0, maxReplicas: 0"] {
        let agent = spec(text);
        let all = DemandSnapshot { isolated: isolated(&["t1"]).isolated, ..demand(9) };
        assert_eq!(plan(&agent, "h", &[], &all, true), Plan::default(), "{text}");
        let pods = [pod("a", PodLifecycle::Serving, Some(0)), pod("b", PodLifecycle::Serving, Some(1))];
        let stopped = plan(&agent, "h", &pods, &all, true);
        assert_eq!(stopped, Plan { drain_idle: vec!["a".into()], ..Plan::default() }, "{text}");
    }
}

#[test]
fn lost_workers_are_replaced() {
    let agent = spec("replicas: 1, maxReplicas: 1");
    let lost = pod("a", PodLifecycle::Lost, None);
    let plan_of = |pod: &WorkerPod| plan(&agent, "h", std::slice::from_ref(pod), &demand(3), true);
    assert_eq!(plan_of(&lost).start, 1, "also at the ceiling, of which a quarter may be exceeded");
    let two = [lost.clone(), pod("b", PodLifecycle::Lost, None)];
    assert_eq!(plan(&spec("replicas: 2, maxReplicas: 2"), "h", &two, &demand(3), true).start, 1);
    assert_eq!(plan_of(&WorkerPod { is_unreachable: true, ..lost.clone() }).start, 1);
    let larger = spec("replicas: 1, maxReplicas: 2");
    assert_eq!(plan(&larger, "h", &[lost], &demand(3), true).start, 2, "it is no capacity");
    let deleted =
        WorkerPod { is_unreachable: true, is_deleted: true, ..pod("a", PodLifecycle::Terminating, None) };
    assert_eq!(plan_of(&deleted).start, 1);
    let hung = pod("a", PodLifecycle::Unresponsive, None);
    assert_eq!(plan_of(&hung).abandon, ["a"]);
    assert_eq!(plan_of(&WorkerPod { is_deleted: true, ..hung }).abandon, [""; 0]);
}

#[test]
fn unneeded_starts_are_withdrawn() {
    let agent = spec("replicas: 0, maxReplicas: 9");
    let aged = |name, seconds| WorkerPod {
        age: Duration::from_secs(seconds),
        ..pod(name, PodLifecycle::Starting, None)
    };
    let pods = [aged("a", 70), aged("b", 80), aged("c", 10)];
    let plan = plan(&agent, "h", &pods, &demand(2), true);
    assert_eq!(plan, Plan { abandon: vec!["b".into()], ..Plan::default() });
    let hasty = spec("replicas: 0, maxReplicas: 9, idleTimeout: 2s");
    let plan = super::plan(&hasty, "h", &[aged("c", 10)], &demand(0), true);
    assert_eq!(plan, Plan::default(), "it is about to start");
}

#[test]
fn last_failed_pod_is_kept_for_a_while() {
    let agent = spec("replicas: 0, maxReplicas: 1");
    let failed = |name, seconds| WorkerPod {
        ended_for: Some(Duration::from_secs(seconds)),
        ..pod(name, PodLifecycle::Failed, None)
    };
    let pods = [failed("a", 20), failed("b", 10), failed("c", 30)];
    assert_eq!(plan(&agent, "h", &pods, &demand(0), true).delete, ["a", "c"]);
    let old = failed("b", FAILED_POD_TTL.as_secs());
    assert_eq!(plan(&agent, "h", &[old], &demand(0), true).delete, ["b"]);
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
