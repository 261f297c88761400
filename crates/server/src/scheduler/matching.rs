//! Queues, groups of workers, and the index of those that can be matched now. Every change costs what it touches: a slot
//! its worker's groups, of which there are three at most; a queue that starts or stops waiting the groups that cover it.
//! Only a route by capabilities is covered by more than one agent's groups. Nothing is searched for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rota_core::target::{Route, Target};
use rota_core::{AgentName, RouteId};
use tokio::sync::Notify;

use super::admission::Admission;
use super::backends::Backends;
use super::capabilities::CapabilityIndex;
use super::group::{Group, GroupId, GroupKey, Load};
use super::isolation::Isolation;
use super::queue::RouteQueue;
use super::worker::WorkerEntry;
use crate::keys::{AgentKey, WorkerKey};

/// What matching needs of an agent.
#[derive(Debug, Default)]
struct AgentEntry {
    admission: Admission,
    /// Capabilities of the agent, if they were set since its first worker joined.
    capabilities: Option<BTreeSet<String>>,
    groups: BTreeSet<GroupId>,
    /// Groups with free slots for which tasks wait, by the load of the least loaded worker.
    matchable: BTreeSet<(usize, GroupId)>,
    /// Load of the first of these, as [`Matching::ready`] lists it while admission allows.
    listed: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Matching {
    queues: HashMap<RouteId, RouteQueue>,
    ids: HashMap<Route, RouteId>,
    groups: HashMap<GroupId, Group>,
    keys: HashMap<GroupKey, GroupId>,
    agents: HashMap<AgentKey, AgentEntry>,
    pub(super) backends: Backends,
    pub(super) isolation: Isolation,
    by_capabilities: CapabilityIndex,
    /// Agents whose workers can be given a waiting task now, by the load of the least loaded worker.
    ready: BTreeSet<(usize, AgentKey)>,
    /// Notified whenever a task can be matched that could not before.
    wake: Arc<Notify>,
    last_group: u64,
    last_generation: u64,
    /// Groups and queues looked at so far.
    visited: u64,
}

impl Matching {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { wake, ..Self::default() }
    }

