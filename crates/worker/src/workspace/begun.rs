//! A directory that is being filled, and is removed unless it is completed: also if its attempt is dropped meanwhile.

use std::path::{Path, PathBuf};

use crate::files::remove;

/// Removes a directory when it is dropped.
#[derive(Debug)]
pub(super) struct Begun {
    /// None once it is complete.
    path: Option<PathBuf>,
    trash: PathBuf,
}

impl Begun {
    pub(super) fn new(path: &Path, trash: &Path) -> Self {
        Self { path: Some(path.to_owned()), trash: trash.to_owned() }
    }

    /// Lets the directory stay, which has all that it is to have.
    pub(super) fn complete(mut self) {
        self.path = None;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            remove::in_background(path, &self.trash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use rota_proto::v1::{GitSource, WorkspaceCleanup, WorkspaceMode};
    use rota_telemetry::clock;

    use super::super::sweep::{self, remove_unfinished, unused};
    use super::super::tests::{assign, prepared};
    use super::super::{PrepareError, Root};

    /// Clones that fail: no reference has that name.
    #[tokio::test]
    async fn failed_clones_leave_nothing() {
        let state = tempfile::tempdir().unwrap();
        let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
        for (mode, cleanup) in [
            (WorkspaceMode::Keep, WorkspaceCleanup::Always),
            (WorkspaceMode::Fresh, WorkspaceCleanup::Never),
            (WorkspaceMode::Fresh, WorkspaceCleanup::OnSuccess),
        ] {
            let mut assign = assign(mode, "", cleanup, 1);
            let url = "https://git.invalid/project.git".to_owned();
            let source = GitSource { url, r#ref: "-x".to_owned(), ..GitSource::default() };
            assign.spec.as_mut().unwrap().workspace.as_mut().unwrap().git = Some(source);
            assert!(matches!(prepared(&root, &assign).await, Err(PrepareError::Failed(_))), "{mode:?}");
            for kind in ["kept", "workspaces"] {
                let found =
                    sweep::entries(&state.path().join(kind)).flat_map(|entry| sweep::entries(&entry.path()));
                let found: Vec<_> = found.map(|entry| entry.path()).collect();
                assert!(found.is_empty(), "{mode:?} {cleanup:?} {found:?}");
            }
        }
    }

    /// A worker that is killed while it clones.
    #[test]
    fn unfinished_clones_are_removed_unless_they_are_made() {
        let state = tempfile::tempdir().unwrap();
        let kept = state.path().join("kept/default");
        std::fs::create_dir_all(&kept).unwrap();
        for name in ["killed", "made", "ending"] {
            std::fs::create_dir(kept.join(format!(".{name}.unfinished"))).unwrap();
            std::fs::write(kept.join(format!(".{name}.lock")), "").unwrap();
            std::fs::write(kept.join(format!(".{name}.supervisors")), "").unwrap();
        }
        let held = [".made.lock", ".ending.supervisors"].map(|name| File::open(kept.join(name)).unwrap());
        held.iter().for_each(|file| file.try_lock().unwrap());
        let later = clock::now() + Duration::from_secs(60);
        let listed: Vec<_> = unused(state.path(), later).into_iter().map(|found| found.path).collect();
        assert!(
            listed.contains(&kept.join(".killed.unfinished"))
                && !listed.contains(&kept.join(".made.unfinished"))
        );
        remove_unfinished(state.path());
        let left = |name: &str| kept.join(format!(".{name}.unfinished")).exists();
        assert_eq!((left("killed"), left("made"), left("ending")), (false, true, true));
    }
}
