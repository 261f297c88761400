//! Applies one `Agent`: creates it, or updates the existing one.

use anyhow::Context as _;
use rota_crds::Agent;
use rota_proto::names;
use rota_proto::v1::{self, GetAgentRequest, UpdateAgentRequest};
use serde_json::Value;

use super::{Applied, Outcome};
use crate::commands::found;
use crate::context::Context;

pub(super) async fn apply(context: &Context, manifest: &Agent, dry_run: bool) -> anyhow::Result<Applied> {
    let agent = manifest.to_api(&context.namespace);
    let (namespace, id) = names::parse(&agent.name, "agents").unwrap_or(("", ""));
    let (namespace, name) = (namespace.to_owned(), id.to_owned());
    let error_context = || format!("failed to apply agent/{id}");
    let before = found(context.client.get_agent(GetAgentRequest { name: agent.name.clone() }).await)
        .with_context(error_context)?;
    let request = UpdateAgentRequest {
        agent: Some(agent.clone()),
        allow_missing: true,
        validate_only: dry_run,
        ..Default::default()
    };
    let after = context.client.update_agent(request).await.with_context(error_context)?;
    // Both agents are as the server returns them, since it fills in what the manifest leaves out.
    let changes = before.as_ref().map(|before| changes(before, &after)).transpose()?;
    let (outcome, fields) = match changes {
        None => (Outcome::Created, Vec::new()),
        Some(fields) if fields.is_empty() => (Outcome::Unchanged, fields),
        Some(fields) => (Outcome::Configured, fields),
    };
    Ok(Applied { kind: "agent", namespace, name, outcome, fields, task: None, workflow: None })
}

/// Returns the fields in which two agents differ, by their names in manifests.
fn changes(before: &v1::Agent, after: &v1::Agent) -> anyhow::Result<Vec<String>> {
    let mut fields = Vec::new();
    differ("spec", &serde_json::to_value(&before.spec)?, &serde_json::to_value(&after.spec)?, &mut fields);
    if before.labels != after.labels {
        fields.push("labels".to_owned());
    }
    Ok(fields)
}

pub(super) fn differ(path: &str, before: &Value, after: &Value, fields: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let of = |side: &serde_json::Map<_, _>| side.get(key).cloned().unwrap_or_default();
                differ(&format!("{path}.{key}"), &of(before), &of(after), fields);
            }
        }
        _ if before != after => fields.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_fields_are_named_by_path() {
        let agent = |slots, model: &str| {
            let claude = v1::ClaudeRuntime { model: model.into(), ..Default::default() };
            let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) };
            let spec = v1::AgentSpec { slots, runtime: Some(runtime), ..Default::default() };
            v1::Agent { spec: Some(spec), ..Default::default() }
        };
        assert_eq!(changes(&agent(1, "a"), &agent(1, "a")).unwrap(), [""; 0]);
        assert_eq!(
            changes(&agent(0, "a"), &agent(2, "b")).unwrap(),
            ["spec.runtime.claude.model", "spec.slots"]
        );
    }
}
