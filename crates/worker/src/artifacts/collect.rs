//! Finds the files that an attempt leaves behind. Its programs have ended, but chose every name: nothing outside its
//! directories is opened, whatever links they made, and nothing that is no file is waited for.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirEntry, OpenOptions, OpenOptionsExt, PermissionsExt};
use nix::fcntl::OFlag;
use rota_client::artifacts::Source;
use rota_proto::PART_BYTES;
use rota_proto::v1::{Changes, SkippedFile};

use super::checkpoint;
use super::globs::Keep;
use crate::git;

/// Entries of folders that are looked at.
const MAX_ENTRIES: usize = 100_000;
const MAX_NAME: usize = 1024;
/// Bytes of all files of an attempt.
const MAX_BYTES: u64 = 4 << 30;
/// Bytes of the list that describes them: the control plane takes 512 KiB.
const MAX_LIST: usize = 450 << 10;
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
    list: usize,
    /// Files that are not kept; `skipped` names some of them.
    lost: usize,
}

/// Finds the files with changes of the repository below the scratch directory.
fn of_git(found: &mut Found, scratch: &Path, changes: &Changes) {
    let of_git = |name: &Path| {
        let is = |file: &String| Path::new(file) == Path::new(git::FOLDER).join(name);
        name == Path::new(git::ELSEWHERE) || is(&changes.patch) || is(&changes.bundle)
    };
    found.folder(scratch, git::FOLDER, git::FOLDER, of_git);
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
    found.folder(scratch, "output", "output", |name| name != Path::new(RESULT));
    if !keep.is_empty() {
        found.walk(workspace, ".", "workspace", |folder| keep.enters(folder), |name| keep.is_match(name));
    }
    found
}

impl Found {
    /// Finds the copies of what a later attempt continues from: before all others, which cannot leave them no room.
    pub(super) fn checkpoint(copies: &Path, conversation: String) -> Self {
        let mut found = Self::default();
        found.folder(copies, checkpoint::FOLDER, checkpoint::FOLDER, |_| true);
        // A conversation without a part of it is none.
        found.conversation = Some(conversation).filter(|_| found.lost == 0);
        found.entries = 0;
        found
    }

    /// Adds only the files with changes of the repository.
    pub(super) fn with_changes(mut self, scratch: &Path, changes: &Changes) -> Self {
        of_git(&mut self, scratch, changes);
        self
    }

    /// Whether there are files that the attempt, or its task, has chosen to keep.
    pub(super) fn has_files(&self) -> bool {
        let own = [checkpoint::FOLDER, git::FOLDER];
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
        let opened = Dir::open_ambient_dir(root, ambient_authority()).and_then(|root| {
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
        let open = move || {
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            let file = folder.open_with(&path, OpenOptions::new().read(true).custom_flags(flags.bits()))?;
            match file.metadata()?.is_file() {
                true => Ok(file.into_std()),
                false => Err(io::Error::other("is not a regular file")),
            }
        };
        self.sources.push(Source { name, executable, open: Box::new(open) });
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
    (plain && name.len() <= MAX_NAME).then_some(name)
}

/// Returns a path for a message.
fn shown(prefix: &str, path: &Path) -> String {
    let text = format!("{prefix}/{}", path.display());
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A scratch directory and a workspace.
    fn directories() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (scratch, workspace) = (root.path().join("scratch"), root.path().join("work"));
        fs::create_dir_all(scratch.join("output/deep/er")).unwrap();
        fs::create_dir_all(workspace.join("dist/js")).unwrap();
        (root, scratch, workspace)
    }

    fn names(found: &Found) -> Vec<&str> {
        found.sources.iter().map(|source| source.name.as_str()).collect()
    }

    fn reason<'a>(found: &'a Found, name: &str) -> Option<&'a str> {
        found.skipped.iter().find(|skipped| skipped.name == name).map(|skipped| skipped.reason.as_str())
    }

    #[test]
    fn output_and_matching_files_are_found() {
        let (_root, scratch, workspace) = directories();
        let output = scratch.join("output");
        for file in ["b.txt", "a.txt", "deep/er/c.bin", "result.json", "deep/result.json"] {
            fs::write(output.join(file), file).unwrap();
        }
        fs::set_permissions(output.join("b.txt"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(workspace.join(".git")).unwrap();
        for file in ["dist/app.js", "dist/js/x.js", "build.log", "dist/build.log", ".git/a.log", "src.rs"] {
            fs::write(workspace.join(file), file).unwrap();
        }
        let keep = Keep::of(&["dist/**/*.js".into(), "*.log".into()]).unwrap();
        let found = collect(Found::default(), &scratch, &workspace, &keep, &Changes::default());
        assert_eq!(
            names(&found),
            [
                "output/a.txt",
                "output/b.txt",
                "output/deep/result.json",
                "output/deep/er/c.bin",
                "workspace/build.log",
                "workspace/dist/app.js",
                "workspace/dist/js/x.js",
            ]
        );
        assert_eq!(found.sources.iter().filter(|source| source.executable).count(), 1);
        assert!(found.skipped.is_empty());
        let mut text = String::new();
        (found.sources[0].open)().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "a.txt");
        assert!(
            collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default())
                .sources
                .len()
                == 4
        );
    }

