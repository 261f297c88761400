//! `rota template`: templates of workflows.

pub(super) mod shipped;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rota_proto::names;
use rota_proto::v1::{
    DeleteWorkflowTemplateRequest, GetWorkflowTemplateRequest, UpdateWorkflowTemplateRequest,
    WorkflowTemplate, WorkflowTemplateSpec,
};
use serde_json::Value;

use super::found;
use super::workflow::read;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Paint, Table, age, clean, first_line};

const EXAMPLES: &str = "\
Examples:
  rota template list --shipped
  rota template apply deploy-app --shipped
  rota template get deploy-app --shipped > deploy.yaml
  rota template apply deploy -f deploy.yaml
  rota template list
  rota template get deploy
  rota template get deploy --version 3 -o json
  rota template delete deploy

The file has the specification of a template as YAML or JSON: description, parameters and workflow, as the API names them.
Templates that come with the program (`--shipped`) are a start for your own.";

/// Manage templates of workflows, in versions
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Template {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// List templates with their newest versions
    List {
        /// Include the templates of all namespaces
        #[arg(long, short = 'A')]
        all_namespaces: bool,
        /// List the templates that come with the program instead, without a control plane
        #[arg(long, conflicts_with = "all_namespaces")]
        shipped: bool,
    },
    /// Show a template: its parameters and steps
    Get {
        /// Name of a template of the namespace
        #[arg(value_name = "NAME")]
        name: String,
        /// Version of the template [default: the newest]
        #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
        version: i64,
        /// Print the file of a template that comes with the program, without a control plane
        #[arg(long, conflicts_with = "version")]
        shipped: bool,
    },
    /// Create a template, or add a version if its specification differs from the newest one
    Apply {
        /// Name of a template of the namespace
        #[arg(value_name = "NAME")]
        name: String,
        /// Specification as YAML or JSON; `-` reads it from standard input
        #[arg(long = "filename", short, value_name = "FILE|-", required_unless_present = "shipped")]
        file: Option<PathBuf>,
        /// Store the template of this name that comes with the program
        #[arg(long, conflicts_with = "file")]
        shipped: bool,
        /// Validate on the server, without changing anything
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a template with its versions; workflows that were created from it continue
    Delete {
        /// Name of a template of the namespace
        #[arg(value_name = "NAME")]
        name: String,
    },
}

impl Template {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let named = |name: &str| names::template(&context.namespace, name);
        match self.what {
            What::List { shipped: true, .. } => shipped::list(context),
            What::List { all_namespaces, .. } => {
                list(context, &context.client.all_workflow_templates(&context.parent(all_namespaces)).await?)
            }
            What::Get { name, shipped: true, .. } if context.out.is_human() => {
                context.out.text(shipped::text(&name)?)?;
                Ok(Exit::Ok)
            }
            What::Get { name, shipped: true, .. } => show(context, &shipped::template(&name)?),
            What::Get { name, version, .. } => {
                let request = GetWorkflowTemplateRequest { name: named(&name), version };
                show(context, &Box::pin(context.client.get_workflow_template(request)).await?)
            }
            What::Apply { name, file, dry_run, .. } => {
                let spec = match file {
                    Some(file) => spec_of(&file.display().to_string(), &read(&file)?)?,
                    None => shipped::spec(&name)?,
                };
                Box::pin(apply(context, named(&name), &name, spec, dry_run)).await
            }
            What::Delete { name } => {
                let request = DeleteWorkflowTemplateRequest {
                    name: named(&name),
                    allow_missing: false,
                    ..Default::default()
                };
                context.client.delete_workflow_template(request).await?;
                context.reporter.line(&format!("template {name} deleted"));
                Ok(Exit::Ok)
            }
        }
    }
}

/// Returns the specification in a text.
fn spec_of(origin: &str, text: &str) -> Result<WorkflowTemplateSpec, Failure> {
    let invalid = |error: String| Failure::usage(format!("{origin} is not a template: {error}"));
    // Every JSON text is YAML, too.
    let value: Value = serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))?;
    serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
}

async fn apply(
    context: &Context,
    full: String,
    name: &str,
    spec: WorkflowTemplateSpec,
    dry_run: bool,
) -> anyhow::Result<Exit> {
    let request = GetWorkflowTemplateRequest { name: full.clone(), version: 0 };
    let before = found(context.client.get_workflow_template(request).await)?;
    let request = UpdateWorkflowTemplateRequest {
        workflow_template: Some(WorkflowTemplate {
            name: full,
            labels: before.as_ref().map(|before| before.labels.clone()).unwrap_or_default(),
            spec: Some(spec),
            ..WorkflowTemplate::default()
        }),
        allow_missing: true,
        validate_only: dry_run,
        ..UpdateWorkflowTemplateRequest::default()
    };
    let after = context.client.update_workflow_template(request).await?;
    if !context.out.is_human() {
        context.out.value(&after)?;
        return Ok(Exit::Ok);
    }
    let would = if dry_run { "would be " } else { "" };
    let text = match before {
        None => format!("template/{name} {would}created"),
        Some(before) if before.version == after.version => format!("template/{name} unchanged"),
        Some(_) => format!("template/{name} {would}configured: version {}", after.version),
    };
    context.out.line(&text)?;
    Ok(Exit::Ok)
}

fn list(context: &Context, templates: &[WorkflowTemplate]) -> anyhow::Result<Exit> {
    if !context.out.is_human() {
        context.out.list("workflowTemplates", templates)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAMESPACE", "NAME", "VERSION", "PARAMETERS", "AGE", "DESCRIPTION"]);
    let plain = |text: String| (text, Paint::Plain);
    for template in templates {
        let spec = template.spec.clone().unwrap_or_default();
        let (namespace, name) = names::parse(&template.name, "templates").unwrap_or_default();
        let parameters: Vec<_> = spec.parameters.iter().map(|one| one.name.as_str()).collect();
        table.row([
            plain(namespace.to_owned()),
            plain(name.to_owned()),
            plain(template.version.to_string()),
            plain(parameters.join(",")),
            plain(age(template.update_time.as_ref())),
            plain(first_line(&spec.description, 60)),
        ]);
    }
    if table.is_empty() {
        context.reporter.line("no templates");
        context.reporter.hint("`rota template list --shipped` lists those that come with the program");
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

fn show(context: &Context, template: &WorkflowTemplate) -> anyhow::Result<Exit> {
    if !context.out.is_human() {
        context.out.value(template)?;
        return Ok(Exit::Ok);
    }
    let spec = template.spec.clone().unwrap_or_default();
    let steps = spec.workflow.as_ref().map_or(0, |workflow| workflow.steps.len() + workflow.finally.len());
    let line = |name: &str, value: &str| context.out.line(&format!("{name:<14}{value}"));
    line("Name", names::last(&template.name))?;
    line("Version", &template.version.to_string())?;
    line("Steps", &steps.to_string())?;
    if !spec.description.is_empty() {
        line("Description", &clean(&spec.description))?;
    }
    let mut table = Table::new(&["PARAMETER", "DEFAULT", "DESCRIPTION"]);
    for parameter in &spec.parameters {
        let default = match &parameter.default {
            Some(default) => (serde_json::to_string(default)?, Paint::Plain),
            None => ("required".to_owned(), Paint::Waiting),
        };
        let text = first_line(&parameter.description, 80);
        table.row([(parameter.name.clone(), Paint::Plain), default, (text, Paint::Plain)]);
    }
    if !table.is_empty() {
        context.out.line("")?;
        context.out.table(&table)?;
    }
    Ok(Exit::Ok)
}
