//! Workers of one agent on this machine. Decides without I/O what should happen; `manager.rs` does it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rota_core::scaling::{self, Backlog, Bounds, ManagedState, ManagedWorker, ReportedWorker, START_TIMEOUT};
use rota_proto::names;
use rota_proto::v1::{Agent, AgentSpec, Demand, Management, WorkerDemand};
use tokio::time::Instant;

use crate::backoff::RestartBackoff;
use crate::process::Process;

/// Longest part of an agent's name that fits a worker name of 63 characters with its number.
const MAX_STEM_LEN: usize = 56;
/// Largest number in the name of a worker that is awaited; a larger one is no number.
const MAX_AWAITED: u32 = 1000;

/// Workers of one agent, with its spec and demand.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// `None` once the agent is deleted, or while its workers are managed externally.
    spec: Option<AgentSpec>,
    deleted: bool,
    demand: Demand,
    pub workers: BTreeMap<String, PoolWorker>,
    pub backoff: RestartBackoff,
    /// A start failure of this agent is reported to the control plane and not withdrawn yet.
    pub failure_reported: bool,
    /// The cause of failed starts may be fixed: the spec changed or a worker connected.
    may_have_recovered: bool,
}

/// Worker process of a pool.
#[derive(Debug)]
pub(crate) struct PoolWorker {
    pub process: Process,
    pub started: Instant,
    /// Slots it was started with; a worker with another number than the spec is replaced.
    pub slots: u32,
    /// Has been connected at least once.
    pub connected: bool,
    /// Draining, as confirmed by the control plane.
    pub drained: bool,
    /// Takes no tasks, and ends once what earlier processes of its name have left is stored.
    pub only_stores: bool,
}

/// Actions that bring a pool to its desired state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DesiredWorkers {
    pub start: u32,
    /// Workers that are not wanted, and whose disks may have what no storage has.
    pub store: Vec<String>,
    pub drain: Vec<String>,
    /// Workers that did not connect within [`START_TIMEOUT`].
    pub give_up: Vec<String>,
    /// Idle workers of a deleted agent.
    pub stop: Vec<String>,
}

impl Pool {
    pub(crate) fn set_agent(&mut self, agent: &Agent) {
        let spec = agent.spec.clone().unwrap_or_default();
        let managed = spec.management() != Management::External;
        let spec = managed.then_some(spec);
        self.deleted = false;
        if spec != self.spec {
            self.backoff.reset();
            self.may_have_recovered = true;
            self.spec = spec;
        }
    }

