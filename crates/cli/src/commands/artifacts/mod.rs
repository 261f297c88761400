//! `rota artifacts` and `rota download`: files that attempts have left. Also the files that `rota run` gives to a task.

mod download;
mod input;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rota_client::artifacts::TransferError;
use rota_proto::names;
use rota_proto::v1::{Artifact, AttemptArtifacts};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table};

pub use download::Download;
pub use input::{upload, upload_named};

const EXAMPLES: &str = "\
Examples:
  rota artifacts build
  rota artifacts build --attempt 1
  rota artifacts build -o json

An attempt leaves what it has written to $ROTA_OUTPUT, and the files of its workspace that `workspace.keepFiles` names.
They are kept as long as their task.";

/// List the files that the attempts of a task have left, and those that it was given
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Artifacts {
    /// Id or name of the task
    pub task: String,
    /// Only those of this attempt; 0 for what the task was given
    #[arg(long, value_name = "NUMBER")]
    pub attempt: Option<i32>,
}

impl Artifacts {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let attempts = list(context, &self.task, self.attempt).await?;
        if !context.out.is_human() {
            context.out.list("attempts", &attempts)?;
            return Ok(Exit::Ok);
        }
        let mut table = Table::new(&["ATTEMPT", "NAME", "BYTES", "SHA-256"]);
        for found in &attempts {
            for artifact in found.list.iter().flat_map(|list| &list.artifacts) {
                table.row([
                    (attempt(found), Paint::Plain),
                    (artifact.name.clone(), Paint::Plain),
                    (artifact.size.to_string(), Paint::Plain),
                    (artifact.sha256.clone(), Paint::Faint),
                ]);
            }
        }
        if table.is_empty() {
            context.reporter.line("no artifacts");
        } else {
            context.out.table(&table)?;
        }
        for found in &attempts {
            for skipped in found.list.iter().flat_map(|list| &list.skipped) {
                let text =
                    format!("attempt {}: {} is not kept: {}", attempt(found), skipped.name, skipped.reason);
                context.reporter.warn(&text);
            }
        }
        Ok(Exit::Ok)
    }
}

fn attempt(found: &AttemptArtifacts) -> String {
    if found.attempt == 0 { "input".to_owned() } else { found.attempt.to_string() }
}

/// Returns the lists of a task's artifacts.
pub(super) async fn list(
    context: &Context,
    task: &str,
    attempt: Option<i32>,
) -> anyhow::Result<Vec<AttemptArtifacts>> {
    let mut attempts = context.client.fetch_artifacts(&context.task(task)?).await?.attempts;
    attempts.retain(|found| attempt.is_none_or(|wanted| found.attempt == wanted));
    Ok(attempts)
}

/// Returns access to the artifacts of the namespace of a task, or of the command.
pub(super) fn access(
    context: &Context,
    task: Option<&str>,
) -> anyhow::Result<rota_client::artifacts::Artifacts> {
    let named = task.map(|task| context.task(task)).transpose()?;
    let parsed = named.as_deref().and_then(|name| names::parse(name, "tasks"));
    let namespace = parsed.map_or(context.namespace.as_str(), |(namespace, _)| namespace);
    Ok(context.client.artifacts(namespace))
}

/// Shows the server's error of a transfer as that of any call, with its hint.
pub(super) fn broken(error: TransferError) -> anyhow::Error {
    match error {
        TransferError::Call(error) => error.into(),
        other => other.into(),
    }
}

/// A bar for bytes, on a terminal.
fn bar(context: &Context, total: u64) -> ProgressBar {
    let target = match context.reporter.is_terminal() && context.out.is_human() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("{wide_bar:.green} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
    ProgressBar::with_draw_target(Some(total), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn size(artifact: &Artifact) -> u64 {
    u64::try_from(artifact.size).unwrap_or_default()
}
