//! `rota download`: writes artifacts to files. Their names come from agents: they stay below the folder that the user has
//! named, and replace nothing unless asked.

use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rota_client::artifacts::Progress;
use rota_proto::v1::Artifact;
use tokio::fs;

use super::{access, bar, broken, list, size};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;

const EXAMPLES: &str = "\
Examples:
  rota download build
  rota download build output/report.md
  rota download build --to results --force
  rota download build --attempt 1 workspace/dist

Without --attempt, of the last attempt that has left any. A name of a folder stands for all files below it.";

/// Download the files that an attempt of a task has left
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Download {
    /// Id or name of the task
    pub task: String,
    /// Names of files or folders, as `rota artifacts` lists them [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Folder that the files are written to, with their folders [default: one with the name of the task]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Number of the attempt; 0 for what the task was given
    #[arg(long, value_name = "NUMBER")]
    pub attempt: Option<i32>,
    /// Replace files that exist already
    #[arg(long)]
    pub force: bool,
}

impl Download {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut attempts = list(context, &self.task, self.attempt).await?;
        if self.attempt.is_none() {
            attempts.retain(|found| found.attempt > 0);
        }
        let has_any = |list: &rota_proto::v1::ArtifactList| !list.artifacts.is_empty();
        let found =
            attempts.into_iter().rev().filter_map(|found| found.list).find(has_any).unwrap_or_default();
        let wanted = self.wanted(found.artifacts)?;
        let to = match &self.to {
            Some(to) => to.clone(),
            None => PathBuf::from(rota_proto::names::last(&context.task(&self.task)?)),
        };
        let access = access(context, Some(&self.task))?;
        let bar = bar(context, wanted.iter().map(size).sum());
        let mut done = 0;
        let mut written = Vec::new();
        for artifact in &wanted {
            bar.set_message(plain(&artifact.name));
            let path = self.place(&to, artifact).await?;
            // Under its own name once it is complete.
            let folder = path.parent().unwrap_or(&to);
            if !self.force && fs::symlink_metadata(&path).await.is_ok() {
                return Err(exists(&path));
            }
            let part = tempfile::Builder::new()
                .prefix(".rota-")
                .suffix(".part")
                .permissions(std::fs::Permissions::from_mode(0o666))
                .tempfile_in(folder)?;
            let mut file = fs::File::from_std(part.reopen()?);
            let received = access.download(artifact, &mut file, |progress| {
                if let Progress::Bytes(bytes) = progress {
                    bar.set_position(done + bytes);
                }
            });
            let received = received.await;
            received.map_err(broken).with_context(|| format!("failed to download {}", artifact.name))?;
            if artifact.executable {
                let mode = file.metadata().await?.permissions().mode() | 0o111;
                file.set_permissions(std::fs::Permissions::from_mode(mode)).await?;
            }
            self.keep(part, &path)?;
            done += size(artifact);
            written.push(path);
        }
        bar.finish_and_clear();
        if context.out.is_human() {
            written.iter().try_for_each(|path| context.out.line(&shown(path)))?;
        } else {
            context.out.list("files", &written)?;
        }
        Ok(Exit::Ok)
    }

    /// Returns the artifacts that were asked for.
    fn wanted(&self, all: Vec<Artifact>) -> anyhow::Result<Vec<Artifact>> {
        let is_within = |artifact: &Artifact, name: &str| {
            artifact
                .name
                .strip_prefix(name.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let unknown = self.names.iter().find(|name| !all.iter().any(|artifact| is_within(artifact, name)));
        let hint = format!("list what there is with `rota artifacts {}`", self.task);
        if let Some(unknown) = unknown {
            return Err(Failure::new(Exit::Failed, format!("{unknown:?} is no artifact of this attempt"))
                .hint(hint)
                .into());
        }
        if all.is_empty() {
            let message = format!("the task {} has left no artifacts", self.task);
            return Err(Failure::new(Exit::Failed, message).hint(hint).into());
        }
        let asked = |artifact: &Artifact| {
            self.names.is_empty() || self.names.iter().any(|name| is_within(artifact, name))
        };
        Ok(all.into_iter().filter(asked).collect())
    }

    /// Returns where an artifact is written, and creates its folder.
    async fn place(&self, to: &Path, artifact: &Artifact) -> anyhow::Result<PathBuf> {
        let name = Path::new(&artifact.name);
        if artifact.name.is_empty() || !name.components().all(|part| matches!(part, Component::Normal(_))) {
            anyhow::bail!("the name {:?} leads out of its folder", artifact.name);
        }
        let path = to.join(name);
        let parent = path.parent().unwrap_or(to);
        fs::create_dir_all(parent).await.with_context(|| format!("failed to create {}", parent.display()))?;
        Ok(path)
    }

    /// Gives a complete file its name. One that exists is replaced only if asked, as a whole, and never what a link leads to.
    fn keep(&self, part: tempfile::NamedTempFile, path: &Path) -> anyhow::Result<()> {
        let kept = if self.force { part.persist(path) } else { part.persist_noclobber(path) };
        kept.map(drop).map_err(|failed| match failed.error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(path),
            _ => anyhow::Error::from(failed.error).context(format!("failed to create {}", path.display())),
        })
    }
}

/// Returns a path as a terminal shows it, whatever an agent has named its files.
fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

fn exists(path: &Path) -> anyhow::Error {
    let failure = Failure::new(Exit::Failed, format!("{} exists", shown(path)));
    failure.hint("replace it with --force, or choose another folder with --to").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_turn_the_text_around_them() {
        let path = Path::new("results").join("output/\u{202e}fdp.exe\u{2066}");
        assert_eq!(shown(&path), "results/output/fdp.exe");
        let failure = exists(&path).to_string();
        assert!(failure.starts_with("results/output/fdp.exe exists"), "{failure}");
    }
}
