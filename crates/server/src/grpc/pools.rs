//! Reports of the component that starts an agent's workers: which may join, and what is wrong.

use std::collections::HashMap;

use rota_core::task::Loss;
use rota_proto::v1;
use rota_telemetry::redact;
use tonic::Status;

use crate::agents::AgentRegistry;
use crate::keys::AgentKey;
use crate::pools::{Announced, Standing};
use crate::scheduler::WorkerEntry;
use crate::sessions::{self, SessionDeps};
use crate::wire::status::{error, invalid};
use crate::wire::{check, names};

const MAX_WORKERS: usize = 10_000;
const MAX_INSTANCE: usize = 128;
const MAX_MESSAGE: usize = 1024;
const MAX_ISOLATED: usize = 100;

pub(super) async fn announce(
    deps: &SessionDeps,
    agents: &AgentRegistry,
    request: v1::AnnounceWorkersRequest,
) -> Result<(), Status> {
    let agent = existing(agents, &request.name)?;
    check::count("workers", request.workers.len(), MAX_WORKERS)?;
    let mut workers = HashMap::with_capacity(request.workers.len());
    for (index, one) in request.workers.into_iter().enumerate() {
        let worker = names::worker_id(&format!("workers[{index}].worker"), &one.worker)?;
        // Without it, any pod could take the name.
        if one.instance.is_empty() || one.instance.len() > MAX_INSTANCE {
            let field = format!("workers[{index}].instance");
            return Err(invalid(
                field,
                format!("must be the UID of the pod, with at most {MAX_INSTANCE} bytes"),
            ));
        }
        if one.isolated_task.as_ref().is_some_and(|task| task.len() > MAX_INSTANCE) {
            let field = format!("workers[{index}].isolated_task");
            return Err(invalid(field, format!("must have at most {MAX_INSTANCE} bytes")));
        }
        let announced =
            Announced { instance: one.instance, slots: one.slots, isolated_task: one.isolated_task };
        if workers.insert(worker, announced).is_some() {
            return Err(invalid(format!("workers[{index}].worker"), "is named twice"));
        }
    }
    agents.pools().announce(agent.clone(), workers);
    end_sessions(deps, agents, &agent).await?;
    for key in deps.scheduler.workers_of(&agent, |entry| entry.pod.is_some()) {
        sessions::limit_to_announced(deps, &agent, &key);
    }
    Ok(())
}

/// Ends the sessions of pods that are not announced, whether they were announced before or came back after a restart: they do not exist any
/// more, whatever still runs with their tokens. Those that drain, such as workers of pods whose record was lost, finish their tasks.
async fn end_sessions(deps: &SessionDeps, agents: &AgentRegistry, agent: &AgentKey) -> Result<(), Status> {
    let is_revoked = |entry: &WorkerEntry| {
        let standing = |pod: &String| agents.pools().standing(agent, &entry.profile.worker, pod);
        !entry.draining && entry.pod.as_ref().map(standing) == Some(Standing::Revoked)
    };
    for key in deps.scheduler.workers_of(agent, is_revoked) {
        let ended = deps
            .scheduler
            .update_any(&key, |entry| is_revoked(entry).then(|| (entry.worker_ref(), entry.session.take())));
        let Some((worker, session)) = ended.flatten() else { continue };
        if let Some(session) = session {
            session.close();
        }
        // After an error, the next announcement ends it.
        sessions::expire_session(deps, &key, worker, Loss::Unclear, "the worker's pod was deleted").await?;
    }
    Ok(())
}

pub(super) fn report(agents: &AgentRegistry, request: v1::ReportAgentRequest) -> Result<(), Status> {
    let agent = existing(agents, &request.name)?;
    let pool = message("message", request.message)?;
    check::count("isolated", request.isolated.len(), MAX_ISOLATED)?;
    let mut isolated = HashMap::with_capacity(request.isolated.len());
    for (index, failure) in request.isolated.into_iter().enumerate() {
        let id = (failure.task.parse())
            .map_err(|error| invalid(format!("isolated[{index}].task"), format!("is no id: {error}")))?;
        isolated.insert(id, message(&format!("isolated[{index}].message"), failure.message)?);
    }
    agents.pools().report(agent, pool, isolated);
    Ok(())
}

/// Returns a message, which may quote the output of a program.
fn message(field: &str, mut message: String) -> Result<String, Status> {
    if message.len() > MAX_MESSAGE {
        return Err(invalid(field, format!("must have at most {MAX_MESSAGE} bytes")));
    }
    redact::text(&mut message);
    Ok(message)
}

/// Checks that an agent exists: reports about others would never be removed.
fn existing(agents: &AgentRegistry, name: &str) -> Result<AgentKey, Status> {
    let key = names::agent("name", name)?;
    match agents.contains(&key) {
        true => Ok(key),
        false => Err(error("AGENT_NOT_FOUND", format!("agent {} does not exist", key.1))),
    }
}
