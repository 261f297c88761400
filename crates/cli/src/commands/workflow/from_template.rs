//! `rota run --template`: a workflow of a template, followed to its outputs.

use std::collections::BTreeMap;

use anyhow::Context as _;
use rota_crds::HumanDuration;
use rota_proto::num::whole;
use rota_proto::{names, v1};
use serde_json::Value;

use super::watch::{self, Seen};
use super::{create, show};
use crate::commands::artifacts;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{clean, elapsed};

/// Arguments of `rota run` that a template has none of.
pub(in crate::commands) const OF_TASKS: [&str; 23] = [
    "prompt",
    "kind",
    "agent",
    "needs",
    "worker",
    "title",
    "parent",
    "priority",
    "timeout",
    "budget_usd",
    "max_turns",
    "max_attempts",
    "escalate",
    "model",
    "depends_on",
    "thread",
    "env",
    "secret_env",
    "workspace",
    "setup",
    "done_when",
    "command",
    "argv",
];

pub(in crate::commands) struct FromTemplate {
    pub template: String,
    pub parameters: Vec<String>,
    /// Files that are parameters: each as `NAME=FILE`, or as a file whose name is that of the parameter.
    pub inputs: Vec<String>,
    pub name: String,
    pub owner: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub idempotency_key: String,
    pub ttl: Option<HumanDuration>,
    pub detach: bool,
    pub quiet: bool,
}

impl FromTemplate {
    /// Creates the workflow, and prints its progress and its outputs unless it is detached.
    pub(in crate::commands) async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let input_files = artifacts::upload_named(context, &self.inputs).await?;
        let spec = v1::WorkflowSpec {
            owner: self.owner.unwrap_or_default(),
            input_files,
            ..v1::WorkflowSpec::default()
        };
        let request = v1::CreateWorkflowRequest {
            parent: names::namespace(&context.namespace),
            workflow: Some(v1::Workflow {
                alias: self.name,
                spec: Some(spec),
                labels: self.labels,
                ttl_after_finished: create::ttl(self.ttl),
                ..v1::Workflow::default()
            }),
            template: self.template,
            parameters: Some(create::parameters(&self.parameters)?),
            idempotency_key: self.idempotency_key,
            ..v1::CreateWorkflowRequest::default()
        };
        let made = context.client.create_workflow(request).await.context("failed to create the workflow")?;
        if self.detach {
            match context.out.is_human() {
                true => context.out.line(&made.uid)?,
                false => context.out.value(&made)?,
            }
            return Ok(Exit::Ok);
        }
        context.reporter.line(&format!("workflow {}", made.uid));
        let (reporter, mut seen) = (&context.reporter, Seen::default());
        let print = async |message: &v1::WatchWorkflowResponse| {
            if !self.quiet {
                let lines = seen.changes(context, &made.name, message, reporter.colored()).await;
                lines.iter().for_each(|line| reporter.line(line));
            }
            anyhow::Ok(())
        };
        let Some(ended) = watch::to_end_or_interrupt(context, &made.name, print).await? else {
            return Ok(Exit::Interrupted);
        };
        print_end(context, &ended)?;
        Ok(watch::exit(&ended).unwrap_or(Exit::Failed))
    }
}

fn print_end(context: &Context, workflow: &v1::Workflow) -> anyhow::Result<()> {
    if !context.out.is_human() {
        return context.out.value(workflow);
    }
    let status = workflow.status.clone().unwrap_or_default();
    let mut outputs: Vec<_> = status.outputs.iter().flat_map(|outputs| &outputs.fields).collect();
    outputs.sort_unstable_by(|a, b| a.0.cmp(b.0));
    for (name, value) in outputs {
        let text = match whole(serde_json::to_value(value)?) {
            Value::String(text) => text,
            value => value.to_string(),
        };
        context.out.text(&format!("{name}={text}"))?;
    }
    let id = names::last(&workflow.name);
    let (state, _) = show::state(&status);
    match watch::exit(workflow) {
        Some(Exit::Cancelled) => context.reporter.error(&format!("workflow {id} was cancelled")),
        Some(Exit::Ok) => {}
        _ => {
            let reason = watch::reason(&status);
            context
                .reporter
                .error(&format!("workflow {id} {}{reason}", state.to_lowercase().replace('_', " ")));
            let step = clean(&status.failed_step);
            if !step.is_empty() {
                context.reporter.hint(&format!("see `rota workflow explain {id} --step {step}`"));
            }
        }
    }
    let time = elapsed(workflow.create_time.as_ref(), status.end_time.as_ref());
    context.reporter.line(&format!("time {time}, cost per step: rota workflow report {id}"));
    Ok(())
}
