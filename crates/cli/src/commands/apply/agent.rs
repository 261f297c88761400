//! Applies one `Agent`.

use anyhow::Context as _;
use rota_crds::Agent;
use rota_proto::names;
use rota_proto::v1::{GetAgentRequest, UpdateAgentRequest};

use super::{Applied, Outcome};
use crate::commands::found;
use crate::context::Context;

pub(super) async fn apply(context: &Context, manifest: &Agent, dry_run: bool) -> anyhow::Result<Applied> {
    let agent = manifest.to_api(&context.namespace);
    let (namespace, id) = names::parse(&agent.name, "agents").unwrap_or(("", ""));
    let (namespace, name) = (namespace.to_owned(), id.to_owned());
    let doing = || format!("agent/{id} could not be applied");
    let before = found(context.client.get_agent(GetAgentRequest { name: agent.name.clone() }).await)
        .with_context(doing)?;
    let request = UpdateAgentRequest {
        agent: Some(agent.clone()),
        allow_missing: true,
        validate_only: dry_run,
        ..Default::default()
    };
    let after = context.client.update_agent(request).await.with_context(doing)?;
    let outcome = match before {
        _ if dry_run => Outcome::Valid,
        None => Outcome::Created,
        // The server's own words are compared: it may have filled in what the manifest leaves open.
        Some(before) if before.spec == after.spec && before.labels == after.labels => Outcome::Unchanged,
        Some(_) => Outcome::Configured,
    };
    Ok(Applied { kind: "agent", namespace, name, outcome, task: None })
}
