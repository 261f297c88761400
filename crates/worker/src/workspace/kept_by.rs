//! Which attempt a kept workspace has the work of: a note in a hidden file next to it, which no program of an attempt may write.
//! Decides whether the workspace is behind the newest checkpoint of its task.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::remove;
use crate::layout::Sibling;

/// Attempt whose work a kept workspace has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptBy {
    task: String,
    attempt: i32,
    /// Whether its agent was started in it. Until then, a clone or a checkpoint may be half there.
    whole: bool,
}

impl KeptBy {
    pub(super) fn new(task: &str, attempt: i32, whole: bool) -> Self {
        Self { task: task.to_owned(), attempt, whole }
    }

    /// Reads the note. Workspaces of earlier versions have none.
    pub(super) fn read(workspace: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(Sibling(workspace).attempt()).ok()?;
        let [task, attempt, state] = text.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        Some(Self::new(task, attempt.parse().ok()?, state == "whole"))
    }

    pub(super) fn write(&self, workspace: &Path) -> io::Result<()> {
        let state = if self.whole { "whole" } else { "partial" };
        let text = format!("{} {} {state}\n", self.task, self.attempt);
        let (file, unfinished) = (Sibling(workspace).attempt(), Sibling(workspace).attempt_unfinished());
        std::fs::write(&unfinished, text)?;
        std::fs::rename(unfinished, file)
    }

    /// Whether a task can do better than to go on in the workspace. `newest` is its last attempt that has left a checkpoint.
    pub(super) fn is_behind(&self, task: &str, newest: i32) -> bool {
        !self.whole || self.is_of(task) && self.attempt < newest
    }

    pub(super) fn is_of(&self, task: &str) -> bool {
        self.task == task
    }
}

/// Moves a kept workspace away, with what a CLI keeps of its sessions. It is removed like others that are not used for long.
/// Returns where it is.
pub(super) async fn set_aside(workspace: &Path) -> io::Result<PathBuf> {
    let aside = Sibling(workspace).set_aside();
    let config = Sibling(workspace).config().zip(Sibling(&aside).config());
    for (from, to) in config.into_iter().chain([(workspace.to_owned(), aside.clone())]) {
        remove::all(to.clone()).await;
        match tokio::fs::rename(from, to).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_checkpoints_of_the_same_task_are_ahead() {
        let root = tempfile::tempdir().unwrap();
        let workspace = root.path().join("w");
        assert_eq!(KeptBy::read(&workspace), None);
        let note = KeptBy::new("task", 2, true);
        note.write(&workspace).unwrap();
        assert_eq!(KeptBy::read(&workspace), Some(note.clone()));
        assert!(!note.is_behind("task", 0) && !note.is_behind("task", 2) && note.is_behind("task", 3));
        assert!(!note.is_behind("other", 3));
        KeptBy::new("task", 2, false).write(&workspace).unwrap();
        assert!(KeptBy::read(&workspace).unwrap().is_behind("other", 0));
    }

    #[tokio::test]
    async fn workspaces_are_set_aside_with_their_sessions() {
        let root = tempfile::tempdir().unwrap();
        let workspace = root.path().join("w");
        for _ in 0..2 {
            std::fs::create_dir_all(workspace.join("deep")).unwrap();
            std::fs::create_dir_all(root.path().join(".w.claude")).unwrap();
            assert_eq!(set_aside(&workspace).await.unwrap(), root.path().join("w.behind"));
            assert!(
                root.path().join("w.behind/deep").exists() && root.path().join(".w.behind.claude").exists()
            );
            assert!(!workspace.exists());
        }
    }
}
