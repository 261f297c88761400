//! `rota diff` and `rota apply-diff`: what attempts have changed in their repository. Also `rota run --apply`.

mod apply;
mod diff;
mod local;
mod received;

use rota_proto::v1::{Artifact, ArtifactList, Changes};

pub use apply::{ApplyDiff, apply};
pub use diff::Diff;
pub use local::Start;

use super::artifacts;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Changes of an attempt, and its artifacts.
struct Found {
    attempt: i32,
    changes: Changes,
    artifacts: Vec<Artifact>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.changes.commit == self.changes.base_commit
    }

    /// Returns an artifact by its name; none for an empty one.
    fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == name && !name.is_empty())
    }
}

/// Returns the changes of an attempt of a task, by default the last that has any record of them.
async fn find(context: &Context, task: &str, attempt: Option<i32>) -> anyhow::Result<Found> {
    let attempts = artifacts::list(context, task, attempt).await?;
    let found = attempts.into_iter().rev().find_map(|found| {
        let ArtifactList { artifacts, changes, .. } = found.list?;
        Some(Found { attempt: found.attempt, changes: changes?, artifacts })
    });
    found.ok_or_else(|| {
        let message = format!("no changes of a repository are known of the task {task}");
        let hint = "only attempts whose workspace has `git` leave some, when they end";
        Failure::new(Exit::Failed, message).hint(hint).into()
    })
}
