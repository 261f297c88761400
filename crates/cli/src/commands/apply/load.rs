//! Reads manifests from files, directories and standard input, and validates them all. Sends nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rota_crds::{Document, Object, parse};

use crate::exit::{Exit, Failure};
use crate::output::count;

/// Returns all objects of some files, or all problems found in them.
pub fn load(files: &[PathBuf], namespace: &str) -> anyhow::Result<Vec<Object>> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<(&'static str, String, String), String> = BTreeMap::new();
    let mut objects = Vec::new();
    for (source, text) in texts(files)? {
        let documents = match parse(&source, &text) {
            Ok(documents) => documents,
            Err(errors) => {
                problems.extend(errors.iter().map(ToString::to_string));
                continue;
            }
        };
        for Document { object, position } in documents {
            let place = format!("{source}:{position}");
            problems.extend(object.validate().iter().map(|one| format!("{place}: {one}")));
            if object.metadata().name.is_some() {
                let id = (object.kind(), object.namespace(namespace).to_owned(), object.name().to_owned());
                if let Some(before) = seen.insert(id, place.clone()) {
                    problems.push(format!(
                        "{place}: {} {:?} is also defined at {before}",
                        object.kind(),
                        object.name()
                    ));
                }
            }
            objects.push(object);
        }
    }
    if problems.is_empty() {
        if objects.is_empty() {
            return Err(Failure::new(Exit::Failed, "no manifest found").into());
        }
        return Ok(objects);
    }
    let number = count(rota_proto::num::to_i64(problems.len()), "problem");
    let message = format!("invalid manifests: {number} found, nothing was sent");
    Err(Failure::new(Exit::Failed, message).causes(problems).into())
}

/// Returns the name and the text of each source.
fn texts(files: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("failed to read standard input")?;
            texts.push(("-".to_owned(), text));
        } else if file.is_dir() {
            let inside = folder(file)?;
            if inside.is_empty() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("{} contains no .yaml, .yml or .json file", file.display()),
                )
                .into());
            }
            for file in inside {
                texts.push(read(&file)?);
            }
        } else {
            texts.push(read(file)?);
        }
    }
    Ok(texts)
}

fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    Ok((file.display().to_string(), text))
}

/// Returns the manifests of a directory by name. Like kubectl, skips subdirectories.
fn folder(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let fits = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|one| end == *one));
        if fits && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(texts: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in texts {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const HEAD: &str = "apiVersion: rota.dev/v1alpha1\nkind: Task\n";

    #[test]
    fn directory_manifests_are_sorted() {
        let task = |name: &str| format!("{HEAD}metadata: {{name: {name}}}\nspec: {{prompt: x}}\n");
        let folder = written(&[("b.yml", &task("b")), ("a.yaml", &task("a")), ("readme.md", "not one")]);
        let objects = load(&[folder.path().to_owned()], "default").unwrap();
        let names: Vec<_> = objects.iter().map(Object::name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(load(&[written(&[]).path().to_owned()], "default").is_err());
        assert!(load(&[folder.path().join("none.yaml")], "default").is_err());
    }

    #[test]
    fn all_problems_are_reported_with_position() {
        let text = format!(
            "{HEAD}metadata: {{name: a}}\nspec: {{agent: A}}\n---\n{HEAD}metadata: {{name: a}}\nspec: {{}}\n---\n"
        );
        let folder = written(&[("a.yaml", &text), ("b.yaml", "kind: Task\nspec: [")]);
        let error = load(&[folder.path().to_owned()], "default").unwrap_err();
        assert!(error.to_string().contains("3 problems"), "{error}");
        let wrong = &error.downcast_ref::<Failure>().unwrap().causes;
        for (wrong, word) in wrong.iter().zip([
            "a.yaml:1: spec.agent: ",
            "a.yaml:6: Task \"a\" is also defined at",
            "b.yaml:2:7: ",
        ]) {
            assert!(wrong.contains(word), "{wrong}");
        }
    }
}
