//! Where a clone starts that continues the work of a dependency: the commit that it has pushed, or the changes that it has left.

use std::path::PathBuf;

use rota_proto::v1::{Changes, DeliveryOutcome, Failure, FailureClass, TaskState};
use rota_proto::worker::v1::{Assign, PreviousResult};
use tokio::sync::watch;

use crate::artifacts::Given;
use crate::git::{self, GitError, Unrestored};
use crate::layout::Scratch;
use crate::report::failure;
use crate::runtimes::RunOutcome;
use crate::supervise::Stop;
use crate::workspace::AttemptDirs;

/// Changes that a clone gets before its attempt starts.
#[derive(Debug)]
pub(super) struct Start {
    /// Path of the file below the context directory.
    bundle: PathBuf,
    changes: Changes,
}

/// Work that an attempt starts from.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is not at the host.
    start: Option<Start>,
    /// What is kept of work that was pushed, with the commit before it: the host may have lost it since.
    kept: Option<(String, Start)>,
}

impl Found {
    /// Returns the commit to start from if the host has lost the pushed one.
    pub(super) fn instead(&self) -> Option<String> {
        self.kept.as_ref().map(|(base, _)| base.clone())
    }

    /// Returns what a clone gets that starts from this commit, if it is known.
    pub(super) fn at(self, commit: Option<&str>) -> Option<Start> {
        let kept = self.kept.filter(|(base, _)| commit == Some(base)).map(|(_, start)| start);
        self.start.or(kept)
    }
}

