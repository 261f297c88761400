//! `rota diff`: shows a patch.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};

use anyhow::Context as _;
use clap::Args;
use rota_proto::v1::GetTaskRequest;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::find;
use crate::commands::artifacts;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output;

/// Bytes of a line that are shown in one piece.
const MAX_PIECE: u64 = 1 << 20;
const EXAMPLES: &str = "\
Examples:
  rota diff fix
  rota diff fix --stat
  rota diff fix --attempt 1 > fix.patch
  rota diff fix -o json

The difference between the commit that the task started from, and the commits and files when the attempt ended: also of \
attempts that failed or were cancelled. A terminal shows control characters and marks of the direction of text by their names; a file \
or a pipe gets the patch as it is.";

/// Show what an attempt of a task has changed in its repository
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Diff {
    /// Id or name of the task
    pub task: String,
    /// Show only the number of files and lines
    #[arg(long)]
    pub stat: bool,
    /// Number of the attempt [default: the last that has ended]
    #[arg(long, value_name = "NUMBER")]
    pub attempt: Option<i32>,
}

impl Diff {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let found = find(context, &self.task, self.attempt).await?;
        let changes = &found.changes;
        if !context.out.is_human() {
            context.out.value(changes)?;
            return Ok(Exit::Ok);
        }
        if found.is_empty() {
            context.reporter.line(&format!("attempt {} has changed nothing", found.attempt));
            return Ok(Exit::Ok);
        }
        if self.stat {
            let text = format!(
                "{}: {} files, {} lines added, {} removed, {}",
                changes.branch, changes.files, changes.insertions, changes.deletions, changes.commit
            );
            context.out.line(&text)?;
            return self.request(context).await;
        }
        let Some(patch) = found.artifact(&changes.patch) else {
            let message = "the patch is too large to be kept".to_owned();
            let hint = format!("apply the commits with `rota apply-diff {}`", self.task);
            return Err(Failure::new(Exit::Failed, message).hint(hint).into());
        };
        let access = artifacts::access(context, Some(&self.task))?;
        // In whole, or not.
        let mut file = tokio::fs::File::from_std(tempfile::tempfile().context("failed to create a file")?);
        access.download(patch, &mut file, |_| {}).await.map_err(artifacts::broken)?;
        file.rewind().await?;
        if std::io::stdout().is_terminal() {
            show(context, file.into_std().await)?;
        } else {
            let mut to = tokio::io::stdout();
            tokio::io::copy(&mut file, &mut to).await?;
            to.flush().await?;
        }
        self.request(context).await
    }

    /// Prints where the work is to be merged. A task that has been removed has its changes for a while longer.
    async fn request(&self, context: &Context) -> anyhow::Result<Exit> {
        let name = context.task(&self.task)?;
        if let Ok(task) = context.client.get_task(GetTaskRequest { name }).await
            && let Some(url) = output::pull_request(&task)
        {
            context.reporter.line(&format!("pull request: {url}"));
        }
        Ok(Exit::Ok)
    }
}

/// Shows a patch on the terminal, on which an agent must not act.
fn show(context: &Context, patch: File) -> anyhow::Result<()> {
    let (mut patch, mut piece) = (BufReader::new(patch), Vec::new());
    while patch.by_ref().take(MAX_PIECE).read_until(b'\n', &mut piece)? > 0 {
        context.out.bytes(output::visible(&piece).as_bytes())?;
        piece.clear();
    }
    Ok(())
}
