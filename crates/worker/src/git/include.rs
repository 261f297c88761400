//! Files of a user's own checkout that git ignores there and that its `.worktreeinclude` names, such as `.env`: they are copied into
//! the clones of it. Only ignored files are, and none in place of a file that the clone has.
//!
//! Rules are those of the checkout's `.gitignore` files and its `info/exclude`. No link is followed.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::program_dir;

/// Name of the file with the patterns.
pub(super) const FILE: &str = ".worktreeinclude";
/// Bytes of a file with patterns.
const MAX_RULES: u64 = 1 << 20;
/// Files and folders of the checkout that are looked at.
const MAX_ENTRIES: usize = 1_000_000;
const MAX_FILES: usize = 10_000;
const MAX_BYTES: u64 = 1 << 30;
/// Names that the note lists at most.
const MAX_NAMES: usize = 5;

/// Why the files are not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum IncludeError {
    /// The checkout names too much.
    #[error("{0}")]
    TooLarge(String),
    /// The checkout cannot be read, by the worker or at all.
    #[error("failed to read {path:?} of the checkout: {source}", path = .0, source = .1)]
    Read(PathBuf, io::Error),
    /// A copy cannot be written.
    #[error("failed to write {path:?}: {source}", path = .0, source = .1)]
    Write(PathBuf, io::Error),
    /// An end was requested meanwhile.
    #[error("the attempt had to end")]
    Stopped,
}

/// Copies the files, until `stop` is set. Returns a note for the log, if there is a `.worktreeinclude`.
pub(super) fn copy(
    checkout: &Path,
    workspace: &Path,
    stop: &AtomicBool,
) -> Result<Option<String>, IncludeError> {
    let Ok(from) = Dir::open_ambient_dir(checkout, ambient_authority()) else { return Ok(None) };
    // A bare repository has no files of a user.
    if from.symlink_metadata(".git").is_err() {
        return Ok(None);
    }
    let Some(include) = rules(&from, Path::new(FILE))? else { return Ok(None) };
    let to = program_dir::open(workspace);
    let to = to.map_err(|error| IncludeError::Write(workspace.to_owned(), error))?;
    let mut copying =
        Copying { from, to, include, stop, entries: 0, bytes: 0, copied: Vec::new(), skipped: 0 };
    copying.all()?;
    copying.exclude()?;
    Ok(Some(copying.note()))
}

/// Reads patterns, if the file is one.
fn rules(folder: &Dir, path: &Path) -> Result<Option<Gitignore>, IncludeError> {
    let Some(mut file) = open(folder, path) else { return Ok(None) };
    let failed = |error| IncludeError::Read(path.to_owned(), error);
    let mut text = Vec::new();
    Read::by_ref(&mut file).take(MAX_RULES).read_to_end(&mut text).map_err(failed)?;
    let mut builder = GitignoreBuilder::new("");
    for line in String::from_utf8_lossy(&text).lines() {
        // As git does, without a pattern that it cannot read.
        let _ = builder.add_line(None, line);
    }
    builder.build().map(Some).map_err(|error| failed(io::Error::other(error)))
}

/// Opens a file, if it is one that can be read.
fn open(folder: &Dir, path: &Path) -> Option<std::fs::File> {
    program_dir::open_file(folder, path, OpenOptions::new().read(true)).ok()
}

struct Copying<'a> {
    from: Dir,
    to: Dir,
    include: Gitignore,
    stop: &'a AtomicBool,
    entries: usize,
    bytes: u64,
    copied: Vec<PathBuf>,
    skipped: usize,
}

/// A folder that is looked at.
struct Folder {
    path: PathBuf,
    /// Rules that hold in it, the nearest ones last, each with the folder that has them.
    rules: Vec<(PathBuf, std::sync::Arc<Gitignore>)>,
    ignored: bool,
    included: bool,
}

