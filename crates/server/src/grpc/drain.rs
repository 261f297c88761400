//! Drain of workers: they finish their attempts and get no new ones.

use rota_core::{AgentName, Namespace, WorkerName};
use rota_proto::names as n;
use rota_proto::worker::v1::{Drain, session_response};
use tonic::Status;

use super::Agents;
use crate::clock::now;
use crate::wire::check;
use crate::wire::status::hinted;

impl Agents {
    /// Checks that an agent, and a worker if one is named, exist: a wrong name must not look like a busy worker.
    pub(super) async fn check_exists(
        &self,
        namespace: &Namespace,
        agent: &AgentName,
        worker: &str,
    ) -> Result<(), Status> {
        let name = WorkerName::new(worker).ok();
        let actual = name.and_then(|name| self.demand.scheduler.agent_of(namespace, &name));
        if actual.as_ref() == Some(agent) {
            return Ok(());
        }
        let own = self.worker_names(namespace, agent).await;
        if own.is_empty() && !self.agents.contains(&(namespace.clone(), agent.clone())) {
            return Err(Self::missing(agent));
        }
        if worker.is_empty() {
            return Ok(());
        }
        let worker = check::shorten(worker);
        let own: Vec<_> = own.iter().take(10).map(WorkerName::as_str).collect();
        let hint = match actual {
            Some(other) => format!("worker {worker:?} belongs to agent {other}"),
            None if own.is_empty() => format!("agent {agent} has no workers"),
            None => format!("workers of agent {agent}: {}", own.join(", ")),
        };
        Err(hinted("WORKER_NOT_FOUND", format!("agent {agent} has no worker {worker:?}"), hint))
    }

    /// Returns the names of the workers of an agent, also of those started for a single task.
    async fn worker_names(&self, namespace: &Namespace, agent: &AgentName) -> Vec<WorkerName> {
        let snapshot = self.demand.snapshot().await;
        let own = snapshot.workers(Some(namespace)).filter(|worker| worker.profile.agent == *agent);
        own.map(|worker| worker.profile.worker.clone()).collect()
    }

    /// Drains workers of an agent until their sessions end, also across restarts. Returns the names of those that drain now. If
    /// the store fails, they drain until this control plane ends.
    pub(super) async fn drain(
        &self,
        namespace: &Namespace,
        agent: &AgentName,
        only: &str,
        only_idle: bool,
        why: &str,
    ) -> Result<Vec<String>, Status> {
        let workers = match WorkerName::new(only) {
            Ok(name) => vec![name],
            Err(_) => self.worker_names(namespace, agent).await,
        };
        let (mut drained, mut names) = (Vec::new(), Vec::new());
        for name in workers {
            let key = (namespace.clone(), name);
            let Some((instance, session)) = self.sessions.scheduler.drain(&key, only_idle, now()) else {
                continue;
            };
            // Before the commit: a caller that hangs up must not leave a draining worker without the request.
            if let Some(session) = session {
                session.send(session_response::Kind::Drain(Drain { reason: why.to_owned() }));
            }
            names.push(n::worker(namespace.as_str(), &key.1));
            drained.push((key, instance));
        }
        self.sessions.store.drain_workers(drained).await?;
        Ok(names)
    }
}
