//! What every part of a control plane shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rota_core::agent::Agent;
use rota_core::breaker;
use rota_core::target::{Route, Target};
use rota_core::task::Task;
use rota_core::{AgentName, Namespace, TaskId, Timestamp};
use rota_proto::v1;
use rota_store::{Command, Refused, Reply, Store};
use rota_telemetry::Loops;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::background::Claims;
use crate::breakers::Breakers;
use crate::dispatch::Fleet;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::options::Timing;
use crate::pools::Pools;
use crate::seal::Sealer;
use crate::watchers::Watchers;
use crate::wire::names::TaskName;
use crate::wire::status;

/// An agent, with what was handed in decoded once.
#[derive(Debug, Clone)]
pub(crate) struct KnownAgent {
    pub(crate) agent: Arc<Agent>,
    pub(crate) spec: Arc<v1::AgentSpec>,
}

pub(crate) type Agents = BTreeMap<(Namespace, AgentName), KnownAgent>;

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) fleet: Fleet,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) loops: Loops,
    pub(crate) watchers: Watchers,
    pub(crate) claims: Claims,
    pub(crate) agents: RwLock<Agents>,
    /// Held by whoever changes an agent.
    pub(crate) agent_changes: tokio::sync::Mutex<()>,
    pub(crate) pools: Pools,
    pub(crate) breakers: Breakers,
    pub(crate) sealer: Sealer,
    pub(crate) replica: String,
    /// Whether somebody starts workers for single tasks.
    pub(crate) isolates: bool,
    pub(crate) timing: Timing,
    /// Every stream and loop hears this.
    pub(crate) stop: CancellationToken,
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    Timestamp(rota_telemetry::clock::unix_micros())
}

/// What a store answers to a batch.
pub(crate) type Replies = Result<Vec<Result<Reply, Refused>>, rota_store::Error>;

fn one(replies: Replies) -> Result<Reply, Status> {
    let reply = replies.map_err(status::store)?.into_iter().next();
    reply.ok_or_else(|| Status::internal("the store gave no answer"))?.map_err(status::refused)
}

impl Shared {
    pub(crate) fn agent(&self, namespace: &Namespace, name: &AgentName) -> Option<KnownAgent> {
        self.agents.read().get(&(namespace.clone(), name.clone())).cloned()
    }

    /// Hands a batch to the store. Every write goes this way, so that it is known how writes fare.
    pub(crate) async fn write(&self, batch: Vec<Command>) -> Replies {
        self.health.wrote(self.store.apply(batch).await)
    }

    /// The same for what need not hurry.
    pub(crate) async fn write_lazily(&self, batch: Vec<Command>) -> Replies {
        self.health.wrote(self.store.apply_lazily(batch).await)
    }

    /// One command, answered.
    pub(crate) async fn apply(&self, command: Command) -> Result<Reply, Status> {
        one(self.write(vec![command]).await)
    }

    /// What one command would be answered.
    pub(crate) async fn rehearse(&self, command: Command) -> Result<Reply, Status> {
        one(self.store.rehearse(vec![command]).await)
    }

    /// Whatever a name means now.
    pub(crate) async fn resolve(&self, namespace: &Namespace, name: TaskName) -> Result<TaskId, Status> {
        match name {
            TaskName::Id(id) => Ok(id),
            TaskName::Alias(alias) => {
                let found = self.store.newest(namespace, &alias).await.map_err(status::store)?;
                found.ok_or_else(|| {
                    status::error("TASK_NOT_FOUND", format!("there is no task {alias:?} in {namespace}"))
                })
            }
        }
    }

    /// A task of a namespace.
    pub(crate) async fn task(&self, namespace: &Namespace, name: TaskName) -> Result<Task, Status> {
        let id = self.resolve(namespace, name).await?;
        let task = self.store.task(id).await.map_err(status::store)?;
        task.filter(|task| task.namespace == *namespace).ok_or_else(|| status::refused(Refused::NoTask(id)))
    }

    /// The agent that shall count a waiting task of this route as its demand: the one named, or of those that
    /// cover it the one with the fewest other capabilities.
    pub(crate) fn preferred(&self, route: &Route) -> Option<AgentName> {
        match &route.target {
            Target::Agent(agent) => Some(agent.clone()),
            // Its worker is started for it alone: no pool of workers has anything to do.
            Target::Task { .. } => None,
            Target::Worker(worker) => self.fleet.agent_of(&route.namespace, worker),
            Target::Capabilities(words) => {
                let agents = self.agents.read();
                let fitting = agents.values().filter(|known| {
                    known.agent.namespace == route.namespace && words.is_subset(&known.agent.capabilities)
                });
                let best = fitting.min_by_key(|known| {
                    let key = (known.agent.namespace.clone(), known.agent.name.clone());
                    // One that is given nothing for now is asked only where there is no other.
                    let paused = self.breakers.state(&key) != breaker::State::Closed;
                    (paused, known.agent.capabilities.len(), key.1)
                });
                best.map(|known| known.agent.name.clone())
            }
        }
    }
}
