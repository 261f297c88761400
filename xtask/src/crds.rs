//! `cargo xtask crds`: `crds/`, the definitions that a cluster gets, written from the code. The same
//! files go into the chart that installs them.

use anyhow::Context;

use crate::workspace;

/// Where the definitions are: for people, and for the chart that installs them.
const FOLDERS: [&str; 2] = ["crds", "charts/rota-crds/files"];
/// First line of every file.
const MARK: &str = "# Written by `cargo xtask crds`. Do not edit.\n";

/// Writes the files, or says which ones are not as they would be written.
pub(crate) fn run(check: bool) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for definition in rota_crds::resource::definitions() {
        let name = format!("{}.yaml", definition.metadata.name.as_deref().context("no name")?);
        let text =
            format!("{MARK}{}", rota_crds::resource::to_yaml(&definition).map_err(anyhow::Error::msg)?);
        for folder in FOLDERS {
            problems.extend(file(&format!("{folder}/{name}"), &text, check)?);
        }
    }
    Ok(problems)
}

fn file(name: &str, text: &str, check: bool) -> anyhow::Result<Option<String>> {
    let path = workspace::root().join(name);
    if std::fs::read_to_string(&path).is_ok_and(|committed| committed == text) {
        return Ok(None);
    }
    if check {
        return Ok(Some(format!("{name} is out of date: run `cargo xtask crds`")));
    }
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    println!("wrote {name}");
    Ok(None)
}
