//! Files of the worker that open, by their paths, what they write, or open files with flags of their own. A program of an attempt may have put a link where it can write,
//! and the worker has more rights: there it uses `program_dir`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::workspace;

const FOLDER: &str = "crates/worker/src";
/// The module that follows no links.
const HELPER: &str = "program_dir.rs";
/// Calls that follow links to what they write or create, or to a directory, and those that need flags in order not to.
const CALLS: [&str; 12] = [
    "fs::write(",
    "fs::copy(",
    "fs::rename(",
    "fs::create_dir",
    "fs::set_permissions(",
    "fs::OpenOptions::new(",
    "DirBuilder::new(",
    "File::create",
    "File::options(",
    "mkfifo(",
    "open_ambient_dir(",
    // Flags with which `program_dir::open_file` opens what programs may have replaced.
    "custom_flags(",
];

/// Parts of a list of errors that are the machine's fault: lists that differ blame the task for some of them.
const FAULTS: [&str; 2] = ["ErrorKind::StorageFull", "Errno::ENOSPC"];

/// Returns a problem for each file that has such a call and no reason, for each reason without a file, and for each list of faults.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let reasons: BTreeMap<PathBuf, String> = toml::from_str(include_str!("../../worker-files.toml"))?;
    let mut faults = Vec::new();
    let root = workspace::root().join(FOLDER);
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("failed to read {folder:?}"))? {
            let path = entry?.path();
            let is_test = path.file_stem().is_some_and(|name| name == "tests");
            if is_test {
                continue;
            } else if path.is_dir() {
                folders.push(path);
                continue;
            }
            let (text, file) = (std::fs::read_to_string(&path)?, path.strip_prefix(&root)?);
            if file == Path::new(HELPER) {
                continue;
            }
            if lines(&text, &CALLS).next().is_some() {
                found.push(file.to_owned());
            }
            if lines(&text, &FAULTS).next().is_some() {
                faults.push(format!(
                    "{FOLDER}/{} has faults of the machine of its own: use `program_dir::is_of_machine`",
                    file.display()
                ));
            }
        }
    }
    Ok([problems(&reasons, &found), faults].concat())
}

fn problems(reasons: &BTreeMap<PathBuf, String>, found: &[PathBuf]) -> Vec<String> {
    let unknown = found.iter().filter(|file| !reasons.contains_key(*file)).map(|file| {
        format!(
            "{FOLDER}/{} opens files by other means than `program_dir`: use it where programs of attempts may write; otherwise give \
             the reason in xtask/worker-files.toml",
            file.display()
        )
    });
    let unused = reasons.keys().filter(|file| !found.contains(file));
    let unused = unused.map(|file| format!("xtask/worker-files.toml: {} has no such call", file.display()));
    unknown.chain(unused).collect()
}

/// Returns the lines of a file, without its tests, that have one of these.
fn lines<'a>(text: &'a str, all: &[&str]) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//") && all.iter().any(|one| line.contains(one)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_faults_are_found() {
        let text = "match error.kind() {\n    io::ErrorKind::StorageFull | io::ErrorKind::NotFound => true,";
        assert_eq!(lines(text, &FAULTS).count(), 1);
    }

    #[test]
    fn calls_need_a_reason() {
        let text = "use cap_std::fs::OpenOptions;\n// fs::write(\nfs::write(path, text)\nFile::open(path)\n#[cfg(test)]\nfs::copy(a, b)";
        assert_eq!(lines(text, &CALLS).collect::<Vec<_>>(), ["fs::write(path, text)"]);
        let reasons =
            BTreeMap::from([("known.rs".into(), "why".to_owned()), ("removed.rs".into(), "why".to_owned())]);
        let problems = problems(&reasons, &["known.rs".into(), "new.rs".into()]);
        assert!(problems.len() == 2 && problems[0].contains("src/new.rs opens"), "{problems:?}");
        assert!(problems[1].contains("removed.rs has no"), "{problems:?}");
    }
}
