//! Permissions that an answer gives for longer than one call: checked against the question that the person has seen, and kept
//! with the task or its agent.

use std::collections::BTreeSet;

use prost::Message;
use rota_core::task::{Grant, Task};
use rota_proto::v1;
use rota_store::PutAgent;
use tonic::Status;

use crate::agents::AgentRegistry;
use crate::keys::AgentKey;
use crate::store_client::StoreClient;
use crate::wire::agent as wire;
use crate::wire::permission_rule;
use crate::wire::status::{error, invalid};

/// Checks what an answer allows besides the call in question. `None` if nothing.
pub(super) fn check(task: &Task, input: &v1::TaskInput) -> Result<Option<Grant>, Status> {
    let lasting =
        input.scope() == v1::PermissionScope::Session || input.scope() == v1::PermissionScope::Agent;
    if !lasting && input.rules.is_empty() && input.updated_input_json.is_empty() {
        return Ok(None);
    }
    if input.request_id.is_empty() {
        return Err(invalid(
            "input.request_id",
            "must name the question, for a scope, rules or another input",
        ));
    }
    if input.decision() != v1::Decision::Allow {
        return Err(invalid("input.decision", "must be ALLOW, for a scope, rules or another input"));
    }
    if lasting == input.rules.is_empty() {
        return Err(invalid(
            "input.rules",
            "must name rules of the question if the scope is SESSION or AGENT, and only then",
        ));
    }
    let Some((_, asked)) = task.open_questions().find(|(id, _)| *id == input.request_id) else {
        // Closed already: an answer that is repeated.
        return Ok(None);
    };
    let question = v1::InputRequest::decode(&asked[..]).unwrap_or_default();
    if question.kind() != v1::InputKind::Permission {
        return Err(invalid("input.decision", "must not be set: the question is none about a permission"));
    }
    if !input.updated_input_json.is_empty() {
        if question.input_incomplete {
            let text =
                "cannot replace an input of which the question has only a part, or which has redacted parts";
            return Err(invalid("input.updated_input_json", text));
        }
        let object = serde_json::from_str::<serde_json::Value>(&input.updated_input_json);
        if !object.is_ok_and(|value| value.is_object()) {
            return Err(invalid("input.updated_input_json", "must be a JSON object"));
        }
    }
    let offered: BTreeSet<_> = question.rules.iter().map(|offered| offered.rule.as_str()).collect();
    for (index, rule) in input.rules.iter().enumerate() {
        let field = format!("input.rules[{index}]");
        if !offered.contains(rule.as_str()) {
            return Err(invalid(field, "is none of the question's rules"));
        }
        if input.scope() == v1::PermissionScope::Agent {
            permission_rule::check(&field, rule)?;
        }
    }
    let rules = input.rules.clone();
    Ok(lasting.then(|| Grant { asked: asked.clone(), rules }))
}

/// Keeps rules with the agent that runs the task, whose later tasks get them. Repeatable.
pub(super) async fn keep(
    store: &StoreClient,
    agents: &AgentRegistry,
    key: AgentKey,
    added: &[String],
) -> Result<(), Status> {
    // An update reads before it writes.
    let _exclusive = agents.lock_changes().await;
    let missing = || error("AGENT_NOT_FOUND", format!("agent {} does not exist", key.1));
    let known = agents.get(&key).ok_or_else(missing)?;
    let mut agent = wire::stored(&known.agent);
    let rules = &mut agent.spec.get_or_insert_default().permission_rules;
    let before = rules.len();
    for rule in added {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    if rules.len() > before {
        let (namespace, name) = key.clone();
        let agent = wire::check(namespace, name, agent)?;
        store.put_agent(PutAgent { agent, must_exist: Some(true) }, false).await?;
    }
    Ok(())
}
