//! `cargo xtask crds`: `crds/`, the definitions that a cluster gets, written from the code. The same
//! files go into the chart that installs them.

use std::path::Path;

use anyhow::Context;

use crate::workspace;

/// Where the definitions are.
const FOLDER: &str = "crds";
/// First line of every file.
const MARK: &str = "# Written by `cargo xtask crds`. Do not edit.\n";

/// Writes the files, or says which ones are not as they would be written.
pub(crate) fn run(check: bool) -> anyhow::Result<Vec<String>> {
    let folder = workspace::root().join(FOLDER);
    if !check {
        std::fs::create_dir_all(&folder).with_context(|| FOLDER.to_owned())?;
    }
    let mut problems = Vec::new();
    for definition in rota_crds::resource::definitions() {
        let name = format!("{}.yaml", definition.metadata.name.as_deref().context("no name")?);
        let text =
            format!("{MARK}{}", rota_crds::resource::to_yaml(&definition).map_err(anyhow::Error::msg)?);
        problems.extend(file(&folder.join(&name), &name, &text, check)?);
    }
    Ok(problems)
}

fn file(path: &Path, name: &str, text: &str, check: bool) -> anyhow::Result<Option<String>> {
    if std::fs::read_to_string(path).is_ok_and(|committed| committed == text) {
        return Ok(None);
    }
    if check {
        return Ok(Some(format!("{FOLDER}/{name} is out of date: run `cargo xtask crds`")));
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    println!("wrote {FOLDER}/{name}");
    Ok(None)
}