    pub(super) fn queue(&self, id: RouteId) -> Option<&RouteQueue> {
        self.queues.get(&id)
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = (RouteId, &RouteQueue)> {
        self.queues.iter().map(|(id, queue)| (*id, queue))
    }

    pub(super) fn id(&self, route: &Route) -> Option<RouteId> {
        self.ids.get(route).copied()
    }

    pub(super) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(super) fn group_id(&self, key: &GroupKey) -> Option<GroupId> {
        self.keys.get(key).copied()
    }

    /// Returns what an agent's own circuit breaker admits.
    pub(super) fn own_admission(&self, agent: &AgentKey) -> Admission {
        self.agents.get(agent).map(|known| known.admission).unwrap_or_default()
    }

    /// Returns what the circuit breakers of an agent and of its back end admit.
    pub(super) fn admission(&self, agent: &AgentKey) -> Admission {
        self.own_admission(agent).max(self.backends.admission(agent))
    }

    #[cfg(test)]
    pub(super) fn visited(&self) -> u64 {
        self.visited
    }

    /// Returns the group whose least loaded worker is to claim next.
    pub(super) fn next(&self) -> Option<GroupId> {
        let (_, agent) = self.ready.first()?;
        self.agents.get(agent)?.matchable.first().map(|(_, id)| *id)
    }

    /// Returns the least loaded worker that covers a route and may be given a task.
    pub(super) fn least_loaded(&mut self, id: RouteId) -> Option<WorkerKey> {
        let queue = self.queues.get(&id)?;
        self.visited += queue.groups.len() as u64;
        let open =
            (queue.groups.iter()).filter_map(|id| self.groups.get(id).filter(|group| self.is_open(group)));
        open.filter_map(|group| group.free.first()).min().map(|(_, worker)| worker.clone())
    }

    pub(super) fn is_open(&self, group: &Group) -> bool {
        self.admission(group.key.agent()).limit(1) > 0
    }

    /// Adds a worker to a group, which is made if it does not exist.
    pub(super) fn join(&mut self, key: GroupKey, entry: &WorkerEntry) -> GroupId {
        self.isolation.join(&key);
        let known = self.keys.get(&key).copied();
        let id = known.unwrap_or_else(|| self.add_group(key, entry));
        self.groups.entry(id).and_modify(|group| group.members += 1);
        id
    }

    fn add_group(&mut self, key: GroupKey, first: &WorkerEntry) -> GroupId {
        self.last_group += 1;
        let id = GroupId(self.last_group);
        let mut group = Group::new(key.clone(), first);
        let agent = self.agents.entry(key.agent().clone()).or_default();
        agent.groups.insert(id);
        if let Some(capabilities) = &agent.capabilities {
            group.set_capabilities(capabilities);
        }
        let routes: Vec<_> = match key.target() {
            Some(target) => {
                let namespace = first.profile.namespace.clone();
                self.id(&Route { namespace, target }).into_iter().collect()
            }
            None => self.by_capabilities.add_group(id, &group.profile),
        };
        self.keys.insert(key, id);
        self.groups.insert(id, group);
        for route in routes {
            self.match_route(id, route);
        }
        id
    }

    /// Takes a worker without free slots out of a group, which is removed with its last worker.
    pub(super) fn leave(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        self.isolation.leave(&group.key);
        group.members -= 1;
        if group.members > 0 {
            return;
        }
        for route in std::mem::take(&mut group.routes) {
            self.uncover(id, route);
        }
        let Some(group) = self.groups.remove(&id) else { return };
        self.keys.remove(&group.key);
        let agent = group.key.agent();
        if group.key.target().is_none() {
            self.by_capabilities.remove_group(id, &group.profile);
        }
        if let Some(known) = self.agents.get_mut(agent) {
            known.groups.remove(&id);
        }
        self.forget_agent(agent);
    }

    /// Removes an agent without workers of which there is nothing to remember.
    fn forget_agent(&mut self, agent: &AgentKey) {
        let idle = |known: &AgentEntry| known.groups.is_empty() && known.admission == Admission::Open;
        if self.agents.get(agent).is_some_and(idle) {
            self.agents.remove(agent);
        }
    }

    /// Moves a worker within a group: from one load to another, each `None` while the worker has no free slot.
    pub(super) fn move_worker(
        &mut self,
        id: GroupId,
        worker: &WorkerKey,
        before: Option<Load>,
        after: Option<Load>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(load) = before {
            group.free.remove(&(load, worker.clone()));
        }
        if let Some(load) = after {
            group.free.insert((load, worker.clone()));
        }
        self.refresh(id);
    }

    /// Counts a member that may be given tasks from now on, or no longer.
    pub(super) fn set_able(&mut self, id: GroupId, able: bool) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.able = if able { group.able + 1 } else { group.able.saturating_sub(1) };
            self.isolation.set_able(&group.key, able);
        }
    }

    /// Returns the routes of a group with the oldest heads, with them.
    pub(super) fn oldest(&mut self, id: GroupId, limit: usize) -> Vec<(i64, RouteId)> {
        let Some(group) = self.groups.get_mut(&id) else { return Vec::new() };
        let head = |id: &RouteId| self.queues.get(id).map_or(i64::MIN, |queue| queue.head);
        let (oldest, visited) = group.queued.oldest(limit, head);
        self.visited += visited;
        oldest
    }

    /// Whether more than one worker may be given tasks of a route.
    pub(super) fn is_shared(&self, id: RouteId) -> bool {
        let groups = self.queues.get(&id).into_iter().flat_map(|queue| &queue.groups);
        let open = groups.filter_map(|id| self.groups.get(id).filter(|group| self.is_open(group)));
        open.scan(0, |able, group| {
            *able += group.able;
            Some(*able)
        })
        .any(|able| able > 1)
    }

    /// Lists a group with its agent if, and as long as, it can be matched.
    fn refresh(&mut self, id: GroupId) {
        self.visited += 1;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let after = group.load();
        let before = std::mem::replace(&mut group.listed, after);
        if before == after {
            return;
        }
        let agent = group.key.agent().clone();
        let Some(known) = self.agents.get_mut(&agent) else { return };
        if let Some(load) = before {
            known.matchable.remove(&(load, id));
        }
        if let Some(load) = after {
            known.matchable.insert((load, id));
        }
        self.refresh_agent(&agent);
    }

    pub(super) fn refresh_agent(&mut self, agent: &AgentKey) {
        let admission = self.admission(agent);
        let Some(known) = self.agents.get_mut(agent) else { return };
        let first = known.matchable.first().map(|(load, _)| *load);
        let after = first.filter(|_| admission.limit(1) > 0);
        let before = std::mem::replace(&mut known.listed, after);
        if before == after {
            return;
        }
        if let Some(load) = before {
            self.ready.remove(&(load, agent.clone()));
        }
        if let Some(load) = after {
            self.ready.insert((load, agent.clone()));
            self.wake.notify_one();
        }
    }

    pub(super) fn set_admission(&mut self, agent: &AgentKey, admission: Admission) {
        match admission {
            Admission::Open if !self.agents.contains_key(agent) => return,
            _ => self.agents.entry(agent.clone()).or_default().admission = admission,
        }
        self.refresh_agent(agent);
        self.forget_agent(agent);
    }

    /// Sets the capabilities of an agent, which its workers have in addition to their own.
    pub(super) fn set_capabilities(&mut self, agent: &AgentKey, capabilities: &BTreeSet<String>) {
        let Some(known) = self.agents.get_mut(agent) else { return };
        if known.capabilities.as_ref() == Some(capabilities) {
            return;
        }
        known.capabilities = Some(capabilities.clone());
        for id in known.groups.clone() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.key.target().is_some() {
                group.set_capabilities(capabilities);
                continue;
            }
            self.by_capabilities.remove_group(id, &group.profile);
            group.set_capabilities(capabilities);
            let mut routes = self.by_capabilities.add_group(id, &group.profile);
            routes.extend(&group.routes);
            for route in routes {
                self.match_route(id, route);
            }
        }
    }

    /// Adds an empty queue, whose id must be free.
    pub(super) fn add_queue(&mut self, id: RouteId, route: Route) {
        self.last_generation += 1;
        let agent_key = |agent: &AgentName| (route.namespace.clone(), agent.clone());
        let single = |key| self.keys.get(&key).copied().into_iter().collect();
        let groups: Vec<_> = match &route.target {
            Target::Agents(_) | Target::Capabilities(_) => self.by_capabilities.add_route(id, &route),
            Target::Agent(agent) => single(GroupKey::Agent(agent_key(agent))),
            Target::Task { agent, id } => single(GroupKey::Task(agent_key(agent), *id)),
            // Its group is made for the route.
            Target::Worker(_) => Vec::new(),
        };
        self.ids.insert(route.clone(), id);
        self.queues.insert(id, RouteQueue::new(route, self.last_generation));
        for group in groups {
            self.match_route(group, id);
        }
    }

    /// Removes a queue. Returns its route.
    pub(super) fn remove_queue(&mut self, id: RouteId) -> Option<Route> {
        let groups = std::mem::take(&mut self.queues.get_mut(&id)?.groups);
        for group in groups {
            self.uncover(group, id);
        }
        let route = self.queues.remove(&id)?.route;
        // The same route may have been added again, under another id.
        if self.ids.get(&route) == Some(&id) {
            self.ids.remove(&route);
        }
        self.by_capabilities.remove_route(id, &route);
        Some(route)
    }

    /// Changes the counts of a queue.
    pub(super) fn change_queue<O>(
        &mut self,
        id: RouteId,
        change: impl FnOnce(&mut RouteQueue) -> O,
    ) -> Option<O> {
        let state = |queue: &RouteQueue| (queue.queued > 0, queue.backlog() > 0);
        let queue = self.queues.get_mut(&id)?;
        self.visited += 1;
        let (before, head) = (state(queue), queue.head);
        let out = change(queue);
        // A later head is noticed when the queue is looked at.
        if state(queue) != before || queue.head < head {
            let groups: Vec<_> = queue.groups.iter().copied().collect();
            for group in groups {
                self.match_route(group, id);
            }
        }
        Some(out)
    }

    /// Brings a group's lists of routes up to date for one route.
    pub(super) fn match_route(&mut self, group: GroupId, id: RouteId) {
        let Some((queue, known)) = self.queues.get_mut(&id).zip(self.groups.get_mut(&group)) else { return };
        if !known.profile.covers(&queue.route) {
            return self.uncover(group, id);
        }
        queue.groups.insert(group);
        known.routes.insert(id);
        known.queued.set(id, (queue.queued > 0).then_some(queue.head));
        set(&mut known.waiting, id, queue.backlog() > 0);
        self.refresh(group);
    }

    fn uncover(&mut self, group: GroupId, id: RouteId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.groups.remove(&group);
        }
        if let Some(known) = self.groups.get_mut(&group) {
            known.queued.set(id, None);
            for routes in [&mut known.routes, &mut known.waiting] {
                routes.remove(&id);
            }
            self.refresh(group);
        }
    }
}

/// Adds an element to a set, or removes it.
fn set<T: Ord>(set: &mut BTreeSet<T>, element: T, contained: bool) {
    if contained {
        set.insert(element);
    } else {
        set.remove(&element);
    }
}
