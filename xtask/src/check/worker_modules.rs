//! Order of the main modules of the worker: each uses only those before it. A circle makes them one module, of which no part can be
//! understood or tested alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;

use crate::workspace;

const FOLDER: &str = "crates/worker/src";
const ORDER: &[&str] = &["supervise", "workspace", "git", "runtimes", "artifacts", "session"];

/// Imports against the order: who imports what, and what is in the way of moving it.
const AGAINST: [(&str, &str, &str); 3] = [
    ("workspace", "git", "the directories of an attempt include its clone"),
    ("workspace", "runtimes", "names in the scratch directory"),
    ("workspace", "artifacts", "the last checkpoint of an attempt, and what it has left"),
];

/// Returns a problem for each module that imports another one against the order, and for each exception that nothing needs.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let root = workspace::root().join(FOLDER);
    let mut found = BTreeMap::new();
    for &module in ORDER {
        let mut folders = vec![root.join(module)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| format!("failed to read {folder:?}"))? {
                let path = entry?.path();
                if path.file_stem().is_some_and(|name| name == "tests") {
                    continue;
                } else if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path)?;
                let file = path.strip_prefix(&root)?;
                for other in against(module, &text) {
                    found.entry((module, other)).or_insert_with(|| file.to_owned());
                }
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
        lines.iter().any(|line| line.contains(&path) || line.contains(&whole))
    };
    ORDER[at + 1..].iter().copied().filter(move |other| uses(other))
}

fn problems(found: &BTreeMap<(&str, &str), PathBuf>) -> Vec<String> {
    let is_known =
        |module: &str, other: &str| AGAINST.iter().any(|known| (known.0, known.1) == (module, other));
    let unknown = found.iter().filter(|((module, other), _)| !is_known(module, other));
    let unknown = unknown.map(|((_, other), file)| {
        format!("{FOLDER}/{} uses `{other}`, which comes later: {}", file.display(), ORDER.join(" < "))
    });
    let unused = AGAINST.iter().filter(|known| !found.contains_key(&(known.0, known.1)));
    let unused = unused.map(|(module, other, _)| format!("the exception for {module} → {other} is unused"));
    unknown.chain(unused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_modules_are_found() {
        let text = "use crate::supervise::Group;\nuse crate::session;\n// crate::artifacts::x\n    crate::runtimes::x();\n\
                    #[cfg(test)]\nuse crate::artifacts::y;";
        assert_eq!(against("git", text).collect::<Vec<_>>(), ["runtimes", "session"]);
        assert_eq!(against("session", text).count(), 0);
    }

    #[test]
    fn exceptions_are_of_use() {
        let file = || PathBuf::from("a.rs");
        let mut found: BTreeMap<_, _> = AGAINST.iter().map(|known| ((known.0, known.1), file())).collect();
        assert!(problems(&found).is_empty());
        found.remove(&("workspace", "git"));
        found.insert(("git", "session"), file());
        let problems = problems(&found);
        assert!(problems.len() == 2 && problems[0].contains("a.rs uses `session`"), "{problems:?}");
        assert!(problems[1].contains("workspace → git is unused"), "{problems:?}");
    }
}
