//! Demand for workers: which agent's pool each waiting task counts for, and how many workers that asks for. Shares one
//! snapshot of all workers among those who look at more than one worker.

mod snapshot;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rota_core::target::{Route, Target};
use rota_core::{AgentName, Namespace, TaskId, Timestamp, WorkerName};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::agents::{AgentRegistry, KnownAgent};
use crate::breakers::Breakers;
use crate::clock::now;
use crate::keys::AgentKey;
use crate::options::PoolKind;
use crate::scheduler::{Admission, Scheduler, SchedulerView, WorkerView};

/// Least time between two snapshots.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Least ratio of the time between two snapshots to the time that one takes.
const MIN_REST: u32 = 10;
/// Age up to which a snapshot shows conditions: some end by the clock alone, such as the period of a budget.
const MAX_CONDITIONS_AGE: Duration = Duration::from_secs(30);

/// Joins the queues of the scheduler with the agents that could serve them. Clones share their snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) breakers: Arc<Breakers>,
    pool_kind: PoolKind,
    last: Arc<Mutex<Option<Last>>>,
}

/// The last snapshot, and the earliest time for another.
#[derive(Debug)]
struct Last {
    snapshot: Arc<Snapshot>,
    taken: Instant,
    next: Instant,
}

/// All workers and queues at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) view: SchedulerView,
    /// Each agent's pool: its workers, and every waiting task counted for one agent.
    pub(crate) pools: BTreeMap<AgentKey, PoolStatus>,
    /// Workers that were started for a single task.
    own: HashMap<(Namespace, TaskId), Vec<Arc<WorkerView>>>,
    /// Tasks that need a worker of their own, sorted by id.
    pub(crate) isolated: Vec<IsolatedTask>,
}

/// An agent's pool: its workers and the tasks that wait for them. Workers that were started for a single task belong to no
/// pool.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolStatus {
    pub(crate) queued: u64,
    /// How many of these demand isolated attempts; 0 where all workers are on one machine.
    pub(crate) isolated: u64,
    pub(crate) workers: Vec<Arc<WorkerView>>,
    /// Workers that are not there, and whose disks have what attempts left.
    pub(crate) awaited: Vec<WorkerName>,
}

/// A task that needs a worker of its own, and waits for it or has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IsolatedTask {
    pub(crate) namespace: Namespace,
    pub(crate) id: TaskId,
    pub(crate) agent: AgentName,
    pub(crate) queued: bool,
    pub(crate) worker: Option<WorkerName>,
    /// Since when the worker is idle, if it gets no tasks.
    pub(crate) unavailable_since: Option<Timestamp>,
}

impl Demand {
    pub(crate) fn new(
        scheduler: &Arc<Scheduler>,
        agents: &Arc<AgentRegistry>,
        breakers: &Arc<Breakers>,
        pool_kind: PoolKind,
    ) -> Self {
        let (scheduler, agents, breakers) = (Arc::clone(scheduler), Arc::clone(agents), Arc::clone(breakers));
        Self { scheduler, agents, breakers, pool_kind, last: Arc::default() }
    }

    /// Returns a snapshot that contains every change applied before the call, so that a caller finds what it has done
    /// itself. While nothing changes all callers share the last one. While workers change there is a new one at most
    /// every 100 ms, for which all callers wait together.
    pub(crate) async fn snapshot(&self) -> Arc<Snapshot> {
        let version = self.scheduler.version();
        self.share(|last| last.snapshot.view.version >= version).await
    }

    /// As [`snapshot`](Self::snapshot), but the statistics of workers may be those of an earlier look, and only the other things are
    /// current: while workers do no more than send heartbeats, nothing is copied, however many they are.
    pub(crate) async fn conditions(&self) -> Arc<Snapshot> {
        let changes = self.scheduler.changes();
        let is_recent = |last: &Last| last.taken.elapsed() < MAX_CONDITIONS_AGE;
        self.share(|last| last.snapshot.view.changes >= changes && is_recent(last)).await
    }

