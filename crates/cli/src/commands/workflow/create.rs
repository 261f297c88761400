//! `rota workflow run`: workflows from files and from templates.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use pbjson_types::Struct;
use rota_crds::{HumanDuration, Usd};
use rota_proto::{names, v1};
use serde_json::{Map, Value};

use super::{show, watch};
use crate::commands::artifacts;
use crate::commands::pairs::{self, Pair};
use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Specification as YAML or JSON; `-` reads it from standard input
    #[arg(
        long = "filename",
        short,
        value_name = "FILE|-",
        required_unless_present = "template",
        conflicts_with = "template"
    )]
    file: Option<PathBuf>,
    /// Template of the namespace, with `--parameter` for its parameters [default version: the newest]
    #[arg(long, value_name = "NAME[@VERSION]")]
    template: Option<String>,
    /// Parameter of the template, or input of the specification, as JSON or as text; may be repeated
    #[arg(long = "parameter", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// File that is an input or a parameter, by this name or by that of the file; may be repeated
    #[arg(long = "input", value_name = "[NAME=]FILE")]
    inputs: Vec<String>,
    /// Alias, by which commands find the newest workflow that has it
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Owner of the workflow and of its tasks, for people and filters [default: that of the file or the template]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    owner: String,
    /// Label of the workflow and of its tasks; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    label: Vec<Pair>,
    /// Key that makes the command repeatable: the same key creates one workflow
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    idempotency_key: String,
    /// Time after its end at which the workflow is removed with its tasks, such as 1h [default: the retention of the control plane]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    ttl: Option<HumanDuration>,
    /// Cost of all of its tasks at which the workflow fails, in US dollars, such as 5.00 [default: that of the file]
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true, conflicts_with = "template")]
    budget_usd: Option<Usd>,
    /// Validate on the server, without creating anything
    #[arg(long)]
    dry_run: bool,
    /// Start nothing until `rota workflow resume`
    #[arg(long)]
    paused: bool,
    /// Follow the workflow until its end
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
}

impl Run {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let given = parameters(&self.parameters)?;
        let (mut spec, mut parameters) = (None, None);
        match &self.file {
            Some(file) => {
                let mut read = read_spec(file)?;
                read.inputs.get_or_insert_default().fields.extend(given.fields);
                spec = Some(read);
            }
            None => parameters = Some(given),
        }
        if !self.owner.is_empty() {
            spec.get_or_insert_default().owner = self.owner;
        }
        if let (Some(budget), Some(spec)) = (self.budget_usd, &mut spec) {
            spec.budget_micro_usd = budget.micro;
        }
        if !self.inputs.is_empty() {
            let files = artifacts::upload_named(context, &self.inputs).await?;
            spec.get_or_insert_default().input_files.extend(files);
        }
        let workflow = v1::Workflow {
            alias: self.name,
            labels: pairs::map(&self.label),
            spec,
            ttl_after_finished: ttl(self.ttl),
            ..v1::Workflow::default()
        };
        let request = v1::CreateWorkflowRequest {
            parent: names::namespace(&context.namespace),
            workflow: Some(workflow),
            template: self.template.unwrap_or_default(),
            parameters,
            idempotency_key: self.idempotency_key,
            validate_only: self.dry_run,
            paused: self.paused,
            ..v1::CreateWorkflowRequest::default()
        };
        let made = Box::pin(context.client.create_workflow(request)).await?;
        let created = if self.paused { "created, and is paused" } else { "created" };
        if self.watch {
            show::changed(context, &made, created)?;
            return Box::pin(watch::follow(context, &made.name)).await;
        }
        show::changed(context, &made, if self.dry_run { "would be created" } else { created })
    }
}

/// Returns a time to live as the API has it.
pub(super) fn ttl(given: Option<HumanDuration>) -> Option<pbjson_types::Duration> {
    given.map(|given| given.0.into())
}

/// Returns the text of a file, or of standard input if it is `-`.
pub(in crate::commands) fn read(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        return std::io::read_to_string(std::io::stdin()).context("failed to read standard input");
    }
    std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))
}

/// Returns the step in a file.
pub(super) fn read_step(file: &Path) -> anyhow::Result<v1::WorkflowStep> {
    let invalid = |error: String| Failure::usage(format!("{} is not a step: {error}", file.display()));
    let mut value: Value =
        serde_saphyr::from_str(&read(file)?).map_err(|error| invalid(error.to_string()))?;
    value.as_object_mut().into_iter().for_each(rota_proto::expressions::place);
    Ok(serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?)
}

/// Returns the specification in a file, of a workflow or of a template.
pub(super) fn read_spec(file: &Path) -> anyhow::Result<v1::WorkflowSpec> {
    let invalid = |error: String| Failure::usage(format!("{} is not a workflow: {error}", file.display()));
    // Every JSON text is YAML, too.
    let value: Value = serde_saphyr::from_str(&read(file)?).map_err(|error| invalid(error.to_string()))?;
    let mut spec = value.get("workflow").cloned().unwrap_or(value);
    rota_proto::expressions::place_in_workflow(&mut spec);
    Ok(serde_json::from_value(spec).map_err(|error| invalid(error.to_string()))?)
}

/// Returns `NAME=VALUE` pairs; a value that is no JSON is a text.
pub(in crate::commands) fn parameters(pairs: &[String]) -> anyhow::Result<Struct> {
    let mut fields = Map::new();
    for pair in pairs {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Failure::usage(format!("{pair:?} is not NAME=VALUE")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        fields.insert(name.to_owned(), value);
    }
    Ok(serde_json::from_value(Value::Object(fields))?)
}
