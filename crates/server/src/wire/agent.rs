//! Agents: wire ⇄ core.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rota_core::agent::Agent;
use rota_core::target::ISOLATED;
use rota_core::{AgentName, Namespace, Timestamp};
use rota_proto::num;
use rota_proto::{names, v1, v1::runtime::Kind};
use tonic::Status;

use super::status::invalid;
use super::{budget, check, etag, permission_rule, pull_request, spec, time};

const MAX_CAPABILITIES: usize = 64;
const MAX_SLOTS: i32 = 1024;
const MAX_WORKERS: i32 = 10_000;
/// Rules that people have allowed for one agent.
const MAX_RULES: usize = 128;
/// Shorter than the time after which a cluster's operator replaces the pod of an absent worker.
const RECONNECT_GRACE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(120);

/// Validates an agent. Its generation and times are assigned by the store.
pub(crate) fn check(namespace: Namespace, name: AgentName, given: v1::Agent) -> Result<Agent, Status> {
    let spec = given.spec.ok_or_else(|| invalid("agent.spec", "is required"))?;
    if spec.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref()).is_none() {
        return Err(invalid("agent.spec.runtime", "must be one of claude, command, scripted or external"));
    }
    if spec.capabilities.iter().any(|word| word == ISOLATED) {
        let text = format!(
            "{ISOLATED} is a capability of workers whose attempts are isolated; agents cannot have it"
        );
        return Err(invalid("agent.spec.capabilities", text));
    }
    check::words("agent.spec.capabilities", &spec.capabilities, MAX_CAPABILITIES)?;
    check::environment("agent.spec.environment", &spec.environment)?;
    check::runtime("agent.spec.runtime", spec.runtime.as_ref())?;
    check::labels("agent.labels", &given.labels)?;
    check::length("agent.spec.description", &spec.description, check::MAX_TITLE)?;
    let is_external =
        matches!(spec.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref()), Some(Kind::External(_)));
    if is_external && (!spec.setup.is_empty() || spec.setup_cache.is_some() || spec.done_when.is_some()) {
        return Err(invalid("agent.spec.setup", "workers of the runtime external run no commands of Rota"));
    }
    spec::commands("agent.spec.setup", &spec.setup)?;
    spec::setup_cache("agent.spec.setup_cache", spec.setup_cache.as_ref())?;
    spec::done_when("agent.spec.done_when", spec.done_when.as_ref())?;
    check::count("agent.spec.permission_rules", spec.permission_rules.len(), MAX_RULES)?;
    for (index, rule) in spec.permission_rules.iter().enumerate() {
        permission_rule::check(&format!("agent.spec.permission_rules[{index}]"), rule)?;
    }
    if let Some(git) = spec.workspace.as_ref().and_then(|workspace| workspace.git.as_ref()) {
        pull_request::check("agent.spec", git)?;
        if !git.ref_from.is_empty() {
            return Err(invalid(
                "agent.spec.workspace.git.ref_from",
                "is only for tasks, which have dependencies",
            ));
        }
    }
    for (field, value, most) in [
        ("slots", spec.slots, MAX_SLOTS),
        ("replicas", spec.replicas, MAX_WORKERS),
        ("max_replicas", spec.max_replicas.unwrap_or_default(), MAX_WORKERS),
        ("spare_workers", spec.spare_workers, MAX_WORKERS),
    ] {
        if !(0..=most).contains(&value) {
            return Err(invalid(format!("agent.spec.{field}"), format!("must be from 0 to {most}")));
        }
    }
    if spec.max_replicas.is_some_and(|max| max < spec.replicas) {
        return Err(invalid("agent.spec.max_replicas", "must not be below replicas"));
    }
    time::from_duration("agent.spec.idle_timeout", spec.idle_timeout.as_ref())?;
    time::from_duration("agent.spec.release_waiting_after", spec.release_waiting_after.as_ref())?;
    let field = "agent.spec.reconnect_grace";
    if time::from_duration(field, spec.reconnect_grace.as_ref())?
        .is_some_and(|grace| !RECONNECT_GRACE.contains(&grace))
    {
        return Err(invalid(field, "must be from 1 s to 2 min"));
    }
    let defaults = spec::limits("agent.spec.default_limits", spec.default_limits.as_ref())?;
    let budget = budget::check("agent.spec.budget", spec.budget.as_ref())?;
    let capabilities = spec.capabilities.iter().cloned().collect();
    let kept = v1::Agent { spec: Some(spec), labels: given.labels, ..v1::Agent::default() };
    let payload = kept.encode_to_vec().into();
    Ok(Agent { capabilities, defaults, budget, payload, ..named(namespace, name) })
}

/// Returns an agent of which only the name is known.
pub(crate) fn named(namespace: Namespace, name: AgentName) -> Agent {
    Agent {
        namespace,
        name,
        generation: 0,
        capabilities: BTreeSet::new(),
        defaults: Default::default(),
        budget: Default::default(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        payload: Bytes::new(),
    }
}

/// Returns the agent as it was created or last updated.
pub(crate) fn stored(agent: &Agent) -> v1::Agent {
    v1::Agent::decode(&agent.payload[..]).unwrap_or_default()
}

pub(crate) fn to_wire(agent: &Agent, status: v1::AgentStatus) -> v1::Agent {
    v1::Agent {
        name: names::agent(agent.namespace.as_str(), &agent.name),
        status: Some(status),
        create_time: Some(time::timestamp(agent.created_at)),
        update_time: Some(time::timestamp(agent.updated_at)),
        generation: num::to_i64(agent.generation),
        etag: etag::of_agent(agent),
        ..stored(agent)
    }
}
