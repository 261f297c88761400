//! Applies one `Workflow` or `WorkflowTemplate`.

use anyhow::Context as _;
use rota_crds::{DesiredState, Workflow, WorkflowTemplate};
use rota_proto::{names, v1};

use super::agent::differ;
use super::{Applied, Outcome};
use crate::commands::found;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Creates a workflow, which runs immediately, or pauses, resumes or cancels the existing one.
pub(super) async fn apply(context: &Context, manifest: &Workflow, dry_run: bool) -> anyhow::Result<Applied> {
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    let request = manifest.to_request(&context.namespace, &suffix[..6]).map_err(anyhow::Error::msg)?;
    let wanted = request.workflow.clone().unwrap_or_default();
    let error_context = || format!("failed to apply workflow/{}", wanted.alias);
    let (_, namespace) = request.parent.split_once('/').unwrap_or_default();
    let namespace = namespace.to_owned();
    let mut before = None;
    if !request.idempotency_key.is_empty() {
        let get = v1::GetWorkflowRequest { name: names::workflow(&namespace, &wanted.alias) };
        before = found(Box::pin(context.client.get_workflow(get)).await).with_context(error_context)?;
    }
    let request = v1::CreateWorkflowRequest { validate_only: dry_run, ..request };
    let after =
        Box::pin(context.client.create_workflow(request.clone())).await.with_context(error_context)?;
    let done = |outcome, fields| {
        let (namespace, name, workflow) = (namespace.clone(), wanted.alias.clone(), Some(after.clone()));
        Ok(Applied { kind: "workflow", namespace, name, outcome, fields, task: None, workflow })
    };
    // The key finds the one that an earlier command has made.
    let Some(before) = before.filter(|before| dry_run || before.uid == after.uid) else {
        follow(context, manifest, &after, dry_run).await.with_context(error_context)?;
        return done(Outcome::Created, Vec::new());
    };
    let mut fields = Vec::new();
    let spec = before.spec.clone().unwrap_or_default();
    match &request.parameters {
        // Those that are not given have the defaults of the template.
        Some(parameters) => {
            let inputs = spec.inputs.unwrap_or_default().fields;
            let differ =
                |(name, value)| (inputs.get(name) != Some(value)).then(|| format!("spec.parameters.{name}"));
            fields.extend(parameters.fields.iter().filter_map(differ));
        }
        None => {
            let [old, new] = [serde_json::to_value(&before.spec)?, serde_json::to_value(&wanted.spec)?];
            differ("spec", &old, &new, &mut fields);
        }
    }
    if !fields.is_empty() {
        let text = format!("workflow/{}: {} cannot change", wanted.alias, fields.join(", "));
        let hint =
            "apply it under another name, or with `generateName`, which makes a new workflow each time";
        return Err(Failure::new(Exit::Failed, text).hint(hint).into());
    }
    let changed = follow(context, manifest, &before, dry_run).await.with_context(error_context)?;
    match changed {
        true => done(Outcome::Configured, vec!["spec.desiredState".to_owned()]),
        false => done(Outcome::Unchanged, Vec::new()),
    }
}

/// Brings a workflow to the desired state of its manifest. Returns whether that changes anything.
async fn follow(
    context: &Context,
    manifest: &Workflow,
    workflow: &v1::Workflow,
    dry_run: bool,
) -> anyhow::Result<bool> {
    let status = workflow.status.clone().unwrap_or_default();
    let (name, client) = (workflow.name.clone(), &context.client);
    if status.end_time.is_some() || status.cancelled {
        return Ok(false);
    }
    let changes = match manifest.spec.desired_state {
        Some(DesiredState::Suspended) => !status.paused,
        Some(DesiredState::Run) => status.paused,
        Some(DesiredState::Cancelled) => true,
        None => false,
    };
    if !changes || dry_run {
        return Ok(changes);
    }
    match manifest.spec.desired_state {
        Some(DesiredState::Suspended) => {
            client.pause_workflow(v1::PauseWorkflowRequest { name, suspend_tasks: false }).await?;
        }
        Some(DesiredState::Cancelled) => {
            let reason = "the desired state of its manifest".to_owned();
            let request = v1::CancelWorkflowRequest { name, reason, also_finally: false };
            client.cancel_workflow(request).await?;
        }
        _ => drop(client.resume_workflow(v1::ResumeWorkflowRequest { name }).await?),
    }
    Ok(true)
}

/// Creates a template, or adds a version to it if it differs from the newest one.
pub(super) async fn apply_template(
    context: &Context,
    manifest: &WorkflowTemplate,
    dry_run: bool,
) -> anyhow::Result<Applied> {
    let request = manifest.to_request(&context.namespace).map_err(anyhow::Error::msg)?;
    let request = v1::UpdateWorkflowTemplateRequest { validate_only: dry_run, ..request };
    let full = request.workflow_template.as_ref().map(|template| template.name.clone()).unwrap_or_default();
    let (namespace, id) = names::parse(&full, "templates").unwrap_or_default();
    let (namespace, name) = (namespace.to_owned(), id.to_owned());
    let error_context = || format!("failed to apply workflowtemplate/{name}");
    let get = v1::GetWorkflowTemplateRequest { name: full.clone(), version: 0 };
    let before =
        found(Box::pin(context.client.get_workflow_template(get)).await).with_context(error_context)?;
    let after =
        Box::pin(context.client.update_workflow_template(request)).await.with_context(error_context)?;
    let mut fields = Vec::new();
    let outcome = match &before {
        None => Outcome::Created,
        Some(before) => {
            let [old, new] = [serde_json::to_value(&before.spec)?, serde_json::to_value(&after.spec)?];
            differ("spec", &old, &new, &mut fields);
            if before.labels != after.labels {
                fields.push("labels".to_owned());
            }
            if fields.is_empty() { Outcome::Unchanged } else { Outcome::Configured }
        }
    };
    Ok(Applied { kind: "workflowtemplate", namespace, name, outcome, fields, task: None, workflow: None })
}