    #[test]
    fn folders_that_no_glob_matches_are_not_entered() {
        let root = tempfile::tempdir().unwrap();
        let (scratch, workspace) = (root.path().join("none"), root.path().join("work"));
        for folder in ["node_modules/deep", "packages/web/dist/js", "packages/web/src", "packages/api/dist"] {
            fs::create_dir_all(workspace.join(folder)).unwrap();
            fs::write(workspace.join(folder).join("file"), "").unwrap();
        }
        let found = |globs: &[&str]| {
            let keep = Keep::of(&globs.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
            let found = collect(Found::default(), &scratch, &workspace, &keep, &Changes::default());
            let names: Vec<_> = names(&found).into_iter().map(str::to_owned).collect();
            (names, found.entries)
        };
        let of_web = "workspace/packages/web/dist/js/file".to_owned();
        // Entries of the workspace, of `packages`, `web`, `dist`, `js`.
        assert_eq!(found(&["packages/web/dist/**"]), (vec![of_web.clone()], 2 + 2 + 2 + 1 + 1));
        let both = vec!["workspace/packages/api/dist/file".to_owned(), of_web.clone()];
        assert_eq!(found(&["packages/*/dist/**"]), (both.clone(), 2 + 2 + 3 + 2 + 1));
        // Anywhere, and with a slash between braces.
        assert_eq!(found(&["**/dist/**"]).0, both);
        assert_eq!(found(&["packages/{web/dist,none}/*/file"]).0, [of_web]);
        assert_eq!(found(&["*"]), (Vec::new(), 2));
    }

    #[test]
    fn links_and_devices_are_not_followed() {
        let (root, scratch, workspace) = directories();
        let (output, secret) = (scratch.join("output"), root.path().join("secret"));
        fs::write(&secret, "of the worker").unwrap();
        symlink(&secret, output.join("link")).unwrap();
        symlink(root.path(), output.join("folder")).unwrap();
        nix::unistd::mkfifo(&output.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(output.join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
        fs::write(output.join("new\nline"), "").unwrap();
        let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
        assert_eq!(names(&found), [""; 0]);
        assert_eq!(reason(&found, "output/link"), Some("is a symbolic link"));
        assert_eq!(reason(&found, "output/folder"), Some("is a symbolic link"));
        assert_eq!(reason(&found, "output/pipe"), Some("is not a regular file"));
        assert_eq!(reason(&found, "output/new?line"), Some("its name cannot be kept"));
        assert_eq!(found.skipped.len(), 5);
    }

    #[test]
    fn file_that_becomes_a_link_or_a_pipe_is_not_opened() {
        let (root, scratch, workspace) = directories();
        let (output, secret) = (scratch.join("output"), root.path().join("secret"));
        fs::write(&secret, "of the worker").unwrap();
        for file in ["a", "b", "deep/c"] {
            fs::write(output.join(file), "").unwrap();
        }
        let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
        fs::remove_file(output.join("a")).unwrap();
        symlink(&secret, output.join("a")).unwrap();
        fs::remove_file(output.join("b")).unwrap();
        nix::unistd::mkfifo(&output.join("b"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::rename(output.join("deep"), output.join("deeper")).unwrap();
        fs::write(root.path().join("c"), "of the worker").unwrap();
        symlink(root.path(), output.join("deep")).unwrap();
        assert_eq!(found.sources.len(), 3);
        assert!(found.sources.iter().all(|source| (source.open)().is_err()));
    }

    #[test]
    fn output_in_place_of_a_folder_is_named() {
        let (root, scratch, workspace) = directories();
        fs::remove_dir_all(scratch.join("output")).unwrap();
        assert!(
            collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default())
                .skipped
                .is_empty(),
            "there is none"
        );
        symlink(root.path(), scratch.join("output")).unwrap();
        let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
        assert_eq!(reason(&found, "output"), Some("is not a folder"));
    }

    #[test]
    fn sizes_are_bounded() {
        let (_root, scratch, workspace) = directories();
        let output = scratch.join("output");
        let sparse = fs::File::create(output.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        fs::write(output.join("text"), "").unwrap();
        for number in 0..6000 {
            fs::write(output.join(format!("deep/{number}")), "").unwrap();
        }
        let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
        assert!(reason(&found, "output/sparse").unwrap().contains("4 GiB"));
        assert!(names(&found).contains(&"output/text") && found.sources.len() < 6000);
        assert_eq!(found.skipped.len(), MAX_SKIPPED);
    }
}
