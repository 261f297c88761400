//! Order of the main modules of the worker: each uses only those before it. A circle makes them one module, of which no part can be
//! understood or tested alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;

use crate::workspace;

const FOLDER: &str = "crates/worker/src";
const ORDER: &[&str] = &[
    "layout",
    "report",
    "sanitize",
    "tail",
    "program_dir",
    "supervise",
    "files",
    "git",
    "runtimes",
    "workspace",
    "artifacts",
    "session",
];

/// Returns a problem for each module that uses one which comes later, and for each that is not there.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let root = workspace::root().join(FOLDER);
    let mut found = BTreeMap::new();
    for &module in ORDER {
        let file = root.join(module).with_extension("rs");
        let mut paths = vec![if file.exists() { file } else { root.join(module) }];
        while let Some(path) = paths.pop() {
            if path.file_stem().is_some_and(|name| name == "tests") {
                continue;
            } else if path.is_dir() {
                let entries = std::fs::read_dir(&path).with_context(|| format!("failed to read {path:?}"))?;
                for entry in entries {
                    paths.push(entry?.path());
                }
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path:?}"))?;
            let file = path.strip_prefix(&root)?;
            for other in against(module, &text) {
                found.entry((module, other)).or_insert_with(|| file.to_owned());
            }
        }
    }
    Ok(problems(&found))
}

/// Returns the modules that a file of this one uses against the order, besides in its tests.
fn against<'a>(module: &str, text: &'a str) -> impl Iterator<Item = &'static str> + use<'a> {
    let at = ORDER.iter().position(|one| *one == module).unwrap_or_default();
    let lines: Vec<_> = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let uses = move |other: &str| {
        let (path, whole) = (format!("crate::{other}::"), format!("crate::{other};"));
        lines.iter().any(|line| line.contains(&path) || line.contains(&whole) || imports(line, other))
    };
    ORDER[at + 1..].iter().copied().filter(move |other| uses(other))
}

/// Whether a line imports a module with others: `use crate::{git, workspace};`.
fn imports(line: &str, module: &str) -> bool {
    let names = line.trim_start().strip_prefix("use crate::{").and_then(|names| names.strip_suffix("};"));
    names.is_some_and(|names| names.split(", ").any(|name| name == module))
}

fn problems(found: &BTreeMap<(&str, &str), PathBuf>) -> Vec<String> {
    let of = |((_, other), file): (&(&str, &str), &PathBuf)| {
        format!("{FOLDER}/{} uses `{other}`, which comes later: {}", file.display(), ORDER.join(" < "))
    };
    found.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_modules_are_found() {
        let text = "use crate::supervise::Group;\nuse crate::session;\n// crate::artifacts::x\n    crate::runtimes::x();\n\
                    use crate::{layout, workspace};\n#[cfg(test)]\nuse crate::artifacts::y;";
        assert_eq!(against("git", text).collect::<Vec<_>>(), ["runtimes", "workspace", "session"]);
        assert_eq!(against("session", text).count(), 0);
    }

    #[test]
    fn imports_against_the_order_are_problems() {
        let found = BTreeMap::from([(("git", "session"), PathBuf::from("git/a.rs"))]);
        let problems = problems(&found);
        assert!(problems.len() == 1 && problems[0].contains("git/a.rs uses `session`"), "{problems:?}");
        assert!(super::problems(&BTreeMap::new()).is_empty());
    }

    /// A module that is renamed must not pass unseen.
    #[test]
    fn modules_of_the_worker_keep_the_order() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }
}
