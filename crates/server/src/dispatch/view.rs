//! The fleet as people and scaling see it.

use std::collections::BTreeMap;

use rota_core::target::{Profile, Route, Target};
use rota_core::task::explain;
use rota_core::{AgentName, Namespace, RouteId, TaskId, WorkerName};

use super::Fleet;
use super::seat::About;

/// One worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerView {
    pub(crate) profile: Profile,
    pub(crate) about: About,
    pub(crate) epoch: u64,
    pub(crate) instance: String,
    pub(crate) slots: usize,
    pub(crate) free: usize,
    pub(crate) tasks: Vec<String>,
    pub(crate) connected: bool,
    pub(crate) draining: bool,
}

/// What an agent's pool does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) queued: u64,
    pub(crate) workers: Vec<WorkerView>,
}

/// A task that needs a worker of its own, and waits for it or has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Isolated {
    pub(crate) namespace: Namespace,
    pub(crate) id: TaskId,
    pub(crate) agent: AgentName,
    pub(crate) queued: bool,
    pub(crate) worker: Option<WorkerName>,
}

impl Fleet {
    /// All workers, by name.
    pub(crate) fn workers(&self) -> Vec<WorkerView> {
        let inner = self.inner();
        let mut workers: Vec<_> = (inner.seats.values())
            .map(|seat| {
                // Of a task that is there twice, once ending and once anew, each is listed: each fills a slot.
                let tasks = seat.attempts.keys().map(|(id, _)| id.to_string()).collect();
                WorkerView {
                    profile: seat.profile.clone(),
                    about: seat.about.clone(),
                    epoch: seat.epoch.0,
                    instance: seat.instance.clone(),
                    slots: seat.slots,
                    free: seat.room(),
                    tasks,
                    connected: seat.outgoing.is_some(),
                    draining: seat.draining,
                }
            })
            .collect();
        workers.sort_unstable_by(|a, b| {
            (&a.profile.namespace, &a.profile.worker).cmp(&(&b.profile.namespace, &b.profile.worker))
        });
        workers
    }

    /// Routes on which something waits, and how much.
    pub(crate) fn waiting(&self) -> Vec<(Route, u64)> {
        let inner = self.inner();
        inner
            .lanes
            .values()
            .filter(|lane| lane.queued > 0)
            .map(|lane| (lane.route.clone(), lane.queued))
            .collect()
    }

    /// The same with the numbers of the routes.
    pub(crate) fn queues(&self) -> Vec<(RouteId, Route, u64)> {
        let inner = self.inner();
        let waiting = inner.lanes.iter().filter(|(_, lane)| lane.queued > 0);
        waiting.map(|(id, lane)| (*id, lane.route.clone(), lane.queued)).collect()
    }

    /// What the fleet looks like from a route; `ahead` is the caller's to fill in.
    pub(crate) fn seen_from(&self, route: &Route) -> (Option<RouteId>, explain::Fleet) {
        let inner = self.inner();
        let mut fleet = explain::Fleet::default();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        for seat in inner.seats.values().filter(|seat| seat.outgoing.is_some() && seat.profile.covers(route))
        {
            if seat.draining {
                fleet.draining += 1;
            } else {
                fleet.workers += 1;
                fleet.slots += small(seat.slots);
                fleet.free += small(seat.room());
            }
        }
        let id = inner.ids.get(route).copied();
        (id, fleet)
    }

    /// Some of the tasks on the workers that may take from a route, and how many there are.
    pub(crate) fn busy_with(&self, route: &Route, most: usize) -> (Vec<TaskId>, usize) {
        let inner = self.inner();
        let workers =
            inner.seats.values().filter(|seat| seat.outgoing.is_some() && seat.profile.covers(route));
        let mut tasks: Vec<_> = workers.flat_map(|seat| seat.attempts.keys().map(|(id, _)| *id)).collect();
        // The oldest first: ids are made in order.
        tasks.sort_unstable();
        tasks.dedup();
        let all = tasks.len();
        tasks.truncate(most);
        (tasks, all)
    }

    /// Tasks that need a worker of their own, by id.
    pub(crate) fn isolated(&self) -> Vec<Isolated> {
        let inner = self.inner();
        let own = |seat: &super::Seat| Some((seat.profile.task?, seat.profile.worker.clone()));
        let workers: BTreeMap<TaskId, WorkerName> = inner.seats.values().filter_map(own).collect();
        let mut isolated: Vec<_> = (inner.lanes.values())
            .filter_map(|lane| {
                let Target::Task { id, agent } = &lane.route.target else { return None };
                let (queued, worker) = (lane.queued > 0, workers.get(id).cloned());
                let namespace = lane.route.namespace.clone();
                let task = Isolated { namespace, id: *id, agent: agent.clone(), queued, worker };
                (queued || task.worker.is_some()).then_some(task)
            })
            .collect();
        isolated.sort_unstable();
        isolated
    }

    /// Workers of pools, by agent.
    pub(crate) fn by_agent(&self) -> BTreeMap<(Namespace, AgentName), Standing> {
        let mut agents: BTreeMap<_, Standing> = BTreeMap::new();
        // One that was started for a task of its own is no part of its agent's pool.
        for worker in self.workers().into_iter().filter(|worker| worker.profile.task.is_none()) {
            let key = (worker.profile.namespace.clone(), worker.profile.agent.clone());
            agents.entry(key).or_default().workers.push(worker);
        }
        agents
    }
}
