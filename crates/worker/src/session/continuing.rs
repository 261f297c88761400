//! Continuing the work of an attempt that was cut off: brings its conversation and its changes to this worker.

use std::collections::BTreeSet;
use std::path::Path;

use rota_proto::artifact_names::BRANCHES;
use rota_proto::names;
use rota_proto::v1::{Artifact, ArtifactList, Failure, FailureClass, Severity};
use rota_proto::worker::v1::{Assign, Checkpoints};
use tokio::sync::watch;
use tonic::Code;

use super::attempt::in_place;
use super::earlier;
use super::fetching::Fetching;
use super::handle::AttemptHandle;
use crate::artifacts::{self, Caller, Given};
use crate::files::remove;
use crate::git::{self, Cause, Delivery, GitError, Unrestored};
use crate::layout::Own;
use crate::report::{failure, notice};
use crate::runtimes::{Attempt, CheckpointFolder, Continued, From, RunOutcome};
use crate::supervise::{Stop, stopped};
use crate::workspace::AttemptDirs;

const BRANCHES_LEFT: &str = "other branches, or stashed commits, of the earlier attempt were not restored; its artifact git/branches.bundle has them";

/// Why a checkpoint is not restored.
enum Unusable {
    Because(Failure),
    Outcome(RunOutcome),
}

/// A checkpoint that was restored.
struct Brought {
    conversation: String,
    /// Whether the files are those of the checkpoint.
    has_files: bool,
}

/// Where a checkpoint is restored to.
struct Place<'a> {
    fetching: Fetching<'a>,
    assign: &'a Assign,
    folder: &'a mut CheckpointFolder,
    dirs: &'a mut AttemptDirs,
}

