//! Admission of workers that authenticate as pods: whether the pod may be the worker that its Hello names. Workers that
//! present no pod's token are not checked.

use rota_core::AgentName;
use tonic::Status;

use super::deps::SessionDeps;
use crate::scheduler::WorkerKey;
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
        // A worker that joined before is admitted: a restarted control plane has no announcements yet.
        None => deps.scheduler.inspect(key, |entry| entry.profile.agent == *agent) == Some(true),
    };
    if admitted {
        return Ok(());
    }
    Err(error("WORKER_NOT_ANNOUNCED", format!("worker {worker} has not been announced for agent {agent}")))
}
