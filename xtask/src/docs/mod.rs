//! `cargo xtask docs`: the reference under `docs/reference/`, written from the code. Each page is a
//! file of its own here and only makes text; this one writes it, or compares it.

mod api;
mod cli;
mod config;
mod errors;
mod failures;
mod manifests;
mod metrics;
mod schema;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{protos, workspace};

/// Where the pages are.
const FOLDER: &str = "docs/reference";
/// First line of every page.
const MARK: &str = "<!-- Written by `cargo xtask docs`. Do not edit. -->";

/// Pages by their path below the folder.
type Pages = BTreeMap<&'static str, String>;

/// Writes the pages, or says which ones are not as they would be written.
pub(crate) fn run(check: bool, rota: Option<PathBuf>) -> anyhow::Result<Vec<String>> {
    let rota = match rota {
        Some(rota) => std::path::absolute(rota)?,
        None => cli::build()?,
    };
    let folder = workspace::root().join(FOLDER);
    let pages = pages(&rota)?;
    if check { compare(&folder, &pages) } else { write(&folder, &pages).map(|()| Vec::new()) }
}

fn pages(rota: &Path) -> anyhow::Result<Pages> {
    let files = protos::files()?;
    let mut pages = Pages::new();
    pages.insert("cli.md", cli::page(rota).context("the CLI's page")?);
    pages.insert("config.md", config::page(rota).context("the configuration's page")?);
    pages.insert("api.md", api::page(&files, "rota.v1"));
    pages.insert("worker-protocol.md", api::page(&files, "rota.worker.v1"));
    pages.insert("errors.md", errors::page());
    pages.insert("failures.md", failures::page(&files).context("the page of failures")?);
    pages.insert("metrics.md", metrics::page());
    pages.insert("manifests.md", manifests::page()?);
    pages.insert("agent.schema.json", manifests::schema::<rota_crds::Agent>()?);
    pages.insert("task.schema.json", manifests::schema::<rota_crds::Task>()?);
    pages.insert("README.md", index());
    Ok(pages)
}

fn index() -> String {
    format!(
        "{MARK}\n\n# Reference\n\nThese pages are written from the code by `make docs`, and compared with it in CI.\n\n\
         - [Command line](cli.md): every command and option\n\
         - [Configuration](config.md): every key with its default\n\
         - [API](api.md): services and messages of `rota.v1`\n\
         - [Worker protocol](worker-protocol.md): the session between a worker and the control plane\n\
         - [Errors](errors.md): reasons that calls fail with\n\
         - [Failures](failures.md): classes of failed attempts, and what is done about each\n\
         - [Metrics](metrics.md): what the control plane counts\n\
         - [Manifests](manifests.md): `Agent` and `Task` as `rota apply` and `kubectl apply` take them; for editors as JSON\n  \
           schema: [agent](agent.schema.json), [task](task.schema.json)\n"
    )
}

fn write(folder: &Path, pages: &Pages) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for stray in strays(folder, pages)? {
        std::fs::remove_file(folder.join(&stray))?;
        println!("removed {FOLDER}/{stray}");
    }
    for (name, text) in pages {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).ok().as_ref() != Some(text) {
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("wrote {FOLDER}/{name}");
        }
    }
    Ok(())
}

fn compare(folder: &Path, pages: &Pages) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, text) in pages {
        let committed = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        if let Some(line) = first_difference(&committed, text) {
            problems.push(format!("{FOLDER}/{name} is out of date (line {line}): run `make docs`"));
        }
    }
    for stray in strays(folder, pages)? {
        problems.push(format!("{FOLDER}/{stray} is written by nobody: run `make docs`"));
    }
    Ok(problems)
}

fn first_difference(old: &str, new: &str) -> Option<usize> {
    if old == new {
        return None;
    }
    let same = old.lines().zip(new.lines()).take_while(|(old, new)| old == new).count();
    Some(same + 1)
}

/// Files of the folder that no page is.
fn strays(folder: &Path, pages: &Pages) -> anyhow::Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut strays = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !pages.contains_key(name.as_str()) {
            strays.push(name);
        }
    }
    strays.sort();
    Ok(strays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_compares_equal_and_what_is_changed_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("reference");
        let mut pages = Pages::from([("a.md", "one\ntwo\n".to_owned())]);
        assert_eq!(compare(&folder, &pages).unwrap().len(), 1);
        write(&folder, &pages).unwrap();
        assert_eq!(compare(&folder, &pages).unwrap(), Vec::<String>::new());
        pages.insert("a.md", "one\n2\n".to_owned());
        assert!(compare(&folder, &pages).unwrap()[0].contains("line 2"));
        std::fs::write(folder.join("b.md"), "").unwrap();
        assert_eq!(compare(&folder, &pages).unwrap().len(), 2);
        write(&folder, &pages).unwrap();
        assert_eq!(compare(&folder, &pages).unwrap(), Vec::<String>::new());
    }
}
