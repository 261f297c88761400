//! Links to folders that give files other names: behind one, an agent could add files that a pattern of pinned files matches by the
//! name of the link alone.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::pinned::MAX_ENTRIES;

/// Alternatives of a pattern, at most; of one with more, any file could be pinned.
const MAX_ALTERNATIVES: usize = 256;

/// Patterns of pinned files, followed name by name: a pattern cannot be asked otherwise whether it could match below a folder.
#[derive(Debug)]
pub(super) struct Patterns(Vec<Vec<Part>>);

#[derive(Debug)]
enum Part {
    /// Any number of folders, also none.
    Folders,
    Name {
        matcher: GlobMatcher,
        is_fixed: bool,
    },
}

/// Parts that have matched so far: pattern, and number of its parts.
type Matched = BTreeSet<(usize, usize)>;

impl Patterns {
    pub(super) fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut all = Vec::new();
        for pattern in patterns {
            for pattern in alternatives(pattern) {
                let mut parts = Vec::new();
                for name in split(&pattern) {
                    parts.push(match name.as_str() {
                        "**" => Part::Folders,
                        name => Part::name(name)?,
                    });
                }
                // All below a folder, but not the folder.
                if let Some(Part::Folders) = parts.last() {
                    parts.push(Part::name("*")?);
                }
                all.push(parts);
            }
        }
        Ok(Self(all))
    }

    fn start(&self) -> Matched {
        (0..self.0.len()).map(|pattern| (pattern, 0)).collect()
    }

    /// Returns what has matched after one name more.
    fn step(&self, matched: &Matched, name: &OsStr) -> Matched {
        let mut next = Matched::new();
        for &(pattern, mut at) in matched {
            let parts = &self.0[pattern];
            while let Some(Part::Folders) = parts.get(at) {
                next.insert((pattern, at));
                at += 1;
            }
            if let Some(Part::Name { matcher, .. }) = parts.get(at)
                && matcher.is_match(Path::new(name))
            {
                next.insert((pattern, at + 1));
            }
        }
        next
    }

    fn is_match(&self, matched: &Matched) -> bool {
        matched.iter().any(|&(pattern, at)| at == self.0[pattern].len())
    }

    /// Whether a file below a folder could match.
    fn leads_on(&self, matched: &Matched) -> bool {
        matched.iter().any(|&(pattern, at)| at < self.0[pattern].len())
    }

    /// Whether the fixed first part of a pattern that could match below a folder is on its path.
    fn is_named(&self, matched: &Matched) -> bool {
        let is_fixed = |parts: &[Part]| matches!(parts.first(), Some(Part::Name { is_fixed: true, .. }));
        matched.iter().any(|&(pattern, at)| at < self.0[pattern].len() && is_fixed(&self.0[pattern]))
    }
}

impl Part {
    fn name(pattern: &str) -> Result<Self, globset::Error> {
        let matcher = GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher();
        Ok(Self::Name { matcher, is_fixed: !pattern.contains(['*', '?', '[', '{', '\\']) })
    }
}

/// Splits a pattern at its slashes, except those within braces.
fn split(pattern: &str) -> Vec<String> {
    let (mut names, mut name, mut depth, mut is_escaped) = (Vec::new(), String::new(), 0_usize, false);
    for letter in pattern.chars() {
        match letter {
            '/' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                continue;
            }
            '{' if !is_escaped => depth += 1,
            '}' if !is_escaped => depth = depth.saturating_sub(1),
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
        name.push(letter);
    }
    names.push(name);
    names.retain(|name| !name.is_empty() && name != ".");
    names
}

/// Returns patterns without slashes within braces that match the same.
fn alternatives(pattern: &str) -> Vec<String> {
    let (mut open, mut all) = (vec![pattern.to_owned()], Vec::new());
    while let Some(pattern) = open.pop() {
        if all.len() + open.len() > MAX_ALTERNATIVES {
            return vec!["**".to_owned()];
        }
        match expand(&pattern) {
            Some(patterns) => open.extend(patterns),
            // What is not understood could match anything.
            None if split(&pattern).iter().any(|name| name.contains('/') || Glob::new(name).is_err()) => {
                return vec!["**".to_owned()];
            }
            None => all.push(pattern),
        }
    }
    all
}

