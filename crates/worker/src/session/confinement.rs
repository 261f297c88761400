//! What the programs of an attempt may open: its own directories, and the system's without what belongs to the worker or
//! to people. Reads directories, and nothing else of the system.

use std::path::{Path, PathBuf};

use crate::runtimes::Environment;
use crate::supervise::Jail;

/// Directories at the root that hold private or shared state, and those of which only parts are opened.
const CLOSED_ROOTS: [&str; 10] =
    ["/dev", "/home", "/lost+found", "/media", "/mnt", "/root", "/run", "/srv", "/tmp", "/var"];
/// Parts of them that programs need: addresses of name servers and, for some distributions, certificates.
const OPEN_PARTS: [&str; 4] =
    ["/run/systemd/resolve", "/run/resolvconf", "/var/lib/ca-certificates", "/var/cache/fontconfig"];
/// Levels below a directory at which private paths are looked for.
const MAX_DEPTH: usize = 16;

/// Confinement of a worker's attempts.
#[derive(Debug, Clone)]
pub(super) struct Confinement {
    /// What the worker alone may open: its state, secrets and token.
    private: Vec<PathBuf>,
    /// What every attempt may read, and write.
    common: Jail,
}

/// The working directory of a task contains what belongs to the worker alone.
#[derive(Debug, thiserror::Error)]
#[error("{directory} contains {private}, which no attempt may open; choose a directory below it", directory = .directory.display(), private = .private.display())]
pub(super) struct Overlap {
    directory: PathBuf,
    private: PathBuf,
}

impl Confinement {
    /// Creates the confinement. Paths that do not exist are ignored.
    pub(super) fn new(private: &[PathBuf], read: &[PathBuf], write: &[PathBuf]) -> Self {
        let existing = |paths: &[PathBuf]| paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let mut confinement = Self {
            private: existing(private),
            common: Jail { read: existing(read), write: existing(write) },
        };
        let mut opened = std::mem::take(&mut confinement.common.read);
        let roots = children(Path::new("/"))
            .filter(|root| !CLOSED_ROOTS.iter().any(|closed| root.ends_with(&closed[1..])));
        for path in roots.chain(OPEN_PARTS.iter().map(PathBuf::from)) {
            if let Ok(path) = path.canonicalize() {
                confinement.open(path, &mut opened, 0);
            }
        }
        confinement.common.read = opened;
        confinement
    }

    /// Returns the jail of an attempt with directories of its `own`, that works `in_place`, if it does, and whose
    /// programs include `program`.
    pub(super) fn jail(
        &self,
        own: &[&Path],
        in_place: Option<&Path>,
        environment: &Environment,
        program: Option<&str>,
    ) -> Result<Jail, Overlap> {
        let mut jail = self.common.clone();
        let search: Vec<PathBuf> =
            environment.0.get("PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        let programs = program.and_then(|name| installation(name, &search));
        for path in search.iter().map(|entry| prefix(entry)).chain(programs) {
            if let Ok(path) = path.canonicalize() {
                self.open(path, &mut jail.read, 0);
            }
        }
        jail.write.extend(own.iter().map(|path| path.to_path_buf()));
        if let Some(directory) = in_place {
            jail.write.push(self.in_place(directory)?);
        }
        Ok(jail)
    }

    /// Returns the root of the git repository that a working directory is part of, so that it can be committed to, or the
    /// directory itself.
    fn in_place(&self, directory: &Path) -> Result<PathBuf, Overlap> {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let contained = |path: &Path| self.private.iter().find(|private| private.starts_with(path));
        if let Some(private) = contained(&directory) {
            return Err(Overlap { private: private.clone(), directory });
        }
        let root = directory.ancestors().find(|path| path.join(".git").exists());
        Ok(root.filter(|root| contained(root).is_none()).unwrap_or(&directory).to_owned())
    }

    /// Adds a path, or those of its children that contain nothing private.
    fn open(&self, path: PathBuf, opened: &mut Vec<PathBuf>, depth: usize) {
        if self.private.iter().any(|private| path.starts_with(private)) || depth > MAX_DEPTH {
            return;
        }
        if self.private.iter().any(|private| private.starts_with(&path)) {
            children(&path).for_each(|child| self.open(child, opened, depth + 1));
        } else if !opened.iter().any(|open| path.starts_with(open)) {
            opened.push(path);
        }
    }
}

/// Returns the entries of a directory, none if it cannot be read.
fn children(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Returns the directory that an entry of PATH is part of: `/opt/node` for `/opt/node/bin`, if that has libraries.
/// Otherwise the entry itself: the parent of `~/.cargo/bin` contains more than programs.
fn prefix(entry: &Path) -> PathBuf {
    match entry.parent() {
        Some(parent) if parent.join("lib").is_dir() && parent.components().count() > 3 => parent.to_owned(),
        _ => entry.to_owned(),
    }
}

/// Returns what is read to run a program: its package, or the directory of its file.
fn installation(program: &str, search: &[PathBuf]) -> Option<PathBuf> {
    let path = if program.contains('/') {
        PathBuf::from(program)
    } else {
        search.iter().map(|entry| entry.join(program)).find(|path| path.is_file())?
    };
    let file = path.canonicalize().ok()?;
    let package = file.ancestors().filter(|path| path.ends_with("node_modules")).last();
    package.or_else(|| file.parent()).filter(|path| path.components().count() > 2).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_directories_are_left_out() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for directory in ["tools/bin", "tools/state/secrets", "tools/lib"] {
            std::fs::create_dir_all(home.join(directory)).unwrap();
        }
        let environment =
            Environment([("PATH".to_owned(), home.join("tools/bin").to_string_lossy().into_owned())].into());
        let work = home.join("work");
        std::fs::create_dir(&work).unwrap();
        let confinement = Confinement::new(&[home.join("tools/state")], &[], &[]);

        let jail = confinement.jail(&[&work], None, &environment, None).unwrap();

        assert_eq!(jail.write, std::slice::from_ref(&work));
        let readable = |path: &Path| jail.read.iter().any(|open| path.starts_with(open));
        assert!(readable(&home.join("tools/bin")));
        assert!(readable(&home.join("tools/lib")));
        assert!(readable(Path::new("/usr/bin/env")));
        assert!(!readable(&home.join("tools/state")));
        assert!(!readable(&home.join("tools/state/secrets")));
        assert!(!readable(&work.join("../other")));
        assert!(!readable(Path::new("/var/run/rota")));
    }

    #[test]
    fn a_directory_of_a_repository_opens_all_of_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("repo/.git")).unwrap();
        std::fs::create_dir_all(root.join("repo/crates/one")).unwrap();
        std::fs::create_dir_all(root.join("other/state")).unwrap();
        let confinement = Confinement::new(&[root.join("other/state")], &[], &[]);

        assert_eq!(confinement.in_place(&root.join("repo/crates/one")).unwrap(), root.join("repo"));
        assert!(confinement.in_place(&root.join("other")).is_err());
    }
}
