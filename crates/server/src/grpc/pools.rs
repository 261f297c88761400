//! What whoever starts an agent's workers tells about them, checked.

use std::collections::HashMap;

use rota_core::{AgentName, Namespace};
use rota_proto::v1;
use tonic::Status;

use crate::shared::Shared;
use crate::wire::status::{error, invalid};
use crate::wire::{check, clean, names};

const MAX_WORKERS: usize = 10_000;
const MAX_INSTANCE: usize = 128;
const MAX_MESSAGE: usize = 1024;

pub(super) fn announce(shared: &Shared, request: v1::AnnounceWorkersRequest) -> Result<(), Status> {
    let agent = known(shared, &request.name)?;
    check::count("workers", request.workers.len(), MAX_WORKERS)?;
    let mut workers = HashMap::with_capacity(request.workers.len());
    for (index, one) in request.workers.into_iter().enumerate() {
        let worker = names::worker_id(&format!("workers[{index}].worker"), &one.worker)?;
        if one.instance.len() > MAX_INSTANCE {
            let field = format!("workers[{index}].instance");
            return Err(invalid(field, format!("must have at most {MAX_INSTANCE} bytes")));
        }
        if workers.insert(worker, one.instance).is_some() {
            return Err(invalid(format!("workers[{index}].worker"), "is named twice"));
        }
    }
    shared.pools.announce(agent, workers);
    Ok(())
}

pub(super) fn report(shared: &Shared, request: v1::ReportAgentRequest) -> Result<(), Status> {
    let agent = known(shared, &request.name)?;
    if request.message.len() > MAX_MESSAGE {
        return Err(invalid("message", format!("must have at most {MAX_MESSAGE} bytes")));
    }
    // It may hold the last words of a program.
    let mut message = request.message;
    clean::text(&mut message);
    if shared.pools.report(agent, message) {
        shared.watchers.fleet_changed();
    }
    Ok(())
}

/// An agent that exists: what is said of others would be kept for ever.
fn known(shared: &Shared, name: &str) -> Result<(Namespace, AgentName), Status> {
    let key = names::agent("name", name)?;
    match shared.agent(&key.0, &key.1) {
        Some(_) => Ok(key),
        None => Err(error("AGENT_NOT_FOUND", format!("there is no agent {}", key.1))),
    }
}
