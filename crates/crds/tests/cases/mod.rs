//! Loads the manifests in `cel/`: for each rule, accepted and rejected ones. Shared with the end-to-end tests.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) message: String,
    pub(super) accepted: Value,
    pub(super) rejected: Value,
}

/// Returns all cases, each with its position.
pub(super) fn cases(folder: &Path) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (index, part) in text.split("\n---\n").enumerate() {
            let place = format!("{} {index}", path.file_name().unwrap().to_string_lossy());
            let case = serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{place}: {error}"));
            cases.push((place, case));
        }
    }
    cases
}
