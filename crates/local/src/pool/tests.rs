//! Lifecycle of local pools: demand, idleness, replacement, failed starts.

use tokio::sync::mpsc;

use super::*;
use crate::process;

fn agent(spec: AgentSpec) -> Agent {
    Agent { spec: Some(spec), ..Default::default() }
}

fn worker_demand(name: &str, running: i32) -> WorkerDemand {
    let idle_since = (running == 0).then_some(pbjson_types::Timestamp { seconds: 0, nanos: 0 });
    WorkerDemand { worker: name.into(), running, connected: true, idle_since, ..Default::default() }
}

fn demand(queued: i64, workers: Vec<WorkerDemand>) -> Demand {
    Demand { queued, workers, ..Default::default() }
}

/// Starts a process that exits when its standard input closes.
fn worker(folder: &tempfile::TempDir) -> PoolWorker {
    let (sender, _) = mpsc::unbounded_channel();
    let spec = process::ProcessSpec {
        program: "/bin/cat".into(),
        arguments: vec![],
        log: folder.path().join("log"),
        supervisors: folder.path().join("supervisors"),
        agent: String::new(),
        worker: String::new(),
        token: "token".into(),
        instance: String::new(),
        grace: Duration::from_secs(1),
    };
    let process = process::start(spec, sender).unwrap();
    PoolWorker {
        process,
        started: Instant::now(),
        slots: 1,
        connected: false,
        drained: false,
        only_stores: false,
    }
}

fn desired(pool: &Pool) -> DesiredWorkers {
    pool.desired(Instant::now(), UNIX_EPOCH + Duration::from_secs(1000))
}

#[tokio::test]
async fn pool_follows_demand_until_agent_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { max_replicas: Some(3), ..Default::default() }));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.set_demand(demand(2, vec![]));
    assert_eq!(desired(&pool).start, 2);
    assert_eq!(pool.free_name("coder"), "coder-1");
    pool.workers.insert("coder-1".into(), worker(&folder));
    assert_eq!(pool.free_name("coder"), "coder-2");
    assert_eq!(desired(&pool).start, 1);
    // The worker connects, runs a task, becomes idle and is drained.
    pool.set_demand(demand(0, vec![worker_demand("coder-1", 1)]));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.set_demand(demand(0, vec![worker_demand("coder-1", 0)]));
    assert_eq!(desired(&pool).drain, ["coder-1"]);
    if let Some(worker) = pool.workers.get_mut("coder-1") {
        worker.drained = true;
    }
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.remove_agent();
    assert_eq!(desired(&pool).stop, ["coder-1"]);
    pool.set_demand(demand(0, vec![worker_demand("coder-1", 1)]));
    assert_eq!(desired(&pool).stop, [""; 0], "a busy worker finishes its task");
    pool.workers.clear();
    assert!(pool.is_finished());
}

/// An outage of the storage of artifacts.
#[tokio::test]
async fn worker_with_files_to_store_is_spare_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { max_replicas: Some(5), spare_workers: 1, ..Default::default() }));
    pool.workers.insert("coder-1".into(), worker(&folder));
    pool.set_demand(demand(0, vec![worker_demand("coder-1", 1)]));
    assert_eq!(desired(&pool).start, 1);
    let storing = WorkerDemand { storing: 1, ..worker_demand("coder-1", 1) };
    pool.set_demand(demand(0, vec![storing.clone()]));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    // Nothing is spare any more, nor of the agent's slots.
    pool.set_agent(&agent(AgentSpec { max_replicas: Some(5), slots: 2, ..Default::default() }));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.set_demand(demand(0, vec![worker_demand("coder-1", 0)]));
    assert_eq!(desired(&pool).drain, ["coder-1"], "the files are stored");
    pool.remove_agent();
    pool.set_demand(demand(0, vec![storing]));
    assert_eq!(desired(&pool).stop, [""; 0]);
}

/// The state of a worker on another machine does not count here.
#[tokio::test]
async fn full_disk_starts_no_further_workers() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { max_replicas: Some(5), ..Default::default() }));
    let sick = |name: &str| WorkerDemand { unavailable: true, not_ready: true, ..worker_demand(name, 0) };
    pool.set_demand(demand(9, vec![sick("far")]));
    assert_eq!(desired(&pool).start, 4);
    pool.workers.insert("coder-1".into(), worker(&folder));
    pool.workers.insert("coder-2".into(), worker(&folder));
    pool.set_demand(demand(9, vec![sick("coder-1"), sick("coder-2")]));
    let planned = desired(&pool);
    assert_eq!((planned.start, planned.drain.len()), (0, 1), "one stays, to report the recovery");
    // Its circuit breaker is its own, and so is a process that it cannot end.
    let suspended = |name: &str| WorkerDemand { unavailable: true, ..worker_demand(name, 0) };
    pool.set_demand(demand(9, vec![suspended("coder-1"), suspended("coder-2")]));
    assert_eq!(desired(&pool).start, 3);
}

#[tokio::test]
async fn pool_with_a_ceiling_of_zero_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { max_replicas: Some(0), ..Default::default() }));
    pool.set_demand(demand(2, vec![]));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.workers.insert("coder-1".into(), worker(&folder));
    pool.set_demand(demand(2, vec![worker_demand("coder-1", 0)]));
    assert_eq!(desired(&pool).drain, ["coder-1"]);
    // Not set means one.
    pool.set_agent(&agent(AgentSpec::default()));
    assert_eq!(desired(&pool).drain, [""; 0]);
}

