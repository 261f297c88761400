//! Drain of workers: they finish their attempts and get no new ones.

use rota_core::{AgentName, Namespace};
use rota_proto::names as n;
use rota_proto::worker::v1::{Drain, session_response};
use tonic::Status;

use super::Agents;
use crate::clock::now;
use crate::wire::check;
use crate::wire::status::hinted;

impl Agents {
    /// Checks that an agent, and a worker if one is named, exist: a wrong name must not look like a busy worker.
    pub(super) fn check_exists(
        &self,
        namespace: &Namespace,
        agent: &AgentName,
        worker: &str,
    ) -> Result<(), Status> {
        let workers = self.workers(Some(namespace));
        let own: Vec<_> = (workers.iter().filter(|one| one.profile.agent == *agent))
            .map(|one| one.profile.worker.as_str())
            .collect();
        if own.is_empty() && !self.agents.contains(&(namespace.clone(), agent.clone())) {
            return Err(Self::missing(agent));
        }
        if worker.is_empty() || own.contains(&worker) {
            return Ok(());
        }
        let worker = check::shorten(worker);
        let hint = match workers.iter().find(|one| one.profile.worker.as_str() == worker) {
            Some(other) => format!("worker {worker:?} belongs to agent {}", other.profile.agent),
            None if own.is_empty() => format!("agent {agent} has no workers"),
            None => format!("workers of agent {agent}: {}", own[..own.len().min(10)].join(", ")),
        };
        Err(hinted("WORKER_NOT_FOUND", format!("agent {agent} has no worker {worker:?}"), hint))
    }

    /// Drains workers of an agent. Returns the names of those that drain now.
    pub(super) fn drain(
        &self,
        namespace: &Namespace,
        agent: &AgentName,
        only: &str,
        only_idle: bool,
        why: &str,
    ) -> Vec<String> {
        let mut drained = Vec::new();
        for worker in self.workers(Some(namespace)) {
            let name = &worker.profile.worker;
            if worker.profile.agent != *agent || !(only.is_empty() || name.as_str() == only) {
                continue;
            }
            let key = (namespace.clone(), name.clone());
            let Some(session) = self.sessions.scheduler.drain(&key, only_idle, now()) else { continue };
            if let Some(session) = session {
                session.send(session_response::Kind::Drain(Drain { reason: why.to_owned() }));
            }
            drained.push(n::worker(namespace.as_str(), name));
        }
        self.streams.watchers.state_changed();
        drained
    }
}
