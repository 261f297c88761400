//! `cargo xtask check`: each rule is a file of its own and gives sentences about what breaks it.

mod bans;
mod directions;
mod files;
mod licences;
mod links;
mod spdx;

use crate::workspace;

/// Runs every check.
pub(crate) fn run() -> anyhow::Result<Vec<String>> {
    let metadata = workspace::metadata()?;
    let tree = workspace::tree()?;
    let deny = bans::Deny::read(&workspace::root().join("deny.toml"))?;
    let files = files::read(workspace::root(), workspace::files()?);

    let mut problems = Vec::new();
    let mut note = |what: &str, found: Vec<String>| {
        println!("{} {what}", if found.is_empty() { "ok  " } else { "BAD " });
        problems.extend(found.into_iter().map(|one| format!("{what}: {one}")));
    };
    note("directions between crates", directions::check(&metadata));
    note("what is nowhere, and what is there once", bans::check(&deny, &tree));
    note("licences", licences::check(&deny, &metadata, &tree));
    note("files", files::check(&files));
    note("links", links::check(workspace::root(), &files));
    note("style of the protos", crate::protos::run()?);
    note("definitions of custom resources", crate::crds::run(true)?);
    Ok(problems)
}
