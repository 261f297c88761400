//! Files that are inputs of workflows: the values that expressions see of them, and which a task or the workflow of a step is given.
//! Knows nothing of their contents.

use std::collections::BTreeMap;

use pbjson_types::Struct;
use rota_proto::v1;
use serde_json::json;
use tonic::Status;

use crate::wire::check;
use crate::wire::status::invalid;

const MAX_FILES: usize = 64;
const MAX_NAME: usize = 63;

/// Files by the names of the inputs that they are.
pub(crate) type Files = BTreeMap<String, v1::Artifact>;

/// Returns the value of an input that is a file. Its hash is part of it: results are reused only for the same content.
fn value(file: &v1::Artifact) -> Result<pbjson_types::Value, Status> {
    let value = json!({ "path": file.name, "size": file.size, "sha256": file.sha256 });
    serde_json::from_value(value).map_err(|error| Status::internal(error.to_string()))
}

/// Adds the values of the inputs that are files.
pub(crate) fn add_values(field: &str, files: &Files, inputs: &mut Struct) -> Result<(), Status> {
    check::count("workflow.spec.input_files", files.len(), MAX_FILES)?;
    for (name, file) in files {
        check::length("workflow.spec.input_files", name, MAX_NAME)?;
        let value = value(file)?;
        match inputs.fields.get(name) {
            // A rerun has those of the earlier workflow.
            Some(other) if *other != value => {
                let field = format!("{field}.{}", check::shorten(name));
                return Err(invalid(field, "must not have a value, since the input is a file"));
            }
            _ => inputs.fields.insert(name.clone(), value),
        };
    }
    Ok(())
}

/// Returns those of some files that are values of inputs, by the names of these.
pub(crate) fn passed_on(files: &Files, inputs: &Struct) -> Result<Files, Status> {
    let mut passed = Files::new();
    for file in files.values() {
        let value = value(file)?;
        let names = inputs.fields.iter().filter(|(_, given)| **given == value).map(|(name, _)| name);
        passed.extend(names.map(|name| (name.clone(), file.clone())));
    }
    Ok(passed)
}

/// Returns distinct files: several inputs may be the same one.
pub(crate) fn distinct<'a>(files: impl Iterator<Item = &'a v1::Artifact>) -> Vec<v1::Artifact> {
    let mut distinct: Vec<v1::Artifact> = Vec::new();
    for file in files {
        if !distinct.contains(file) {
            distinct.push(file.clone());
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        let file = |name: &str| v1::Artifact { name: name.to_owned(), size: 3, ..v1::Artifact::default() };
        Files::from([("a".to_owned(), file("input/a.csv")), ("b".to_owned(), file("input/b.csv"))])
    }

    #[test]
    fn inputs_that_are_files_have_no_other_value() {
        let mut inputs = Struct::default();
        add_values("inputs", &files(), &mut inputs).unwrap();
        let seen = serde_json::to_value(&inputs).unwrap();
        assert_eq!(seen["a"], json!({ "path": "input/a.csv", "size": 3.0, "sha256": "" }));
        add_values("inputs", &files(), &mut inputs).unwrap();
        inputs.fields.insert("b".to_owned(), true.into());
        let refused = add_values("inputs", &files(), &mut inputs).unwrap_err();
        assert!(refused.message().starts_with("inputs.b: "), "{refused}");
    }

    #[test]
    fn workflow_of_a_step_has_the_files_that_are_its_inputs() {
        let mut inputs = Struct::default();
        add_values("inputs", &files(), &mut inputs).unwrap();
        let a = inputs.fields.remove("a").unwrap();
        inputs.fields.insert("b".to_owned(), "input/b.csv".to_owned().into());
        inputs.fields.insert("data".to_owned(), a);
        let passed = passed_on(&files(), &inputs).unwrap();
        let names: Vec<_> = passed.iter().map(|(name, file)| (name.as_str(), file.name.as_str())).collect();
        assert_eq!(names, [("data", "input/a.csv")], "a text with a path is no file");
    }
}
