//! `rota apply-diff`: brings the changes of an attempt into the caller's repository.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::local::Tree;
use super::received::{CHANGES, Received};
use super::{Found, find};
use crate::commands::artifacts;
use crate::context::Context;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota apply-diff fix
  rota apply-diff fix --directory ../project
  rota apply-diff fix --branch try-fix

Changes files, and neither commits nor stages them. Where a file has changed meanwhile, the changes are merged if nothing is \
staged: conflicts are marked in the files, as by `git merge`. The repository must have the commit that the task started from.";

/// Apply what an attempt of a task has changed to a git repository of this machine
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ApplyDiff {
    /// Id or name of the task
    pub task: String,
    /// Directory in the repository that is changed
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Create this branch at the last commit of the task instead, and change no file
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Number of the attempt [default: the last that has ended]
    #[arg(long, value_name = "NUMBER")]
    pub attempt: Option<i32>,
}

impl ApplyDiff {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let found = find(context, &self.task, self.attempt).await?;
        let tree = Tree::around(&self.directory).await?;
        match &self.branch {
            None => bring(context, &self.task, &found, &tree).await,
            Some(branch) => {
                if found.is_empty() {
                    context.reporter.line("nothing has changed: no branch is created");
                    return Ok(Exit::Ok);
                }
                let rule = format!("{CHANGES}:refs/heads/{branch}");
                fetch(context, &self.task, &found, &tree, &rule).await?;
                context.out.line(&format!("created branch {branch} at {}", found.changes.commit))?;
                Ok(Exit::Ok)
            }
        }
    }
}

/// Applies the changes of the last attempt of a task to the files around a directory.
pub async fn apply(context: &Context, task: &str, directory: &Path) -> anyhow::Result<Exit> {
    let found = find(context, task, None).await?;
    bring(context, task, &found, &Tree::around(directory).await?).await
}

async fn bring(context: &Context, task: &str, found: &Found, tree: &Tree) -> anyhow::Result<Exit> {
    let changes = &found.changes;
    if found.is_empty() {
        context.reporter.line("nothing has changed");
        return Ok(Exit::Ok);
    }
    fetch(context, task, found, tree, CHANGES).await?;
    let folder = tempfile::tempdir().context("failed to create a temporary directory")?;
    let patch = folder.path().join("changes.patch");
    let patch = patch.to_str().context("the temporary directory has no UTF-8 name")?;
    let output = format!("--output={patch}");
    // A call that takes no settings of how differences look.
    let args = ["diff-tree", "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", &output];
    let between = [changes.base_commit.as_str(), changes.commit.as_str()];
    let args: Vec<_> = args.into_iter().chain(between).collect();
    tree.git(&args, &[]).await?;
    // As it is, if every file still has the lines around each change. Otherwise merged, which needs an index without changes.
    let plain = tree.call(&["apply", "--whitespace=nowarn", patch], &[]).await?;
    if !plain.succeeded {
        // A merge takes place in the index, too.
        if !tree.call(&["diff", "--cached", "--quiet"], &[]).await?.succeeded {
            let failure = Failure::new(Exit::Failed, "the changes do not apply; no file was changed");
            let hint = "they can be merged once nothing is staged: commit or stash your changes first";
            return Err(failure.causes(plain.errors.lines().map(str::to_owned).collect()).hint(hint).into());
        }
        let merged = tree.call(&["apply", "--3way", "--whitespace=nowarn", patch], &[]).await?;
        let conflicts = tree.git(&["diff", "--name-only", "--diff-filter=U"], &[]).await?;
        if !conflicts.is_empty() {
            let files: Vec<_> = conflicts.lines().map(str::to_owned).collect();
            let message = format!("{} files have conflicts, which are marked in them", files.len());
            let hint = "resolve them and `git add` the files, or undo all with `git reset --merge`";
            return Err(Failure::new(Exit::Failed, message).causes(files).hint(hint).into());
        }
        if !merged.succeeded {
            let hint = format!(
                "commit or stash your changes of these files, or look at the work with \
                 `rota apply-diff {} --branch NAME`",
                rota_proto::names::last(task),
            );
            let failure = Failure::new(Exit::Failed, "the changes do not apply; no file was changed");
            return Err(failure.causes(merged.errors.lines().map(str::to_owned).collect()).hint(hint).into());
        }
        tree.git(&["reset", "--quiet"], &[]).await?;
    }
    context.reporter.line(&format!(
        "changed {} files: {} lines added, {} removed",
        changes.files, changes.insertions, changes.deletions
    ));
    Ok(Exit::Ok)
}

/// Fetches the commits of an attempt into a repository.
async fn fetch(context: &Context, task: &str, found: &Found, tree: &Tree, rule: &str) -> anyhow::Result<()> {
    let changes = &found.changes;
    let bundle = found.artifact(&changes.bundle).context("the attempt has left no commits")?;
    let folder = tempfile::tempdir().context("failed to create a temporary directory")?;
    let path = folder.path().join("changes.bundle");
    let mut file = tokio::fs::File::create_new(&path).await?;
    let received = artifacts::access(context, Some(task))?.download(bundle, &mut file, |_| {}).await;
    received.map_err(artifacts::broken)?;
    drop(file);
    let received = Received::new(folder.path(), tree, &changes.commit).await?;
    let message = format!("{} does not take the commits of the task", tree.root.display());
    let answer = received.take(tree, &path).await?;
    if !answer.succeeded {
        let hint = format!(
            "the repository needs the commit {} that the task started from: fetch it first",
            changes.base_commit
        );
        return Err(Failure::new(Exit::Failed, message).causes(vec![answer.errors]).hint(hint).into());
    }
    let answer = received.give(tree, rule).await?;
    if answer.succeeded {
        return Ok(());
    }
    let hint = "if git names an object, the agent has made it by hand: look at the work with `rota diff`";
    Err(Failure::new(Exit::Failed, message).causes(vec![answer.errors]).hint(hint).into())
}
