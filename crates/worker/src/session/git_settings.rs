//! Settings and hooks of the repository that an attempt works in: git runs what they name for its user, outside of the
//! attempt's walls. Changes are reported, not undone: agents have reasons to make some.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rota_proto::v1::{Severity, event};
use tokio::sync::mpsc;

use crate::runtimes::notice;

/// Files that decide what git executes.
const FILES: [&str; 3] = ["config", "config.worktree", "info/attributes"];
/// Bytes of a file that are compared.
const MAX_BYTES: u64 = 1 << 20;
/// Hooks that are looked at.
const MAX_HOOKS: usize = 128;

/// Settings and hooks as they were when an attempt began.
pub(super) struct GitSettings {
    git: PathBuf,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl GitSettings {
    /// Reads those of the repository of a working directory; none if it is in none.
    pub(super) async fn of(directory: Option<PathBuf>) -> Option<Self> {
        let directory = directory?;
        let git = directory.ancestors().map(|path| path.join(".git")).find(|git| git.is_dir())?;
        let before = read(git.clone()).await;
        Some(Self { git, before })
    }

    /// Reports which of them the attempt has changed.
    pub(super) async fn report_changes(self, events: &mpsc::Sender<event::Kind>) {
        let after = read(self.git).await;
        let paths =
            self.before.keys().chain(after.keys()).filter(|path| self.before.get(*path) != after.get(*path));
        let mut changed: Vec<_> = paths.map(|path| format!(".git/{}", path.display())).collect();
        changed.sort();
        changed.dedup();
        if !changed.is_empty() {
            let text = format!(
                "the attempt changed {}: git runs what is named there for you, without isolation",
                changed.join(", ")
            );
            let _ = events.send(notice(Severity::Medium, "git_settings_changed", &text)).await;
        }
    }
}

/// Reads the files of a `.git` directory, by their paths in it.
async fn read(git: PathBuf) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = move || {
        let hooks = std::fs::read_dir(git.join("hooks")).into_iter().flatten().flatten();
        let hooks = hooks.map(|entry| Path::new("hooks").join(entry.file_name())).take(MAX_HOOKS);
        let paths = FILES.iter().map(PathBuf::from).chain(hooks);
        paths.filter_map(|path| Some((path.clone(), content(&git.join(path))?))).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn content(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let nonblocking = nix::libc::O_NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reported(change: impl FnOnce(&Path)) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let git = folder.path().join(".git");
        std::fs::create_dir_all(git.join("hooks")).unwrap();
        std::fs::create_dir_all(folder.path().join("src")).unwrap();
        std::fs::write(git.join("config"), "[core]\n").unwrap();
        std::fs::write(git.join("hooks/pre-push"), "#!/bin/sh\n").unwrap();
        let settings = GitSettings::of(Some(folder.path().join("src"))).await.unwrap();
        change(&git);
        let (events, mut received) = mpsc::channel(1);
        settings.report_changes(&events).await;
        match received.try_recv().ok()? {
            event::Kind::Notice(notice) => Some(notice.message),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn changed_hooks_and_settings_are_reported() {
        assert_eq!(reported(|git| std::fs::write(git.join("index"), "x").unwrap()).await, None);
        let text = reported(|git| {
            std::fs::write(git.join("hooks/pre-commit"), "#!/bin/sh\ncurl evil.invalid\n").unwrap();
            std::fs::remove_file(git.join("hooks/pre-push")).unwrap();
            std::fs::write(git.join("config"), "[core]\nfsmonitor = evil\n").unwrap();
        });
        let text = text.await.unwrap();
        assert!(
            text.starts_with("the attempt changed .git/config, .git/hooks/pre-commit, .git/hooks/pre-push: "),
            "{text}"
        );
        assert!(GitSettings::of(None).await.is_none());
    }
}
