//! Place of the services of the API in the server: behind all other modules, which do not use them. A circle makes them one module, of
//! which no part can be understood or tested alone.

use std::collections::BTreeSet;

use anyhow::Context;

use crate::workspace;

const FOLDER: &str = "crates/server/src";
const SERVICES: &str = "crate::grpc";
/// What starts the services, and they themselves.
const ABOVE: [&str; 3] = ["grpc/", "server/", "server.rs"];

/// Files that use the services nevertheless: what of them, and so what is to be moved.
const AGAINST: [(&str, &str); 4] = [
    ("background/mod.rs", "the report of the state"),
    ("code_flow.rs", "the registry of browser sessions"),
    ("schedules/driver.rs", "the creation of workflows"),
    ("workflows/nested.rs", "reads of templates"),
];

/// Returns a problem for each other module that uses the services, and for each exception that nothing needs.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let root = workspace::root().join(FOLDER);
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("failed to read {folder:?}"))? {
            let path = entry?.path();
            if path.file_stem().is_some_and(|name| name == "tests") {
                continue;
            } else if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(&root)?.to_string_lossy().into_owned();
            let is_above = ABOVE.iter().any(|above| file.starts_with(above));
            if !is_above && uses_services(&std::fs::read_to_string(&path)?) {
                found.insert(file);
            }
        }
    }
    Ok(problems(&found))
}

/// Whether a file uses the services, besides in its tests.
fn uses_services(text: &str) -> bool {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//")).any(|line| line.contains(SERVICES))
}

fn problems(found: &BTreeSet<String>) -> Vec<String> {
    let unknown = found.iter().filter(|file| AGAINST.iter().all(|known| known.0 != file.as_str()));
    let unknown =
        unknown.map(|file| format!("{FOLDER}/{file} uses `{SERVICES}`, which uses all other modules"));
    let unused = AGAINST.iter().filter(|known| !found.contains(known.0));
    let unused = unused.map(|(file, _)| format!("the exception for {FOLDER}/{file} is unused"));
    unknown.chain(unused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_besides_tests_are_found() {
        assert!(uses_services("use crate::wire;\nuse crate::grpc::Workflows;"));
        assert!(uses_services("    crate::grpc::grants::check()"));
        assert!(!uses_services("// crate::grpc\nuse crate::wire;\n#[cfg(test)]\nuse crate::grpc::Streams;"));
    }

    #[test]
    fn exceptions_are_of_use() {
        let mut found: BTreeSet<_> = AGAINST.iter().map(|known| known.0.to_owned()).collect();
        assert!(problems(&found).is_empty());
        found.remove("code_flow.rs");
        found.insert("seal.rs".to_owned());
        let problems = problems(&found);
        assert!(problems.len() == 2 && problems[0].contains("seal.rs uses `crate::grpc`"), "{problems:?}");
        assert!(problems[1].contains("code_flow.rs is unused"), "{problems:?}");
    }
}
