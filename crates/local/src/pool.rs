//! One agent's workers on this machine, as scaling sees them. Does no IO: what it says shall be
//! done, the manager does.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rota_core::scaling::{self, WorkerView};
use rota_proto::v1::{Agent, AgentSpec, Demand, Management, WorkerDemand};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::child::Child;

/// How long an idle worker beyond the floor stays when its agent does not say.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A worker that has not connected after this long never will.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// One agent's workers.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// `None` once the agent is gone, or others start its workers.
    spec: Option<AgentSpec>,
    demand: Demand,
    pub members: BTreeMap<String, Member>,
    pub backoff: Backoff,
    /// It was told of this pool that its workers cannot start.
    pub trouble: bool,
    /// What kept workers from starting is perhaps over.
    healed: bool,
}

/// A process of ours.
#[derive(Debug)]
pub(crate) struct Member {
    pub child: Child,
    pub since: Instant,
    /// Its slots; another number in the spec means that it has to be replaced.
    pub slots: u32,
    /// It has been connected once.
    pub connected: bool,
    /// It takes no more: the control plane said so.
    pub drained: bool,
}

/// What shall be done about a pool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub start: u32,
    pub drain: Vec<String>,
    /// Never came up.
    pub give_up: Vec<String>,
    /// Of an agent that is gone, and idle.
    pub stop: Vec<String>,
}

impl Pool {
    /// The agent as it is now.
    pub(crate) fn set_agent(&mut self, agent: &Agent) {
        let spec = agent.spec.clone().unwrap_or_default();
        let ours = spec.management() != Management::External;
        let spec = ours.then_some(spec);
        if spec != self.spec {
            self.backoff.reset();
            self.healed = true;
            self.spec = spec;
        }
    }

    /// The agent is gone.
    pub(crate) fn forget_agent(&mut self) {
        self.spec = None;
    }

    /// Nothing of it is left.
    pub(crate) fn is_over(&self) -> bool {
        self.spec.is_none() && self.members.is_empty()
    }

    pub(crate) fn set_demand(&mut self, demand: Demand) {
        for worker in demand.workers.iter().filter(|worker| worker.connected) {
            if let Some(member) = self.members.get_mut(rota_proto::names::last(&worker.worker)) {
                if !member.connected {
                    self.backoff.connected();
                    self.healed = true;
                }
                member.connected = true;
                member.drained |= worker.draining;
            }
        }
        self.demand = demand;
    }

    /// Whether its trouble, of which was told, is over since the last time.
    pub(crate) fn recovered(&mut self) -> bool {
        std::mem::take(&mut self.healed) && std::mem::take(&mut self.trouble)
    }

    pub(crate) fn slots(&self) -> u32 {
        self.spec.as_ref().and_then(|spec| u32::try_from(spec.slots).ok()).unwrap_or(1).max(1)
    }