#[tokio::test]
async fn external_workers_count_and_are_kept() {
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { max_replicas: Some(3), ..Default::default() }));
    pool.set_demand(demand(1, vec![worker_demand("guest", 0)]));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.set_agent(&agent(AgentSpec {
        management: Management::External.into(),
        replicas: 2,
        ..Default::default()
    }));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    assert!(!pool.is_finished(), "it is not deleted");
}

/// They take no tasks, and are not stopped before they have stored what is on their disks.
#[tokio::test]
async fn awaited_workers_of_deleted_agents_only_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec::default()));
    let awaited = |names: &[&str], workers: Vec<WorkerDemand>| Demand {
        agent: "namespaces/default/agents/coder".into(),
        awaited: names.iter().map(|name| (*name).to_owned()).collect(),
        ..demand(0, workers)
    };
    pool.set_demand(awaited(&["coder-2", "guest"], vec![]));
    assert_eq!((desired(&pool).start, desired(&pool).store.len()), (1, 0));
    pool.remove_agent();
    assert!(!pool.is_finished());
    assert_eq!(desired(&pool), DesiredWorkers { store: vec!["coder-2".into()], ..Default::default() });
    pool.workers.insert("coder-2".into(), PoolWorker { only_stores: true, ..worker(&folder) });
    pool.set_demand(awaited(&[], vec![worker_demand("coder-2", 0)]));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.workers.clear();
    assert!(pool.is_finished());
}

/// They take no places either: those beyond the ceiling would never be started, nor those of an agent that people start workers of.
#[tokio::test]
async fn awaited_workers_that_are_not_wanted_only_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { replicas: 1, max_replicas: Some(1), ..Default::default() }));
    pool.workers.insert("coder-1".into(), worker(&folder));
    let demand = |awaited: &[&str], workers: Vec<WorkerDemand>| Demand {
        agent: "namespaces/default/agents/coder".into(),
        awaited: awaited.iter().map(|name| (*name).to_owned()).collect(),
        ..demand(1, workers)
    };
    pool.set_demand(demand(&["coder-2"], vec![worker_demand("coder-1", 1)]));
    let stored = DesiredWorkers { store: vec!["coder-2".into()], ..Default::default() };
    assert_eq!(desired(&pool), stored);
    pool.workers.insert("coder-2".into(), PoolWorker { only_stores: true, ..worker(&folder) });
    let storing = WorkerDemand { draining: true, ..worker_demand("coder-2", 0) };
    pool.set_demand(demand(&[], vec![worker_demand("coder-1", 1), storing.clone()]));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.workers.remove("coder-1");
    pool.set_demand(demand(&[], vec![storing]));
    assert_eq!((desired(&pool).start, pool.free_name("coder")), (1, "coder-1".to_owned()));

    pool.workers.clear();
    pool.set_agent(&agent(AgentSpec { management: Management::External.into(), ..Default::default() }));
    pool.set_demand(demand(&["coder-2"], vec![]));
    assert_eq!(desired(&pool), stored);
    pool.backoff.crashed(Instant::now(), Duration::ZERO);
    assert_eq!(desired(&pool), DesiredWorkers::default());
}

#[tokio::test]
async fn changed_slots_replace_idle_workers() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { replicas: 1, ..Default::default() }));
    pool.workers.insert("a-1".into(), worker(&folder));
    pool.set_demand(demand(0, vec![worker_demand("a-1", 0)]));
    assert_eq!(desired(&pool), DesiredWorkers::default());
    pool.set_agent(&agent(AgentSpec { replicas: 1, slots: 4, ..Default::default() }));
    assert_eq!(desired(&pool).drain, ["a-1"]);
    pool.set_demand(demand(0, vec![worker_demand("a-1", 1)]));
    assert_eq!(desired(&pool).drain, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn crashes_and_silence_pause_starts() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { replicas: 2, ..Default::default() }));
    pool.backoff.crashed(Instant::now(), Duration::ZERO);
    assert_eq!(desired(&pool).start, 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(desired(&pool).start, 2);
    pool.workers.insert("a-1".into(), worker(&folder));
    assert_eq!(desired(&pool).give_up, [""; 0]);
    tokio::time::advance(START_TIMEOUT).await;
    assert_eq!(desired(&pool).give_up, ["a-1"]);
}

#[test]
fn long_agent_names_are_shortened() {
    let pool = Pool::default();
    let name = pool.free_name(&format!("{}-{}", "a".repeat(55), "b".repeat(7)));
    assert_eq!(name, format!("{}-1", "a".repeat(55)));
}

/// What attempts have left on the disk of a worker is stored by a process of its name alone.
#[tokio::test]
async fn awaited_workers_are_started_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::default();
    pool.set_agent(&agent(AgentSpec { max_replicas: Some(2), ..Default::default() }));
    let awaited = ["lab", "coder-3", "coder-4", "coder-020206"].map(str::to_owned).into();
    let demand = Demand { agent: "namespaces/default/agents/coder".into(), awaited, ..Default::default() };
    pool.set_demand(demand.clone());
    assert_eq!((desired(&pool).start, pool.free_name("coder")), (2, "coder-3".to_owned()));
    pool.workers.insert("coder-3".into(), worker(&folder));
    assert_eq!((desired(&pool).start, pool.free_name("coder")), (1, "coder-4".to_owned()));
    // An idle one does not make up for them.
    pool.workers.remove("coder-3");
    pool.workers.insert("coder-1".into(), worker(&folder));
    pool.set_demand(Demand { workers: vec![worker_demand("coder-1", 0)], ..demand });
    assert_eq!((desired(&pool).start, pool.free_name("coder")), (1, "coder-3".to_owned()));
}
