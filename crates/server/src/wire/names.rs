//! Parsing of the resource names in requests.

use rota_core::spending::Scope;
use rota_core::{AgentName, Namespace, TaskId, WorkerName};
use rota_proto::names;
use tonic::Status;
use uuid::Uuid;

use super::status::invalid;

/// Parses the namespace that a `parent` names.
pub(crate) fn parent(field: &str, name: &str) -> Result<Namespace, Status> {
    let part = names::parse_namespace(name)
        .ok_or_else(|| invalid(field, format!("{name:?} is not of the form namespaces/NAMESPACE")))?;
    namespace(field, part)
}

/// Parses the namespace that a `parent` names; `None` for `namespaces/-`, which means all.
pub(crate) fn parent_or_all(field: &str, name: &str) -> Result<Option<Namespace>, Status> {
    if name == "namespaces/-" { Ok(None) } else { parent(field, name).map(Some) }
}

pub(crate) fn namespace(field: &str, text: &str) -> Result<Namespace, Status> {
    Namespace::new(text).map_err(|bad| invalid(field, bad.to_string()))
}

fn split<'a>(field: &str, name: &'a str, collection: &str) -> Result<(Namespace, &'a str), Status> {
    let (space, id) = names::parse(name, collection).ok_or_else(|| {
        invalid(field, format!("{name:?} is not of the form namespaces/NAMESPACE/{collection}/ID"))
    })?;
    Ok((namespace(field, space)?, id))
}

/// A task as a request names it.
pub(crate) enum TaskName {
    Id(TaskId),
    Alias(String),
}

pub(crate) fn task(field: &str, name: &str) -> Result<(Namespace, TaskName), Status> {
    let (space, id) = split(field, name, "tasks")?;
    let named = match id.parse() {
        Ok(id) => TaskName::Id(id),
        Err(_) => TaskName::Alias(alias(field, id)?),
    };
    Ok((space, named))
}

/// Checks an alias: a name that is not a UUID.
pub(crate) fn alias(field: &str, text: &str) -> Result<String, Status> {
    // Kubernetes lets resources have names of up to 253 characters.
    let fits = text.len() <= 253 && text.split('.').all(rota_core::ids::is_name);
    if !fits {
        return Err(invalid(
            field,
            format!(
                "{:?} is not a name: use lower-case letters, digits, '-' and '.'",
                super::check::shorten(text)
            ),
        ));
    }
    if text.parse::<TaskId>().is_ok() {
        return Err(invalid(field, "must not look like an id"));
    }
    Ok(text.to_owned())
}

pub(crate) fn agent(field: &str, name: &str) -> Result<(Namespace, AgentName), Status> {
    let (space, id) = split(field, name, "agents")?;
    Ok((space, agent_id(field, id)?))
}

/// Parses the name of an agent, or of a namespace, as that of its budget.
pub(crate) fn account(field: &str, name: &str) -> Result<(Namespace, Scope), Status> {
    if names::parse_namespace(name).is_some() {
        return Ok((parent(field, name)?, Scope::Namespace));
    }
    let (space, agent) = agent(field, name)?;
    Ok((space, Scope::Agent(agent)))
}

pub(crate) fn agent_id(field: &str, id: &str) -> Result<AgentName, Status> {
    AgentName::new(id).map_err(|bad| invalid(field, bad.to_string()))
}

/// Parses the name of a schedule.
pub(crate) fn schedule(field: &str, name: &str) -> Result<(Namespace, String), Status> {
    let (space, id) = split(field, name, "schedules")?;
    Ok((space, schedule_id(field, id)?))
}

/// Parses the name of a worker token's record.
pub(crate) fn worker_token(field: &str, name: &str) -> Result<(Namespace, Uuid), Status> {
    let (space, id) = split(field, name, "workerTokens")?;
    let id = id.parse().map_err(|_| invalid(field, "is not the id of a worker token, as listed"))?;
    Ok((space, id))
}

/// Parses the name of a browser's session.
pub(crate) fn browser_session(field: &str, name: &str) -> Result<Uuid, Status> {
    let id = name.strip_prefix("browserSessions/").and_then(|id| id.parse().ok());
    id.ok_or_else(|| invalid(field, "must be browserSessions/{id}, as listed"))
}

/// Parses the name of a template.
pub(crate) fn template(field: &str, name: &str) -> Result<(Namespace, String), Status> {
    let (space, id) = split(field, name, "templates")?;
    Ok((space, short_name(field, id)?))
}

/// Parses the name of a kind of tasks.
pub(crate) fn kind(field: &str, name: &str) -> Result<(Namespace, String), Status> {
    let (space, id) = split(field, name, "kinds")?;
    Ok((space, kind_id(field, id)?))
}

/// Checks the name of a kind of tasks, which is the value of a label.
pub(crate) fn kind_id(field: &str, id: &str) -> Result<String, Status> {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    let begins = id.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    match begins && id.len() <= 63 && id.bytes().all(rest) {
        true => Ok(id.to_owned()),
        false => Err(invalid(
            field,
            "is not the name of a kind: use up to 63 lower-case letters, digits, '_' and '-', beginning with a letter",
        )),
    }
}

/// Checks the name of a schedule, which is a label and the default alias of its tasks.
pub(crate) fn schedule_id(field: &str, id: &str) -> Result<String, Status> {
    short_name(field, id)
}

/// Checks a name that is no longer than those of Kubernetes' labels.
pub(crate) fn short_name(field: &str, id: &str) -> Result<String, Status> {
    match id.len() <= 63 {
        true => alias(field, id),
        false => Err(invalid(field, "must have at most 63 characters")),
    }
}

pub(crate) fn worker(field: &str, name: &str) -> Result<(Namespace, WorkerName), Status> {
    let (space, id) = split(field, name, "workers")?;
    Ok((space, worker_id(field, id)?))
}

pub(crate) fn worker_id(field: &str, id: &str) -> Result<WorkerName, Status> {
    WorkerName::new(id).map_err(|bad| invalid(field, bad.to_string()))
}
