//! Applies one `Schedule`: creates it, or updates the existing one.

use std::collections::BTreeMap;

use anyhow::Context as _;
use rota_crds::Schedule;
use rota_proto::names;
use rota_proto::v1::{self, GetScheduleRequest, UpdateScheduleRequest};

use super::agent::differ;
use super::{Applied, Outcome};
use crate::commands::found;
use crate::context::Context;

/// Returns the schedule of a manifest. `secrets` come from the environment of this command.
pub(super) fn wanted(
    context: &Context,
    manifest: &Schedule,
    secrets: &BTreeMap<String, String>,
) -> anyhow::Result<v1::Schedule> {
    let mut schedule = manifest.to_api(&context.namespace).map_err(anyhow::Error::msg)?;
    let task = schedule.spec.as_mut().and_then(|spec| spec.task.as_mut());
    if let Some(spec) = task.and_then(|task| task.spec.as_mut()) {
        spec.secrets.extend(secrets.clone());
    }
    Ok(schedule)
}

pub(super) async fn apply(context: &Context, wanted: v1::Schedule, dry_run: bool) -> anyhow::Result<Applied> {
    let (namespace, id) = names::parse(&wanted.name, "schedules").unwrap_or(("", ""));
    let (namespace, name) = (namespace.to_owned(), id.to_owned());
    let error_context = || format!("failed to apply schedule/{name}");
    let request = GetScheduleRequest { name: wanted.name.clone() };
    let before = found(context.client.get_schedule(request).await).with_context(error_context)?;
    let request = UpdateScheduleRequest {
        schedule: Some(wanted),
        allow_missing: true,
        validate_only: dry_run,
        ..Default::default()
    };
    let after = Box::pin(context.client.update_schedule(request)).await.with_context(error_context)?;
    // Both are as the server returns them, since it fills in what the manifest leaves out.
    let (outcome, fields) = match &before {
        None => (Outcome::Created, Vec::new()),
        Some(before) if before.generation == after.generation => (Outcome::Unchanged, Vec::new()),
        Some(before) => {
            let mut fields = Vec::new();
            let [old, new] = [serde_json::to_value(&before.spec)?, serde_json::to_value(&after.spec)?];
            differ("spec", &old, &new, &mut fields);
            if before.labels != after.labels {
                fields.push("labels".to_owned());
            }
            // Their values are not returned.
            if fields.is_empty() {
                fields.push("spec.task.spec.secrets".to_owned());
            }
            (Outcome::Configured, fields)
        }
    };
    Ok(Applied { kind: "schedule", namespace, name, outcome, fields, task: None, workflow: None })
}
