//! Files that an attempt is given: its task's input, and what the tasks that it depends on have left.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_client::artifacts::{Progress, TransferError};
use rota_proto::v1::{Artifact, ArtifactList, Changes, Failure, FailureClass};
use rota_proto::worker::v1::{Assign, PreviousResult, StepResult};
use tokio::fs;
use tonic::Status;

use super::calls::Caller;
use super::keep::HINT;
use crate::report::failure;
use crate::runtimes::RunOutcome;
use crate::runtimes::context::is_below;

/// Bytes of all files that an attempt is given.
const MAX_BYTES: u64 = 8 << 30;

/// Artifacts of an assignment, with the folders that they go to, below the context directory.
#[derive(Debug, Default)]
pub(crate) struct Given {
    files: Vec<(PathBuf, Vec<Artifact>)>,
    /// Changes of repositories that dependencies have left, by the ids of their tasks, with the folders of their artifacts.
    changes: HashMap<String, (PathBuf, Changes)>,
    /// Results of earlier steps, of the tasks of a workflow.
    pub(crate) steps: Vec<StepResult>,
}

impl Given {
    /// Returns the input of a task: in `input/`, as the names of its artifacts have it.
    pub(crate) fn input(assign: &Assign) -> Self {
        Self::files(assign.spec.as_ref().map(|spec| spec.inputs.clone()).unwrap_or_default())
    }

    /// Returns files that are given as they are named.
    pub(crate) fn files(artifacts: Vec<Artifact>) -> Self {
        Self { files: vec![(PathBuf::new(), artifacts)], ..Self::default() }
    }

    /// Adds what a dependency has left: in `artifacts/` and a folder with its alias, or else its id.
    pub(crate) fn add(&mut self, previous: &PreviousResult, list: ArtifactList) {
        let by = |name: &str| Path::new("artifacts").join(name);
        let taken = |folder: &PathBuf| self.files.iter().any(|(other, _)| other == folder);
        let alias = Some(by(&previous.alias)).filter(|folder| !previous.alias.is_empty() && !taken(folder));
        let folder = alias.unwrap_or_else(|| by(&previous.task_id));
        if let Some(changes) = list.changes {
            self.changes.insert(previous.task_id.clone(), (folder.clone(), changes));
        }
        self.files.push((folder, list.artifacts));
    }

    /// Adds the result of a step, and what its task has left: in `artifacts/` and a folder with its name, and below it one of
    /// each task of a fan-out.
    pub(crate) fn add_step(&mut self, mut result: StepResult) {
        if let Some(list) = result.artifacts.take().filter(|list| !list.artifacts.is_empty()) {
            let folder = Path::new("artifacts").join(&result.step);
            let folder = if result.of_list { folder.join(result.item.to_string()) } else { folder };
            self.files.push((folder, list.artifacts));
        }
        self.steps.push(result);
    }

    /// Returns what a dependency has changed in its repository, and the folder of its artifacts.
    pub(crate) fn changes(&self, task_id: &str) -> Option<&(PathBuf, Changes)> {
        self.changes.get(task_id)
    }

    /// Returns why this is more than an attempt may be given.
    fn excess(&self) -> Option<String> {
        let all = self.files.iter().flat_map(|(_, artifacts)| artifacts);
        // Sizes come from elsewhere, and may be any numbers.
        let sizes = all.map(|artifact| u64::try_from(artifact.size).unwrap_or_default());
        let bytes = sizes.fold(0, u64::saturating_add);
        let text = || format!("the attempt would be given {} GiB of files; at most 8 are", bytes >> 30);
        (bytes > MAX_BYTES).then(text)
    }

    /// Downloads everything into the context directory. A storage that is away is waited for as long as `patience`; `waits` gets the
    /// failure of each call that is repeated, and `None` once one makes progress.
    pub(crate) async fn fetch(
        self,
        caller: &Caller,
        namespace: &str,
        context: &Path,
        patience: Duration,
        waits: &(dyn Fn(Option<Failure>) + Send + Sync),
    ) -> Result<(), RunOutcome> {
        let all = || self.files.iter().flat_map(|(_, artifacts)| artifacts);
        let broken_off = |class, text: String| {
            let of_storage = class == FailureClass::Source;
            let hint = if of_storage { HINT.to_owned() } else { String::new() };
            Failure { of_storage, upload_bytes: of_storage.then_some(0), hint, ..failure(class, text) }
        };
        let failed = |class, text: String| RunOutcome::Failed(broken_off(class, text));
        if let Some(text) = self.excess() {
            return Err(failed(FailureClass::Invalid, text));
        }
        if all().next().is_none() {
            return Ok(());
        }
        let refused = |what: &str, status: &Status| {
            let failed = Caller::failure(what, status);
            let broken_off = broken_off(failed.class(), failed.message);
            let hint = Some(failed.hint).filter(|hint| !hint.is_empty()).unwrap_or(broken_off.hint);
            RunOutcome::Failed(Failure { hint, ..broken_off })
        };
        let artifacts = caller.artifacts_within(namespace, patience);
        let artifacts = artifacts.map_err(|status| refused("failed to fetch files", &status))?;
        let mut made = HashSet::new();
        for (folder, list) in &self.files {
            for artifact in list {
                let path = context.join(folder).join(&artifact.name);
                let broken = |error: std::io::Error| {
                    // The names do not fit each other: no machine could have these files.
                    let class = match error.kind() {
                        ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                            FailureClass::Invalid
                        }
                        _ => FailureClass::Environment,
                    };
                    failed(class, format!("failed to write {}: {error}", artifact.name))
                };
                if !is_below(folder.join(&artifact.name).as_path()) {
                    return Err(failed(
                        FailureClass::Invalid,
                        format!("{:?} is no plain path", artifact.name),
                    ));
                }
                if let Some(parent) = path.parent().filter(|parent| made.insert(parent.to_path_buf())) {
                    fs::create_dir_all(parent).await.map_err(broken)?;
                }
                let mut file = fs::File::create_new(&path).await.map_err(broken)?;
                let progress = |progress: Progress<'_>| {
                    let status = match progress {
                        Progress::Bytes(_) => return waits(None),
                        Progress::Retrying(status) => status,
                    };
                    let text = format!("failed to fetch {}: {}", artifact.name, status.message());
                    waits(Some(broken_off(FailureClass::Source, text)));
                };
                artifacts.download(artifact, &mut file, progress).await.map_err(|error| {
                    let what = format!("failed to fetch {}", artifact.name);
                    match error {
                        TransferError::Damaged(_) => {
                            failed(FailureClass::Invalid, format!("{what}: {error}"))
                        }
                        TransferError::Write { .. } => {
                            failed(FailureClass::Environment, format!("{what}: {error}"))
                        }
                        TransferError::Call(error) => refused(&what, &error.into()),
                    }
                })?;
                if artifact.executable {
                    let mode = std::fs::Permissions::from_mode(0o700);
                    fs::set_permissions(&path, mode).await.map_err(broken)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_in_all() {
        let of = |sizes: &[i64]| {
            let artifact = |size: &i64| Artifact { size: *size, ..Artifact::default() };
            Given::files(sizes.iter().map(artifact).collect()).excess()
        };
        assert_eq!(of(&[3 << 30, 5 << 30]), None);
        assert!(of(&[3 << 30, 5 << 30, 1]).is_some_and(|text| text.contains("8 GiB of files")));
        assert!(of(&[i64::MAX, i64::MAX, i64::MAX]).is_some());
    }
}