    async fn share(&self, is_current: impl FnOnce(&Last) -> bool) -> Arc<Snapshot> {
        // Held while waiting and copying: callers that come meanwhile get the same snapshot.
        let mut last = self.last.lock().await;
        if let Some(last) = &*last {
            if is_current(last) {
                return Arc::clone(&last.snapshot);
            }
            tokio::time::sleep_until(last.next).await;
        }
        let began = Instant::now();
        let snapshot = Arc::new(self.take_snapshot());
        let rest = (began.elapsed() * MIN_REST).max(MIN_INTERVAL);
        *last = Some(Last { snapshot: Arc::clone(&snapshot), taken: began, next: began + rest });
        snapshot
    }

    /// Takes a snapshot for the caller alone.
    pub(crate) fn take_snapshot(&self) -> Snapshot {
        let view = self.scheduler.view();
        let mut pools: BTreeMap<AgentKey, PoolStatus> = BTreeMap::new();
        let mut own: HashMap<_, Vec<_>> = HashMap::new();
        // Each namespace has ids of its own.
        let mut isolated: BTreeMap<(Namespace, TaskId), IsolatedTask> = BTreeMap::new();
        for worker in &view.workers {
            let profile = &worker.profile;
            let (namespace, agent) = (profile.namespace.clone(), profile.agent.clone());
            if let Some(task) = profile.task {
                own.entry((namespace.clone(), task)).or_default().push(Arc::clone(worker));
            }
            if profile.task.is_none() {
                pools.entry((namespace, agent)).or_default().workers.push(Arc::clone(worker));
            } else if let Some(id) = worker.own_task {
                let unavailable_since = worker.stats.idle_since.filter(|_| worker.is_unavailable());
                let worker = Some(profile.worker.clone());
                let key = (namespace.clone(), id);
                let task = IsolatedTask { namespace, id, agent, queued: false, worker, unavailable_since };
                isolated.insert(key, task);
            }
        }
        for (_, route, count) in &view.queues {
            if let Target::Task { id, agent } = &route.target {
                let (namespace, agent) = (route.namespace.clone(), agent.clone());
                let (id, queued) = (*id, true);
                let task =
                    IsolatedTask { namespace, id, agent, queued, worker: None, unavailable_since: None };
                isolated.entry((task.namespace.clone(), id)).or_insert(task).queued = true;
            } else if let Some(agent) = self.preferred(route) {
                let pool = pools.entry((route.namespace.clone(), agent)).or_default();
                pool.queued += count;
                if self.pool_kind == PoolKind::Pods && route.target.demands_isolation() {
                    pool.isolated += count;
                }
            }
        }
        for (agent, (_, worker)) in &view.awaited {
            pools.entry(agent.clone()).or_default().awaited.push(worker.clone());
        }
        let mut isolated: Vec<_> = isolated.into_values().collect();
        isolated.sort_unstable();
        Snapshot { view, pools, own, isolated }
    }

    /// Returns the agent that a waiting task of a route counts for: the one it names, or the best of those that cover
    /// it. A task that gets a worker of its own counts for no pool.
    pub(crate) fn preferred(&self, route: &Route) -> Option<AgentName> {
        match &route.target {
            Target::Agent(agent) => Some(agent.clone()),
            Target::Task { .. } => None,
            Target::Worker(worker) => self.scheduler.agent_of(&route.namespace, worker),
            Target::Agents(_) | Target::Capabilities(_) => {
                let waits = |key: &AgentKey| {
                    matches!(self.scheduler.quota(key), Admission::Closed | Admission::ProbeInFlight)
                };
                let paused = |key: &AgentKey| self.breakers.admission(key) != Admission::Open || waits(key);
                let fits = |name: &AgentName, known: &KnownAgent| match &route.target {
                    Target::Capabilities(words) => known.agent.may_have(words),
                    target => target.agents().any(|agent| agent == name),
                };
                // Those without workers may isolate: they show it once they have some.
                let isolated = route.target.demands_isolation();
                let unsuited = |key: &AgentKey| isolated && self.scheduler.lacks_isolation(key);
                self.agents.best_match(route, fits, unsuited, paused, now())
            }
        }
    }

