//! Reports of the component that starts an agent's workers: which may join, and what is wrong.

use std::collections::HashMap;

use rota_proto::v1;
use rota_telemetry::redact;
use tonic::Status;

use crate::agents::AgentRegistry;
use crate::keys::AgentKey;
use crate::pools::Announced;
use crate::wire::status::{error, invalid};
use crate::wire::{check, names};

const MAX_WORKERS: usize = 10_000;
const MAX_INSTANCE: usize = 128;
const MAX_MESSAGE: usize = 1024;

pub(super) fn announce(agents: &AgentRegistry, request: v1::AnnounceWorkersRequest) -> Result<(), Status> {
    let agent = existing(agents, &request.name)?;
    check::count("workers", request.workers.len(), MAX_WORKERS)?;
    let mut workers = HashMap::with_capacity(request.workers.len());
    for (index, one) in request.workers.into_iter().enumerate() {
        let worker = names::worker_id(&format!("workers[{index}].worker"), &one.worker)?;
        if one.instance.len() > MAX_INSTANCE {
            let field = format!("workers[{index}].instance");
            return Err(invalid(field, format!("must have at most {MAX_INSTANCE} bytes")));
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
    agents.pools().announce(agent, workers);
    Ok(())
}

pub(super) fn report(agents: &AgentRegistry, request: v1::ReportAgentRequest) -> Result<(), Status> {
    let agent = existing(agents, &request.name)?;
    if request.message.len() > MAX_MESSAGE {
        return Err(invalid("message", format!("must have at most {MAX_MESSAGE} bytes")));
    }
    // It may quote the output of a program.
    let mut message = request.message;
    redact::text(&mut message);
    agents.pools().report(agent, message);
    Ok(())
}

/// Checks that an agent exists: reports about others would never be removed.
fn existing(agents: &AgentRegistry, name: &str) -> Result<AgentKey, Status> {
    let key = names::agent("name", name)?;
    match agents.contains(&key) {
        true => Ok(key),
        false => Err(error("AGENT_NOT_FOUND", format!("agent {} does not exist", key.1))),
    }
}
