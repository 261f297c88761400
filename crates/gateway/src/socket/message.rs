//! Messages of a WebSocket, as JSON texts: what clients ask for, and how what the services send is named for them.

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::Status;

use super::caller::Command;
use crate::status;
use crate::values::{self, MAX_VALUES, Unparsed};

/// Letters of the id of a message.
const MAX_ID: usize = 64;
/// Characters that a segment of a path has as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A kind of things that a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Channel {
    Agents,
    System,
    Tasks,
    Workflows,
}

/// Request of a client to follow a channel.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Subscribe {
    pub(super) channel: Channel,
    /// Namespace; the control plane itself has none.
    #[serde(default)]
    pub(super) parent: String,
    /// Position of an earlier subscription, from which it continues.
    #[serde(default)]
    pub(super) token: String,
    /// Whether what exists is sent first. Not with a position.
    #[serde(default = "yes")]
    pub(super) snapshot: bool,
}

fn yes() -> bool {
    true
}

/// What the message of a client asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Subscribe(Subscribe),
    Unsubscribe,
    Command(Command),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Create {
    parent: String,
    task: Value,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Assign {
    agent: String,
    task: Map<String, Value>,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    name: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terminate {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    name: String,
    input: Value,
}

/// What a message asks for, with its id. An error comes with the id of the message, if it has one.
pub(super) type Read = Result<(String, Incoming), (Option<String>, Box<Status>)>;

/// Reads a message, a text in JSON.
pub(super) fn read(text: &str) -> Read {
    let invalid = |why: &str| status::error("MESSAGE_INVALID", why, "docs/http-api.md lists the messages");
    let mut message = match values::parse(text.as_bytes()) {
        Ok(Value::Object(message)) => message,
        Ok(_) => return Err((None, invalid("the message is not a JSON object"))),
        Err(Unparsed::TooMany) => {
            return Err((None, invalid(&format!("the message has more than {MAX_VALUES} values"))));
        }
        Err(Unparsed::Invalid(error)) => {
            return Err((None, invalid(&format!("the message is no valid JSON: {error}"))));
        }
    };
    let id = match message.remove("id") {
        Some(Value::String(id)) if !id.is_empty() && id.len() <= MAX_ID => id,
        _ => {
            let why = format!("the message has no id: a text of at most {MAX_ID} bytes");
            return Err((None, invalid(&why)));
        }
    };
    let kind = message.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    match parse(kind, Value::Object(message)) {
        Ok(incoming) => Ok((id, incoming)),
        Err(why) => Err((Some(id), invalid(&why))),
    }
}

fn parse(kind: &str, fields: Value) -> Result<Incoming, String> {
    match kind {
        "subscribe" => of::<Subscribe>(fields).map(Incoming::Subscribe),
        "unsubscribe" => of::<Map<String, Value>>(fields).map(|_| Incoming::Unsubscribe),
        "create" => of(fields).map(|Create { parent, task, idempotency_key }| {
            let path = format!("{}/tasks", path(&parent));
            Incoming::Command(Command { idempotency_key, ..post(path, task) })
        }),
        "assign" => {
            let Assign { agent, mut task, idempotency_key } = of(fields)?;
            let (parent, agent) = agent.split_once("/agents/").ok_or("the agent has no name of an agent")?;
            let spec = task.entry("spec").or_insert_with(|| json!({}));
            let spec = spec.as_object_mut().ok_or("the specification of the task is no object")?;
            spec.insert("target".to_owned(), json!({ "agent": agent }));
            let command = post(format!("{}/tasks", path(parent)), Value::Object(task));
            Ok(Incoming::Command(Command { idempotency_key, ..command }))
        }
        "cancel" => of(fields).map(|Cancel { name, reason }| {
            Incoming::Command(post(format!("{}:cancel", path(&name)), json!({ "reason": reason })))
        }),
        "terminate" => {
            let Terminate { name } = of(fields)?;
            if !name.contains("/agents/") {
                return Err("the name is not that of an agent".to_owned());
            }
            let command = Command { method: Method::DELETE, ..Command::get(path(&name)) };
            Ok(Incoming::Command(command))
        }
        "answer" => of(fields).map(|Answer { name, input }| {
            Incoming::Command(post(format!("{}:sendInput", path(&name)), json!({ "input": input })))
        }),
        _ => Err(format!("the type {kind:?} is unknown")),
    }
}

fn of<T: for<'a> Deserialize<'a>>(fields: Value) -> Result<T, String> {
    serde_json::from_value(fields).map_err(|error| error.to_string())
}

fn post(path: String, body: Value) -> Command {
    Command { method: Method::POST, body: Some(body), ..Command::get(path) }
}

/// Returns the path of a resource.
pub(super) fn path(name: &str) -> String {
    let mut path = "/api/v1".to_owned();
    for segment in name.split('/') {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    path
}

/// Returns a message for a client.
pub(super) fn message(kind: &str, id: &str, fields: Map<String, Value>) -> Value {
    let mut message = Map::from_iter([("type".to_owned(), json!(kind)), ("id".to_owned(), json!(id))]);
    message.extend(fields);
    Value::Object(message)
}

/// Returns the name of a change that a feed has sent.
pub(super) fn kind(channel: Channel, change: &Map<String, Value>, is_new: bool) -> &'static str {
    let state = |of: &str| change.get(of)?.get("status")?.get("state")?.as_str();
    let ended = |of: &str| {
        let ends = ["SUCCEEDED", "FAILED", "CANCELLED"];
        state(of).is_some_and(|state| ends.iter().any(|end| state.ends_with(end)))
    };
    let has = |field: &str| change.contains_key(field);
    match channel {
        _ if has("resync") => "error_recovery",
        Channel::Tasks if !has("task") => "position",
        Channel::Tasks if ended("task") => "task_completed",
        Channel::Tasks => "task_progress",
        Channel::Workflows if !has("workflow") => "position",
        Channel::Workflows if has("deleted") => "workflow_deleted",
        Channel::Workflows if ended("workflow") => "workflow_completed",
        Channel::Workflows => "workflow_progress",
        Channel::Agents if has("deleted") => "agent_terminated",
        Channel::Agents if is_new => "agent_created",
        Channel::Agents => "agent_status",
        Channel::System => "system_status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: Value) -> Command {
        match read(&text.to_string()) {
            Ok((_, Incoming::Command(command))) => command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_are_calls_over_http() {
        let created = command(json!({
            "type": "create", "id": "1", "parent": "namespaces/default", "task": { "alias": "a" },
            "idempotencyKey": "once",
        }));
        assert_eq!(
            (created.method, created.path.as_str()),
            (Method::POST, "/api/v1/namespaces/default/tasks")
        );
        assert_eq!(
            (created.body, created.idempotency_key.as_deref()),
            (Some(json!({ "alias": "a" })), Some("once"))
        );
        let assigned = command(json!({
            "type": "assign", "id": "1", "agent": "namespaces/n/agents/coder", "task": { "spec": { "prompt": "x" } },
        }));
        assert_eq!(assigned.path, "/api/v1/namespaces/n/tasks");
        let spec = json!({ "spec": { "prompt": "x", "target": { "agent": "coder" } } });
        assert_eq!(assigned.body, Some(spec));
        let ended = command(json!({ "type": "terminate", "id": "1", "name": "namespaces/n/agents/coder" }));
        assert_eq!(
            (ended.method, ended.path.as_str()),
            (Method::DELETE, "/api/v1/namespaces/n/agents/coder")
        );
        let name = "namespaces/n/tasks/t";
        let cancelled = command(json!({ "type": "cancel", "id": "1", "name": name, "reason": "late" }));
        assert_eq!(cancelled.path, "/api/v1/namespaces/n/tasks/t:cancel");
        let answered =
            command(json!({ "type": "answer", "id": "1", "name": name, "input": { "text": "yes" } }));
        assert_eq!(answered.path, "/api/v1/namespaces/n/tasks/t:sendInput");
        assert_eq!(answered.body, Some(json!({ "input": { "text": "yes" } })));
    }

    #[test]
    fn names_cannot_become_other_calls() {
        let hostile = "namespaces/n/tasks/t:retry?x=\u{1}#/../%2e";
        let cancelled = command(json!({ "type": "cancel", "id": "1", "name": hostile }));
        assert_eq!(cancelled.path, "/api/v1/namespaces/n/tasks/t%3Aretry%3Fx%3D%01%23/../%252e:cancel");
    }

    #[test]
    fn malformed_messages_are_refused() {
        let many = format!(r#"{{"type":"create","id":"1","task":[{}0]}}"#, "0,".repeat(MAX_VALUES));
        let (_, refused) = read(&many).unwrap_err();
        assert!(refused.message().contains("more than 262144 values"), "{refused}");
        for (text, why) in [
            ("", "no valid JSON"),
            ("[]", "not a JSON object"),
            (r#"{"type":"subscribe","channel":"tasks"}"#, "no id"),
            (r#"{"type":"subscribe","channel":"tasks","id":7}"#, "no id"),
            (r#"{"type":"subscribe","channel":"moods","id":"1"}"#, "unknown variant `moods`"),
            (r#"{"type":"subscribe","channel":"tasks","id":"1","filter":{}}"#, "unknown field `filter`"),
            (r#"{"type":"assign","id":"1","agent":"coder","task":{}}"#, "name of an agent"),
            (r#"{"type":"terminate","id":"1","name":"namespaces/n/tasks/t"}"#, "not that of an agent"),
            (r#"{"type":"retry","id":"1"}"#, "unknown"),
        ] {
            let (_, refused) = read(text).unwrap_err();
            assert!(refused.message().contains(why), "{text}: {refused}");
        }
        let long = json!({ "type": "unsubscribe", "id": "x".repeat(65) }).to_string();
        assert!(read(&long).is_err());
        assert_eq!(read(r#"{"type":"retry","id":"1"}"#).unwrap_err().0.as_deref(), Some("1"));
    }
}