/// Writes out the first braces of a pattern, if there are any with a slash.
fn expand(pattern: &str) -> Option<Vec<String>> {
    if !split(pattern).iter().any(|name| name.contains('/')) {
        return None;
    }
    let (mut depth, mut is_escaped, mut start, mut commas) = (0_usize, false, None, Vec::new());
    for (at, letter) in pattern.char_indices() {
        match letter {
            _ if is_escaped => {}
            '{' => {
                depth += 1;
                start = start.or(Some(at));
            }
            ',' if depth == 1 => commas.push(at),
            '}' if depth == 1 => {
                let start = start?;
                let ends = commas.iter().copied().chain([at]);
                let starts = [start].into_iter().chain(commas.iter().copied());
                let (before, after) = (&pattern[..start], &pattern[at + 1..]);
                let one = |(from, to): (usize, usize)| format!("{before}{}{after}", &pattern[from + 1..to]);
                return Some(starts.zip(ends).map(one).collect());
            }
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    None
}

/// Where a link leads in the end.
enum Target {
    Folder(PathBuf),
    /// To a file, or nowhere.
    Other,
}

/// Looks for links in a workspace.
struct Search<'a> {
    /// Its path, without any links in it.
    workspace: PathBuf,
    patterns: &'a Patterns,
    entries: usize,
    /// Folders without a match, for what has matched up to them.
    searched: HashSet<(PathBuf, Matched)>,
}

/// Returns the links to folders behind which a file has a name that is pinned, and those that the commit has itself (`known`) where it
/// could have one. One that leads out of the workspace, where files are pinned by name, is an error.
pub(super) fn hiding(
    workspace: &Path,
    patterns: &Patterns,
    known: &BTreeSet<PathBuf>,
) -> io::Result<Vec<PathBuf>> {
    let workspace = fs::canonicalize(workspace)?;
    let mut search = Search { workspace, patterns, entries: 0, searched: HashSet::new() };
    let (mut found, mut folders) = (Vec::new(), vec![(PathBuf::new(), patterns.start())]);
    while let Some((folder, matched)) = folders.pop() {
        for (name, kind) in search.list(&search.workspace.join(&folder))? {
            let (path, matched) = (folder.join(&name), patterns.step(&matched, &name));
            if path == Path::new(".git") || !patterns.leads_on(&matched) {
                continue;
            }
            if kind.is_dir() {
                folders.push((path, matched));
            } else if kind.is_symlink()
                && let Target::Folder(target) = resolve(&search.workspace.join(&path))?
                && (known.contains(&path) || search.hides(&path, target, matched)?)
            {
                found.push(path);
            }
        }
    }
    Ok(found)
}

impl Search<'_> {
    /// Whether a file behind a link is pinned by its name.
    fn hides(&mut self, link: &Path, target: PathBuf, matched: Matched) -> io::Result<bool> {
        self.refuse_outside(link, &target, &matched)?;
        let mut folders = vec![(target, matched)];
        while let Some((folder, matched)) = folders.pop() {
            if !self.searched.insert((folder.clone(), matched.clone())) {
                continue;
            }
            for (name, kind) in self.list(&folder)? {
                let (path, matched) = (folder.join(&name), self.patterns.step(&matched, &name));
                if !kind.is_dir() && self.patterns.is_match(&matched) {
                    // Folders that remain have not been searched.
                    self.searched.clear();
                    return Ok(true);
                }
                if !self.patterns.leads_on(&matched) {
                    continue;
                }
                if kind.is_dir() {
                    folders.push((path, matched));
                } else if kind.is_symlink()
                    && let Target::Folder(target) = resolve(&path)?
                {
                    self.refuse_outside(link, &target, &matched)?;
                    folders.push((target, matched));
                }
            }
        }
        Ok(false)
    }

    /// What is outside can change at any time.
    fn refuse_outside(&self, link: &Path, target: &Path, matched: &Matched) -> io::Result<()> {
        if target.starts_with(&self.workspace) || !self.patterns.is_named(matched) {
            return Ok(());
        }
        let text = format!("{} is a link that leads out of the workspace", link.display());
        Err(io::Error::other(text))
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<(std::ffi::OsString, FileType)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(io::Error::other("links lead to too many files"));
            }
            all.push((entry.file_name(), entry.file_type()?));
        }
        Ok(all)
    }
}

