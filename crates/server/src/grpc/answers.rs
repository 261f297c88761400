//! Building blocks of responses: sizes of pages, and, for `AgentService`, pages of lists that are kept in memory, update masks,
//! workers.

use rota_core::Timestamp;
use rota_proto::num;
use rota_proto::{names as n, v1};
use tonic::Status;

use crate::scheduler::WorkerView;
use crate::wire::status::invalid;
use crate::wire::time;

/// Path of the rules that people have allowed for an agent, which is no part of manifests.
pub(super) const PERMISSION_RULES: &str = "spec.permission_rules";

/// Returns the number of entries of a page, from the size that a request has.
pub(super) fn page_size(given: i32, default: usize) -> Result<usize, Status> {
    match usize::try_from(given) {
        Err(_) => Err(invalid("page_size", "must not be negative")),
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(1000)),
    }
}

/// Returns a page of a list that is kept in memory and sorted by name: the entries after the name in the token.
pub(super) fn page<T>(items: Vec<(String, T)>, size: i32, token: &str) -> Result<(Vec<T>, String), Status> {
    let size = page_size(size, 100)?;
    if !token.is_empty() && !token.contains('/') {
        return Err(invalid("page_token", "is not a token of an earlier page"));
    }
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

/// Returns the agent with the fields that the mask names taken from `given`.
pub(super) fn masked(known: v1::Agent, given: v1::Agent, paths: &[String]) -> Result<v1::Agent, Status> {
    let rules = known.spec.as_ref().map(|spec| spec.permission_rules.clone()).unwrap_or_default();
    if paths.is_empty() || paths.iter().any(|path| path == "*") {
        let mut given = given;
        if let Some(spec) = &mut given.spec {
            spec.permission_rules = rules;
        }
        return Ok(given);
    }
    let mut agent = known;
    for path in paths {
        let new = given.spec.clone().unwrap_or_default();
        let spec = agent.spec.get_or_insert_default();
        match path.as_str() {
            "labels" => agent.labels.clone_from(&given.labels),
            "spec" => *spec = v1::AgentSpec { permission_rules: rules.clone(), ..new },
            PERMISSION_RULES => spec.permission_rules = new.permission_rules,
            "spec.runtime" => spec.runtime = new.runtime,
            "spec.capabilities" => spec.capabilities = new.capabilities,
            "spec.description" => spec.description = new.description,
            "spec.slots" => spec.slots = new.slots,
            "spec.replicas" => spec.replicas = new.replicas,
            "spec.max_replicas" => spec.max_replicas = new.max_replicas,
            "spec.spare_workers" => spec.spare_workers = new.spare_workers,
            "spec.reconnect_grace" => spec.reconnect_grace = new.reconnect_grace,
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

pub(super) fn worker_to_wire(worker: &WorkerView, now: Timestamp) -> v1::Worker {
    let (profile, mut stats) = (&worker.profile, worker.stats.clone());
    stats.add_busy_time(now, worker.tasks.len());
    let recent_activity = stats.recent_activity.iter().rev().map(|entry| v1::WorkerActivity {
        time: Some(time::timestamp(entry.at)),
        action: entry.what.to_owned(),
        task: entry.task.map(|id| id.to_string()).unwrap_or_default(),
    });
    v1::Worker {
        name: n::worker(profile.namespace.as_str(), &profile.worker),
        agent: profile.agent.to_string(),
        capabilities: profile.capabilities.iter().cloned().collect(),
        slots: num::to_i32(worker.slots),
        tasks: worker.tasks.iter().map(ToString::to_string).collect(),
        connected: worker.connected,
        draining: worker.draining,
        epoch: num::to_i64(worker.epoch.0),
        connect_time: Some(time::timestamp(stats.connected_at)),
        last_seen_time: Some(time::timestamp(stats.last_seen_at)),
        cpu: stats.cpu,
        memory_bytes: stats.memory_bytes,
        succeeded: num::to_i64(stats.succeeded),
        failed: num::to_i64(stats.failed),
        cancelled: num::to_i64(stats.cancelled),
        idle_since: stats.idle_since.map(time::timestamp),
        busy_time: Some(time::duration(stats.busy)),
        instance: worker.instance.clone(),
        recent_activity: recent_activity.collect(),
        version: stats.version,
        runtime_version: stats.runtime_version,
        runtime_missing: stats.runtime_missing,
        isolated: stats.isolated,
        not_isolated_reason: stats.not_isolated_reason,
        breaker: String::new(),
        not_ready_reason: stats.not_ready_reason,
    }
}
