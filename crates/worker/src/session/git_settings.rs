//! Settings and hooks of the repository that an attempt works in: git runs what they name for its user, outside of the
//! attempt's walls. Changes are reported, not undone: agents have reasons to make some.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::fcntl::OFlag;
use rota_proto::v1::{Severity, event};
use tokio::sync::mpsc;

use crate::program_dir;
use crate::report::notice;

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
        let git = tokio::fs::canonicalize(git).await.ok()?;
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
        let (Some(root), Some(name)) = (git.parent(), git.file_name()) else { return BTreeMap::new() };
        // Links of the attempt must not have the worker list, or read, what is outside of the repository.
        let Ok(root) = program_dir::open(root) else { return BTreeMap::new() };
        let git = Path::new(name);
        let hooks = root.read_dir(git.join("hooks")).into_iter().flatten().flatten();
        let hooks = hooks.map(|entry| Path::new("hooks").join(entry.file_name())).take(MAX_HOOKS);
        let paths = FILES.iter().map(PathBuf::from).chain(hooks);
        paths.filter_map(|path| Some((path.clone(), content(&root, &git.join(path))?))).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// Returns what is compared of a file; of a link out of the repository, where it leads.
fn content(root: &Dir, path: &Path) -> Option<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    match root.open_with(path, &options) {
        Ok(file) if file.metadata().ok()?.is_file() => {
            let mut bytes = Vec::new();
            file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        }
        Ok(_) => None,
        Err(_) => root.read_link_contents(path).ok().map(|to| to.into_os_string().into_encoded_bytes()),
    }
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

    #[tokio::test]
    async fn links_in_place_of_hooks_show_nothing() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("id_ed25519"), "of the user").unwrap();
        let replaced = reported(|git| {
            std::fs::remove_dir_all(git.join("hooks")).unwrap();
            std::os::unix::fs::symlink(outside.path(), git.join("hooks")).unwrap();
            std::fs::remove_file(git.join("config")).unwrap();
            std::os::unix::fs::symlink(outside.path().join("id_ed25519"), git.join("config")).unwrap();
        });
        let text = replaced.await.unwrap();
        assert!(text.starts_with("the attempt changed .git/config, .git/hooks/pre-push: "), "{text}");
        let within = reported(|git| {
            std::fs::rename(git.join("hooks/pre-push"), git.join("../src/hook")).unwrap();
            std::os::unix::fs::symlink("../../src/hook", git.join("hooks/pre-push")).unwrap();
        });
        assert_eq!(within.await, None, "the same content");
    }
}