/// Finds the work that an attempt starts from, if its task names a dependency, and sets the reference of its repository.
pub(super) fn find(assign: &mut Assign, given: &Given) -> Result<Found, Failure> {
    let from = git::source(assign).map(|source| source.ref_from.clone()).unwrap_or_default();
    if from.is_empty() {
        return Ok(Found::default());
    }
    let is_named = |previous: &&PreviousResult| previous.task_id == from || previous.alias == from;
    let unusable = |reason: &str| {
        let text = format!("the work of task {from}, from which this one starts, cannot be used: {reason}");
        let hint = "only a task that has succeeded, with `workspace.git`, leaves work to start from";
        Failure { hint: hint.to_owned(), ..failure(FailureClass::Invalid, text) }
    };
    let previous = assign.previous.iter().find(is_named).ok_or_else(|| unusable("it is no dependency"))?;
    if previous.state() != TaskState::Succeeded {
        return Err(unusable("it has not succeeded"));
    }
    let (reference, found) = work(previous, given).ok_or_else(|| unusable("it has left no changes"))?;
    let workspace = assign.spec.as_mut().and_then(|spec| spec.workspace.as_mut());
    if let Some(workspace) = workspace {
        workspace.git.iter_mut().for_each(|source| reference.clone_into(&mut source.r#ref));
    }
    Ok(found)
}

/// Returns the commit at the host from which to start, and what is not at the host.
fn work(previous: &PreviousResult, given: &Given) -> Option<(String, Found)> {
    let kept = || {
        let (folder, changes) = given.changes(&previous.task_id)?;
        let bundle = Some(folder.join(&changes.bundle)).filter(|_| !changes.bundle.is_empty());
        Some((bundle, changes))
    };
    let delivery = previous.result.as_ref().and_then(|result| result.delivery.as_ref());
    match delivery.map(|delivery| (delivery.outcome(), delivery)) {
        Some((DeliveryOutcome::Delivered, delivery)) => {
            let kept = kept().filter(|(_, changes)| changes.commit == delivery.commit).and_then(
                |(bundle, changes)| {
                    Some((changes.base_commit.clone(), Start { bundle: bundle?, changes: changes.clone() }))
                },
            );
            return Some((delivery.commit.clone(), Found { start: None, kept }));
        }
        Some((DeliveryOutcome::NoChange, delivery)) => {
            return Some((delivery.base_commit.clone(), Found::default()));
        }
        _ => {}
    }
    let (bundle, changes) = kept()?;
    if changes.commit == changes.base_commit {
        return Some((changes.base_commit.clone(), Found::default()));
    }
    let start = Some(Start { bundle: bundle?, changes: changes.clone() });
    Some((changes.base_commit.clone(), Found { start, kept: None }))
}

impl Start {
    /// Brings the changes into a clone that nothing has changed yet, as commits. Workspaces that existed before stay as they are.
    pub(super) async fn apply(
        &self,
        dirs: &mut AttemptDirs,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), RunOutcome> {
        let (made, scratch) = (dirs.made, dirs.scratch.clone());
        let Some((git, base)) = dirs.repository.as_mut().filter(|_| made) else { return Ok(()) };
        let from = Scratch(&scratch).context().join(&self.bundle);
        let restored = git::restore_from(git, base, &from, &scratch, &self.changes, true, stop).await;
        restored.map_err(|error| match error {
            Unrestored::Write(text) => RunOutcome::Failed(failure(FailureClass::Environment, text)),
            Unrestored::Git(GitError::Stopped) => RunOutcome::Stopped { by: "interrupt" },
            Unrestored::Git(GitError::Failed { failure, .. }) => RunOutcome::Failed(failure),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rota_proto::v1::{ArtifactList, Delivery, GitSource, TaskResult, TaskSpec, Workspace, WorkspaceMode};

    use super::*;

    fn assigned(delivery: Option<Delivery>, state: TaskState) -> Assign {
        let git = GitSource { url: "u".to_owned(), ref_from: "first".to_owned(), ..GitSource::default() };
        let workspace = Workspace { git: Some(git), ..Workspace::default() };
        let previous = PreviousResult {
            task_id: "1".to_owned(),
            alias: "first".to_owned(),
            state: state.into(),
            result: Some(TaskResult { delivery, ..TaskResult::default() }),
            ..PreviousResult::default()
        };
        Assign {
            spec: Some(TaskSpec { workspace: Some(workspace), ..TaskSpec::default() }),
            previous: vec![previous],
            ..Assign::default()
        }
    }

    fn changes(commit: &str, bundle: &str) -> Changes {
        Changes {
            base_commit: "base".to_owned(),
            commit: commit.to_owned(),
            bundle: bundle.to_owned(),
            ..Changes::default()
        }
    }

    fn given(assign: &Assign, changes: Option<Changes>) -> Given {
        let mut given = Given::default();
        given.add(&assign.previous[0], ArtifactList { changes, ..ArtifactList::default() });
        given
    }

    #[test]
    fn pushed_commit_comes_before_what_is_kept() {
        let delivery = Delivery {
            outcome: DeliveryOutcome::Delivered.into(),
            commit: "pushed".to_owned(),
            ..Delivery::default()
        };
        for mode in [WorkspaceMode::Fresh, WorkspaceMode::Keep] {
            let mut assign = assigned(Some(delivery.clone()), TaskState::Succeeded);
            assign.spec.as_mut().unwrap().workspace.as_mut().unwrap().set_mode(mode);
            let given = given(&assign, Some(changes("pushed", "git/changes.bundle")));
            let found = find(&mut assign, &given).unwrap();
            assert_eq!(git::source(&assign).unwrap().r#ref, "pushed");
            // What is kept takes its place where the host has lost it.
            assert_eq!(found.instead().as_deref(), Some("base"), "{mode:?}");
            assert!(find(&mut assign, &given).unwrap().at(Some("pushed")).is_none());
            let start = found.at(Some("base")).unwrap();
            assert_eq!(start.bundle, Path::new("artifacts/first/git/changes.bundle"));
        }
    }

    #[test]
    fn changes_that_are_not_pushed_are_brought() {
        let mut assign = assigned(None, TaskState::Succeeded);
        let kept = given(&assign, Some(changes("done", "git/changes.bundle")));
        let start = find(&mut assign, &kept).unwrap().at(Some("base")).unwrap();
        assert_eq!(start.bundle, Path::new("artifacts/first/git/changes.bundle"));
        assert_eq!(git::source(&assign).unwrap().r#ref, "base");
        // Without changes there is nothing to bring.
        let mut assign = assigned(None, TaskState::Succeeded);
        let same = given(&assign, Some(changes("base", "")));
        assert!(find(&mut assign, &same).unwrap().at(Some("base")).is_none());
        assert_eq!(git::source(&assign).unwrap().r#ref, "base");
    }

    #[test]
    fn tasks_without_work_are_no_start() {
        for (state, reason) in [(TaskState::Failed, "succeeded"), (TaskState::Succeeded, "no changes")] {
            let mut assign = assigned(None, state);
            let failed = find(&mut assign, &Given::default()).unwrap_err();
            assert!(failed.class() == FailureClass::Invalid && failed.message.contains(reason), "{failed:?}");
        }
    }
}
