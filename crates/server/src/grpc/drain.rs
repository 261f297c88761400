//! Draining: workers that finish what they have and take nothing new.

use crate::shared::now;
use rota_core::{AgentName, Namespace};
use rota_proto::names as n;
use rota_proto::worker::v1::{Drain, session_response};
use tonic::Status;

use super::Agents;
use crate::wire::check;
use crate::wire::status::hinted;

impl Agents {
    /// A name that is wrong must not look like a worker that is busy, or like an agent that has none.
    pub(super) fn is_there(
        &self,
        namespace: &Namespace,
        agent: &AgentName,
        worker: &str,
    ) -> Result<(), Status> {
        let workers = self.workers(Some(namespace));
        let own: Vec<_> = (workers.iter().filter(|one| one.profile.agent == *agent))
            .map(|one| one.profile.worker.as_str())
            .collect();
        if own.is_empty() && self.shared.agent(namespace, agent).is_none() {
            return Err(Self::missing(agent));
        }
        if worker.is_empty() || own.contains(&worker) {
            return Ok(());
        }
        let worker = check::shorten(worker);
        let hint = match workers.iter().find(|one| one.profile.worker.as_str() == worker) {
            Some(other) => format!("that one belongs to the agent {}", other.profile.agent),
            None if own.is_empty() => "it has no workers now".to_owned(),
            None => format!("it has {}", own[..own.len().min(10)].join(", ")),
        };
        Err(hinted("WORKER_NOT_FOUND", format!("the agent {agent} has no worker {worker:?}"), hint))
    }

    /// Lets workers finish what they run and take nothing new. The names of those that drain now.
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
            let outgoing = self.shared.fleet.with_any(&key, |seat| {
                // Whoever decides to stop an idle worker must know that none is promised a task.
                if only_idle && seat.used() > 0 {
                    return None;
                }
                if !std::mem::replace(&mut seat.draining, true) {
                    seat.about.did(now(), "draining", None);
                }
                Some(seat.outgoing.clone())
            });
            let Some(Some(outgoing)) = outgoing else { continue };
            if let Some(outgoing) = outgoing {
                outgoing.send(session_response::Kind::Drain(Drain { reason: why.to_owned() }));
            }
            drained.push(n::worker(namespace.as_str(), name));
        }
        self.shared.watchers.fleet_changed();
        drained
    }
}
