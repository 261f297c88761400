//! Whether a pod may be the worker that its Hello says it is. Workers that show no pod's token are not asked.

use rota_core::AgentName;
use tonic::Status;

use crate::dispatch::SeatKey;
use crate::shared::Shared;
use crate::trust::oidc::Pod;
use crate::wire::status::error;

pub(super) fn check(shared: &Shared, pod: &Pod, key: &SeatKey, agent: &AgentName) -> Result<(), Status> {
    let (namespace, worker) = key;
    if pod.namespace != namespace.as_str() || pod.name != worker.as_str() {
        let text = format!(
            "the token is of the pod {}/{}, and the worker calls itself {namespace}/{worker}",
            pod.namespace, pod.name
        );
        return Err(error("WORKER_NAME_MISMATCH", text));
    }
    let agent_key = (namespace.clone(), agent.clone());
    let admitted = match shared.pools.announced(&agent_key, worker) {
        // A name that was used again is not the pod that was meant.
        Some(instance) => instance.is_empty() || instance == pod.uid,
        // It has joined before: a control plane that has just started knows no announcements yet.
        None => shared.fleet.look(key).is_some_and(|seat| seat.profile.agent == *agent),
    };
    if admitted {
        return Ok(());
    }
    Err(error(
        "WORKER_NOT_ANNOUNCED",
        format!("{worker} has not been announced as a worker of the agent {agent}"),
    ))
}
