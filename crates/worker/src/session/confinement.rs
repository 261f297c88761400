//! What the programs of an attempt may open: its own directories, and the system's without what belongs to the worker or
//! to people. Reads directories, and nothing else of the system.

use std::path::{Path, PathBuf};

use crate::supervise::Jail;

/// Directories at the root that hold private or shared state, and those of which only parts are opened.
const CLOSED_ROOTS: [&str; 10] =
    ["/dev", "/home", "/lost+found", "/media", "/mnt", "/root", "/run", "/srv", "/tmp", "/var"];
/// Parts of them that programs need: addresses of name servers and, for some distributions, certificates.
const OPEN_PARTS: [&str; 4] =
    ["/run/systemd/resolve", "/run/resolvconf", "/var/lib/ca-certificates", "/var/cache/fontconfig"];
/// Levels below a directory at which private paths are looked for.
const MAX_DEPTH: usize = 16;

/// Confinement of a worker's attempts. Nothing that a task chooses widens it but its own directories.
#[derive(Debug, Clone)]
pub(super) struct Confinement {
    /// What the worker alone may open: its state, secrets and token. As given, and with links resolved.
    private: Vec<PathBuf>,
    /// Home of the worker's user, unless it is the root.
    home: Option<PathBuf>,
    /// What every attempt may read, and write.
    common: Jail,
}

/// Paths that the administrator of a worker gives.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// What the worker alone may open. Need not exist yet.
    pub(super) private: Vec<PathBuf>,
    /// What every attempt may read and write besides.
    pub(super) read: Vec<PathBuf>,
    pub(super) write: Vec<PathBuf>,
    /// Directories of programs, in order.
    pub(super) search: Vec<PathBuf>,
    /// The agent's program: a path, or a name in `search`.
    pub(super) program: PathBuf,
    pub(super) home: PathBuf,
}

/// The working directory of a task overlaps with what belongs to the worker alone.
#[derive(Debug, thiserror::Error)]
#[error("no attempt may work in {directory}, which contains {private} or is part of it", directory = .directory.display(), private = .private.display())]
pub(super) struct Overlap {
    directory: PathBuf,
    private: PathBuf,
}

impl Confinement {
    pub(super) fn new(paths: &Paths) -> Self {
        let resolved =
            |paths: &[PathBuf]| paths.iter().filter_map(|path| path.canonicalize().ok()).collect::<Vec<_>>();
        let mut private = resolved(&paths.private);
        private.extend(paths.private.iter().cloned());
        // A home at an unusual place; that of users without one may be the root.
        let homes = [paths.home.clone()].into_iter().chain(resolved(std::slice::from_ref(&paths.home)));
        let closed: Vec<PathBuf> = CLOSED_ROOTS
            .iter()
            .map(PathBuf::from)
            .chain(homes.filter(|home| home.components().count() > 1))
            .chain(private.iter().cloned())
            .collect();
        let mut read = Vec::new();
        for path in resolved(&paths.read) {
            open(path, &private, &mut read, 0);
        }
        let mut write = Vec::new();
        for path in resolved(&paths.write) {
            open(path, &private, &mut write, 0);
        }
        for root in resolved(&children(Path::new("/")).collect::<Vec<_>>()) {
            open(root, &closed, &mut read, 0);
        }
        let parts = OPEN_PARTS.iter().map(PathBuf::from);
        let programs = paths
            .search
            .iter()
            .flat_map(|entry| installed(entry, &closed))
            .chain(installation(&paths.program, &paths.search));
        for path in resolved(&parts.chain(programs).collect::<Vec<_>>()) {
            open(path, &private, &mut read, 0);
        }
        let home = paths.home.canonicalize().ok().filter(|home| home.components().count() > 1);
        Self { private, home, common: Jail { read, write } }
    }

    /// Returns the jail of an attempt with directories of its `own`, that works `in_place`, if it does.
    pub(super) fn jail(&self, own: &[&Path], in_place: Option<&Path>) -> Result<Jail, Overlap> {
        let mut jail = self.common.clone();
        jail.write.extend(own.iter().map(|path| path.to_path_buf()));
        if let Some(directory) = in_place {
            jail.write.push(self.in_place(directory)?);
        }
        Ok(jail)
    }

    /// Returns the root of the git repository that a working directory is part of, so that it can be committed to, or the
    /// directory itself.
    pub(super) fn in_place(&self, directory: &Path) -> Result<PathBuf, Overlap> {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let overlap = |path: &Path| {
            self.private.iter().find(|private| private.starts_with(path) || path.starts_with(private))
        };
        if let Some(private) = overlap(&directory) {
            return Err(Overlap { private: private.clone(), directory });
        }
        if let Some(closed) = self.part_of_home(&directory) {
            return Err(Overlap { private: closed, directory });
        }
        let root = directory.ancestors().find(|path| path.join(".git").exists());
        let fits = |root: &&Path| overlap(root).is_none() && self.part_of_home(root).is_none();
        Ok(root.filter(fits).unwrap_or(&directory).to_owned())
    }

    /// Returns the home that a directory contains, or the hidden directory of a home that it is part of: what is there, such
    /// as keys and the settings of programs, is not of one project. The administrator may open it.
    fn part_of_home(&self, directory: &Path) -> Option<PathBuf> {
        let home = self
            .home
            .as_ref()
            .filter(|_| !self.common.write.iter().any(|open| directory.starts_with(open)))?;
        if home.starts_with(directory) {
            return Some(home.clone());
        }
        let first = directory.strip_prefix(home).ok()?.components().next()?;
        let is_hidden = first.as_os_str().as_encoded_bytes().first() == Some(&b'.');
        is_hidden.then(|| home.join(first))
    }
}

