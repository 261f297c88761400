//! Finds the files that an attempt leaves behind. Its programs have ended, but chose every name: nothing outside its
//! directories is opened, whatever links they made, and nothing that is no file is waited for.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::{Dir, DirEntry, OpenOptions, PermissionsExt};
use rota_client::artifacts::Source;
use rota_proto::artifact_names::{BRANCHES, OUTPUT, WORKSPACE};
use rota_proto::v1::{Changes, SkippedFile};
use rota_proto::{ARTIFACT_LIST_BYTES, ARTIFACT_NAME_BYTES, PART_BYTES};

use super::checkpoint;
use super::globs::Keep;
use crate::layout;
use crate::program_dir;

/// Entries of folders that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of all files of an attempt.
const MAX_BYTES: u64 = 4 << 30;
/// Bytes of their descriptions. The rest of the list has the changes, and the names of files that are not kept.
const MAX_LIST: usize = ARTIFACT_LIST_BYTES - (62 << 10);
/// The same of a checkpoint: a bundle with [`MAX_BYTES`] has room next to it.
const MAX_CHECKPOINT_LIST: usize = MAX_LIST - (150 << 10);
/// Bytes of the description of a file besides its name and the digests of its parts.
const ENTRY_BYTES: usize = 96;
const MAX_SKIPPED: usize = 100;
/// Letters of a name or a reason in the list of those that are skipped.
const MAX_SHOWN: usize = 120;
/// Result of the attempt, which has a place of its own.
const RESULT: &str = "result.json";
/// Folder of the repository, in any folder.
const GIT: &str = ".git";

/// What an attempt leaves behind.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sources: Vec<Source>,
    pub(super) skipped: Vec<SkippedFile>,
    /// Conversation of the checkpoint, if there is one.
    pub(super) conversation: Option<String>,
    entries: usize,
    bytes: u64,
    /// Bytes of the descriptions of sources, and what is reserved for others.
    list: usize,
    /// Files that are not kept; `skipped` names some of them.
    lost: usize,
}

/// Finds the files with changes of the repository below the scratch directory.
fn of_git(found: &mut Found, scratch: &Path, changes: &Changes) {
    let of_git = |name: &Path| {
        let is = |file: &str| Path::new(file) == Path::new(layout::GIT).join(name);
        [BRANCHES, &changes.patch, &changes.bundle].into_iter().any(is)
    };
    found.folder(scratch, layout::GIT, layout::GIT, of_git);
}

/// Finds those, the files of `output/`, and those of the workspace that a glob matches.
pub(super) fn collect(
    mut found: Found,
    scratch: &Path,
    workspace: &Path,
    keep: &Keep,
    changes: &Changes,
) -> Found {
    of_git(&mut found, scratch, changes);
    found.folder(scratch, layout::OUTPUT, OUTPUT, |name| name != Path::new(RESULT));
    if !keep.is_empty() {
        found.walk(workspace, ".", WORKSPACE, |folder| keep.enters(folder), |name| keep.is_match(name));
    }
    found
}

impl Found {
    /// Finds the copies of what a later attempt continues from: before all others, which cannot leave them no room.
    pub(super) fn checkpoint(copies: &Path, conversation: String) -> Self {
        let mut found = Self::default();
        found.folder(copies, checkpoint::FOLDER, checkpoint::FOLDER, |_| true);
        if found.list > MAX_CHECKPOINT_LIST {
            found.skip(checkpoint::FOLDER.to_owned(), "it has too many files with long names");
        }
        // A conversation without a part of it is none.
        if found.lost > 0 {
            return Self { skipped: found.skipped, lost: found.lost, ..Self::default() };
        }
        Self { conversation: Some(conversation), entries: 0, ..found }
    }

    /// Leaves room in the list for the files of an earlier checkpoint, which may have to take the place of those found.
    pub(super) fn reserve(mut self, earlier: usize) -> Self {
        self.list = self.list.max(earlier);
        self
    }

    /// Adds only the files with changes of the repository.
    pub(super) fn with_changes(mut self, scratch: &Path, changes: &Changes) -> Self {
        of_git(&mut self, scratch, changes);
        self
    }

    /// Whether there are files that the attempt, or its task, has chosen to keep.
    pub(super) fn has_files(&self) -> bool {
        let own = [checkpoint::FOLDER, layout::GIT];
        self.sources.iter().any(|source| !own.iter().any(|own| Path::new(&source.name).starts_with(own)))
    }

    /// Does [`Self::walk`] with all folders.
    fn folder(&mut self, root: &Path, folder: &str, prefix: &str, wanted: impl Fn(&Path) -> bool) {
        self.walk(root, folder, prefix, |_| true, wanted);
    }

