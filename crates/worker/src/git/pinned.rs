//! Files that checks see as they are in the commit that the task started from, whatever the agent has made of them.
//!
//! The agent's files are moved away, and those of the commit are written by a repository that it has never touched: filters,
//! attributes, ignored files and flags of its index mean nothing. Its files stay within its repository meanwhile, so that the loss
//! of this process does not lose them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use globset::GlobSet;
use tokio::sync::watch;

use super::bundle::borrowing;
use super::clone::Base;
use super::failure::Cause;
use super::pin_links::{self, Patterns};
use super::run::{Git, GitError};
use crate::files::{probe_in_time, remove};
use crate::globs::globs;
use crate::program_dir;
use crate::supervise::Stop;

/// Where the agent's files are while others are in their place.
const AWAY: &str = ".git/rota-pinned/files";
/// Shows that all of them are there.
const COMPLETE: &str = ".git/rota-pinned/complete";
const FOLDER: &str = ".git/rota-pinned";
/// Mode that git has for links.
const LINK: &[u8] = b"120000";
pub(super) const MAX_ENTRIES: usize = 500_000;
/// Bytes of the list of the commit's files.
const MAX_LIST: u64 = 128 << 20;
/// Searches for links, at most: one that is moved away can make another lead somewhere.
const MAX_SEARCHES: usize = 8;

/// Pinned files of a repository.
#[derive(Debug)]
pub(crate) struct Pins {
    pub(crate) git: Git,
    pub(crate) base: Base,
    /// Globs, from the root of the repository.
    pub(crate) patterns: Vec<String>,
    /// Objects that have the commit, which the agent cannot write.
    pub(crate) objects: PathBuf,
    /// Folder for the repository that writes the files.
    pub(crate) folder: PathBuf,
    /// Folder on their disk that no program of the attempt may write.
    pub(crate) own: PathBuf,
}

impl Pins {
    /// Puts the files of the commit that the task started from in the place of the agent's, or of what a check has made of them.
    pub(crate) async fn put(&self, stop: &mut watch::Receiver<Option<Stop>>) -> Result<(), GitError> {
        match self.try_put(stop).await {
            Ok(()) => Ok(()),
            Err(failed) => {
                self.release().await?;
                Err(self.attribute(failed).await)
            }
        }
    }

