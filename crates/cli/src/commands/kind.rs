//! `rota kind`: kinds of tasks, which are presets of target, prompt, limits and result.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rota_proto::names;
use rota_proto::v1::{DeleteTaskKindRequest, GetTaskKindRequest, PutTaskKindRequest, TaskKind, TaskKindSpec};
use serde_json::Value;

use super::found;
use super::workflow::read;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Paint, Table, age, first_line, target_text};

const EXAMPLES: &str = "\
Examples:
  rota kind list
  rota kind get review
  rota kind get review > review.yaml
  rota kind apply review -f review.yaml
  rota kind apply release-notes -f notes.yaml --dry-run
  rota kind delete review

The file has the specification of a kind as YAML or JSON: description, words, target, frame, limits, retry and resultSchema, as the \
API names them.";

/// Manage kinds of tasks: presets of agent, prompt, limits and result
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Kind {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// List the kinds of the namespace, and those that come with Rota
    List,
    /// Print the specification of a kind, as a file for `apply`
    Get {
        /// Name of a kind, as listed
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Create or replace a kind of the namespace; one of the same name that comes with Rota steps back
    Apply {
        /// Name of a kind: lower-case letters, digits, '_' and '-'
        #[arg(value_name = "NAME")]
        name: String,
        /// Specification as YAML or JSON; `-` reads it from standard input
        #[arg(long = "filename", short, value_name = "FILE|-")]
        file: PathBuf,
        /// Validate on the server, without changing anything
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a kind of the namespace; one of the same name that comes with Rota takes its place again
    Delete {
        /// Name of a kind of the namespace
        #[arg(value_name = "NAME")]
        name: String,
    },
}

impl Kind {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let named = |name: &str| names::kind(&context.namespace, name);
        match self.what {
            What::List => {
                let parent = names::namespace(&context.namespace);
                list(context, &context.client.all_task_kinds(&parent).await?)
            }
            What::Get { name } => {
                let kind = context.client.get_task_kind(GetTaskKindRequest { name: named(&name) }).await?;
                match context.out.is_human() {
                    true => context.out.text(&yaml(kind.spec.unwrap_or_default())?)?,
                    false => context.out.value(&kind)?,
                }
                Ok(Exit::Ok)
            }
            What::Apply { name, file, dry_run } => {
                let spec = spec_of(&file.display().to_string(), &read(&file)?)?;
                let kind = TaskKind { name: named(&name), spec: Some(spec), ..TaskKind::default() };
                let before =
                    found(context.client.get_task_kind(GetTaskKindRequest { name: named(&name) }).await)?;
                let request = PutTaskKindRequest {
                    task_kind: Some(kind),
                    validate_only: dry_run,
                    ..Default::default()
                };
                let kind = context.client.put_task_kind(request).await?;
                let would = if dry_run { "would be " } else { "" };
                let text = match before.filter(|before| !before.shipped) {
                    None => format!("kind/{name} {would}created"),
                    Some(before) if before.spec == kind.spec => format!("kind/{name} unchanged"),
                    Some(_) => format!("kind/{name} {would}configured"),
                };
                match context.out.is_human() {
                    true => context.out.line(&text)?,
                    false => context.out.value(&kind)?,
                }
                Ok(Exit::Ok)
            }
            What::Delete { name } => {
                context
                    .client
                    .delete_task_kind(DeleteTaskKindRequest { name: named(&name), ..Default::default() })
                    .await?;
                context.reporter.line(&format!("kind {name} deleted"));
                Ok(Exit::Ok)
            }
        }
    }
}

/// Returns the specification in a text.
fn spec_of(origin: &str, text: &str) -> Result<TaskKindSpec, Failure> {
    let invalid = |error: String| Failure::usage(format!("{origin} is not a kind: {error}"));
    // Every JSON text is YAML, too.
    let value: Value = serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))?;
    serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
}

fn yaml(spec: TaskKindSpec) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(&serde_json::to_value(spec)?)?)
}

fn list(context: &Context, kinds: &[TaskKind]) -> anyhow::Result<Exit> {
    if !context.out.is_human() {
        context.out.list("taskKinds", kinds)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAME", "TARGET", "RESULT", "CHANGED", "DESCRIPTION"]);
    for kind in kinds {
        let spec = kind.spec.clone().unwrap_or_default();
        let changed = match kind.shipped {
            true => ("comes with Rota".to_owned(), Paint::Faint),
            false => (age(kind.update_time.as_ref()), Paint::Plain),
        };
        let result = if spec.result_schema.is_some() { "data" } else { "text" };
        table.row([
            (names::last(&kind.name).to_owned(), Paint::Plain),
            (target_text(spec.target.as_ref()), Paint::Plain),
            (result.to_owned(), Paint::Plain),
            changed,
            (first_line(&spec.description, 60), Paint::Plain),
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}