/// Adds a path, or those of its children that contain nothing that is closed.
fn open(path: PathBuf, closed: &[PathBuf], opened: &mut Vec<PathBuf>, depth: usize) {
    if closed.iter().any(|closed| path.starts_with(closed)) || depth > MAX_DEPTH {
        return;
    }
    if closed.iter().any(|closed| closed.starts_with(&path)) {
        // A link could lead to what is closed.
        let children = children(&path).filter(|child| !child.is_symlink());
        children.for_each(|child| open(child, closed, opened, depth + 1));
    } else if !opened.iter().any(|open| path.starts_with(open)) {
        opened.push(path);
    }
}

/// Returns the entries of a directory, none if it cannot be read.
fn children(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Returns what an entry of PATH consists of: `/opt/node` for `/opt/node/bin`, if that has libraries. In a home, or wherever
/// else is closed, these alone: `~/.local` contains more than programs.
fn installed(entry: &Path, closed: &[PathBuf]) -> Vec<PathBuf> {
    let Some(parent) = entry.parent().filter(|parent| parent.components().count() > 2) else {
        return vec![entry.to_owned()];
    };
    if parent.join("lib").is_dir() && !closed.iter().any(|closed| parent.starts_with(closed)) {
        return vec![parent.to_owned()];
    }
    let libraries = ["lib", "lib64", "libexec"].map(|name| parent.join(name));
    libraries.into_iter().chain([entry.to_owned()]).collect()
}

/// Returns what is read to run a program: its package, or the directory of its file.
fn installation(program: &Path, search: &[PathBuf]) -> Option<PathBuf> {
    let path = if program.components().count() > 1 {
        program.to_owned()
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
        for directory in ["tools/bin", "tools/state/secrets", "tools/lib", "work"] {
            std::fs::create_dir_all(home.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(home.join("tools/state"), home.join("tools/link")).unwrap();
        let paths = Paths {
            private: vec![home.join("tools/state"), home.join("tools/later")],
            search: vec![home.join("tools/bin")],
            home: home.join("work/home"),
            ..Paths::default()
        };
        let confinement = Confinement::new(&paths);

        let work = home.join("work");
        let jail = confinement.jail(&[&work], None).unwrap();

        assert_eq!(jail.write, std::slice::from_ref(&work));
        let readable = |path: &Path| jail.read.iter().any(|open| path.starts_with(open));
        assert!(readable(&home.join("tools/bin")));
        assert!(readable(&home.join("tools/lib")));
        assert!(readable(&Path::new("/usr/bin/env").canonicalize().unwrap()));
        for closed in ["tools/state", "tools/state/secrets", "tools/link", "tools/later", "other"] {
            assert!(!readable(&home.join(closed)), "{closed}");
        }
        assert!(!readable(Path::new("/var/run/rota")) && !readable(Path::new("/run/rota")));
    }

    #[test]
    fn programs_in_a_home_open_nothing_else_of_it() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for directory in ["bin", "lib", "share/keyrings", "state"] {
            std::fs::create_dir_all(home.join(".local").join(directory)).unwrap();
        }
        let search = vec![home.join(".local/bin")];
        let jail = Confinement::new(&Paths { search, home: home.clone(), ..Paths::default() });
        let jail = jail.jail(&[], None).unwrap();
        let opened: Vec<_> = jail.read.iter().filter(|open| open.starts_with(&home)).collect();
        assert_eq!(opened, [&home.join(".local/lib"), &home.join(".local/bin")]);
    }

    #[test]
    fn what_the_administrator_opens_is_not_private() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["run/secrets", "run/other"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let paths = Paths {
            private: vec![root.join("run/secrets")],
            read: vec![root.clone()],
            write: vec![root.join("run")],
            ..Paths::default()
        };
        let jail = Confinement::new(&paths).jail(&[], None).unwrap();
        assert_eq!(jail.write, [root.join("run/other")]);
        assert!(!jail.read.iter().any(|open| root.join("run/secrets").starts_with(open)));
    }

    #[test]
    fn unusual_homes_are_closed() {
        let paths = Paths { home: PathBuf::from("/usr/share"), ..Paths::default() };
        let jail = Confinement::new(&paths).jail(&[], None).unwrap();
        let readable = |path: &str| jail.read.iter().any(|open| Path::new(path).starts_with(open));
        assert!(readable("/usr/bin") && !readable("/usr/share") && !readable("/usr/share/doc"));
    }

    #[test]
    fn in_place_directories_do_not_overlap_with_private_ones() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["repo/.git", "repo/crates/one", "other/state/inner"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let confinement =
            Confinement::new(&Paths { private: vec![root.join("other/state")], ..Paths::default() });

        assert_eq!(confinement.in_place(&root.join("repo/crates/one")).unwrap(), root.join("repo"));
        assert!(confinement.in_place(&root.join("other")).is_err());
        assert!(confinement.in_place(&root.join("other/state/inner")).is_err());
    }

    #[test]
    fn homes_are_no_projects() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for directory in [".git", ".ssh", ".config/systemd", "project/.hidden", ".open/project"] {
            std::fs::create_dir_all(home.join(directory)).unwrap();
        }
        let write = vec![home.join(".open")];
        let confinement = Confinement::new(&Paths { home: home.clone(), write, ..Paths::default() });
        for closed in [".ssh", ".config/systemd", "."] {
            assert!(confinement.in_place(&home.join(closed)).is_err(), "{closed}");
        }
        assert!(confinement.in_place(home.parent().unwrap()).is_err());
        // A repository of the whole home does not open it.
        assert_eq!(confinement.in_place(&home.join("project")).unwrap(), home.join("project"));
        assert!(confinement.in_place(&home.join("project/.hidden")).is_ok());
        assert!(confinement.in_place(&home.join(".open/project")).is_ok());
    }
}