    async fn try_put(&self, stop: &mut watch::Receiver<Option<Stop>>) -> Result<(), GitError> {
        let git = self.repository(stop).await?;
        git.run(&["read-tree", &self.base.commit], stop).await?;
        let empty = git.run(&["hash-object", "-t", "tree", "/dev/null"], stop).await?;
        let list = self.folder.join("files");
        let output = format!("--output={}", list.display());
        let args = ["diff", "--raw", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules", &output];
        let args: Vec<_> = args.into_iter().chain([empty.as_str(), &self.base.commit, "--"]).collect();
        git.run(&args, stop).await?;
        let (globs, patterns) = (self.globs()?, self.patterns()?);
        let listed = listed(&list, &globs).await.map_err(|error| self.failed(&error))?;
        let workspace = self.git.directory.clone();
        let moved =
            tokio::task::spawn_blocking(move || move_away(&workspace, &globs, &patterns, listed)).await;
        let wanted = self.moved(moved)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let bytes: Vec<_> =
            wanted.iter().flat_map(|name| [name.as_os_str().as_bytes(), &[0]].concat()).collect();
        tokio::fs::write(&list, bytes).await.map_err(|error| self.failed(&error))?;
        let source = format!("--source={}", self.base.commit);
        let list = format!("--pathspec-from-file={}", list.display());
        let args = ["--literal-pathspecs", "restore", &source, "--worktree", &list, "--pathspec-file-nul"];
        git.run(&args, stop).await.map(drop)
    }

    /// Puts the agent's files back, if others are in their place.
    pub(crate) async fn release(&self) -> Result<(), GitError> {
        match self.try_release().await {
            Ok(()) => Ok(()),
            Err(failed) => Err(self.attribute(failed).await),
        }
    }

    async fn try_release(&self) -> Result<(), GitError> {
        let (workspace, globs) = (self.git.directory.clone(), self.globs()?);
        self.moved(tokio::task::spawn_blocking(move || put_back(&workspace, &globs)).await)
    }

    fn globs(&self) -> Result<GlobSet, GitError> {
        globs(&self.patterns).map_err(|error| self.git.failed(Cause::Task, error.to_string()))
    }

    fn patterns(&self) -> Result<Patterns, GitError> {
        Patterns::new(&self.patterns).map_err(|error| self.git.failed(Cause::Task, error.to_string()))
    }

    fn moved<T>(&self, moved: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, GitError> {
        moved.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> GitError {
        // All else an agent can bring about, such as a folder that is a link to itself.
        let cause = if program_dir::is_of_machine(error) { Cause::Machine } else { Cause::Task };
        self.git.failed(cause, format!("failed to exchange the pinned files: {error}"))
    }

    /// Returns whose fault it is that something has failed: not that of the task if the disk takes no files.
    async fn attribute(&self, failed: GitError) -> GitError {
        let GitError::Failed { cause: Cause::Task, failure } = &failed else { return failed };
        match probe_in_time(self.own.clone()).await {
            Ok(()) => failed,
            Err(error) => {
                let text = format!("{}; the disk does not take files: {error}", failure.message);
                self.git.failed(Cause::Machine, text)
            }
        }
    }

    /// Creates the repository that writes the files, with settings and a home of its own. Again each time: what runs in between
    /// could have changed it.
    async fn repository(&self, stop: &mut watch::Receiver<Option<Stop>>) -> Result<Git, GitError> {
        remove::all(self.folder.clone()).await;
        tokio::fs::create_dir(&self.folder).await.map_err(|error| self.failed(&error))?;
        let mut git = Git { home: self.folder.clone(), ..self.git.within(&self.folder) };
        let own = self.folder.join("repository");
        tokio::fs::create_dir_all(own.join("info")).await.map_err(|error| self.failed(&error))?;
        borrowing(&git.within(&own), &self.objects, stop).await?;
        // These attributes outrank those in the workspace.
        let plain = "* -text !eol -ident -filter !working-tree-encoding\n";
        tokio::fs::write(own.join("info/attributes"), plain).await.map_err(|error| self.failed(&error))?;
        for (name, path) in [("GIT_DIR", &own), ("GIT_WORK_TREE", &self.git.directory)] {
            git.environment.0.insert(name.to_owned(), path.to_string_lossy().into_owned());
        }
        Ok(git.within(&self.git.directory))
    }
}

/// Files of the commit that the task started from.
#[derive(Debug, Default)]
struct Listed {
    pinned: BTreeSet<PathBuf>,
    links: BTreeSet<PathBuf>,
}

/// Reads a list of the commit's files, which git has written.
async fn listed(list: &Path, globs: &GlobSet) -> io::Result<Listed> {
    if tokio::fs::symlink_metadata(list).await?.len() > MAX_LIST {
        return Err(io::Error::other("there are too many files"));
    }
    let all = tokio::fs::read(list).await?;
    let mut listed = Listed::default();
    let mut fields = all.split(|byte| *byte == 0);
    while let (Some(modes), Some(name)) = (fields.next(), fields.next()) {
        let name = Path::new(OsStr::from_bytes(name));
        if globs.is_match(name) {
            listed.pinned.insert(name.to_owned());
        }
        if modes.split(|byte| *byte == b' ').nth(1) == Some(LINK) {
            listed.links.insert(name.to_owned());
        }
    }
    Ok(listed)
}

/// Moves all pinned files away, whatever is in the place of a folder of those that come, and links that hide files. Returns the
/// files of the commit that come.
fn move_away(
    workspace: &Path,
    globs: &GlobSet,
    patterns: &Patterns,
    listed: Listed,
) -> io::Result<BTreeSet<PathBuf>> {
    let root = workspace;
    let workspace = program_dir::open(root)?;
    put_back_in(&workspace, globs)?;
    workspace.create_dir_all(AWAY)?;
    let Listed { pinned: mut coming, links } = listed;
    let in_the_way = |path: &Path| {
        let is_folder_of_one =
            coming.range(path.to_owned()..).next().is_some_and(|name| name.starts_with(path));
        is_folder_of_one || path.ancestors().any(|folder| coming.contains(folder))
    };
    for path in files(&workspace, |path| globs.is_match(path) || in_the_way(path))? {
        rename(&workspace, &path, &Path::new(AWAY).join(&path))?;
    }
    for search in 0.. {
        let hiding = pin_links::hiding(root, patterns, &links)?;
        if hiding.is_empty() {
            break;
        }
        if search == MAX_SEARCHES {
            return Err(io::Error::other("links lead to links that were moved away"));
        }
        for path in hiding {
            rename(&workspace, &path, &Path::new(AWAY).join(&path))?;
            if links.contains(&path) {
                coming.insert(path);
            }
        }
    }
    workspace.write(COMPLETE, "")?;
    Ok(coming)
}

/// Puts what was moved away back, in the place of what is there now.
fn put_back(workspace: &Path, globs: &GlobSet) -> io::Result<()> {
    put_back_in(&program_dir::open(workspace)?, globs)
}

fn put_back_in(workspace: &Dir, globs: &GlobSet) -> io::Result<()> {
    let away = match workspace.open_dir(AWAY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        away => away?,
    };
    // Otherwise those that are there are the agent's.
    if workspace.symlink_metadata(COMPLETE).is_ok() {
        for path in files(workspace, |path| globs.is_match(path))? {
            workspace.remove_file(path)?;
        }
        workspace.remove_file(COMPLETE)?;
    }
    for path in files(&away, |_| true)? {
        // A folder of files that were pinned may be where a link was.
        if workspace.symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            workspace.remove_dir_all(&path)?;
        }
        rename(workspace, &Path::new(AWAY).join(&path), &path)?;
    }
    workspace.remove_dir_all(FOLDER)
}

fn rename(within: &Dir, from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        within.create_dir_all(parent)?;
    }
    within.rename(from, within, to)
}

/// Returns the files below a folder that are wanted, also ignored ones and links, but not those of its repository.
fn files(folder: &Dir, wanted: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut folders, mut entries) = (Vec::new(), vec![PathBuf::new()], 0);
    while let Some(path) = folders.pop() {
        let listed = match path.as_os_str().is_empty() {
            true => folder.entries()?,
            false => folder.read_dir(&path)?,
        };
        for entry in listed {
            let entry = entry?;
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(io::Error::other("the workspace has too many files"));
            }
            let inner = path.join(entry.file_name());
            if !entry.file_type()?.is_dir() {
                found.extend(Some(inner).filter(|inner| wanted(inner)));
            } else if inner != Path::new(".git") {
                folders.push(inner);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rota_telemetry::redact::Redactor;

    use super::*;
    use crate::supervise::Environment;

    fn workspace(all: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [(".git/HEAD", "x")].iter().chain(all) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn away(root: &tempfile::TempDir, coming: &[&str]) -> GlobSet {
        let all = ["tests/**".to_owned()];
        let globs = globs(&all).unwrap();
        let listed = Listed { pinned: coming.iter().map(PathBuf::from).collect(), ..Listed::default() };
        move_away(root.path(), &globs, &Patterns::new(&all).unwrap(), listed).unwrap();
        globs
    }

    fn names(root: &tempfile::TempDir) -> Vec<String> {
        let folder = program_dir::open(root.path()).unwrap();
        let mut names: Vec<_> =
            files(&folder, |_| true).unwrap().iter().map(|path| path.display().to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_exchanged_and_put_back() {
        let all = [("tests/a", "agent"), ("tests/deep/.git/b", "agent"), ("src/c", "agent")];
        let root = workspace(&all);
        let globs = away(&root, &["tests/a"]);
        assert_eq!(names(&root), ["src/c"]);
        fs::write(root.path().join("tests/a"), "base").unwrap();
        fs::write(root.path().join("tests/made"), "by a check").unwrap();
        put_back(root.path(), &globs).unwrap();
        assert_eq!(names(&root), ["src/c", "tests/a", "tests/deep/.git/b"]);
        assert_eq!(fs::read_to_string(root.path().join("tests/a")).unwrap(), "agent");
        assert!(!root.path().join(FOLDER).exists());
        put_back(root.path(), &globs).unwrap();
    }

    #[test]
    fn interrupted_exchange_loses_nothing() {
        let root = workspace(&[("tests/a", "agent"), ("tests/b", "agent")]);
        let globs = globs(&["tests/**".to_owned()]).unwrap();
        // While files were moved away.
        fs::create_dir_all(root.path().join(AWAY).join("tests")).unwrap();
        fs::rename(root.path().join("tests/a"), root.path().join(AWAY).join("tests/a")).unwrap();
        put_back(root.path(), &globs).unwrap();
        assert_eq!(names(&root), ["tests/a", "tests/b"]);
        // While they were put back.
        away(&root, &[]);
        fs::remove_file(root.path().join(COMPLETE)).unwrap();
        fs::rename(root.path().join(AWAY).join("tests/a"), root.path().join("tests/a")).unwrap();
        put_back(root.path(), &globs).unwrap();
        assert_eq!(names(&root), ["tests/a", "tests/b"]);
    }

    #[test]
    fn links_in_place_of_folders_are_moved() {
        let root = workspace(&[("own/run", "agent")]);
        std::os::unix::fs::symlink("own", root.path().join("tests")).unwrap();
        let globs = away(&root, &["tests/run"]);
        assert_eq!(names(&root), ["own/run"]);
        fs::create_dir(root.path().join("tests")).unwrap();
        fs::write(root.path().join("tests/run"), "base").unwrap();
        put_back(root.path(), &globs).unwrap();
        assert_eq!(names(&root), ["own/run", "tests"]);
        assert_eq!(fs::read_to_string(root.path().join("tests/run")).unwrap(), "agent");
    }

    #[tokio::test]
    async fn disk_that_takes_no_files_is_no_fault_of_the_task() {
        let root = workspace(&[(".git/rota-pinned/files", "of the agent, in place of the folder")]);
        let state = tempfile::tempdir().unwrap();
        let git = Git {
            directory: root.path().to_owned(),
            home: state.path().to_owned(),
            url: String::new(),
            network: None,
            environment: Environment::default(),
            redactor: Redactor::default(),
        };
        let released = async |own: PathBuf| {
            let base = Base { commit: String::new(), branch: String::new() };
            let (git, folder) = (git.clone(), state.path().join("pins"));
            let pins = Pins { git, base, patterns: Vec::new(), objects: PathBuf::new(), folder, own };
            match pins.release().await {
                Err(GitError::Failed { cause, .. }) => cause,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(released(state.path().to_owned()).await, Cause::Task);
        // As a disk that is away.
        assert_eq!(released(state.path().join("away")).await, Cause::Machine);
    }
}