    /// A name for the next worker: the lowest number that is free, so that a name comes back and
    /// with it what was kept under it.
    pub(crate) fn free_name(&self, agent: &str) -> String {
        let taken = |name: &String| {
            self.members.contains_key(name)
                || self.demand.workers.iter().any(|worker| rota_proto::names::last(&worker.worker) == name)
        };
        // Worker names have at most 63 characters.
        let mut stem = &agent[..agent.len().min(56)];
        stem = stem.trim_end_matches(['-', '.']);
        let mut names = (1_u32..).map(|number| format!("{stem}-{number}"));
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    /// What shall be done now.
    pub(crate) fn wanted(&self, now: Instant, wall: SystemTime) -> Wanted {
        let give_up = self.unborn(now);
        let Some(spec) = &self.spec else {
            return Wanted { give_up, stop: self.leftovers(), ..Wanted::default() };
        };
        let count = |number: i32| u32::try_from(number).unwrap_or_default();
        let floor = count(spec.replicas);
        let mut plan = scaling::plan(&scaling::Pool {
            floor,
            ceiling: scaling::ceiling(floor, count(spec.max_replicas)),
            spare: count(spec.spare_workers),
            slots: self.slots(),
            queued: u64::try_from(self.demand.queued).unwrap_or_default(),
            workers: self.views(wall),
            idle_timeout: spec.idle_timeout.as_ref().map_or(IDLE_TIMEOUT, span),
        });
        if !self.backoff.may_start(now) {
            plan.start = 0;
        }
        // One that was started for other slots goes when it is idle; the plan then makes up for it.
        let outdated = self.members.iter().filter(|(name, member)| {
            member.slots != self.slots()
                && !member.drained
                && self.is_idle(name)
                && !plan.drain.contains(name)
        });
        let outdated: Vec<_> = outdated.map(|(name, _)| name.clone()).collect();
        plan.drain.extend(outdated);
        Wanted { start: plan.start, drain: plan.drain, give_up, stop: Vec::new() }
    }

    fn views(&self, wall: SystemTime) -> Vec<WorkerView> {
        let told = |name: &str| {
            self.demand.workers.iter().find(|worker| rota_proto::names::last(&worker.worker) == name)
        };
        let ours = self.members.iter().map(|(name, member)| {
            let worker = told(name);
            let connected = worker.is_some_and(|worker| worker.connected);
            WorkerView {
                name: name.clone(),
                running: running(worker),
                draining: member.drained
                    || member.child.is_stopping()
                    || worker.is_some_and(|one| one.draining),
                connected,
                starting: !member.connected,
                idle_for: worker.and_then(|worker| idle_for(worker, wall)),
            }
        });
        // Workers that others started are capacity too, but not ours to drain.
        let others = self
            .demand
            .workers
            .iter()
            .filter(|worker| !self.members.contains_key(rota_proto::names::last(&worker.worker)))
            // One that is cut off and not ours may well be gone.
            .filter(|worker| worker.connected)
            .map(|worker| WorkerView {
                name: worker.worker.clone(),
                running: running(Some(worker)),
                draining: worker.draining,
                connected: true,
                starting: false,
                idle_for: None,
            });
        ours.chain(others).collect()
    }

    fn unborn(&self, now: Instant) -> Vec<String> {
        let late = |member: &Member| {
            !member.connected && !member.child.is_stopping() && now - member.since >= START_TIMEOUT
        };
        self.members.iter().filter(|(_, member)| late(member)).map(|(name, _)| name.clone()).collect()
    }

    /// Workers of an agent that is gone. The control plane has drained them; those that it does not
    /// even know, or that run nothing, may go.
    fn leftovers(&self) -> Vec<String> {
        let idle = |name: &String, member: &Member| !member.child.is_stopping() && self.is_idle(name);
        self.members
            .iter()
            .filter(|(name, member)| idle(name, member))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn is_idle(&self, name: &str) -> bool {
        let told = self.demand.workers.iter().find(|worker| rota_proto::names::last(&worker.worker) == name);
        told.is_none_or(|worker| worker.running == 0)
    }
}

fn running(worker: Option<&WorkerDemand>) -> u32 {
    worker.and_then(|worker| u32::try_from(worker.running).ok()).unwrap_or_default()
}

fn idle_for(worker: &WorkerDemand, wall: SystemTime) -> Option<Duration> {
    let since = worker.idle_since.as_ref()?;
    let since = Duration::new(u64::try_from(since.seconds).ok()?, u32::try_from(since.nanos).ok()?);
    Some(wall.duration_since(UNIX_EPOCH + since).unwrap_or_default())
}

fn span(span: &pbjson_types::Duration) -> Duration {
    Duration::new(
        u64::try_from(span.seconds).unwrap_or_default(),
        u32::try_from(span.nanos).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::child;

    fn agent(spec: AgentSpec) -> Agent {
        Agent { spec: Some(spec), ..Default::default() }
    }

    fn told(name: &str, running: i32) -> WorkerDemand {
        let idle_since = (running == 0).then_some(pbjson_types::Timestamp { seconds: 0, nanos: 0 });
        WorkerDemand { worker: name.into(), running, connected: true, idle_since, ..Default::default() }
    }

    fn demand(queued: i64, workers: Vec<WorkerDemand>) -> Demand {
        Demand { queued, workers, ..Default::default() }
    }

    /// A member whose process waits for its lifeline.
    fn member(folder: &tempfile::TempDir) -> Member {
        let (sender, _) = mpsc::unbounded_channel();
        let start = child::Start {
            program: "/bin/cat".into(),
            arguments: vec![],
            log: folder.path().join("log"),
            agent: String::new(),
            worker: String::new(),
            instance: String::new(),
            grace: Duration::from_secs(1),
        };
        let child = child::start(start, sender).unwrap();
        Member { child, since: Instant::now(), slots: 1, connected: false, drained: false }
    }

    fn wanted(pool: &Pool) -> Wanted {
        pool.wanted(Instant::now(), UNIX_EPOCH + Duration::from_secs(1000))
    }

    #[tokio::test]
    async fn a_life() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = Pool::default();
        pool.set_agent(&agent(AgentSpec { max_replicas: 3, ..Default::default() }));
        assert_eq!(wanted(&pool), Wanted::default());
        pool.set_demand(demand(2, vec![]));
        assert_eq!(wanted(&pool).start, 2);
        assert_eq!(pool.free_name("coder"), "coder-1");
        pool.members.insert("coder-1".into(), member(&folder));
        assert_eq!(pool.free_name("coder"), "coder-2");
        assert_eq!(wanted(&pool).start, 1);
        // It comes up, works, is idle and goes.
        pool.set_demand(demand(0, vec![told("coder-1", 1)]));
        assert_eq!(wanted(&pool), Wanted::default());
        pool.set_demand(demand(0, vec![told("coder-1", 0)]));
        assert_eq!(wanted(&pool).drain, ["coder-1"]);
        if let Some(member) = pool.members.get_mut("coder-1") {
            member.drained = true;
        }
        assert_eq!(wanted(&pool), Wanted::default());
        // Its agent goes.
        pool.forget_agent();
        assert_eq!(wanted(&pool).stop, ["coder-1"]);
        pool.set_demand(demand(0, vec![told("coder-1", 1)]));
        assert_eq!(wanted(&pool).stop, [""; 0], "a busy one finishes");
        pool.members.clear();
        assert!(pool.is_over());
    }

    #[tokio::test]
    async fn others_workers_count_and_stay() {
        let mut pool = Pool::default();
        pool.set_agent(&agent(AgentSpec { max_replicas: 3, ..Default::default() }));
        pool.set_demand(demand(1, vec![told("guest", 0)]));
        assert_eq!(wanted(&pool), Wanted::default());
        pool.set_agent(&agent(AgentSpec {
            management: Management::External.into(),
            replicas: 2,
            ..Default::default()
        }));
        assert_eq!(wanted(&pool), Wanted::default());
        assert!(pool.is_over());
    }

    #[tokio::test]
    async fn other_slots_replace_the_idle() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = Pool::default();
        pool.set_agent(&agent(AgentSpec { replicas: 1, ..Default::default() }));
        pool.members.insert("a-1".into(), member(&folder));
        pool.set_demand(demand(0, vec![told("a-1", 0)]));
        assert_eq!(wanted(&pool), Wanted::default());
        pool.set_agent(&agent(AgentSpec { replicas: 1, slots: 4, ..Default::default() }));
        assert_eq!(wanted(&pool).drain, ["a-1"]);
        pool.set_demand(demand(0, vec![told("a-1", 1)]));
        assert_eq!(wanted(&pool).drain, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn crashes_and_silence_hold_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = Pool::default();
        pool.set_agent(&agent(AgentSpec { replicas: 2, ..Default::default() }));
        pool.backoff.crashed(Instant::now(), Duration::ZERO);
        assert_eq!(wanted(&pool).start, 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(wanted(&pool).start, 2);
        pool.members.insert("a-1".into(), member(&folder));
        assert_eq!(wanted(&pool).give_up, [""; 0]);
        tokio::time::advance(START_TIMEOUT).await;
        assert_eq!(wanted(&pool).give_up, ["a-1"]);
    }

    #[test]
    fn long_names_stay_names() {
        let pool = Pool::default();
        let name = pool.free_name(&format!("{}-{}", "a".repeat(55), "b".repeat(7)));
        assert_eq!(name, format!("{}-1", "a".repeat(55)));
    }
}