/// Brings the newest checkpoint of the task into the directories of an attempt, whose programs have not started; if it has none
/// that is of use, that of the task that it continues. Returns from where the attempt continues; `None` if it starts over.
pub(super) async fn restore(
    fetching: Fetching<'_>,
    assign: &Assign,
    folder: &mut CheckpointFolder,
    dirs: &mut AttemptDirs,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<Option<Continued>, RunOutcome> {
    let Some(checkpoints) = &assign.checkpoints else { return Ok(None) };
    let cut_off = checkpoints.exist;
    let is_empty = dirs.fresh || in_place(assign);
    // Its session is there as well.
    let is_kept = cut_off && !is_empty && !assign.resume_session.is_empty();
    let own = cut_off && (is_empty || dirs.own_work);
    if is_kept || !(own || checkpoints.continues || checkpoints.thread) {
        return Ok(None);
    }
    let mut stop_of_git = stop.clone();
    let mut place = Place { fetching, assign, folder, dirs };
    tokio::select! {
        restored = place.restore(checkpoints, own, &mut stop_of_git) => restored,
        _ = stopped(stop) => Err(RunOutcome::Stopped { by: "interrupt" }),
    }
}

impl Place<'_> {
    async fn restore(
        &mut self,
        checkpoints: &Checkpoints,
        own: bool,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Option<Continued>, RunOutcome> {
        let left = match self.fetching.handle.earlier.get(self.fetching.caller, self.assign).await {
            Ok(left) => left,
            Err(status) => {
                let failed = Caller::failure("failed to ask for the checkpoint", &status);
                return match status.code() {
                    // No attempt would get it.
                    Code::DataLoss => self.start_over(checkpoints, failed).await,
                    // Another one may: what it has is not given up.
                    _ => Err(RunOutcome::Failed(failed)),
                };
            }
        };
        let list = left.artifacts.clone().filter(|_| own);
        if own && list.is_none() && checkpoints.attempt > 0 {
            let text = format!(
                "the checkpoint of attempt {} is not stored any more; starting over",
                checkpoints.attempt
            );
            self.note(Severity::Medium, "checkpoint_unusable", text).await;
        }
        if let Some(list) = list {
            match self.bring(list, stop).await {
                Ok(Some(Brought { conversation, has_files })) => {
                    let reason = match &checkpoints.last_failure {
                        Some(failed) => failed.message.clone(),
                        None => "its worker had to stop".to_owned(),
                    };
                    let answered = !self.assign.answers.is_empty();
                    let (text, from) = match answered {
                        true => (
                            "continuing the work of an earlier attempt with the answer".to_owned(),
                            From::Waiting,
                        ),
                        false => (
                            format!("continuing the work of an earlier attempt, which was cut off: {reason}"),
                            From::CutOff(reason),
                        ),
                    };
                    self.note(Severity::Low, "continued", text).await;
                    return Ok(Some(Continued { conversation, from, has_files }));
                }
                Ok(None) => {}
                Err(Unusable::Outcome(outcome)) => return Err(outcome),
                Err(Unusable::Because(failed)) => {
                    let text = format!(
                        "the checkpoint of an earlier attempt cannot be used: {}; starting over",
                        failed.message
                    );
                    self.note(Severity::Medium, "checkpoint_unusable", text).await;
                }
            }
        }
        // The first of a thread begins its conversation.
        if !checkpoints.continues && left.source.is_none() {
            return Ok(None);
        }
        let restored = match left.source.clone() {
            Some(list) => self.bring(list, stop).await,
            None => Ok(None),
        };
        match restored {
            Ok(Some(Brought { conversation, has_files })) => {
                let text = "continuing the conversation of another task";
                self.note(Severity::Low, "continued", text).await;
                let has_files = has_files || in_place(self.assign) || !self.dirs.fresh;
                Ok(Some(Continued { conversation, from: From::Task, has_files }))
            }
            Ok(None) => {
                let failed = failure(FailureClass::Invalid, "there is no checkpoint of it");
                self.start_over(checkpoints, failed).await
            }
            Err(Unusable::Outcome(outcome)) => Err(outcome),
            Err(Unusable::Because(failed)) => self.start_over(checkpoints, failed).await,
        }
    }

    /// Adds a notice to the task's log. Fails only when the attempt is ending.
    async fn note(&self, severity: Severity, code: &str, text: impl Into<String>) {
        let _ = self.fetching.events.send(notice(severity, code, text)).await;
    }

    /// Starts over, unless the task has no meaning without what it continues.
    async fn start_over(
        &self,
        checkpoints: &Checkpoints,
        failed: Failure,
    ) -> Result<Option<Continued>, RunOutcome> {
        if checkpoints.continues || checkpoints.thread {
            let message =
                format!("the conversation of the other task cannot be continued: {}", failed.message);
            return Err(RunOutcome::Failed(Failure { message, ..failed }));
        }
        let text =
            format!("the checkpoint of an earlier attempt cannot be used: {}; starting over", failed.message);
        self.note(Severity::Medium, "checkpoint_unusable", text).await;
        Ok(None)
    }

    /// Brings a checkpoint. On errors, the directories are as they were.
    async fn bring(
        &mut self,
        list: ArtifactList,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Option<Brought>, Unusable> {
        let Some(checkpoint) = list.checkpoint else { return Ok(None) };
        let is_own_kind = checkpoint.conversation.is_empty() == self.folder.conversations.is_empty();
        if !is_own_kind
            || !checkpoint.conversation.is_empty() && uuid::Uuid::parse_str(&checkpoint.conversation).is_err()
        {
            let text = "it is not of this runtime";
            return Err(Unusable::Because(failure(FailureClass::Invalid, text)));
        }
        // Nothing that a program of the attempt could have put there is in the way.
        let at = Own(self.dirs.own()).restored();
        remove::all(at.clone()).await;
        let changes = list.changes.unwrap_or_default();
        let bundle = list.artifacts.iter().find(|artifact| artifact.name == changes.bundle).cloned();
        let is_fresh = self.dirs.fresh && self.dirs.repository.is_some();
        let bundle = bundle.filter(|_| is_fresh);
        let branches = list.artifacts.iter().find(|artifact| artifact.name == BRANCHES).cloned();
        let branches = branches.filter(|_| is_fresh);
        let of_checkpoint =
            |artifact: &Artifact| Path::new(&artifact.name).starts_with(artifacts::CHECKPOINT);
        let artifacts: Vec<_> = list.artifacts.into_iter().filter(of_checkpoint).collect();
        let folder_of = |artifact: &Artifact| {
            let mut parts = Path::new(&artifact.name).components().skip(1);
            let first = parts.next()?.as_os_str().to_string_lossy().into_owned();
            parts.next().map(|_| first)
        };
        let folders: BTreeSet<_> = artifacts.iter().filter_map(folder_of).collect();
        let artifacts = artifacts.into_iter().chain(bundle.clone()).chain(branches.clone());
        self.download(artifacts.collect(), &at).await?;
        let mut has_files = false;
        if let Some((git, base)) = self.dirs.repository.as_mut().filter(|_| self.dirs.fresh) {
            let scratch = &self.dirs.scratch;
            if let Some(bundle) = bundle {
                let from = at.join(&bundle.name);
                let restored = git::restore_from(git, base, &from, scratch, &changes, false, stop).await;
                if let Err(error) = restored {
                    return Err(self.unusable(error).await);
                }
                has_files = true;
            } else {
                // Nothing had changed.
                has_files = changes.base_commit == base.commit;
            }
            if let Some(branches) = branches.filter(|_| has_files) {
                let from = at.join(&branches.name);
                match git::restore_elsewhere(git, &from, scratch, stop).await {
                    Err(Unrestored::Git(GitError::Failed { failure, .. })) => {
                        let text = format!("{BRANCHES_LEFT}: {}", failure.message);
                        self.note(Severity::Medium, "branches_not_restored", text).await;
                    }
                    Err(error) => return Err(self.unusable(error).await),
                    Ok(()) => {}
                }
            }
        }
        let copied = artifacts::place_checkpoint(at.join(artifacts::CHECKPOINT), self.folder.clone());
        copied.await.map_err(|error| {
            let text = format!("failed to write the conversation of the checkpoint: {error}");
            Unusable::Outcome(RunOutcome::Failed(failure(FailureClass::Environment, text)))
        })?;
        remove::all(at).await;
        self.folder.folders = folders.into_iter().collect();
        Ok(Some(Brought { conversation: checkpoint.conversation, has_files }))
    }

    async fn download(&self, artifacts: Vec<Artifact>, to: &Path) -> Result<(), Unusable> {
        let failed = |text: String| RunOutcome::Failed(failure(FailureClass::Environment, text));
        tokio::fs::create_dir_all(to).await.map_err(|error| {
            Unusable::Outcome(failed(format!("failed to create the directories of the checkpoint: {error}")))
        })?;
        let fetched = self.fetching.fetch(Given::files(artifacts), &self.assign.namespace, to).await;
        fetched.map_err(|outcome| match outcome {
            // It is damaged, or none that a worker could have made.
            RunOutcome::Failed(failed) if failed.class() == FailureClass::Invalid => {
                Unusable::Because(failed)
            }
            outcome => Unusable::Outcome(outcome),
        })
    }

    /// Returns what becomes of the attempt after a restore that has failed. Only changes that no worker could restore are given up:
    /// the next checkpoint takes the place of this one.
    async fn unusable(&self, error: Unrestored) -> Unusable {
        let of_machine =
            |text| Unusable::Outcome(RunOutcome::Failed(failure(FailureClass::Environment, text)));
        match error {
            Unrestored::Write(text) => of_machine(text),
            Unrestored::Git(GitError::Stopped) => Unusable::Outcome(RunOutcome::Stopped { by: "interrupt" }),
            Unrestored::Git(GitError::Failed { cause: Cause::Machine, failure }) => {
                Unusable::Outcome(RunOutcome::Failed(failure))
            }
            // No host has a part in these calls, but the disk has.
            Unrestored::Git(GitError::Failed { failure, .. }) => match self.dirs.probe().await {
                Ok(()) => Unusable::Because(failure),
                Err(error) => {
                    of_machine(format!("{}; the disk does not take files: {error}", failure.message))
                }
            },
        }
    }
}

/// Returns the messages to earlier attempts that the conversation does not have which an attempt continues, or whose session it
/// resumes where the session is.
pub(super) async fn unheard(attempt: &Attempt, folder: &CheckpointFolder) -> Vec<String> {
    let messages: Vec<_> = attempt.assign.messages.iter().map(|message| message.text.clone()).collect();
    let conversation = match &attempt.continued {
        Some(continued) => &continued.conversation,
        None => &attempt.assign.resume_session,
    };
    artifacts::unheard(folder, conversation, messages).await
}

/// Returns the branch of an attempt: its task's own, or that which the task that it continues has pushed to, so that a pull request
/// stays the same.
pub(super) async fn branch(
    caller: &Caller,
    handle: &AttemptHandle,
    assign: &Assign,
) -> Result<String, RunOutcome> {
    let own = git::branch(&assign.task_id);
    let follows = |checkpoints: &Checkpoints| checkpoints.continues || checkpoints.thread;
    let continues = assign.checkpoints.as_ref().is_some_and(follows);
    let forks = assign.spec.as_ref().is_some_and(|spec| spec.fork);
    if !continues || forks || git::source(assign).is_none_or(|source| source.push.is_none()) {
        return Ok(own);
    }
    let what = "failed to ask where the task that it continues has pushed";
    let left = earlier::ask(caller, handle, assign, what).await?;
    let changes = left.source.as_ref().and_then(|source| source.changes.as_ref());
    let pushed = changes.filter(|changes| changes.pushed && names::is_branch(&changes.branch));
    Ok(pushed.map_or(own, |changes| changes.branch.clone()))
}

/// Returns the commit from which the work has started that an attempt continues: since then, its reference may have become another
/// commit at the host, or none.
pub(super) async fn base(
    caller: &Caller,
    handle: &AttemptHandle,
    assign: &Assign,
) -> Result<Option<String>, RunOutcome> {
    let restores =
        |checkpoints: &&Checkpoints| checkpoints.exist || checkpoints.continues || checkpoints.thread;
    let Some(checkpoints) = assign.checkpoints.as_ref().filter(restores) else { return Ok(None) };
    if git::source(assign).is_none() || checkpoints.deliver {
        return Ok(None);
    }
    let what = "failed to ask where earlier work has started";
    let left = match earlier::ask(caller, handle, assign, what).await {
        Ok(left) => left,
        // There is nothing to continue from: what restores it reports that, where it matters.
        Err(RunOutcome::Failed(failure)) if failure.class() == FailureClass::Invalid => return Ok(None),
        Err(ended) => return Err(ended),
    };
    // Of another task whose work has changed nothing, there is nothing to bring: this one starts from its own reference.
    let has_changed = |list: &&ArtifactList| {
        list.changes.as_ref().is_some_and(|changes| changes.commit != changes.base_commit)
    };
    let own = left.artifacts.as_ref().filter(|_| checkpoints.exist);
    let list = own.or(left.source.as_ref().filter(has_changed));
    let base = list.and_then(|list| list.changes.as_ref()).map(|changes| changes.base_commit.clone());
    Ok(base.filter(|base| !base.is_empty()))
}

/// Makes sure that what the task's branch has at the host may be replaced: nothing, or what an earlier attempt has pushed.
pub(super) async fn check_branch(
    caller: &Caller,
    handle: &AttemptHandle,
    assign: &Assign,
    delivery: &Delivery,
) -> Result<(), RunOutcome> {
    if delivery.seen.is_empty() {
        return Ok(());
    }
    let what = "failed to ask what earlier attempts have pushed";
    let left = earlier::ask(caller, handle, assign, what).await?;
    if left.commits.contains(&delivery.seen) {
        return Ok(());
    }
    let text = format!(
        "branch {} of the repository has commit {}, which no earlier attempt of the task has left",
        delivery.branch, delivery.seen
    );
    let hint = "delete the branch at the host, or give the task another id".to_owned();
    Err(RunOutcome::Failed(Failure { hint, ..failure(FailureClass::Delivery, text) }))
}
