//! `rota transcript`: messages and tool calls of a task's agent, in all attempts, with the work of its subagents below the calls that
//! started them.
//!
//! ```text
//! collect   checkpoints and log of a task       session, log    what is in one of them
//! model     the transcript                      markdown, html, jsonl    how it is written
//! ```

mod collect;
mod html;
mod jsonl;
mod log;
mod markdown;
mod model;
mod safe;
mod session;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use rota_proto::v1::GetTaskRequest;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  rota transcript fix-parser
  rota transcript fix-parser --to report.html
  rota transcript fix-parser --attempt 1 --full
  rota transcript fix-parser -o jsonl | jq 'select(.type == \"toolCall\")'

Of an attempt that runs, the transcript ends with what the log has after the last checkpoint. Costs are estimates by list prices.";

/// Print the transcript of a task: messages, tool calls with their results, subagents, cost
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Transcript {
    /// Id or name of the task
    pub task: String,
    /// Number of the attempt [default: all]
    #[arg(long, value_name = "NUMBER")]
    pub attempt: Option<i32>,
    /// Format of the transcript [default: by the name of the file, or Markdown]
    #[arg(long, value_enum)]
    pub format: Option<Kind>,
    /// File that the transcript is written to [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Inputs and results of tools as a whole: longer ones are cut otherwise
    #[arg(long)]
    pub full: bool,
    /// Replace a file that exists already
    #[arg(long, requires = "to")]
    pub force: bool,
}

/// Format of a transcript, for people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Markdown,
    Html,
    Jsonl,
}

impl Transcript {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let transcript = collect::collect(context, &task, self.attempt, self.full).await?;
        let text = match self.kind(context.out.format) {
            Kind::Markdown => markdown::write(&transcript),
            Kind::Html => html::write(&transcript),
            Kind::Jsonl => jsonl::write(&transcript)?,
        };
        match &self.to {
            Some(path) => self.save(path, &text)?,
            None => context.out.bytes(text.as_bytes())?,
        }
        Ok(Exit::Ok)
    }

    fn kind(&self, output: Format) -> Kind {
        let extension = self.to.as_ref().and_then(|path| path.extension()).and_then(|name| name.to_str());
        match (self.format, extension, output) {
            (Some(kind), ..) => kind,
            (None, Some("html" | "htm"), _) => Kind::Html,
            (None, Some("jsonl" | "ndjson" | "json"), _) | (None, None, Format::Json | Format::Jsonl) => {
                Kind::Jsonl
            }
            _ => Kind::Markdown,
        }
    }

    /// Writes the file, under its own name once it is complete.
    fn save(&self, path: &std::path::Path, text: &str) -> anyhow::Result<()> {
        let failed = || format!("failed to write {}", path.display());
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut part = tempfile::Builder::new()
            .prefix(".rota-")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(std::path::Path::new(".")))
            .with_context(failed)?;
        part.write_all(text.as_bytes()).with_context(failed)?;
        if self.force {
            part.persist(path).with_context(failed)?;
        } else if let Err(error) = part.persist_noclobber(path) {
            return Err(match error.error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    let text = format!("{} exists already", path.display());
                    Failure::new(Exit::Failed, text).hint("replace it with --force").into()
                }
                _ => anyhow::Error::from(error.error).context(failed()),
            });
        }
        Ok(())
    }
}
