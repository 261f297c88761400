//! Groups of workers that cover the same routes. Matching looks at groups, so that neither a task nor a slot costs work
//! for each worker of an agent. Knows no sessions and no slots, only how loaded a worker with free slots is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rota_core::target::{Profile, Target};
use rota_core::{RouteId, TaskId};

use super::worker::WorkerEntry;
use crate::keys::{AgentKey, WorkerKey};

/// Identifies a group. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(pub(super) u64);

/// What the workers of a group have in common. All are workers of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum GroupKey {
    /// The shared workers of an agent, for the route that names the agent.
    Agent(AgentKey),
    /// Those with the same capabilities of their own, for routes by capabilities.
    Capabilities(AgentKey, BTreeSet<String>),
    /// One worker, for the route that names it. Exists only as long as that route.
    Worker(AgentKey, WorkerKey),
    /// Workers that were started for one task.
    Task(AgentKey, TaskId),
}

impl GroupKey {
    pub(super) fn agent(&self) -> &AgentKey {
        match self {
            Self::Agent(agent)
            | Self::Capabilities(agent, _)
            | Self::Worker(agent, _)
            | Self::Task(agent, _) => agent,
        }
    }

    /// Returns the target of the one route that the group can cover; `None` for routes by capabilities.
    pub(super) fn target(&self) -> Option<Target> {
        match self {
            Self::Agent((_, agent)) => Some(Target::Agent(agent.clone())),
            Self::Capabilities(..) => None,
            Self::Worker(_, (_, worker)) => Some(Target::Worker(worker.clone())),
            Self::Task((_, agent), id) => Some(Target::Task { id: *id, agent: agent.clone() }),
        }
    }

    /// Returns the groups of a worker, first the one that depends on its capabilities. Its [`Worker`](Self::Worker)
    /// group is not among them.
    pub(super) fn of(entry: &WorkerEntry) -> Vec<Self> {
        let agent = entry.agent();
        match entry.profile.task {
            Some(id) => vec![Self::Task(agent, id)],
            None => {
                vec![Self::Capabilities(agent.clone(), entry.own_capabilities.clone()), Self::Agent(agent)]
            }
        }
    }
}

/// Routes with ready tasks, by the rank of the first of them.
#[derive(Debug, Default)]
pub(super) struct QueuedRoutes {
    /// As known when the route was last looked at: its head may be later by now, and not earlier.
    heads: HashMap<RouteId, i64>,
    by_head: BTreeSet<(i64, RouteId)>,
}

impl QueuedRoutes {
    /// Sets the head of a route, which has ready tasks if it has a head.
    pub(super) fn set(&mut self, id: RouteId, head: Option<i64>) {
        let before = match head {
            Some(head) => self.heads.insert(id, head),
            None => self.heads.remove(&id),
        };
        if before != head {
            before.map(|before| self.by_head.remove(&(before, id)));
            self.by_head.extend(head.map(|head| (head, id)));
        }
    }

    /// Returns the first routes by their present heads, and how many were looked at: twice as many at most, so that many stale
    /// ones cost one claim no more than another.
    pub(super) fn oldest(
        &mut self,
        limit: usize,
        head: impl Fn(&RouteId) -> i64,
    ) -> (Vec<(i64, RouteId)>, u64) {
        let mut visited = 0;
        loop {
            let first = self.by_head.iter().take(limit).copied();
            let stale: Vec<_> = first.filter(|(known, id)| head(id) > *known).map(|(_, id)| id).collect();
            visited += limit.min(self.by_head.len());
            if stale.is_empty() || visited >= 2 * limit {
                return (self.by_head.iter().take(limit).copied().collect(), visited as u64);
            }
            for id in stale {
                self.set(id, Some(head(&id)));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = RouteId> {
        self.by_head.iter().map(|(_, id)| *id)
    }
}

/// Number of occupied slots of a worker, and when it was last used.
pub(super) type Load = (usize, u64);

/// Workers that cover the same routes.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    /// Profile of its first worker; all agree in what matters for the routes of the group.
    pub(super) profile: Profile,
    /// Capabilities of the first worker besides those of its agent.
    pub(super) own: BTreeSet<String>,
    pub(super) members: usize,
    /// Members that may be given tasks as soon as they have a free slot.
    pub(super) able: usize,
    /// Workers with free slots: least loaded first, then least recently used.
    pub(super) free: BTreeSet<(Load, WorkerKey)>,
    /// Routes that the group covers.
    pub(super) routes: BTreeSet<RouteId>,
    /// Those of them with ready tasks.
    pub(super) queued: QueuedRoutes,
    /// Those of them with ready tasks that no pending claim may take.
    pub(super) waiting: BTreeSet<RouteId>,
    /// Load of the least loaded worker, as its agent lists it while tasks wait.
    pub(super) listed: Option<usize>,
}

impl Group {
    pub(super) fn new(key: GroupKey, first: &WorkerEntry) -> Self {
        Self {
            key,
            profile: first.profile.clone(),
            own: first.own_capabilities.clone(),
            members: 0,
            able: 0,
            free: BTreeSet::new(),
            routes: BTreeSet::new(),
            queued: QueuedRoutes::default(),
            waiting: BTreeSet::new(),
            listed: None,
        }
    }

    /// Sets the capabilities of the agent, which its workers have in addition to their own.
    pub(super) fn set_capabilities(&mut self, capabilities: &BTreeSet<String>) {
        self.profile.capabilities = Arc::new(&self.own | capabilities);
    }

    /// Returns the load of the least loaded worker, if tasks wait for one.
    pub(super) fn load(&self) -> Option<usize> {
        self.free.first().map(|((occupied, _), _)| *occupied).filter(|_| !self.waiting.is_empty())
    }
}