    /// Returns how many of an agent's waiting tasks ask for workers. Those that its circuit breaker holds back would
    /// only keep more workers waiting.
    pub(crate) fn admitted(&self, agent: &AgentKey, queued: u64) -> u64 {
        // Workers that wait for the same credential would do nothing either.
        let queued = match self.scheduler.quota(agent) {
            Admission::Open => queued,
            Admission::Probe => queued.min(1),
            Admission::ProbeInFlight | Admission::Closed => 0,
        };
        match self.breakers.admission(agent) {
            Admission::Open => queued,
            Admission::Probe | Admission::ProbeInFlight => queued.min(1),
            Admission::Closed => 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus_client::metrics::counter::Counter;
    use rota_core::agent::Agent;
    use rota_core::breaker::Policy;
    use rota_core::spending::{Account, Budget, Scope};
    use rota_core::target::{ISOLATED, Profile};
    use rota_core::task::WorkerRef;
    use rota_core::{Epoch, RouteId};
    use rota_store::{AccountChange, AgentChange};

    use super::*;
    use crate::scheduler::WorkerEntry;

    pub(crate) fn demand() -> Demand {
        let scheduler = Arc::new(Scheduler::new(Counter::default()));
        let agents = Arc::new(AgentRegistry::default());
        let policy = Policy { failures: 1, cooldown: Duration::ZERO };
        let breakers = Breakers::new(policy, &scheduler, &agents, Arc::new(now));
        Demand::new(&scheduler, &agents, &Arc::new(breakers), PoolKind::Pods)
    }

    pub(crate) fn register(demand: &Demand, worker: usize) {
        let profile = Profile {
            namespace: Namespace::new("n").unwrap(),
            worker: WorkerName::new(&format!("worker-{worker}")).unwrap(),
            agent: AgentName::new("agent").unwrap(),
            capabilities: Arc::default(),
            task: None,
        };
        let entry = WorkerEntry::new(profile, Epoch(1), String::new(), now());
        assert!(demand.scheduler.register(entry).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn readers_share_one_paced_snapshot() {
        let (demand, began) = (demand(), Instant::now());
        for change in 1..=10 {
            register(&demand, change);
            let readers = (0..100).map(|_| demand.snapshot());
            for snapshot in futures::future::join_all(readers).await {
                assert_eq!(snapshot.view.workers.len(), change, "a reader must find what it has done");
            }
        }
        assert_eq!(demand.scheduler.views(), 10, "readers of the same state must share a snapshot");
        assert_eq!(began.elapsed(), 9 * MIN_INTERVAL, "only the first need not wait");
        for _ in 0..100 {
            demand.snapshot().await;
        }
        assert_eq!(demand.scheduler.views(), 10, "nothing has changed");
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_do_not_outdate_conditions() {
        let demand = demand();
        register(&demand, 1);
        let key = (Namespace::new("n").unwrap(), WorkerName::new("worker-1").unwrap());
        let session = WorkerRef { worker: key.1.clone(), epoch: Epoch(1) };
        for _ in 0..100 {
            demand.scheduler.update(&key, &session, |entry| entry.stats.last_seen_at = now());
            assert_eq!(demand.conditions().await.view.workers.len(), 1);
        }
        assert_eq!(demand.scheduler.views(), 1, "looks at health must not copy workers that are only alive");
        demand.snapshot().await;
        assert_eq!(demand.scheduler.views(), 2, "a list of workers has their statistics");
        for draining in [true, false] {
            demand.scheduler.update(&key, &session, |entry| entry.draining = draining);
            assert_eq!(demand.conditions().await.view.workers[0].draining, draining);
        }
        assert_eq!(demand.scheduler.views(), 4);
        tokio::time::advance(MAX_CONDITIONS_AGE).await;
        demand.conditions().await;
        assert_eq!(demand.scheduler.views(), 5, "some conditions end by the clock");
    }

    #[test]
    fn cool_down_limits_demand() {
        let (demand, agent) = (demand(), (Namespace::new("n").unwrap(), AgentName::new("agent").unwrap()));
        let [one, two] = [1, 2].map(|number| rota_core::quota::CredentialId([number; 8]));
        for (admission, admitted) in [
            (Admission::Closed, 0),
            (Admission::Probe, 1),
            (Admission::ProbeInFlight, 0),
            (Admission::Open, 9),
            (Admission::Closed, 0),
        ] {
            let agents = if admission == Admission::Open { [].into() } else { [agent.1.clone()].into() };
            demand.scheduler.set_cool_down(&(agent.0.clone(), one), admission, &agents);
            assert_eq!(demand.admitted(&agent, 9), admitted, "{admission:?}");
        }
        register(&demand, 1);
        let worker = (agent.0.clone(), WorkerName::new("worker-1").unwrap());
        assert_eq!(demand.admitted(&agent, 9), 0, "the worker has named no credential");
        demand.scheduler.set_credential(&worker, one);
        assert_eq!(demand.admitted(&agent, 9), 0);
        demand.scheduler.set_credential(&worker, two);
        assert_eq!(demand.admitted(&agent, 9), 9, "its worker uses another credential");
    }

    #[test]
    fn workers_without_session_are_lost() {
        let demand = demand();
        register(&demand, 1);
        let snapshot = demand.take_snapshot();
        let route = |agent: &str| {
            let target = Target::Agent(AgentName::new(agent).unwrap());
            Route { namespace: Namespace::new("n").unwrap(), target }
        };
        assert!(snapshot.has_lost_worker(&route("agent")) && !snapshot.has_lost_worker(&route("other")));
    }

    fn apply_agent(demand: &Demand, name: &str, capabilities: &[&str], budget: Budget) {
        let agent = Agent {
            namespace: Namespace::new("n").unwrap(),
            name: AgentName::new(name).unwrap(),
            generation: 1,
            capabilities: capabilities.iter().map(|word| (*word).to_owned()).collect(),
            defaults: Default::default(),
            budget,
            created_at: now(),
            updated_at: now(),
            payload: bytes::Bytes::new(),
        };
        demand.agents.apply(&AgentChange { agent: Arc::new(agent), deleted: false });
    }

    #[test]
    fn isolation_is_demanded_of_other_machines_only() {
        for (pool_kind, isolated) in [(PoolKind::Pods, 3), (PoolKind::Processes, 0)] {
            let demand = Demand { pool_kind, ..demand() };
            apply_agent(&demand, "coder", &["code"], Budget::default());
            let namespace = Namespace::new("n").unwrap();
            let route = |words: &[&str]| {
                let target = Target::Capabilities(words.iter().map(|word| (*word).to_owned()).collect());
                Route { namespace: namespace.clone(), target }
            };
            let routes = vec![(RouteId(0), route(&["code"])), (RouteId(1), route(&["code", ISOLATED]))];
            demand.scheduler.restore(routes, vec![(RouteId(0), 2), (RouteId(1), 3)]);
            let pool = demand.take_snapshot().pools.into_values().next().expect("a pool");
            assert_eq!((pool.queued, pool.isolated), (5, isolated));
        }
    }

    #[test]
    fn demand_prefers_agents_with_money() {
        let demand = demand();
        let namespace = Namespace::new("n").unwrap();
        let budget = Budget { daily: Some(100), ..Budget::default() };
        apply_agent(&demand, "coder", &["code"], budget);
        apply_agent(&demand, "rich", &["code", "review"], Budget::default());
        let target = Target::Capabilities(["code".to_owned()].into());
        let route = Route { namespace: namespace.clone(), target };
        let preferred = || demand.preferred(&route).map(|name| name.to_string());
        assert_eq!(preferred().as_deref(), Some("coder"), "it has the fewest other capabilities");
        let mut account = Account::new(namespace, Scope::Agent(AgentName::new("coder").unwrap()));
        let mut change = |cost, reserved| {
            account.add(cost, 0, now());
            demand.agents.apply_account(&AccountChange { account: Arc::new(account.clone()), reserved })
        };
        assert!(!change(99, 0), "it has some left");
        assert_eq!(preferred().as_deref(), Some("coder"));
        assert!(change(0, 2), "the snapshot of the demand is outdated");
        assert_eq!(preferred().as_deref(), Some("rich"));
        assert!(!change(1, 1));
        assert_eq!(preferred().as_deref(), Some("rich"));
    }

    #[test]
    fn nothing_is_copied_without_readers() {
        let demand = demand();
        for worker in 0..1000 {
            register(&demand, worker);
        }
        assert_eq!(demand.scheduler.views(), 0);
    }
}