fn resolve(link: &Path) -> io::Result<Target> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let found = fs::canonicalize(link).and_then(|target| Ok((fs::metadata(&target)?, target)));
    match found {
        Ok((metadata, target)) if metadata.is_dir() => Ok(Target::Folder(target)),
        Ok(_) => Ok(Target::Other),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Target::Other),
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => Ok(Target::Other),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn patterns(all: &[&str]) -> Patterns {
        Patterns::new(&all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn patterns_match_as_sets_of_globs_do() {
        let all = [
            "tests/**",
            "**/*_test.go",
            "a/*/b.{c,d}",
            "{x/y,z}/*.txt",
            "**",
            "a/**/b",
            "src/{lib/**,*.rs}",
            "[ab]/c",
        ];
        let names = [
            "tests",
            "tests/a",
            "tests/a/b",
            "x_test.go",
            "p/q/x_test.go",
            "a/q/b.c",
            "a/q/r/b.d",
            "x/y/k.txt",
            "z/k.txt",
            "z/y/k.txt",
            "a/b",
            "a/q/r/b",
            "src/lib/q",
            "src/lib",
            "src/m.rs",
            "src/o/m.rs",
            "b/c",
        ];
        for pattern in all {
            let (ours, theirs) = (patterns(&[pattern]), crate::globs::globs(&[pattern.to_owned()]).unwrap());
            for name in names {
                let step = |matched, name| ours.step(&matched, name);
                let matched = Path::new(name).iter().fold(ours.start(), step);
                assert_eq!(ours.is_match(&matched), theirs.is_match(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn links_that_give_pinned_names_are_found() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["own/deep", "src", "other"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("own/test_a"), "").unwrap();
        fs::write(at("other/b"), "").unwrap();
        symlink("../own", at("src/one")).unwrap();
        symlink("../other", at("src/two")).unwrap();
        // Behind two links, one of which leads to itself.
        symlink("../other", at("src/three")).unwrap();
        symlink(".", at("other/loop")).unwrap();
        symlink("../own", at("other/next")).unwrap();
        symlink("/nowhere", at("src/none")).unwrap();
        symlink("own", at("tests")).unwrap();
        let find = |all: &[&str], known: &[&str]| {
            let known = known.iter().map(PathBuf::from).collect();
            let mut found = hiding(root.path(), &patterns(all), &known).map_err(|error| error.to_string())?;
            found.sort();
            Ok::<_, String>(found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(find(&["src/*/test_*"], &[]).unwrap(), ["src/one"]);
        assert_eq!(find(&["src/*/test_*"], &["src/two"]).unwrap(), ["src/one", "src/two"]);
        assert_eq!(find(&["src/*/*/test_*"], &[]).unwrap(), ["src/three", "src/two"]);
        assert_eq!(find(&["src/*/loop/loop/next/test_*"], &[]).unwrap(), ["src/three", "src/two"]);
        assert_eq!(find(&["tests/*.py"], &[]).unwrap(), [""; 0]);
        assert_eq!(find(&["tests/test_*"], &[]).unwrap(), ["tests"]);

        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("test_c"), "").unwrap();
        symlink(outside.path(), at("src/out")).unwrap();
        assert!(find(&["src/*/test_*"], &[]).unwrap_err().contains("src/out"));
        assert_eq!(find(&["other/*"], &[]).unwrap(), [""; 0]);
        assert_eq!(find(&["**/out/test_*"], &[]).unwrap(), ["src/out"]);
    }
}
