//! What `AgentService` needs to answer: pages of lists that are kept in memory, masks, workers as callers read them.

use rota_core::Timestamp;
use rota_proto::{names as n, v1};
use tonic::Status;

use crate::dispatch::WorkerView;
use crate::wire::status::invalid;
use crate::wire::time;

/// A page of a list that is kept in memory: after the token's name, by name.
pub(super) fn page<T>(items: Vec<(String, T)>, size: i32, token: &str) -> Result<(Vec<T>, String), Status> {
    if size < 0 {
        return Err(invalid("page_size", "must not be negative"));
    }
    if !token.is_empty() && !token.starts_with("namespaces/") {
        return Err(invalid("page_token", "is not one that was given"));
    }
    let size = if size == 0 { 100 } else { usize::try_from(size).unwrap_or(1000).min(1000) };
    let mut rest = items.into_iter().filter(|(name, _)| name.as_str() > token).peekable();
    let (mut taken, mut last) = (Vec::new(), String::new());
    while taken.len() < size {
        let Some((name, item)) = rest.next() else { break };
        last = name;
        taken.push(item);
    }
    let next = if rest.peek().is_some() { last } else { String::new() };
    Ok((taken, next))
}

/// The agent with what the mask names taken from `given`.
pub(super) fn masked(known: v1::Agent, given: v1::Agent, paths: &[String]) -> Result<v1::Agent, Status> {
    if paths.is_empty() || paths.iter().any(|path| path == "*") {
        return Ok(given);
    }
    let mut agent = known;
    for path in paths {
        let new = given.spec.clone().unwrap_or_default();
        let spec = agent.spec.get_or_insert_default();
        match path.as_str() {
            "labels" => agent.labels.clone_from(&given.labels),
            "spec" => *spec = new,
            "spec.runtime" => spec.runtime = new.runtime,
            "spec.capabilities" => spec.capabilities = new.capabilities,
            "spec.description" => spec.description = new.description,
            "spec.slots" => spec.slots = new.slots,
            "spec.replicas" => spec.replicas = new.replicas,
            "spec.max_replicas" => spec.max_replicas = new.max_replicas,
            "spec.spare_workers" => spec.spare_workers = new.spare_workers,
            "spec.idle_timeout" => spec.idle_timeout = new.idle_timeout,
            "spec.environment" => spec.environment = new.environment,
            "spec.default_limits" => spec.default_limits = new.default_limits,
            "spec.workspace" => spec.workspace = new.workspace,
            "spec.on_disconnect" => spec.on_disconnect = new.on_disconnect,
            "spec.management" => spec.management = new.management,
            other => {
                let why =
                    format!("{:?} is not a field that can be changed", crate::wire::check::shorten(other));
                return Err(invalid("update_mask", why));
            }
        }
    }
    Ok(agent)
}

pub(super) fn worker_to_wire(worker: WorkerView, now: Timestamp) -> v1::Worker {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (profile, mut about) = (worker.profile, worker.about);
    about.count(now, worker.tasks.len());
    let recent = about.deeds.iter().rev().map(|deed| v1::WorkerDeed {
        time: Some(time::timestamp(deed.at)),
        what: deed.what.to_owned(),
        task: deed.task.map(|id| id.to_string()).unwrap_or_default(),
    });
    v1::Worker {
        name: n::worker(profile.namespace.as_str(), &profile.worker),
        agent: profile.agent.to_string(),
        capabilities: profile.capabilities.into_iter().collect(),
        slots: i32::try_from(worker.slots).unwrap_or(i32::MAX),
        tasks: worker.tasks,
        connected: worker.connected,
        draining: worker.draining,
        epoch: signed(worker.epoch),
        connect_time: Some(time::timestamp(about.connected_at)),
        heard_time: Some(time::timestamp(about.heard_at)),
        cpu: about.cpu,
        memory_bytes: about.memory_bytes,
        succeeded: signed(about.succeeded),
        failed: signed(about.failed),
        cancelled: signed(about.cancelled),
        idle_since: about.idle_since.map(time::timestamp),
        busy_time: Some(time::duration(about.busy)),
        instance: worker.instance,
        recent: recent.collect(),
        version: about.version,
        runtime_version: about.runtime_version,
    }
}