    /// Adds the files of a folder within `root` that are wanted, by their path within it, from the folders that it `enters`. Artifacts
    /// have `prefix` before it.
    fn walk(
        &mut self,
        root: &Path,
        folder: &str,
        prefix: &str,
        enters: impl Fn(&Path) -> bool,
        wanted: impl Fn(&Path) -> bool,
    ) {
        let opened = program_dir::open(root).and_then(|root| {
            if folder == "." || root.symlink_metadata(folder)?.is_dir() {
                root.open_dir(folder)
            } else {
                Err(io::Error::new(io::ErrorKind::NotADirectory, "is not a folder"))
            }
        });
        let folder = match opened {
            Ok(folder) => Arc::new(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.skip(prefix.to_owned(), error.to_string()),
        };
        let mut folders = vec![PathBuf::new()];
        while let Some(path) = folders.pop() {
            let mut entries = match self.entries(&folder, &path) {
                Ok(entries) => entries,
                Err(error) => {
                    self.skip(shown(prefix, &path), error.to_string());
                    continue;
                }
            };
            entries.sort_by_key(DirEntry::file_name);
            let mut inner = Vec::new();
            for entry in entries {
                let path = path.join(entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        if entry.file_name() != GIT && enters(&path) {
                            inner.push(path);
                        }
                    }
                    _ if !wanted(&path) => {}
                    Ok(kind) if kind.is_file() => self.file(&folder, path, prefix),
                    Ok(kind) if kind.is_symlink() => self.skip(shown(prefix, &path), "is a symbolic link"),
                    Ok(_) => self.skip(shown(prefix, &path), "is not a regular file"),
                    Err(error) => self.skip(shown(prefix, &path), error.to_string()),
                }
            }
            folders.extend(inner.into_iter().rev());
            if self.entries > MAX_ENTRIES {
                let reason = format!("there are more than {MAX_ENTRIES} files and folders");
                return self.skip(shown(prefix, Path::new("…")), reason);
            }
        }
    }

    fn entries(&mut self, folder: &Dir, path: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = match path.as_os_str().is_empty() {
            true => folder.entries()?,
            false => folder.read_dir(path)?,
        };
        let entries: Vec<_> = entries.take(MAX_ENTRIES + 1).collect::<Result<_, _>>()?;
        self.entries += entries.len();
        Ok(entries)
    }

    fn file(&mut self, folder: &Arc<Dir>, path: PathBuf, prefix: &str) {
        let Some(name) = name(prefix, &path) else {
            return self.skip(shown(prefix, &path), "its name cannot be kept");
        };
        let metadata = match folder.symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => return self.skip(name, error.to_string()),
        };
        let parts = usize::try_from(metadata.len().div_ceil(PART_BYTES as u64)).unwrap_or(usize::MAX);
        let entry = parts.saturating_mul(34).saturating_add(name.len() + ENTRY_BYTES);
        let bytes = self.bytes.saturating_add(metadata.len());
        if bytes > MAX_BYTES {
            return self
                .skip(name, format!("the artifacts of an attempt take at most {} GiB", MAX_BYTES >> 30));
        }
        if self.list.saturating_add(entry) > MAX_LIST {
            return self.skip(name, "the attempt has too many artifacts");
        }
        self.bytes = bytes;
        self.list += entry;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let folder = Arc::clone(folder);
        let open = move || program_dir::open_file(&folder, &path, OpenOptions::new().read(true));
        self.sources.push(Source { name, executable, size: metadata.len(), open: Box::new(open) });
    }

    pub(super) fn skip(&mut self, name: String, reason: impl Into<String>) {
        self.lost += 1;
        if self.skipped.len() < MAX_SKIPPED {
            let cut = |text: String| text.chars().take(MAX_SHOWN).collect();
            self.skipped.push(SkippedFile { name: cut(name), reason: cut(reason.into()) });
        }
    }
}

/// Returns the name of an artifact; `None` if other machines could not have such a file.
fn name(prefix: &str, path: &Path) -> Option<String> {
    let parts = path.components().map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    let name = format!("{prefix}/{}", parts.collect::<Option<Vec<_>>>()?.join("/"));
    let plain = !name.chars().any(|letter| letter.is_control() || letter == '\\');
    (plain && name.len() <= ARTIFACT_NAME_BYTES).then_some(name)
}

/// Returns a path for a message.
fn shown(prefix: &str, path: &Path) -> String {
    let text = format!("{prefix}/{}", path.display());
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests;