    /// Marks the agent as deleted. Its workers are stopped as they become idle.
    pub(crate) fn remove_agent(&mut self) {
        (self.spec, self.deleted) = (None, true);
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Returns whether the pool can be dropped.
    pub(crate) fn is_finished(&self) -> bool {
        self.deleted && self.workers.is_empty() && self.demand.awaited.is_empty()
    }

    pub(crate) fn set_demand(&mut self, demand: Demand) {
        for report in demand.workers.iter().filter(|report| report.connected) {
            if let Some(worker) = self.workers.get_mut(names::last(&report.worker)) {
                if !worker.connected {
                    self.backoff.connected();
                    self.may_have_recovered = true;
                }
                worker.connected = true;
                worker.drained |= report.draining;
            }
        }
        self.demand = demand;
    }

    /// Returns, once per recovery, whether a reported start failure should be withdrawn.
    pub(crate) fn take_recovered(&mut self) -> bool {
        std::mem::take(&mut self.may_have_recovered) && std::mem::take(&mut self.failure_reported)
    }

    pub(crate) fn slots(&self) -> u32 {
        self.spec.as_ref().and_then(|spec| u32::try_from(spec.slots).ok()).unwrap_or(1).max(1)
    }

    /// Returns the name of the next worker: the agent's with the lowest free number, so that names and the workspaces
    /// kept under them are reused.
    pub(crate) fn free_name(&self, agent: &str) -> String {
        let taken = |name: &String| self.workers.contains_key(name) || self.report(name).is_some();
        let stem = stem(agent);
        let mut names =
            self.awaited(agent).cloned().chain((1_u32..).map(|number| format!("{stem}-{number}")));
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    /// Returns the names of workers of this pool that do not run, and whose disks have what attempts left: only processes of these names
    /// store it. Workers of other machines have other names.
    fn awaited(&self, agent: &str) -> impl Iterator<Item = &String> {
        let stem = stem(agent);
        let is_own = move |name: &&String| {
            let number = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
            number.and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number <= MAX_AWAITED)
        };
        self.demand.awaited.iter().filter(is_own).filter(|name| !self.workers.contains_key(*name))
    }

    /// Decides what to do now. `wall` is the time of the control plane's timestamps.
    pub(crate) fn desired(&self, now: Instant, wall: SystemTime) -> DesiredWorkers {
        let give_up = self.overdue_starts(now);
        let Some(spec) = &self.spec else {
            let store = self.beyond(0, now);
            let stop = self.stale_processes();
            return DesiredWorkers { give_up, store, stop, ..DesiredWorkers::default() };
        };
        let reported: Vec<_> = self.demand.workers.iter().map(|worker| reported(worker, wall)).collect();
        let backlog = Backlog { queued: self.demand.queued, isolated: self.demand.queued_isolated };
        let mut pool = scaling::Pool::managed(&bounds(spec), backlog, &self.managed(), &reported, None);
        // Another one would be on the same disk, and takes memory.
        pool.pressed = self.demand.workers.iter().any(|worker| {
            worker.connected && worker.not_ready && self.workers.contains_key(names::last(&worker.worker))
        });
        let mut plan = scaling::plan(&pool);
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let away = self.awaited(names::last(&self.demand.agent)).count();
        let awaited = small(away).min(pool.ceiling.saturating_sub(small(pool.workers.len())));
        if awaited > plan.start && !pool.pressed {
            plan = scaling::Plan { start: awaited, ..scaling::Plan::default() };
        }
        let store = self.beyond(plan.start, now);
        if !self.backoff.may_start(now) {
            plan.start = 0;
        }
        // Workers of another slot count are drained when idle; the next plan replaces them.
        let outdated = self.workers.iter().filter(|(name, worker)| {
            worker.slots != self.slots()
                && !worker.only_stores
                && !worker.drained
                && self.is_idle(name)
                && !plan.drain.contains(name)
        });
        let outdated: Vec<_> = outdated.map(|(name, _)| name.clone()).collect();
        plan.drain.extend(outdated);
        DesiredWorkers { start: plan.start, drain: plan.drain, give_up, store, ..DesiredWorkers::default() }
    }

    /// Returns the workers that are awaited beyond those that start to take tasks.
    fn beyond(&self, started: u32, now: Instant) -> Vec<String> {
        let awaited = self.awaited(names::last(&self.demand.agent)).filter(|_| self.backoff.may_start(now));
        awaited.skip(usize::try_from(started).unwrap_or(usize::MAX)).cloned().collect()
    }

    fn managed(&self) -> Vec<ManagedWorker> {
        let state = |worker: &PoolWorker| match worker {
            // It takes none of the places of those that take tasks, however long the storage is away.
            worker if worker.only_stores => ManagedState::Ended,
            worker if worker.drained || worker.process.is_stopping() => ManagedState::Draining,
            worker if worker.connected => ManagedState::Serving,
            _ => ManagedState::Starting,
        };
        let workers = self.workers.iter();
        workers.map(|(name, worker)| ManagedWorker { name: name.clone(), state: state(worker) }).collect()
    }

    fn overdue_starts(&self, now: Instant) -> Vec<String> {
        self.names(|_, worker| {
            !worker.connected && !worker.process.is_stopping() && now - worker.started >= START_TIMEOUT
        })
    }

    /// Returns the workers of a deleted agent that can be stopped. The control plane has drained them; only those it
    /// does not know, or that run nothing, are stopped. Those that only store end by themselves.
    fn stale_processes(&self) -> Vec<String> {
        self.names(|name, worker| !worker.only_stores && !worker.process.is_stopping() && self.is_idle(name))
    }

    fn names(&self, matches: impl Fn(&str, &PoolWorker) -> bool) -> Vec<String> {
        let matching = self.workers.iter().filter(|(name, worker)| matches(name, worker));
        matching.map(|(name, _)| name.clone()).collect()
    }

    fn is_idle(&self, name: &str) -> bool {
        self.report(name).is_none_or(|worker| worker.running == 0)
    }

    fn report(&self, name: &str) -> Option<&WorkerDemand> {
        self.demand.workers.iter().find(|worker| names::last(&worker.worker) == name)
    }
}

/// Returns what the names of an agent's workers begin with.
fn stem(agent: &str) -> &str {
    agent[..agent.len().min(MAX_STEM_LEN)].trim_end_matches(['-', '.'])
}

fn bounds(spec: &AgentSpec) -> Bounds {
    Bounds {
        replicas: spec.replicas,
        max_replicas: spec.max_replicas,
        spare_workers: spec.spare_workers,
        slots: spec.slots,
        idle_timeout: spec.idle_timeout.as_ref().map(duration),
    }
}

fn reported(worker: &WorkerDemand, wall: SystemTime) -> ReportedWorker {
    ReportedWorker {
        name: names::last(&worker.worker).to_owned(),
        running: u32::try_from(worker.running).unwrap_or_default(),
        storing: u32::try_from(worker.storing).unwrap_or_default(),
        draining: worker.draining,
        connected: worker.connected,
        unavailable: worker.unavailable,
        not_isolated: scaling::is_not_isolated(
            worker.isolated,
            worker.connected,
            &worker.not_isolated_reason,
        ),
        idle_for: idle_for(worker, wall),
        ..ReportedWorker::default()
    }
}

fn idle_for(worker: &WorkerDemand, wall: SystemTime) -> Option<Duration> {
    let since = worker.idle_since.as_ref()?;
    let since = Duration::new(u64::try_from(since.seconds).ok()?, u32::try_from(since.nanos).ok()?);
    Some(wall.duration_since(UNIX_EPOCH + since).unwrap_or_default())
}

fn duration(duration: &pbjson_types::Duration) -> Duration {
    Duration::new(
        u64::try_from(duration.seconds).unwrap_or_default(),
        u32::try_from(duration.nanos).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
