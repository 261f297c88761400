//! Worker identity on Kubernetes: checks that a pod, authenticated by its service-account token (OIDC), may be the
//! worker that its Hello names (`WORKER_NAME_MISMATCH`, `WORKER_NOT_ANNOUNCED`). Not admission control of tasks, which
//! is the scheduler's. Workers without a pod's token are not checked. See `docs/security.md`, "Worker identity".

use rota_core::AgentName;
use tonic::Status;

use super::deps::SessionDeps;
use crate::keys::WorkerKey;
use crate::trust::oidc::Pod;
use crate::wire::status::error;

pub(super) fn check(deps: &SessionDeps, pod: &Pod, key: &WorkerKey, agent: &AgentName) -> Result<(), Status> {
    let (namespace, worker) = key;
    if pod.namespace != namespace.as_str() || pod.name != worker.as_str() {
        let text = format!(
            "the token belongs to pod {}/{}, but the worker is {namespace}/{worker}",
            pod.namespace, pod.name
        );
        return Err(error("WORKER_NAME_MISMATCH", text));
    }
    let agent_key = (namespace.clone(), agent.clone());
    let admitted = match deps.agents.pools().announced(&agent_key, worker) {
        // A pod that reuses the name is not the one that was announced.
        Some(instance) => instance.is_empty() || instance == pod.uid,
        // A worker whose last session has not expired is admitted: a restarted control plane has no announcements yet.
        None => deps.scheduler.inspect(key, |entry| entry.profile.agent == *agent) == Some(true),
    };
    if admitted {
        return Ok(());
    }
    Err(error("WORKER_NOT_ANNOUNCED", format!("worker {worker} has not been announced for agent {agent}")))
}