impl Copying<'_> {
    fn all(&mut self) -> Result<(), IncludeError> {
        let exclude = rules(&self.from, Path::new(".git/info/exclude"))?.unwrap_or_else(Gitignore::empty);
        let root = vec![(PathBuf::new(), std::sync::Arc::new(exclude))];
        let mut left = vec![Folder { path: PathBuf::new(), rules: root, ignored: false, included: false }];
        while let Some(mut folder) = left.pop() {
            let open = if folder.path.as_os_str().is_empty() {
                self.from.try_clone()
            } else {
                self.from.open_dir(&folder.path)
            };
            let Ok(open) = open else { continue };
            // Another repository within, of which git sees nothing.
            if !folder.path.as_os_str().is_empty() && open.symlink_metadata(".git").is_ok() {
                continue;
            }
            if let Some(own) = rules(&open, Path::new(".gitignore"))? {
                folder.rules.push((folder.path.clone(), std::sync::Arc::new(own)));
            }
            let failed = |error| IncludeError::Read(folder.path.clone(), error);
            for entry in open.entries().map_err(failed)? {
                let entry = entry.map_err(failed)?;
                self.entries += 1;
                if self.entries > MAX_ENTRIES {
                    let text = format!("the checkout has more than {MAX_ENTRIES} files and folders");
                    return Err(IncludeError::TooLarge(text));
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Err(IncludeError::Stopped);
                }
                let kind = entry.file_type().map_err(failed)?;
                let path = folder.path.join(entry.file_name());
                if path == Path::new(".git") || !(kind.is_dir() || kind.is_file()) {
                    continue;
                }
                let ignored = folder.ignored || is_ignored(&folder.rules, &path, kind.is_dir());
                let included = decide(&self.include, &path, kind.is_dir()).unwrap_or(folder.included);
                if kind.is_dir() {
                    left.push(Folder { path, rules: folder.rules.clone(), ignored, included });
                } else if ignored && included {
                    self.file(path)?;
                }
            }
        }
        self.copied.sort();
        Ok(())
    }

    fn file(&mut self, path: PathBuf) -> Result<(), IncludeError> {
        let Some(mut from) = open(&self.from, &path) else { return Ok(()) };
        let metadata = from.metadata().map_err(|error| IncludeError::Read(path.clone(), error))?;
        self.bytes = self.bytes.saturating_add(metadata.len());
        if self.copied.len() >= MAX_FILES || self.bytes > MAX_BYTES {
            let most = format!("{MAX_FILES} files and {} MiB", MAX_BYTES >> 20);
            return Err(IncludeError::TooLarge(format!("it names more than {most}")));
        }
        let mode = std::os::unix::fs::MetadataExt::mode(&metadata) & 0o777;
        let options = &mut OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let parent = path.parent().map_or(Ok(()), |parent| self.to.create_dir_all(parent));
        // A link in the clone may lead elsewhere, and a file of the clone stays.
        match parent.and_then(|()| self.to.open_with(&path, options)) {
            Ok(mut to) => {
                let copied = io::copy(&mut Read::by_ref(&mut from).take(metadata.len()), &mut to);
                copied.map_err(|error| IncludeError::Write(path.clone(), error))?;
                self.copied.push(path);
            }
            Err(_) => self.skipped += 1,
        }
        Ok(())
    }

    /// Lets git ignore the copies in the clone, also where the rule is in no file of the repository: they are no change.
    fn exclude(&self) -> Result<(), IncludeError> {
        if self.copied.is_empty() {
            return Ok(());
        }
        self.add_rules().map_err(|error| IncludeError::Write(PathBuf::from(".git/info/exclude"), error))
    }

    fn add_rules(&self) -> io::Result<()> {
        self.to.create_dir_all(".git/info")?;
        let mut file =
            self.to.open_with(".git/info/exclude", OpenOptions::new().append(true).create(true))?;
        for path in &self.copied {
            let escaped: String = path
                .to_string_lossy()
                .chars()
                .flat_map(|next| {
                    matches!(next, '\\' | '*' | '?' | '[' | ' ').then_some('\\').into_iter().chain([next])
                })
                .collect();
            writeln!(file, "/{escaped}")?;
        }
        Ok(())
    }

    fn note(&self) -> String {
        let names = self.copied.iter().take(MAX_NAMES).map(|path| path.display().to_string());
        let mut names = names.collect::<Vec<_>>().join(", ");
        if self.copied.len() > MAX_NAMES {
            names.push_str(", \u{2026}");
        }
        let mut note =
            format!("{} ignored files of the checkout were copied by its {FILE}", self.copied.len());
        if !names.is_empty() {
            note.push_str(&format!(": {names}"));
        }
        if self.skipped > 0 {
            note.push_str(&format!("; {} were not: they exist already, or cannot be made", self.skipped));
        }
        note
    }
}

/// Returns what patterns make of a path; none if they do not match.
fn decide(rules: &Gitignore, path: &Path, is_dir: bool) -> Option<bool> {
    match rules.matched(path, is_dir) {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

/// Whether git ignores a path in a folder that it does not ignore: the nearest rule counts.
fn is_ignored(rules: &[(PathBuf, std::sync::Arc<Gitignore>)], path: &Path, is_dir: bool) -> bool {
    let decided = rules
        .iter()
        .rev()
        .find_map(|(folder, rules)| decide(rules, path.strip_prefix(folder).unwrap_or(path), is_dir));
    decided.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use rota_proto::v1::{FailureClass, GitSource, TaskSpec, Workspace};
    use rota_proto::worker::v1::Assign;
    use rota_telemetry::redact::Redactor;
    use tokio::sync::watch;

    use super::*;
    use crate::git::{Cloning, GitError};

    fn git(folder: &Path, args: &[&str]) -> String {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(args)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Returns a checkout with files, and a clone of it.
    fn repositories(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (checkout, clone) = (root.path().join("checkout"), root.path().join("clone"));
        fs::create_dir(&checkout).unwrap();
        git(&checkout, &["init", "-q"]);
        for (name, text) in files {
            write(&checkout, name, text);
        }
        git(&checkout, &["add", "-A"]);
        git(&checkout, &["commit", "-qm", "first", "--allow-empty"]);
        git(root.path(), &["clone", "-q", "checkout", "clone"]);
        (root, checkout, clone)
    }

    #[test]
    fn ignored_files_that_are_named_are_copied() {
        let rules = ".env*\n!.env.example\n/config/\nnode_modules/\n*.log\n";
        let (_root, checkout, clone) = repositories(&[
            (".gitignore", rules),
            (".worktreeinclude", ".env*\nconfig/\n!config/big.bin\n# no\n"),
            ("a/.gitignore", "!.env.a\n"),
        ]);
        for name in [
            ".env",
            "a/.env.b",
            "a/.env.a",
            "config/deep/key with [x]",
            "config/big.bin",
            "x.log",
            "node_modules/m/.env",
            "new",
        ] {
            write(&checkout, name, name);
        }
        write(&checkout, ".git/info/exclude", "local.txt\n");
        write(&checkout, "local.txt", "x");
        fs::write(checkout.join(".worktreeinclude"), ".env*\nconfig/\n!config/big.bin\nlocal.txt\nnew\n")
            .unwrap();
        std::os::unix::fs::symlink("/etc/hostname", checkout.join(".env.link")).unwrap();
        fs::set_permissions(checkout.join(".env"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let note = copy(&checkout, &clone, &AtomicBool::new(false)).unwrap().unwrap();
        let copied = [".env", "a/.env.b", "config/deep/key with [x]", "local.txt", "node_modules/m/.env"];
        assert!(note.starts_with("5 ignored files") && note.contains(&copied.join(", ")), "{note}");
        for name in copied {
            assert_eq!(fs::read(clone.join(name)).unwrap(), fs::read(checkout.join(name)).unwrap(), "{name}");
        }
        for name in ["a/.env.a", "config/big.bin", "x.log", "new", ".env.link"] {
            assert!(clone.join(name).symlink_metadata().is_err(), "{name}");
        }
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(clone.join(".env")).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        // What git itself ignores in the checkout is what was copied, and in the clone it is no change.
        let listed =
            git(&checkout, &["-c", "core.quotePath=false", "ls-files", "-o", "-i", "--exclude-standard"]);
        for name in copied {
            assert!(listed.lines().any(|line| line == name), "{name} is not in {listed}");
        }
        assert_eq!(git(&clone, &["status", "--porcelain", "--untracked-files=all"]), "");
    }

    #[test]
    fn nothing_is_copied_without_the_file_or_over_others() {
        let (_root, checkout, clone) = repositories(&[(".gitignore", "*.key\nout/\n"), ("t.txt", "x")]);
        write(&checkout, "a.key", "secret");
        assert_eq!(copy(&checkout, &clone, &AtomicBool::new(false)).unwrap(), None);
        assert_eq!(copy(&checkout.join(".git"), &clone, &AtomicBool::new(false)).unwrap(), None);
        write(&checkout, ".worktreeinclude", "*.key\nout/\n");
        write(&clone, "a.key", "mine");
        // A link in the clone leads out of it.
        write(&checkout, "out/f", "x");
        std::os::unix::fs::symlink(
            checkout.join("t.txt").parent().unwrap().parent().unwrap(),
            clone.join("out"),
        )
        .unwrap();
        let note = copy(&checkout, &clone, &AtomicBool::new(false)).unwrap().unwrap();
        assert!(note.starts_with("0 ignored files") && note.contains("2 were not"), "{note}");
        assert_eq!(fs::read_to_string(clone.join("a.key")).unwrap(), "mine");
        assert!(!checkout.parent().unwrap().join("f").exists());
    }

    #[tokio::test]
    async fn checkouts_that_name_too_much_are_invalid() {
        let (root, checkout, clone) = repositories(&[(".gitignore", "out/\n")]);
        write(&checkout, ".worktreeinclude", "out/\n");
        for number in 0..=MAX_FILES {
            write(&checkout, &format!("out/{number}"), "");
        }
        let source = GitSource { url: checkout.to_string_lossy().into_owned(), ..GitSource::default() };
        let workspace = Workspace { git: Some(source), ..Workspace::default() };
        let spec = TaskSpec { workspace: Some(workspace), ..TaskSpec::default() };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let home = root.path().join("home");
        let cloning =
            Cloning::of(&assign, (root.path(), 0), home, None, Redactor::default(), "rota/1".to_owned())
                .unwrap();
        let (_sender, mut stop) = watch::channel(None);
        let Err(GitError::Failed { failure, .. }) = cloning.include(&clone, &mut stop).await else {
            panic!("it is refused");
        };
        assert_eq!(failure.class(), FailureClass::Invalid, "no fault of the worker: {failure:?}");
        assert!(failure.message.contains("10000 files") && failure.hint.contains(FILE), "{failure:?}");
        let ended = copy(&checkout, &clone, &AtomicBool::new(true));
        assert!(matches!(ended, Err(IncludeError::Stopped)), "{ended:?}");
    }
}
